"""What a callout is told to do: the script that the engine's callouts and the reference model both read.

Owns the vocabulary of answers and of things done inside a classify, and the shape of what both sides report.
It must not know the engine: plain numbers and names from the documentation only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SEND, RECEIVE = 0, 1

BLOCK, PERMIT, CONTINUE, NONE = 0x1001, 0x1002, 0x2006, 0x0007
NO_ACTION, NEED_MORE_DATA, DROP_CONNECTION, DEFER, ALLOW_CONNECTION = range(5)
LIMIT_REACHED, NO_MORE_DATA = 2, 4

UNKNOWN, TERMINATING, INSPECTION = "callout_unknown", "callout_terminating", "callout_inspection"


@dataclass(frozen=True)
class Inject:
    """Inject a chain of buffers; `other`: against the indicated direction; `fin`: with DISCONNECT."""

    pieces: tuple[bytes, ...]
    other: bool = False
    fin: bool = False


@dataclass(frozen=True)
class Keep:
    """Clone what is indicated and keep the clone."""


@dataclass(frozen=True)
class PassThrough:
    """Clone what is indicated and inject the clone at once with the indicated flags (OOB-10)."""


@dataclass(frozen=True)
class InjectKept:
    """Inject the oldest clone kept, with the flags it was indicated with."""


@dataclass(frozen=True)
class DiscardKept:
    """Discard the oldest clone kept."""


@dataclass(frozen=True)
class Continue:
    """FwpsStreamContinue."""


@dataclass(frozen=True)
class Associate:
    """Associate a context for this stage."""


@dataclass(frozen=True)
class Remove:
    """Remove the context of this stage."""


Deed = Inject | Keep | PassThrough | InjectKept | DiscardKept | Continue | Associate | Remove


@dataclass(frozen=True)
class Answer:
    """One answer of a callout: the fields it writes, and what it does before (`deeds`); `raises` beats all."""

    action: int = PERMIT
    enforced: int = 0
    stream_action: int = NO_ACTION
    required: int = 0
    deeds: tuple[Deed, ...] = ()
    raises: bool = False


PASS = Answer()


@dataclass(frozen=True)
class Settings:
    """The engine options that the model knows."""

    need_more_mode: str = "total"
    limit: int = 64
    unsent: int = 256 * 1024
    on_callout_error: str = "drop"
    on_limit: str = "drop"


@dataclass
class StageScript:
    """One filter and its callout; stages come in the order of their weights."""

    sublayer: int
    kind: str = UNKNOWN
    conditional: bool = False
    answers: tuple[list[Answer], list[Answer]] = field(default_factory=lambda: ([], []))

    def answer(self, direction: int, number: int) -> Answer:
        """The answer to the n-th call of a direction; past the script everything is permitted."""
        answers = self.answers[direction]
        return answers[number] if number < len(answers) else PASS


@dataclass(frozen=True)
class Call:
    """One classify call as the callout saw it, and the statuses of what it did in it."""

    stage: int
    kind: str  # data, urgent, fin, abort
    data: bytes
    missed: int
    flags: int
    context: int
    statuses: tuple[str, ...]


def context_of(stage: int) -> int:
    """The flow context that stage `stage` associates."""
    return 7000 + stage
