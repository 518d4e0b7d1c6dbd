"""`FilterEngine`: management, run time and flows behind one border that three kinds of driver meet.

Owns wiring and the turn. It must not know which driver runs it; it imports no event loop, socket or clock.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid5

from wfpstream.fwp import ActionType, DataType, FwpError, FwpValue, MatchType, NtStatus
from wfpstream.fwpm import (
    CONDITION_LISTENER,
    CalloutFlags,
    DisplayData,
    Filter,
    FilterCondition,
    Management,
    Session,
    SubLayer,
    layer_key_of,
)
from wfpstream.fwpm import Callout as CalloutObject
from wfpstream.fwpm import put_judge as put_management_judge
from wfpstream.fwpm import take_judge as take_management_judge
from wfpstream.fwps import (
    Attempt,
    Callout,
    Endpoints,
    EngineOptions,
    Flow,
    Judge,
    LayerId,
    Overruns,
    RunTime,
    put_judge,
    take_judge,
    where_in_callout,
)

from ._bridge import Bridge
from ._leaving import Leaving
from ._overlap import Overlaps, call_of, party_of
from ._work import Work, do_work, work_waits

T = TypeVar("T")

SpawnCall = Callable[
    [Callable[..., Awaitable[Any]], tuple[Any, ...], Callable[[Any, BaseException | None], None]], None
]

FIRST_SUB_LAYER_WEIGHT = 0x8000
_NAMESPACE = UUID("e2a7a5d4-6f3b-5c58-8d0b-3a1f9c7b2e64")


class AddedCallout:
    """What `FilterEngine.add_callout` made: a sublayer of its own, callout objects and filters."""

    def __init__(self, engine: FilterEngine, callout: Callout, name: str) -> None:
        self.callout = callout
        self.name = name
        self.callout_ids: list[int] = []
        self.callout_keys: list[Any] = []
        self.filter_ids: list[int] = []
        self.sub_layer_key: Any = None
        self.owns_callout = True
        self._engine = engine

    def remove(self) -> NtStatus:
        """Delete the filters and the callout; STATUS_FWP_IN_USE while it is busy on a flow (MGMT-13)."""
        return self._engine.remove_callout(self)

    def retire(self) -> None:
        """Take the callout out of force now; what it does for running flows is finished first (MGMT-16)."""
        self._engine.retire_callout(self)


class FilterEngine:
    """The engine at its border (architecture, section 4). One engine belongs to one thread.

    Args:
        clock: monotonic seconds; virtual in memory and replay.
        options: limits, timeouts, policies; the defaults are the pinned ones.

    Attributes:
        pass_on: `pass_on(flow, direction, view)`, as `flow.received(direction, view)`. True: `view` has passed every
            stage, nothing else has changed, and the engine takes it for written: send it now. False: look at the
            flow's state, as after every input.
        owe: `owe(flow, direction, view, sent)`, right after `pass_on` said True: only `sent` bytes of `view` were
            taken, the rest is owed (`flow.output`).
    """

    def __init__(self, clock: Callable[[], float], options: EngineOptions | None = None) -> None:
        self.options = options if options is not None else EngineOptions()
        self.fwps = RunTime(clock, self.options)
        self.pass_on = self.fwps.inputs.pass_on
        self.owe = self.fwps.inputs.owe
        self.management = Management(self.fwps)
        self._core = self.fwps.core
        self._bridge = Bridge()
        self._overlaps = Overlaps()
        self._leaving = Leaving(self, self.fwps)
        self.management.when_filters_go(self._leaving.look)
        self._session: Session | None = None
        self._next_weight = FIRST_SUB_LAYER_WEIGHT
        self._names: dict[str, int] = {}

    # -- driver: hooks ---------------------------------------------------------------------------------

    @property
    def on_pending(self) -> Callable[[], None]:
        """Called once when there is work for `turn`; it must only schedule."""
        return self._core.on_pending

    @on_pending.setter
    def on_pending(self, hook: Callable[[], None]) -> None:
        self._core.on_pending = hook
        self._bridge.adopt()
        if self._core.turn_requested:
            hook()

    @property
    def run_soon(self) -> Callable[[Callable[[], None]], None] | None:
        """The driver's way to run a function on the engine's thread soon; callable from any thread."""
        return self._bridge.run_soon

    @run_soon.setter
    def run_soon(self, run_soon: Callable[[Callable[[], None]], None] | None) -> None:
        self._bridge.run_soon = run_soon
        self._bridge.adopt()

    @property
    def spawn_call(self) -> SpawnCall | None:
        """The driver's way to run a worker's async function (`Worker.call`)."""
        return self.fwps.workers.spawn_call

    @spawn_call.setter
    def spawn_call(self, spawn: SpawnCall | None) -> None:
        self.fwps.workers.spawn_call = spawn

    def from_thread(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` on the engine's thread; only the calling thread waits (IRQ-6, the blocking form).

        Calls that answer STATUS_PENDING on the engine's thread (`injection_handle_destroy`, `transaction_begin`)
        are waited for to their end here.
        """
        of_run_time = getattr(fn, "__self__", None) is self.fwps
        call = call_of(getattr(fn, "__name__", ""), args) if of_run_time else None
        where = where_in_callout() if self.options.verify.level != "off" else None
        for rule, text in self._overlaps.enter(call):
            self._bridge.soon(partial(self._tell_of_overlap, rule, text, args, where))
        try:
            answer: T = self._bridge.call(
                partial(self._called_from, where, fn), args, self._waiting_form(fn, args)
            )
        finally:
            self._overlaps.leave(call)
        return answer

    def _called_from(self, where: str | None, fn: Callable[..., T], *args: Any) -> T:
        """On the engine's thread: what is wrong with the call happened in the thread that waits for it."""
        self._core.called_from = where
        try:
            return fn(*args)
        finally:
            self._core.called_from = None

    def _tell_of_overlap(self, rule: str, text: str, args: tuple[Any, ...], where: str | None) -> None:
        """V-16, V-22 (VRF-7): by the second of the two calls."""
        flow_id, callout_id, direction = party_of(args)
        flow = self._core.flows.get(flow_id)
        stage = flow.stage_of(callout_id) if flow is not None else None
        lane = stage.lanes[direction] if stage is not None else None
        self._core.violation(rule, text, lane, flow, where=where)

    def _waiting_form(self, fn: Any, args: tuple[Any, ...]) -> Any:
        owner, name = getattr(fn, "__self__", None), getattr(fn, "__name__", "")

        def follow_destroy(status: NtStatus, deliver: Callable[[NtStatus], None]) -> None:
            if status is NtStatus.STATUS_PENDING:
                self.fwps.injector.when_closed(args[0], lambda: deliver(NtStatus.STATUS_SUCCESS))
            else:
                deliver(status)

        def follow_begin(status: NtStatus, deliver: Callable[[NtStatus], None]) -> None:
            ticket = owner.ticket if isinstance(owner, Session) else None
            if status is NtStatus.STATUS_PENDING and ticket is not None:
                ticket.when_done(lambda: deliver(ticket.status))
            else:
                deliver(status)

        if owner is self.fwps and name == "injection_handle_destroy":
            return follow_destroy
        if isinstance(owner, Session) and name == "transaction_begin":
            return follow_begin
        return None

    def now(self) -> float:
        """The engine's clock, seconds: what `next_deadline` counts in."""
        return self._core.clock()

    def use_virtual_time(self) -> None:
        """The clock is no clock of this world: callbacks are not timed by it (VRF-3)."""
        self.options.verify.virtual_time = True
        self.fwps.waterfall.classifier.watch_clock(False)

    def settings_changed(self) -> None:
        """Limits, timeouts or policies of `options` were changed: what was derived from them is derived anew."""
        self.fwps.waterfall.classifier.watch_clock(not self.options.verify.virtual_time)

    def put_judge(self, judge: Judge) -> None:
        """Have `judge` asked before each call that can fail, of callouts and of the driver they belong to.

        It is given the name of the call and returns the status it must fail with, or None. The last one put is
        asked; without one, calls are as fast as ever. Sessions that are open already are not judged.
        """
        put_judge(self.fwps, judge)
        put_management_judge(self.management, judge)

    def take_judge(self) -> None:
        """Undo `put_judge`, but for the sessions opened meanwhile."""
        take_judge(self.fwps)
        take_management_judge(self.management)

    # -- driver: connections and turns -----------------------------------------------------------------

    def connection_requested(self, endpoints: Endpoints) -> Attempt:
        """A connection was accepted: classify the layers before the upstream connect (LAY-11, LAY-12)."""
        return self.fwps.connections.request(endpoints)

    def connection_refused(self, endpoints: Endpoints, reason: str) -> None:
        """The driver refused an accepted connection by a rule of its own; nobody is asked, the event says why."""
        self.fwps.connections.refuse(endpoints, reason)

    def flow_established(self, attempt: Attempt, endpoints: Endpoints | None = None) -> Flow | None:
        """The upstream is connected. None when FLOW_ESTABLISHED blocked it: reset both legs (LAY-6)."""
        return self.fwps.establisher.establish(attempt, endpoints or attempt.endpoints)

    def settle_output(self, flow: Flow) -> None:
        """Copy what still lies in the driver's receive buffer; call it before reusing the buffer."""
        self.fwps.inputs.settle_output(flow)

    @property
    def next_deadline(self) -> float | None:
        """When `turn` must be called at the latest (clock seconds), None when nothing is due by time."""
        return self._core.next_deadline

    def call_at(self, due: float, fn: Callable[[], None]) -> None:
        """Call `fn` outside every callback, in the first turn at or after `due` (clock seconds)."""
        self._core.at(due, fn)

    @property
    def has_pending(self) -> bool:
        """A turn was asked for and not given yet."""
        return self._core.turn_requested

    def turn(self, work: Work = Work.ALL) -> list[Flow]:
        """Timers, workers, completions, flow ends. Returns the flows whose state the driver must look at.

        Args:
            work: how much of what timers and workers have to do; what is left out waits for another turn, which
                nobody asks for (`work_waits` tells).
        """
        core = self._core
        core.turn_requested = False
        do_work(self.fwps, work)
        core.settle()
        touched = list(core.touched.values())
        core.touched.clear()
        return touched

    @property
    def overruns(self) -> Overruns:
        """What callbacks that take too long leave behind. A driver looks at `overruns.flows` after its call: those are
        served last from then on, one item per turn, and it takes them out when it has seen to that."""
        return self._core.overruns

    @property
    def in_callback(self) -> bool:
        """A callback is on the stack, or the loop that makes them is: what is called now only queues (CMP-16)."""
        return self._core.in_callback

    @property
    def work_waits(self) -> bool:
        """A timer is due, or a worker may go on: there is something that `turn` can be told to leave."""
        return work_waits(self.fwps)

    @property
    def flows(self) -> list[Flow]:
        """The flows that live."""
        return list(self._core.flows.values())

    def abort_flows(self) -> None:
        """The owner aborts every flow that lives, as FwpsFlowAbort0 would; the driver resets both legs at its turn."""
        for flow in list(self._core.flows.values()):
            if flow.doomed is None and not flow.end_reason:
                self.fwps.waterfall.doom(flow, "abort")
                self._core.touch(flow)
        self._core.request_turn()

    # -- events ----------------------------------------------------------------------------------------

    def add_sink(self, sink: Callable[[dict[str, Any]], None]) -> None:
        """Hand every net event to `sink`; its attribute `wants_data` (off, preview, full) asks for bytes."""
        self._core.add_sink(sink)

    def remove_sink(self, sink: Callable[[dict[str, Any]], None]) -> None:
        """Undo `add_sink`."""
        self._core.remove_sink(sink)

    def tell(self, event: str, **keys: Any) -> None:
        """Hand the sinks an event of whoever drives the engine, which belongs to no flow: `reload`."""
        if self._core.sinks:
            self._core.emit(event, None, **keys)

    def number_flows_after(self, last: int) -> None:
        """Let flows have numbers above `last`, which others before us have used. Before the first one only."""
        self._core.last_flow_id = max(self._core.last_flow_id, last)

    @property
    def violations(self) -> dict[str, int]:
        """How often each violation was reported."""
        return self._core.violations

    @property
    def counters(self) -> dict[str, int]:
        """Counters: policies used, pauses, ledger faults."""
        return self._core.counters

    @property
    def flows_are_independent(self) -> bool:
        """Every callout says of itself that what it does to a flow depends on that flow alone."""
        owners = (entry.owner for entry in self.fwps.callouts.registered())
        return all(getattr(owner, "flows_are_independent", True) for owner in owners)

    # -- callouts, in short form -----------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """A session of the engine's own, for `add_callout` and for tests."""
        if self._session is None:
            status, session = self.management.engine_open()
            if session is None:
                raise FwpError(status, "the engine's own session could not be opened")
            self._session = session
        return self._session

    def add_callout(
        self,
        callout: Callout,
        *,
        name: str | None = None,
        listener: str | None = None,
        conditions: Sequence[FilterCondition] = (),
        action: str | None = None,
        weight: int | None = None,
        provider_object: object | None = None,
    ) -> AddedCallout:
        """Register a callout and give it a sublayer of its own, lighter than those added before.

        A callout that is registered already gets one more sublayer with filters of its own.

        One filter per layer it serves, of the type it declares, unconditional unless `listener` or
        `conditions` narrow it. Raises FwpError when management refuses, ValueError for an unknown layer or when
        the object is at work in another engine. Then nothing is left behind.
        """
        added = AddedCallout(self, callout, self._unique(name or callout.name or type(callout).__name__))
        made = self.fwps.layers_of(callout)
        added.owns_callout = not made
        wanted = [*conditions, *([] if listener is None else [listener_condition(listener)])]
        try:
            if added.owns_callout:
                made = self.fwps.register(callout, added.name)
            self._add_sub_layer(added, weight if weight is not None else self._take_weight())
            for layer, key, callout_id in made:
                layer_key = layer_key_of(layer)
                assert layer_key is not None, f"{layer.name} has no management key"
                if added.owns_callout:
                    self._add_callout_object(added, layer, key, layer_key)
                status, filter_id = self.session.filter_add(
                    Filter(
                        display_data=DisplayData(f"{added.name} at {layer.name.lower()}"),
                        layer_key=layer_key,
                        sub_layer_key=added.sub_layer_key,
                        action_type=ActionType[(action or callout.filter_action).upper()],
                        callout_key=key,
                        conditions=tuple(wanted),
                        provider_object=provider_object,
                    )
                )
                _check(status, f"filter of {added.name} at {layer.name}", self.fwps.why_refused(status))
                added.callout_ids.append(callout_id)
                added.callout_keys.append(key)
                added.filter_ids.append(filter_id)
        except BaseException:
            self.retire_callout(added)
            raise
        return added

    def _add_sub_layer(self, added: AddedCallout, weight: int) -> None:
        key = uuid5(_NAMESPACE, f"sublayer/{added.name}")
        record = SubLayer(sub_layer_key=key, display_data=DisplayData(added.name), weight=weight)
        _check(self.session.sub_layer_add(record), f"sublayer of {added.name}")
        added.sub_layer_key = key

    def _add_callout_object(self, added: AddedCallout, layer: LayerId, key: UUID, layer_key: UUID) -> None:
        status, _ = self.session.callout_add(
            CalloutObject(
                callout_key=key,
                display_data=DisplayData(added.name),
                applicable_layer=layer_key,
                flags=_USES_PROVIDER_CONTEXT,
            )
        )
        _check(status, f"callout {added.name} at {layer.name}")

    def remove_callout(self, added: AddedCallout) -> NtStatus:
        """Delete what `add_callout` made; the first refusal stops it and is returned.

        The callout is asked to `drain` first. While it still holds something the answer is STATUS_FWP_IN_USE
        (MGMT-13): give the engine its turns and call again. What was deleted so far stays deleted.
        """
        session = self.session
        if added.filter_ids:
            added.callout.drain()
        while added.filter_ids:
            status = session.filter_delete_by_id(added.filter_ids[0])
            if not status.ok:
                return status
            added.filter_ids.pop(0)
        while added.owns_callout and added.callout_ids:
            session.callout_delete_by_key(added.callout_keys[0])
            self.fwps.contexts.remove_all_of(
                added.callout_ids[0]
            )  # UNR-2: a context keeps a callout registered
            status = self.fwps.callout_unregister_by_id(added.callout_ids[0])
            if not status.ok:
                return status
            added.callout_keys.pop(0)
            added.callout_ids.pop(0)
        if added.owns_callout and added.callout.injection_handle:
            self.fwps.injection_handle_destroy(
                added.callout.injection_handle
            )  # closes when its last one completed
            added.callout.injection_handle = 0
        return session.sub_layer_delete_by_key(added.sub_layer_key)

    def retire_callout(self, added: AddedCallout) -> None:
        """Undo `add_callout` without waiting: its filters retire, and the callout goes with the last of them."""
        session = self.session
        while added.filter_ids:
            session.filter_retire_by_id(added.filter_ids.pop())
        if added.sub_layer_key is not None:
            session.sub_layer_delete_by_key(added.sub_layer_key)
        if added.owns_callout:
            self.release_callout(added.callout)

    def release_callout(self, callout: Callout) -> bool:
        """Unregister a comfortable callout as soon as no filter names it (UNR-8), and delete its callout objects.

        Filters that retire are waited for; its contexts are removed and its injection handle is destroyed. It must
        not be used again. True: it is gone already.
        """
        return self._leaving.add(callout)

    def _take_weight(self) -> int:
        weight = self._next_weight
        self._next_weight = max(1, weight - 1)
        return weight

    def _unique(self, name: str) -> str:
        count = self._names.get(name, 0) + 1
        self._names[name] = count
        return name if count == 1 else f"{name}-{count}"

    # -- start and stop --------------------------------------------------------------------------------

    def start(self) -> None:
        """The engine takes connections (it does from the beginning; this undoes `stop`)."""
        self._core.started = True

    def stop(self) -> None:
        """Abort what lives, then check what is left behind (V-39, CLN-9)."""
        core = self._core
        for flow in list(core.flows.values()):
            if flow.doomed is None:
                self.fwps.waterfall.doom(flow, "stop")
        core.settle_to_the_end()
        core.after_outside_call(None)  # the drivers of these flows hear that they are over
        core.started = False
        self.fwps.report_left_behind()
        core.deliver_events()


def listener_condition(name: str) -> FilterCondition:
    """The condition `listener equals name`, an extension of ours offered at every layer."""
    return FilterCondition(CONDITION_LISTENER, MatchType.EQUAL, FwpValue(DataType.UNICODE_STRING_TYPE, name))


_USES_PROVIDER_CONTEXT = int(CalloutFlags.USES_PROVIDER_CONTEXT)  # MGMT-18


def _check(status: NtStatus, what: str, why: str = "") -> None:
    if not status.ok:
        raise FwpError(status, f"{what}: {status.name}{why}")
