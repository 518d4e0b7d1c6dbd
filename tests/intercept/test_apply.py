"""All of it or nothing: applying and undoing over a kernel in memory, with a failure at every step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.intercept.kernel import OURS, Kernel, Killed, machine
from wfpstream.intercept import (
    InterceptError,
    Interception,
    RulePart,
    SystemTools,
    TablePart,
    apply,
    doctor,
    plan_here,
    stop_taking,
    undo,
)

REDIRECT = Interception(15001)
TPROXY = Interception(15001, mode="tproxy")
# What others have: it must be there afterwards as it was before.
TABLES = {"docker": "", "filter": "mine"}
RULES = [("-4", 100, 0x1, 577)]
ROUTES = [("-4", 577)]


def foreign() -> Kernel:
    return Kernel(dict(TABLES), list(RULES), list(ROUTES))


def records(folder: Path) -> list[str]:
    place = folder / "state" / "intercept"
    return sorted(os.listdir(place)) if place.exists() else []


@pytest.mark.parametrize("plan", [REDIRECT, TPROXY])
def test_undo_leaves_everything_as_it_was(tmp_path: Path, plan: Interception) -> None:
    kernel = foreign()
    before = kernel.state()
    record = apply(plan, machine=machine(tmp_path, kernel))
    assert kernel.tables[plan.name] == OURS
    assert len(record.rules) == len(record.routes) == (2 if plan.mode == "tproxy" else 0)
    lines = undo(machine=machine(tmp_path, kernel))
    assert kernel.state() == before
    assert len(lines) == len(record.parts)
    assert all(line.endswith("removed") for line in lines)
    assert records(tmp_path) == []


def test_undo_twice_says_so(tmp_path: Path) -> None:
    here = machine(tmp_path, Kernel())
    assert undo(machine=here) == ["nothing to undo"], "no folder yet"
    apply(TPROXY, machine=here)
    undo(machine=here)
    assert undo(machine=here) == ["nothing to undo"]
    assert undo("other", machine=here) == ["other: nothing to undo"]


def test_numbers_that_others_use_are_not_taken(tmp_path: Path) -> None:
    kernel = foreign()
    record = apply(TPROXY, machine=machine(tmp_path, kernel))
    assert {rule.table for rule in record.rules} == {578}
    assert {rule.priority for rule in record.rules} == {99}, "before every other rule"


STEPS = {"redirect": 1, "tproxy": 5}


@pytest.mark.parametrize(("plan", "step"), [(p, n) for p in (REDIRECT, TPROXY) for n in range(STEPS[p.mode])])
@pytest.mark.parametrize("how", ["refused", "raises before", "raises after", "interrupted after"])
def test_after_a_failed_step_nothing_is_left(tmp_path: Path, plan: Interception, step: int, how: str) -> None:
    kernel = replace(foreign(), fail_at=step, fails_after=how.endswith("after"))
    if how != "refused":
        kernel.fail_with = (
            KeyboardInterrupt() if how.startswith("inter") else InterceptError("it did not end")
        )
    before = kernel.state()
    with pytest.raises(KeyboardInterrupt if how.startswith("inter") else InterceptError):
        apply(plan, machine=machine(tmp_path, kernel))
    assert kernel.state() == before
    assert records(tmp_path) == []


@pytest.mark.parametrize("step", range(STEPS["tproxy"]))
def test_what_somebody_adds_meanwhile_is_not_taken_back(tmp_path: Path, step: int) -> None:
    """A step that is refused because the thing is there already did not make it."""

    class Racing(Kernel):
        def run(self, program: str, arguments: Any, text: str = "") -> Any:
            if arguments[0] not in ("-j", "-t") and len(self.calls) == step:
                self.change(program, list(arguments), text.replace(OURS, "somebody's"))
            return super().run(program, arguments, text)

    kernel = Racing()
    with pytest.raises(InterceptError, match="File exists"):
        apply(TPROXY, machine=machine(tmp_path, kernel))
    flat = [kernel.tables, kernel.rules, kernel.routes]
    assert sum(map(len, flat)) == 1, "theirs, and nothing of ours"


@pytest.mark.parametrize("step", range(STEPS["tproxy"]))
@pytest.mark.parametrize("after", [False, True])
def test_a_crash_between_steps_leaves_a_record_that_undoes_it(tmp_path: Path, step: int, after: bool) -> None:
    """As after kill -9, nothing is cleaned up."""
    kernel = replace(foreign(), fail_at=step, fail_with=Killed(), fails_after=after)
    before = kernel.state()
    here = machine(tmp_path, kernel)
    with pytest.raises(Killed):
        apply(TPROXY, machine=here)
    assert len(records(tmp_path)) == 1
    kernel.fail_at, kernel.is_dead = None, False
    lines = undo(machine=here)
    assert len(lines) == STEPS["tproxy"]
    assert kernel.state() == before
    assert records(tmp_path) == []


@given(st.sets(st.integers(0, 4)))
def test_undo_goes_on_when_parts_are_gone(tmp_path_factory: pytest.TempPathFactory, gone: set[int]) -> None:
    folder = tmp_path_factory.mktemp("gone")
    kernel = foreign()
    before = kernel.state()
    here = machine(folder, kernel)
    record = apply(TPROXY, machine=here)
    for number in gone:
        part = record.parts[number]
        if isinstance(part, TablePart):
            del kernel.tables[part.name]
        elif isinstance(part, RulePart):
            kernel.rules.remove((f"-{part.family[-1]}", part.priority, part.mark, part.table))
        else:
            kernel.routes.remove((f"-{part.family[-1]}", part.table))
    lines = undo(machine=here)
    assert sum("gone already" in line for line in lines) == len(gone)
    assert kernel.state() == before


@pytest.mark.parametrize("step", range(STEPS["tproxy"]))
def test_an_undo_that_fails_keeps_the_record_and_removes_the_rest(tmp_path: Path, step: int) -> None:
    kernel = foreign()
    before = kernel.state()
    here = machine(tmp_path, kernel)
    apply(TPROXY, machine=here)
    kernel.fail_at = len(kernel.calls) + step
    with pytest.raises(InterceptError, match="cannot remove") as caught:
        undo(machine=here)
    assert len(caught.value.lines) == 1
    assert len(caught.value.done) == STEPS["tproxy"] - 1
    assert len(records(tmp_path)) == 1
    undo(machine=here)
    assert kernel.state() == before


def test_taking_no_more_leaves_what_undo_removes(tmp_path: Path) -> None:
    kernel = foreign()
    before = kernel.state()
    here = machine(tmp_path, kernel)
    stop_taking(REDIRECT.name, machine=here)
    apply(REDIRECT, machine=here)
    for _ in range(2):
        stop_taking(REDIRECT.name, machine=here)
        assert kernel.emptied == {REDIRECT.name}
    undo(machine=here)
    assert kernel.state() == before
    kernel.emptied.clear()
    stop_taking(REDIRECT.name, machine=here)
    assert not kernel.emptied


@pytest.mark.parametrize("name", ["docker", "wfpstream"])
def test_a_table_of_somebody_else_is_not_emptied(tmp_path: Path, name: str) -> None:
    kernel = foreign()
    here = machine(tmp_path, kernel)
    apply(REDIRECT, machine=here)
    kernel.tables[name] = "somebody's"
    stop_taking(name, machine=here)
    assert not kernel.emptied


def test_ctrl_c_does_not_reach_the_programs(tmp_path: Path) -> None:
    """A terminal sends it to the whole group of processes, and undoing needs them to end properly."""
    program = tmp_path / "nft"
    program.write_text(f"#!{sys.executable}\nimport os\nprint(os.getpgrp())\n")
    program.chmod(0o755)
    assert SystemTools([str(tmp_path)]).run("nft", []).out != f"{os.getpgrp()}\n"


def test_a_table_somebody_made_under_our_name_is_left_alone(tmp_path: Path) -> None:
    kernel = Kernel()
    here = machine(tmp_path, kernel)
    apply(REDIRECT, machine=here)
    kernel.tables["wfpstream"] = "somebody's"
    assert undo(machine=here) == ["wfpstream: nft table inet wfpstream is not the one we made: left alone"]
    assert kernel.tables == {"wfpstream": "somebody's"}


def test_a_failed_clean_up_is_told_and_can_be_repeated(tmp_path: Path) -> None:
    kernel = replace(foreign(), fail_at=2)
    before = kernel.state()
    here = machine(tmp_path, kernel)
    original = kernel.run

    def stubborn(program: str, arguments: Any, text: str = "") -> Any:
        if "del" in arguments:
            raise InterceptError("ip did not end within 15 s")
        return original(program, arguments, text)

    kernel.run = stubborn  # type: ignore[method-assign]
    with pytest.raises(InterceptError) as caught:
        apply(TPROXY, machine=here)
    assert "cannot add the ipv4 rule" in caught.value.lines[0]
    assert "part of it may be left" in caught.value.lines[-1]
    del kernel.run
    undo(machine=here)
    assert kernel.state() == before


# --- who has it already ---------------------------------------------------------------------------


def test_a_name_that_is_there_is_refused(tmp_path: Path) -> None:
    kernel = Kernel()
    here = machine(tmp_path, kernel)
    apply(REDIRECT, machine=here)
    state = kernel.state()
    with pytest.raises(
        InterceptError, match="wfpstream is there already, applied by `wfpstream transparent apply`"
    ):
        apply(REDIRECT, machine=here)
    assert kernel.state() == state


@pytest.mark.parametrize(
    ("comment", "whose"), [("x", "made by somebody else"), (OURS, "without an undo record")]
)
def test_a_table_that_is_there_is_refused(tmp_path: Path, comment: str, whose: str) -> None:
    kernel = Kernel({"wfpstream": comment})
    with pytest.raises(InterceptError, match=whose):
        apply(REDIRECT, machine=machine(tmp_path, kernel))
    assert kernel.tables == {"wfpstream": comment}
    assert kernel.calls == []
    assert records(tmp_path) == []


def test_two_names_live_side_by_side_unless_they_take_the_same(tmp_path: Path) -> None:
    kernel = Kernel()
    here = machine(tmp_path, kernel)
    apply(Interception(1, name="web", redirect_ports=(80,)), machine=here)
    with pytest.raises(InterceptError, match="all and web would both take connections made on this machine"):
        apply(Interception(2, name="all"), machine=here)
    apply(Interception(2, name="db", redirect_ports=(5432,)), machine=here)
    assert set(kernel.tables) == {"web", "db"}
    undo("web", machine=here)
    assert set(kernel.tables) == {"db"}
    apply(Interception(2, name="web", redirect_ports=(80,)), machine=here)


def test_two_tproxies_have_numbers_of_their_own(tmp_path: Path) -> None:
    kernel = Kernel()
    here = machine(tmp_path, kernel)
    apply(Interception(1, name="a", mode="tproxy", redirect_ports=(80,)), machine=here)
    state = kernel.state()
    apply(Interception(2, name="b", mode="tproxy", redirect_ports=(81,)), machine=here)
    assert len({rule[3] for rule in kernel.rules}) == 2
    undo("b", machine=here)
    assert kernel.state() == state


# --- owners ---------------------------------------------------------------------------------------


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process.communicate()
    return process.pid


def test_what_a_running_proxy_has_is_left_unless_it_is_named(tmp_path: Path) -> None:
    kernel = Kernel()
    here = machine(tmp_path, kernel)
    apply(REDIRECT, owner=os.getpid(), machine=here)
    (line,) = undo(machine=here)
    assert "left alone" in line
    assert f"the proxy with pid {os.getpid()}, running" in line
    assert "wfpstream" in kernel.tables
    assert undo("wfpstream", machine=here) == ["wfpstream: nft table inet wfpstream removed"]


def apply_and_die(folder: Path, kernel: Kernel, plan: Interception) -> None:
    """As a proxy that is killed: it applies, and its process is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        apply(plan, owner=process.pid, machine=machine(folder, kernel))
        process.kill()


