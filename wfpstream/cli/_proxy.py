"""`wfpstream run`, running: engine, sinks, listeners, signals, ready file, and the command beside them.

Owns the order in which these begin and end, and the exit code. What they do is the rooms' below; reading the
configuration again is `_reload`'s.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio

from wfpstream.cli import _child
from wfpstream.cli._base import DONE, FAILED, PROXY_FAILED, JobError, note, report, say
from wfpstream.cli._collecting import collecting_seldom
from wfpstream.cli._commands import make_commands
from wfpstream.cli._interception import TRANSPARENT_MODES, intercepting, mark_for
from wfpstream.cli._plan import RunPlan
from wfpstream.cli._reload import Reloader, listener_specs
from wfpstream.cli._served import Following, Open, Served, nobody_follows
from wfpstream.cli._sinks import Sinks
from wfpstream.config import Deployment, Difference, deploy, format_address
from wfpstream.control import Commands, ControlError, default_socket_path, serve_control
from wfpstream.engine import FilterEngine
from wfpstream.observe import safe_text, write_private_file
from wfpstream.transport import ListenerSpec, serve_proxy

_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_proxy(plan: RunPlan) -> int:
    """Run the proxy (and the command, if there is one) to its end.

    Returns:
        The exit code.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    runner = Runner(plan, deploy(plan.loaded, plan.callouts, time.monotonic))
    with collecting_seldom():
        return trio.run(runner.main)


