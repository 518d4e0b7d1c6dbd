"""`WfpProxy`: a running proxy, as a test holds it.

Owns what a test can ask of it and do to it, from any thread, under any event loop or none. What happens on the
proxy's own thread is `_runner`'s.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from ._callouts import MadeCallout, make_callout
from ._changes import AddedCallout, Change, Stall
from ._records import FlowRecord, State, refuse_unknown
from ._runner import ADMISSION, Runner
from ._thread import ProxyClosed, ProxyHung, ProxyThread
from ._waiting import await_future, refuse_on_loop, refuse_virtual_time

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine
    from wfpstream.fwps import Callout

    from ._setting import Setting

__all__ = ["WfpProxy"]

T = TypeVar("T")
DownMode = Literal["refuse", "accept_rst", "blackhole"]
Stalled = Literal["to_client", "to_upstream", "both"]

_DIRECTIONS = ("to_client", "to_upstream", "both")
_CLOSE_TAKES = 60.0
# How many of the last events a timeout tells.
_TOLD = 8


class WfpProxy:
    """A proxy between a test's client and its upstream. It runs until `close`, the end of its `with`, or the test's.

    All methods may be called from any thread. Those that wait (`wait_flow`, `wait_event`, `idle`) have twins for
    asyncio and trio, whose names end in `_async`; all others return within milliseconds, also under an event loop.

    Once a callout hangs, all of them raise ProxyHung; once the proxy is closed, those that need it raise ProxyClosed.

    Attributes:
        host, port: where it listens.
        upstream: (host, port) of where it connects to.
        left_open: after `close`: the connections that had to be reset.
    """

    def __init__(self, setting: Setting) -> None:
        refuse_virtual_time()
        self.upstream = setting.upstream
        self.left_open: list[FlowRecord] = []
        self._seed = setting.seed
        self._name = setting.listener.name
        self._changes: list[Change] = []
        self._is_closed = False
        self._runner = Runner(setting, self._count)
        self._thread = ProxyThread(f"wfp_proxy to port {setting.upstream[1]}", setting.timeout, self._cut)
        [listener] = self._thread.start(self._runner.main).listeners
        self.host: str = listener.host
        self.port: int = listener.port

    # -- where it is

    @property
    def address(self) -> tuple[str, int]:
        """(host, port)."""
        return self.host, self.port

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def url(self, template: str) -> str:
        """`template` with `{}` replaced by host:port: `url("redis://{}/0")`; `{host}` and `{port}` are known too.

        Raises:
            ValueError: it has no such place, or others.
        """
        try:
            url = template.format(str(self), host=self.host, port=self.port)
        except (LookupError, ValueError):
            url = template
        if url == template:
            raise ValueError(f"{template!r}: expected {{}} where the address goes, as in 'redis://{{}}/0'")
        return url

    # -- what it saw

    @property
    def flows(self) -> list[FlowRecord]:
        """Every connection so far that has reached the upstream, in that order."""
        return self._look(lambda: list(self._runner.log.established))

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event so far, in order (`docs/reference/events.md`)."""
        return self._look(lambda: list(self._runner.log.events))

    @property
    def log(self) -> list[str]:
        """The lines that `wfpstream run` would have told people: connections that failed, and why."""
        return self._look(lambda: list(self._runner.lines))

    def callout(self, name: str) -> Callout:
        """The callout object of this name: as in its CALLOUT string; a second one of the same name has `-2` behind it.

        It belongs to the proxy's thread: look at its attributes, and leave its methods alone.

        Raises:
            LookupError: there is none.
        """
        callouts = self._look(lambda: dict(self._runner.callouts))
        if name not in callouts:
            known = ", ".join(callouts) or "none"
            raise LookupError(f"no callout {name!r} in this proxy; there are: {known}")
        return callouts[name]

    # -- what is done to it

    def add_callout(self, callout: str | Callout) -> AddedCallout:
        """Put a callout behind those there are, for new and live connections alike.

        Live connections are joined only by callouts with `CalloutFlags.ALLOW_MID_STREAM_INSPECTION`, as all built-in
        ones have it.

        Args:
            callout: a CALLOUT string, or an object.

        Returns:
            What takes it back: with `with`, or by `.remove()`. The callout drains then; nothing is lost or closed.

        Raises:
            ValueError, LookupError, TypeError, FwpError: it cannot be used; nothing has changed.
        """
        made = make_callout(callout, self._seed, [self._name])
        [added] = self._thread.call(self._runner.add, [made])
        take_back = partial(self._take_back, self._runner.retire, added)
        return self._remember(AddedCallout(added.callout, added.name, take_back))

    def fault(self, callout: str | Callout) -> AddedCallout:
        """`add_callout`, by a name that reads well: `with proxy.fault("latency,delay=300ms"): ...`."""
        return self.add_callout(callout)

    def stalled(self, direction: Stalled = "both") -> Change:
        """Let no byte and no end of stream pass in a direction; afterwards all of them pass.

        The sender is held up as by TCP: when the proxy holds enough, its bytes stay with itself.
        """
        if direction not in _DIRECTIONS:
            raise ValueError(f"direction is one of {', '.join(_DIRECTIONS)}, not {direction!r}")
        [added] = self._thread.call(self._runner.add, [MadeCallout(Stall(direction), "stall", "")])
        take_back = partial(self._take_back, self._runner.retire, added)
        return self._remember(Change(f"stall {direction}", take_back))

    def down(self, mode: DownMode = "refuse", live: Literal["reset", "keep"] = "reset") -> Change:
        """Be gone, and come back at the same port, which nobody else can get meanwhile.

        Args:
            mode: what becomes of those who connect. "refuse": refused, as where nobody listens. "accept_rst": accepted,
                and reset at once. "blackhole": not answered; who still tries when it ends gets through.
            live: what becomes of the connections there are: "reset" on both sides, or "keep".
        """
        if mode not in ADMISSION:
            raise ValueError(f"mode is one of {', '.join(ADMISSION)}, not {mode!r}")
        if live not in ("reset", "keep"):
            raise ValueError(f"live is 'reset' or 'keep', not {live!r}")
        token = object()
        self._thread.call(self._runner.go_down, token, mode)
        change = self._remember(Change(f"down {mode}", partial(self._take_back, self._runner.come_up, token)))
        if live == "reset":
            self.reset()
        return change

    def reset(self) -> None:
        """Reset every connection there is, on both sides, and wait until they are gone; new ones are welcome."""
        self._thread.run(self._runner.proxy.abort_connections)

    def restore(self) -> None:
        """As when it was started: changes taken back, connections reset, flows, events and log forgotten."""
        for change in reversed(self._changes):
            change.remove()
        self._changes.clear()
        self.reset()
        self._thread.call(self._runner.forget)

    # -- waiting

    def wait_flow(self, n: int = 1, state: State = "established", timeout: float = 5.0) -> FlowRecord:
        """The `n`-th connection that was established, or closed; at once if that has happened already.

        Raises:
            TimeoutError: it has not happened within `timeout` seconds; the text says what has.
            RuntimeError: an event loop runs on this thread: use `wait_flow_async`.
        """
        refuse_on_loop("wait_flow")
        with self._told(timeout, _flows_text(n, state)):
            return self._wait(self._ask_flow(n, state), timeout)

    async def wait_flow_async(
        self, n: int = 1, state: State = "established", timeout: float = 5.0
    ) -> FlowRecord:
        """`wait_flow`, for asyncio and trio."""
        with self._told(timeout, _flows_text(n, state)):
            return await await_future(self._ask_flow(n, state), timeout)

    def wait_event(self, name: str, /, *, n: int = 1, timeout: float = 5.0, **match: Any) -> dict[str, Any]:
        """The `n`-th event of this name whose keys have these values; at once if it has come already.

        Args:
            name: as in `docs/reference/events.md`, for example "violation".
            n: which one of them.
            timeout: seconds.
            match: values, or functions of a value: `rule="V-5"`, `len=lambda length: length > 100`.

        Raises:
            ValueError: there is no event of this name, or it has no such key; the text names the nearest.
            TimeoutError: it has not come; the text says what has.
            RuntimeError: an event loop runs on this thread: use `wait_event_async`.
        """
        refuse_on_loop("wait_event")
        with self._told(timeout, _event_text(name, n, match)):
            return self._wait(self._ask_event(name, n, match), timeout)

    async def wait_event_async(
        self, name: str, /, *, n: int = 1, timeout: float = 5.0, **match: Any
    ) -> dict[str, Any]:
        """`wait_event`, for asyncio and trio."""
        with self._told(timeout, _event_text(name, n, match)):
            return await await_future(self._ask_event(name, n, match), timeout)

    def idle(self, timeout: float = 5.0) -> None:
        """Wait until the proxy has nothing to do: what came in has gone out, no connection begins or ends.

        It knows of no byte that a peer has not sent yet.

        Raises:
            TimeoutError: it still has something to do; the text says what.
            RuntimeError: an event loop runs on this thread: use `idle_async`.
        """
        refuse_on_loop("idle")
        with self._told(timeout, "is not idle"):
            self._wait(self._thread.begin(self._runner.become_idle), timeout)

    async def idle_async(self, timeout: float = 5.0) -> None:
        """`idle`, for asyncio and trio."""
        with self._told(timeout, "is not idle"):
            await await_future(self._thread.begin(self._runner.become_idle), timeout)

    # -- its end

    def close(self) -> None:
        """Stop. Connections that live have a moment to end by themselves, then they are reset. Twice is once."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(ProxyClosed, ProxyHung):
            self._thread.call(self._runner.proxy.request_stop)
        self._thread.join()
        self.left_open = [record for record in self._runner.log.closed if record.ended == "stop"]

    async def close_async(self) -> None:
        """`close`, for asyncio and trio: their peers on this loop can end meanwhile."""
        with contextlib.suppress(ProxyClosed, ProxyHung):
            await await_future(self._thread.begin(self._runner.proxy.stop), _CLOSE_TAKES)
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close_async()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "hung" if self.hung else "running" if self._thread.is_alive else "closed"
        return f"<wfp_proxy {self} to {self.upstream[0]}:{self.upstream[1]}, {state}>"

    # -- for the plugin

    @property
    def is_closed(self) -> bool:
        """`close` was called, or it has ended by itself."""
        return self._is_closed or not self._thread.is_alive

    @property
    def hung(self) -> str | None:
        """The watchdog's report, if the proxy's thread is stuck in a callout."""
        return self._thread.hung

    @property
    def crash(self) -> BaseException | None:
        """What has ended the proxy, if that was an error."""
        return self._thread.crash

    @property
    def engine(self) -> FilterEngine:
        """The engine; it belongs to the proxy's thread (`thread.call`)."""
        return self._runner.engine

    @property
    def thread(self) -> ProxyThread:
        """The proxy's thread."""
        return self._thread

    @property
    def own_addresses(self) -> list[tuple[str, int]]:
        """Where its sockets are bound."""
        return [self.address]

    def violations(self) -> list[dict[str, Any]]:
        """The violations so far."""
        return [event for event in self.events if event["event"] == "violation"]

    # -- inside

    def _look(self, fn: Callable[[], T]) -> T:
        """What `fn` sees between two things that happen on the proxy's thread, or after the last one."""
        if self.hung is None:
            with contextlib.suppress(ProxyClosed, ProxyHung):
                return self._thread.call(fn)
        return fn()

    def _count(self, record: FlowRecord) -> tuple[int, int]:
        return self._look(lambda: self._runner.count(record))

    def _remember(self, change: ChangeT) -> ChangeT:
        self._changes.append(change)
        return change

    def _take_back(self, fn: Callable[[T], object], what: T) -> None:
        # The end of a `with` is no place to complain that all is over.
        with contextlib.suppress(ProxyClosed, ProxyHung):
            self._thread.call(fn, what)

    def _ask_flow(self, n: int, state: State) -> Future[FlowRecord]:
        if state not in ("established", "closed"):
            raise ValueError(f"state is 'established' or 'closed', not {state!r}")
        return self._ask(partial(self._runner.nth_flow, _counted(n), state))

    def _ask_event(self, name: str, n: int, match: dict[str, Any]) -> Future[dict[str, Any]]:
        refuse_unknown(name, match)
        return self._ask(partial(self._runner.nth_event, name, _counted(n), match))

    def _ask(self, ask: Callable[[Future[T]], object]) -> Future[T]:
        future: Future[T] = Future()
        self._thread.send(future, partial(ask, future))
        return future

    def _wait(self, future: Future[T], timeout: float) -> T:
        try:
            return future.result(timeout)
        finally:
            future.cancel()

    @contextlib.contextmanager
    def _told(self, timeout: float, what: str) -> Iterator[None]:
        """A timeout says what has happened instead."""
        try:
            yield
        except TimeoutError:
            story = "".join(f"\n  {line}" for line in self._story())
            raise TimeoutError(f"after {timeout:g} s {self!r} {what}{story}") from None

    def _story(self) -> list[str]:
        """What there was so far, for a timeout's text."""
        log = self._runner.log
        flows = self.flows
        lines = self._look(self._runner.busy)
        lines += [f"{len(flows)} established, {sum(flow.state == 'closed' for flow in flows)} closed"]
        lines += [f"a connection failed: {why}" for why in self._look(lambda: log.failed[-_TOLD:])]
        lines += [f"log: {line}" for line in self.log[-_TOLD:]]
        names = [event["event"] for event in self.events[-_TOLD:]]
        return [*lines, f"last events: {', '.join(names)}" if names else "no event so far"]

    def _cut(self) -> None:
        """The proxy's thread hangs, and this is the watchdog's: its peers must not wait with it."""
        print(self.hung, file=sys.stderr)
        if hasattr(self._runner, "proxy"):  # else it hung before it listened
            self._runner.proxy.shut_down_connections()


ChangeT = TypeVar("ChangeT", bound=Change)


def _counted(n: int) -> int:
    if n < 1:
        raise ValueError(f"n counts from 1, not {n}")
    return n


def _flows_text(n: int, state: State) -> str:
    return f"has no {n}. connection that is {state}"


def _event_text(name: str, n: int, match: dict[str, Any]) -> str:
    keys = "".join(f", {key}={value!r}" for key, value in match.items())
    return f"has no {n}. event {name!r}{keys}"
