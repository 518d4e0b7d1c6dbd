"""Applying a plan, and taking it back: all of it or nothing, also after a crash.

The order is what makes a crash harmless. The undo record is written first; then come routes and rules, which nothing
uses yet; last, in one transaction of the kernel, the nft table, with which interception begins. Undoing goes the
other way and ends with the record. Whatever is cut short between two of these steps, the record tells all that may
be there, and undoing looks for each part before it removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from wfpstream.intercept._errors import InterceptError
from wfpstream.intercept._machine import (
    Machine,
    cgroup_folder,
    family_is_on,
    free_numbers,
    has_route,
    has_rule,
    has_table,
    is_our_table,
    may_change_network,
)
from wfpstream.intercept._plan import Interception, check_name, find_overlap
from wfpstream.intercept._record import Record, new_record
from wfpstream.intercept._records import Records, default_folder, open_records
from wfpstream.intercept._rules import (
    Numbers,
    Part,
    RoutePart,
    Script,
    TablePart,
    add_route,
    add_rule,
    delete_route,
    delete_rule,
    emptied,
    script,
)
from wfpstream.intercept._tools import Outcome, Tools, check, missing

NO_RIGHTS = "changing nft tables and routes needs root, or CAP_NET_ADMIN as an ambient capability"
_NO_IPV6 = "IPv6 is off here: only IPv4 connections are taken"


def _ignore(line: str) -> None:
    del line


def plan_here(
    plan: Interception, machine: Machine | None = None, log: Callable[[str], None] = _ignore
) -> tuple[Interception, Script]:
    """What applying `plan` on this machine, now, would run: the families it has and numbers that are free.

    Args:
        plan: what is to be intercepted.
        machine: whose; None: this one.
        log: told, in a line, what of the plan this machine cannot have.

    Raises:
        InterceptError: the machine has none of the families, no such control group, or cannot be asked.
    """
    machine = machine or Machine()
    families = tuple(family for family in plan.families if family_is_on(family, machine.proc))
    if not families:
        raise InterceptError("IPv6 is off here, and only IPv6 connections are to be taken")
    if families != plan.families:
        log(_NO_IPV6)
    plan = replace(plan, families=families)
    folder = cgroup_folder(plan.only_cgroup) if plan.only_cgroup is not None else ""
    return plan, script(plan, _numbers(plan, machine.tools, log), folder)


def _numbers(plan: Interception, tools: Tools, log: Callable[[str], None]) -> Numbers | None:
    if plan.mode != "tproxy":
        return None
    if tools.find("ip") is None:
        log("ip is not installed: whether these numbers are free cannot be seen")
        return None
    return free_numbers(tools, plan.families)


def apply(
    plan: Interception,
    *,
    owner: int | None = None,
    machine: Machine | None = None,
    log: Callable[[str], None] = _ignore,
) -> Record:
    """Intercept as planned. Connections that exist are not touched.

    Args:
        plan: what is to be intercepted.
        owner: the pid of the proxy that undoes it at its end. What an owner that has died left under the same name
            is taken back first. None: it stays until somebody undoes it.
        machine: where; None: here.
        log: told, in a line each, what is worth knowing and no error.

    Returns:
        What was made.

    Raises:
        InterceptError: it cannot be; nothing of it is left.
    """
    machine = machine or Machine()
    tools = machine.tools
    _check_rights(machine)
    place = machine.state or default_folder()
    with open_records(place, create=True) as records:
        assert records is not None
        _clear_dead(records, plan.name, tools, log)
        _check_free(records, plan, tools, log)
        plan, made = plan_here(plan, machine, log)
        record = new_record(plan, made, owner)
        try:
            records.write(record)
        except OSError as error:
            raise InterceptError(f"cannot write the undo record in {place}: {_reason(error)}") from error
        attempted: list[Part] = []
        try:
            _make(made, tools, attempted)
        except BaseException as error:
            _take_back(records, record, attempted, tools, error)
            raise
        return record


def stop_taking(name: str, *, owner: int | None = None, machine: Machine | None = None) -> None:
    """Take no new connections; those that were taken go on until `undo`.

    A redirected connection lives by the translation of its addresses, which the kernel gives up together with the
    last rule that wants connection tracking. So one stays, and nothing leads to it.

    Args:
        name: of the interception; nothing happens if there is none.
        owner: as for `undo`.
        machine: where; None: here.

    Raises:
        InterceptError: it cannot be done; nothing has changed.
    """
    machine = machine or Machine()
    tools = machine.tools
    check_name(name)
    with open_records(machine.state or default_folder(), create=False) as records:
        record = records.find(name) if records is not None else None
        if record is None or not _may_touch(record, owner) or not has_table(tools, name):
            return
        if is_our_table(tools, name):
            check("nft", tools.run("nft", ["-f", "-"], emptied(name)), f"cannot empty the {TablePart(name)}")


def undo(
    name: str | None = None,
    *,
    owner: int | None = None,
    made: Record | None = None,
    machine: Machine | None = None,
) -> list[str]:
    """Take back what was applied: exactly what the records tell, and nothing else.

    Args:
        name: of one interception, whoever it belongs to. None: all but those of proxies that are running.
        owner: with a name: the pid of the proxy it must belong to. What others have made under that name since, is
            left alone.
        made: what `apply` returned, for the day that somebody has swept the folder of records away.
        machine: where; None: here.

    Returns:
        A line for each part: removed, gone already, or left alone and why.

    Raises:
        InterceptError: something could not be removed; its record is kept. What could be removed is, and is in
            the exception's `done`.
    """
    machine = machine or Machine()
    if name is not None:
        check_name(name)
    with open_records(machine.state or default_folder(), create=False) as records:
        chosen, lines, faults = _chosen(records, name, owner) if records is not None else ([], [], [])
        if made is not None and not (chosen or lines):
            chosen = [made]
        if chosen:
            _check_rights(machine)
        for record in chosen:
            try:
                lines += _unmake(record.name, record.parts, machine.tools)
            except InterceptError as error:
                lines += error.done
                faults += error.lines
            else:
                if records is not None:
                    records.remove(record)
    if faults:
        raise InterceptError(*faults, done=lines)
    return lines or [_nothing(name)]


def _may_touch(record: Record, owner: int | None) -> bool:
    return owner is None or (record.is_live and record.owner is not None and record.owner.pid == owner)


def _chosen(
    records: Records, name: str | None, owner: int | None
) -> tuple[list[Record], list[str], list[str]]:
    """The records to undo, lines about those that are left, and faults."""
    if name is not None:
        record = records.find(name)
        if record is not None and not _may_touch(record, owner):
            return [], [f"{name}: left alone, {record.describe()}"], []
        return ([record] if record is not None else []), [], []
    found, faults = records.all_here()
    lines = [
        f"{record.name}: left alone, {record.describe()}; "
        f"`wfpstream transparent undo --name {record.name}` undoes it all the same"
        for record in found
        if record.is_live
    ]
    return [record for record in found if not record.is_live], lines, faults


def _nothing(name: str | None) -> str:
    return "nothing to undo" if name is None else f"{name}: nothing to undo"


# --- before ---------------------------------------------------------------------------------------


def _check_rights(machine: Machine) -> None:
    lines = [missing(program) for program in ("nft", "ip") if machine.tools.find(program) is None]
    if not may_change_network(machine.proc):
        lines.append(NO_RIGHTS)
    if lines:
        raise InterceptError(*lines)


def _clear_dead(records: Records, name: str, tools: Tools, log: Callable[[str], None]) -> None:
    """What a proxy that was killed left behind is nobody's."""
    record = records.find(name)
    if record is None or record.owner is None or record.is_live:
        return
    log(f"{name}: undoing what is left of a proxy that did not end properly (pid {record.owner.pid})")
    for line in _unmake(name, record.parts, tools):
        log(line)
    records.remove(record)


