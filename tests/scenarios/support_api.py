"""Owns what the scenarios of the API, of management and of the connection layers need beyond `support`.

Bare injections, filters through a management session, and `Gate`, the scripted callout of the ALE layers.
Like `support`, nothing here computes an expected result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from tests.scenarios.support import Answer, Bench, Call, Recording, Script
from wfpstream import fwpm
from wfpstream.fwp import EMPTY, ActionType, NtStatus, uint64
from wfpstream.fwps import (
    Callout,
    Callout1,
    ClassifyOut,
    IncomingMetadataValues,
    IncomingValues,
    Mdl,
    NetBufferList,
)
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS

# --- injections -----------------------------------------------------------------------------------


def allocate(callout: Callout, data: bytes, *more: bytes) -> NetBufferList:
    """A list of the caller's own (ALO-1): one NET_BUFFER, one MDL for each piece."""
    pieces = [data, *more]
    mdl: Mdl | None = None
    for piece in reversed(pieces):
        mdl = Mdl(piece, mdl)
    length = sum(map(len, pieces))
    status, nbl = callout.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, mdl, 0, length)
    assert status == SUCCESS
    assert nbl is not None
    return nbl


def chained(first: NetBufferList, *more: NetBufferList) -> NetBufferList:
    """Link lists to a chain."""
    last = first
    for nbl in more:
        last.next = nbl
        last = nbl
    return first


