"""What came of a conformance case against what its vector says.

Owns the comparison and the words of a difference. It must not know how the case was played.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from wfpstream.testing._world import EndState, WorldOutcome

from ._scene import Line, Scene
from ._text import decode_bytes

_UNPROMISED_FLAGS = frozenset(("RECEIVE_PUSH", "SEND_NODELAY"))
"""IND-5: what a stack says here is its own affair."""


def compare(
    scene: Scene, steps: list[dict[str, Any]], outcome: WorldOutcome, body: dict[str, Any] | None, world: str
) -> list[str]:
    """The differences in words. `body`: of a case played to its end; None: only what both ends saw is compared."""
    ends = _Ends(outcome, steps, scene)
    if body is None:
        return ends.differences(steps[-1], f"after step {len(steps)}: ", complete=False)
    if world == "memory":
        problems = _compare_step_by_step(scene, steps)
    else:
        problems = _compare_as_a_whole(scene, steps)
    problems += ends.differences(body.get("end", {}), "at the end: ", complete=True)
    problems += _compare_end_of_flow(outcome, body, world)
    problems += _compare_violations(scene, body)
    for due in scene.open_injections.values():
        if due > 0:
            problems.append(f"{due} NBL(s) of an accepted injection never completed")
    return problems + scene.faults


def expected_line(entry: dict[str, Any]) -> Line:
    """The line of the transcript that an expected entry stands for."""
    if "call" in entry:
        text = entry["call"]
        return Line("call", text.partition("(")[0], text)
    if "flowDelete" in entry:
        return Line("flowDelete", entry["flowDelete"], "flowDelete")
    kind = next(kind for kind in ("completion", "notify", "note") if kind in entry)
    return Line(kind, entry.get("of", ""), entry[kind])


# --- the transcript ---------------------------------------------------------------------------------------


def _compare_step_by_step(scene: Scene, steps: list[dict[str, Any]]) -> list[str]:
    problems: list[str] = []
    for number, (step, lines) in enumerate(zip(steps, scene.steps, strict=False), start=1):
        if "expect" in step:
            entries = step["expect"]
            problems += _compare_lines(f"step {number}", entries, lines, world_is_exact=True)
        if "violations" in step and scene.violations[number - 1] != step["violations"]:
            problems.append(
                f"step {number}: violations {scene.violations[number - 1]}, expected {step['violations']}"
            )
    return problems


def _compare_as_a_whole(scene: Scene, steps: list[dict[str, Any]]) -> list[str]:
    """Other worlds: calls in their order, completions in theirs (CMP-4 to CMP-6)."""
    if not all("expect" in step for step in steps):
        return []
    entries = [entry for step in steps for entry in step["expect"]]
    lines = [line for step in scene.steps[: len(steps)] for line in step]
    problems: list[str] = []
    for completions in (False, True):
        problems += _compare_lines(
            "completions" if completions else "calls",
            [entry for entry in entries if ("completion" in entry) == completions],
            [line for line in lines if (line.kind == "completion") == completions],
            world_is_exact=False,
        )
    return problems


def _compare_lines(
    where: str, entries: list[dict[str, Any]], lines: list[Line], *, world_is_exact: bool
) -> list[str]:
    wanted = [_with_owner(expected_line(entry), lines) for entry in entries]
    if wanted != lines:
        return [f"{where}: {_difference(wanted, lines)}"]
    problems: list[str] = []
    for entry, line in zip(entries, lines, strict=True):
        problems += _compare_members(f"{where}: {line}", entry, line, world_is_exact)
    return problems


def _with_owner(line: Line, lines: list[Line]) -> Line:
    """A completion that names no callout is the only callout's."""
    if line.of or line.kind == "note" or not lines:
        return line
    return Line(line.kind, lines[0].of, line.text)


def _difference(wanted: list[Line], lines: list[Line]) -> str:
    same = 0
    while same < min(len(wanted), len(lines)) and wanted[same] == lines[same]:
        same += 1
    came = str(lines[same]) if same < len(lines) else "nothing"
    due = str(wanted[same]) if same < len(wanted) else "nothing"
    return f"line {same + 1} is {came}, expected {due}"


