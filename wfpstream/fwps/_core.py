"""The state that all parts of one engine share, and the loop that settles it.

Owns the queues of pending work, the marker of the callback on the stack, timers, events and violations
(CMP-15..17, IND-10). It must not know how bytes travel: `_waterfall` and `_lifecycle` register what the
loop calls. One engine belongs to one thread.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wfpstream.fwp import NtStatus

from ._filter import EMPTY_FILTER_SET, FilterSet
from ._options import EngineOptions
from ._violations import ALWAYS_REPORTED, SEVERITY, where_in_callout, where_raised

if TYPE_CHECKING:
    from ._callout import CalloutEntry
    from ._flow import Flow, Lane
    from ._run import InjectedBuffer

Event = dict[str, Any]

# One or more per indication: built only if a sink has not said `wants_trace = False`.
TRACE_EVENTS = frozenset(
    ("indicate", "classify", "inject", "inject_complete", "defer", "continue", "discard", "pause", "resume")
)


class Frame:
    """The callback on the stack: what it is, for whom, and what it did so far."""

    __slots__ = (
        "abort",
        "callout_id",
        "clones",
        "fin",
        "flow",
        "injected",
        "kind",
        "lane",
        "layer_id",
        "pending",
    )

    def __init__(
        self, kind: str, flow: Flow | None = None, lane: Lane | None = None, callout_id: int = 0
    ) -> None:
        self.kind = kind
        self.flow = flow
        self.lane = lane
        self.callout_id = callout_id
        self.layer_id = 0
        self.clones: list[Any] = []
        self.injected = False
        self.abort = False
        self.fin = False
        self.pending: Any = None


class Timer:
    """A call due at an instant of the engine's clock; `cancel` may come any time."""

    __slots__ = ("cancelled", "due", "fn", "rank")

    def __init__(self, due: float, rank: int, fn: Callable[[], None]) -> None:
        self.due = due
        self.rank = rank
        self.fn = fn
        self.cancelled = False

    def cancel(self) -> None:
        """Never run it."""
        self.cancelled = True

    def __lt__(self, other: Timer) -> bool:
        return (self.due, self.rank) < (other.due, other.rank)


