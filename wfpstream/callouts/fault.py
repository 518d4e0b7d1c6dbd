"""`fault`: something goes wrong, at a chosen byte or time of chosen connections, the same each time.

Owns how each fault is done with the means of a callout. Where and to whom it is done is the plan's.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from wfpstream.fwp import NtStatus
from wfpstream.fwps import ClassifyOut, NetBufferList, Pended, StreamCalloutIoPacket, StreamData, Worker

from ._answers import DISCONNECT, block, defer, drop, permit
from ._connections import CountedLane, CountingCallout
from ._fault_plan import Deed, FaultPlan
from ._insist import insist
from ._lane_callout import block_here, inject_here
from ._lanes import Direction
from ._options import Rate, Size, Time, parse_rate, parse_size, parse_time

# A callout below may keep a slice until it has more: not for ever, since we have it. Seconds.
_KEPT_BELOW = 0.05
# A stall without an end: it ends when the callout drains.
_FOR_EVER = 1e9


# An early end outbound; a FIN that is never to arrive.
_BREAKS = {"fin": ("V-19",), "blackhole": ("V-52",)}


class FaultLane(CountedLane):
    """A direction that may get the fault.

    Attributes:
        chosen: its connection is one of those that do.
        offset: bytes that passed before the fault, then with it as far as it counts.
        struck: the fault has begun.
        over: it has ended; everything passes.
        timer: what is still to happen.
        deferred: flags of the indication a stall has deferred; 0 if none.
        fin_held: the FIN was pended.
        fin_early: a FIN was injected before its time.
        resetting: the reset comes as soon as the bytes before it are written.
        changed: bytes corrupted.
    """

    __slots__ = (
        "changed",
        "chosen",
        "deferred",
        "fin_early",
        "fin_held",
        "offset",
        "over",
        "resetting",
        "struck",
        "timer",
    )

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.chosen = False
        self.offset = 0
        self.struck = False
        self.over = False
        self.timer: Any = None
        self.deferred = 0
        self.fin_held = False
        self.fin_early = False
        self.resetting = False
        self.changed = 0

    def cancel(self) -> None:
        """Nothing more is to happen by itself."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class FaultWorker(Worker):
    """Stalls an outbound direction, or slices one; both need the bytes out of band."""

    async def run(self) -> None:
        """First the stall, if that is the fault; then everything in order."""
        fault = self.callout
        assert isinstance(fault, Fault)
        plan = fault.plan
        if plan.do == "stall":
            await self.sleep(_FOR_EVER if plan.lasts is None else plan.lasts)
        while True:
            item = await self.next()
            if item.kind == "data":
                await self._pass_on(item, plan)
            elif item.kind == "end":
                await self.inject_fin()
                return
            else:
                return

    async def _pass_on(self, item: Pended, plan: FaultPlan) -> None:
        done = 0
        while plan.do == "slice" and not self.draining and done < len(item.data):
            piece = item.data[done : done + plan.size]
            done += len(piece)
            handle = await self.inject(piece)
            if plan.rate is not None:
                await self.sleep(len(piece) / plan.rate)
            else:
                # Written before the next one is there: slices of their own on the wire as well.
                await self.completed(handle, within=_KEPT_BELOW)
        # What is left goes at once: whoever takes slices back does not want to wait for a million of them.
        if not done:
            await self.inject(item)
        elif done < len(item.data):
            await self.inject(item.data[done:])


