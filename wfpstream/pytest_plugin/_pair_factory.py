"""`wfp_pair` and `wfp_clock`: what these fixtures give to a test, and what they check at the end.

Owns which pairs there are, that they share one virtual time, and that all are closed. Pairs themselves are
`wfpstream.testing`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from wfpstream.testing import Pair, Recorder, make_pair

from ._callouts import engine_options, make_callout
from ._leaks import leaked_by
from ._options import settings_of
from ._report import new_violations
from ._watched import watch

if TYPE_CHECKING:
    from wfpstream.fwps import Callout

    from ._watched import Watched

__all__ = ["Clock", "PairFactory", "clock_of", "end_clock"]

_FOREVER = 1e9


class Clock:
    """The virtual time of all pairs of a test: it stands still unless the test moves it."""

    def __init__(self) -> None:
        self._pairs: list[Pair] = []
        self._now = 0.0

    @property
    def now(self) -> float:
        """Seconds since the test began, virtual."""
        return max([self._now, *(pair.now for pair in self._pairs)])

    def advance(self, seconds: float) -> None:
        """Let time pass for every pair; what is due meanwhile happens in its order.

        Raises:
            ValueError: time does not go back.
        """
        if not seconds >= 0:
            raise ValueError(f"time does not go back: {seconds!r}")
        self._now = self.now + seconds
        for pair in self._pairs:
            pair.advance(max(0.0, self._now - pair.now))

    def advance_until(self, condition: Callable[[], bool], limit: float = _FOREVER) -> bool:
        """Let time pass from one due instant to the next until `condition()`; whether it came to that.

        Args:
            limit: the most that may pass, seconds.
        """
        end = self.now + limit
        self.advance(0)
        while not condition():
            due = [when for pair in self._pairs if (when := pair.driver.next_instant()) is not None]
            if not due or min(due) > end:
                if limit != _FOREVER:
                    self.advance(max(0.0, end - self.now))
                return condition()
            self.advance(max(0.0, min(due) - self.now))
        return True

    def join(self, pair: Pair) -> None:
        """One more pair goes by this clock."""
        self._pairs.append(pair)


_CLOCK = pytest.StashKey[Clock]()


def clock_of(node: pytest.Item) -> Clock:
    """The clock of a test."""
    return node.stash.setdefault(_CLOCK, Clock())


def end_clock(node: pytest.Item) -> None:
    """A test that runs again begins at 0."""
    if _CLOCK in node.stash:
        del node.stash[_CLOCK]


class PairFactory:
    """Makes pairs: `pair = wfp_pair(["stream_edit,find=rainy,replace=sunny"])`.

    Attributes:
        pairs: those that were made, in order.
    """

    def __init__(self, node: pytest.Item) -> None:
        self.pairs: list[Pair] = []
        self._node = node
        self._watched: list[Watched] = []

    def __call__(
        self,
        callouts: Sequence[str | Callout] = (),
        *,
        local: Any = "client",
        window: int | None = 64 * 1024,
        **options: Any,
    ) -> Pair:
        """Connect two ends in memory, with an engine of their own between them.

        Args:
            callouts: CALLOUT strings or callout objects, asked in this order.
            local: which end is WFP's local host, "client" or "server".
            window: how many bytes an end keeps that nobody received; None for any number.
            options: `client` and `server`, addresses that callouts see; `listener`, its name; and the sections
                `limits`, `timeouts`, `policy`, `engine` and `verify` of the configuration, as dictionaries.

        Raises:
            ConnectionBlocked: a callout blocked the connection.
            TypeError, ValueError, LookupError: it cannot be done as asked; the text says what can.
        """
        if isinstance(callouts, str):
            raise TypeError(f"callouts is a list; write wfp_pair([{callouts!r}])")
        settings = settings_of(self._node)
        endpoints = {key: options.pop(key) for key in ("client", "server", "listener") if key in options}
        recorder = Recorder(settings.chop, settings.seed)
        listener = endpoints.get("listener", "")

        def made(callout: str | Callout) -> Callout:
            return make_callout(callout, settings.seed, [listener] if listener else []).callout

        clock = clock_of(self._node)
        watched = watch(self._node, "pair", recorder)
        pair = make_pair(
            callouts,
            options=engine_options(**{"verify": settings.verify, **options}),
            local=local,
            window=window,
            make_callout=made,
            recorder=recorder,
            now=clock.now,
            **endpoints,
        )
        watched.pair = pair
        clock.join(pair)
        self.pairs.append(pair)
        self._watched.append(watched)
        return pair

    def finish(self) -> None:
        """Close all, and fail if something is to complain of."""
        settings = settings_of(self._node)
        complaints: list[str] = []
        for pair, watched in zip(reversed(self.pairs), reversed(self._watched), strict=True):
            try:
                pair.close()
            except AssertionError as error:
                complaints.append(f"{watched.label}: {error}, which is a defect of wfpstream")
            told = new_violations(watched)
            leaks = leaked_by(pair.driver.engine, watched.recorder) if settings.leaks else []
            complaints += [f"{watched.label} was left with: {line}" for line in leaks]
            complaints += told if settings.verify == "strict" and not leaks else []
        end_clock(self._node)
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)
