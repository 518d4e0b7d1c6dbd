"""Retiring a filter that is at work (MGMT-16, SC-130): nothing new, nothing lost, and then it is gone.

Owns what flows, callouts and sessions see of it in memory; the live proxy's part is in `tests/transport`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.scenarios.support import (
    ALLOW,
    DEF,
    NMD,
    RECEIVE_FIN,
    B,
    Bench,
    P,
    Script,
    clone,
    cuttings,
    inj,
)
from wfpstream import fwpm
from wfpstream.callouts import create_callout
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus
from wfpstream.fwps import OutOfBandCallout, Worker
from wfpstream.testing import MemoryDriver

SUCCESS, IN_USE = NtStatus.STATUS_SUCCESS, NtStatus.STATUS_FWP_IN_USE
NOT_FOUND = NtStatus.STATUS_FWP_FILTER_NOT_FOUND
MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


class Told(Script):
    """A script that hears of its filters' deletion, and says so in the transcript."""

    def __init__(self, *answers: object) -> None:
        super().__init__(*answers)  # type: ignore[arg-type]
        self.deleted = 0

    def notify_fn(self, notify_type: int, filter_key: object, filter: object) -> int:
        self.deleted += notify_type == 1
        return SUCCESS


def retire(bench: Bench, number: int = 0) -> int:
    """Retire the stream filter of callout `number`, and let the driver have its turns; its id."""
    added = bench.added[number]
    filter_id = added.filter_ids.pop(0)
    assert bench.driver.session.filter_retire_by_id(filter_id) == SUCCESS
    bench.settle()
    return filter_id


def state_of(bench: Bench, filter_id: int) -> str:
    status, found = bench.driver.session.filter_get_by_id(filter_id)
    if found is None:
        assert status == NOT_FOUND
        return "gone"
    return "retiring" if found.retiring else "in force"


def test_sc_130_retire_with_bytes_pended() -> None:
    """SC-130, MGMT-16: "2" waits for "1", is not shown to A, and leaves behind it."""
    a = Told(B(0, clone))
    with Bench(a, violations=["V-38"]) as bench:
        bench.send(b"1")
        filter_id = retire(bench)
        bench.send(b"2")
        assert (bench.to_remote, state_of(bench, filter_id), a.deleted) == ((b"", False), "retiring", 0)
        assert bench.driver.session.filter_delete_by_id(filter_id) == IN_USE
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert (bench.calls, bench.completions) == (["A(S1 '1')"], ["cmp('1', SUCCESS)"])
        assert (bench.to_remote, state_of(bench, filter_id), a.deleted) == ((b"12", False), "gone", 1)
        assert bench.driver.session.filter_delete_by_id(filter_id) == NOT_FOUND


def test_mgmt_16_a_stage_that_waits_for_more_is_shown_more() -> None:
    """MGMT-16: NEED_MORE_DATA needs the bytes to decide; what it decided then goes, and the rest unseen."""
    a = Told(NMD(4), P(3), P(0))
    with Bench(a) as bench:
        bench.send(b"ab")
        filter_id = retire(bench)
        bench.send(b"c")
        assert state_of(bench, filter_id) == "retiring"
        bench.send(b"de", b"fg")
        assert bench.calls == ["A(S2 'ab')", "A(S5 'abcde')", "A(S2 'de')"]
        assert (bench.to_remote, state_of(bench, filter_id)) == ((b"abcdefg", False), "gone")


def test_mgmt_16_a_stage_that_waits_is_shown_the_end() -> None:
    """MGMT-16, NMD-9: the FIN ends the wait; the FIN itself is new, and not shown."""
    a = Told(NMD(9), P(0))
    with Bench(a) as bench:
        bench.send(b"ab")
        retire(bench)
        bench.send_fin()
        assert bench.calls == ["A(S2 'ab')", "A(S2 'ab' +N)"]
        assert (bench.to_remote, a.deleted) == ((b"ab", True), 1)


def test_mgmt_16_deferred_bytes_come_back_alone() -> None:
    """MGMT-16, DEF-5: continued, the stage is shown what it held and nothing that came since."""
    a = Told(DEF(), P(0))
    with Bench(a) as bench:
        bench.receive(b"held")
        filter_id = retire(bench)
        bench.receive(b"new")
        assert (bench.to_local, state_of(bench, filter_id)) == ((b"", False), "retiring")
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.calls == ["A(R4 'held')", "A(R4 'held')"]
        assert (bench.to_local, state_of(bench, filter_id)) == ((b"heldnew", False), "gone")


