"""Owns the smallest world a rule can be tried in: one plain callout, one flow, and what the verifier said.

The classify function of a `World` is a plain function of the test, registered as it is, so that the place of a
violation is that function's `def` line unless the test itself makes the call. Nothing here knows a rule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout, LayerId, Mdl, NetBufferList, StreamActionType, StreamFlags
from wfpstream.testing import FlowEnds, MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
STREAM = int(LayerId.STREAM_V4)
SEND = int(StreamFlags.SEND)
RECEIVE = int(StreamFlags.RECEIVE)
RECEIVE_PUSH = int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH)
SEND_FIN = int(StreamFlags.SEND | StreamFlags.SEND_DISCONNECT)
RECEIVE_FIN = int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_DISCONNECT)
PERMIT, BLOCK = int(ActionType.PERMIT), int(ActionType.BLOCK)
CONTINUE, NONE = int(ActionType.CONTINUE), int(ActionType.NONE)
NEED_MORE_DATA = int(StreamActionType.NEED_MORE_DATA)
DEFER, DROP = int(StreamActionType.DEFER), int(StreamActionType.DROP_CONNECTION)
ALLOW = int(StreamActionType.ALLOW_CONNECTION)

Classify = Callable[..., None]
Caught = list[tuple[str, str | None]]


def place(function: Callable[..., object]) -> str:
    """file:line of a function's `def`."""
    assert isinstance(function, FunctionType)
    return f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"


def here(offset: int = 1) -> str:
    """file:line of the caller, `offset` lines on."""
    frame = sys._getframe(1)
    return f"{frame.f_code.co_filename}:{frame.f_lineno + offset}"


def connect(driver: MemoryDriver) -> FlowEnds | None:
    """Connect from this file, so that a place in the test's file is the callout's."""
    return driver.connect()


def parts(call: tuple[Any, ...]) -> tuple[Any, Any]:
    """(io packet, classifyOut) of a stream classify's arguments."""
    return call[2], call[-1]


class Plain(Callout):
    """A callout whose classify function is the test's own."""

    def __init__(
        self,
        classify: Classify,
        name: str = "minimal",
        *,
        action: str = "callout_unknown",
        flags: int = 0,
        version: int = 2,
    ) -> None:
        super().__init__()
        self.name = name
        self.filter_action = action
        self.flags = flags
        self.version = version
        self.classify_stream = classify
        self.deleted: list[int] = []
        self.on_delete: Callable[[], object] | None = None
        self.on_notify: Callable[[], object] | None = None

    def notify_fn(self, notify_type: int, filter_key: Any, filter: Any) -> NtStatus:
        if self.on_notify is not None:
            self.on_notify()
        return SUCCESS

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.deleted.append(flow_context)
        if self.on_delete is not None:
            self.on_delete()


