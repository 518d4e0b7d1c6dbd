"""What the control socket can be asked for, over an engine that runs: plain data in, plain data out.

Owns the commands' arguments and results. How they are carried is the control room's, how they look `_ctl`'s; what
reloading and draining take is done by who runs the proxy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import trio

from wfpstream import __version__
from wfpstream.cli._base import JobError
from wfpstream.cli._describe import describe_engine
from wfpstream.cli._served import Proxying
from wfpstream.config import ConfigError
from wfpstream.control import ControlError
from wfpstream.engine import (
    FilterEngine,
    Flow,
    describe_flow,
    describe_flow_in_depth,
    describe_load,
)
from wfpstream.fwp import NtStatus

# The flows of a busy proxy are described in turns with its work.
_FLOWS_IN_A_ROW = 20

T = TypeVar("T", bound=msgspec.Struct)


class Changes(Protocol):
    """What a change of policy changed."""

    def lines(self) -> Sequence[str]:
        """For people."""

    def as_data(self) -> Any:
        """For programs."""


class Deployed(Protocol):
    """The policy in force, and how it is changed; ConfigError says why not."""

    def add_rule(self, callout_text: str, when: Mapping[str, object], name: str | None = None) -> Changes:
        """Add a rule."""

    def add_fragment(self, toml_text: str) -> Changes:
        """Add whatever a piece of configuration says."""

    def delete_filter(self, filter_id: int, drain: bool) -> NtStatus:
        """Delete a filter; `drain`: as soon as it is idle."""


class Operated(Protocol):
    """A proxy that runs, as whoever runs it offers it to the control socket."""

    @property
    def engine(self) -> FilterEngine: ...
    @property
    def deployment(self) -> Deployed: ...
    @property
    def proxy(self) -> Proxying: ...

    async def reload(self) -> Changes:
        """Read the configuration again and put it in force, all or nothing; ConfigError, OSError: it is not."""

    def drain(self, grace: float | None) -> None:
        """Accept nothing more, give flows `grace` seconds (None: what they need), and exit. Returns at once."""


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _OfFlow(msgspec.Struct, forbid_unknown_fields=True):
    flow: int | str


class _AddFilter(msgspec.Struct, forbid_unknown_fields=True):
    callout: str | None = None
    when: dict[str, Any] = {}
    name: str | None = None
    toml: str | None = None


class _DeleteFilter(msgspec.Struct, forbid_unknown_fields=True):
    filter: int
    drain: bool = False


class _Drain(msgspec.Struct, forbid_unknown_fields=True):
    grace: float | None = None


def make_commands(
    operated: Operated, clock: Callable[[], float] = time.monotonic
) -> Mapping[str, Callable[[dict[str, Any]], Any]]:
    """The commands by name, for `serve_control`.

    Args:
        operated: what they are about.
        clock: monotonic seconds, for the uptime, which counts from now.
    """
    commands = _Commands(operated, clock)
    return {
        "flows": commands.flows,
        "show": commands.show,
        "stats": commands.stats,
        "filters": commands.filters,
        "reload": commands.reload,
        "add-filter": commands.add_filter,
        "delete-filter": commands.delete_filter,
        "abort": commands.abort,
        "drain": commands.drain,
    }


class _Commands:
    def __init__(self, operated: Operated, clock: Callable[[], float]) -> None:
        self._operated = operated
        self._clock = clock
        self._began = clock()

    # --- what there is ---

    async def flows(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        _read(_Nothing, arguments)
        engine = self._operated.engine
        described = []
        for number, flow in enumerate(engine.flows, 1):
            if not flow.ended:
                described.append(describe_flow(flow, engine.now()))
            if number % _FLOWS_IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()
        return described

    def show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        flow = self._flow(_read(_OfFlow, arguments).flow)
        return describe_flow_in_depth(flow, self._operated.engine.now())

    def stats(self, arguments: dict[str, Any]) -> dict[str, Any]:
        _read(_Nothing, arguments)
        proxy = self._operated.proxy
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": self._clock() - self._began,
            "listeners": [
                {"name": one.name, "mode": one.mode, "host": one.host, "port": one.port}
                for one in proxy.listeners
            ],
            "connections": proxy.connections,
            "accepted": proxy.accepted,
            "refused": proxy.refused,
            "rejected": dict(sorted(proxy.rejected.items())),
            **describe_load(self._operated.engine),
        }

    def filters(self, arguments: dict[str, Any]) -> dict[str, Any]:
        _read(_Nothing, arguments)
        try:
            return describe_engine(self._operated.engine)
        except JobError as error:
            raise ControlError(error.message) from error

    # --- policy ---

    async def reload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        _read(_Nothing, arguments)
        try:
            return _changed(await self._operated.reload())
        except ConfigError as error:
            raise _unusable(error) from error
        except OSError as error:
            raise ControlError(f"{error.strerror or error}; nothing was changed") from error

    def add_filter(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wanted = _read(_AddFilter, arguments)
        deployment = self._operated.deployment
        try:
            if wanted.callout is not None and wanted.toml is None:
                return _changed(deployment.add_rule(wanted.callout, wanted.when, wanted.name))
            if wanted.toml is not None and not (wanted.callout or wanted.when or wanted.name):
                return _changed(deployment.add_fragment(wanted.toml))
        except ConfigError as error:
            raise _unusable(error) from error
        raise ControlError("give a callout (with when and name), or toml, not both", "usage")

    def delete_filter(self, arguments: dict[str, Any]) -> dict[str, Any]:
        wanted = _read(_DeleteFilter, arguments)
        status = self._operated.deployment.delete_filter(wanted.filter, wanted.drain)
        if status is NtStatus.STATUS_FWP_FILTER_NOT_FOUND:
            raise ControlError(f"no filter {wanted.filter}; `wfpstream ctl filters` lists them")
        if status is NtStatus.STATUS_FWP_IN_USE:
            raise ControlError(
                f"filter {wanted.filter} is in use: its callout holds bytes of a flow; with --drain it goes "
                "as soon as it is idle"
            )
        if not status.ok:
            raise ControlError(f"filter {wanted.filter} cannot be deleted: {status.name}")
        left, _ = self._operated.engine.session.filter_get_by_id(wanted.filter)
        return {"filter": wanted.filter, "state": "draining" if left.ok else "deleted"}

    # --- flows, and the end ---

    def abort(self, arguments: dict[str, Any]) -> dict[str, Any]:
        flow = self._flow(_read(_OfFlow, arguments).flow)
        status = self._operated.engine.fwps.flow_abort(flow.id)
        if not status.ok:
            raise ControlError(f"flow {flow.number} cannot be aborted: {status.name}")
        return {"flow": flow.number, "state": "aborted"}

    def drain(self, arguments: dict[str, Any]) -> dict[str, Any]:
        grace = _read(_Drain, arguments).grace
        if grace is not None and not 0 <= grace < float("inf"):
            raise ControlError(f"grace is seconds from 0 on, not {grace}", "usage")
        connections = self._operated.proxy.connections
        self._operated.drain(grace)
        return {"connections": connections, "grace": grace}

    def _flow(self, number: int | str) -> Flow:
        if isinstance(number, str):
            raise ControlError(
                f"flow {number}: there are no workers here; a flow is named by its number", "usage"
            )
        for flow in self._operated.engine.flows:
            if flow.number == number and not flow.ended:
                return flow
        raise ControlError(f"no flow {number} (any more)")


def _read(form: type[T], arguments: dict[str, Any]) -> T:
    try:
        return msgspec.convert(arguments, form)
    except msgspec.ValidationError as error:
        raise ControlError(f"arguments: {error}", "usage") from error


def _changed(changes: Changes) -> dict[str, Any]:
    return {"changes": changes.as_data(), "lines": list(changes.lines())}


def _unusable(error: ConfigError) -> ControlError:
    return ControlError("\n".join(error.lines()), "usage")