def test_mgmt_16_a_pended_fin_is_waited_for() -> None:
    a = Told(B(0))
    with Bench(a) as bench:
        bench.receive_fin()
        filter_id = retire(bench)
        assert (bench.to_local, state_of(bench, filter_id)) == ((b"", False), "retiring")
        assert a.inject_null_fin(RECEIVE_FIN) == SUCCESS
        bench.settle()
        assert (bench.to_local, state_of(bench, filter_id)) == ((b"", True), "gone")


def test_mgmt_16_an_injection_is_waited_for_until_it_completes() -> None:
    """MGMT-14, MGMT-16: what follows it stays behind it, unseen."""
    a = Told(B(0, clone))
    with Bench(a) as bench:
        bench.flow.remote.window = 0
        bench.send(b"1")
        assert a.inject_pended() == SUCCESS
        bench.settle()
        filter_id = retire(bench)
        bench.send(b"2")
        assert state_of(bench, filter_id) == "retiring"
        bench.flow.remote.window = None
        bench.settle()
        assert (bench.calls, bench.completions) == (["A(S1 '1')"], ["cmp('1', SUCCESS)"])
        assert (bench.to_remote, state_of(bench, filter_id)) == ((b"12", False), "gone")


def test_mgmt_16_one_direction_does_not_wait_for_the_other() -> None:
    """What a stage waits for may be the answer to what it would keep back: each direction is let go by itself."""
    a = Told(NMD(4), P(0))
    with Bench(a) as bench:
        bench.send(b"ask")
        filter_id = retire(bench)
        bench.receive(b"go on")
        assert (bench.to_local, state_of(bench, filter_id)) == ((b"go on", False), "retiring")
        bench.send(b"!")
        assert bench.calls == ["A(S3 'ask')", "A(S4 'ask!')"]
        assert (bench.to_remote, state_of(bench, filter_id)) == ((b"ask!", False), "gone")


def test_mgmt_16_an_idle_filter_is_gone_at_once() -> None:
    a = Told(P(0))
    with Bench(a) as bench:
        bench.send(b"1")
        filter_id = retire(bench)
        assert (state_of(bench, filter_id), a.deleted) == ("gone", 1)
        bench.send(b"2")
        assert bench.calls == ["A(S1 '1')"]
        assert bench.to_remote == (b"12", False)


def test_mgmt_16_a_filter_no_flow_has_is_gone_with_the_commit() -> None:
    """No turn of the driver is needed: nobody is to be waited for."""
    a = Told()
    driver = MemoryDriver()
    filter_id = driver.add(a).filter_ids[0]
    assert driver.session.filter_retire_by_id(filter_id) == SUCCESS
    assert driver.session.filter_get_by_id(filter_id) == (NOT_FOUND, None)
    assert a.deleted == 1
    assert driver.session.filter_retire_by_id(filter_id) == NOT_FOUND
    driver.close()


def test_mgmt_16_takes_no_new_flow() -> None:
    a = Told(NMD(2), P(0))
    with Bench(a) as bench:
        bench.send(b"1")
        retire(bench)
        other = bench.connect()
        other.send(b"fresh")
        assert bytes(other.remote.data) == b"fresh"
        bench.send(b"2")
        assert bench.calls == ["A(S1 '1')", "A(S2 '12')"]
        assert bench.to_remote == (b"12", False)


def test_mgmt_16_in_a_transaction_it_happens_with_the_commit() -> None:
    a = Told(P(0), P(0))
    with Bench(a) as bench:
        session, filter_id = bench.driver.session, bench.added[0].filter_ids[0]
        assert session.transaction_begin() == SUCCESS
        assert session.filter_retire_by_id(filter_id) == SUCCESS
        bench.send(b"1")
        assert session.transaction_abort() == SUCCESS
        bench.send(b"2")
        assert bench.calls == ["A(S1 '1')", "A(S1 '2')"]
        assert session.transaction_begin() == SUCCESS
        assert session.filter_retire_by_id(filter_id) == SUCCESS
        assert session.transaction_commit() == SUCCESS
        bench.added[0].filter_ids.pop(0)
        bench.send(b"3")
        assert len(bench.calls) == 2
        assert bench.to_remote == (b"123", False)
        assert state_of(bench, filter_id) == "gone"


