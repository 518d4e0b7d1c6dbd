"""A worker of `run --workers N`: the same program, started by its parent, with the parent's configuration.

Owns what differs from a run on its own: who tells it what to do, where it listens, where its events go. It reads no
file of configuration, writes no ready file, has no control socket and hears no signals: the parent does all that.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import trio

from wfpstream.cli._base import DONE, FAILED, JobError, note
from wfpstream.cli._collecting import collecting_seldom
from wfpstream.cli._command_line import CommandLine
from wfpstream.cli._commands import make_commands
from wfpstream.cli._plan import RunPlan, WorkerPlace
from wfpstream.cli._preparing import prepare_aside
from wfpstream.cli._proxy import Runner
from wfpstream.cli._reload import listener_specs
from wfpstream.cli._served import Arranged
from wfpstream.config import (
    Config,
    ConfigError,
    Deployment,
    LoadedConfig,
    Pending,
    divided,
    parse_config,
    read_filter_ids,
    read_policy_text,
)
from wfpstream.control import ControlError
from wfpstream.fwp import NtStatus
from wfpstream.observe import safe_text
from wfpstream.transport import (
    ListenerSpec,
    Tally,
    WorkerChannel,
    WorkerError,
    become_worker,
)

# What a process is to execute to become a worker; then come the worker's number, the parent's pid and the socket.
BOOT = (
    "import json, os, sys; sys.path[:] = json.loads(os.environ.pop('WFPSTREAM_WORKER_PATH')); "
    "from wfpstream.cli._worker import main; main()"
)
PATH_VARIABLE = "WFPSTREAM_WORKER_PATH"
# How often a worker tells what it has counted, if that has changed, seconds.
TELL_EVERY = 1.0
COUNTS = ("refused", "rejected", "counters", "violations")


def main() -> None:
    """Be the worker that the arguments say."""
    number, parent, fd = (int(argument) for argument in sys.argv[1:4])
    become_worker(number, parent)
    os.set_inheritable(fd, False)
    with collecting_seldom():
        code = trio.run(_work, socket.socket(fileno=fd))
    sys.exit(code)


async def _work(sock: socket.socket) -> int:
    channel = WorkerChannel(sock)
    start = await channel.start()
    if start is None:
        return FAILED
    try:
        description = Description(start.number, start.of, start.description)
        worker = Worker(description, channel)
    except ConfigError as error:
        await channel.failed("; ".join(error.lines()))
        return FAILED
    except Exception as error:  # out of a callout's own code, perhaps: the parent says it
        await channel.failed(" ".join(f"{type(error).__name__}: {error}".split()))
        return FAILED
    return await worker.main()


class Description:
    """What a parent tells a worker to run; `describe` is the other end.

    Attributes:
        number, of: which worker this is.
        complete: adds to a configuration what the command line says, and leaves this worker's share of the limits.
        deployment: the policy in force.
        plan: the run.
        addresses: where to listen, in the order of the listeners.
        count: told the number of connections.
    """

    def __init__(self, number: int, of: int, said: Mapping[str, Any]) -> None:
        self.number = number
        self.of = of
        line = CommandLine.from_data(said["command_line"])
        policy = read_policy_text(said["policy"])
        self.complete: Callable[[LoadedConfig], LoadedConfig] = lambda loaded: self._share(
            line.complete(loaded)
        )
        callouts = line.read_callouts(self.complete(policy.loaded))
        self.deployment: Deployment = policy.deploy(self.complete, callouts, time.monotonic)
        self.plan = RunPlan(
            loaded=self.deployment.loaded,
            complete=self.complete,
            callouts=callouts,
            events_data=said["events_data"],
            grace=said["grace"],
            verbosity=said["verbosity"],
            command_line=line,
            place=WorkerPlace(number, of, said["events"], said["events_wait"]),
        )
        self.addresses = [(host, port) for host, port in said["addresses"]]
        tally = Tally(of, said["tally"])
        # What a callout starts is not to have a hand in them.
        for descriptor in (said["tally"], said["events"]):
            if descriptor is not None:
                os.set_inheritable(descriptor, False)
        self.count = tally.counter(number)
        # A flow has a number that no other one of this worker had, nor of those that were in its place before.
        self.deployment.engine.number_flows_after(tally.accepted(number))

    def _share(self, loaded: LoadedConfig) -> LoadedConfig:
        return replace(loaded, config=divided(loaded.config, self.number, self.of))


def describe(
    plan: RunPlan,
    policy: str,
    addresses: Sequence[tuple[str, int]],
    events: int | None,
    events_wait: bool,
    tally: int,
) -> dict[str, Any]:
    """What a worker is to run, as plain data.

    Args:
        plan: the parent's.
        policy: `policy_text` of what is in force.
        addresses: where to listen, in the order of the listeners.
        events: the descriptor for event lines, or None; `events_wait` as in `WorkerPlace`.
        tally: the descriptor of the shared counts.
    """
    return {
        "command_line": plan.command_line.as_data(),
        "policy": policy,
        "addresses": [list(address) for address in addresses],
        "events": events,
        "events_wait": events_wait,
        "events_data": plan.events_data,
        "tally": tally,
        "grace": plan.grace,
        "verbosity": plan.verbosity,
    }


def specs_at(config: Config, addresses: Sequence[Sequence[Any]]) -> list[ListenerSpec]:
    """The listeners of a configuration at the addresses that the parent has found for them."""
    return [
        replace(spec, host=host, port=port)
        for spec, (host, port) in zip(listener_specs(config), addresses, strict=True)
    ]


class Worker(Runner):
    """One worker."""

    def __init__(self, description: Description, channel: WorkerChannel) -> None:
        super().__init__(description.plan, description.deployment)
        self._description = description
        self._channel = channel
        self._failure = ""
        self._is_listening = False
        self._prepared: tuple[Pending, Arranged] | None = None
        self._own_performs = make_commands(self)
        self._performs = self._performing()

    async def main(self) -> int:
        """Until it was stopped and its flows have ended, or the parent is gone."""
        with ExitStack() as stack:
            self._sinks.open(stack)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sinks.drain)
                proxy = await nursery.start(self._serve)
                if proxy is None:
                    await self._channel.failed(self._failure)
                else:
                    self.proxy = proxy
                    self._is_listening = True
                    self._sinks.violations.on_first = lambda rule: nursery.start_soon(
                        self._channel.noticed, {"violation": rule}
                    )
                    await self._channel.listening()
                    nursery.start_soon(self._channel.obey, self._perform, self._stop)
                    nursery.start_soon(self._keep_telling)
                    await self._ended.wait()
                nursery.cancel_scope.cancel()
            if self._is_listening:
                await self._channel.ended(self._summary())
        return DONE if self._is_listening else FAILED

    async def _keep_telling(self) -> None:
        """What has been counted, now and then: should somebody kill us, no more than that time's is lost."""
        told: dict[str, Any] = {}
        while True:
            await trio.sleep(TELL_EVERY)
            counted = self._counted()
            if counted != told:
                told = counted
                await self._channel.noticed({"counted": counted})

    def _summary(self) -> dict[str, Any]:
        return {
            "violations": dict(self._sinks.violations.counts),
            "stats": self._performs["stats"]({}),
        }

    def _counted(self) -> dict[str, Any]:
        """As `_summary`, but only what stays true of a worker that is no more."""
        summary = self._summary()
        stats = summary["stats"]
        return {**summary, "stats": {name: stats[name] for name in COUNTS}}

    def _stop(self, grace: float | None) -> None:
        self._stopping.set()
        self.proxy.request_stop(math.inf if grace is None else grace)

    # --- what differs ---

    def _specs(self) -> list[ListenerSpec]:
        return specs_at(self._plan.loaded.config, self._description.addresses)

    def _serving(self) -> dict[str, Any]:
        return {"shared": True, "count": self._description.count}

    def _fail(self, error: JobError) -> None:
        if self._is_listening:
            note(f"error: worker {self._description.number}: {safe_text(error.message)}")
        else:
            self._failure = error.message

    def _log(self, line: str) -> None:
        super()._log(f"worker {self._description.number}: {line}")

    # --- what the parent asks for ---

    def _performing(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        return {
            **self._own_performs,
            "add-filter": self._add_filter,
            "delete-filter": self._delete_filter,
            "may-delete": self._may_delete,
            "prepare": self._prepare,
            "commit": self._commit,
            "abandon": self._abandon,
        }

    async def _perform(self, command: str, arguments: dict[str, Any]) -> Any:
        try:
            result = self._performs[command](arguments)
            return await result if hasattr(result, "__await__") else result
        except ControlError as error:
            raise WorkerError(error.text, error.code) from error
        except ConfigError as error:
            raise WorkerError("\n".join(error.lines()), "usage") from error
        except OSError as error:
            raise WorkerError(error.strerror or str(error), "failed") from error
        except Exception as error:  # the parent decides what becomes of us
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise WorkerError(what, "defect") from error

    def _add_filter(self, arguments: dict[str, Any]) -> Any:
        self._wish(arguments.pop("filter_ids"))
        return self._own_performs["add-filter"](arguments)

    def _delete_filter(self, arguments: dict[str, Any]) -> Any:
        """All others have deleted it: if it is busy here by now, it drains."""
        delete = self._own_performs["delete-filter"]
        try:
            return delete(arguments)
        except ControlError:
            if arguments["drain"]:
                raise
            return delete({**arguments, "drain": True})

    def _may_delete(self, arguments: dict[str, Any]) -> bool:
        """Whether a filter could be deleted at this moment; nothing is done."""
        _, session = self.engine.management.engine_open()
        if session is None:
            return False
        try:
            if not session.transaction_begin().ok:
                return False
            status = session.filter_delete_by_id(arguments["filter"])
            session.transaction_abort()
        finally:
            session.engine_close()
        return status is not NtStatus.STATUS_FWP_IN_USE

    async def _prepare(self, arguments: dict[str, Any]) -> None:
        """Another configuration: read, checked, its listeners open; not in force."""
        self._abandon({})
        loaded = await trio.to_thread.run_sync(self._read, arguments["text"], arguments["source"])
        pending = await prepare_aside(self.deployment, loaded, self._plan.callouts)
        arranged = await self.proxy.prepare(specs_at(loaded.config, arguments["addresses"]))
        self._prepared = pending, arranged

    def _read(self, text: str, source: str) -> LoadedConfig:
        return self._plan.complete(parse_config(text, source))

    def _commit(self, arguments: dict[str, Any]) -> None:
        if self._prepared is None:
            raise WorkerError("nothing is prepared", "failed")
        pending, arranged = self._prepared
        self._wish(arguments["filter_ids"])
        pending.commit()
        self._prepared = None
        arranged.commit()
        self.engine.tell("reload", changes=arguments["changes"])

    def _abandon(self, arguments: dict[str, Any]) -> None:
        if self._prepared is not None:
            self._prepared[1].abandon()
            self._prepared = None

    def _wish(self, filter_ids: dict[str, int]) -> None:
        self.engine.management.wish_filter_ids(read_filter_ids(filter_ids))


def environment() -> dict[str, str]:
    """That of a worker: ours, and where modules are found, which must be the same for both."""
    return {**os.environ, PATH_VARIABLE: json.dumps(sys.path)}
