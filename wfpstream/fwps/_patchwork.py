"""What an item became that was decided piece by piece: views in their order, and whose bytes each one is.

Hundreds of pieces may come of one item, and nearly always all of them are sent at once: so the original ones are no
runs, and the injected ones no injections of their own, until somebody needs them to be. Owns the tail of an `_output`;
it must not know what a completed injection means.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol

from ._run import WORTH_TRIMMING, InjectedBuffer, Run

if TYPE_CHECKING:
    from collections import deque

Parts = list[tuple[Run, int]]
"""Injected runs, and so many bytes of each."""


class EditingLane(Protocol):
    """The lane whose injections lie here, as far as that matters; `stage` is a `Stage`."""

    stage: Any
    direction: int
    under_way: deque[InjectedBuffer]

    def expect(self, buffers: Iterable[InjectedBuffer]) -> None: ...


class Patchwork:
    """Pieces that are owed to a receiver, none of them urgent.

    Attributes:
        views: the bytes of each.
        owners: whose they are: of an injected run; of an injection that has no run yet (None); else original ones, and
            the place of the first of them in the stream.
        fresh: so many of the last pieces may lie in the driver's buffer.
        named: how many pieces are injected runs.
        nameless: how many injections have no run yet; all of them of `lane`, by `handle`, and behind the others.
        nameless_bytes: their bytes.
    """

    __slots__ = ("fresh", "handle", "lane", "named", "nameless", "nameless_bytes", "owners", "views")

    def __init__(self) -> None:
        self.views: list[memoryview] = []
        self.owners: list[Run | int | None] = []
        self.fresh = 0
        self.named = 0
        self.nameless = 0
        self.nameless_bytes = 0
        self.lane: EditingLane
        self.handle: Any = None

    def belong(self, lane: EditingLane, handle: Any) -> None:
        """Injections without a run are of this lane and handle from now on."""
        self.name_all()
        self.lane = lane
        self.handle = handle

    def name_all(self) -> None:
        """Every injection gets its run and is under way (CMP-6) as if it had been from the beginning."""
        if not self.nameless:
            return
        lane, handle = self.lane, self.handle
        self.nameless = self.nameless_bytes = 0
        buffers = []
        for place, owner in enumerate(self.owners):
            if owner is None:
                view = self.views[place]
                buffer = InjectedBuffer(None, len(view), lane, handle, None, None)
                buffers.append(buffer)
                self.owners[place] = Run(
                    view, buffer, 0, lane.stage.next_sub_layer, 0, provenance=handle.provenance
                )
                self.named += 1
        lane.expect(buffers)

    def first(self, most: int) -> list[memoryview]:
        """The first pieces, at most so many."""
        return self.views[:most]

    def take_all(self) -> Parts:
        """All of it has been sent: the injected runs, and how much of each."""
        return self._injected(len(self.views)) if self.named else []

    def take(self, count: int) -> tuple[Parts, int, int]:
        """So many bytes have been sent, but not all.

        Returns the injected runs among them and how much of each; the number of injections without one, and their
        bytes: those are sent whole, or have a run from now on.
        """
        views, owners = self.views, self.owners
        ends = list(accumulate(map(len, views)))
        whole = bisect_right(ends, count)
        begun = count - ends[whole - 1] if whole else count
        if begun and owners[whole] is None:
            self.name_all()
        gone = self._injected(whole) if self.named else []
        self.named -= len(gone)
        number = owners[:whole].count(None) if self.nameless else 0
        length = 0
        if number:
            pairs = zip(owners[:whole], views, strict=False)
            length = sum([len(view) for owner, view in pairs if owner is None])
            self.nameless -= number
            self.nameless_bytes -= length
        del views[:whole], owners[:whole]
        if begun:
            owner = owners[0]
            views[0] = views[0][begun:]
            if isinstance(owner, Run):
                gone.append((owner, begun))
            elif owner is not None:
                owners[0] = owner + begun
        return gone, number, length

    def _injected(self, first: int) -> Parts:
        pairs = zip(self.owners[:first], self.views, strict=False)
        return [(owner, len(view)) for owner, view in pairs if isinstance(owner, Run)]

    def runs(self) -> Iterator[Run]:
        """The pieces as runs."""
        self.name_all()
        fresh_from = len(self.views) - self.fresh
        for number, (view, owner) in enumerate(zip(self.views, self.owners, strict=True)):
            if isinstance(owner, Run):
                owner.view = view
                owner.length = len(view)
                yield owner
            else:
                assert owner is not None
                yield Run(view, None, 0, 0, owner, number >= fresh_from)

    def keep(self) -> None:
        """Copy what may lie in the driver's buffer, all into one place; give back memory that is hardly used."""
        if self.fresh:
            self._copy_last(min(self.fresh, len(self.views)))
            self.fresh = 0
        elif self._wastes_memory():
            self._copy_last(len(self.views))

    def _copy_last(self, count: int) -> None:
        views, owners = self.views, self.owners
        late = [(views.pop(), owners.pop()) for _ in range(count)]
        late.reverse()
        copy = memoryview(b"".join([view for view, owner in late if type(owner) is int]))
        at = 0
        for view, owner in late:
            owners.append(owner)
            if type(owner) is int:
                end = at + len(view)
                views.append(copy[at:end])
                at = end
            else:
                views.append(view)

    def _wastes_memory(self) -> bool:
        """IND-25: less than a quarter is left of the place where the first of the original pieces lies."""
        place: object = None
        wanted = 0
        for view, owner in zip(self.views, self.owners, strict=True):
            if type(owner) is not int:
                continue
            if place is None:
                place = view.obj
                wanted = len(view.obj)  # type: ignore[arg-type]
                if wanted <= WORTH_TRIMMING:
                    return False
            elif view.obj is not place:
                break
            wanted -= 4 * len(view)
            if wanted <= 0:
                return False
        return place is not None