def test_mgmt_16_it_has_given_up_its_key() -> None:
    """A changed filter takes the key of the one it replaces, in one transaction, whatever that is still doing."""
    a = Told(B(0, clone))
    with Bench(a) as bench:
        session = bench.driver.session
        old_id = bench.added[0].filter_ids[0]
        _, old = session.filter_get_by_id(old_id)
        assert old is not None
        bench.send(b"1")
        retire(bench)
        assert session.filter_get_by_key(old.filter_key)[1].filter_id == old_id
        successor = fwpm.Filter(
            filter_key=old.filter_key, display_data=fwpm.DisplayData("successor"), layer_key=old.layer_key
        )
        status, new_id = session.filter_add(successor)
        assert status == SUCCESS
        assert session.filter_get_by_key(old.filter_key)[1].filter_id == new_id
        assert state_of(bench, old_id) == "retiring"
        assert [one.filter_id for one in session.filter_enum()[1] if one.retiring] == [old_id]
        a.discard_pended()
        bench.settle()
        assert state_of(bench, old_id) == "gone"


def test_mgmt_16_its_callout_stays_until_it_is_gone() -> None:
    """OBJ-5: the callout is in use; the sublayer, of which the filter has a copy, is free."""
    a = Told(B(0, clone))
    with Bench(a) as bench:
        session, added = bench.driver.session, bench.added[0]
        bench.send(b"1")
        for filter_id in list(added.filter_ids):
            assert session.filter_retire_by_id(filter_id) == SUCCESS
        added.filter_ids.clear()
        bench.settle()
        assert session.callout_delete_by_key(added.callout_keys[0]) == IN_USE
        assert session.sub_layer_delete_by_key(added.sub_layer_key) == SUCCESS
        a.discard_pended()
        bench.settle()
        assert session.callout_delete_by_key(added.callout_keys[0]) == SUCCESS


@pytest.mark.parametrize(
    ("answers", "arrived", "ended"),
    [
        pytest.param([NMD(9)], b"heldnew", False, id="held for more"),
        pytest.param(
            [B(0, clone)], b"", True, id="pended: the flow is aborted, for the bytes cannot come back"
        ),
    ],
)
def test_mgmt_16_too_slow_is_ended_by_force(answers: list[object], arrived: bytes, ended: bool) -> None:
    """MGMT-16, MGMT-13: after `timeouts.drain` held data goes on; a stream with a hole in it does not look whole."""
    options = EngineOptions()
    options.timeouts.drain = 3.0
    a = Told(*answers)
    with Bench(a, options=options, violations=["V-38"]) as bench:
        bench.send(b"held")
        filter_id = retire(bench)
        bench.driver.advance(2.9)
        assert state_of(bench, filter_id) == "retiring"
        bench.driver.advance(0.2)
        assert (state_of(bench, filter_id), a.deleted) == ("gone", 1)
        assert bench.flow.ended is ended
        if not ended:
            bench.send(b"new")
        assert bench.to_remote == (arrived, False)
        assert bench.resets == (ended, ended)
        for _ in range(len(a.pended)):
            a.discard_pended()


def test_mgmt_16_by_force_a_pended_fin_goes_on() -> None:
    options = EngineOptions()
    options.timeouts.drain = 3.0
    a = Told(P(0), B(0))
    with Bench(a, options=options, violations=["V-38"]) as bench:
        bench.send(b"all")
        bench.send_fin()
        retire(bench)
        bench.driver.advance(4.0)
        assert bench.to_remote == (b"all", True)


@pytest.mark.parametrize("how", ["reset", "abort", "dynamic end", "stop"])
def test_mgmt_16_ends_of_flows_and_engines(how: str) -> None:
    """MGMT-16: a flow that is gone is not waited for."""
    a = Told(B(0, clone))
    violations = {"dynamic end": ["V-38"], "stop": ["V-23"]}.get(how, [])
    with Bench(a, violations=violations) as bench:
        bench.send(b"1")
        filter_id = retire(bench)
        if how == "reset":
            bench.reset("remote")
        elif how == "abort":
            bench.driver.fwps.flow_abort(bench.flow.id)
        elif how == "dynamic end":
            bench.driver.engine.management.force_delete(filter_id)
        else:
            bench.driver.engine.stop()
        bench.settle()
        assert (state_of(bench, filter_id), a.deleted) == ("gone", 1)
        assert any(bench.resets)
        if how != "stop":
            a.discard_pended()


