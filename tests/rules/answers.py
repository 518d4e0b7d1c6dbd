"""Owns classify functions that always give the same answer.

They live apart from `minimal`, which drives the engine: the place of a violation is the `def` line of a
classify function only where the driving code is in another file.
"""

from __future__ import annotations

from typing import Any

from tests.rules.minimal import BLOCK, PERMIT, Classify, parts


def permit(*call: Any) -> None:
    """A callout that permits everything."""
    call[-1].action_type = PERMIT


def block(*call: Any) -> None:
    """A callout that blocks everything and keeps nothing."""
    call[-1].action_type = BLOCK


def answering(action: int, enforced: int = 0, stream_action: int = 0, required: int = 0) -> Classify:
    """A classify function that always gives this answer."""

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = action
        packet.count_bytes_enforced = enforced
        packet.stream_action = stream_action
        packet.count_bytes_required = required

    return classify


def once(first: Classify, then: Classify = permit) -> Classify:
    """`first` answers the first call, `then` the others; the place is `first`'s only in its own calls."""
    calls: list[int] = []

    def classify(*call: Any) -> None:
        calls.append(1)
        (first if len(calls) == 1 else then)(*call)

    return classify
