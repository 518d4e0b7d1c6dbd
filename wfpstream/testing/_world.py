"""What a world is to a conformance case: a script of what both peers do, and what came of it.

Owns the records; worlds are drivers with peers at their ends, and come in as arguments. It must not know how any
of them moves bytes, nor what is expected of a case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from wfpstream.engine import EngineOptions, FilterEngine

Side = Literal["client", "server"]
Address = tuple[str, int]
SIDES: tuple[Side, ...] = get_args(Side)

# What a world may lack (architecture section 5: capabilities); a case names what it needs. The last six are ours:
# a peer whose appetite is ruled (`Window`), time that passes at will (`Wait`), further connections (`Connect`),
# connections that may come to nothing, addresses at the case's own choice, and upstream connections that come back to
# our own listener (`Connect.comes_back`).
CAPABILITIES = frozenset(
    (
        "half_close",
        "reset",
        "watch_paused",
        "urgent",
        "window",
        "virtual_time",
        "second_flow",
        "connection",
        "addresses",
        "comes_back",
    )
)


def _check_side(side: str) -> None:
    if side not in SIDES:
        raise ValueError(f"a side is {' or '.join(SIDES)}, not {side!r}")


@dataclass(frozen=True, slots=True)
class Send:
    """One side sends bytes, in one segment. `urgent`: they are TCP urgent data; `push`: a captured PSH flag."""

    by: Side
    data: bytes
    urgent: bool = False
    push: bool | None = None

    def __post_init__(self) -> None:
        _check_side(self.by)


@dataclass(frozen=True, slots=True)
class Fin:
    """One side half-closes."""

    by: Side

    def __post_init__(self) -> None:
        _check_side(self.by)


@dataclass(frozen=True, slots=True)
class Reset:
    """One side resets its connection."""

    by: Side

    def __post_init__(self) -> None:
        _check_side(self.by)


@dataclass(frozen=True, slots=True)
class Window:
    """How many more bytes one side takes (None: all). Needs `window`: a peer whose appetite we rule."""

    of: Side
    size: int | None

    def __post_init__(self) -> None:
        _check_side(self.of)


@dataclass(frozen=True, slots=True)
class Wait:
    """Let `seconds` pass. Needs `virtual_time`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Act:
    """Call `fn` on the engine's thread, outside every callback: what a driver's own worker would do."""

    fn: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Connect:
    """One more connection, to which the later steps apply. Needs `second_flow` when it is not the first.

    It may be blocked, or be pended (`connection`): then the client's bytes wait until it is there. An address that
    is named needs `addresses`.

    Attributes:
        client: the client's address; None: the world's choice, another for each connection.
        server: what the client asks for.
        listener: where our proxy was reached.
        local: which side is the local host; None: the script's.
        comes_back: it is the upstream leg of the connection before, which was redirected to our own listener. Needs
            `comes_back`.
    """

    client: Address | None = None
    server: Address | None = None
    listener: Address | None = None
    local: Side | None = None
    comes_back: bool = False


Step = Send | Fin | Reset | Window | Wait | Act | Connect


@dataclass(slots=True)
class WorldScript:
    """What happens, in order; each step comes when all that followed from the one before has come to rest.

    Attributes:
        setup: registers callouts and adds filters, before the connection is asked for.
        steps: what the peers do once it is there.
        options: of the engine; a world sets only what belongs to its clock.
        local: which side is the local host.
        connect: False: the first connection is made by a `Connect` step.
    """

    setup: Callable[[FilterEngine], object]
    steps: Sequence[Step] = ()
    options: EngineOptions = field(default_factory=EngineOptions)
    local: Side = "client"
    connect: bool = True

    def __post_init__(self) -> None:
        _check_side(self.local)


@dataclass(slots=True)
class EndState:
    """What one side has seen of the other: bytes, then a FIN or a reset."""

    data: bytes = b""
    fin: bool = False
    reset: bool = False
    urgent: tuple[tuple[int, bytes], ...] = ()


@dataclass(slots=True)
class WorldOutcome:
    """How both sides of the last connection ended, and every event of the engine, in order."""

    client: EndState
    server: EndState
    events: list[dict[str, Any]]


class World(Protocol):
    """A driver and two peers.

    Attributes:
        name: "memory", "stream", "reactor" or "replay".
        capabilities: the members of `CAPABILITIES` it has.
    """

    @property
    def name(self) -> str: ...

    @property
    def capabilities(self) -> frozenset[str]: ...

    def run(self, script: WorldScript) -> WorldOutcome:
        """Play the script to its end, stop the engine, and tell what came of it."""
        ...
