"""What needs a helper, in its further forms: tracked contexts (V-31, V-41), counts (V-56, V-57), and the probe (V-54).

As in `test_violations`: what is caught, and the closest legal case that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tests.rules.answers import permit
from tests.rules.minimal import BLOCK, NEED_MORE_DATA, NONE, PERMIT, RECEIVE, STREAM, SUCCESS, Plain, parts
from tests.rules.violation_cases import Counting, counting, played, quiet
from tests.rules.violation_cases_management import Contexts
from tests.scenarios.support_api import events, key
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.fwps import Callout1
from wfpstream.testing import MemoryDriver, accounted


def rules(driver: MemoryDriver) -> list[str]:
    return driver.violations


# --- tracked contexts -----------------------------------------------------------------------------


def test_v_31_used_after_flow_delete_fn() -> None:
    """V-31: the integer is looked up when its flowDeleteFn has returned, whether it was released there or not."""
    for release in (True, False):
        contexts = Contexts(MemoryDriver(), release=release)
        handle, _ = contexts.associate()
        assert contexts.fwps.tracked(handle) is not None
        contexts.remove()
        if release:
            with pytest.raises(KeyError):
                contexts.fwps.tracked(handle)
        else:
            assert contexts.fwps.tracked(handle) is not None
        assert rules(contexts.driver) == ["V-31"]
        contexts.driver.close()


def test_v_31_released_while_the_flow_has_it() -> None:
    """V-31: by whoever asked for its removal inside a classify, where the answer is STATUS_PENDING (CTX-11)."""
    statuses: list[NtStatus] = []
    driver = MemoryDriver()

    def removing(*call: Any) -> None:
        me = callout.callout_id(STREAM)
        statuses.append(callout.fwps.flow_remove_context(call[1].flow_handle, STREAM, me))
        callout.fwps.untrack(handle)
        call[-1].action_type = BLOCK

    callout = Plain(removing, name="removing")
    driver.add(callout)
    flow = driver.connect()
    assert flow is not None
    handle = driver.fwps.track(object())
    me = callout.callout_id(STREAM)
    assert driver.fwps.flow_associate_context(flow.id, STREAM, me, handle) == SUCCESS
    flow.send(b"x")
    driver.settle()
    assert statuses == [NtStatus.STATUS_PENDING]
    assert rules(driver) == ["V-31"]
    driver.close()
    assert rules(driver) == ["V-31"]


def test_v_31_released_in_flow_delete_fn_at_the_end_of_the_flow() -> None:
    """V-31 does not apply: removal, the end of the flow and a context that two callouts share."""
    driver = MemoryDriver()
    contexts = Contexts(driver, release=True)
    contexts.associate()
    contexts.flow.reset("local")
    driver.settle()
    driver.advance(60.0)
    driver.close()
    assert rules(driver) == []


def test_vrf_5_only_tracked_contexts_are_watched() -> None:
    """VRF-5: a plain integer is nobody's object: nothing is said of it."""
    driver = MemoryDriver()
    contexts = Contexts(driver, release=False)
    me = contexts.callout_id(STREAM)
    assert driver.fwps.flow_associate_context(contexts.flow.id, STREAM, me, 4711) == SUCCESS
    again = driver.fwps.flow_associate_context(contexts.flow.id, STREAM, me, 4712)
    assert again == NtStatus.STATUS_OBJECT_NAME_EXISTS
    assert contexts.remove() == SUCCESS
    contexts.flow.reset("local")
    driver.advance(60.0)
    driver.close()
    assert rules(driver) == []


@pytest.mark.parametrize("at", ["the flow's end", "the engine's stop"])
def test_v_41_the_second_context_never_freed(at: str) -> None:
    """V-41: told a while after the flow's end, or at the stop; one that is stored later after all is not."""
    driver = MemoryDriver()
    contexts = Contexts(driver, release=True)
    contexts.associate()
    handle, status = contexts.associate()
    where = contexts.where
    assert status == NtStatus.STATUS_OBJECT_NAME_EXISTS
    if at == "the flow's end":
        contexts.flow.reset("local")
        driver.advance(4.9)
        assert rules(driver) == []
        driver.advance(0.2)
        assert rules(driver) == ["V-41"]
    driver.close()
    (event,) = events(driver, "violation")
    assert (event["rule"], event["where"], event["severity"]) == ("V-41", where, "E")
    assert driver.fwps.tracked(handle) is not None


