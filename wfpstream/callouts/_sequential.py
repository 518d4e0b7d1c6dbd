"""Callouts written as if the stream could be read: one generator per direction.

Owns the way from a generator's steps to the answers of single classifies (NEED_MORE_DATA, partial permits and
blocks, injections). It must not know any protocol.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamData

from . import _answers
from ._answers import LAST, LIMIT_REACHED
from ._lane_callout import LaneCallout, block_here, inject_here
from ._lanes import Direction, Lane

# More steps than this without a byte decided is a `parse` that goes round in circles.
_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """What a `parse` yields; made by `need`, `permit`, `block` and `replace`."""

    kind: Literal["need", "permit", "block"]
    count: int
    data: bytes = b""

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"{self.kind}({self.count}): expected a count of bytes, 0 or more")


def need(count: int) -> Step:
    """Show the next `count` undecided bytes: `data = yield need(4)`. At the end of the stream fewer come."""
    return Step("need", count)


def permit(count: int) -> Step:
    """Pass the next `count` bytes on, also those that have not come yet."""
    return Step("permit", count)


def block(count: int) -> Step:
    """Take the next `count` bytes out of the stream."""
    return Step("block", count)


def replace(count: int, data: bytes) -> Step:
    """Put `data` in place of the next `count` bytes; with 0, in front of the next byte or of the end."""
    return Step("block", count, data)


Steps = Generator[Step, bytes, None]


class ParseLane(Lane):
    """A direction and the generator that decides it.

    Attributes:
        steps: the generator; None once it has returned, and everything passes.
        step: what it asked for last.
        decided: bytes of that step that are decided.
        injected: the data of that step is in.
        cut_short: its last `need` got fewer bytes than it asked for.
    """

    __slots__ = ("cut_short", "decided", "injected", "started", "step", "steps")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.steps: Steps | None = None
        self.step: Step | None = None
        self.started = False
        self.decided = 0
        self.injected = False
        self.cut_short = False

    def advance(self, data: bytes | None) -> None:
        """Run the generator to its next step; with None from its beginning."""
        assert self.steps is not None
        self.decided = 0
        self.injected = False
        try:
            self.step = next(self.steps) if data is None else self.steps.send(data)
        except StopIteration:
            self.stop()

    def stop(self) -> None:
        """The rest of the direction passes."""
        if self.steps is not None:
            self.steps.close()
        self.steps = self.step = None


class SequentialCallout(LaneCallout[ParseLane]):
    r"""Override `parse`: a generator per direction that reads on with `need` and decides byte after byte.

    The same bytes come out for every way to cut the stream. What `parse` leaves undecided when it returns
    passes, and so does the end of the stream. A `need` above 8 MiB cannot be met (NMD-6): parsing ends there.
    With engine option `fin_with_data` nothing can be put behind the last byte, since nothing more is indicated.

    Example: a protocol of one length byte and a body, whose bodies are turned into capitals::

        class Shout(SequentialCallout):
            def parse(self, direction: str) -> Steps:
                while head := (yield need(1)):
                    body = (yield need(1 + head[0]))[1:]
                    yield permit(1)
                    yield replace(len(body), body.upper())

    Args:
        direction: the directions to parse.
    """

    def __init__(self, direction: Direction = "both") -> None:
        super().__init__(ParseLane, direction)

    def parse(self, direction: str) -> Steps:
        """Decide one direction of one flow.

        Args:
            direction: `to_client` or `to_upstream`.

        Yields:
            `need(n)` (its value: the bytes, undecided still), `permit(n)`, `block(n)`,
            `replace(n, data)`.
        """
        raise NotImplementedError

    def decide(
        self, lane: ParseLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Run the generator until it decides something of this indication, or has to wait."""
        if not lane.started:
            lane.started = True
            lane.steps = self.parse(lane.direction)
            lane.advance(None)
        for _ in range(_STEPS):
            if lane.step is None or self._take_step(lane, lane.step, stream, packet, answer):
                return
        raise RuntimeError(f"{type(self).__name__}.parse took {_STEPS} steps without deciding a byte")

    def _take_step(
        self,
        lane: ParseLane,
        step: Step,
        stream: StreamData,
        packet: StreamCalloutIoPacket,
        answer: ClassifyOut,
    ) -> bool:
        """One step; whether the indication is answered by it."""
        if step.kind == "need":
            return self._show(lane, step.count, stream, packet, answer)
        count = min(step.count - lane.decided, stream.data_length)
        if not lane.injected and (count or not step.count):
            lane.injected = True
            if not inject_here(self, lane, stream, step.data, packet, answer):
                return True
        lane.decided += count
        finished = lane.decided == step.count
        if finished:
            lane.cut_short = False
            lane.advance(b"")
        if count:
            if step.kind == "permit":
                _answers.permit(packet, answer, count)
            else:
                block_here(self, lane, stream, packet, answer, count)
            return True
        return not finished  # at the end of the stream there is nothing left to decide it on

    def _show(
        self,
        lane: ParseLane,
        count: int,
        stream: StreamData,
        packet: StreamCalloutIoPacket,
        answer: ClassifyOut,
    ) -> bool:
        if count <= stream.data_length:
            lane.advance(stream.view()[:count].tobytes())
            return False
        if not answer.flags & LAST:
            _answers.need_more(packet, answer, count)
            return True
        if answer.flags & LIMIT_REACHED or lane.cut_short:
            lane.stop()
            return True
        lane.cut_short = True
        lane.advance(stream.tobytes())
        return False

    def closed(self, lane: ParseLane) -> None:
        """Let the generator clean up."""
        lane.stop()
