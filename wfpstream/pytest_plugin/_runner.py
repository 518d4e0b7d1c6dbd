"""The proxy itself, on its own thread: engine, listener, callouts, who waits for what, and whether it is idle.

Owns everything that belongs to that thread. It must not know who calls; `WfpProxy` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import trio

from wfpstream.engine import FilterEngine, describe_flow_in_depth
from wfpstream.transport import Proxy, serve_proxy

from ._callouts import MadeCallout, add_made
from ._records import EventLog, FlowRecord, State, counts_of, matches
from ._waiting import Waiters

if TYPE_CHECKING:
    from concurrent.futures import Future

    from wfpstream.engine import AddedCallout
    from wfpstream.fwps import Callout

    from ._setting import Setting

__all__ = ["ADMISSION", "Runner"]

ADMISSION: Mapping[str, Literal["refuse", "reset", "ignore"]] = {
    "refuse": "refuse",
    "accept_rst": "reset",
    "blackhole": "ignore",
}
# Quiet twice, so far apart: what a peer has just sent is on its way through this machine's kernel.
_LOOK_AGAIN = 0.005


class Runner:
    """One proxy. All methods are for its thread, unless they say otherwise.

    Args:
        setting: what it is to be.
        count: looks up a flow's counts, from any thread.

    Attributes:
        lines: what the command line would have told people.
        callouts: by name.
    """

    def __init__(self, setting: Setting, count: Callable[[FlowRecord], tuple[int, int]]) -> None:
        self.setting = setting
        self.engine = FilterEngine(time.monotonic, setting.options)
        self.lines: list[str] = []
        self.callouts: dict[str, Callout] = {}
        self.waiters = Waiters()
        self.log = EventLog(setting.events_data, self.waiters.ask, count)
        self.proxy: Proxy
        self._downs: dict[object, str] = {}
        self._spent: list[Callout] = []

    async def main(self, ready: Callable[[Proxy], None]) -> None:
        """Run it to its end. Raises OSError: it cannot listen there; FwpError, ValueError: it cannot use a callout."""
        setting = self.setting
        for sink in setting.sinks:
            self.engine.add_sink(sink)
        # The last one: it wakes who waits for an event, and by then everybody has it.
        self.engine.add_sink(self.log)

        def listens(proxy: Proxy) -> None:
            self.proxy = proxy
            ready(proxy)

        try:
            self.add(setting.callouts)
            await serve_proxy(
                self.engine,
                [setting.listener],
                grace=setting.grace,
                log=self.lines.append,
                ready=listens,
                tap=setting.tap,
            )
        finally:
            # What callouts have left behind shows only now (V-39).
            self.engine.stop()

    def forget(self) -> None:
        """What was seen so far."""
        self.log.forget()
        self.lines.clear()

    # -- changes

    def add(self, made: Sequence[MadeCallout]) -> list[AddedCallout]:
        """Put callouts in force.

        Raises:
            ValueError: one has drained when it was taken back, and would not do anything any more.
        """
        for one in made:
            if any(one.callout is spent for spent in self._spent):
                kind = type(one.callout).__name__
                raise ValueError(f"this {kind} was taken back before, and has drained: make a new one")
        added = add_made(self.engine, made)
        self.callouts |= {one.name: one.callout for one in added}
        return added

    def retire(self, added: AddedCallout) -> None:
        """Take one out of force; it drains."""
        if self.callouts.get(added.name) is added.callout:
            del self.callouts[added.name]
        if added.callout.drains:
            self._spent.append(added.callout)
        added.retire()

    def go_down(self, token: object, mode: str) -> None:
        """Meet newcomers in this way until `come_up(token)`."""
        self.proxy.admit(ADMISSION[mode])
        self._downs[token] = mode

    def come_up(self, token: object) -> None:
        """Of several ways to be down the last one that is left counts."""
        del self._downs[token]
        mode = next(reversed(self._downs.values()), None)
        self.proxy.admit("serve" if mode is None else ADMISSION[mode])

    # -- questions

    def count(self, record: FlowRecord) -> tuple[int, int]:
        """What a flow has sent and received so far."""
        return counts_of(record, self.engine.flows, self.engine.now())

    def nth_flow(self, n: int, state: State, future: Future[FlowRecord]) -> None:
        """Settle `future` with the n-th flow that was established, or closed."""

        def answer() -> FlowRecord | None:
            flows = self.log.established if state == "established" else self.log.closed
            return flows[n - 1] if len(flows) >= n else None

        self.waiters.add(answer, future)

    def nth_event(self, name: str, n: int, wanted: Mapping[str, Any], future: Future[dict[str, Any]]) -> None:
        """Settle `future` with the n-th event that matches."""
        seen = 0
        found: list[dict[str, Any]] = []

        def answer() -> dict[str, Any] | None:
            nonlocal seen
            # Each is looked at once, however often we are asked.
            for event in self.log.since(seen):
                if matches(event, name, wanted):
                    found.append(event)
            seen = self.log.total
            return found[n - 1] if len(found) >= n else None

        self.waiters.add(answer, future)

    async def become_idle(self) -> bool:
        """Wait until there is nothing to do."""
        quiet = 0
        while quiet < 2:
            quiet = 0 if self.busy() else quiet + 1
            await trio.sleep(_LOOK_AGAIN)
        return True

    def busy(self) -> list[str]:
        """What there is to do, one line each."""
        now = self.engine.now()
        flows = [describe_flow_in_depth(flow, now) for flow in self.engine.flows]
        kept = [line for flow in flows for way in ("to_client", "to_upstream") for line in _kept(flow, way)]
        return self.proxy.unfinished() + kept


def _kept(flow: dict[str, Any], way: str) -> list[str]:
    """What a direction of a flow (as `describe_flow_in_depth` has it) holds back, as one line, or none."""
    counts, stages = flow[way], [stage[way] for stage in flow["stages"]]
    size = counts["held"] + counts["unsent"] + counts["pended"]
    what = [f"{size} bytes held"] if size else []
    what += ["its end held"] if any(stage["fin_pended"] for stage in stages) else []
    what += ["an injection under way"] if any(stage["uncompleted"] for stage in stages) else []
    what += [counts["state"]] if counts["state"] in ("deferred", "paused") else []
    return [f"flow {flow['id']} {way}: {', '.join(what)}"] if what else []