class HandClock:
    """A real clock, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """A memory driver with one `Plain` callout and a flow."""

    def __init__(
        self,
        classify: Classify,
        *,
        action: str = "callout_unknown",
        flags: int = 0,
        version: int = 2,
        options: EngineOptions | None = None,
        clock: HandClock | None = None,
        **endpoint: Any,
    ) -> None:
        options = EngineOptions() if options is None else options
        options.verify.level = "warn"
        if clock is None:
            self.driver = MemoryDriver(options=options)
        else:
            options.verify.virtual_time = False
            self.driver = MemoryDriver(engine=FilterEngine(clock, options))
        self.callout = Plain(classify, action=action, flags=flags, version=version)
        self.added = self.driver.add(self.callout)
        self.flow: FlowEnds = self.connect(**endpoint)
        self.kept: list[Any] = []
        self.injected_at = ""
        self.completed: list[tuple[bytes, NtStatus]] = []

    def connect(self, **endpoint: Any) -> FlowEnds:
        flow = self.driver.connect(**endpoint)
        assert flow is not None
        return flow

    @property
    def fwps(self) -> Any:
        return self.driver.fwps

    @property
    def callout_id(self) -> int:
        return self.callout.callout_id(STREAM)

    # -- what the peers do, each followed by settling -------------------------------------------------

    def send(self, data: bytes, urgent: bool = False) -> None:
        self.flow.send(data, urgent=urgent)
        self.driver.settle()

    def receive(self, data: bytes, urgent: bool = False) -> None:
        self.flow.receive(data, urgent=urgent)
        self.driver.settle()

    def send_fin(self) -> None:
        self.flow.send_fin()
        self.driver.settle()

    def receive_fin(self) -> None:
        self.flow.receive_fin()
        self.driver.settle()

    def reset(self, leg: str = "remote") -> None:
        self.flow.reset(leg)
        self.driver.settle()

    def settle(self) -> None:
        self.driver.settle()

    @property
    def to_remote(self) -> bytes:
        return bytes(self.flow.remote.data)

    @property
    def to_local(self) -> bytes:
        return bytes(self.flow.local.data)

    def fins(self) -> tuple[bool, bool]:
        """Whether a FIN arrived at the remote and at the local end."""
        return self.flow.remote.fin, self.flow.local.fin

    # -- what a callout or its worker does -------------------------------------------------------------

    def keep_clone(self, packet: Any) -> None:
        """Clone the indication into `kept`."""
        status, chain = self.fwps.clone_stream_data(packet.stream_data)
        assert status == SUCCESS
        self.kept.append(chain)

    def discard(self) -> None:
        """Discard the oldest kept clone."""
        self.fwps.discard_cloned_stream_data(self.kept.pop(0))

    def list_of(self, *pieces: bytes) -> NetBufferList:
        """An allocated list, one MDL for each piece."""
        mdl: Mdl | None = None
        for piece in reversed(pieces):
            mdl = Mdl(piece, mdl)
        length = sum(map(len, pieces))
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, mdl, 0, length)
        assert status == SUCCESS
        assert isinstance(nbl, NetBufferList)
        return nbl

    def inject(
        self, stream_flags: int, chain: NetBufferList | None, length: int | None = None, **other: Any
    ) -> Any:
        """The bare call with this callout's own arguments, unless `other` names one."""
        arguments: dict[str, Any] = {
            "injection_handle": self.callout.injection_handle,
            "injection_context": 0,
            "flags": 0,
            "flow_id": self.flow.id,
            "callout_id": self.callout_id,
            "layer_id": STREAM,
            "stream_flags": stream_flags,
            "net_buffer_list": chain,
            "data_length": _bytes_in(chain) if length is None else length,
            "completion_fn": self.free_in_completion,
            "completion_context": 0,
        }
        self.injected_at = here()
        return self.fwps.stream_inject_async(**(arguments | other))

    def inject_bytes(self, stream_flags: int, data: bytes, **other: Any) -> Any:
        """Inject an allocated list; freed at once when refused."""
        nbl = self.list_of(data)
        status = self.inject(stream_flags, nbl, **other)
        if status != SUCCESS:
            self.fwps.free_net_buffer_list(nbl)
        return status

    def inject_kept(self, flags: int) -> Any:
        """Inject the oldest kept clone; discarded when refused."""
        chain = self.kept.pop(0)
        status = self.inject(flags, chain, completion_fn=self.free_clone_in_completion)
        if status != SUCCESS:
            self.fwps.discard_cloned_stream_data(chain)
        return status

    def free_in_completion(self, context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
        """The completion function of `inject`, for allocated lists."""
        self.completed.append((nbl.tobytes(), NtStatus(nbl.status)))
        self.fwps.free_net_buffer_list(nbl)

    def free_clone_in_completion(self, context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
        self.completed.append((nbl.tobytes(), NtStatus(nbl.status)))
        self.fwps.free_clone_net_buffer_list(nbl)

    def associate(self, context: int) -> Any:
        return self.fwps.flow_associate_context(self.flow.id, STREAM, self.callout_id, context)

    def remove(self) -> Any:
        return self.fwps.flow_remove_context(self.flow.id, STREAM, self.callout_id)

    # -- what was reported ------------------------------------------------------------------------------

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.driver.events if event["event"] == name]

    @property
    def caught(self) -> Caught:
        """(rule, place) of each violation so far."""
        return [(event["rule"], event["where"]) for event in self.events("violation")]

    @property
    def severities(self) -> list[tuple[str, str]]:
        return [(event["rule"], event["severity"]) for event in self.events("violation")]

    def refusals(self) -> list[tuple[str, str, str]]:
        """(call, status, rule) of each refused call."""
        return [(e["call"], e["status"], e["rule"]) for e in self.events("refused")]

    def close(self) -> Caught:
        """Close the driver with its leak checks and tell what was caught."""
        for d in (0, 1):
            assert self.flow.ledger(d).faults() == []
        self.driver.close()
        return self.caught


def _bytes_in(chain: NetBufferList | None) -> int:
    total = 0
    while chain is not None:
        total += chain.data_length
        chain = chain.next
    return total


def small_limit() -> EngineOptions:
    """The accumulation limit of NMD-6 at 8 bytes, so that a test reaches it."""
    options = EngineOptions()
    options.limits.need_more_data = 8
    return options


def hints() -> EngineOptions:
    options = EngineOptions()
    options.verify.hints = True
    return options


def after_sending(classify: Classify, *pieces: bytes, **world: Any) -> Caught:
    """What is caught when the local host sends `pieces`."""
    w = World(classify, **world)
    for piece in pieces:
        w.send(piece)
    return w.close()
