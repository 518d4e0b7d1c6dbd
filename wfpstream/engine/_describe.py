"""What there is, as plain data: the engine's load, its flows, one flow in depth.

Owns the names that people and programs see. It only reads: describing a flow changes nothing of it, which is more
than the levels a driver reads can say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wfpstream.fwp import ActionType
from wfpstream.fwps import LayerId
from wfpstream.fwps._addresses import local_and_remote
from wfpstream.fwps._flow import ENDED, ENDING, ESTABLISHING, LIVE
from wfpstream.fwps._stream_state import (
    CALL,
    DEFERRED,
    IDLE,
    NEED_MORE,
    PASS,
    PERMIT_ALL,
    REMOVE,
)

if TYPE_CHECKING:
    from wfpstream.fwps import DirectionLedger, Flow, StageLedger
    from wfpstream.fwps._flow import Lane, Stage

    from ._filter_engine import FilterEngine

_PHASES = {ESTABLISHING: "establishing", LIVE: "live", ENDING: "ending", ENDED: "ended"}
_MODES = {IDLE: "idle", NEED_MORE: "needs_more", DEFERRED: "deferred"}
_ROLES = {CALL: "asked", PASS: "skipped", REMOVE: "removes", PERMIT_ALL: "permits"}


def describe_load(engine: FilterEngine) -> dict[str, Any]:
    """How much there is at present: flows, bytes stored, counters, and how often each violation was reported."""
    core = engine.fwps.core
    return {
        "flows": len(core.flows),
        "stored": core.stored,
        "counters": dict(sorted(core.counters.items())),
        "violations": dict(sorted(core.violations.items())),
    }


def describe_flow(flow: Flow, now: float) -> dict[str, Any]:
    """One flow in short: who, since when, how many bytes, what they wait for, whose callouts.

    Args:
        flow: a flow that lives.
        now: the engine's clock, seconds.
    """
    local, remote = local_and_remote(flow.endpoints)
    described = {
        "id": flow.number,
        "listener": flow.endpoints.listener,
        "client": list(flow.endpoints.client),
        "server": list(flow.upstream),
        "local": list(local),
        "remote": list(remote),
        "state": "ending" if flow.doomed is not None else _PHASES[flow.phase],
        "offloaded": flow.is_offloaded,
        "age": now - flow.established_at if flow.phase != ESTABLISHING else 0.0,
        "idle": now - flow.activity if flow.phase != ESTABLISHING else 0.0,
        "callouts": [stage.entry.name for stage in flow.stages if stage.entry and not stage.retired],
    }
    for direction in (0, 1):
        described[flow.direction_name(direction)] = _direction(flow, direction)
    return described


def describe_flow_in_depth(flow: Flow, now: float) -> dict[str, Any]:
    """One flow with every stage, the ledgers, and the contexts that callouts have on it.

    Args: as `describe_flow`.
    """
    ledgers = (flow.ledger(0), flow.ledger(1))
    names = {stage.entry.callout_id: stage.entry.name for stage in flow.stages if stage.entry is not None}
    return describe_flow(flow, now) | {
        "handle": flow.id,
        "layer": LayerId(flow.layer_id).name.lower(),
        "destination": list(flow.endpoints.destination),
        "stored": flow.stored,
        "stages": [_stage(flow, index, stage, ledgers) for index, stage in enumerate(flow.stages)],
        "ledger": {flow.direction_name(number): _ledger(ledger) for number, ledger in enumerate(ledgers)},
        "contexts": [
            {
                "layer": LayerId(layer).name.lower(),
                "callout": names.get(callout),
                "callout_id": callout,
                "context": context,
            }
            for (layer, callout), context in sorted(flow.contexts.items())
        ],
    }


def _direction(flow: Flow, direction: int) -> dict[str, Any]:
    """Without its ledger, which takes several times as long: there may be thousands of flows."""
    lanes, out = flow.lanes[direction], flow.out[direction]
    if flow.input_ended[direction]:
        reading = "ended"
    elif direction == 1 and flow.is_deferred():
        reading = "deferred"
    else:
        reading = "paused" if flow.paused[direction] else "reading"
    return {
        "state": reading,
        "read": flow.read[direction],
        "written": out.written_o + out.written_i,
        "held": sum(lane.bytes + sum(run.length for run in lane.outbox) for lane in lanes),
        "unsent": out.length,
        "injected": sum(lane.injected for lane in lanes),
        "pended": sum(lane.pended_bytes for lane in lanes),
        "missing": flow.missing[direction],
    }


def _ledger(ledger: DirectionLedger) -> dict[str, Any]:
    return {**ledger.summary(), "faults": ledger.faults()}


def _stage(
    flow: Flow, index: int, stage: Stage, ledgers: tuple[DirectionLedger, DirectionLedger]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "index": index,
        "filter": stage.filter.filter_id,
        "callout": stage.entry.name if stage.entry is not None else None,
        "callout_id": stage.filter.callout_id or None,
        "action": ActionType(stage.filter.action_type).name.lower(),
        "role": _ROLES[stage.kind],
        "allowed": stage.allowed,
        "draining": stage.draining,
        "retired": stage.retired,
        "mid_stream": stage.mid_stream,
        "context": stage.context,
    }
    for direction, ledger in enumerate(ledgers):
        described[flow.direction_name(direction)] = _lane(stage.lanes[direction], ledger.stages[index])
    return described


def _lane(lane: Lane, counted: StageLedger) -> dict[str, Any]:
    return {
        "mode": _MODES[lane.mode],
        "required": lane.required if lane.mode == NEED_MORE else 0,
        "in": counted.in_,
        "permitted": counted.permitted,
        "blocked": counted.blocked,
        "injected": counted.injected,
        "held": counted.held,
        "queued": counted.queued,
        "discarded": counted.discarded + counted.discarded_between,
        "bypassed": counted.bypassed,
        "pended": lane.pended_bytes,
        "pended_buffers": lane.pended_buffers,
        "uncompleted": len(lane.outstanding),
        "missed": lane.missed,
        "fin_pended": lane.fin_pended,
    }
