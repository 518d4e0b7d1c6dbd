"""CONNECT_REDIRECT pended by a classify handle (LAY-14, LAY-18, LAY-23, LAY-25, V-60, V-61)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fwps.support_connection import (
    ELSEWHERE,
    REDIRECT,
    SUCCESS,
    UPSTREAM,
    Asked,
    Door,
    Redirect,
    block,
    boom,
    permit,
    redirect_handle,
    request,
    world,
)
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS,
    RIGHT_ACTION_WRITE,
    ClassifyOut,
)


class PendedDoor(Door):
    """Pends its first classify and keeps the handle for a worker."""

    def __init__(self, *answers: Callable[[Asked], object], name: str = "K", release: bool = False) -> None:
        super().__init__(REDIRECT, self.pend, *answers, name=name)
        self.handle = 0
        self.filter_id = 0
        self.out = ClassifyOut()
        self._release = release
        self.status = SUCCESS

    def pend(self, asked: Asked) -> None:
        _, self.handle = self.fwps.acquire_classify_handle(asked.context)
        self.filter_id = asked.filter.filter_id
        self.status = self.fwps.pend_classify(self.handle, self.filter_id, 0, asked.out)
        block(asked)
        if self._release:
            self.fwps.release_classify_handle(self.handle)

    def complete(self, action: ActionType | None = ActionType.PERMIT) -> None:
        if action is not None:
            self.out.action_type = action
            self.out.rights |= RIGHT_ACTION_WRITE
        self.fwps.complete_classify(self.handle, 0, self.out if action is not None else None)

    def release(self) -> None:
        self.fwps.release_classify_handle(self.handle)


# --- pending --------------------------------------------------------------------------------------


def test_lay_23_pend_statuses() -> None:
    statuses: list[NtStatus] = []

    def pend(asked: Asked) -> None:
        fwps, filter_id = asked.door.fwps, asked.filter.filter_id
        _, handle = fwps.acquire_classify_handle(asked.context)
        statuses.append(fwps.pend_classify(handle, filter_id, 1, asked.out))
        statuses.append(fwps.pend_classify(handle, filter_id, 0, None))
        statuses.append(fwps.pend_classify(handle, filter_id + 1, 0, asked.out))
        fwps.release_classify_handle(handle)
        permit(asked)

    driver, _ = world(Door(REDIRECT, pend))
    request(driver)
    statuses.append(driver.fwps.pend_classify(1, 1, 0, ClassifyOut()))
    invalid = NtStatus.STATUS_INVALID_PARAMETER
    outside = NtStatus.STATUS_INVALID_DEVICE_STATE
    assert statuses == [invalid, NtStatus.STATUS_FWP_NULL_POINTER, invalid, outside]
    assert driver.violations == []


@pytest.mark.parametrize("release_early", [False, True])
def test_lay_23_the_pend_keeps_the_handle(release_early: bool) -> None:
    door = PendedDoor(release=release_early)
    driver, _ = world(door)
    attempt = request(driver)
    assert (door.status, attempt.verdict) == (SUCCESS, "pended")
    redirect = Redirect(handle=redirect_handle(driver))
    redirect.ask = False
    data = redirect.write(driver.fwps, door.handle, door.filter_id, door.out)
    driver.fwps.apply_modified_layer_data(door.handle, data)
    door.complete()
    driver.settle()
    if not release_early:
        door.release()
    assert attempt.upstream == ELSEWHERE
    driver.advance(100)
    assert driver.violations == ["V-63"]  # it never asked for the state; nothing else


def test_v_60_a_pended_handle_is_released_within_the_grace() -> None:
    door = PendedDoor()
    driver, _ = world(door)
    request(driver)
    door.complete()
    driver.advance(4.9)
    assert driver.violations == []
    driver.advance(0.2)
    assert driver.violations == ["V-60"]


def test_lay_23_null_classifies_again_from_the_top() -> None:
    heavy, door, light = Door(REDIRECT, name="heavy"), PendedDoor(), Door(REDIRECT, name="light")
    driver, log = world(heavy, door, light)
    attempt = request(driver)
    door.complete(None)
    driver.settle()
    door.release()
    assert [(asked.door.name, asked.reauthorizing) for asked in log] == [
        ("heavy", False),
        ("K", False),
        ("heavy", True),
        ("K", True),
        ("light", True),
    ]
    assert attempt.verdict == "permit"
    assert driver.violations == []


def test_lay_23_a_block_at_the_completion_is_final() -> None:
    door = PendedDoor()
    driver, log = world(door, Door(REDIRECT, name="light"))
    attempt = request(driver)
    door.complete(ActionType.BLOCK)
    door.release()
    driver.settle()
    assert attempt.verdict == "block"
    assert [asked.door.name for asked in log] == ["K", "light"]


def test_lay_18_two_callouts_pend_one_after_the_other() -> None:
    first, second = PendedDoor(name="first"), PendedDoor(name="second")
    driver, log = world(first, second)
    attempt = request(driver)
    first.complete()
    first.release()
    driver.settle()
    assert (second.status, attempt.verdict) == (SUCCESS, "pended")
    second.complete()
    second.release()
    driver.settle()
    assert attempt.verdict == "permit"
    assert [asked.reauthorizing for asked in log] == [False, True]
    assert driver.violations == []


def test_v_61_completed_twice_or_without_a_pend() -> None:
    door = PendedDoor()
    driver, _ = world(door)
    attempt = request(driver)
    door.complete()
    door.complete(ActionType.BLOCK)
    driver.settle()
    driver.fwps.complete_classify(4711, 0, None)
    assert attempt.verdict == "permit"
    assert driver.violations == ["V-61", "V-61"]


def test_v_61_completed_inside_the_classify() -> None:
    door = PendedDoor()

    def pend_and_complete(asked: Asked) -> None:
        door.pend(asked)
        door.complete()

    door.answers = [pend_and_complete]
    driver, _ = world(door)
    attempt = request(driver)
    assert attempt.verdict == "pended"
    assert driver.violations == ["V-61"]


def test_lay_25_the_completion_discards_what_was_not_applied() -> None:
    door = PendedDoor()
    driver, _ = world(door)
    attempt = request(driver)
    Redirect().write(driver.fwps, door.handle, door.filter_id, door.out)
    door.complete()
    door.release()
    driver.settle()
    assert attempt.upstream == UPSTREAM
    assert driver.violations == ["V-60"]


@pytest.mark.parametrize("limit", [False, True])
def test_lay_14_a_late_worker_does_no_harm(limit: bool) -> None:
    door = PendedDoor()
    driver, log = world(door)
    attempt = request(driver)
    data = Redirect().write(driver.fwps, door.handle, door.filter_id, door.out)
    if not limit:
        attempt.gone()
    driver.advance(100)  # the worker has no way to know
    driver.fwps.apply_modified_layer_data(door.handle, data)
    status, _ = driver.fwps.acquire_writable_layer_data_pointer(door.handle, door.filter_id, 0, door.out)
    assert status == NtStatus.STATUS_INVALID_DEVICE_STATE
    door.complete()
    door.release()
    driver.advance(100)
    assert (attempt.verdict, len(log)) == ("block", 1)
    assert driver.violations == (["V-59"] if limit else [])


def test_v_60_a_late_worker_releases_too() -> None:
    door = PendedDoor()
    driver, _ = world(door)
    request(driver).gone()
    door.complete()
    driver.advance(4.9)
    assert driver.violations == []
    driver.advance(0.2)
    assert driver.violations == ["V-60"]


def test_act_14_an_exception_voids_pend_and_handle() -> None:
    door = PendedDoor(release=True)

    def pend_and_raise(asked: Asked) -> None:
        door.pend(asked)
        boom(asked)

    door.answers = [pend_and_raise]
    driver, _ = world(door)
    assert request(driver).verdict == "block"
    door.complete()
    driver.advance(100)
    assert driver.violations == ["V-40"]


def test_lay_25_each_watcher_is_told_once() -> None:
    flag = CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS
    door = PendedDoor(block, permit)
    driver, log = world(
        door, Door(REDIRECT, Redirect(("10.0.0.4", 1)), name="L"), Door(REDIRECT, Redirect(), name="M")
    )
    attempt = request(driver)
    mine = Redirect(ask=False)
    data = mine.write(driver.fwps, door.handle, door.filter_id, door.out)
    driver.fwps.apply_modified_layer_data(door.handle, data, flag)
    door.complete()
    door.release()
    driver.settle()
    assert [asked.door.name for asked in log] == ["K", "L", "M", "K"]
    assert log[3].layer_data.remote_address_and_port == ELSEWHERE
    assert attempt.verdict == "block"  # its new answer stands for its old one
