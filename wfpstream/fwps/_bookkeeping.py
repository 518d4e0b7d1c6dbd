"""Taking a flow's ledger: what was counted, held against what really lies in the queues (LED-1..LED-4).

Owns the reading only; the equations are `_ledger`'s, the counts `_flow`'s.
"""

from __future__ import annotations

from ._flow import Flow
from ._ledger import DirectionLedger, StageLedger


def ledger_of(flow: Flow, direction: int) -> DirectionLedger:
    """Take the ledger of one direction, reading what the queues really hold."""
    stages = []
    blocked_original = blocked_injected = injected = held = queued = discarded = 0
    for lane in flow.lanes[direction]:
        lane_held, lane_stored = lane.held, lane.stored
        in_transit = sum(run.length for run in lane.outbox)
        stage = StageLedger(
            filter_id=lane.stage.filter.filter_id,
            in_=lane.in_o + lane.in_i,
            permitted=lane.permitted_o + lane.permitted_i,
            blocked=lane.blocked_o + lane.blocked_i,
            held=lane_held,
            discarded=lane.discarded_o + lane.discarded_i,
            injected=lane.injected,
            bypassed=lane.bypassed_o + lane.bypassed_i,
            queued=lane_stored - lane_held,
            discarded_between=lane.unseen_discarded_o + lane.unseen_discarded_i,
            in_transit=in_transit,
            blocked_original=lane.blocked_o,
        )
        stages.append(stage)
        blocked_original += lane.blocked_o
        blocked_injected += lane.blocked_i
        injected += lane.injected
        held += lane_held
        queued += lane_stored - lane_held + in_transit
        discarded += stage.discarded + stage.discarded_between
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
