"""Every FWP_E_* / STATUS_FWP_* code: provoked here, or on the list of those that cannot occur, with the reason.

The rules of sections 1 to 5 name most of them (OBJ-3..OBJ-7, REG-2, REG-4, UNR-1, UNR-2, MGMT-1..MGMT-17, NTF-2,
LAY-7, LAY-15, LAY-17); the rest are those of WFP's error codes that this engine has a use for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from tests.fwpm.support import (
    SUCCESS,
    a_callout,
    a_callout_filter,
    a_filter,
    added,
    condition,
    key,
    named,
    open_session,
    remote_port,
    start,
    with_callout,
)
from tests.rules.minimal import RECEIVE, STREAM, World
from tests.scenarios.support_connections import Dial, Gate, Pending, Scene
from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import (
    ActionType,
    DataType,
    FwpError,
    FwpValue,
    MatchType,
    NtStatus,
    Range,
    V4AddrMask,
    uint8,
    uint16,
    uint32,
)
from wfpstream.fwps import Callout2
from wfpstream.fwps._callout import MAX_REGISTERED
from wfpstream.testing import MemoryDriver

DEVIATIONS = Path(__file__).parents[2] / "docs" / "reference" / "deviations.md"
S = NtStatus
Provoke = Callable[[], NtStatus]


# -- management


def a_session(flags: int = 0) -> fwpm.Session:
    return open_session(start()[1], flags)


def add(**fields: Any) -> Provoke:
    """The status of adding a filter with these fields to an empty engine."""
    return lambda: a_session().filter_add(a_filter(fields.pop("name", "f"), **fields))[0]


def add_condition(
    layer: str, field: str, value: FwpValue, match_type: MatchType = MatchType.EQUAL
) -> Provoke:
    conditions = [condition(fwpm.CONDITION_KEYS[field], value, match_type)]
    return add(layer_key=fwpm.LAYER_KEYS[layer], conditions=conditions)


def add_twice() -> NtStatus:
    session = a_session()
    added(session.callout_add(a_callout()))
    return session.callout_add(a_callout())[0]


def delete_what_is_named() -> NtStatus:
    session = a_session()
    added(session.callout_add(a_callout()))
    added(session.filter_add(a_callout_filter()))
    return session.callout_delete_by_key(key("c"))


def name_a_dynamic_object() -> NtStatus:
    _, management = start()
    dynamic = open_session(management, fwpm.SessionFlags.DYNAMIC)
    added(dynamic.callout_add(a_callout()))
    return open_session(management).filter_add(a_callout_filter())[0]


def begin_twice() -> NtStatus:
    session = a_session()
    assert session.transaction_begin() is SUCCESS
    return session.transaction_begin()


def write_in_a_read_only_transaction() -> NtStatus:
    session = a_session()
    assert session.transaction_begin(fwpm.TransactionFlags.READ_ONLY) is SUCCESS
    return session.filter_add(a_filter())[0]


def waiting() -> tuple[Any, fwpm.Management, fwpm.Session]:
    fake, management = start()
    assert open_session(management).transaction_begin() is SUCCESS
    return fake, management, open_session(management, txn_wait_timeout=3.0)


def begin_while_another_writes() -> NtStatus:
    return waiting()[2].transaction_begin()


def wait_too_long() -> NtStatus:
    fake, _, session = waiting()
    assert session.transaction_begin() is S.STATUS_PENDING
    assert session.ticket is not None
    fake.advance(3.0)
    return session.ticket.status


def call_after_the_stop() -> NtStatus:
    _, management = start()
    session = open_session(management)
    management.stop()
    return session.filter_enum()[0]


def call_after_the_close() -> NtStatus:
    session = a_session()
    assert session.engine_close() is SUCCESS
    return session.transaction_begin()


def use_anothers_handle() -> NtStatus:
    _, management = start()
    handle = added(open_session(management).filter_create_enum_handle())
    return open_session(management).filter_enum(handle, 1)[0]


def enumerate_with(**fields: Any) -> Provoke:
    template = fwpm.FilterEnumTemplate(layer_key=fwpm.LAYER_STREAM_V4, **fields)
    return lambda: a_session().filter_enum(template)[0]


def subscribe_without_a_callback() -> NtStatus:
    return a_session().filter_subscribe_changes(fwpm.FilterSubscription(), None)[0]


def too_many_sub_layers() -> NtStatus:
    """65,536 with the built-in ones; in one transaction, since each alone would copy the tables."""
    session = a_session()
    assert session.transaction_begin() is SUCCESS
    for number in range(2**16 - len(session.sub_layer_enum()[1])):
        one_more = fwpm.SubLayer(sub_layer_key=UUID(int=number + 1), display_data=named("one more"))
        assert session.sub_layer_add(one_more) is SUCCESS
    return session.sub_layer_add(fwpm.SubLayer(display_data=named("one too many")))


def name_a_context(context: str, **fields: Any) -> NtStatus:
    session = a_session()
    record = fwpm.ProviderContext(provider_context_key=key("x"), display_data=named("x"), **fields)
    assert session.provider_context_add(record) is SUCCESS
    flags = fwpm.FilterFlags.HAS_PROVIDER_CONTEXT
    return session.filter_add(a_filter(flags=flags, provider_context_key=key(context)))[0]


def another_layers_callout() -> NtStatus:
    session = a_session()
    added(session.callout_add(a_callout(applicable_layer=fwpm.LAYER_STREAM_V6)))
    return session.filter_add(a_callout_filter())[0]


def a_notify_fn_that_refuses() -> NtStatus:
    fake, session = with_callout()
    fake.on_notify = lambda notify_type, filter: S.STATUS_UNSUCCESSFUL
    return session.filter_add(a_callout_filter())[0]


# -- values that cannot be built, so that no call ever sees them


def build(make: Callable[[], object]) -> Provoke:
    def attempt() -> NtStatus:
        with pytest.raises(FwpError) as caught:
            make()
        return caught.value.status

    return attempt


# -- the run time


def nothing(*arguments: object) -> None:
    """A classifyFn, and a callback that must not matter."""


def agree(*arguments: object) -> int:
    return int(SUCCESS)


def structure(name: str, **fields: Any) -> Callout2:
    fields = {"classify_fn": nothing, "notify_fn": agree, "flags": 0, **fields}
    return Callout2(callout_key=key(name), **fields)


def register(*structures: Callout2, options: EngineOptions | None = None) -> NtStatus:
    """The answer to the last one."""
    driver = MemoryDriver(options=options)
    return [driver.fwps.callout_register2(None, one)[0] for one in structures][-1]


def too_many_callouts() -> NtStatus:
    driver = MemoryDriver()
    for number in range(MAX_REGISTERED):
        driver.fwps.callouts.entry(UUID(int=number + 1)).registered = True
    return driver.fwps.callout_register2(None, structure("one too many"))[0]


def unregister_with_a_context() -> NtStatus:
    world = World(nothing)
    world.fwps.flow_associate_context(world.flow.id, STREAM, world.callout_id, 7)
    return NtStatus(world.fwps.callout_unregister_by_id(world.callout_id))


def associate_with_an_unknown_flow() -> NtStatus:
    world = World(nothing)
    return NtStatus(world.fwps.flow_associate_context(10**6, STREAM, world.callout_id, 7))


def call_management_from_a_classify() -> NtStatus:
    statuses: list[NtStatus] = []
    world = World(lambda *call: statuses.append(world.driver.engine.session.filter_enum()[0]))
    world.send(b"x")
    return statuses[0]


def inject_into_no_direction() -> NtStatus:
    world = World(nothing)
    return NtStatus(world.inject(0, world.list_of(b"abc")))


def inject_through_a_destroyed_handle() -> NtStatus:
    world = World(nothing)
    _, handle = world.fwps.injection_handle_create(0, 1)
    assert world.fwps.injection_handle_destroy(handle) == SUCCESS
    return NtStatus(world.inject(RECEIVE, world.list_of(b"abc"), injection_handle=handle))


def inject_through_a_closing_handle() -> NtStatus:
    world = World(nothing)
    world.flow.local.window = 0
    _, handle = world.fwps.injection_handle_create(0, 1)
    assert world.inject_bytes(RECEIVE, b"stuck", injection_handle=handle) == SUCCESS
    assert world.fwps.injection_handle_destroy(handle) == S.STATUS_PENDING
    return NtStatus(world.inject(RECEIVE, world.list_of(b"abc"), injection_handle=handle))


def create_a_handle_after_the_stop() -> NtStatus:
    driver = MemoryDriver()
    driver.engine.stop()
    return driver.fwps.injection_handle_create()[0]


def pend_a_reauthorisation() -> NtStatus:
    pending = Pending()
    gate = Gate("ale_auth_connect", pending.pend, pending.pend_again_and_permit)
    scene = Scene((gate,))
    dial = Dial(scene.driver)
    scene.driver.fwps.complete_operation(pending.context, None)
    dial.settle()
    return NtStatus(gate.statuses[-1])


# -- the table


PROVOKED: dict[NtStatus, Provoke] = {
    S.STATUS_FWP_CALLOUT_NOT_FOUND: lambda: a_session().filter_add(a_callout_filter())[0],
    S.STATUS_FWP_CONDITION_NOT_FOUND: add_condition("stream_v4", "ip_protocol", uint8(6)),
    S.STATUS_FWP_FILTER_NOT_FOUND: lambda: a_session().filter_delete_by_id(1),
    S.STATUS_FWP_LAYER_NOT_FOUND: add(layer_key=key("nowhere")),
    S.STATUS_FWP_PROVIDER_NOT_FOUND: add(provider_key=key("nobody")),
    S.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND: lambda: name_a_context("unknown"),
    S.STATUS_FWP_SUBLAYER_NOT_FOUND: add(sub_layer_key=key("nowhere")),
    S.STATUS_FWP_NOT_FOUND: associate_with_an_unknown_flow,
    S.STATUS_FWP_ALREADY_EXISTS: add_twice,
    S.STATUS_FWP_IN_USE: delete_what_is_named,
    S.STATUS_FWP_WRONG_SESSION: use_anothers_handle,
    S.STATUS_FWP_NO_TXN_IN_PROGRESS: lambda: a_session().transaction_commit(),
    S.STATUS_FWP_TXN_IN_PROGRESS: begin_twice,
    S.STATUS_FWP_SESSION_ABORTED: call_after_the_stop,
    S.STATUS_FWP_INCOMPATIBLE_TXN: write_in_a_read_only_transaction,
    S.STATUS_FWP_TIMEOUT: wait_too_long,
    S.STATUS_FWP_LIFETIME_MISMATCH: name_a_dynamic_object,
    S.STATUS_FWP_BUILTIN_OBJECT: lambda: a_session().sub_layer_delete_by_key(fwpm.SUBLAYER_UNIVERSAL),
    S.STATUS_FWP_TOO_MANY_CALLOUTS: too_many_callouts,
    S.STATUS_FWP_NULL_POINTER: subscribe_without_a_callback,
    S.STATUS_FWP_INVALID_ENUMERATOR: enumerate_with(enum_type=2),
    S.STATUS_FWP_INVALID_FLAGS: add(flags=fwpm.FilterFlags.DISABLED),
    S.STATUS_FWP_INVALID_NET_MASK: build(lambda: V4AddrMask(0, 0xFF00_FF00)),
    S.STATUS_FWP_INVALID_RANGE: build(lambda: Range(uint16(2), uint16(1))),
    S.STATUS_FWP_NULL_DISPLAY_NAME: add(name=""),
    S.STATUS_FWP_INVALID_ACTION_TYPE: add(action_type=ActionType.CONTINUE),
    S.STATUS_FWP_INVALID_WEIGHT: add(weight=uint8(16)),
    S.STATUS_FWP_MATCH_TYPE_MISMATCH: add_condition(
        "stream_v4", "ip_remote_port", uint16(80), MatchType.PREFIX
    ),
    S.STATUS_FWP_TYPE_MISMATCH: add_condition("stream_v4", "ip_remote_port", uint32(80)),
    S.STATUS_FWP_OUT_OF_BOUNDS: build(lambda: FwpValue(DataType.UINT8, 256)),
    S.STATUS_FWP_DUPLICATE_CONDITION: enumerate_with(conditions=[remote_port(80), remote_port(81)]),
    S.STATUS_FWP_ACTION_INCOMPATIBLE_WITH_LAYER: another_layers_callout,
    S.STATUS_FWP_CONTEXT_INCOMPATIBLE_WITH_LAYER: lambda: name_a_context("x", type=0),
    S.STATUS_FWP_INVALID_PARAMETER: inject_into_no_direction,
    S.STATUS_FWP_TOO_MANY_SUBLAYERS: too_many_sub_layers,
    S.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED: a_notify_fn_that_refuses,
    S.STATUS_FWP_TCPIP_NOT_READY: create_a_handle_after_the_stop,
    S.STATUS_FWP_INJECT_HANDLE_CLOSING: inject_through_a_closing_handle,
    S.STATUS_FWP_INJECT_HANDLE_STALE: inject_through_a_destroyed_handle,
    S.STATUS_FWP_CANNOT_PEND: pend_a_reauthorisation,
    # Not of WFP's own facility, but named by the rules of sections 1 to 5.
    S.STATUS_PENDING: begin_while_another_writes,
    S.STATUS_DEVICE_BUSY: unregister_with_a_context,
    S.STATUS_INVALID_HANDLE: call_after_the_close,
    S.STATUS_INVALID_PARAMETER: lambda: NtStatus(World(nothing).fwps.flow_associate_context(1, STREAM, 1, 0)),
    S.STATUS_NOT_SUPPORTED: lambda: register(structure("new"), options=EngineOptions(profile="win7")),
    S.STATUS_INVALID_DEVICE_STATE: call_management_from_a_classify,
}


@pytest.mark.parametrize("status", PROVOKED, ids=lambda status: status.name)
def test_the_code_is_provoked(status: NtStatus) -> None:
    assert PROVOKED[status]() is status


@pytest.mark.parametrize(
    ("status", "provoke"),
    [
        # REG-2, REG-4, CFN-10, UNR-1: registration has the codes that addition has.
        (S.STATUS_FWP_ALREADY_EXISTS, lambda: register(structure("c"), structure("c"))),
        (S.STATUS_FWP_NULL_POINTER, lambda: register(structure("c", classify_fn=None))),
        (S.STATUS_FWP_NULL_POINTER, lambda: register(structure("c", notify_fn=None))),
        (S.STATUS_FWP_INVALID_FLAGS, lambda: register(structure("c", flags=1 << 20))),
        (S.STATUS_FWP_CALLOUT_NOT_FOUND, lambda: MemoryDriver().fwps.callout_unregister_by_key(key("c"))),
        (S.STATUS_FWP_CALLOUT_NOT_FOUND, lambda: a_session().callout_delete_by_key(key("c"))),
        (S.STATUS_FWP_NO_TXN_IN_PROGRESS, lambda: a_session().transaction_abort()),
        (S.STATUS_FWP_TIMEOUT, lambda: waiting()[2].filter_add(a_filter())[0]),
    ],
)
def test_a_code_that_other_calls_have_too(status: NtStatus, provoke: Provoke) -> None:
    assert provoke() is status


def listed_as_impossible() -> set[str]:
    """The rows of the table in the deviations: `| STATUS_FWP_X | why |`."""
    text = DEVIATIONS.read_text(encoding="utf-8")
    return set(re.findall(r"^\| (STATUS_FWP_\w+) \| \S", text, re.MULTILINE))


def test_every_code_is_provoked_or_said_to_be_impossible() -> None:
    known = {status.name for status in NtStatus if "_FWP_" in status.name}
    provoked = {status.name for status in PROVOKED if "_FWP_" in status.name}
    assert provoked & listed_as_impossible() == set()
    assert provoked | listed_as_impossible() == known
