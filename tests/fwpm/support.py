"""A run time small enough to see through, and short ways to objects that are not the point of a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from wfpstream import fwpm
from wfpstream.fwp import ActionType, FwpValue, MatchType, NtStatus, uint16
from wfpstream.fwps._constants import NotifyType
from wfpstream.fwps._filter import Filter2
from wfpstream.fwps._filter_set import EMPTY_FILTER_SET, FilterSet

SUCCESS = NtStatus.STATUS_SUCCESS
ADD, DELETE, POST_COMMIT = NotifyType.ADD_FILTER, NotifyType.DELETE_FILTER, NotifyType.ADD_FILTER_POST_COMMIT


def key(name: str) -> UUID:
    """A key that tests can name."""
    return uuid5(fwpm.ZERO_KEY, name)


@dataclass
class FakeTimer:
    when: float
    fn: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class FakeRunTime:
    """Keeps the last installed set, every notification and every report."""

    profile: str = "win10"
    installed: FilterSet = EMPTY_FILTER_SET
    installs: int = 0
    ids: dict[UUID, int] = field(default_factory=dict)
    registered: set[UUID] = field(default_factory=set)
    wants_commit_notify: set[UUID] = field(default_factory=set)
    busy: set[int] = field(default_factory=set)
    refusal: NtStatus | None = None
    refused_calls: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    refusals: list[tuple[str, NtStatus, str]] = field(default_factory=list)
    # (notify type, filter key, filter id)
    notified: list[tuple[int, UUID | None, int]] = field(default_factory=list)
    on_notify: Callable[[int, Filter2], int] = lambda notify_type, filter: SUCCESS
    time: float = 100.0
    timers: list[FakeTimer] = field(default_factory=list)
    # Busy filters that were retired, and what to call when they have finished (MGMT-16).
    draining: dict[int, Callable[[], None]] = field(default_factory=dict)

    def callout_id_for(self, key: UUID) -> int:
        return self.ids.setdefault(key, 1000 + len(self.ids))

    def callout_registered(self, key: UUID) -> bool:
        return key in self.registered

    def callout_key_of(self, callout_id: int) -> UUID | None:
        return next((one for one, number in self.ids.items() if number == callout_id), None)

    def notify(self, key: UUID, notify_type: int, filter_key: UUID | None, filter: Filter2) -> int:
        if key not in self.registered:
            return SUCCESS
        self.notified.append((notify_type, filter_key, filter.filter_id))
        return self.on_notify(notify_type, filter)

    def commit_add_notify(self, key: UUID) -> bool:
        return key in self.wants_commit_notify

    def filter_busy(self, filter_id: int) -> bool:
        return filter_id in self.busy

    def install(self, filter_set: FilterSet) -> None:
        self.installed = filter_set
        self.installs += 1

    def retire(self, filter: Filter2, gone: Callable[[], None]) -> bool:
        if filter.filter_id not in self.busy:
            return True
        self.draining[filter.filter_id] = gone
        return False

    def end_retiring(self, filter_id: int) -> None:
        self.draining.pop(filter_id, None)

    def finish_draining(self, filter_id: int) -> None:
        """The last flow has let go of a retiring filter."""
        self.busy.discard(filter_id)
        self.draining.pop(filter_id)()

    def passive_call_refused(self, call: str) -> int | None:
        if self.refusal is not None:
            self.refused_calls.append(call)
        return self.refusal

    def report(self, rule: str, text: str, filter_id: int = 0) -> None:
        self.reports.append(rule)

    def refused(self, call: str, status: NtStatus, rule: str) -> None:
        self.refusals.append((call, status, rule))

    def now(self) -> float:
        return self.time

    def at(self, when: float, fn: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(when, fn)
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.time += seconds
        for timer in [one for one in self.timers if one.when <= self.time and not one.cancelled]:
            self.timers.remove(timer)
            timer.fn()

    def installed_at(self, layer_id: int) -> list[str]:
        """Names of the filters in force at a layer, in evaluation order."""
        return [one.name for one in self.installed.filters_at(layer_id)]


def start(**run_time: Any) -> tuple[FakeRunTime, fwpm.Management]:
    fake = FakeRunTime(**run_time)
    return fake, fwpm.Management(fake)


def open_session(management: fwpm.Management, flags: int = 0, **more: Any) -> fwpm.Session:
    status, session = management.engine_open(flags, **more)
    assert status is SUCCESS
    assert session is not None
    return session


def named(name: str) -> fwpm.DisplayData:
    return fwpm.DisplayData(name)


def a_filter(name: str = "f", **fields: Any) -> fwpm.Filter:
    """A PERMIT filter at STREAM_V4 unless told otherwise."""
    fields.setdefault("layer_key", fwpm.LAYER_STREAM_V4)
    return fwpm.Filter(display_data=named(name), **fields)


def a_callout(name: str = "c", **fields: Any) -> fwpm.Callout:
    """A callout object for STREAM_V4 unless told otherwise."""
    fields.setdefault("applicable_layer", fwpm.LAYER_STREAM_V4)
    return fwpm.Callout(callout_key=key(name), display_data=named(name), **fields)


def a_callout_filter(name: str = "f", callout: str = "c", **fields: Any) -> fwpm.Filter:
    fields.setdefault("action_type", ActionType.CALLOUT_TERMINATING)
    return a_filter(name, callout_key=key(callout), **fields)


def added(answer: tuple[NtStatus, int]) -> int:
    """The id of an add that must have worked."""
    status, number = answer
    assert status is SUCCESS
    assert number > 0
    return number


def with_callout(**run_time: Any) -> tuple[FakeRunTime, fwpm.Session]:
    """A session with an added and registered callout "c" at STREAM_V4."""
    fake, management = start(**run_time)
    session = open_session(management)
    added(session.callout_add(a_callout()))
    fake.registered.add(key("c"))
    return fake, session


def condition(
    field_key: UUID, value: FwpValue, match_type: MatchType = MatchType.EQUAL
) -> fwpm.FilterCondition:
    return fwpm.FilterCondition(field_key, match_type, value)


def remote_port(port: int) -> fwpm.FilterCondition:
    return condition(fwpm.CONDITION_IP_REMOTE_PORT, uint16(port))