class Fault(CountingCallout[FaultLane]):
    """Breaks connections on purpose, and the same way in every run.

    `fin` ends a direction early (outbound no callout may do that: V-19, told as lint here), `rst` resets the
    connection once the bytes before it are written (what the kernel has not sent by then is lost), `stall` stops a
    direction, `truncate` drops what follows but not the end, `blackhole` drops the end too, `corrupt` changes
    bytes, `slice` cuts what follows into small pieces. A stall always recovers: after `for`, or when the callout is
    removed (drained). With both directions each of them counts for itself.

    Args:
        do: what goes wrong.
        after: how many bytes of a direction pass before; 0 waits for the first byte.
        at: instead of `after`: how long after the connection was established.
        for_: how long a stall lasts; for ever, if not given.
        size: bytes that are corrupted, or of one slice.
        rate: how fast slices follow each other; as fast as they are written, if not given.
        nth: only the nth connection of the listener, counted from 1.
        every: only each connection whose number divides by this.
        probability: share of the connections, from 0 to 1.
        seed: another seed, other connections and other corrupted bytes.
        direction: where it goes wrong.

    Raises:
        ValueError: options that contradict each other.
    """

    worker_class = FaultWorker
    name = "fault"
    example = "fault,do=rst,after=1KiB,direction=to_client"

    def __init__(
        self,
        do: Deed,
        after: Size | None = None,
        at: Time | None = None,
        for_: Time | None = None,
        size: Size = 1,
        rate: Rate | None = None,
        nth: int | None = None,
        every: int | None = None,
        probability: float = 1.0,
        seed: int = 0,
        direction: Direction = "both",
    ) -> None:
        super().__init__(FaultLane, direction)
        self.plan = FaultPlan(
            do=do,
            after=None if after is None else parse_size(after),
            at=None if at is None else parse_time(at),
            lasts=None if for_ is None else parse_time(for_),
            size=parse_size(size),
            rate=None if rate is None else parse_rate(rate),
            nth=nth,
            every=every,
            probability=probability,
            seed=seed,
        )
        self.flows_are_independent = not self.plan.counts
        self.output_depends_on = () if at is None else ("time",)
        for_ever = do == "stall" and for_ is None
        self.breaks_by_design = ("V-52",) if for_ever else _BREAKS.get(do, ())

    def opened(self, lane: FaultLane) -> None:
        """Choose; a fault at a time has its clock started."""
        lane.chosen = not self.draining and self.plan.chooses(lane.listener, lane.number)
        if lane.chosen and self.plan.at is not None:
            lane.timer = self.after(self.plan.at, self._strike, lane)

    def pends(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Pass what comes before the fault; do it to the rest."""
        if lane.pended:
            return True
        if not lane.chosen or lane.over:
            return False
        if not lane.struck and not self._reached(lane, stream, packet, answer):
            return False
        return _DEEDS[self.plan.do](self, lane, stream, packet, answer)

    def _reached(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Whether the fault begins with the first byte indicated; the bytes before it are permitted."""
        length = stream.data_length
        room = math.inf if self.plan.at is not None else (self.plan.after or 0) - lane.offset
        if not room and length:
            lane.cancel()
            lane.struck = True
            return True
        if self.plan.do == "rst" and 0 < room <= length:
            self._reset_behind(lane, int(room), stream, packet, answer)
            return False
        lane.offset += int(min(room, length))
        if room <= length > 0:
            permit(packet, answer, int(room))
            # It does not wait for a byte that may never come.
            lane.timer = self.after(0.0, self._strike, lane)
        return False

    def _reset_behind(
        self,
        lane: FaultLane,
        room: int,
        stream: StreamData,
        packet: StreamCalloutIoPacket,
        answer: ClassifyOut,
    ) -> None:
        """Pass `room` bytes and reset when they are written: an abort does not wait for what is owed (DRP-2).

        Only an injection tells when it has left (CMP-4), so the last byte goes by one.
        """
        if room > 1:
            permit(packet, answer, room - 1)
            lane.offset += room - 1
            return
        lane.offset += 1
        lane.struck = lane.resetting = True
        block(packet, answer, 1)
        data = stream.view()[:1].tobytes()
        _, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, 1)
        if nbl is None:
            drop(packet, answer)
            return
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            lane.flow_id,
            self.callout_id(lane.layer_id),
            lane.layer_id,
            lane.flags,
            nbl,
            1,
            self._written,
            lane,
        )
        if not status.ok:
            self.fwps.free_net_buffer_list(nbl)
            drop(packet, answer)

    def _written(self, lane: FaultLane, nbl: NetBufferList, dispatch_level: bool) -> None:
        arrived = nbl.status == NtStatus.STATUS_SUCCESS
        self.fwps.free_net_buffer_list(nbl)
        if arrived and not self.draining:
            lane.resetting = False
            self._abort(lane)

    def _strike(self, lane: FaultLane) -> None:
        """The fault begins between two indications."""
        lane.timer = None
        lane.struck = True
        if self.plan.do == "rst":
            self._abort(lane)
        elif self.plan.do == "fin":
            self._end_early(lane)

    def _abort(self, lane: FaultLane) -> None:
        insist(self, lane.flow_id, partial(self.fwps.flow_abort, lane.flow_id))

    # -- the deeds: each answers an indication, and says whether the worker gets it ------------------------

    def _fin(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        self._end_early(lane)
        return self._truncate(lane, stream, packet, answer)

    def _end_early(self, lane: FaultLane) -> None:
        if not lane.fin_early:
            lane.cancel()
            # Refused, it is tried again with what comes next.
            lane.fin_early = self.inject_fin(lane.flow_id, lane.layer_id, lane.flags).ok

    def _rst(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        if lane.resetting:
            block(packet, answer)  # behind the bytes that are on their way, and never to arrive
        else:
            drop(packet, answer)
        return False

    def _truncate(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        if stream.data_length:
            if lane.fin_early:
                block(packet, answer)
            else:
                block_here(self, lane, stream, packet, answer, stream.data_length)
        return False

    def _blackhole(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        lane.fin_held = bool(stream.flags & DISCONNECT)
        block(packet, answer)
        return False

    def _corrupt(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        count = min(self.plan.size - lane.changed, stream.data_length)
        if count:
            data = stream.view()[:count].tobytes()
            offset = lane.offset + lane.changed
            data = self.plan.corrupt(data, lane.listener, lane.number, lane.direction, offset)
            if inject_here(self, lane, stream, data, packet, answer):
                block_here(self, lane, stream, packet, answer, count)
                lane.changed += count
                lane.over = lane.changed == self.plan.size
        return False

    def _stall(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        if not lane.inbound:
            return True
        if stream.data_length:
            defer(packet, answer)
            lane.deferred = stream.flags
        else:
            block(packet, answer)
            lane.fin_held = True
        if lane.timer is None and self.plan.lasts is not None:
            lane.timer = self.after(self.plan.lasts, self._recover, lane)
        return False

    def _slice(
        self, lane: FaultLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        return True

    # -- the end of it -----------------------------------------------------------------------------------

    def _recover(self, lane: FaultLane) -> None:
        lane.cancel()
        lane.over = True
        if lane.deferred or lane.fin_held:
            insist(self, lane.flow_id, partial(self._let_go, lane))

    def _let_go(self, lane: FaultLane) -> NtStatus:
        if not (lane.deferred or lane.fin_held):
            return NtStatus.STATUS_SUCCESS
        if lane.deferred:
            callout_id = self.callout_id(lane.layer_id)
            status = self.fwps.stream_continue(lane.flow_id, callout_id, lane.layer_id, lane.deferred)
            if status.ok:
                lane.deferred = 0
            return status
        status = self.inject_fin(lane.flow_id, lane.layer_id, lane.flags)
        if status.ok:
            lane.fin_held = False
        return status

    def closed(self, lane: FaultLane) -> None:
        """Nothing is left to break."""
        lane.cancel()

    def drain(self) -> None:
        """Release what is held, in order; what a fault took away stays away."""
        super().drain()
        for lane in self.lanes:
            lane.cancel()
            if lane.deferred or lane.fin_held:
                # Not from here: draining may be asked for while a classify is on the stack (DEF-7).
                lane.timer = self.after(0.0, self._recover, lane)


_DEEDS = {
    "fin": Fault._fin,
    "rst": Fault._rst,
    "stall": Fault._stall,
    "truncate": Fault._truncate,
    "blackhole": Fault._blackhole,
    "corrupt": Fault._corrupt,
    "slice": Fault._slice,
}