def no_completion(context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
    """For an injection that must be refused: being called is a fault."""
    raise AssertionError("completion of an injection that was refused")


@dataclass(frozen=True)
class Injection:
    """The arguments of FwpsStreamInjectAsync0; what is None comes from the callout."""

    stream_flags: int
    chain: NetBufferList | None
    length: int
    handle: int | None = None
    context: int = 0
    flags: int = 0
    flow_id: int | None = None
    callout_id: int | None = None
    layer_id: int | None = None
    completion_fn: Callable[..., None] | None = no_completion
    completion_context: int = 0


def inject_raw(callout: Recording, call: Injection) -> NtStatus:
    """The bare call; a refused chain stays the caller's."""

    def own(value: int | None, default: int) -> int:
        return default if value is None else value

    return callout.fwps.stream_inject_async(
        own(call.handle, callout.injection_handle), call.context, call.flags,
        own(call.flow_id, callout.flow_id), own(call.callout_id, callout.callout_id(callout.layer_id)),
        own(call.layer_id, callout.layer_id), call.stream_flags, call.chain, call.length,
        call.completion_fn, call.completion_context,
    )  # fmt: skip


# --- callouts beyond `support.Script` -------------------------------------------------------------


class Version0Script(Script):
    """A callout of structure version 0: its classifyFn has no classifyContext (CFN-11)."""

    version = 0

    def classify_fn(  # type: ignore[override]
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        super().classify_fn(
            in_fixed_values, in_meta_values, layer_data, None, filter, flow_context, classify_out
        )


@dataclass(frozen=True)
class Notification:
    """One call of notifyFn."""

    notify_type: int
    filter_key: UUID | None
    filter_id: int
    provider_context: object


class Witness(Script):
    """A script that also notes contexts, metadata flags, and every notification and deletion."""

    def __init__(self, *answers: Answer, **options: Any) -> None:
        super().__init__(*answers, **options)
        self.contexts: list[int] = []
        self.mid_stream: list[bool] = []
        self.provider_contexts: list[object] = []
        self.deleted: list[tuple[int, int, int]] = []
        self.notified: list[Notification] = []
        self.answer_to_notify = SUCCESS

    def decide(self, call: Call) -> Answer:
        self.contexts.append(call.flow_context)
        self.mid_stream.append(bool(call.meta.flags & 0x10))  # MET-4
        self.provider_contexts.append(call.filter.provider_context)
        return super().decide(call)

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Any) -> NtStatus:
        self.notified.append(
            Notification(int(notify_type), filter_key, filter.filter_id, filter.provider_context)
        )
        return self.answer_to_notify

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.deleted.append((layer_id, callout_id, flow_context))
        super().flow_delete_fn(layer_id, callout_id, flow_context)


# --- management -----------------------------------------------------------------------------------


def key(name: str) -> UUID:
    """A key that is the same in every run."""
    return uuid5(NAMESPACE_OID, f"wfpstream scenario {name}")


def named(name: str) -> fwpm.DisplayData:
    return fwpm.DisplayData(name)


CALLOUT_ACTIONS = {
    "callout_unknown": ActionType.CALLOUT_UNKNOWN,
    "callout_terminating": ActionType.CALLOUT_TERMINATING,
    "callout_inspection": ActionType.CALLOUT_INSPECTION,
}


_GONE = (
    NtStatus.STATUS_FWP_FILTER_NOT_FOUND,
    NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND,
    NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND,
)
"""What unloading may meet where a test, or the end of a dynamic session, deleted an object already."""


class Plane:
    """A management session and what was added through it, one call per object."""

    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver
        self.session: fwpm.Session = driver.session
        self.ids: dict[str, int] = {}
        self._filters: list[int] = []
        self._callouts: list[UUID] = []
        self._sub_layers: list[UUID] = []

    def register(self, code: Recording, *, flow_delete: bool = True) -> int:
        """Registers the callout's functions as a version-1 structure under `key(code.name)`."""
        delete = code.flow_delete_fn if flow_delete else None
        plain = Callout1(key(code.name), code.flags, code.classify_fn, code.notify_fn, delete)
        status, callout_id = self.driver.fwps.callout_register1(None, plain)
        assert status == SUCCESS
        self.ids[code.name] = callout_id
        return callout_id

    def sub_layer(self, name: str, weight: int) -> UUID:
        sub_layer = fwpm.SubLayer(sub_layer_key=key(name), display_data=named(name), weight=weight)
        assert self.session.sub_layer_add(sub_layer) == SUCCESS
        self._sub_layers.append(sub_layer.sub_layer_key)
        return sub_layer.sub_layer_key

    def callout(self, name: str, layer: UUID = fwpm.LAYER_STREAM_V4, flags: int = 0) -> UUID:
        """Adds the management object of `key(name)`."""
        callout = fwpm.Callout(
            callout_key=key(name), display_data=named(name), applicable_layer=layer, flags=flags
        )
        status, _ = self.session.callout_add(callout)
        assert status == SUCCESS
        self._callouts.append(callout.callout_key)
        return callout.callout_key

    def filter(self, name: str, **members: Any) -> tuple[NtStatus, int]:
        """Adds a filter `key(name)` at STREAM_V4 unless told otherwise; (status, filter id)."""
        values: dict[str, Any] = {
            "filter_key": key(name),
            "display_data": named(name),
            "layer_key": fwpm.LAYER_STREAM_V4,
        }
        status, filter_id = self.session.filter_add(fwpm.Filter(**(values | members)))
        self._filters.append(filter_id)
        return status, filter_id

    def callout_filter(
        self, code: Recording, *, sub_layer: UUID, weight: int | None = None, **members: Any
    ) -> tuple[NtStatus, int]:
        """Adds a filter that names the callout object `key(code.name)`, with the callout's own action."""
        return self.filter(
            f"filter {code.name}",
            sub_layer_key=sub_layer,
            weight=EMPTY if weight is None else uint64(weight),
            action_type=CALLOUT_ACTIONS[code.filter_action],
            callout_key=key(code.name),
            **members,
        )

    def own_sub_layer(
        self, code: Recording, *, callout_flags: int = 0, **members: Any
    ) -> tuple[NtStatus, int]:
        """Adds sublayer, callout object and filter for one callout; (status, id) of the filter."""
        self.callout(code.name, flags=callout_flags)
        sub_layer = self.sub_layer(f"sublayer {code.name}", 0x40 - 2 * len(self._sub_layers))
        return self.callout_filter(code, sub_layer=sub_layer, **members)

    def unload(self) -> None:
        """What a driver does at its end (UNR-8): delete its objects, unregister its callouts."""
        statuses: list[NtStatus] = []
        if self.session.is_open:
            statuses += [self.session.filter_delete_by_id(filter_id) for filter_id in self._filters]
            statuses += [self.session.callout_delete_by_key(callout) for callout in self._callouts]
            statuses += [self.session.sub_layer_delete_by_key(sub_layer) for sub_layer in self._sub_layers]
        statuses += [self.driver.fwps.callout_unregister_by_id(one) for one in self.ids.values()]
        assert [status for status in statuses if status != SUCCESS and status not in _GONE] == []


class ManagedBench(Bench):
    """A bench whose callouts are plain structures that the test adds through a session.

    `add` runs before the flow begins; the callouts are unloaded before the bench closes.
    """

    def __init__(
        self,
        *codes: Recording,
        add: Callable[[Plane], object] = lambda plane: None,
        violations: Sequence[str] = (),
    ) -> None:
        def before(driver: MemoryDriver) -> None:
            self.plane = Plane(driver)
            for code in codes:
                code.transcript = self.transcript
            add(self.plane)

        super().__init__(before=before, violations=violations)
        for code in codes:
            code.flow_id = self.flow.id

    def __enter__(self) -> ManagedBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.settle()
            self.plane.unload()
        super().__exit__(kind, error, trace)


def registered(*codes: Recording, **members: Any) -> Callable[[Plane], None]:
    """For ManagedBench(add=...): registers and adds each callout in a sublayer of its own."""

    def add(plane: Plane) -> None:
        for code in codes:
            plane.register(code)
            assert plane.own_sub_layer(code, **members)[0] == SUCCESS

    return add


def in_one_sub_layer(*codes: Recording) -> Callable[[Plane], None]:
    """For ManagedBench(add=...): all in one sublayer, filter weights 10, 5, ..."""

    def add(plane: Plane) -> None:
        sub_layer = plane.sub_layer("shared", 0x40)
        for place, code in enumerate(codes):
            plane.register(code)
            plane.callout(code.name)
            status, _ = plane.callout_filter(code, sub_layer=sub_layer, weight=10 - 5 * place)
            assert status == SUCCESS

    return add


def events(driver: MemoryDriver, name: str) -> list[dict[str, Any]]:
    """The events of that name, in order."""
    return [event for event in driver.events if event["event"] == name]
