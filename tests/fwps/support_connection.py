"""Owns the callout with which the connection layers are tried rule by rule: it notes how it was asked.

Nothing here computes an expected result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfpstream import fwpm
from wfpstream.engine import Attempt, Endpoints, EngineOptions
from wfpstream.fwp import ActionType, ConditionFlags, NtStatus
from wfpstream.fwps import (
    RIGHT_ACTION_WRITE,
    Callout,
    ClassifyOut,
    ClassifyOutFlags,
    ConnectRequest,
    FieldsAleAuthConnect,
    FieldsAleAuthRecvAccept,
    FieldsAleConnectRedirect,
    LayerId,
    NetBufferList,
    RunTime,
)
from wfpstream.testing import MemoryDriver

_FIELDS: dict[str, Any] = {
    "ALE_AUTH_CONNECT": FieldsAleAuthConnect,
    "ALE_AUTH_RECV_ACCEPT": FieldsAleAuthRecvAccept,
    "ALE_CONNECT_REDIRECT": FieldsAleConnectRedirect,
}


class Asked:
    """One classify call, at whichever layer."""

    def __init__(
        self, door: Door, fixed: Any, meta: Any, layer_data: Any, context: Any, filter: Any, out: Any
    ) -> None:
        self.door = door
        self.fixed = fixed
        self.meta = meta
        self.layer_data = layer_data
        self.context = context
        self.filter = filter
        self.out = out
        self.entry_rights: int = out.rights
        self.layer = LayerId(fixed.layer_id).name

    def value(self, name: str) -> Any:
        """A fixed value by its field's name."""
        return self.fixed.incoming_value[_FIELDS[self.layer[:-3]][name]].value

    @property
    def reauthorizing(self) -> bool:
        """IS_REAUTHORIZE was shown."""
        return bool(self.value("FLAGS") & ConditionFlags.IS_REAUTHORIZE)


Answer = Callable[[Asked], object]


def permit(asked: Asked) -> None:
    asked.out.action_type = ActionType.PERMIT


def block(asked: Asked) -> None:
    asked.out.action_type = ActionType.BLOCK


def go_on(asked: Asked) -> None:
    asked.out.action_type = ActionType.CONTINUE


def boom(asked: Asked) -> None:
    raise ValueError("boom")


class Door(Callout):
    """Answers by script; past its end it permits. `log` is shared by the doors of one world."""

    version = 1

    def __init__(self, layers: Sequence[str], *answers: Answer, name: str = "") -> None:
        self.layers = tuple(layers)  # type: ignore[misc]
        self.name = name
        self.answers = list(answers)
        self.log: list[Asked] = []

    def classify_fn(self, *args: Any) -> None:
        fixed, meta, layer_data = args[:3]
        context = args[3] if len(args) == 7 else None
        filter, _, out = args[-3:]
        asked = Asked(self, fixed, meta, layer_data, context, filter, out)
        self.log.append(asked)
        answer = self.answers.pop(0) if self.answers else permit
        answer(asked)


SUCCESS = NtStatus.STATUS_SUCCESS
UPSTREAM = ("10.0.0.2", 80)
ELSEWHERE = ("10.0.0.3", 8081)
REDIRECT = ("ale_connect_redirect",)


def world(*doors: Door, options: EngineOptions | None = None) -> tuple[MemoryDriver, list[Asked]]:
    """A driver with these callouts, the heaviest first, and the log they share."""
    driver = MemoryDriver(options=options)
    log: list[Asked] = []
    for door in doors:
        door.log = log
        driver.add(door)
    return driver, log


def request(
    driver: MemoryDriver,
    client: tuple[str, int] = ("10.0.0.1", 40000),
    server: tuple[str, int] = ("10.0.0.2", 80),
    **more: Any,
) -> Attempt:
    """A connection is accepted."""
    attempt = driver.engine.connection_requested(Endpoints(client=client, destination=server, **more))
    driver.settle()
    return attempt


def events(driver: MemoryDriver, name: str) -> list[dict[str, Any]]:
    return [event for event in driver.events if event["event"] == name]


def options(**more: Any) -> EngineOptions:
    made = EngineOptions(**more)
    made.verify.level = "warn"
    return made


def redirect_handle(driver: MemoryDriver) -> int:
    status, handle = driver.fwps.redirect_handle_create(fwpm.ZERO_KEY, 0)
    assert status == SUCCESS
    return handle


class Pender:
    """Answers that pend with FwpsPendOperation0."""

    def __init__(self) -> None:
        self.contexts: list[int] = []
        self.statuses: list[NtStatus] = []
        self.list: NetBufferList | None = None

    def __call__(self, asked: Asked) -> None:
        self.pend(asked)
        asked.out.action_type = ActionType.BLOCK
        asked.out.flags |= ClassifyOutFlags.ABSORB

    def pend(self, asked: Asked) -> None:
        status, context = asked.door.fwps.pend_operation(asked.meta.completion_handle)
        self.statuses.append(status)
        self.contexts.append(context)
        self.list = asked.layer_data


def complete(driver: MemoryDriver, context: int, nbl: NetBufferList | None = None) -> None:
    driver.fwps.complete_operation(context, nbl)
    driver.settle()


@dataclass
class Redirect:
    """A well-behaved redirect, inline; `tweak` may spoil the data before the apply."""

    target: tuple[str, int] = ELSEWHERE
    handle: int = 0
    context: Any = None
    pid: int = 0
    ask: bool = True
    tweak: Callable[[ConnectRequest], object] = lambda data: None
    states: list[tuple[int, Any]] = field(default_factory=list)

    def __call__(self, asked: Asked) -> None:
        fwps: RunTime = asked.door.fwps
        if self.ask:
            self.states.append(fwps.query_connection_redirect_state(asked.meta.redirect_records, self.handle))
        status, handle = fwps.acquire_classify_handle(asked.context)
        assert status == SUCCESS
        data = self.write(fwps, handle, asked.filter.filter_id, asked.out)
        fwps.apply_modified_layer_data(handle, data)
        permit(asked)
        asked.out.rights |= RIGHT_ACTION_WRITE
        fwps.release_classify_handle(handle)

    def write(self, fwps: RunTime, handle: int, filter_id: int, out: ClassifyOut) -> ConnectRequest:
        status, data = fwps.acquire_writable_layer_data_pointer(handle, filter_id, 0, out)
        assert status == SUCCESS
        assert data is not None
        data.remote_address_and_port = self.target
        data.local_redirect_handle = self.handle
        data.local_redirect_context = self.context
        data.local_redirect_target_pid = self.pid
        self.tweak(data)
        return data
