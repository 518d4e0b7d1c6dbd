"""`wfpstream run --workers N`: the parent. It binds and never listens, has the policy but no flows, keeps N workers.

Owns what differs from a run of one process: who serves, where events come together, whom the control socket asks. All
else (ready file, signals, reload, interception, the command beside it) is the runner's.
"""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

import trio

from wfpstream.cli._base import JobError
from wfpstream.cli._crew import Crew
from wfpstream.cli._crew_commands import make_crew_commands
from wfpstream.cli._gathering import Gathering
from wfpstream.cli._plan import RunPlan
from wfpstream.cli._proxy import Runner
from wfpstream.cli._served import Served
from wfpstream.config import Deployment, deploy
from wfpstream.control import Commands
from wfpstream.transport import WorkersFailed


def run_workers(plan: RunPlan) -> int:
    """Run the workers (and the command, if there is one) to their end.

    Returns:
        The exit code.

    Raises:
        ConfigError: the configuration cannot be used.
    """
    return trio.run(_main, plan)


async def _main(plan: RunPlan) -> int:
    return await _Parent(plan, deploy(plan.loaded, plan.callouts, time.monotonic)).main()


class _Parent(Runner):
    def __init__(self, plan: RunPlan, deployment: Deployment) -> None:
        super().__init__(plan, deployment)
        self.full_deployment = deployment
        self._gathering = Gathering(plan, deployment.engine)
        self.crew = Crew(plan, deployment, self._gathering, self._log)
        self._sinks.violations.counts = self.crew.violations
        self._following = self.crew.following

    def _open_sinks(self, stack: ExitStack) -> None:
        self._gathering.open(stack)
        stack.callback(self.crew.close)

    async def _drain_sinks(self) -> None:
        """Workers' own sinks do, and the gathering."""

    def _commands(self) -> Commands:
        return make_crew_commands(self)

    async def _serve(self, task_status: trio.TaskStatus[Served | None]) -> None:
        is_ready = False

        def ready() -> None:
            nonlocal is_ready
            is_ready = True
            task_status.started(self.crew)

        try:
            await self.crew.addresses.open(self._specs())
            async with self._gathering.running():
                await self.crew.workers.run(ready)
        except* OSError as group:
            self._fail(JobError(_reason(group)))
        except* WorkersFailed as group:
            self._fail(JobError(_reason(group)))
        finally:
            self.engine.stop()
            self._ended.set()
        if not is_ready:
            task_status.started(None)
        elif not self._stopping.is_set():
            self._end_early()

    def _end_early(self) -> None:
        """There is nobody left to serve."""
        self.stop(0.0)
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)


def _reason(group: ExceptionGroup[Exception]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
