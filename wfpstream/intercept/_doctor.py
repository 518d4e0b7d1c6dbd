"""What is missing for an interception to work, and how to mend it.

Owns the order of the findings, and those about what was applied. Changes nothing: even kernel features are tried with
`nft --check`, which the kernel examines and then forgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from wfpstream.intercept import _symptoms as symptoms
from wfpstream.intercept._errors import InterceptError, safe_line
from wfpstream.intercept._finding import SHOWN, Case, Finding
from wfpstream.intercept._machine import (
    Machine,
    family_is_on,
    has_route,
    has_rule,
    has_table,
    is_our_table,
    rules_of,
)
from wfpstream.intercept._plan import Interception
from wfpstream.intercept._record import Record
from wfpstream.intercept._records import default_folder, open_records


def doctor(plan: Interception, machine: Machine | None = None) -> list[Finding]:
    """Everything that the interception needs, and whether it is there.

    Args:
        plan: what is, or is to be, intercepted.
        machine: where; None: here.
    """
    machine = machine or Machine()
    on = tuple(family for family in plan.families if family_is_on(family, machine.proc))
    findings = [
        Finding(True, f"{SHOWN[family]} is off: its connections are not taken")
        for family in plan.families
        if family not in on
    ]
    if not on:
        return [*findings, Finding(False, "none of the families asked for is on", "switch one on")]
    case = Case(replace(plan, families=on), machine.tools, machine.state or default_folder(), machine.proc)
    missing = list(symptoms.programs(case))
    findings += missing
    if all(finding.ok for finding in missing):
        for step in (
            symptoms.kernel_features,
            symptoms.control_group,
            symptoms.loopback,
            _applied,
            _leftovers,
            symptoms.firewall,
        ):
            findings += _attempt(step(case))
    for step in (symptoms.listener, symptoms.forwarding, symptoms.source_checks, symptoms.tracking):
        findings += _attempt(step(case))
    return [Finding(f.ok, safe_line(f.what), safe_line(f.mend)) for f in findings]


def _attempt(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What cannot be examined is a finding too."""
    try:
        yield from findings
    except InterceptError as error:
        for line in error.lines:
            yield Finding(False, line, "mend that first, then ask again")


# --- what was applied -----------------------------------------------------------------------------


def _applied(case: Case) -> Iterator[Finding]:
    plan = case.plan
    record = _record(case)
    if not has_table(case.tools, plan.name):
        yield Finding(False, f"nothing is intercepted: there is no nft table inet {plan.name}", _how(plan))
    elif not is_our_table(case.tools, plan.name):
        yield Finding(
            False, f"nft table inet {plan.name} was made by somebody else", "choose another --name, and apply"
        )
    elif record is None:
        # As in a sidecar whose init container applied it: the record was that container's.
        yield Finding(
            True,
            f"nft table inet {plan.name} is there, without an undo record here",
            f"undo it where it was applied, or by hand: nft delete table inet {plan.name}",
        )
    else:
        yield Finding(True, f"nft table inet {plan.name} is there, {record.describe()}")
        yield from _as_asked(plan, record)
        yield from _routing(case, record)


def _record(case: Case) -> Record | None:
    with open_records(case.folder, create=False) as records:
        return records.find(case.plan.name) if records is not None else None


def _how(plan: Interception) -> str:
    return f"wfpstream transparent apply --port {plan.port} --mode {plan.mode} --name {plan.name}"


def _as_asked(plan: Interception, record: Record) -> Iterator[Finding]:
    there = record.plan
    if (there.port, there.mode) != (plan.port, plan.mode):
        yield Finding(
            False,
            f"{plan.name} was applied for {there.mode} to port {there.port}, not {plan.mode} to {plan.port}",
            f"wfpstream transparent undo --name {plan.name}; then apply",
        )


def _routing(case: Case, record: Record) -> Iterator[Finding]:
    again = f"wfpstream transparent undo --name {record.name}; then apply"
    for rule in record.rules:
        part = rule.part()
        if not has_rule(case.tools, part):
            yield Finding(False, f"the {part} is gone", again)
            continue
        before = [
            other["priority"]
            for other in rules_of(case.tools, part.family)
            if 0 < other.get("priority", 0) < part.priority and "fwmark" not in other
        ]
        if before:
            yield Finding(
                False,
                f"routing rules {before} come before the {part} and may lead its packets elsewhere",
                f"give them a larger priority, or: {again}",
            )
        else:
            yield Finding(True, f"{part}")
    for route in record.routes:
        path = route.part()
        there = has_route(case.tools, path)
        yield Finding(there, f"{path}" if there else f"the {path} is gone", "" if there else again)


def _leftovers(case: Case) -> Iterator[Finding]:
    with open_records(case.folder, create=False) as records:
        found, faults = records.all_here() if records is not None else ([], [])
    for line in faults:
        yield Finding(False, line, f"look at it, and remove it from {case.folder}")
    for record in found:
        if record.owner is not None and not record.is_live:
            yield Finding(
                False,
                f"{record.name} is a leftover: {record.describe()}",
                f"wfpstream transparent undo --name {record.name}",
            )
