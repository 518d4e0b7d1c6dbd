"""What vectors operate with: every operation is described, used and judged.

Owns that none of what a vector says of an operation, a call or a connection is passed over: said wrongly, it is a
problem. That the vectors hold is `tests/scenarios`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from wfpstream.testing import MemoryWorld, VectorCase, run_case, vectors, vectors_schema
from wfpstream.testing._vectors._run import ALL_OPERATIONS

Path = tuple[str | int, ...]

JUDGED = ("state", "copied", "found", "stored", "previous", "retiring", "injectionContext", "returns")
CASES = {case.id: case for vector in vectors() for case in vector.cases}


def members(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every object inside, with the way to it."""
    if isinstance(value, dict):
        yield path, value
        for name, inner in value.items():
            yield from members(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from members(inner, (*path, place))


def judged(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the runner must compare in an object of a vector: (a name for it, the member)."""
    if "op" in content:
        # Where an injection brings a context, it is an argument; where a state is asked for, an answer.
        asked = [
            one for one in JUDGED if one in content and (one != "injectionContext" or "state" in content)
        ]
        yield from ((f"{content['op']} {member}", member) for member in asked)
    yield from (
        (f"entry {kind}", kind) for kind in ("note", "notify", "completion", "call") if kind in content
    )
    yield from (
        (f"flowDelete {kind}", kind) for kind in ("context",) if "flowDelete" in content and kind in content
    )
    yield from ((f"sees {member}", member) for member in content if member in SEEN)
    yield from (
        (f"end {member}", member)
        for member in ("blockedAt", "flow")
        if member in content and "op" not in content
    )


SEEN = {
    member
    for case in CASES.values()
    for _, content in members(case.body)
    for member in content.get("sees", {})
}


def firsts() -> dict[str, tuple[str, Path, str]]:
    """The first place of each thing that is judged: name -> (case, path of the object, member)."""
    found: dict[str, tuple[str, Path, str]] = {}
    for case in CASES.values():
        if "cuts" in case.body:
            continue
        for path, content in members(case.body):
            for name, member in judged(content):
                if not name.startswith("sees") or path[-1] == "sees":
                    found.setdefault(name, (case.id, path, member))
    return found


FIRSTS = firsts()


def otherwise(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return "STATUS_NO_MEMORY" if value.startswith("STATUS_") else f"{value}?"
    return [] if value else "?"


def changed(case: VectorCase, path: Path, member: str) -> VectorCase:
    """The case, with one member said otherwise."""
    body = deepcopy(case.body)
    content: Any = body
    for step in path:
        content = content[step]
    content[member] = otherwise(content[member])
    return replace(case, body=body)


@pytest.mark.parametrize("name", sorted(FIRSTS))
def test_what_is_said_wrongly_is_a_problem(name: str) -> None:
    case_id, path, member = FIRSTS[name]
    case = CASES[case_id]
    assert run_case(case, MemoryWorld()) == []
    assert run_case(changed(case, path, member), MemoryWorld()) != []


def test_the_schema_describes_the_operations_there_are() -> None:
    operation = vectors_schema()["$defs"]["operation"]
    assert set(operation["properties"]["op"]["enum"]) == set(ALL_OPERATIONS)
    named = [one["if"]["properties"]["op"]["const"] for one in operation["allOf"]]
    assert sorted(named) == sorted(ALL_OPERATIONS)


def test_the_schema_refuses_members_that_mean_nothing() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(vectors_schema())
    for wrong in ({"op": "FwpsFlowAbort0", "flags": []}, {"op": "Keep"}, {"op": "FwpsFlowAbort"}):
        content = {"format": 1, "id": "SC-1", "title": "x", "rules": [], "cases": []}
        content["cases"] = [{"case": "x", "callouts": [], "steps": [{"do": [wrong]}]}]
        assert not validator.is_valid(content), json.dumps(wrong)


def test_every_operation_is_used_by_a_vector() -> None:
    used = {content["op"] for case in CASES.values() for _, content in members(case.body) if "op" in content}
    assert set(ALL_OPERATIONS) - used == set()
