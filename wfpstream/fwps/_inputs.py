"""What a driver tells the engine about a flow, one item at a time.

Owns the effect of each input at the border (architecture, the engine's border) and the back-pressure levels
(IND-23, IND-24). It must not know which driver calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _stream_state as rules
from ._bookkeeping import ledger_of
from ._flow import ENDED, LIVE
from ._offload import Offloading
from ._plain import ANY_UNSENT, UNSENT, PlainWay
from ._run import EMPTY_VIEW, Run
from ._straight import StraightWay

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow
    from ._ledger import DirectionLedger
    from ._lifecycle import Lifecycle
    from ._waterfall import Waterfall

PUSH = rules.FLUSH_FLAG[rules.RECEIVE]


class Inputs:
    """The inputs of every flow of one engine."""

    def __init__(self, core: Core, waterfall: Waterfall, lifecycle: Lifecycle) -> None:
        self.core = core
        self.waterfall = waterfall
        self.lifecycle = lifecycle
        self._straight = StraightWay(core, waterfall, lifecycle)
        self.plain = plain = PlainWay(core, waterfall, lifecycle, self)
        self.pass_on = plain.pass_on
        self.owe = plain.owe
        self.relay = plain.relay
        self.relayed = plain.relayed
        self._gone, self._pieces_gone = waterfall.gone, waterfall.pieces_gone
        self.offloading = Offloading(core)
        core.recount = self.recount

    def received(
        self, flow: Flow, direction: int, view: memoryview, urgent: bool, fin: bool, push: bool | None
    ) -> None:
        flow.plain = 0
        straight = not (urgent or fin) and self._straight.is_open(flow, direction)
        if not straight and not self._takes_input(flow, direction):
            flow.unread(direction, len(view))
            return
        if not len(view):
            return
        flags = (
            PUSH if direction and push is None and not urgent else self._flags(flow, direction, urgent, push)
        )
        run = Run(view, None, flags, 0, flow.read[direction], True)
        if flow.hole[direction]:
            self._take_hole(flow, direction, run)
        flow.read[direction] += run.length
        flow.activity = self.core.clock()
        if straight:
            self._straight.take(flow, direction, run)
            return
        if urgent:
            flow.urgent_seen = True
        self.waterfall.deliver(flow, direction, run, 0)
        together = fin and (self.core.options.fin_lookahead or self.core.options.fin_with_data)
        if together:
            self.waterfall.deliver(flow, direction, self._end_of_input(flow, direction), 0)
        self._settle(flow)
        if fin and not together:
            self.received_fin(flow, direction)

    def _flags(self, flow: Flow, direction: int, urgent: bool, push: bool | None) -> int:
        """IND-5: PUSH on every inbound item, or as captured; IND-6: NODELAY as the local leg has it; IND-7."""
        if direction == rules.RECEIVE:
            flags = 0 if push is False else rules.FLUSH_FLAG[1]
        else:
            flags = rules.FLUSH_FLAG[0] if flow.endpoints.nodelay else 0
        return flags | rules.EXPEDITED_FLAG[direction] if urgent else flags

    def received_fin(self, flow: Flow, direction: int) -> None:
        flow.plain = 0
        straight = not self.core.options.repeat_fin and self._straight.is_open(flow, direction)
        if not straight and not self._takes_input(flow, direction):
            return
        fin = self._end_of_input(flow, direction)
        if straight:
            self._straight.take_fin(flow, direction, fin)
            return
        self.waterfall.deliver(flow, direction, fin, 0)
        self._settle(flow)

    def _end_of_input(self, flow: Flow, direction: int) -> Run:
        """The FIN of a direction that nothing follows."""
        flow.input_ended[direction] = True
        flow.fin_in[direction] = True
        flow.fin_time = flow.fin_time or self.core.clock()
        if flow.fin_in[0] and flow.fin_in[1]:
            flow.waits_since = self.core.clock()
        fin = Run(EMPTY_VIEW, None, 0, 0, flow.read[direction], fin=True)
        self._take_hole(flow, direction, fin)
        return fin

    # -- what a capture does not hold ------------------------------------------------------------------

    def gap(self, flow: Flow, direction: int, length: int) -> None:
        """POL-4: with `permit` the next run of this direction carries the hole past every stage."""
        if length <= 0:
            raise ValueError(f"a gap of {length} bytes")
        flow.plain = 0
        flow.missing[direction] += length
        if not self._takes_input(flow, direction):
            return
        flow.hole[direction] += length
        self._meet_policy(flow, "on_gap", dir=flow.direction_name(direction), len=length)

    def midstream(self, flow: Flow) -> None:
        """POL-5: what lies before the first byte seen is counted nowhere."""
        if flow.phase == LIVE and flow.doomed is None:
            self._meet_policy(flow, "on_midstream")

    def _meet_policy(self, flow: Flow, name: str, **place: Any) -> None:
        """POL-1 for the flow as a whole; inspection callouts are met with `permit` (POL-2).

        Where nothing but inspection callouts looks at a flow, that is all there is to do.
        """
        value = getattr(self.core.options.policy, name)
        deciding = [stage for stage in flow.stages if not stage.is_inspection]
        if flow.stages and not deciding:
            value = rules.POLICY_PERMIT
        self.waterfall.report_policy(flow, None, name, value, **place)
        if value == rules.POLICY_DROP:
            self.waterfall.doom(flow, "drop")
        elif value == rules.POLICY_BYPASS:
            for stage in deciding:
                self.waterfall.bypass(flow, stage)
        self._settle(flow)

    def _take_hole(self, flow: Flow, direction: int, run: Run) -> None:
        """POL-4: what is missing lies right before this run (ARB-11: counted by stream position)."""
        run.missed, flow.hole[direction] = flow.hole[direction], 0

    def reset(self, flow: Flow, leg: int, reason: str) -> None:
        if flow.phase != LIVE or flow.doomed is not None:
            return
        flow.plain = 0
        flow.resetting_leg = leg
        flow.reset_at = self.core.clock()
        side = "client" if (leg == 0) == (flow.endpoints.local == "client") else "upstream"
        flow.doomed = (f"rst_{side}", leg)
        flow.input_ended[0] = flow.input_ended[1] = True
        self._settle(flow)

    def sent(self, flow: Flow, direction: int, count: int) -> None:
        if flow.plain & UNSENT[direction] and count == flow.out[direction].length:
            self.plain.relayed(flow, direction)
            return
        flow.plain = 0
        flow.out[direction].sent(count, self._gone, self._pieces_gone)
        if flow.stored:
            self.recount(flow)
        if flow.phase == LIVE:
            if self.core.due or flow.input_ended[direction]:
                self._settle(flow)
        elif flow.phase == ENDED:
            self.core.touched.pop(flow.id, None)

    def fin_sent(self, flow: Flow, direction: int) -> None:
        output = flow.out[direction]
        if output.fin_run is None or output.fin_done:
            return
        output.fin_done = True
        flow.plain = 0
        self.waterfall.gone(output.fin_run, 0)
        self._limit_half_open(flow)
        if not self._straight.is_quiet(flow):
            self._settle(flow)
            return
        self.lifecycle.finish_if_done(flow)
        if self.core.ending:
            self.core.settle()
        if self.core.touched:
            self.core.after_outside_call(flow)

    def _limit_half_open(self, flow: Flow) -> None:
        """OBJ-14: a half-closed flow lives at most `timeouts.half_closed` from its first relayed FIN."""
        limit = self.core.options.timeouts.half_closed
        if limit and not flow.out[0].fin_done & flow.out[1].fin_done:
            flow.time_limit = self.core.at(self.core.clock() + limit, lambda: self._time_out(flow))

    def _limit_both_read(self, flow: Flow) -> None:
        """OBJ-14: nothing can come any more, yet a FIN is pended: 120 s in the live drivers.

        Nearly every flow is over before its driver settles; only one that is not needs a timer.
        """
        since, flow.waits_since = flow.waits_since, None
        timeouts = self.core.options.timeouts
        if since is not None and flow.phase == LIVE and timeouts.both_read and not timeouts.half_closed:
            flow.time_limit = self.core.at(since + timeouts.both_read, lambda: self._time_out(flow))

    def _time_out(self, flow: Flow) -> None:
        if flow.phase == LIVE and flow.doomed is None:
            self.waterfall.doom(flow, "timeout")

    def gone(self, flow: Flow, reason: str) -> None:
        """The driver let go; a flow that did not end by itself is taken down now (engine stop, cancellation)."""
        if flow.gone_reported:
            return
        flow.gone_reported = True
        if flow.is_offloaded:
            self.offloading.end(flow)
        flow.plain = 0
        if flow.phase == LIVE:
            if flow.doomed is None:
                flow.doomed = (reason or "abort", None)
            self._settle(flow)
        if flow.out[0].length or flow.out[1].length:
            self.lifecycle.give_up_output(flow, 0)
            self.lifecycle.give_up_output(flow, 1)
        self.recount(flow)
        self.core.short_of_memory.pop(flow.id, None)
        self.core.overruns.flows.discard(flow.id)
        if flow.phase == ENDED:
            self.lifecycle.report_deleted(flow)
        self.core.deliver_events()

    def _takes_input(self, flow: Flow, direction: int) -> bool:
        """Is the flow still there, once what was continued or injected has run (DEF-6: before any later-read byte)?"""
        if flow.phase == LIVE and flow.doomed is None and (flow.marked or flow.needs_stages):
            self._settle(flow)
        return flow.phase == LIVE and flow.doomed is None and not flow.input_ended[direction]

    def _settle(self, flow: Flow) -> None:
        self.core.mark(flow)
        self.core.settle()
        self.core.after_outside_call(flow)

    def ledger(self, flow: Flow, direction: int) -> DirectionLedger:
        return ledger_of(flow, direction)

    # -- borrowed bytes and memory ---------------------------------------------------------------------

    def settle_output(self, flow: Flow) -> None:
        """Copy whatever still lies in the driver's buffer, and count what is kept (IND-25)."""
        if flow.plain and not flow.plain & ANY_UNSENT:
            return
        flow.plain = 0
        if flow.waits_since is not None:
            self._limit_both_read(flow)
        if self._stores_nothing(flow):
            return
        for direction in (0, 1):
            output = flow.out[direction]
            if output.length:
                output.keep()
            else:
                output.rest()
            if flow.occupied[direction]:
                self._keep_stages(flow, direction)
        self.recount(flow)
        if flow.stored and flow.phase == LIVE and flow.doomed is None:
            self._check_memory(flow)

    def _stores_nothing(self, flow: Flow) -> bool:
        """There is nothing to copy, to count or to tell: the walk over lanes and outputs would find only zeros."""
        occupied, out = flow.occupied, flow.out
        return not (
            occupied[0]
            or occupied[1]
            or out[0].length
            or out[1].length
            or flow.stored
            or flow.pended_total
            or self.core.short_of_memory
        )

    def _keep_stages(self, flow: Flow, direction: int) -> None:
        empty = True
        for lane in flow.lanes[direction]:
            queue, outbox = lane.queue, lane.outbox
            if not (queue or outbox or lane.mode):
                lane.rest()
            else:
                empty = False
                if lane.fresh or outbox or (queue and queue[0].hoard is not None):
                    lane.keep()
        flow.occupied[direction] = not empty

    def recount(self, flow: Flow) -> None:
        """IND-25: the sum of a flow's stores; flows that wait for room hear of it."""
        stored = flow.pended_total + flow.queued + flow.out[0].length + flow.out[1].length
        core = self.core
        core.stored += stored - flow.stored
        flow.stored = stored
        if stored:
            flow.plain = 0
        if core.short_of_memory and core.stored * 4 <= core.options.limits.total:
            for waiting in core.short_of_memory.values():
                core.touch(waiting)
            core.short_of_memory.clear()
            core.request_turn()

    def _check_memory(self, flow: Flow) -> None:
        """IND-24: reading stopped long ago (at half), yet `per_flow` or `total` is reached: `on_limit`."""
        limits = self.core.options.limits
        if flow.stored < limits.per_flow and self.core.stored < limits.total:
            return
        lane = next((x for lanes in flow.lanes for x in lanes if x.pended_bytes), None)
        self.waterfall.report_policy(flow, lane, "on_limit", self.core.options.policy.on_limit)
        self.lifecycle.drain_or_drop(flow, lane)
        self._settle(flow)

    def is_full(self, flow: Flow, direction: int) -> bool:
        """IND-24: stop at half a limit, resume at a quarter."""
        limits = self.core.options.limits
        was = flow.paused[direction]
        none_is_zero = limits.unsent and limits.injected and limits.pended and limits.per_flow
        if (
            none_is_zero
            and not (was or flow.marked or flow.injected[direction])
            and self._stores_nothing(flow)
        ):
            return False  # every level is 0
        self.recount(flow)
        now = (
            _is_past(flow.out[direction].length, limits.unsent, was)
            or _is_past(flow.injected[direction], limits.injected, was)
            or _is_past(flow.pended_waiting[direction], limits.pended, was)
            or (flow.draining and _is_past(_queued_before_leaving(flow, direction), limits.pended, was))
        )
        now = self._over_memory(flow, was) or now or flow.marked
        if now != was:
            flow.paused[direction] = now
            flow.plain = 0
            self._paused(flow, direction, now)
        return now

    def _over_memory(self, flow: Flow, was: bool) -> bool:
        """`per_flow` and `total`: stop at half, resume at a quarter."""
        limits = self.core.options.limits
        if _is_past(flow.stored, limits.per_flow, was):
            return True
        if flow.stored and _is_past(self.core.stored, limits.total, was):
            self.core.short_of_memory[flow.id] = flow
            self.core.plain = False
            return True
        return False

    def _paused(self, flow: Flow, direction: int, now: bool) -> None:
        if now:
            self.core.count("paused")
            stuck = self.core.options.timeouts.stuck
            if stuck and flow.pended_waiting[direction]:
                self.core.at(self.core.clock() + stuck, lambda: self._check_stuck(flow, direction))
        if self.core.tracing:
            name = "pause" if now else "resume"
            held = flow.pended_waiting[direction] + flow.out[direction].length
            self.core.emit(name, flow, dir=flow.direction_name(direction), held=held)

    def _check_stuck(self, flow: Flow, direction: int) -> None:
        """IND-24: paused by pended bytes alone, and nothing moved for `timeouts.stuck`."""
        if flow.phase != LIVE or not flow.paused[direction] or not flow.pended_waiting[direction]:
            return
        quiet = self.core.clock() - flow.activity
        stuck = self.core.options.timeouts.stuck
        if quiet < stuck:
            self.core.at(self.core.clock() + stuck - quiet, lambda: self._check_stuck(flow, direction))
            return
        lane = next((x for x in flow.lanes[direction] if x.pended_bytes), None)
        self.waterfall.report_policy(flow, lane, "on_limit", self.core.options.policy.on_limit)
        self.lifecycle.drain_or_drop(flow, lane)
        self.core.settle()


def _is_past(level: int, limit: int, was: bool) -> bool:
    """Stop at half a limit, resume at a quarter (IND-24)."""
    return level * 4 > limit if was else level * 2 >= limit


def _queued_before_leaving(flow: Flow, direction: int) -> int:
    """Bytes that wait until a retiring stage has finished (MGMT-16)."""
    return sum(lane.bytes for lane in flow.lanes[direction] if lane.stage.draining and not lane.let_go)