def test_v_41_stored_at_the_second_try() -> None:
    """V-41 does not apply: the old one is removed, and the new one takes its place."""
    driver = MemoryDriver()
    contexts = Contexts(driver, release=True)
    contexts.associate()
    handle, _ = contexts.associate()
    contexts.remove()
    me = contexts.callout_id(STREAM)
    assert driver.fwps.flow_associate_context(contexts.flow.id, STREAM, me, handle) == SUCCESS
    contexts.flow.reset("local")
    driver.advance(60.0)
    driver.close()
    assert rules(driver) == []


# --- the probe --------------------------------------------------------------------------------------


class Raising(Plain):
    """Raises at what it does not know."""

    def __init__(self) -> None:
        super().__init__(permit, name="raising")
        self.types: list[int] = []

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Any) -> NtStatus:
        self.types.append(int(notify_type))
        if notify_type > 2:
            raise LookupError(notify_type)
        return SUCCESS


def test_v_54_an_exception_at_the_probe() -> None:
    """V-54, not V-40: it is the unknown type that is not ignored; asked once for each layer and family."""
    driver = MemoryDriver()
    callout = Raising()
    added = driver.add(callout)
    assert max(callout.types) == 0
    driver.close()
    assert rules(driver) == ["V-54", "V-54"]
    assert [event["filter"] for event in events(driver, "violation")] == added.filter_ids


@pytest.mark.parametrize(("level", "asked"), [("off", False), ("warn", True)])
def test_v_54_only_who_was_told_of_a_filter_is_asked_and_only_under_the_verifier(
    level: str, asked: bool
) -> None:
    """V-54, NTF-8: a callout without filters has no work that the probe could ask about."""
    options = EngineOptions()
    options.verify.level = level
    driver = MemoryDriver(options=options)
    types: list[int] = []

    def notify(notify_type: int, filter_key: UUID | None, filter: Any) -> NtStatus:
        types.append(notify_type)
        return SUCCESS

    plain = Callout1(key("no filters"), 0, permit, notify, None)
    status, callout_id = driver.fwps.callout_register1(None, plain)
    assert status == SUCCESS
    assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS
    assert types == []
    callout = Raising()
    driver.add(callout)
    driver.close()
    assert (max(callout.types) > 2) is asked


# --- counts -----------------------------------------------------------------------------------------


def by_length(callout: Callable[[], Counting], *, double: bool = False, less: bool = False) -> Any:
    """Counts every byte it is shown for the first time; waits for pairs."""
    held = {False: 0, True: 0}

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        length, inbound = packet.stream_data.data_length, bool(int(packet.stream_data.flags) & RECEIVE)
        fresh = length - (0 if double else held[inbound])
        callout().shown[inbound] += max(0, fresh - less)
        if length == 1 and not out.flags:
            out.action_type = NONE
            packet.stream_action = NEED_MORE_DATA
            held[inbound] = 1
        else:
            out.action_type = PERMIT
            odd = length % 2 if length > 1 else 0
            packet.count_bytes_enforced = length - odd
            held[inbound] = odd

    return classify


@pytest.mark.parametrize(
    ("how", "caught"), [({}, []), ({"double": True}, ["V-56"]), ({"less": True}, ["V-56", "V-56"])]
)
@pytest.mark.parametrize("repeat_fin", [False, True])
def test_v_56_counts_of_a_callout_that_waits(
    how: dict[str, bool], caught: list[str], repeat_fin: bool
) -> None:
    """V-56, IND-11: held bytes come again with the new ones, the rest of a decision by itself; neither is new."""
    options = quiet()
    options.repeat_fin = repeat_fin
    driver, callout, _ = counting(by_length(lambda: callout, **how), options)
    told = played(driver, b"a", b"bcd", b"ef")
    assert {event["rule"] for event in told} == set(caught)
    assert callout.shown[False] == 6 or how


def test_v_57_nothing_is_counted_at_a_repeated_fin() -> None:
    """V-57, IND-20: who counts the length of what it is shown counts nothing twice at a FIN."""
    options = quiet()
    options.repeat_fin = True
    driver, callout, _ = counting(by_length(lambda: callout), options)
    assert played(driver, b"ab", b"cd") == []
    fins = [event for event in events(driver, "indicate") if "SEND_DISCONNECT" in event["flags"]]
    assert len(fins) == 2


def test_vrf_7_a_flow_that_is_not_counted() -> None:
    """VRF-7: None says so; a second flow is counted by itself."""
    driver = MemoryDriver()
    callout = Counting(permit)
    driver.add(accounted(callout, lambda flow, inbound: None))
    assert played(driver, b"abc") == []
