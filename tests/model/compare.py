"""What the engine and the reference model must agree on, after every step.

Owns the comparison only; what is equal by accident (piece sizes in memory, order between directions) is left out.
"""

from __future__ import annotations

from dataclasses import replace

from .harness import Bench
from .reference import Model
from .script import RECEIVE, SEND, Call


def compare(bench: Bench, model: Model) -> None:
    """AssertionError where they differ."""
    compare_calls(bench, model)
    compare_peers(bench, model)
    compare_stages(bench, model)
    compare_ledgers(bench, model)
    assert not [e for e in bench.driver.events if e["event"] in ("ledger_fault", "sink_failed")]


def compare_calls(bench: Bench, model: Model) -> None:
    """The same classify calls in the same order, for each direction."""
    for direction in (SEND, RECEIVE):
        mine, its = bench.calls[direction], model.calls[direction]
        assert comparable(mine, model, direction) == comparable(its, model, direction)


def comparable(calls: list[Call], model: Model, direction: int) -> list[Call]:
    """Open in the rules (ARB-11, ARB-12), hence left out of missedBytes.

    What a conditional stage missed while it had no context; what a stage misses behind the FIN that it injected
    itself; and on which of two calls bytes are reported that were blocked before an injection made inside a
    classify of the other direction.
    """
    open_ = [stage.script.conditional or stage.lanes[direction].closed for stage in model.stages]
    return [replace(c, missed=0) if model.crossed or open_[c.stage] else c for c in calls]


def compare_peers(bench: Bench, model: Model) -> None:
    """The same bytes, FIN and reset at both ends."""
    for peer, receiver in zip((bench.flow.remote, bench.flow.local), model.receivers, strict=True):
        assert bytes(peer.data) == bytes(receiver.data)
        assert peer.urgent == receiver.urgent
        assert peer.reset == receiver.reset
        if not peer.reset:
            assert peer.fin == receiver.fin
    for direction in (SEND, RECEIVE):
        assert bench.flow.pending_input(direction) == model.pending_input(direction)
    assert bench.flow.ended == (model.state in ("ended", "flushing"))


def compare_stages(bench: Bench, model: Model) -> None:
    """The same completions in the same order for each stage and direction, the same contexts deleted."""
    for callout, stage in zip(bench.callouts, model.stages, strict=True):
        assert callout.deleted == stage.deleted
        for direction in (SEND, RECEIVE):
            mine, its = callout.completed[direction], stage.lanes[direction].completed
            if (
                model.dropped and model.crossed
            ):  # how far the other direction was then is open, so is the status
                assert [data for data, _ in mine] == [data for data, _ in its]
            else:
                assert mine == its


def compare_ledgers(bench: Bench, model: Model) -> None:
    """The engine's ledger closes, and says what the model's lists say (LED-1 to LED-5)."""
    for direction in (SEND, RECEIVE):
        ledger = bench.flow.ledger(direction)
        assert ledger.faults() == []
        receiver = model.receivers[direction]
        lanes = [stage.lanes[direction] for stage in model.stages]
        assert ledger.read == model.read[direction]
        assert ledger.written == len(receiver.data)
        assert ledger.unsent == len(receiver.owed)
        thrown_away = sum(lane.discarded + lane.blocked for lane in lanes) + model.unread[direction]
        blocked = sum(stage.blocked for stage in ledger.stages)
        assert ledger.discarded + ledger.discarded_out + blocked == thrown_away + receiver.given_up
        if model.dropped:  # where bytes were on their way when a classify ended the flow is open
            continue
        for stage, lane in zip(ledger.stages, lanes, strict=True):
            assert (stage.permitted, stage.blocked, stage.injected) == (
                lane.permitted,
                lane.blocked,
                lane.injected,
            )
            assert (stage.bypassed, stage.blocked_original) == (lane.bypassed, lane.blocked_original)
            assert stage.held + stage.queued == lane.stored
            assert stage.discarded + stage.discarded_between == lane.discarded