class Shouting(Told):
    """Replaces every piece by as many "!"."""

    flags = MID_STREAM

    def decide(self, call: object) -> object:  # type: ignore[override]
        data = call.data  # type: ignore[attr-defined]
        return B(0, inj(b"!" * len(data))) if data else P(0)


def test_mgmt_16_a_successor_begins_behind_the_old_one() -> None:
    """What the old stage still had goes through the new one behind it, and so does all that is new."""
    a, b = Told(B(0, clone)), Shouting()
    b.flags = MID_STREAM
    with Bench(a) as bench:
        bench.send(b"1")
        retire(bench)
        b_added = bench.driver.add(b)
        bench.settle()
        bench.send(b"2")
        assert bench.to_remote == (b"", False)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"!!", False)
        assert bench.completions == ["cmp('1', SUCCESS)"]
        b_added.retire()
        bench.settle()
        bench.send(b"3")
        assert bench.to_remote == (b"!!3", False)


def test_mgmt_16_released_callout_leaves_with_its_last_filter() -> None:
    """UNR-8: filters, then contexts, then the registration; nothing is called afterwards (UNR-7)."""
    a = Told(B(0, clone))
    with Bench(a) as bench:
        added = bench.added.pop()
        assert a.associate(7) == SUCCESS
        bench.send(b"1")
        added.retire()
        bench.settle()
        fwps = bench.driver.fwps
        assert fwps.layers_of(a)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert not fwps.layers_of(a)
        assert bench.log == ["A(S1 '1')", "cmp('1', SUCCESS)", "flowDelete(A)"]
        assert bench.driver.session.callout_enum()[1] == []
        assert all(fwps.callout_key_of(callout_id) is None for callout_id in added.callout_ids)
        bench.send(b"2")
        assert bench.to_remote == (b"12", False)


def test_mgmt_16_a_callout_that_fails_to_drain_is_told() -> None:
    class Failing(Told):
        def drain(self) -> None:
            raise RuntimeError("no")

    a = Failing(DEF(), P(0))
    with Bench(a, violations=["V-40"]) as bench:
        bench.receive(b"1")
        added = bench.added.pop()
        added.retire()
        bench.settle()
        assert a.resume() == SUCCESS
        bench.settle()
        bench.receive(b"2")
        assert bench.to_local == (b"12", False)
        assert bench.driver.session.callout_enum()[1] == []


BUILT_IN: list[tuple[str, dict[str, object], Callable[[bytes], bytes]]] = [
    ("stream_edit", {"find": "bb", "replace": "X"}, lambda data: data.replace(b"bb", b"X")),
    ("stream_edit", {"find": "bb", "replace": "X", "mode": "oob"}, lambda data: data.replace(b"bb", b"X")),
    ("latency", {"delay": "300s"}, bytes),
    ("throttle", {"rate": "1KiB/s", "burst": "1"}, bytes),
    ("framer", {"by": "length", "size": 4}, bytes),
    ("monitor", {}, bytes),
    ("pend_fin", {"delay": "300s"}, bytes),
    ("fault", {"after": 5, "do": "stall"}, bytes),
]


@pytest.mark.parametrize(
    ("name", "options", "edited"), BUILT_IN, ids=[f"{name} {options}" for name, options, _ in BUILT_IN]
)
@pytest.mark.parametrize("inbound", [False, True])
def test_mgmt_16_every_built_in_lets_go_without_a_loss(
    name: str, options: dict[str, object], edited: Callable[[bytes], bytes], inbound: bool
) -> None:
    """MGMT-16 `drain`: retired at any byte, every byte arrives, edited up to some byte and untouched from there."""
    data = b"abbcbbdbbebb" * 3
    dice = random.Random(f"{name}{options}")
    for pieces in cuttings(data, runs=6):
        stop = dice.randrange(len(pieces) + 1)
        driver = MemoryDriver()
        added = driver.add(create_callout(name, options))
        flow = driver.connect()
        assert flow is not None
        put, end = (flow.receive, flow.local) if inbound else (flow.send, flow.remote)
        for number, piece in enumerate(pieces):
            if number == stop:
                added.retire()
                if dice.random() < 0.5:
                    driver.settle()
            put(piece)
        if stop == len(pieces):
            added.retire()
        (flow.receive_fin if inbound else flow.send_fin)()
        driver.advance(1.0)
        assert end.fin
        before = range(len(data) + 1)
        assert bytes(end.data) in {edited(data[:cut]) + data[cut:] for cut in before}
        assert driver.session.callout_enum()[1] == []
        assert not flow.ledger(int(inbound)).faults()
        driver.close()
        assert driver.violations == []