class Core:
    """Shared state of one engine."""

    def __init__(self, clock: Callable[[], float], options: EngineOptions) -> None:
        self.clock = clock
        self.options = options
        self.started = True
        self.filters: FilterSet = EMPTY_FILTER_SET
        self.flows: dict[int, Flow] = {}
        self.tick = 0
        self.last_flow_id = 0
        self.frame: Frame | None = None
        self.running = False
        self.callbacks = 0
        self.dirty: deque[Flow] = deque()
        self.due: deque[InjectedBuffer] = deque()
        self.ending: deque[Flow] = deque()
        self.touched: dict[int, Flow] = {}
        self.on_pending: Callable[[], None] = lambda: None
        self._said: dict[str, float] = {}
        self.turn_requested = False
        self.timers: list[Timer] = []
        self._rank = 0
        self.sinks: list[Any] = []
        self.data_wanted = "off"
        self.tracing = False  # some sink wants the events of single indications and injections
        self.events: list[Event] = []
        self._sequence = 0
        self._delivering = False
        self.violations: dict[str, int] = {}
        self.counters: dict[str, int] = {}
        self.stored = 0
        self.reset_at: dict[int, float] = {}  # flows that were reset, for as long as V-37 may want to know
        self.short_of_memory: dict[int, Flow] = {}  # flows that stopped reading because of `total`
        # Set by the parts that do the work.
        self.pump: Callable[[Flow], None]
        self.complete: Callable[[InjectedBuffer], None]
        self.finish: Callable[[Flow], None]
        self.strict_fault: Callable[[Lane], None]
        self.recount: Callable[[Flow], None]
        self.find_entry: Callable[[int], CalloutEntry | None]

    # -- identity and time -------------------------------------------------------------------------

    def next_tick(self) -> int:
        """A number that orders registrations, commits and establishments (MID-1)."""
        self.tick += 1
        return self.tick

    def at(self, due: float, fn: Callable[[], None]) -> Timer:
        """Run `fn` in the turn in which the clock has reached `due` (seconds)."""
        self._rank += 1
        timer = Timer(due, self._rank, fn)
        heapq.heappush(self.timers, timer)
        if self.timers[0] is timer:
            self.request_turn()  # the driver sleeps until a later instant
        return timer

    @property
    def next_deadline(self) -> float | None:
        """When the next timer is due, None without one."""
        while self.timers and self.timers[0].cancelled:
            heapq.heappop(self.timers)
        return self.timers[0].due if self.timers else None

    def run_timers(self) -> None:
        """Every timer that is due, in order of (due, creation)."""
        now = self.clock()
        due: list[Timer] = []
        while self.timers and self.timers[0].due <= now:
            due.append(heapq.heappop(self.timers))
        for timer in due:
            if not timer.cancelled:
                timer.fn()

    def run_one_timer(self) -> bool:
        """The first timer that is due. False: none is."""
        deadline = self.next_deadline
        if deadline is None or deadline > self.clock():
            return False
        heapq.heappop(self.timers).fn()
        return True

    # -- work --------------------------------------------------------------------------------------

    def mark(self, flow: Flow) -> None:
        """This flow has something to classify, or to do, in the next settling."""
        if not flow.marked:
            flow.marked = True
            self.dirty.append(flow)

    def touch(self, flow: Flow) -> None:
        """The driver must look at this flow's state."""
        self.touched[flow.id] = flow

    def request_turn(self) -> None:
        """Ask the driver for a turn, once (from empty to non-empty)."""
        if not self.turn_requested:
            self.turn_requested = True
            self.on_pending()

    @property
    def in_callback(self) -> bool:
        """A callback of this engine is on the stack, or the settling loop itself (CMP-16)."""
        return self.frame is not None or self.running

    def settle(self) -> None:
        """CMP-15: classify until nothing can move, then completions, then flow ends.

        Bounded by a count of callbacks, never by time, so that every world does the same.
        """
        if self.running:
            return
        self.running = True
        self.callbacks = 0
        try:
            self.work()
        finally:
            self.running = False
            self.deliver_events()

    def work(self) -> None:
        """The loop of `settle`, until nothing is left or this settling's callbacks are used up."""
        limit = self.options.callbacks_per_turn
        while self.callbacks < limit:
            if self.dirty:
                flow = self.dirty.popleft()
                flow.marked = False
                self.touch(flow)
                self.pump(flow)
            elif self.due:
                self.complete(self.due.popleft())
            elif self.ending:
                self.finish(self.ending.popleft())
            else:
                return
        if self.dirty or self.due or self.ending:
            self.request_turn()

    def after_outside_call(self, flow: Flow | None) -> None:
        """End of an input: other flows that changed are the next turn's business."""
        if flow is not None:
            self.touched.pop(flow.id, None)
        if self.touched:
            self.request_turn()

    # -- events ------------------------------------------------------------------------------------

    def emit(self, event: str, flow: Flow | None, **keys: Any) -> None:
        """Queue one net event for the sinks; costs nothing to build when there is none (caller checks)."""
        self._sequence += 1
        record: Event = {
            "event": event,
            "flow": flow.number if flow is not None else 0,
            "seq": self._sequence,
            "t": self.clock(),
        }
        record.update(keys)
        self.events.append(record)
        if not self.in_callback:
            self.deliver_events()

    def deliver_events(self) -> None:
        """Hand the queued events over, after settling."""
        if not self.events or self._delivering or self.frame is not None:
            return
        self._delivering = True
        try:
            while self.events:
                events, self.events = self.events, []
                for record in events:
                    traced = record["event"] in TRACE_EVENTS
                    for sink in list(self.sinks):
                        if not traced or _wants_trace(sink):
                            self._deliver(sink, record)
        finally:
            self._delivering = False

    def _deliver(self, sink: Any, record: Event) -> None:
        """A sink that fails is taken out and named to the others; it takes no flow down with it."""
        try:
            sink(record)
        except Exception as error:
            self.remove_sink(sink)
            self.count("sink_failures")
            self.emit("sink_failed", None, sink=type(sink).__name__, text=f"{type(error).__name__}: {error}")

    def add_sink(self, sink: Any) -> None:
        self.sinks.append(sink)
        self._update_data_wanted()

    def remove_sink(self, sink: Any) -> None:
        self.sinks.remove(sink)
        self._update_data_wanted()

    def _update_data_wanted(self) -> None:
        self.tracing = any(_wants_trace(sink) for sink in self.sinks)
        order = ("off", "preview", "full")
        self.data_wanted = max(
            (getattr(s, "wants_data", "off") for s in self.sinks), key=order.index, default="off"
        )

    # -- violations --------------------------------------------------------------------------------

    def violation(
        self,
        rule: str,
        text: str,
        lane: Lane | None = None,
        flow: Flow | None = None,
        severity: str | None = None,
        entry: CalloutEntry | None = None,
        error: BaseException | None = None,
    ) -> None:
        """Report a broken contract (section 20). Never raises; what happens to the bytes is the caller's.

        The place is the lane's, or `entry`'s, or that of the callback on the stack.
        """
        if self.options.verify.level == "off" and rule not in ALWAYS_REPORTED:
            return
        severity = severity or SEVERITY.get(rule, "E")
        self.violations[rule] = self.violations.get(rule, 0) + 1
        if lane is not None:
            flow = lane.stage.flow
        place = self._place(lane, entry)
        if error is not None:
            place["where"] = where_raised(error) or place["where"]
        if self.sinks:
            self.emit("violation", flow, rule=rule, severity=severity, text=text, **place)
        if severity == "E" and self.options.verify.level == "strict" and lane is not None:
            self.strict_fault(lane)

    @property
    def times_callbacks(self) -> bool:
        """Clock-based lint is wanted and time is real (VRF-3)."""
        verify = self.options.verify
        return verify.level != "off" and not verify.virtual_time

    def check_budget(self, what: str, began: float, lane: Lane | None, entry: CalloutEntry | None) -> None:
        """V-42: a callback took longer than its budget (IRQ-1)."""
        spent = self.clock() - began
        if spent > self.options.verify.callback_budget:
            self.violation("V-42", f"{what} took {spent * 1000:.0f} ms", lane, entry=entry)

    def once_a_second(self, key: str) -> bool:
        """Is it time again to say this?"""
        now = self.clock()
        last = self._said.get(key)
        if last is not None and now - last < 1.0:
            return False
        self._said[key] = now
        return True

    def _place(self, lane: Lane | None, entry: CalloutEntry | None) -> dict[str, Any]:
        if lane is None:
            told = entry is not None
            if entry is None and self.frame is not None:
                entry = self.find_entry(self.frame.callout_id)
            where = self._where(entry, told)
            name = entry.name if entry is not None else None
            return {"callout": name, "filter": None, "dir": None, "offset": None, "where": where}
        stage = lane.stage
        return {
            "callout": stage.entry.name if stage.entry else None,
            "filter": stage.filter.filter_id,
            "dir": stage.flow.direction_name(lane.direction),
            "offset": stage.flow.offset_at(lane),
            "where": self._where(stage.entry, False),
        }

    def _where(self, entry: CalloutEntry | None, told: bool) -> str | None:
        """The line that made a call, or, for an answer judged after its callback returned, the callback."""
        code = entry.classify_code if entry is not None else None
        judged_later = told or (self.running and self.frame is None)
        return where_in_callout(code if judged_later else None) or where_in_callout(code)

    def refused(self, call: str, status: NtStatus, rule: str, flow: Flow | None = None) -> NtStatus:
        """VRF-6: a call that was not STATUS_SUCCESS is an event with the rule that decided it."""
        if self.sinks:
            self.emit("refused", flow, call=call, status=status.name, value=int(status), rule=rule)
        return status

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount


def _wants_trace(sink: Any) -> bool:
    return bool(getattr(sink, "wants_trace", True))
