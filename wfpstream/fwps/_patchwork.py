"""What an item became that was decided piece by piece: views in their order, and whose bytes each one is.

Hundreds of pieces may come of one item, and nearly always all of them are sent at once: so the original ones are no
runs, and the injected ones no injections of their own, until somebody needs them to be. Owns the tail of an `_output`;
it must not know what a completed injection means.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from ._run import WORTH_TRIMMING, InjectedBuffer, Run

if TYPE_CHECKING:
    from ._flow import Lane


class Patchwork:
    """Pieces that are owed to a receiver, none of them urgent.

    Attributes:
        views: the bytes of each.
        owners: whose they are: of an injected run; of an injection that has no run yet (None); else original ones, and
            the place of the first of them in the stream.
        fresh: so many of the last pieces may lie in the driver's buffer.
        nameless: how many injections have no run yet; all of them of `lane`, by `handle`, and behind the others.
        nameless_bytes: their bytes.
    """

    __slots__ = ("fresh", "handle", "lane", "nameless", "nameless_bytes", "owners", "views")

    def __init__(self) -> None:
        self.views: deque[memoryview] = deque()
        self.owners: deque[Run | int | None] = deque()
        self.fresh = 0
        self.nameless = 0
        self.nameless_bytes = 0
        self.lane: Lane
        self.handle: Any = None

    def belong(self, lane: Lane, handle: Any) -> None:
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
        owners = self.owners
        for _ in range(len(owners)):
            owner, view = owners.popleft(), self.views[0]
            self.views.rotate(-1)
            if owner is None:
                buffer = InjectedBuffer(None, len(view), lane, handle, None, None)
                owner = Run(view, buffer, 0, lane.stage.next_sub_layer, 0, provenance=handle.provenance)
                lane.expect((buffer,))
            owners.append(owner)

    def first(self, most: int) -> list[memoryview]:
        """The first pieces, at most so many."""
        return list(islice(self.views, most))

    def take_all(self) -> list[tuple[Run, int]]:
        """All of it has been sent: the injected runs, and how much of each."""
        pairs = zip(self.owners, self.views, strict=True)
        return [(owner, len(view)) for owner, view in pairs if isinstance(owner, Run)]

    def take(self, count: int) -> list[tuple[Run, int]]:
        """So many bytes have been sent: as `take_all`. Every injection has its run (`name_all`)."""
        views, owners = self.views, self.owners
        gone: list[tuple[Run, int]] = []
        while count:
            view, owner = views[0], owners[0]
            taken = len(view)
            if taken <= count:
                views.popleft()
                owners.popleft()
            else:
                taken = count
                views[0] = view[taken:]
                if type(owner) is int:
                    owners[0] = owner + taken
            count -= taken
            if isinstance(owner, Run):
                gone.append((owner, taken))
        return gone

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
