"""`latency`: everything arrives later, in order.

Owns when an item goes on: when it was indicated, plus the delay, plus a jitter that depends on its place in
the stream. The waiting itself is the worker's (out of band).
"""

from __future__ import annotations

from collections import deque
from random import Random

from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamData, Worker

from ._connections import CountedLane, CountingCallout
from ._lanes import Direction
from ._options import Time, parse_time


class LatencyLane(CountedLane):
    """A direction and the times at which its items go on.

    Attributes:
        due: for each item that waits, oldest first; never decreasing, so that order is kept.
        offset: bytes indicated so far.
    """

    __slots__ = ("due", "offset")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.due: deque[float] = deque()
        self.offset = 0


class LatencyWorker(Worker):
    """Injects each item when it is due."""

    async def run(self) -> None:
        """Data and FIN alike. An item that waits is not taken: reading stops when many do (IND-24)."""
        assert isinstance(self.callout, Latency)
        lane = self.callout.lanes.get(self.flow_handle, self.inbound)
        while True:
            item = await self.next()
            if item.kind not in ("data", "end"):
                return
            if lane is not None and lane.due:
                await self.sleep(max(0.0, lane.due.popleft() - self.now()))
            if item.kind == "end":
                await self.inject_fin()
                return
            await self.inject(item)


class Latency(CountingCallout[LatencyLane]):
    """Delays both data and the end of the stream; order is kept.

    At most half of `limits.pended` is under way in one direction; what more the sender has waits with it.

    Args:
        delay: how long each byte is under way.
        jitter: the delay varies by so much, more or less, from one indication to the next.
        seed: another seed, other variations.
        direction: the directions to delay; both make the round trip longer by twice the delay.
    """

    worker_class = LatencyWorker
    name = "latency"
    example = "latency,delay=100ms,jitter=20ms"

    def __init__(
        self, delay: Time = 0.0, jitter: Time = 0.0, seed: int = 0, direction: Direction = "both"
    ) -> None:
        super().__init__(LatencyLane, direction)
        self._delay = parse_time(delay)
        self._jitter = parse_time(jitter)
        self._seed = seed
        # The n-th connection has the n-th variations.
        self.flows_are_independent = not self._jitter

    def pends(
        self, lane: LatencyLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Everything goes out of band; here only the time is taken at which it came."""
        if not self.draining:
            due = self.now() + self._delay + self._variation(lane)
            lane.due.append(max(due, lane.due[-1] if lane.due else due))
        lane.offset += stream.data_length
        return True

    def _variation(self, lane: LatencyLane) -> float:
        if not self._jitter:
            return 0.0
        place = (self._seed, lane.listener, lane.number, lane.direction, lane.offset)
        variation = Random("/".join(map(str, place))).uniform(-self._jitter, self._jitter)
        return max(-self._delay, variation)
