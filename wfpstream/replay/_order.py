"""One order for everything a replay tells, however many processes replay the capture.

Owns the key of every event and frame: the packet at which it happened, the instant of capture time, the stream. What
timers of several streams do between two packets is sorted by it; the rest already comes that way. Shards of one
capture give the same thing the same key, so a merge by it is the order of the whole. It must not know what becomes of
events and frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Key = tuple[int, int, int]
"""(step, instant in ns, stream or whatever numbers streams in order of appearance); `STEPS` steps per packet."""

# What belongs to one packet: what was due before it, streams that were quiet too long, the packet itself.
STEPS = 4
DUE, QUIET = 2, 1

Event = dict[str, Any]
EventTaker = Callable[[Key, Event], None]
FrameTaker = Callable[[Key, int, bytes], None]


class Order:
    """Hands events and frames on in order, with their keys.

    Attributes:
        step: grows by `STEPS` with every packet; the end of the capture has steps of its own.
        now_ns: capture time, ns.
    """

    __slots__ = ("_held", "_held_step", "_take_event", "_take_frame", "now_ns", "step")

    def __init__(self, take_event: EventTaker | None, take_frame: FrameTaker | None) -> None:
        self.step = 0
        self.now_ns = 0
        self._take_event = take_event
        self._take_frame = take_frame
        self._held_step = 0
        self._held: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] | None = None

    def event(self, event: Event) -> None:
        """The engine tells something."""
        if self._take_event is not None:
            self._tell(event["flow"], self._take_event, event)

    def frame(self, number: int, time_ns: int, frame: bytes) -> None:
        """A stream writes a frame."""
        if self._take_frame is not None:
            self._tell(number, self._take_frame, time_ns, frame)

    def _tell(self, number: int, take: Callable[..., None], *what: Any) -> None:
        if self._held is None:
            take((self.step, self.now_ns, number), *what)
        else:
            self._held.append((self.now_ns, number, take, what))

    def hold(self, before: int = 0) -> None:
        """From now on streams take turns at instants: sort before handing on.

        Args:
            before: so many steps before the present one it belongs (`DUE`, `QUIET`).
        """
        if self._held is None:
            self._held = []
            self._held_step = self.step - before

    def release(self) -> None:
        """Hand on what was held, by instant and stream."""
        held, self._held = self._held or [], None
        held.sort(key=lambda entry: entry[:2])
        for instant_ns, number, take, what in held:
            take((self._held_step, instant_ns, number), *what)
