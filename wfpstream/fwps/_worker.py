"""Out-of-band work as a coroutine: one worker per flow and direction, stepped by the engine.

Owns `Worker` and the host that answers what a worker awaits. The awaitables are our own
(architecture, out-of-band workers): no event loop is needed, so live, in memory and in replay a worker takes
the same steps in the same order (due time, flow, direction, creation). Only `Worker.call` leaves the engine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Protocol

from wfpstream.fwp import ActionType, NtStatus

from . import _stream_state as rules
from ._constants import StreamFlags
from ._flow import LIVE
from ._net_buffer import NetBufferList, chain_of
from ._ownership import CALLER, BufferRecord
from ._violations import CALLOUT_FAULTS

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow
    from ._ownership import Ownership
    from ._timers import Timer

_EXPEDITED = int(StreamFlags.RECEIVE_EXPEDITED | StreamFlags.SEND_EXPEDITED)
_DISCONNECT = int(StreamFlags.RECEIVE_DISCONNECT | StreamFlags.SEND_DISCONNECT)
_ABORT = int(StreamFlags.RECEIVE_ABORT | StreamFlags.SEND_ABORT)
_RECEIVE = int(StreamFlags.RECEIVE)


class WorkingCallout(Protocol):
    """What the host needs of an `OutOfBandCallout`."""

    name: str
    fwps: Any
    injection_handle: int

    def wants(self, flow_handle: int, inbound: bool) -> bool: ...
    def make_worker(self, host: WorkerHost, flow: Flow, direction: int) -> Worker: ...
    def callout_id(self, layer_id: int) -> int: ...
    def inject_fin(self, flow_id: int, layer_id: int, stream_flags: int) -> NtStatus: ...


class FlowEnded(Exception):
    """Raised inside a worker when its flow is gone: let it out, the worker then ends quietly."""


class InjectFailed(Exception):
    """Raised inside a worker when an injection is refused while its flow lives: there is no memory for it (INJ-43).

    Nothing was injected, and an item is the worker's still, so it may try again later. Let it out, and the
    connection is reset: what was pended can be delivered no more, and must not be missing in silence.

    Attributes:
        status: what the call returned.
    """

    def __init__(self, status: NtStatus) -> None:
        super().__init__(f"an injection was refused: {status.name}")
        self.status = status


class Pended:
    """One item a worker gets.

    Attributes:
        kind: "data", "end" (the FIN, pended), "abort" (reset or flow end), "drain" (release what you keep).
        data: the bytes; empty for the other kinds.
        offset: place of the first byte in the original stream, bytes.
        time: engine seconds at which it was indicated.
    """

    __slots__ = ("_host", "_nbl", "data", "kind", "offset", "time")

    def __init__(
        self, kind: str, data: bytes, offset: int, nbl: NetBufferList | None, host: WorkerHost
    ) -> None:
        self.kind = kind
        self.data = data
        self.offset = offset
        self._nbl = nbl
        self._host = host
        self.time = host.core.clock()

    def release(self) -> None:
        """Give the clone back; harmless when that was done before."""
        nbl, self._nbl = self._nbl, None
        for each in chain_of(nbl):
            if isinstance(each._record, BufferRecord) and each._record.state == CALLER:
                self._host.ownership.free(each, "clone")

    def _take(self) -> None:
        for each in chain_of(self._nbl):
            if isinstance(each._record, BufferRecord):
                self._host.ownership.take(each._record)

    def __repr__(self) -> str:
        return f"<Pended {self.kind} {len(self.data)} bytes at {self.offset}>"


class InjectedHandle:
    """What `Worker.inject` returns; `await worker.completed(handle)` waits for its completion."""

    __slots__ = ("_worker", "left", "status")

    def __init__(self, left: int, worker: Worker) -> None:
        self.left = left
        self.status = NtStatus.STATUS_SUCCESS
        self._worker = worker


class _Request:
    """What a worker awaits. `ready` is asked at every step; `value` becomes the result."""

    __slots__ = ("ready", "value")

    def __init__(self, ready: Callable[[], bool], value: Callable[[], Any]) -> None:
        self.ready = ready
        self.value = value

    def __await__(self) -> Generator[_Request, None, Any]:
        if not self.ready():
            yield self
        return self.value()


class Worker:
    """Base class of out-of-band work on one direction of one flow.

    Override `run` and await nothing but `next`, `inject`, `inject_fin`, `sleep`, `completed` and `call`. When
    `run` returns, what was taken and neither injected nor released, what waits and what still comes is passed on
    unchanged, the FIN too: nothing is lost by leaving.

    Attributes:
        callout: the callout this worker belongs to.
        flow_handle: FLOW_HANDLE of the flow (UINT64).
        inbound: True on the RECEIVE direction.
        layer_id: the stream layer of the flow.
        draining: release everything as soon as you can; `sleep` returns at once (MGMT-16).
    """

    def __init__(self, host: WorkerHost, callout: WorkingCallout, flow: Flow, direction: int) -> None:
        self.callout = callout
        self.flow_handle = flow.id
        self.inbound = direction == rules.RECEIVE
        self.layer_id = flow.layer_id
        self.draining = False
        self._host = host
        self._flow = flow
        self._direction = direction
        self._inbox: deque[Pended] = deque()
        self._taken: list[Pended] = []
        self._request: _Request | None = None
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._timer: Timer | None = None
        self._drain_told = False
        self._waits_for_next = False
        self._overran = False
        self._passing = False
        self._fin_injected = False
        # Its own alone: those of others may lie before this very stage, and wait for it.
        self._under_way = 0
        self._rank = 0

    async def run(self) -> None:
        """The work. The default passes everything on."""
        while True:
            item = await self.next()
            if item.kind == "data":
                await self.inject(item)
            elif item.kind == "end":
                await self.inject_fin()
                return
            elif item.kind == "abort":
                return

    @property
    def direction_flag(self) -> int:
        """SEND or RECEIVE, for calls of your own."""
        return rules.DIRECTION_FLAG[self._direction]

    @property
    def direction_name(self) -> str:
        """ "to_client" or "to_upstream"."""
        return self._flow.direction_name(self._direction)

    def now(self) -> float:
        """The engine's clock, seconds."""
        return self._host.core.clock()

    # -- awaitables ------------------------------------------------------------------------------------

    async def next(self) -> Pended:
        """The next pended item. It is counted as taken until released or until the next `inject`."""
        self._waits_for_next = True
        item: Pended = await _Request(self._has_next, self._take_next)
        self._waits_for_next = False
        return item

    @property
    def is_drained(self) -> bool:
        """It was told to drain, has gone through all that it had, and holds nothing back any more (MGMT-16)."""
        waits = self._drain_told and self._waits_for_next
        return not self._inbox and (self._passing or waits)

    def tell_to_drain(self) -> None:
        """MGMT-16: nothing is to be held back any more."""
        self.draining = True
        self._host.wake(self)

    def _has_next(self) -> bool:
        if not self._inbox:
            return self.draining and not self._drain_told
        # A step that has overrun its time ends here: the next item is the next turn's.
        self._overran = self._host.has_overrun(self)
        return not self._overran

    def _take_next(self) -> Pended:
        if not self._inbox:
            self._drain_told = True
            return Pended("drain", b"", 0, None, self._host)
        item = self._inbox.popleft()
        item._take()
        if item._nbl is not None:
            self._taken.append(item)
        return item

    async def inject(self, data: bytes | Pended, flags: int = 0) -> InjectedHandle:
        """Inject bytes, or an item as it came, at the tail of this direction.

        Everything taken before is released: this output stands for it. Returns when the direction's pending
        injections are below their mark (limit `injected`). Raises FlowEnded when the flow is gone, InjectFailed
        when there is no memory for it.
        """
        piece = self._host.injected_limit
        if isinstance(data, bytes | bytearray | memoryview):
            while len(data) > piece:  # INJ-43: never more than the limit at a time
                self._inject_now(bytes(data[:piece]), flags)
                data = data[piece:]
                await _Request(self._below_mark, lambda: None)
        handle = self._inject_now(data, flags)
        await _Request(self._below_mark, lambda: None)
        return handle

    def _inject_now(self, data: bytes | Pended, flags: int) -> InjectedHandle:
        """The call itself; the clone of an item goes out as it is."""
        if isinstance(data, Pended) and data._nbl is not None and data.data:
            handle = self._inject_chain(data._nbl, len(data.data), flags)
            data._nbl = None
        else:
            content = data.data if isinstance(data, Pended) else bytes(data)
            handle = self._inject_bytes(content, flags)
        self._release_taken()
        return handle

    def _inject_bytes(self, content: bytes, flags: int) -> InjectedHandle:
        if not content:
            return InjectedHandle(0, self)
        status, nbl = self.callout.fwps.allocate_net_buffer_and_net_buffer_list(
            None, 0, 0, content, 0, len(content)
        )
        if nbl is None:
            raise InjectFailed(status)
        try:
            return self._inject_chain(nbl, len(content), flags)
        except InjectFailed:
            self._host.free_chain(nbl)
            raise

    def _inject_chain(self, nbl: NetBufferList, length: int, flags: int) -> InjectedHandle:
        handle = InjectedHandle(sum(1 for _ in chain_of(nbl)), self)
        status = self.callout.fwps.stream_inject_async(
            self.callout.injection_handle,
            None,
            0,
            self.flow_handle,
            self.callout.callout_id(self.layer_id),
            self.layer_id,
            self.direction_flag | flags,
            nbl,
            length,
            self._host.completed,
            handle,
        )
        if status.ok:
            self._under_way += length
            return handle
        if status not in (NtStatus.STATUS_FWP_NOT_FOUND, NtStatus.STATUS_CONNECTION_DISCONNECTED):
            raise InjectFailed(status)
        self._host.free_chain(nbl)
        self._release_taken()
        raise FlowEnded(status.name)

    async def inject_fin(self) -> None:
        """Inject the FIN this worker's direction ends with (OOB-6).

        Raises FlowEnded when the flow is gone, InjectFailed when there is no memory for it.
        """
        self._inject_fin_now()

    def _inject_fin_now(self) -> None:
        self._release_taken()
        if self._fin_injected:
            return
        status = self.callout.inject_fin(self.flow_handle, self.layer_id, self.direction_flag)
        if status == NtStatus.STATUS_FWP_NOT_FOUND:
            raise FlowEnded(status.name)
        if not status.ok and status != NtStatus.STATUS_CONNECTION_DISCONNECTED:
            raise InjectFailed(status)
        self._fin_injected = True

    async def sleep(self, seconds: float) -> None:
        """Wait on the engine's clock; returns early when the worker must drain. Raises FlowEnded at flow end."""
        due = self.now() + seconds
        self._timer = self._host.core.at(due, lambda: self._host.step(self))
        await _Request(lambda: self._slept(due), lambda: None)
        self._timer.cancel()
        self._timer = None
        if self._flow.phase != LIVE:
            raise FlowEnded("the flow ended while its worker slept")

    def _slept(self, due: float) -> bool:
        return self.draining or self.now() >= due or self._flow.phase != LIVE

    async def completed(self, handle: InjectedHandle, within: float | None = None) -> NtStatus:
        """Wait until an injection completed; its status.

        A callout below may keep it, for example until more bytes come, which this worker has. With `within` (seconds)
        it is waited for no longer than that, nor when the worker must drain; the answer is STATUS_PENDING then.
        """
        if within is None:
            await _Request(lambda: handle.left == 0, lambda: None)
            return handle.status
        due = self.now() + within
        self._timer = self._host.core.at(due, lambda: self._host.step(self))
        await _Request(lambda: handle.left == 0 or self._slept(due), lambda: None)
        self._timer.cancel()
        self._timer = None
        return handle.status if handle.left == 0 else NtStatus.STATUS_PENDING

    async def call(self, async_fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run a real async function: the door to the driver's event loop.

        Live it runs as a task of the driver; in memory and replay its answer must have been given before.
        """
        answer = self._host.start_call(self, async_fn, args)
        return await _Request(lambda: answer.done, answer.result)

    def _below_mark(self) -> bool:
        return self.draining or self._flow.phase != LIVE or self._under_way * 2 < self._host.injected_limit

    def _release_taken(self) -> None:
        taken, self._taken = self._taken, []
        for item in taken:
            item.release()


class Answer:
    """The result of a `Worker.call`, when it has come."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = False
        self.value: Any = None
        self.error: BaseException | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


def _in_turn(worker: Worker) -> tuple[int, int, int]:
    return worker.flow_handle, worker._direction, worker._rank


class WorkerHost:
    """Answers what workers await; one per engine."""

    def __init__(self, core: Core, ownership: Ownership) -> None:
        self.core = core
        self.ownership = ownership
        self.injected_limit = core.options.limits.injected
        self.spawn_call: (
            Callable[[Any, tuple[Any, ...], Callable[[Any, BaseException | None], None]], None] | None
        )
        self.spawn_call = None
        self._ready: dict[Worker, None] = {}
        self._kept: dict[Worker, None] = {}  # from a turn that a step has ended before their time
        self._ended_late = False
        self._all: dict[Worker, None] = {}
        self._rank = 0
        self._began = 0.0  # of the step under way, engine seconds

    # -- classify --------------------------------------------------------------------------------------

    def classify(self, callout: WorkingCallout, flow_id: int, packet: Any, filter: Any, out: Any) -> None:
        flow = self.core.flows[flow_id]
        data = packet.stream_data
        direction = 1 if data.flags & _RECEIVE else 0
        worker = self._worker(callout, flow, direction)
        if worker is None or data.flags & _EXPEDITED or not self._is_first(callout, flow):
            passing = ActionType.PERMIT if filter.action_type == rules.TERMINATING else ActionType.CONTINUE
            out.action_type = int(passing)
            return
        out.action_type = rules.PLAIN_BLOCK
        if data.flags & _ABORT:
            return  # the host hears of the end by itself (end_flow)
        if worker._passing and worker.draining and self._all_passing(callout, flow):
            packet.stream_action = rules.ALLOW_CONNECTION
            out.action_type = int(ActionType.NONE)
            return
        status, chain = callout.fwps.clone_stream_data(data)
        if not status.ok:
            # Blocked without a copy the bytes would be missing, passed on they would overtake what is pended.
            packet.stream_action = rules.DROP_CONNECTION
            out.action_type = int(ActionType.NONE)
            return
        kind = "end" if data.flags & _DISCONNECT else "data"
        item = Pended(kind, data.tobytes(), flow.read[direction] - data.data_length, chain, self)
        if worker._passing:
            self._pass(worker, item)
        else:
            worker._inbox.append(item)
            self.wake(worker)

    def _is_first(self, callout: WorkingCallout, flow: Flow) -> bool:
        """Two filters of one callout on one flow: injections enter at the highest stage (INJ-10), so only it works."""
        frame = self.core.frame
        assert frame is not None
        assert frame.lane is not None
        return frame.lane.stage is flow.stage_of(callout.callout_id(flow.layer_id))

    def _worker(self, callout: WorkingCallout, flow: Flow, direction: int) -> Worker | None:
        key = (id(callout), direction)
        worker = flow.workers.get(key)
        if worker is not None or key in flow.workers:
            return worker
        if not callout.wants(flow.id, direction == rules.RECEIVE):
            flow.workers[key] = None
            return None
        worker = callout.make_worker(self, flow, direction)
        self._rank += 1
        worker._rank = self._rank
        worker._coroutine = worker.run()
        flow.workers[key] = worker
        self._all[worker] = None
        self.wake(worker)
        return worker

    def _all_passing(self, callout: WorkingCallout, flow: Flow) -> bool:
        stage = flow.stage_of(callout.callout_id(flow.layer_id))
        clean = stage is None or not any(lane.pended_buffers or lane.fin_pended for lane in stage.lanes)
        return clean and all(
            w._passing and not w._inbox
            for (owner, _), w in flow.workers.items()
            if owner == id(callout) and w is not None
        )

    # -- stepping --------------------------------------------------------------------------------------

    def wake(self, worker: Worker) -> None:
        """Step this worker in the next turn."""
        self._ready[worker] = None
        self.core.request_turn()

    def run_ready(self) -> bool:
        """Step every worker that may go on, in order of (flow, direction, creation). False: there was none.

        A step that overruns its time ends the turn; the others come first in the next one.
        """
        if not self.has_ready:
            return False
        first, self._kept = self._kept, {}
        ready, self._ready = self._ready, {}
        todo = deque(first)
        todo += [worker for worker in sorted(ready, key=_in_turn) if worker not in first]
        while todo:
            self._ended_late = False
            self.step(todo.popleft())
            if self._ended_late and todo:
                # One that was ended meanwhile has no coroutine any more: its step is none.
                self._kept = dict.fromkeys(todo)
                self.core.request_turn()
                break
        return True

    @property
    def has_ready(self) -> bool:
        """A worker waits for its step."""
        return bool(self._ready or self._kept)

    def run_one(self, *, last: bool) -> bool:
        """Step the first or the last of the workers that may go on. False: there was none."""
        self._ready |= self._kept
        self._kept.clear()
        if not self._ready:
            return False
        worker = (max if last else min)(self._ready, key=_in_turn)
        del self._ready[worker]
        self.step(worker)
        return True

    def step(self, worker: Worker) -> None:
        """Let a worker run to its next unanswered await."""
        coroutine = worker._coroutine
        if coroutine is None or (worker._request is not None and not worker._request.ready()):
            return
        if worker._flow.draining:  # MGMT-16: this may have been the last thing a retiring stage waited for
            self.core.mark(worker._flow)
            self.core.request_turn()
        self._send(worker, coroutine)
        if worker._request is not None and worker._overran:
            # It waits for nothing but its turn (`_has_next`).
            worker._overran = False
            self.wake(worker)

    def _send(self, worker: Worker, coroutine: Coroutine[Any, Any, None]) -> None:
        core = self.core
        overruns = core.overruns
        outer, overruns.aside = overruns.aside, worker
        began = overruns.since = self._began = core.clock()
        try:
            worker._request = coroutine.send(None)
            if not isinstance(worker._request, _Request):
                raise TypeError("a worker may await only what its base class offers; use self.call(...)")
        except StopIteration:
            self._finished(worker)
        except FlowEnded:
            self._finished(worker)
        except InjectFailed:
            self._reset(worker)
        except CALLOUT_FAULTS as error:
            self._failed(worker, error)
        finally:
            overruns.aside = outer
        spent = core.clock() - began
        if spent > overruns.budget:
            self._ended_late = True
            overruns.note(worker._flow, worker.callout.name, getattr(coroutine, "cr_code", None), spent)

    def has_overrun(self, worker: Worker) -> bool:
        """Whether the step that this worker is in has taken longer than one call may."""
        overruns = self.core.overruns
        return overruns.aside is worker and self.core.clock() - self._began > overruns.budget

    def _finished(self, worker: Worker) -> None:
        """`run` returned: pass on what is left, and what comes."""
        worker._coroutine = None
        worker._request = None
        worker._passing = True
        left = [item for item in worker._taken if item._nbl is not None] + list(worker._inbox)
        worker._taken.clear()
        worker._inbox.clear()
        if worker._flow.phase != LIVE or worker._flow.doomed is not None:
            self._let_go(worker, left)
            return
        for item in left:
            self._pass(worker, item)

    def _pass(self, worker: Worker, item: Pended) -> None:
        try:
            if item.kind == "data":
                worker._inject_now(item, 0)
            else:
                item.release()
                worker._inject_fin_now()
        except FlowEnded:
            item.release()
        except InjectFailed:
            item.release()
            self._reset(worker)

    def _reset(self, worker: Worker) -> None:
        """What a worker has can be delivered no more: both legs are reset (DRP-2)."""
        worker._coroutine = None
        flow = worker._flow
        if flow.phase != LIVE:
            return
        if flow.doomed is None:
            flow.doomed = ("drop", None)
        self.core.mark(flow)
        self.core.request_turn()

    def _failed(self, worker: Worker, error: BaseException) -> None:
        """ACT-14 for out-of-band work: V-40, then `on_callout_error`."""
        flow = worker._flow
        stage = flow.stage_of(worker.callout.callout_id(flow.layer_id))
        lane = stage.lanes[worker._direction] if stage is not None else None
        self.core.violation(
            "V-40", f"{type(error).__name__} out of a worker: {error}", lane, flow, error=error
        )
        if worker._coroutine is not None:
            worker._coroutine.close()
        policy = self.core.options.policy.on_callout_error
        self.core.count(f"policy.on_callout_error.{policy}")
        if self.core.sinks:
            self.core.emit("policy", flow, name="on_callout_error", value=policy, where=worker.callout.name)
        if policy == rules.POLICY_DROP and flow.phase == LIVE:
            self._reset(worker)
            return
        left, worker._taken = worker._taken, []
        worker._inbox.extendleft(reversed(left))
        self._finished(worker)

    def _let_go(self, worker: Worker, left: list[Pended]) -> None:
        for item in left:
            item.release()
        worker._release_taken()

    # -- answers ---------------------------------------------------------------------------------------

    def completed(self, handle: InjectedHandle, nbl: NetBufferList, dispatch_level: bool) -> None:
        """completionFn of every injection of a worker (CMP-8)."""
        handle.left -= 1
        handle.status = NtStatus(nbl.status)
        record = nbl._record
        self.ownership.free(nbl, record.kind if isinstance(record, BufferRecord) else "allocated")
        worker = handle._worker
        worker._under_way -= nbl.data_length
        if worker._request is not None and worker._request.ready():
            self.wake(worker)

    def free_chain(self, nbl: NetBufferList) -> None:
        for each in chain_of(nbl):
            record = each._record
            if isinstance(record, BufferRecord) and record.state == CALLER:
                self.ownership.free(each, record.kind)

    def start_call(
        self, worker: Worker, async_fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...]
    ) -> Answer:
        answer = Answer()
        if self.spawn_call is None:
            raise RuntimeError("this driver cannot run async functions")

        def deliver(value: Any, error: BaseException | None) -> None:
            answer.value, answer.error, answer.done = value, error, True
            self.wake(worker)

        self.spawn_call(async_fn, args, deliver)
        return answer

    # -- ends ------------------------------------------------------------------------------------------

    def end_flow(self, flow: Flow) -> None:
        """The flow is over: each worker gets an abort item, once, and is closed when it does not end by itself."""
        for worker in [worker for worker in flow.workers.values() if worker is not None]:
            self._end(worker)
        flow.workers.clear()

    def forget(self, callout: object) -> None:
        """The callout is gone, and its workers with it: an object made later may get its identity."""
        for flow in self.core.flows.values():
            for key in [key for key in flow.workers if key[0] == id(callout)]:
                worker = flow.workers.pop(key)
                if worker is not None:
                    self._end(worker)

    def _end(self, worker: Worker) -> None:
        self._ready.pop(worker, None)
        self._kept.pop(worker, None)
        self._all.pop(worker, None)
        self._let_go(worker, list(worker._inbox))
        worker._inbox.clear()
        coroutine = worker._coroutine
        if coroutine is not None:
            worker._inbox.append(Pended("abort", b"", 0, None, self))
            self.step(worker)
            coroutine.close()
        worker._coroutine = None
        worker._release_taken()

    def drain(self, callout: WorkingCallout) -> None:
        for worker in list(self._all):
            if worker.callout is callout:
                worker.tell_to_drain()
