"""Owns the cases of the connection layers, pended and redirected connections; see `violation_cases`."""

from __future__ import annotations

from tests.fwps.support_connection import (
    ELSEWHERE,
    REDIRECT,
    Asked,
    Door,
    Pender,
    Redirect,
    events,
    permit,
    redirect_handle,
    request,
)
from tests.rules.minimal import SUCCESS, here, place
from tests.rules.violation_cases import Outcome, case
from wfpstream.fwp import ActionType
from wfpstream.testing import MemoryDriver

AUTH = ("ale_auth_connect",)
CLASSIFY = place(Door.classify_fn)


def told(
    driver: MemoryDriver, door: Door, where: str | None, filters: list[int], *, on_flow: bool = True
) -> Outcome:
    """The end of a case."""
    found = events(driver, "violation")
    driver.close()
    return Outcome(found or events(driver, "violation"), where, door.name, filters, on_flow)


def enter(*doors: Door) -> tuple[MemoryDriver, list[int]]:
    """A driver with these callouts, and the filters of the first."""
    driver = MemoryDriver()
    added = [driver.add(door) for door in doors]
    return driver, added[0].filter_ids


@case("V-59")
def never_completed(bad: bool) -> Outcome:
    pender = Pender()
    door = Door(AUTH, pender, name="K")
    driver, filters = enter(door)
    request(driver)
    driver.advance(29)
    if not bad:
        driver.fwps.complete_operation(pender.contexts[0])
    driver.advance(2)
    return told(driver, door, CLASSIFY, filters)


@case("V-60")
def handle_released_twice(bad: bool) -> Outcome:
    where: list[str] = [""]

    def answer(asked: Asked) -> None:
        fwps = asked.door.fwps
        status, handle = fwps.acquire_classify_handle(asked.context)
        assert status == SUCCESS
        fwps.release_classify_handle(handle)
        where.append(here(2))
        if bad:
            fwps.release_classify_handle(handle)
        permit(asked)

    door = Door(REDIRECT, answer, name="K")
    driver, filters = enter(door)
    request(driver)
    return told(driver, door, where[-1], filters)


@case("V-61")
def completed_inside_the_classify_that_pended(bad: bool) -> Outcome:
    where: list[str] = []

    def complete(asked: Asked) -> None:
        where.append(here(1))
        asked.door.fwps.complete_operation(pender.contexts[0])

    def answer(asked: Asked) -> None:
        pender(asked)
        if bad:
            complete(asked)

    pender = Pender()
    door = Door(AUTH, answer, name="K")
    driver, filters = enter(door)
    request(driver)
    complete(door.log[0])
    driver.settle()
    return told(driver, door, where[0], filters)


@case("V-62")
def redirect_to_the_local_host_unnamed(bad: bool) -> Outcome:
    redirect = Redirect(target=("127.0.0.1", 8081))
    where: list[str] = []

    def answer(asked: Asked) -> None:
        where.append(here(1))
        redirect(asked)

    door = Door(REDIRECT, answer, name="K")
    driver, filters = enter(door)
    redirect.handle = redirect_handle(driver)
    redirect.pid = 0 if bad else 4711
    request(driver)
    driver.fwps.redirect_handle_destroy(redirect.handle)
    return told(driver, door, _line_of_apply(), filters)


def _line_of_apply() -> str:
    """Where `Redirect` applies: the call is its, not the door's."""
    code = Redirect.__call__.__code__
    with open(code.co_filename, encoding="utf-8") as source:
        lines = source.read().splitlines()
    begin = code.co_firstlineno
    offset = next(i for i, line in enumerate(lines[begin:]) if "apply_modified_layer_data" in line)
    return f"{code.co_filename}:{begin + offset + 1}"


@case("V-63")
def redirect_without_a_query(bad: bool) -> Outcome:
    redirect = Redirect(target=ELSEWHERE, ask=not bad)
    door = Door(REDIRECT, redirect, name="K")
    driver, filters = enter(door)
    redirect.handle = redirect_handle(driver)
    request(driver)
    driver.fwps.redirect_handle_destroy(redirect.handle)
    return told(driver, door, _line_of_apply(), filters)


@case("V-64")
def pended_and_not_blocked(bad: bool) -> Outcome:
    def answer(asked: Asked) -> None:
        pender(asked)
        if bad:
            asked.out.action_type = ActionType.PERMIT

    pender = Pender()
    door = Door(AUTH, answer, name="K")
    driver, filters = enter(door)
    request(driver)
    driver.fwps.complete_operation(pender.contexts[0])
    driver.settle()
    return told(driver, door, CLASSIFY, filters)
