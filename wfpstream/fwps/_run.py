"""A run: a piece of one direction's stream on its way through the stages.

Owns splitting and the facts that travel with bytes: whether they are original or injected, which
injection must hear when they leave, where they become visible again, what was lost right before them.
It must not know stages or flows.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NoReturn

from wfpstream.fwp import NtStatus

from ._constants import StreamFlags

EXPEDITED = int(StreamFlags.RECEIVE_EXPEDITED | StreamFlags.SEND_EXPEDITED)

Provenance = tuple[tuple[int, object], ...]
"""(injection handle, injection context) of every injection these bytes came through, oldest first (QPI-2)."""

EMPTY_VIEW = memoryview(b"")


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
    """

    __slots__ = (
        "answer",
        "borrowed",
        "fin",
        "flags",
        "last",
        "length",
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
        front.last = True
        self.missed = 0
        self.view = self.view[length:]
        self.length -= length
        if self.owner is None:
            self.offset += length
        return front

    def keep(self) -> None:
        """Copy borrowed bytes: the driver is about to reuse its buffer (architecture, borrowed bytes)."""
        if self.borrowed:
            self.view = memoryview(bytes(self.view))
            self.borrowed = False

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