def test_mgmt_11_thousands_of_changes_leave_a_flow_as_light_as_it_was() -> None:
    """Ghosts of deleted filters are folded into one; the ledger closes all the same."""
    with Bench() as bench:
        driver = bench.driver
        for number in range(300):
            shout = Shouting()
            shout.flags = MID_STREAM
            added = driver.add(shout)
            driver.settle()
            bench.send(b"%d" % (number % 10))
            bench.check_ledger()
            added.retire()
            driver.settle()
            bench.send(b".")
            bench.check_ledger()
        assert bench.to_remote == (b"!." * 300, False)
        assert len(bench.flow.flow.stages) <= 2


class Copying(Worker):
    """Keeps a private copy of one byte back, as a search for a pattern does, and gives it back when it drains."""

    async def run(self) -> None:
        kept = b""
        while True:
            item = await self.next()
            if item.kind == "drain":
                await self.inject(kept)
                return
            if item.kind == "data":
                data = kept + item.data
                kept = data[-1:]
                await self.inject(data[:-1])


class Copies(OutOfBandCallout):
    worker_class = Copying
    flags = MID_STREAM


def test_mgmt_16_copies_nobody_sees_leave_before_what_is_new() -> None:
    """A worker that drains is waited for: what it has in copies is as good as pended."""
    driver = MemoryDriver()
    added = driver.add(Copies())
    flow = driver.connect()
    assert flow is not None
    flow.send(b"abc")
    assert bytes(flow.remote.data) == b"ab"
    added.retire()
    flow.send(b"def")
    driver.settle()
    assert bytes(flow.remote.data) == b"abcdef"
    driver.close()
    assert driver.violations == []


def test_mgmt_16_an_injection_under_way_keeps_nothing_back() -> None:
    """What was injected is below the stage: were new bytes to wait for it, a stage that needs them would wait too."""
    upper, lower = create_callout("latency", {"delay": "1s"}), Told(NMD(100), P(0))
    with Bench(upper, lower) as bench:
        bench.send(b"x" * 60)
        bench.driver.advance(1.5)
        added = bench.added.pop(0)
        added.retire()
        bench.settle()
        bench.send(b"y" * 60)
        assert bench.to_remote == (b"x" * 60 + b"y" * 60, False)
        assert len(bench.calls) == 2
        bench.settle()
        assert not bench.driver.fwps.layers_of(upper)


def test_mgmt_16_a_worker_that_drains_does_not_wait_for_others_injections() -> None:
    """`limits.injected` counts those of all stages, and what an upper one injected waits before the one that drains."""
    options = EngineOptions()
    options.limits.injected = 64
    driver = MemoryDriver(options)
    upper = driver.add(create_callout("latency", {"delay": "1s"}))
    lower = driver.add(create_callout("latency", {"delay": "3s"}))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a" * 40)
    driver.advance(2.0)
    flow.send(b"b" * 40)
    flow.send(b"c" * 40)
    driver.advance(0.5)
    lower.retire()
    driver.settle()
    driver.advance(2.0)
    assert bytes(flow.remote.data) == b"a" * 40 + b"b" * 40 + b"c" * 40
    upper.retire()
    driver.close()
    assert driver.engine.counters.get("policy.drain.drop") is None


def test_mgmt_16_what_queues_before_a_retiring_stage_stops_the_reading() -> None:
    options = EngineOptions()
    options.limits.pended = 1000
    a = Told(B(0, clone))
    with Bench(a, options=options) as bench:
        bench.send(b"1")
        retire(bench)
        for _ in range(100):
            bench.send(b"x" * 100)
        assert bench.flow.pending_input(0) >= 9000
        assert bench.flow.flow.lanes[0][0].bytes <= 1000
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"1" + b"x" * 10_000, False)
        assert bench.completions == ["cmp('1', SUCCESS)"]