@pytest.mark.parametrize("successor", ["by hand", "another proxy"])
def test_a_proxy_leaves_alone_what_others_made_under_its_name(tmp_path: Path, successor: str) -> None:
    """Somebody has undone it while it ran, and applied the same again: that is theirs."""
    kernel = foreign()
    here = machine(tmp_path, kernel)
    apply(REDIRECT, owner=os.getpid(), machine=here)
    undo(REDIRECT.name, machine=here)
    theirs = apply(REDIRECT, owner=os.getppid() if successor == "another proxy" else None, machine=here)
    applied = kernel.state()
    stop_taking(REDIRECT.name, owner=os.getpid(), machine=here)
    (line,) = undo(REDIRECT.name, owner=os.getpid(), machine=here)
    assert "left alone" in line
    assert kernel.state() == applied
    assert not kernel.emptied
    undo(theirs.name, owner=theirs.owner.pid if theirs.owner else None, machine=here)
    assert kernel.state() == foreign().state()


@pytest.mark.parametrize("plan", [REDIRECT, TPROXY])
def test_a_proxy_takes_its_own_back_when_the_records_were_swept_away(
    tmp_path: Path, plan: Interception
) -> None:
    """As systemd does with a run-time folder that two services share, when the other one ends."""
    kernel = foreign()
    here = machine(tmp_path, kernel)
    made = apply(plan, owner=os.getpid(), machine=here)
    shutil.rmtree(tmp_path / "state")
    assert all("removed" in line for line in undo(plan.name, owner=os.getpid(), made=made, machine=here))
    assert kernel.state() == foreign().state()
    assert all("gone already" in line for line in undo(plan.name, made=made, machine=here))


