"""`wfpstream run`, running: engine, sinks, listeners, signals, ready file, and the command beside them.

Owns the order in which these begin and end, and the exit code. What they do is the rooms' below.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import trio

from wfpstream.cli import _child
from wfpstream.cli._base import DONE, FAILED, PROXY_FAILED, JobError, note, report, say
from wfpstream.cli._plan import RunPlan
from wfpstream.config import Listener, build_engine, format_address, parse_address
from wfpstream.engine import FilterEngine
from wfpstream.observe import HumanLines, JsonLines, open_private_file, safe_text, write_private_file
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy

_STDOUT = 1
_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_proxy(plan: RunPlan) -> int:
    """Run the proxy (and the command, if there is one) to its end.

    Returns:
        The exit code.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    engine = build_engine(plan.loaded, plan.callouts, time.monotonic)
    runner = _Runner(plan, engine)
    return trio.run(runner.main)


class Violations:
    """A sink that counts what `--verify` found. Lint is never an error (VRF-3)."""

    wants_data = "off"
    wants_trace = False

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, event: dict[str, object]) -> None:
        """Count one violation, and nothing else."""
        if event.get("event") == "violation" and event.get("severity") != "L":
            self.counts[str(event.get("rule"))] += 1

    def __str__(self) -> str:
        parts = [f"{rule} ({count})" if count > 1 else rule for rule, count in sorted(self.counts.items())]
        return ", ".join(parts)