def _compare_members(where: str, entry: dict[str, Any], line: Line, exact: bool) -> list[str]:
    wanted: dict[str, Any] = dict(entry.get("sees", {}))
    if "context" in entry:
        wanted["context"] = entry["context"]
    problems: list[str] = []
    for name, value in wanted.items():
        found = line.sees.get(name)
        if name == "data":
            value = decode_bytes(value)
        if name == "streamFlags":
            value, found = (_flags(names, exact) for names in (value, found or ()))
        if found != value:
            problems.append(f"{where}: {name} is {found!r}, expected {value!r}")
    return problems


def _flags(names: Iterable[str], exact: bool) -> frozenset[str]:
    return frozenset(names) if exact else frozenset(names) - _UNPROMISED_FLAGS


# --- both ends, the flow, violations ----------------------------------------------------------------------


class _Ends:
    """What both ends saw."""

    def __init__(self, outcome: WorldOutcome, steps: list[dict[str, Any]], scene: Scene) -> None:
        local_is_server = scene.local == "server"
        self._seen = {
            "remote": outcome.client if local_is_server else outcome.server,
            "local": outcome.server if local_is_server else outcome.client,
        }
        # An end that resets its connection sees nothing more of it.
        self._reset_by = {step["reset"] for step in steps if "reset" in step}

    def differences(self, wanted: dict[str, Any], where: str, *, complete: bool) -> list[str]:
        """Against `remote` and `local` of an object, None not compared; `complete`: what is not named is empty."""
        problems: list[str] = []
        for side, seen in self._seen.items():
            named = wanted.get(side, {})
            if named is None:
                continue
            if complete:
                named = {"data": "", "fin": False, "reset": False} | named
            problems += [
                f"{where}{side}: {name} is {found!r}, expected {due!r}"
                for name, found, due in self._members(side, seen, named)
                if found != due
            ]
        return problems

    def _members(self, side: str, seen: EndState, named: dict[str, Any]) -> Iterable[tuple[str, Any, Any]]:
        for name, due in named.items():
            if name == "data":
                yield name, _shortened(seen.data), _shortened(decode_bytes(due))
            elif name == "urgent":
                yield name, [[at, data.decode("latin-1")] for at, data in seen.urgent], due
            elif side not in self._reset_by:
                yield name, getattr(seen, name), due


def _shortened(data: bytes) -> bytes | tuple[int, int]:
    """Long data compares as (length, hash), which prints."""
    return data if len(data) <= 400 else (len(data), hash(data))


def _compare_end_of_flow(outcome: WorldOutcome, body: dict[str, Any], world: str) -> list[str]:
    wanted = body.get("end", {}).get("flow", "stop")
    ends = [event for event in outcome.events if event["event"] == "flow_deleted"]
    reason = ends[-1]["reason"] if ends else "blocked"
    problems: list[str] = []
    if reason != wanted and (world == "memory" or wanted != "stop"):
        problems.append(f"the flow ended by {reason}, expected {wanted}")
    if "blockedAt" in body.get("end", {}):
        layers = [event["layer"] for event in outcome.events if event["event"] == "flow_blocked"]
        if layers[-1:] != [body["end"]["blockedAt"]]:
            problems.append(f"blocked at {layers or 'no layer'}, expected {body['end']['blockedAt']}")
    for direction, members in body.get("end", {}).get("ledger", {}).items():
        ledger = ends[-1]["ledger"][direction] if ends else {}
        problems += [
            f"ledger {direction}: {name} is {ledger.get(name)}, expected {value}"
            for name, value in members.items()
            if ledger.get(name) != value
        ]
    return problems


def _compare_violations(scene: Scene, body: dict[str, Any]) -> list[str]:
    # The scene's own sink hears the setup too, which in a replay comes before the world's.
    found = [rule for step in scene.violations for rule in step]
    wanted = body.get("violations", [])
    return [] if found == wanted else [f"violations {found}, expected {wanted}"]
