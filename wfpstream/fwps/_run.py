"""A run: a piece of one direction's stream on its way through the stages.

Owns splitting and the facts that travel with bytes: whether they are original or injected, which
injection must hear when they leave, where they become visible again, what was lost right before them.
It must not know stages or flows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from wfpstream.fwp import NtStatus

from ._constants import StreamFlags
from ._hoard import Hoard

EXPEDITED = int(StreamFlags.RECEIVE_EXPEDITED | StreamFlags.SEND_EXPEDITED)

Provenance = tuple[tuple[int, object], ...]
"""(injection handle, injection context) of every injection these bytes came through, oldest first (QPI-2)."""

EMPTY_VIEW = memoryview(b"")

# Less than this is not worth copying for the memory behind it.
WORTH_TRIMMING = 1024


class InjectedBuffer:
    """One NET_BUFFER_LIST of an accepted injection, until its completion (CMP-1).

    `remaining` counts its bytes still in the pipeline; a FIN-only list waits for its FIN instead. Without a list
    (`nbl` None) there is nobody to tell when it is complete (`_quick_injection`).
    """

    __slots__ = (
        "completion_context",
        "completion_fn",
        "done",
        "handle",
        "lane",
        "length",
        "nbl",
        "remaining",
        "status",
    )

    def __init__(
        self, nbl: Any, length: int, lane: Any, handle: Any, completion_fn: Any, completion_context: Any
    ) -> None:
        self.nbl = nbl
        self.length = length
        self.remaining = length
        self.lane = lane
        self.handle = handle
        self.completion_fn = completion_fn
        self.completion_context = completion_context
        self.done = False
        self.status = NtStatus.STATUS_SUCCESS


class Run:
    """Bytes with one origin, or a FIN (`fin`, length 0).

    Attributes:
        view: the bytes; `borrowed` while they lie in the driver's receive buffer.
        owner: the injected buffer they belong to, None for original bytes.
        flags: EXPEDITED, PUSH and NODELAY bits that came with them.
        target: index of the first stage that may see them (ARB-6, INJ-3).
        missed: original bytes that vanished right before this run, for the stages behind (ARB-11).
        seen: already shown to the stage in whose queue it lies.
        last: ends an item; runs of one item are indicated together (IND-21).
        answer: the action type the last callout left in classifyOut for these bytes (IND-8).
        offset: place in the original stream of its first byte, bytes (for events; injected: where it entered).
        hoard: where its bytes lie with the borders of their pieces (NMD-5), if they came in several.
        many: items end at borders inside of it as well.
    """

    __slots__ = (
        "answer",
        "borrowed",
        "fin",
        "flags",
        "hoard",
        "last",
        "length",
        "many",
        "missed",
        "offset",
        "owner",
        "provenance",
        "seen",
        "target",
        "view",
    )

    def __init__(
        self,
        view: memoryview,
        owner: InjectedBuffer | None,
        flags: int,
        target: int,
        offset: int,
        borrowed: bool = False,
        fin: bool = False,
        provenance: Provenance = (),
    ) -> None:
        self.view = view
        self.length = len(view)
        self.owner = owner
        self.flags = flags
        self.target = target
        self.offset = offset
        self.borrowed = borrowed
        self.fin = fin
        self.provenance = provenance
        self.missed = 0
        self.seen = False
        self.last = True
        self.answer = 0
        self.hoard: Hoard | None = None
        self.many = False

    def split(self, length: int) -> Run:
        """Cut off and return the first `length` bytes; this run keeps the rest.

        An urgent mark stays with the last byte (IND-7), what was missed before with the first.
        """
        front = Run(
            self.view[:length],
            self.owner,
            self.flags & ~EXPEDITED,
            self.target,
            self.offset,
            self.borrowed,
            provenance=self.provenance,
        )
        front.missed = self.missed
        front.seen = self.seen
        front.answer = self.answer
        if self.hoard is not None:
            front.last = self.hoard.ends_item(self.offset + length, self.many)
            front.hoard, front.many = self.hoard, self.many
        self.missed = 0
        self.view = self.view[length:]
        self.length -= length
        if self.owner is None:
            self.offset += length
        return front

    def first_item(self) -> Run:
        """Cut off and return the first item of several, or this run if it is the last one."""
        assert self.hoard is not None
        length = self.hoard.first_item(self.offset, self.length)
        front = self if length == self.length else self.split(length)
        front.many = False
        if front is not self:
            self.many = self.hoard.first_item(self.offset, self.length) < self.length
        return front

    def keep(self) -> None:
        """Copy borrowed bytes: the driver is about to reuse its buffer (architecture, borrowed bytes)."""
        if self.borrowed:
            self.view = memoryview(bytes(self.view))
            self.borrowed = False

    def trim(self) -> None:
        """IND-25: a piece that would keep a larger buffer alive is copied when it uses less than a quarter of it."""
        if self.borrowed or self.owner is not None or self.fin:
            return
        memory = len(self.view.obj)  # type: ignore[arg-type]
        if memory <= WORTH_TRIMMING or self.length * 4 >= memory:
            return
        if self.hoard is None:
            self.view = memoryview(bytes(self.view))
        else:
            self._move(0)

    def absorb(self, following: Run, more: int = 0) -> bool:
        """Take in the run that follows, if that changes nothing but where its bytes lie.

        `more` says how many bytes are likely to come after that.
        """
        if (
            self.owner is not None
            or following.owner is not None
            or self.fin
            or following.fin
            or (self.flags | following.flags) & EXPEDITED
            or self.flags != following.flags
            or self.answer != following.answer
            or self.seen != following.seen
            or following.missed
            or self.offset + self.length != following.offset
        ):
            return False
        hoard = self.hoard
        if hoard is None or hoard.end != following.offset or not hoard.has_room(following.length):
            hoard = self._move(following.length + more)
        else:
            hoard.settle(self.offset, self.many, self.last)
        following._put_into(hoard)
        self.many = self.many or self.last or following.many
        self.last = following.last
        self.length += following.length
        self.view = hoard.view(self.offset, self.length)
        return True

    def extend(self, view: memoryview, flags: int, offset: int) -> bool:
        """As `absorb` of an item of original bytes that nobody has seen; only where they lie in a hoard already."""
        hoard = self.hoard
        if (
            hoard is None
            or hoard.end != offset
            or self.flags != flags
            or self.answer
            or self.seen
            or not self.last
            or self.offset + self.length != offset
            or not hoard.has_room(len(view))
        ):
            return False
        if not self.many:
            hoard.settle(self.offset, False, True)
            self.many = True
        hoard.add(view, True)
        self.length += len(view)
        self.view = hoard.view(self.offset, self.length)
        return True

    def _move(self, more: int) -> Hoard:
        """Into a new hoard, with room for `more` bytes, and as much again for what comes then."""
        hoard = Hoard(self.offset, 2 * (self.length + more) if more else self.length)
        self._put_into(hoard)
        self.hoard = hoard
        self.view = hoard.view(self.offset, self.length)
        self.borrowed = False
        return hoard

    def _put_into(self, hoard: Hoard) -> None:
        if self.hoard is None:
            hoard.add(self.view, self.last)
        else:
            hoard.add_pieces(self.view, self.hoard, self.offset, self.many, self.last)

    def pieces(self) -> Iterator[tuple[int, memoryview]]:
        """What it came in: the place and the bytes of each piece."""
        if self.hoard is None:
            yield self.offset, self.view
            return
        at = 0
        for length in self.hoard.lengths(self.offset, self.length):
            yield self.offset + at, self.view[at : at + length]
            at += length

    def __repr__(self) -> str:
        kind = "FIN" if self.fin else f"{self.length} bytes"
        return f"<Run {kind}{' injected' if self.owner else ''} target={self.target}>"


class SharedQueue(deque[Any]):
    """An empty queue in the place of those that most flows never need: a deque has room for 64 from the beginning."""

    __slots__ = ()

    def _refuse(self, *_: Any) -> NoReturn:
        raise AssertionError("a queue that is shared must not be put into")

    append = appendleft = extend = extendleft = insert = _refuse


NO_RUNS: Final[deque[Run]] = SharedQueue()
