"""Owns the cases of registration, filters, contexts, levels and unloading; see `violation_cases`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid5

from tests.rules.answers import answering, permit
from tests.rules.minimal import (
    BLOCK,
    CONTINUE,
    NEED_MORE_DATA,
    NONE,
    STREAM,
    SUCCESS,
    Plain,
    World,
    connect,
    here,
    place,
)
from tests.rules.violation_cases import Outcome, case, close
from tests.scenarios.support import Script
from tests.scenarios.support_api import Plane, events, in_one_sub_layer, key, named
from wfpstream import fwpm
from wfpstream.fwp import DataType, FwpValue, MatchType, NtStatus
from wfpstream.testing import MemoryDriver


class Contexts(Plain):
    """Associates a tracked context with a flow, as its driver's own code would; releases it as told."""

    def __init__(self, driver: MemoryDriver, *, release: bool) -> None:
        super().__init__(permit, name="contexts")
        self.driver = driver
        self.release = release
        self.added = driver.add(self)
        flow = driver.connect()
        assert flow is not None
        self.flow = flow
        self.where = ""

    def associate(self) -> tuple[int, NtStatus]:
        handle = self.fwps.track(object())
        layer, me = STREAM, self.callout_id(STREAM)
        self.where = here(1)
        return handle, self.fwps.flow_associate_context(self.flow.id, layer, me, handle)

    def remove(self) -> NtStatus:
        return self.fwps.flow_remove_context(self.flow.id, STREAM, self.callout_id(STREAM))

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        if self.release:
            self.fwps.untrack(flow_context)

    def outcome(self) -> Outcome:
        self.driver.close()
        told = events(self.driver, "violation")
        return Outcome(told, self.where, "contexts", self.added.filter_ids)


@case("V-31")
def context_released_by_who_removed_it(bad: bool) -> Outcome:
    contexts = Contexts(MemoryDriver(), release=not bad)
    handle, status = contexts.associate()
    assert (status, contexts.remove()) == (SUCCESS, SUCCESS)
    contexts.where = here(2)
    if bad:
        contexts.fwps.untrack(handle)
    return contexts.outcome()


@case("V-41")
def object_name_exists_taken_for_success(bad: bool) -> Outcome:
    contexts = Contexts(MemoryDriver(), release=True)
    assert contexts.associate()[1] == SUCCESS
    handle, status = contexts.associate()
    assert status == NtStatus.STATUS_OBJECT_NAME_EXISTS
    assert status.ok
    if not (status.ok if bad else status == SUCCESS):
        contexts.fwps.untrack(handle)
    contexts.flow.reset("local")
    contexts.driver.advance(5.1)
    return contexts.outcome()


@case("V-32")
def passive_call_from_classify(bad: bool) -> Outcome:
    where: list[str] = [""]

    def create() -> None:
        where.append(here())
        status, handle = w.fwps.injection_handle_create()
        if status == SUCCESS:
            w.fwps.injection_handle_destroy(handle)

    def classify(*call: Any) -> None:
        if bad:
            create()
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"a")
    create()
    return close(w, where[1])


class Managing(Plain):
    """Does something when it is told of a filter."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(permit, name="managing")
        self.act = act

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Any) -> NtStatus:
        if notify_type == 0:
            self.act()
        return SUCCESS


@case("V-33")
def management_from_notify(bad: bool) -> Outcome:
    where: list[str] = []

    def act() -> None:
        where.append(here(2))
        if bad:
            driver.session.sub_layer_add(sub_layer)

    sub_layer = fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"), weight=1)
    driver = MemoryDriver()
    added = driver.add(Managing(act))
    if not bad:
        assert driver.session.sub_layer_add(sub_layer) == SUCCESS
    driver.close()
    return Outcome(events(driver, "violation"), where[0], "managing", added.filter_ids, on_flow=False)


@case("V-38")
def filter_deleted_while_its_callout_waits(bad: bool) -> Outcome:
    w = World(answering(NONE, stream_action=NEED_MORE_DATA) if bad else permit)
    w.send(b"a")
    filter_id = w.added.filter_ids[0]
    where = here()
    status = w.driver.session.filter_delete_by_id(filter_id)
    assert status == (NtStatus.STATUS_FWP_IN_USE if bad else SUCCESS)
    return close(w, where)


@case("V-39")
def handle_left_behind(bad: bool) -> Outcome:
    driver = MemoryDriver()
    where = here()
    _, handle = driver.fwps.injection_handle_create()
    if not bad:
        driver.fwps.injection_handle_destroy(handle)
    driver.close()
    # A handle belongs to a driver, not to one of its callouts.
    return Outcome(events(driver, "violation"), where, None, on_flow=False)


class Established(Plain):
    """A callout of FLOW_ESTABLISHED."""

    layers = ("ale_flow_established",)

    def __init__(self, answer: int) -> None:
        super().__init__(permit, name="established")
        self.answer = answer

    def classify_ale_flow_established(self, *call: Any) -> None:
        call[-1].action_type = self.answer


@case("V-44")
def block_at_flow_established(bad: bool) -> Outcome:
    driver = MemoryDriver()
    added = driver.add(Established(BLOCK if bad else CONTINUE))
    assert (connect(driver) is None) is bad
    driver.close()
    where = place(Established.classify_ale_flow_established)
    return Outcome(events(driver, "violation"), where, "established", added.filter_ids)


@case("V-47")
def two_callouts_in_one_sub_layer(bad: bool) -> Outcome:
    driver = MemoryDriver()
    plane = Plane(driver)
    heavy = Script(action="callout_unknown" if bad else "callout_inspection")
    light = Script(name="B")
    for code in (heavy, light):
        code.fwps = driver.fwps
    in_one_sub_layer(heavy, light)(plane)
    assert connect(driver) is not None
    told = events(driver, "violation")
    driver.close()
    where = place(type(heavy).classify_fn)
    return Outcome(told, where, str(key(heavy.name)), plane._filters)


@case("V-48")
def context_zero(bad: bool) -> Outcome:
    w = World(permit)
    where = here()
    w.fwps.flow_associate_context(w.flow.id, STREAM, w.callout_id, 0 if bad else 1)
    return close(w, where)


class Choosy(Plain):
    """Knows two notify types."""

    def __init__(self, otherwise: NtStatus) -> None:
        super().__init__(permit, name="choosy")
        self.otherwise = otherwise

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Any) -> NtStatus:
        return SUCCESS if notify_type in (0, 1) else self.otherwise


@case("V-54")
def notify_fails_on_an_unknown_type(bad: bool) -> Outcome:
    driver = MemoryDriver()
    added = driver.add(Choosy(NtStatus.STATUS_INVALID_PARAMETER if bad else SUCCESS))
    driver.close()
    told = events(driver, "violation")
    return Outcome(told, place(Choosy.notify_fn), "choosy", added.filter_ids, on_flow=False)


@case("V-55")
def condition_the_layer_lacks(bad: bool) -> Outcome:
    field = fwpm.CONDITION_IP_PROTOCOL if bad else fwpm.CONDITION_IP_REMOTE_PORT
    value = FwpValue(DataType.UINT8, 6) if bad else FwpValue(DataType.UINT16, 80)
    driver = MemoryDriver()
    filter = fwpm.Filter(
        filter_key=uuid5(key("v55"), str(bad)),
        display_data=named("f"),
        layer_key=fwpm.LAYER_STREAM_V4,
        conditions=(fwpm.FilterCondition(field, MatchType.EQUAL, value),),
    )
    where = here()
    driver.session.filter_add(filter)
    driver.close()
    return Outcome(events(driver, "violation"), where, None, on_flow=False)
