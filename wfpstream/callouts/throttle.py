"""`throttle`: so many bytes per second.

Owns the pace of both directions: inbound the peer itself is slowed down (DEFER closes its window), outbound
the bytes are pended and injected as they may go. The arithmetic is the bucket's.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from wfpstream.fwp import NtStatus
from wfpstream.fwps import ClassifyOut, FlowEnded, Pended, StreamCalloutIoPacket, StreamData, Worker

from ._answers import defer, permit
from ._bucket import TokenBucket
from ._insist import insist
from ._lane_callout import WorkerCallout
from ._lanes import Direction, Lane
from ._options import Rate, Size, parse_rate, parse_size

# Without a burst of its own: what a tenth of a second brings. Ten wake-ups a second are smooth enough.
_BURST_SECONDS = 0.1


class ThrottleLane(Lane):
    """An inbound direction and its bucket.

    Attributes:
        bucket: made with the first byte.
        timer: until then the direction is deferred; None while it is not.
        deferred: flags of the indication that was deferred (DEF-8).
    """

    __slots__ = ("bucket", "deferred", "timer")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.bucket: TokenBucket | None = None
        self.timer: Any = None
        self.deferred = 0


class ThrottleWorker(Worker):
    """Injects an outbound direction at the rate it may have."""

    async def run(self) -> None:
        """Data as it may go, the FIN behind it."""
        assert isinstance(self.callout, Throttle)
        bucket = self.callout.new_bucket()
        while True:
            item = await self.next()
            if item.kind == "data":
                await self._pace(item, bucket)
            elif item.kind == "end":
                await self.inject_fin()
                return
            else:
                return

    async def _pace(self, item: Pended, bucket: TokenBucket) -> None:
        at, end = 0, len(item.data)
        while at < end:
            granted = end - at if self.draining else bucket.take(self.now(), end - at)
            if granted == end:
                await self.inject(item)
            elif granted:
                await self.inject(item.data[at : at + granted])
            else:
                await self._wait(bucket.wait(self.now(), end - at))
            at += granted

    async def _wait(self, seconds: float) -> None:
        due = self.now() + seconds
        await self.sleep(seconds)
        if self.now() < due and not self.draining:
            raise FlowEnded("woken before time")  # asked again, the sleep would return at once for ever


class Throttle(WorkerCallout[ThrottleLane]):
    """Lets so many bytes per second through, in each direction of each connection.

    Inbound by DEFER: the window of the peer's own TCP closes. Outbound WFP knows no such thing, so bytes are
    pended out of band, and the sender is held back once `limits.pended` is half full.

    Args:
        rate: bytes per second.
        burst: most bytes at once; a tenth of a second's worth if not given.
        direction: which directions to slow down.

    Raises:
        ValueError: the rate or the burst is 0.
    """

    worker_class = ThrottleWorker
    name = "throttle"
    example = "throttle,rate=64KiB/s"

    def __init__(self, rate: Rate, burst: Size | None = None, direction: Direction = "both") -> None:
        super().__init__(ThrottleLane, direction)
        self._rate = parse_rate(rate)
        if self._rate <= 0:
            raise ValueError("rate: expected more than 0 bytes per second")
        self._burst = max(1, round(self._rate * _BURST_SECONDS)) if burst is None else parse_size(burst)
        if self._burst < 1:
            raise ValueError("burst: expected at least 1 byte")

    def new_bucket(self) -> TokenBucket:
        """A full bucket, from now on."""
        return TokenBucket(self._rate, self._burst, self.now())

    def pends(
        self, lane: ThrottleLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Outbound all of it; inbound what may go is permitted, and the rest deferred."""
        if lane.inbound and stream.data_length:
            self._admit(lane, stream, packet, answer)
        return not lane.inbound

    def _admit(
        self, lane: ThrottleLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        now, wanted = self.now(), stream.data_length
        if lane.bucket is None:
            lane.bucket = self.new_bucket()
        granted = lane.bucket.take(now, wanted)
        if granted:
            permit(packet, answer, granted)
            return
        defer(packet, answer)
        lane.deferred = stream.flags
        lane.timer = self.after(lane.bucket.wait(now, wanted), self._go_on, lane)

    def _go_on(self, lane: ThrottleLane) -> None:
        lane.timer = None
        insist(self, lane.flow_id, partial(self._continue, lane))

    def _continue(self, lane: ThrottleLane) -> NtStatus:
        callout_id = self.callout_id(lane.layer_id)
        return self.fwps.stream_continue(lane.flow_id, callout_id, lane.layer_id, lane.deferred)

    def closed(self, lane: ThrottleLane) -> None:
        """Nothing to continue any more."""
        if lane.timer is not None:
            lane.timer.cancel()

    def drain(self) -> None:
        """Let go of everything now, and of the rest as it comes."""
        super().drain()
        for lane in self.lanes:
            if lane.timer is not None:
                lane.timer.cancel()
                # Not from here: draining may be asked for while a classify is on the stack (DEF-7).
                lane.timer = self.after(0.0, self._go_on, lane)
