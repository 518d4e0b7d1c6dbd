"""IRQL rules in user space, rule by rule (section 19): what may be called where, and calls from other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.answers import answering, block, once, permit
from tests.rules.minimal import (
    BLOCK,
    DEFER,
    NONE,
    RECEIVE_PUSH,
    SEND,
    STREAM,
    SUCCESS,
    HandClock,
    World,
)
from wfpstream import fwpm
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.testing import MemoryDriver

INVALID_STATE = NtStatus.STATUS_INVALID_DEVICE_STATE
PENDING = NtStatus.STATUS_PENDING
PATIENCE = 30.0
"""Seconds after which a foreign thread that never answers fails the test instead of hanging it."""


@pytest.mark.parametrize("virtual", [False, True])
def test_irq_1_time_budget_of_ten_milliseconds(virtual: bool) -> None:
    """IRQ-1: default 10 ms, lint V-42; a hand-moved clock under virtual time is no reason (VRF-3)."""
    assert EngineOptions().verify.callback_budget == 0.01
    clock = HandClock()

    def slow(*call: Any) -> None:
        clock.now += 0.011
        call[-1].action_type = BLOCK

    w = World(slow, clock=None if virtual else clock)
    w.send(b"x")
    w.close()
    assert w.severities == ([] if virtual else [("V-42", "L")])


@pytest.mark.parametrize("callback", ["classify", "completion", "flow delete"])
def test_irq_2_allowed_at_dispatch(callback: str) -> None:
    """IRQ-2: inject, clone, discard, copy, associate, remove and flow abort inside each of them."""
    answers: list[Any] = []

    def everything(data: Any = None) -> None:
        if answers:
            return
        fwps, other_id = w.fwps, other.id
        answers.append(w.inject_bytes(SEND, b"x", flow_id=other_id))
        answers.append(fwps.flow_associate_context(other_id, STREAM, w.callout_id, 5))
        answers.append(fwps.flow_remove_context(other_id, STREAM, w.callout_id))
        if data is not None:
            status, chain = fwps.clone_stream_data(data)
            fwps.discard_cloned_stream_data(chain)
            answers.append(status)
            assert fwps.copy_stream_data_to_buffer(data, bytearray(1), 1) == 1
        answers.append(fwps.flow_abort(third.id))

    def classify(*call: Any) -> None:
        call[-1].action_type = BLOCK
        if callback == "classify":
            everything(call[2].stream_data)

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        w.fwps.free_net_buffer_list(nbl)
        if callback == "completion":
            everything()

    w = World(classify)
    other, third = w.connect(), w.connect()
    if callback == "classify":
        w.send(b"a")
    elif callback == "completion":
        assert w.inject(SEND, w.list_of(b"y"), completion_fn=complete) == SUCCESS
    else:
        w.callout.on_delete = everything
        assert w.associate(1) == SUCCESS
        assert w.remove() == SUCCESS
    w.settle()
    assert answers == [SUCCESS] * (5 if callback == "classify" else 4)
    assert bytes(other.remote.data) == b"x"
    assert third.ended
    assert w.close() == []


def test_irq_2_continue_except_inside_classify() -> None:
    """IRQ-2: from a completion it is legal."""
    answers: list[Any] = []

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        w.fwps.free_net_buffer_list(nbl)
        answers.append(w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH))

    w = World(once(answering(NONE, stream_action=DEFER)))
    w.receive(b"held")
    assert w.inject(SEND, w.list_of(b"y"), completion_fn=complete) == SUCCESS
    w.settle()
    assert answers == [SUCCESS]
    assert w.to_local == b"held"
    assert w.close() == []


def test_irq_3_passive_only() -> None:
    """IRQ-3: STATUS_INVALID_DEVICE_STATE and V-32 inside a callback; nothing was done."""
    answers: list[Any] = []

    def classify(*call: Any) -> None:
        answers.append(w.fwps.injection_handle_create())
        answers.append(w.fwps.callout_unregister_by_id(w.callout_id))
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"x")
    assert answers == [(INVALID_STATE, 0), INVALID_STATE]
    w.send(b"y")  # still registered: called again
    assert len(answers) == 4
    assert {rule for rule, _ in w.caught} == {"V-32"}


def test_irq_4_serialised_per_flow() -> None:
    """IRQ-4: an injection from inside a callback leads to no nested callback (IND-10)."""
    depth: list[int] = []
    deepest: list[int] = []

    def nested(*call: Any) -> None:
        depth.append(1)
        deepest.append(len(depth))
        if len(deepest) < 5:
            assert w.inject_bytes(SEND, b"x") == SUCCESS
        call[-1].action_type = BLOCK
        depth.pop()

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        assert depth == []
        w.fwps.free_net_buffer_list(nbl)

    w = World(nested)
    w.driver.add(second := type(w.callout)(nested, "second"))
    w.flow = w.connect()
    w.send(b"o")
    assert second.name == "second"
    assert max(deepest) == 1
    assert w.close() == []


# --- the bridge -----------------------------------------------------------------------------------


class Foreigner:
    """A foreign thread that makes one call through the bridge; the engine's thread answers in `settle`."""

    def __init__(self, driver: MemoryDriver, fn: Callable[..., Any], *args: Any) -> None:
        self.answers: list[Any] = []
        self.errors: list[BaseException] = []
        self._queued = threading.Event()
        engine = driver.engine
        run_soon = engine.run_soon
        assert run_soon is not None

        def run_soon_and_tell(job: Callable[[], None]) -> None:
            run_soon(job)
            self._queued.set()

        engine.run_soon = run_soon_and_tell

        def live() -> None:
            try:
                self.answers.append(engine.from_thread(fn, *args))
            except BaseException as error:
                self.errors.append(error)

        self._thread = threading.Thread(target=live, daemon=True)
        self._thread.start()
        assert self._queued.wait(PATIENCE)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def test_irq_6_a_call_runs_on_the_engines_thread() -> None:
    """IRQ-6 (c): queued until the engine's thread runs it; only the foreign thread waits for the answer."""
    ran_on: list[int] = []
    w = World(block)

    def inject() -> Any:
        ran_on.append(threading.get_ident())
        return w.inject_bytes(SEND, b"x")

    foreigner = Foreigner(w.driver, inject)
    assert (foreigner.answers, w.to_remote) == ([], b"")
    w.settle()
    foreigner.join()
    assert foreigner.answers == [SUCCESS]
    assert ran_on == [threading.get_ident()]
    assert w.to_remote == b"x"
    assert w.close() == []


