"""What a test has made, as its reports see it: proxies and pairs with their recorders.

Owns the list of a test, and where each began for it. It must not know reports, files or fixtures.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

if TYPE_CHECKING:
    from wfpstream.testing import Moment, Pair, Recorder

__all__ = ["Watched", "begin_test", "end_test", "watch", "watched_by"]

Kind = Literal["pair", "proxy"]


@dataclass
class Watched:
    """A proxy, or the engine of a pair, that a test has made or uses.

    Attributes:
        kind: "pair" or "proxy".
        label: "pair 1", "proxy 2", ...
        recorder: listens to it.
        zero: wall time of the recorder's 0, seconds since 1970.
        pair: the pair, if it is one.
        since: how many of its entries are of earlier tests.
        told: how many of its violations a report has told of.
    """

    kind: Kind
    label: str
    recorder: Recorder
    zero: float
    pair: Pair | None = None
    since: int = 0
    told: int = field(default=0)

    @property
    def entries(self) -> list[dict[str, Any] | Moment]:
        """What it did for this test."""
        return self.recorder.entries[self.since :]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events among them."""
        return [entry for entry in self.entries if isinstance(entry, dict)]

    @property
    def violations(self) -> list[dict[str, Any]]:
        """The violations among them."""
        return [event for event in self.events if event["event"] == "violation"]


_OF_TEST = pytest.StashKey[list[Watched]]()
# Those that live longer than a test.
_OF_SESSION = pytest.StashKey[list[Watched]]()


def watch(
    owner: pytest.Item | pytest.Config, kind: Kind, recorder: Recorder, pair: Pair | None = None
) -> Watched:
    """A proxy or pair was made: by a test, or (a configuration) to live longer than one."""
    is_test = isinstance(owner, pytest.Item)
    watched = owner.stash.setdefault(_OF_TEST if is_test else _OF_SESSION, [])
    number = sum(one.kind == kind for one in watched) + 1
    label = f"{kind} {number}" if is_test else f"session {kind} {number}"
    zero = time.time() - (time.monotonic() if kind == "proxy" else 0.0)
    watched.append(Watched(kind, label, recorder, zero, pair))
    return watched[-1]


def watched_by(node: pytest.Item) -> list[Watched]:
    """What a test has made so far, and what lives longer and is used by it."""
    uses_longer = "wfp_proxy_session" in getattr(node, "fixturenames", ())
    longer = node.config.stash.get(_OF_SESSION, []) if uses_longer else []
    return [*longer, *node.stash.get(_OF_TEST, [])]


def begin_test(node: pytest.Item) -> None:
    """What lives longer than a test counts anew; of earlier tests only flows that still live are kept.

    So does the test itself: it may have run before, if a plugin repeats failed ones.
    """
    end_test(node)
    for one in node.config.stash.get(_OF_SESSION, []):
        one.recorder.forget_ended()
        one.since = len(one.recorder.entries)
        one.told = 0


def end_test(node: pytest.Item) -> None:
    """Let go of what the test has made."""
    if _OF_TEST in node.stash:
        del node.stash[_OF_TEST]