def test_what_a_dead_proxy_left_is_undone_without_a_name(tmp_path: Path) -> None:
    kernel = foreign()
    before = kernel.state()
    apply_and_die(tmp_path, kernel, TPROXY)
    undo(machine=machine(tmp_path, kernel))
    assert kernel.state() == before


def test_a_proxy_that_starts_again_clears_what_its_dead_forerunner_left(tmp_path: Path) -> None:
    kernel = foreign()
    apply_and_die(tmp_path, kernel, TPROXY)
    lines: list[str] = []
    record = apply(REDIRECT, owner=os.getpid(), machine=machine(tmp_path, kernel), log=lines.append)
    assert "undoing what is left of a proxy that did not end properly" in lines[0]
    assert record.is_live
    assert kernel.rules == RULES
    assert kernel.routes == ROUTES


def test_an_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    kernel = Kernel()
    record = apply(REDIRECT, owner=os.getpid(), machine=machine(tmp_path, kernel))
    assert record.owner is not None
    assert record.owner.is_alive
    assert not type(record.owner)(record.owner.pid, record.owner.start + 1).is_alive
    assert not type(record.owner)(dead_process(), record.owner.start).is_alive


def test_a_process_that_only_waits_to_be_collected_is_dead(tmp_path: Path) -> None:
    """As a killed proxy is for as long as its parent does not ask for its end."""
    kernel = Kernel()
    here = machine(tmp_path, kernel)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        record = apply(REDIRECT, owner=process.pid, machine=here)
        assert record.owner is not None
        assert record.owner.start > 0
        alive = [record.is_live]
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        alive.append(record.is_live)
        assert alive == [True, False]
        undo(machine=here)
        assert kernel.tables == {}


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["nft", "ip"])
def test_a_missing_program_is_one_line_and_nothing_is_changed(tmp_path: Path, program: str) -> None:
    kernel = Kernel(lacking={program})
    with pytest.raises(InterceptError, match=f"{program} is not installed \\(package "):
        apply(TPROXY, machine=machine(tmp_path, kernel))
    assert kernel.calls == []
    assert records(tmp_path) == []


