"""Callbacks that take too long: which one is on the stack and since when, and whose flows have had more than a turn.

Owns the budget of one call, the flows that are to be served last, and what is said of a callout while nobody samples
it. It must not know who drives the engine, nor how a watchdog looks at it. A plain attribute is all that a watchdog
reads from its own thread: no lock, and nothing is interrupted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ._options import EngineOptions


# Looks that are kept: one per call that is met, and one per call that overran. A few, since calls are within others.
_LOOKS = 8


class OnStack(NamedTuple):
    """A callback, or a step of out-of-band work, that is running.

    Attributes:
        callout: its name.
        since: when it began, engine seconds.
    """

    callout: str
    since: float


class SlowCall(NamedTuple):
    """The longest call of a callout: seconds, and file:line of the function, None if it is not Python's."""

    seconds: float
    where: str | None


class Named(Protocol):
    """A registered callout, as far as its name goes."""

    @property
    def name(self) -> str: ...


class Called(Protocol):
    """The marker of a callback on the stack."""

    @property
    def callout_id(self) -> int: ...


class Telling(Protocol):
    """What this part needs of the engine's shared state."""

    options: EngineOptions
    clock: Callable[[], float]
    sinks: list[Any]

    @property
    def frame(self) -> Called | None: ...
    @property
    def find_entry(self) -> Callable[[int], Named | None]: ...
    def count(self, name: str, amount: int = 1) -> None: ...
    def once_a_second(self, key: str) -> bool: ...
    def emit(self, event: str, flow: Any, **keys: Any) -> None: ...


class Overruns:
    """One per engine.

    Attributes:
        budget: seconds one call may take before its flow is served last: `verify.callback_budget` (10 ms), at most
            `timeouts.turn` (100 ms); infinite while that is 0, and where time is not real.
        flows: handles of the flows of which a call has overrun the budget; the driver takes out those it has put
            behind the others. The same object for the engine's life.
        since: when what is on the stack began, engine seconds. Written before the marker of a call is.
        aside: what runs outside of callbacks for a callout: a worker, or a timer's function; None: nothing.
        watched: somebody samples the callbacks, and says what there is to say of slow ones (`take_longest`).
        total: how many calls have overrun the budget so far.
        newcomer: the last call for a connection that is no flow yet has: the next ones come after all others, one per
            turn. The driver takes it back when it gives one its turn.
        waited: seconds the engine's thread has waited for a processor so far (`count_waiting`). That much of a call is
            the machine's, which has more to do than processors, and not the callout's.
    """

    __slots__ = (
        "_core",
        "_longest",
        "_looks",
        "aside",
        "budget",
        "flows",
        "newcomer",
        "since",
        "total",
        "waited",
        "watched",
    )

    def __init__(self, core: Telling) -> None:
        self._core = core
        self._longest: dict[str, SlowCall] = {}
        self._looks: deque[tuple[float, float]] = deque(maxlen=_LOOKS)
        self.total = 0
        self.newcomer = False
        self.waited: Callable[[], float] = _never
        self.budget = math.inf
        self.flows: set[int] = set()
        self.since = 0.0
        self.aside: object = None
        self.watched = False

    def follow_options(self, is_real: bool) -> None:
        """Derive the budget anew. `is_real`: the clock is one of this world (VRF-3)."""
        options = self._core.options
        turn = options.timeouts.turn
        self.budget = min(turn, options.verify.callback_budget) if is_real and turn > 0 else math.inf

    def on_stack(self) -> OnStack | None:
        """What runs now; from any thread. What it says may be over when it is read."""
        frame, since = self._core.frame, self.since  # in this order: `since` is then never of an earlier call
        if frame is not None:
            entry = self._core.find_entry(frame.callout_id)
            return OnStack(entry.name if entry is not None else "a callout", since)
        aside = self.aside
        return None if aside is None else OnStack(name_aside(aside), since)

    def count_waiting(self, waited: Callable[[], float] | None) -> None:
        """A driver knows how long its thread has waited so far; None: it does not, any more."""
        self._looks.clear()
        self.waited = waited or _never
        self.look()

    def look(self) -> None:
        """Note how long the thread has waited so far; from any thread, but not twice while one call is on the stack."""
        self._looks.append((self._core.clock(), self.waited()))

    def own_time(self, began: float, now: float) -> float:
        """Seconds that a call which began then has taken itself, at least; from any thread.

        When it began nobody looked, that would cost every call: what the thread has waited since the last look before
        is taken off. So in doubt a callout is not blamed.
        """
        looks = tuple(self._looks)
        if not looks:
            return now - began
        before = next((waited for at, waited in reversed(looks) if at <= began), looks[0][1])
        return max(0.0, now - began - (self.waited() - before))

    def ended(self, flow: Any, name: str, fn: Callable[..., Any] | None, began: float) -> None:
        """A callback for `flow` (None: for none that is served) has ended; `name` is its callout's."""
        spent = self._core.clock() - began
        if spent > self.budget:
            self.note(flow, name, getattr(fn, "__code__", None), spent)

    def newcomer_asked(self, name: str, code: CodeType | None, began: float) -> None:
        """A callback about a connection that is no flow yet has ended."""
        spent = self._core.clock() - began
        if spent > self.budget:
            self.note(None, name, code, spent)
            self.newcomer = True

    def note(self, flow: Any, name: str, code: CodeType | None, spent: float) -> None:
        """A call for `flow` took `spent` seconds, which is more than the budget.

        Its flow is served last whyever it took so long, since the others have waited; its callout is named only for
        what was its own.
        """
        core = self._core
        if flow is not None and not flow.gone_reported:
            self.flows.add(flow.id)
        self.total += 1
        core.count("overruns")
        if spent <= core.options.timeouts.turn:
            return
        now = core.clock()
        spent = self.own_time(now - spent, now)
        self.look()
        if spent <= core.options.timeouts.turn:
            return
        core.count("slow_callbacks")
        where = f"{code.co_filename}:{code.co_firstlineno}" if code is not None else None
        if self.watched:
            known = self._longest.get(name)
            if known is None or known.seconds < spent:
                self._longest[name] = SlowCall(spent, where)
        elif core.sinks and core.once_a_second(f"slow {name}"):
            core.emit("slow_callback", flow, callout=name, seconds=spent, where=where)

    @property
    def has_longest(self) -> bool:
        """There is something for `take_longest`; from any thread."""
        return bool(self._longest)

    def take_longest(self) -> dict[str, SlowCall]:
        """The longest call over `timeouts.turn` of each callout since this was asked last; while `watched`."""
        taken, self._longest = self._longest, {}
        return taken


def _never() -> float:
    """Of a thread nothing is known of."""
    return 0.0


def name_aside(aside: object) -> str:
    """The callout that a worker, or a bound timer function, belongs to; else the function's own name."""
    owner = getattr(aside, "callout", None) or getattr(aside, "__self__", None)
    return str(getattr(owner, "name", None) or getattr(aside, "__qualname__", type(aside).__name__))
