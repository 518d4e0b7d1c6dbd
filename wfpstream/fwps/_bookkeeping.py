"""Taking a flow's ledger: what was counted, held against what really lies in the queues (LED-1..LED-4).

Owns the reading, and what is kept of a flow that is over; the equations are `_ledger`'s, the counts `_lane_store`'s.
"""

from __future__ import annotations

from ._flow import NO_WAYS, Flow, Lane, LaneCounts
from ._ledger import DirectionLedger, StageLedger


def ledger_of(flow: Flow, direction: int) -> DirectionLedger:
    """Take the ledger of one direction, reading what the queues really hold; of a flow that is over, what was kept."""
    rows = flow.past[direction] if flow.past is not None else [counts_of(x) for x in flow.lanes[direction]]
    stages = []
    blocked_original = blocked_injected = injected = held = queued = discarded = 0
    for row in rows:
        (
            filter_id,
            in_,
            permitted,
            blocked_o,
            blocked_i,
            lost,
            lost_between,
            added,
            bypassed,
            lane_held,
            lane_stored,
            in_transit,
        ) = row
        stage = StageLedger(
            filter_id=filter_id,
            in_=in_,
            permitted=permitted,
            blocked=blocked_o + blocked_i,
            held=lane_held,
            discarded=lost,
            injected=added,
            bypassed=bypassed,
            queued=lane_stored - lane_held,
            discarded_between=lost_between,
            in_transit=in_transit,
            blocked_original=blocked_o,
        )
        stages.append(stage)
        blocked_original += blocked_o
        blocked_injected += blocked_i
        injected += added
        held += lane_held
        queued += lane_stored - lane_held + in_transit
        discarded += lost + lost_between
    out = flow.out[direction]
    return DirectionLedger(
        read=flow.read[direction],
        written=out.written_o + out.written_i,
        unsent=out.length,
        discarded_out=out.discarded_o + out.discarded_i,
        blocked_original=blocked_original,
        blocked_injected=blocked_injected,
        injected=injected,
        held=held,
        queued=queued,
        discarded=discarded + flow.discarded_unread[direction],
        stages=tuple(stages),
        discarded_unread=flow.discarded_unread[direction],
    )


def counts_of(lane: Lane) -> LaneCounts:
    """One stage's line of a ledger."""
    held = stored = in_transit = 0
    if lane.queue or lane.outbox:
        held, stored = lane.held, lane.stored
        in_transit = sum(run.length for run in lane.outbox)
    return (
        lane.stage.filter.filter_id,
        lane.in_o + lane.in_i,
        lane.permitted_o + lane.permitted_i,
        lane.blocked_o,
        lane.blocked_i,
        lane.discarded_o + lane.discarded_i,
        lane.unseen_discarded_o + lane.unseen_discarded_i,
        lane.injected,
        lane.bypassed_o + lane.bypassed_i,
        held,
        stored,
        in_transit,
    )


def put_away(flow: Flow, verifying: bool) -> bool:
    """The flow is over: keep its counts, and let go of all that moved its bytes.

    What is left refers upwards only (lane, stage, flow), so that a flow is freed as soon as nobody has it any more,
    and not by the garbage collector some time later. True: every equation of the ledger is seen to close, without
    taking it; else `DirectionLedger.faults` tells.
    """
    past = ([counts_of(lane) for lane in flow.lanes[0]], [counts_of(lane) for lane in flow.lanes[1]])
    closes = True
    for direction in (0, 1):
        arriving = flow.read[direction] - flow.discarded_unread[direction]
        # As DirectionLedger.faults with nothing held, queued or in transit; LED-4 follows from LED-1 to LED-3.
        for row in past[direction]:
            (
                _,
                in_,
                permitted,
                blocked_o,
                blocked_i,
                lost,
                lost_between,
                added,
                bypassed,
                held,
                stored,
                on_way,
            ) = row
            if (
                in_ != permitted + blocked_o + blocked_i + lost
                or arriving != in_ + bypassed + lost_between
                or held
                or stored
                or on_way
            ):
                closes = False
            arriving = permitted + added + bypassed
        out = flow.out[direction]
        left = out.written_o + out.written_i + out.length + out.discarded_o + out.discarded_i
        closes = closes and arriving == left
    flow.past = past
    if verifying:
        flow.past_filters = {
            stage.entry.callout_id: flow.filter_of(stage.entry.callout_id)
            for stage in flow.stages
            if stage.entry is not None
        }
    for stage in flow.stages:
        for lane in stage.lanes:
            lane.frame = None
        stage.lanes = ()
        stage.meta = None  # under the verifier it tells of the lane
    flow.stages = []
    flow.lanes = ([], [])
    flow.ways = NO_WAYS
    return closes
