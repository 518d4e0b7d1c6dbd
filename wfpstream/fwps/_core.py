"""The state that all parts of one engine share, and the loop that settles it.

Owns the queues of pending work, the marker of the callback on the stack, timers, events and violations
(CMP-15..17, IND-10). It must not know how bytes travel: `_waterfall` and `_lifecycle` register what the
loop calls. One engine belongs to one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from wfpstream.fwp import NtStatus

from ._filter_set import EMPTY_FILTER_SET, FilterSet
from ._options import EngineOptions
from ._overruns import Overruns
from ._timers import Timer, Timers
from ._violation_rules import VIOLATION_RULES
from ._violations import ALWAYS_REPORTED, where_defined, where_in_callout, where_raised

if TYPE_CHECKING:
    from ._callout import CalloutEntry
    from ._flow import Flow, Lane
    from ._run import InjectedBuffer

Event = dict[str, Any]

# One or more per indication: built only if a sink has not said `wants_trace = False`.
TRACE_EVENTS = frozenset(
    ("indicate", "classify", "inject", "inject_complete", "defer", "continue", "discard", "pause", "resume")
)


class Numbered(Protocol):
    """A flow, or a connection that is not one yet, by what events call it."""

    @property
    def number(self) -> int: ...


class PastFlow(NamedTuple):
    """What is remembered of a flow that was reset: when, and the filter of each of its callouts, by callout id."""

    number: int
    reset_at: float
    filters: dict[int, int]


class Layer(Numbered, Protocol):
    """The arbitration of a layer before the stream (`_arbitration`), as far as violations need it."""

    @property
    def current(self) -> tuple[Any, CalloutEntry] | None: ...
    def strike(self, filter_id: int) -> None: ...


class Frame:
    """The callback on the stack: what it is, for whom, and what it did so far.

    `about` is the lane that reports name where `lane` is None because no stream indication is under way; `filter_id`
    the filter where there is no lane at all.
    """

    __slots__ = (
        "abort",
        "about",
        "callout_id",
        "clones",
        "filter_id",
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
        self.about: Lane | None = None
        self.filter_id = 0
        self.pending: Any = None


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
        self.plain = False  # nothing waits and nothing runs, known without looking (`_plain`)
        self.callbacks = 0
        self.overruns = Overruns(self)
        self.dirty: deque[Flow] = deque()
        self.due: deque[InjectedBuffer] = deque()
        self.ending: deque[Flow] = deque()
        self.touched: dict[int, Flow] = {}
        self.on_pending: Callable[[], None] = lambda: None
        self._said: dict[str, float] = {}
        self.turn_requested = False
        self.timers = Timers()
        self.sinks: list[Any] = []
        self.data_wanted = "off"
        self.tracing = False  # some sink wants the events of single indications and injections
        self.events: list[Event] = []
        self._sequence = 0
        self._delivering = False
        self.violations: dict[str, int] = {}
        self.called_from: str | None = None  # where in a foreign thread the call under way was made (IRQ-6)
        self.counters: dict[str, int] = {}
        self.stored = 0
        self.reset: dict[int, PastFlow] = {}  # flows that were reset, for as long as V-37 may want to know
        self.short_of_memory: dict[int, Flow] = {}  # flows that stopped reading because of `total`
        # Set by the parts that do the work.
        self.pump: Callable[[Flow], None]
        self.complete: Callable[[InjectedBuffer], None]
        self.finish: Callable[[Flow], None]
        self.strict_fault: Callable[[Lane], None]
        self.recount: Callable[[Flow], None]
        self.find_entry: Callable[[int], CalloutEntry | None]
        self.data_wanted_changed: Callable[[], None] = lambda: None

    # -- identity and time -------------------------------------------------------------------------

    def next_tick(self) -> int:
        """A number that orders registrations, commits and establishments (MID-1)."""
        self.tick += 1
        return self.tick

    def at(self, due: float, fn: Callable[[], None]) -> Timer:
        """Run `fn` in the turn in which the clock has reached `due` (seconds)."""
        timer, is_first = self.timers.add(due, fn)
        if is_first:
            self.request_turn()  # the driver sleeps until a later instant
        return timer

    @property
    def next_deadline(self) -> float | None:
        """When the next timer is due, None without one."""
        timer = self.timers.first()
        return timer.due if timer is not None else None

    def run_timers(self) -> None:
        """Every timer that is due, in order of (due, creation)."""
        due = self.timers.take_due(self.clock())
        late = self.overruns.total
        while due:
            timer = due.popleft()
            if not timer.cancelled:
                timer.fn()
                if self.overruns.total != late:
                    # The others get their turn between two calls that take too long.
                    self.timers.put_back(due)
                    self.request_turn()
                    return

    def run_one_timer(self) -> bool:
        """The first timer that is due. False: none is."""
        deadline = self.next_deadline
        if deadline is None or deadline > self.clock():
            return False
        self.timers.take_first().fn()
        return True

    # -- work --------------------------------------------------------------------------------------

    def mark(self, flow: Flow) -> None:
        """This flow has something to classify, or to do, in the next settling."""
        flow.plain = 0
        self.plain = False
        if not flow.marked:
            flow.marked = True
            self.dirty.append(flow)

    def touch(self, flow: Flow) -> None:
        """The driver must look at this flow's state."""
        self.plain = False
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
        self.plain = False
        self.callbacks = 0
        try:
            self.work()
        finally:
            self.running = False
            self.deliver_events()

    def settle_to_the_end(self) -> None:
        """CMP-15 without its limit: no further turn is to come."""
        self.settle()
        while not self.running and (self.dirty or self.due or self.ending):
            self.settle()

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

    def emit(self, event: str, flow: Numbered | None, **keys: Any) -> None:
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
        self.plain = False
        self.tracing = any(_wants_trace(sink) for sink in self.sinks)
        order = ("off", "preview", "full")
        self.data_wanted = max(
            (getattr(s, "wants_data", "off") for s in self.sinks), key=order.index, default="off"
        )
        self.data_wanted_changed()

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
        *,
        filter_id: int = 0,
        layer: Layer | None = None,
        past: PastFlow | None = None,
        where: str | None = None,
        judged: bool = False,
    ) -> None:
        """Report a broken contract (section 20). Never raises; what happens to the bytes is the caller's.

        Who did it is the lane's callout, or `entry` with `filter_id`, or the callback on the stack. The place is
        `where`, or that of `error`, or of the call that is being made; a `judged` one is of a callback that has
        returned, and a callout that is named without any call gets its classifyFn.
        """
        verify = self.options.verify
        if verify.level == "off" and rule not in ALWAYS_REPORTED:
            return
        table = VIOLATION_RULES[rule]
        severity = "L" if self._is_by_design(rule, lane, entry) else severity or table.severity
        self.violations[rule] = self.violations.get(rule, 0) + 1
        frame = self.frame
        if frame is not None and lane is None and entry is None:
            lane = frame.lane
            layer = layer or frame.pending
        if self.sinks:
            about = lane or (frame.about if frame is not None and entry is None else None)
            if about is not None:
                place = self._place_of_lane(about)
                flow = about.stage.flow
            else:
                flow = flow or (frame.flow if frame is not None else None)
                place = self._place(flow, entry, filter_id, layer)
            found = self.find_entry(place.pop("callout_id"))
            code_of = found if found is not None else entry
            if where is None and error is not None:
                where = where_raised(error)
            place["where"] = where or self._where(code_of, judged)
            told = {
                "says": table.says,
                "decided_by": list(table.decided_by),
                "documented": list(table.documented),
            }
            self.emit(
                "violation", flow or layer or past, rule=rule, severity=severity, text=text, **told, **place
            )
        if severity == "E" and verify.level == "strict":
            if lane is not None:
                self.strict_fault(lane)
                if not self.in_callback:
                    self.request_turn()
            elif layer is not None:
                current = layer.current
                layer.strike(filter_id or (current[0].filter_id if current is not None else 0))

    def judged(self, rule: str, text: str, lane: Lane) -> None:
        """A violation in an answer: the callback has returned, and is the place."""
        self.violation(rule, text, lane, judged=True)

    @property
    def times_callbacks(self) -> bool:
        """Clock-based lint is wanted and time is real (VRF-3)."""
        verify = self.options.verify
        return verify.level != "off" and not verify.virtual_time

    def check_budget(self, what: str, began: float, lane: Lane | None, entry: CalloutEntry | None) -> None:
        """V-42: a callback took longer than its budget (IRQ-1)."""
        now = self.clock()
        budget = self.options.verify.callback_budget
        if now - began > budget and (spent := self.overruns.own_time(began, now)) > budget:
            self.violation("V-42", f"{what} took {spent * 1000:.0f} ms", lane, entry=entry, judged=True)

    def once_a_second(self, key: str) -> bool:
        """Is it time again to say this?"""
        now = self.clock()
        last = self._said.get(key)
        if last is not None and now - last < 1.0:
            return False
        self._said[key] = now
        return True

    def _is_by_design(self, rule: str, lane: Lane | None, entry: CalloutEntry | None) -> bool:
        """The callout says that this is what it is for: a fault that is injected on purpose."""
        if entry is None and lane is not None:
            entry = lane.stage.entry
        return entry is not None and entry.owner is not None and rule in entry.owner.breaks_by_design

    def _place_of_lane(self, lane: Lane) -> dict[str, Any]:
        stage = lane.stage
        return {
            "callout": stage.entry.name if stage.entry else None,
            "callout_id": stage.filter.callout_id,
            "filter": stage.filter.filter_id,
            "dir": stage.flow.direction_name(lane.direction),
            "offset": stage.flow.offset_at(lane),
        }

    def _place(
        self, flow: Flow | None, entry: CalloutEntry | None, filter_id: int, layer: Layer | None
    ) -> dict[str, Any]:
        """What is known where no direction of a stream is concerned."""
        frame = self.frame
        if entry is None and frame is not None:
            entry = self.find_entry(frame.callout_id)
            filter_id = filter_id or frame.filter_id
        current = layer.current if layer is not None else None
        if not filter_id and current is not None:
            filter_id = current[0].filter_id
        if not filter_id and flow is not None and entry is not None:
            filter_id = flow.filter_of(entry.callout_id)
        return {
            "callout": entry.name if entry is not None else None,
            "callout_id": entry.callout_id if entry is not None else 0,
            "filter": filter_id or None,
            "dir": None,
            "offset": None,
        }

    def _where(self, entry: CalloutEntry | None, judged: bool) -> str | None:
        """The line that made a call, or, for an answer judged after its callback returned, the callback."""
        defined = where_defined(entry.classify_fn, entry.owner) if entry is not None else None
        if judged or (self.running and self.frame is None):
            return defined or where_in_callout() or self.called_from
        return where_in_callout() or self.called_from or defined

    def refused(self, call: str, status: NtStatus, rule: str, flow: Flow | None = None) -> NtStatus:
        """VRF-6: a call that was not STATUS_SUCCESS is an event with the rule that decided it."""
        if self.sinks:
            self.emit("refused", flow, call=call, status=status.name, value=int(status), rule=rule)
        return status

    def count(self, name: str, amount: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount


def _wants_trace(sink: Any) -> bool:
    return bool(getattr(sink, "wants_trace", True))