def test_irq_6_continue_is_judged_by_the_state_it_meets() -> None:
    """IRQ-6 (c), DEF-7: from another thread it is no V-14, whatever ran when it was queued."""
    foreigners: list[Foreigner] = []

    def deferring(*call: Any) -> None:
        call[-1].action_type = NONE
        call[2].stream_action = DEFER
        arguments = (w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH)
        foreigners.append(Foreigner(w.driver, w.fwps.stream_continue, *arguments))

    w = World(once(deferring))
    w.receive(b"x")
    w.settle()
    foreigners[0].join()
    assert foreigners[0].answers == [SUCCESS]
    assert w.to_local == b"x"
    assert w.close() == []


def test_irq_6_exception_goes_to_the_caller() -> None:
    """IRQ-6 (c): what the call raises is raised in the foreign thread; the engine goes on."""
    w = World(permit)
    foreigner = Foreigner(w.driver, w.fwps.clone_stream_data, "no stream data")
    w.settle()
    foreigner.join()
    assert [type(error) for error in foreigner.errors] == [TypeError]
    w.send(b"x")
    assert w.to_remote == b"x"
    assert w.close() == []


def test_irq_6_handle_destroy_waits() -> None:
    """IRQ-6 (a), (c): PENDING on the engine's thread, the blocking form from a foreign one."""
    w = World(block)
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    w.flow.remote.window = 0
    assert w.inject_bytes(SEND, b"x", injection_handle=handle) == SUCCESS
    foreigner = Foreigner(w.driver, w.fwps.injection_handle_destroy, handle)
    w.settle()
    assert foreigner.answers == []
    assert w.fwps.injection_handle_destroy(handle) == PENDING
    w.flow.remote.window = None
    w.driver.run_until(lambda: w.fwps.injection_handle_closed(handle))
    foreigner.join()
    assert foreigner.answers == [SUCCESS]
    assert w.close() == []


@pytest.mark.parametrize("granted", [True, False])
def test_irq_6_transaction_begin_waits(granted: bool) -> None:
    """IRQ-6 (b), (c): a ticket on the engine's thread, granted in order, or STATUS_FWP_TIMEOUT after 15 s."""
    driver = MemoryDriver()
    management = driver.engine.management
    sessions: list[fwpm.Session] = []
    for _ in range(2):
        status, session = management.engine_open()
        assert status == SUCCESS
        assert session is not None
        sessions.append(session)
    holder, waiter = sessions
    assert holder.transaction_begin() == SUCCESS
    foreigner = Foreigner(driver, waiter.transaction_begin)
    driver.settle()
    assert foreigner.answers == []
    if granted:
        assert holder.transaction_commit() == SUCCESS
        driver.settle()
    else:
        driver.advance(14.9)
        assert foreigner.answers == []
        driver.advance(0.2)
    foreigner.join()
    assert foreigner.answers == [SUCCESS if granted else NtStatus.STATUS_FWP_TIMEOUT]
    (waiter if granted else holder).transaction_abort()
    driver.close()


def test_irq_6_not_for_the_engines_own_thread() -> None:
    """IRQ-6: waiting there would stop what it waits for: RuntimeError at once."""
    w = World(permit)
    with pytest.raises(RuntimeError):
        w.driver.engine.from_thread(w.fwps.flow_abort, w.flow.id)
    assert w.close() == []


def test_irq_6_without_a_way_in() -> None:
    """IRQ-6: an engine whose driver offers no `run_soon` takes no foreign calls."""
    engine = FilterEngine(lambda: 0.0)
    with pytest.raises(RuntimeError):
        engine.from_thread(engine.fwps.flow_abort, 1)