class Runner:
    """One run of one process; a run of several has other ways to serve (`_workers`, `_worker`).

    The control socket operates it, too: see `_commands.Operated`.
    """

    def __init__(self, plan: RunPlan, deployment: Deployment) -> None:
        self.deployment = deployment
        self.engine: FilterEngine = deployment.engine
        self.proxy: Served
        self._plan = plan
        self._sinks = Sinks(plan, self.engine)
        self._reloader: Reloader
        self._following: Following = nobody_follows
        self._ended = trio.Event()
        self._stopping = trio.Event()
        self._only_drains = False
        self._stop_taking: Callable[[], None] = _nothing
        self._process: trio.Process | None = None
        self._code = DONE

    async def main(self) -> int:
        descriptors = raise_descriptor_limit()
        caught = _child.FORWARDED if self._plan.command else _CAUGHT
        with ExitStack() as stack, trio.open_signal_receiver(*caught) as signals:
            try:
                self._remove_ready_file()
                self._open_sinks(stack)
            except JobError as error:
                self._fail(error)
                return self._code
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_sinks)
                proxy: Served | None = await nursery.start(self._serve)
                if proxy is not None:
                    self.proxy = proxy
                    nursery.start_soon(self._watch_signals, signals, nursery)
                    await self._operate(nursery, descriptors)
                nursery.cancel_scope.cancel()
        return self._exit_code()

    def _open_sinks(self, stack: ExitStack) -> None:
        self._sinks.open(stack)

    async def _drain_sinks(self) -> None:
        await self._sinks.drain()

    def _exit_code(self) -> int:
        violations = self._sinks.violations
        if self.engine.options.verify.level == "strict" and violations.counts:
            note(f"error: callouts broke their contract: {violations}")
            return self._code or FAILED
        return self._code

    def _fail(self, error: JobError) -> None:
        """Tell what went wrong; the first failure is the run's."""
        code = report(error)
        if self._plan.command and code == FAILED:
            code = PROXY_FAILED
        self._code = self._code or code

    # --- the proxy ---

    def _specs(self) -> list[ListenerSpec]:
        """What is to be listened on."""
        return listener_specs(self._plan.loaded.config)

    def _serving(self) -> dict[str, Any]:
        """More arguments for `serve_proxy`."""
        return {}

    async def _serve(self, task_status: trio.TaskStatus[Served | None]) -> None:
        """Run the proxy to its end; a start that fails is a result, not an exception in a group."""
        specs = self._specs()
        try:
            await serve_proxy(
                self.engine,
                specs,
                grace=self._plan.grace,
                log=self._log,
                mark=mark_for(specs),
                task_status=task_status,
                **self._serving(),
            )
        except OSError as error:
            self._fail(JobError(_reason(error)))
            task_status.started(None)
        finally:
            # What callouts have left behind shows only now (V-39), while the sinks still listen.
            self.engine.stop()
            self._ended.set()

    def _log(self, line: str) -> None:
        if self._plan.verbosity >= 0:
            note(safe_text(line))

    async def _operate(self, nursery: trio.Nursery, descriptors: int) -> None:
        """From listening to the last flow's end."""
        intercepted = self._intercepted_listener()
        self._reloader = Reloader(
            self._plan, self.deployment, self.proxy, self._reopened, intercepted, self._following
        )
        try:
            await self._open_control(nursery)
            with self._led_to(intercepted) as self._stop_taking:
                self._opened(self.proxy.listeners)
                if self._plan.watch:
                    nursery.start_soon(self._reloader.watch, self._reloader.try_reload)
                if self._code == DONE and self._plan.command and not self._stopping.is_set():
                    await self._run_command(descriptors)
                await self._stopping.wait()
                self._take_no_more()
                # What is intercepted needs that to its end.
                await self._ended.wait()
        except JobError as error:
            self._fail(error)
            self.stop(0.0)
        await self._ended.wait()

    def _take_no_more(self) -> None:
        """Once: who asks again need not hear of a failure again."""
        stop_taking, self._stop_taking = self._stop_taking, _nothing
        stop_taking()

    def _intercepted_listener(self) -> Open | None:
        if not self._plan.transparent:
            return None
        return next(one for one in self.proxy.listeners if one.mode in TRANSPARENT_MODES)

    @contextmanager
    def _led_to(self, listener: Open | None) -> Iterator[Callable[[], None]]:
        if listener is None:
            yield _nothing
            return
        with intercepting(
            self._plan.loaded.config, listener.mode, listener.host, listener.port, self._fail
        ) as stop_taking:
            yield stop_taking if listener.mode == "redirect" else _nothing

    def _commands(self) -> Commands:
        """What `wfpstream ctl` can ask for."""
        return make_commands(self)

    async def _open_control(self, nursery: trio.Nursery) -> None:
        """Serve `wfpstream ctl`. Only a socket that was asked for must be had."""
        wanted = self._plan.loaded.config.control.socket
        if wanted == "off":
            return
        path = self._plan.loaded.folder / wanted if wanted is not None else default_socket_path()
        serve = partial(serve_control, path, self._commands(), log=self._log)
        try:
            await nursery.start(serve)
        except ControlError as error:
            if wanted is not None:
                raise JobError(str(error)) from error
            self._log(f"no control socket: {error}")

    # --- being ready ---

    def _opened(self, listeners: Sequence[Open]) -> None:
        """Write down all that listens, and say which of it is new. Raises JobError: it cannot be written."""
        try:
            self._write_ready_file()
        finally:
            for listener in listeners:
                where = format_address(listener.host, listener.port)
                say(f"listening on {where} ({safe_text(_describe(listener))})")

    def _reopened(self, listeners: Sequence[Open]) -> None:
        """As `_opened`, after a reload: what runs goes on even if that cannot be written down."""
        try:
            self._opened(listeners)
        except JobError as error:
            report(error)

    def _write_ready_file(self) -> None:
        if self._plan.ready_file is None or self._stopping.is_set():
            return
        records = [_record(listener) for listener in self.proxy.listeners]
        data = msgspec.json.encode({"pid": os.getpid(), "listeners": records}) + b"\n"
        try:
            write_private_file(self._plan.ready_file, data)
        except OSError as error:
            raise _cannot_write(self._plan.ready_file, error) from error

    def _remove_ready_file(self) -> None:
        """One of an earlier run would say that we are ready before we are, ours that we still are."""
        if self._plan.ready_file is None:
            return
        try:
            self._plan.ready_file.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self._plan.ready_file, error) from error

    # --- what is asked for while it runs ---

    async def reload(self) -> Difference:
        """Read the configuration again (`ctl reload`)."""
        return await self._reloader.reload()

    def drain(self, grace: float | None) -> None:
        """Accept nothing more, and exit when the flows have ended (`ctl drain`); None: however long that takes."""
        self._only_drains = not self._stopping.is_set()
        self.stop(math.inf if grace is None else grace)

    async def _watch_signals(self, signals: AsyncIterator[int], nursery: trio.Nursery) -> None:
        async for number in signals:
            if self._process is not None:
                _child.forward(self._process, number)
            elif number == signal.SIGHUP:
                # Beside us: it may take its time, and who wants an end meanwhile is heard.
                nursery.start_soon(self._reloader.try_reload, "SIGHUP")
            elif number in (signal.SIGTERM, signal.SIGINT):
                # Who asks again does not want to wait; who drained before has not asked yet.
                is_asked_again = self._stopping.is_set() and not self._only_drains
                self._only_drains = False
                self.stop(0.0 if is_asked_again else None)

    # --- its end ---

    async def _run_command(self, descriptors: int) -> None:
        listeners = [(listener.name, listener.host, listener.port) for listener in self.proxy.listeners]
        process = await _child.start(self._plan.command, _child.environment(listeners), descriptors)
        self._process = process
        await process.wait()
        self._process = None
        # If we have failed meanwhile, and have ended it ourselves, that is what counts.
        self._code = self._code or _child.exit_code(process)
        self.stop()

    def stop(self, grace: float | None = None) -> None:
        """Accept nothing more and let flows end for `grace` seconds; None: as `--grace` says."""
        self._stopping.set()
        # New connections find their own way before we accept no more. (Past a closed tproxy listener they do anyway.)
        self._take_no_more()
        self.proxy.request_stop(grace)
        try:
            self._remove_ready_file()
        except JobError as error:
            self._fail(error)


def _nothing() -> None:
    """For what is not intercepted."""


def _describe(listener: Open) -> str:
    if listener.mode in TRANSPARENT_MODES:
        return listener.mode
    return f"{listener.mode} to {format_address(*listener.upstream)}"


def _record(listener: Open) -> dict[str, object]:
    """A listener in the ready file."""
    upstream = None if listener.mode in TRANSPARENT_MODES else listener.upstream
    return {
        "name": listener.name,
        "mode": listener.mode,
        "host": listener.host,
        "port": listener.port,
        "upstream": upstream,
    }


def raise_descriptor_limit() -> int:
    """Allow as many open files as we may (two and a pipe per flow); the soft limit there was before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _cannot_write(path: Path, error: OSError) -> JobError:
    return JobError(f"cannot write {path}: {_reason(error).lower()}")