class _Runner:
    def __init__(self, plan: RunPlan, engine: FilterEngine) -> None:
        self._plan = plan
        self._engine = engine
        self._violations = Violations()
        self._events: JsonLines | None = None
        self._has_backlog = trio.Event()
        self._ended = trio.Event()
        self._stopping = False
        self._process: trio.Process | None = None
        self._code = DONE

    async def main(self) -> int:
        descriptors = raise_descriptor_limit()
        caught = _child.FORWARDED if self._plan.command else _CAUGHT
        with ExitStack() as stack, trio.open_signal_receiver(*caught) as signals:
            try:
                self._remove_ready_file()
                self._add_sinks(stack)
            except JobError as error:
                self._fail(error)
                return self._code
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_events)
                proxy: Proxy | None = await nursery.start(self._serve)
                if proxy is not None:
                    nursery.start_soon(self._watch_signals, signals, proxy)
                    self._announce(proxy)
                    await self._until_done(proxy, descriptors)
                nursery.cancel_scope.cancel()
        return self._exit_code()

    def _exit_code(self) -> int:
        if self._engine.options.verify.level == "strict" and self._violations.counts:
            note(f"error: callouts broke their contract: {self._violations}")
            return self._code or FAILED
        return self._code

    def _fail(self, error: JobError) -> None:
        """Tell what went wrong; the first failure is the run's."""
        code = report(error)
        if self._plan.command and code == FAILED:
            code = PROXY_FAILED
        self._code = self._code or code

    # --- sinks ---

    def _add_sinks(self, stack: ExitStack) -> None:
        plan = self._plan
        if plan.events is not None:
            self._events = self._open_events(plan.events)
            stack.callback(self._events.close)
            self._engine.add_sink(self._events)
        if plan.verbosity >= 0:
            self._engine.add_sink(HumanLines(say, plan.verbosity, note))
        if self._engine.options.verify.level != "off":
            self._engine.add_sink(self._violations)

    def _open_events(self, target: str) -> JsonLines:
        try:
            fd = _STDOUT if target == "-" else open_private_file(target)
        except OSError as error:
            raise JobError(f"cannot write events to {target}: {_reason(error).lower()}") from error
        return JsonLines(
            fd,
            data=self._plan.events_data,
            owned=target != "-",
            on_failure=lambda text: note(f"error: {text}"),
            on_backlog=self._wake_drain,
        )

    def _wake_drain(self) -> None:
        self._has_backlog.set()

    async def _drain_events(self) -> None:
        """Write what a slow reader left over, when it reads again."""
        while self._events is not None:
            await self._has_backlog.wait()
            self._has_backlog = trio.Event()
            while self._events.backlog:
                await trio.lowlevel.wait_writable(self._events.fileno())
                self._events.flush()

    # --- the proxy ---

    async def _serve(self, task_status: trio.TaskStatus[Proxy | None]) -> None:
        """Run the proxy to its end; a start that fails is a result, not an exception in a group."""
        listeners = self._plan.loaded.config.proxy.listener
        specs = [listener_spec(listener, self._plan.loaded.config.proxy.local) for listener in listeners]
        try:
            await serve_proxy(
                self._engine,
                specs,
                grace=self._plan.grace,
                log=self._log,
                task_status=task_status,
            )
        except OSError as error:
            self._fail(JobError(_reason(error)))
            task_status.started(None)
        finally:
            # What callouts have left behind shows only now (V-39), while the sinks still listen.
            self._engine.stop()
            self._ended.set()

    def _log(self, line: str) -> None:
        if self._plan.verbosity >= 0:
            note(safe_text(line))

    def _announce(self, proxy: Proxy) -> None:
        records = []
        for listener in proxy.listeners:
            here, there = format_address(listener.host, listener.port), format_address(*listener.upstream)
            say(f"listening on {here} ({listener.mode} to {there})")
            records.append(
                {
                    "name": listener.name,
                    "mode": listener.mode,
                    "host": listener.host,
                    "port": listener.port,
                    "upstream": listener.upstream,
                }
            )
        if self._plan.ready_file is not None:
            data = msgspec.json.encode({"pid": os.getpid(), "listeners": records}) + b"\n"
            try:
                write_private_file(self._plan.ready_file, data)
            except OSError as error:
                self._fail(_cannot_write(self._plan.ready_file, error))

    def _remove_ready_file(self) -> None:
        """One of an earlier run would say that we are ready before we are."""
        if self._plan.ready_file is None:
            return
        try:
            self._plan.ready_file.unlink(missing_ok=True)
        except OSError as error:
            raise _cannot_write(self._plan.ready_file, error) from error

    # --- its end ---

    async def _until_done(self, proxy: Proxy, descriptors: int) -> None:
        if self._code != DONE:
            self._stop(proxy, 0.0)
        elif self._plan.command and not self._stopping:
            await self._run_command(proxy, descriptors)
        await self._ended.wait()

    async def _run_command(self, proxy: Proxy, descriptors: int) -> None:
        listeners = [(listener.name, listener.host, listener.port) for listener in proxy.listeners]
        try:
            process = await _child.start(self._plan.command, _child.environment(listeners), descriptors)
        except JobError as error:
            self._fail(error)
            self._stop(proxy, 0.0)
            return
        self._process = process
        await process.wait()
        self._process = None
        self._code = _child.exit_code(process)
        self._stop(proxy)

    def _stop(self, proxy: Proxy, grace: float | None = None) -> None:
        self._stopping = True
        proxy.request_stop(grace)

    async def _watch_signals(self, signals: AsyncIterator[int], proxy: Proxy) -> None:
        async for number in signals:
            if self._process is not None:
                _child.forward(self._process, number)
            elif number == signal.SIGHUP:
                note("SIGHUP is ignored: reloading the configuration is not available yet")
            elif number in (signal.SIGTERM, signal.SIGINT):
                # Who asks again does not want to wait.
                self._stop(proxy, 0.0 if self._stopping else None)


def listener_spec(listener: Listener, local: str) -> ListenerSpec:
    """What the transport is to open for a listener of the configuration."""
    host, port = parse_address(listener.listen, default_host="127.0.0.1")
    upstream_host, upstream_port = parse_address(listener.upstream or "")
    return ListenerSpec(
        name=listener.name,
        mode=listener.mode,
        host=host,
        port=port,
        upstream_host=upstream_host,
        upstream_port=upstream_port,
        local=listener.local or local,
        nodelay=listener.nodelay,
    )


def raise_descriptor_limit() -> int:
    """Allow as many open files as we may (two and a pipe per flow); the soft limit there was before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _cannot_write(path: Path, error: OSError) -> JobError:
    return JobError(f"cannot write {path}: {_reason(error).lower()}")