def _check_free(records: Records, plan: Interception, tools: Tools, log: Callable[[str], None]) -> None:
    record = records.find(plan.name)
    how = f"`wfpstream transparent undo --name {plan.name}` takes it back"
    if record is not None:
        raise InterceptError(
            f"{plan.name} is there already, {record.describe()}; {how}, --name makes another one"
        )
    if has_table(tools, plan.name):
        whose = "without an undo record" if is_our_table(tools, plan.name) else "made by somebody else"
        raise InterceptError(
            f"there is an nft table inet {plan.name} already, {whose}: it is not touched; choose another --name"
        )
    others, faults = records.all_here()
    for line in faults:
        log(line)
    for other in others:
        shared = find_overlap(plan, other.plan)
        if shared is not None and has_table(tools, other.name):
            raise InterceptError(
                f"{plan.name} and {other.name} would both take {shared}; {other.name} was {other.describe()}"
            )


# --- making and unmaking --------------------------------------------------------------------------


def _make(made: Script, tools: Tools, attempted: list[Part]) -> None:
    """Make all parts; `attempted` has those that may be there, whenever this is left."""
    for part in made.parts:
        attempted.append(part)
        done = _run_for(part, made, tools)
        if not done.ok:
            attempted.remove(part)
        check(_program(part), done, f"cannot add the {part}")


def _run_for(part: Part, made: Script, tools: Tools) -> Outcome:
    if isinstance(part, TablePart):
        return tools.run("nft", ["-f", "-"], made.nft)
    return tools.run("ip", add_route(part) if isinstance(part, RoutePart) else add_rule(part))


def _take_back(
    records: Records, record: Record, attempted: list[Part], tools: Tools, error: BaseException
) -> None:
    """After a failure. If even that fails, the record stays for a later `undo`, and the error says so."""
    try:
        _unmake(record.name, attempted, tools)
        records.remove(record)
    except InterceptError as second:
        raise InterceptError(
            *(error.lines if isinstance(error, InterceptError) else [f"interrupted: {error!r}"]),
            *second.lines,
            "part of it may be left: `wfpstream transparent undo` removes it",
        ) from error


def _unmake(name: str, parts: Sequence[Part], tools: Tools) -> list[str]:
    """Remove what is left of the parts, the last first; a line for each. All are tried.

    Raises:
        InterceptError: some could not be removed.
    """
    lines: list[str] = []
    faults: list[str] = []
    for part in reversed(parts):
        try:
            lines.append(f"{name}: {_remove(part, tools)}")
        except InterceptError as error:
            faults.extend(f"{name}: {line}" for line in error.lines)
    if faults:
        raise InterceptError(*faults, done=lines)
    return lines


def _remove(part: Part, tools: Tools) -> str:
    if not _is_there(part, tools):
        return f"{part} was gone already"
    if isinstance(part, TablePart):
        if not is_our_table(tools, part.name):
            return f"{part} is not the one we made: left alone"
        done = tools.run("nft", ["delete", "table", "inet", part.name])
    else:
        done = tools.run("ip", delete_route(part) if isinstance(part, RoutePart) else delete_rule(part))
    check(_program(part), done, f"cannot remove the {part}")
    return f"{part} removed"


def _is_there(part: Part, tools: Tools) -> bool:
    if isinstance(part, TablePart):
        return has_table(tools, part.name)
    return has_route(tools, part) if isinstance(part, RoutePart) else has_rule(tools, part)


def _program(part: Part) -> str:
    return "nft" if isinstance(part, TablePart) else "ip"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
