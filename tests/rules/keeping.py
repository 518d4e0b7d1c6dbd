"""Owns a callout that references what it is shown and blocks it, for tests that look at it later."""

from __future__ import annotations

from typing import Any

from tests.rules.minimal import BLOCK, Classify, World
from wfpstream.fwps import NetBufferList, StreamData


def private(shown: Any) -> StreamData:
    """A private FWPS_STREAM_DATA0 over the indicated one: same chain, offset and length (REF-1)."""
    return StreamData(shown.flags, shown.data_offset, len(shown), shown.net_buffer_list_chain)


class Kept:
    """Keeps, inside the classify, what the test wants to look at; blocks."""

    def __init__(self, *, references: bool = False) -> None:
        self.references = references
        self.data: list[StreamData] = []
        self.lists: list[NetBufferList] = []
        self.world: World | None = None

    def classify(self) -> Classify:
        def classify(*call: Any) -> None:
            shown = call[2].stream_data
            assert self.world is not None
            if self.references and len(shown):
                nbl = shown.net_buffer_list_chain
                self.world.fwps.reference_net_buffer_list(nbl)
                self.lists.append(nbl)
                self.data.append(private(shown))
            call[-1].action_type = BLOCK

        return classify


def referencing() -> tuple[World, Kept]:
    kept = Kept(references=True)
    kept.world = World(kept.classify())
    return kept.world, kept