def test_missing_rights_are_one_line_and_nothing_is_changed(tmp_path: Path) -> None:
    kernel = Kernel()
    with pytest.raises(InterceptError, match="needs root, or CAP_NET_ADMIN"):
        apply(TPROXY, machine=machine(tmp_path, kernel, rights=False))
    assert kernel.calls == []
    assert records(tmp_path) == []


def test_without_ipv6_only_ipv4_is_taken_and_that_is_said(tmp_path: Path) -> None:
    kernel = Kernel()
    lines: list[str] = []
    record = apply(TPROXY, machine=machine(tmp_path, kernel, ipv6=False), log=lines.append)
    assert lines == ["IPv6 is off here: only IPv4 connections are taken"]
    assert record.plan.families == ("ipv4",)
    assert {rule.family for rule in record.rules} == {"ipv4"}


def test_only_ipv6_without_ipv6_is_refused(tmp_path: Path) -> None:
    plan = replace(REDIRECT, families=("ipv6",))
    with pytest.raises(InterceptError, match="IPv6 is off here"):
        apply(plan, machine=machine(tmp_path, Kernel(), ipv6=False))
    assert records(tmp_path) == []


def test_a_control_group_that_is_not_there_is_refused(tmp_path: Path) -> None:
    plan = Interception(1, only_cgroup="no.slice/such.service")
    with pytest.raises(InterceptError, match=r"there is no control group no\.slice/such\.service"):
        apply(plan, machine=machine(tmp_path, Kernel()))
    assert records(tmp_path) == []


def test_rules_can_be_printed_without_ip(tmp_path: Path) -> None:
    lines: list[str] = []
    _, made = plan_here(TPROXY, machine(tmp_path, Kernel(lacking={"ip"})), lines.append)
    assert made.rules
    assert lines == ["ip is not installed: whether these numbers are free cannot be seen"]


def test_printing_and_examining_change_nothing(tmp_path: Path) -> None:
    kernel = foreign()
    before = kernel.state()
    plan_here(TPROXY, machine(tmp_path, kernel))
    doctor(TPROXY, machine(tmp_path, kernel))
    assert kernel.state() == before
    assert kernel.calls == []
    assert records(tmp_path) == []
