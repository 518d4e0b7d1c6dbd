"""What the figures are held against: one line per measure, with the rivals, the factor, and what came out.

Owns the targets. They were set before the work was done, and stay as they are when they are missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.peers._cases import Case
from benchmarks.peers._record import Record, case_named

Figure = Literal["cpu", "wall", "p50_us"]

_NOT_SPLICING = ("haproxy", "envoy", "nginx")
_BULK = ("bulk-1-to-client", "bulk-1-to-upstream", "bulk-8-to-client", "bulk-8-to-upstream")
_OFFLOAD = ("offload-1", "offload-8")
_SPLICING = ("haproxy-splice", "haproxy-splice-auto")
_MITMPROXY = 1 / 15


@dataclass(frozen=True)
class Target:
    """One demand.

    Attributes:
        case: where it is measured.
        ours: the peer that has to meet it.
        figure: which of its figures.
        factor: at most (`cpu`, `p50_us`) or at least (`wall`) so many times the best rival's; without rivals
            the figure itself.
        rivals: peers of the same case, of which the best counts.
    """

    case: str
    ours: str
    figure: Figure
    factor: float
    rivals: tuple[str, ...] = ()

    @property
    def is_at_least(self) -> bool:
        """Whether more is better."""
        return self.figure == "wall"

    def text(self) -> str:
        """The demand in words."""
        bound = "at least" if self.is_at_least else "at most"
        if not self.rivals:
            return f"{bound} {self.factor:g} {unit_of(case_named(self.case), self.figure)}"
        factor = "1/15" if self.factor == _MITMPROXY else f"{self.factor:.1f}"
        best = "the best of " if len(self.rivals) > 1 else ""
        return f"{bound} {factor} x {best}{', '.join(self.rivals)}"


@dataclass(frozen=True)
class Outcome:
    """A target and what the run says of it.

    Attributes:
        target: the demand.
        ours: our median; None if there is none.
        theirs: the best rival's, None without rivals or without figures.
        rival: whose that is.
    """

    target: Target
    ours: float | None
    theirs: float | None
    rival: str

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours / self.theirs if self.ours is not None and self.theirs else None

    @property
    def is_met(self) -> bool | None:
        """None: it cannot be said, for a figure is missing."""
        measured = self.ratio if self.target.rivals else self.ours
        if measured is None:
            return None
        return measured >= self.target.factor if self.target.is_at_least else measured <= self.target.factor

    def verdict(self) -> str:
        """In words: met, or by how much it is missed."""
        if self.is_met is None:
            return "not measured"
        if self.is_met:
            return "met"
        measured = self.ratio if self.target.rivals else self.ours
        assert measured is not None
        if self.target.is_at_least:
            return f"short by {(1 - measured / self.target.factor) * 100:.0f}%"
        over = measured / self.target.factor
        return (
            f"missed by {(over - 1) * 100:.0f}%" if over < 2 else f"missed: {over:.1f} times what is allowed"
        )


TARGETS: tuple[Target, ...] = (
    *(Target(case, "wfpstream", "cpu", 0.9, _NOT_SPLICING) for case in _BULK),
    *(Target(case, "wfpstream", "wall", 0.9, _NOT_SPLICING) for case in _BULK),
    Target("ping-pong-32", "wfpstream", "cpu", 1.0, ("envoy",)),
    Target("ping-pong-32", "wfpstream", "wall", 0.9, ("envoy",)),
    Target("ping-pong-1", "wfpstream", "p50_us", 1.2, ("envoy",)),
    Target("connect", "wfpstream", "cpu", 1.0, ("envoy",)),
    Target("connect", "wfpstream", "wall", 0.9, ("envoy",)),
    *(Target(case, "wfpstream-offload", "cpu", 1.0, _SPLICING) for case in _OFFLOAD),
    *(Target(case, "wfpstream-offload", "wall", 0.9, _SPLICING) for case in _OFFLOAD),
    Target("edit-match", "wfpstream-edit", "cpu", 8.0, ("wfpstream",)),
    Target("edit-none", "wfpstream-edit", "cpu", 3.0, ("wfpstream",)),
    Target("edit-match", "wfpstream-edit", "wall", 10.0, ("mitmproxy-edit",)),
    Target("edit-none", "wfpstream-edit", "wall", 10.0, ("mitmproxy-edit",)),
    *(
        Target(case, "wfpstream", "cpu", _MITMPROXY, ("mitmproxy",))
        for case in (*_BULK, "ping-pong-32", "ping-pong-1", "connect")
    ),
    *(Target(case, "wfpstream-offload", "cpu", _MITMPROXY, ("mitmproxy",)) for case in _OFFLOAD),
    *(Target(case, "wfpstream-edit", "cpu", _MITMPROXY, ("mitmproxy-edit",)) for case in ("edit-match", "edit-none")),
    Target("idle", "wfpstream", "cpu", 12.0),
)  # fmt: skip


def outcomes(record: Record) -> list[Outcome]:
    """What the run says of every target whose case it has."""
    return [_outcome(record, target) for target in TARGETS if target.case in record.cases]


def _outcome(record: Record, target: Target) -> Outcome:
    ours = record.figure(target.case, target.ours, target.figure)
    theirs = {rival: record.figure(target.case, rival, target.figure) for rival in target.rivals}
    known = {rival: figure for rival, figure in theirs.items() if figure is not None}
    if not known:
        return Outcome(target, ours, None, "")
    choose = max if target.is_at_least else min
    rival = choose(known, key=lambda name: known[name])
    return Outcome(target, ours, known[rival], rival)


def unit_of(case: Case, figure: Figure) -> str:
    """The unit of a figure of a case."""
    return {"cpu": case.cpu_unit, "wall": case.wall_unit, "p50_us": "us, p50"}[figure]