def test_mgmt_16_a_callout_is_asked_to_drain_when_its_last_filter_goes() -> None:
    """Each family's filter is one of its own; the last one may be one that no flow has."""
    driver = MemoryDriver()
    callout = create_callout("latency", {"delay": "300s"})
    added = driver.add(callout)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"late")
    *others, last = added.filter_ids
    for other in others:
        assert driver.session.filter_retire_by_id(other) == SUCCESS
        driver.settle()
    assert bytes(flow.remote.data) == b""
    assert driver.session.filter_retire_by_id(last) == SUCCESS
    driver.settle()
    assert bytes(flow.remote.data) == b"late"
    driver.close()


@pytest.mark.parametrize("pieces", [[b"ny, rainy"], [b"n", b"y, rainy"], [b"ny", b", rainy"]])
def test_mgmt_16_what_waits_for_more_is_decided_not_drained(pieces: list[bytes]) -> None:
    """A match that had begun is found whole; what was shown with it is decided as well, and what is new is not."""
    driver = MemoryDriver()
    added = driver.add(create_callout("stream_edit", {"find": "rainy", "replace": "sunny"}))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"it is rai")
    added.retire()
    driver.settle()
    for piece in pieces:
        flow.send(piece)
    shown = b"it is rai" + (pieces[0] if pieces[0] != b"n" else b"ny, rainy")
    rest = b"" if pieces[0] != b"ny" else pieces[1]
    assert bytes(flow.remote.data) == shown.replace(b"rainy", b"sunny") + rest
    driver.close()


def test_mgmt_16_a_stage_that_allowed_does_not_hide_its_successor() -> None:
    """ALW-1 ends with the filter: bytes it let past its sublayer would overtake what its successor there has pended."""
    a, b = Told(ALLOW()), Told(B(0, clone), B(0, clone))
    b.flags = MID_STREAM
    with Bench(a) as bench:
        session, added = bench.driver.session, bench.added.pop()
        bench.send(b"0")
        made = bench.driver.fwps.register(b, "B")
        for layer, key, _ in made:
            layer_key = fwpm.layer_key_of(layer)
            assert layer_key is not None
            record = fwpm.Callout(
                callout_key=key, display_data=fwpm.DisplayData("B"), applicable_layer=layer_key
            )
            assert session.callout_add(record)[0] == SUCCESS
        assert session.transaction_begin() == SUCCESS
        for filter_id in added.filter_ids:
            assert session.filter_retire_by_id(filter_id) == SUCCESS
        for layer, key, _ in made:
            layer_key = fwpm.layer_key_of(layer)
            assert layer_key is not None
            successor = fwpm.Filter(
                display_data=fwpm.DisplayData("successor"),
                layer_key=layer_key,
                sub_layer_key=added.sub_layer_key,
                action_type=ActionType.CALLOUT_UNKNOWN,
                callout_key=key,
            )
            assert session.filter_add(successor)[0] == SUCCESS
        assert session.transaction_commit() == SUCCESS
        bench.settle()
        b.flow_id, b.transcript = a.flow_id, a.transcript
        bench.send(b"1", b"2")
        assert bench.calls == ["A(S1 '0')", "B(S1 '1')", "B(S1 '2')"]
        assert bench.to_remote == (b"0", False)
        assert b.inject_pended() == SUCCESS
        assert b.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"012", False)
        assert bench.completions == ["cmp('1', SUCCESS)", "cmp('2', SUCCESS)"]


def test_mgmt_16_a_callout_leaves_when_another_sessions_transaction_is_over() -> None:
    """MGMT-3, UNR-8: waiting for the write lock is no reason to leave the object behind, nor to be refused aloud."""
    a = Told(P(0))
    with Bench(a) as bench:
        driver = bench.driver
        added = bench.added.pop()
        _, other = driver.engine.management.engine_open()
        assert other is not None
        for filter_id in added.filter_ids:
            assert driver.session.filter_retire_by_id(filter_id) == SUCCESS
        added.filter_ids.clear()
        bench.settle()
        assert other.transaction_begin() == SUCCESS
        assert not driver.engine.release_callout(a)
        assert driver.fwps.layers_of(a)
        assert other.transaction_abort() == SUCCESS
        driver.advance(1.0)
        assert not driver.fwps.layers_of(a)
        assert driver.session.callout_enum()[1] == []


def test_mgmt_16_waiting_for_a_retiring_filter_is_no_refusal() -> None:
    a = Told(B(0, clone))
    with Bench(a) as bench:
        bench.send(b"1")
        bench.added.pop().retire()
        bench.settle()
        assert [e for e in bench.driver.events if e["event"] == "refused"] == []
        a.discard_pended()
