"""What is wrong with an outcome: broken contract, or output that is not what it should be.

Owns the comparison of what both ends have seen with what they should have, and the kinds of problems. It must not know
how cases are found or played.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

from wfpstream.testing._world import EndState, Side

from ._play import Played
from ._samples import SIDES
from ._variation import Variation

Expected = Callable[[str, bytes], bytes]
DIRECTIONS = {"server": "to_upstream", "client": "to_client"}
"""The direction whose receiver a side is."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that must not be.

    Attributes:
        kind: "contract" (a violation), "output" (other bytes, or another end), "failure" (an exception, or no end of
            turns).
        rule: the V-* of a contract problem; else "".
        text: one line.
        where: file:line in the callout, where that is known.
        detail: lines that show the difference.
    """

    kind: str
    rule: str
    text: str
    where: str = ""
    detail: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it another problem than others."""
        return self.kind, self.rule, self.where


@dataclass(frozen=True, slots=True)
class Severities:
    """Which violations count: by default those a callout that keeps the contract never gets (VRF-1).

    Attributes:
        counted: severities.
        ignored: rule ids that do not count.
    """

    counted: frozenset[str] = frozenset("EW")
    ignored: frozenset[str] = frozenset()

    def counts(self, event: dict[str, Any]) -> bool:
        """Is this violation a problem?"""
        return event["severity"] in self.counted and event["rule"] not in self.ignored


def problems_of(
    variation: Variation,
    played: Played,
    reference: Played | None,
    expected: Expected | None,
    severities: Severities,
) -> list[Problem]:
    """Every problem of an outcome, the first of each kind and rule.

    Args:
        variation: the case.
        played: what came of it.
        reference: what comes of the same input in the plain way; None: `variation` is that.
        expected: what should arrive of the bytes of a direction.
        severities: which violations count.
    """
    problems: dict[tuple[str, str, str], Problem] = {}
    for problem in _all_problems(variation, played, reference, expected, severities):
        problems.setdefault(problem.key, problem)
    return list(problems.values())


def _all_problems(
    variation: Variation,
    played: Played,
    reference: Played | None,
    expected: Expected | None,
    severities: Severities,
) -> Iterator[Problem]:
    for event in played.violations:
        # More than a limit that the case has made small (V-12) may well be asked for.
        if severities.counts(event) and (variation.held_at_most is None or event["rule"] != "V-12"):
            yield _contract(event)
    if played.failure:
        yield Problem("failure", "", played.failure)
        return
    # At the limit a callout decides on what it has: where that cuts the stream is as good as chance.
    for number, ends in enumerate(played.ends if variation.held_at_most is None else ()):
        plain = reference.ends[number] if reference is not None and number < len(reference.ends) else None
        for index, side in enumerate(SIDES):
            problem = _output(variation, side, ends[index], plain[index] if plain else None, expected)
            if problem is not None:
                yield problem
    if reference is None or (variation.fails and not played.ends):
        return
    if len(played.ends) != len(reference.ends) and not reference.failure:
        yield Problem("output", "", "another number of connections was let through")
    if played.open and not reference.open:
        yield Problem("output", "", "the connection does not end")


def _contract(event: dict[str, Any]) -> Problem:
    at = f", at offset {event['offset']} {event['dir']}" if event.get("offset") is not None else ""
    what = f"{event['rule']} ({event['severity']}): {event['text']}{at}"
    detail = [f"the rule: {event['says']}"] if event.get("says") else []
    documented = event.get("documented")
    if documented:
        named = documented if isinstance(documented, str) else ", ".join(documented)
        detail.append(f"documented: {named}")
    return Problem("contract", event["rule"], what, event.get("where") or "", tuple(detail))


def _output(
    variation: Variation, side: Side, end: EndState, plain: EndState | None, expected: Expected | None
) -> Problem | None:
    """What arrived at one side, against what should, and against what arrives of the same input in the plain way."""
    direction = DIRECTIONS[side]
    sent = variation.input("client" if side == "server" else "server")
    if expected is not None:
        wanted = EndState(expected(direction, sent), fin=True)
        if not _is_as(wanted, end, variation, sent, may_reset=True):
            lines = list(difference(wanted.data, end.data, "expected", "arrived", "", _end(end)))
            if plain is not None and plain.data == wanted.data:
                lines.append("in the plain way it is as expected")
            return Problem(
                "output", "", f"what arrives {direction} is not what was expected", "", tuple(lines)
            )
    if plain is not None and not _is_as(plain, end, variation, sent, may_reset=False):
        lines = list(difference(plain.data, end.data, "plain", "this way", _end(plain), _end(end)))
        what = f"what arrives {direction} is not what arrives in the plain way"
        return Problem("output", "", what, "", tuple(lines))
    return None


def _is_as(wanted: EndState, end: EndState, variation: Variation, sent: bytes, *, may_reset: bool) -> bool:
    """Is this end as it should be?

    Of a connection that was broken off, reset, or dropped because a call failed, only a beginning arrives.
    """
    beginning = wanted.data.startswith(end.data)
    if wanted.reset:  # by the callout: how much gets through before is nobody's promise
        broken = variation.broken is not None
        return (end.reset or broken) and (beginning or end.data.startswith(wanted.data))
    if variation.broken is not None or (end.reset and (may_reset or variation.fails)):
        return beginning
    same = end.data == wanted.data or (bool(variation.fails) and end.data == sent)
    return same and (may_reset or (end.fin, end.reset) == (wanted.fin, wanted.reset))


def _end(end: EndState) -> str:
    return "reset" if end.reset else "FIN" if end.fin else "no end"


_AROUND = 24


def difference(
    first: bytes, second: bytes, first_name: str, second_name: str, first_end: str = "", second_end: str = ""
) -> tuple[str, ...]:
    """Three lines: both of them around their first difference, and an arrow to it."""
    at = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    start = max(0, at - _AROUND) if max(len(first), len(second)) > 2 * _AROUND else 0
    width = max(len(first_name), len(second_name))
    lead = "..." if start else ""
    lines = [
        f"{name:>{width}}: {lead}{_shown(data[start : start + 2 * _AROUND])}"
        f"{'...' if len(data) > start + 2 * _AROUND else ''}, {len(data)} bytes{', ' + end if end else ''}"
        for name, data, end in ((first_name, first, first_end), (second_name, second, second_end))
    ]
    column = width + 2 + len(lead) + len(_shown(first[start:at])) - 1
    return lines[0], lines[1], " " * column + f"^ byte {at}"


def _shown(data: bytes) -> str:
    return repr(bytes(data))


def severities_from(lint: bool, ignore: Collection[str]) -> Severities:
    """Errors and warnings, and lint if wanted."""
    return Severities(frozenset("EWL" if lint else "EW"), frozenset(ignore))
