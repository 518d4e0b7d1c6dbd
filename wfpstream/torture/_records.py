"""What a case found, in words and numbers; and how much a run asks of a relay.

Owns the verdicts, their order and the profiles. It must not know sockets, nor what the cases are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

MIB = 1 << 20


class TortureError(Exception):
    """The run as a whole cannot be made: nothing listens there, an address is taken, a case does not exist."""


class Verdict(StrEnum):
    """What a relay did with a connection, from harmless to worst; `rank` orders them."""

    KEPT = "kept"
    """Every byte and every end arrived as sent."""
    NOTED = "noted"
    """The same, with something a user of this relay should know."""
    DISTORTED = "distorted"
    """The bytes arrived, but an end or a mark arrived as another one, too early, or never."""
    LOST = "lost"
    """Bytes the relay had accepted never arrived, or arrived changed."""
    FAILED = "failed"
    """The case could not be tried: no connection came through."""

    @property
    def rank(self) -> int:
        """0 for the most harmless."""
        return list(Verdict).index(self)

    @property
    def is_fault(self) -> bool:
        """Whether it counts against the relay."""
        return self.rank >= Verdict.DISTORTED.rank


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that happened, in a sentence without names from outside."""

    verdict: Verdict
    text: str


@dataclass(slots=True)
class Judge:
    """Takes down what one case finds.

    Attributes:
        findings: in the order of finding; equal ones once, with how often.
        facts: measured numbers by name; the unit is part of the name.
    """

    facts: dict[str, float] = field(default_factory=dict)
    _counts: dict[Finding, int] = field(default_factory=dict)

    def lost(self, text: str) -> None:
        """Bytes are missing or changed."""
        self._add(Verdict.LOST, text)

    def distorted(self, text: str) -> None:
        """An end or a mark is not what was sent."""
        self._add(Verdict.DISTORTED, text)

    def noted(self, text: str) -> None:
        """Worth knowing, and no fault."""
        self._add(Verdict.NOTED, text)

    def failed(self, text: str) -> None:
        """The case could not be tried."""
        self._add(Verdict.FAILED, text)

    @property
    def findings(self) -> list[Finding]:
        return [
            Finding(one.verdict, one.text if count == 1 else f"{one.text} ({count} times)")
            for one, count in self._counts.items()
        ]

    @property
    def verdict(self) -> Verdict:
        """The worst of them."""
        return max((one.verdict for one in self._counts), key=lambda one: one.rank, default=Verdict.KEPT)

    def _add(self, verdict: Verdict, text: str) -> None:
        finding = Finding(verdict, text)
        self._counts[finding] = self._counts.get(finding, 0) + 1


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What one case found.

    Args:
        name: of the case.
        verdict: the worst of its findings.
        findings: in the order of finding.
        facts: measured numbers; the unit is part of the name.
        seconds: how long it took.
    """

    name: str
    verdict: Verdict
    findings: tuple[Finding, ...]
    facts: dict[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Profile:
    """How much is asked of the relay. Sizes in bytes, times in seconds.

    Args:
        bulk: each way, in the big transfer.
        owed: what is still under way when an end closes; a slow reader gets a quarter of it.
        flood: most that is sent to a reader who does not read.
        connections: short ones.
        at_once: of the short ones.
        single_writes: writes of one byte.
        round_trips: of one byte, there and back.
        rounds: of what depends on luck, simultaneous ends above all.
        pause: how long an idle or half-closed connection is left alone.
        patience: how long silence may last where something is due.
        limit: how long a case may take.
    """

    bulk: int = 64 * MIB
    owed: int = 4 * MIB
    flood: int = 256 * MIB
    connections: int = 10_000
    at_once: int = 64
    single_writes: int = 2000
    round_trips: int = 500
    rounds: int = 50
    pause: float = 2.0
    patience: float = 10.0
    limit: float = 300.0


FULL = Profile()
QUICK = Profile(
    bulk=4 * MIB,
    owed=2 * MIB,
    flood=64 * MIB,
    connections=200,
    at_once=16,
    single_writes=300,
    round_trips=100,
    rounds=10,
    pause=0.2,
    limit=60.0,
)
