"""One order for everything a replay tells, however many processes replay the capture.

Owns the key of every event and frame: the packet at which it happened, the instant of capture time, the stream. What
timers of several streams do between two packets is sorted by it; the rest already comes that way. It must not know
what becomes of events and frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Key = tuple[int, int, int]
"""(packet, instant in ns, stream or whatever numbers streams in order of appearance)."""

Event = dict[str, Any]
EventTaker = Callable[[Key, Event], None]
FrameTaker = Callable[[Key, int, bytes], None]


class Order:
    """Hands events and frames on in order, with their keys.

    Attributes:
        step: the packet under way, from 1; the end of the capture has steps of its own.
        instant_ns: capture time, ns.
    """

    def __init__(self, take_event: EventTaker | None, take_frame: FrameTaker | None) -> None:
        self.step = 0
        self.instant_ns = 0
        self._take_event = take_event
        self._take_frame = take_frame
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
            take((self.step, self.instant_ns, number), *what)
        else:
            self._held.append((self.instant_ns, number, take, what))

    def hold(self) -> None:
        """From now on streams take turns at instants: sort before handing on."""
        if self._held is None:
            self._held = []

    def release(self) -> None:
        """Hand on what was held, by instant and stream."""
        held, self._held = self._held or [], None
        held.sort(key=lambda entry: entry[:2])
        for instant_ns, number, take, what in held:
            take((self.step, instant_ns, number), *what)
