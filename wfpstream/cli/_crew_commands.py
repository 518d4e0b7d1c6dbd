"""What the control socket can be asked for over several workers: asked of one of them, or of all and put together.

Owns how answers are joined, and how a flow is named: `2.7` is flow 7 of worker 2. The policy is the parent's: what it
has in force all workers have, with the same ids.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from wfpstream.cli._commands import Operated, make_commands
from wfpstream.cli._crew import Crew
from wfpstream.config import Deployment
from wfpstream.control import ControlError
from wfpstream.transport import WorkerError

Commands = Mapping[str, Callable[[dict[str, Any]], Any]]

# Shorter than who asks us waits: so that it hears which worker is stuck.
ASK_TIMEOUT = 10.0
_LONGEST_NAME = 20
_ADDED_UP = ("refused", "flows", "stored")
_ADDED_UP_BY_NAME = ("rejected", "counters", "violations")


class OperatedCrew(Operated, Protocol):
    """A run with workers, as whoever runs it offers it to the control socket."""

    @property
    def crew(self) -> Crew: ...
    @property
    def full_deployment(self) -> Deployment: ...


def make_crew_commands(operated: OperatedCrew) -> Commands:
    """The commands by name, for `serve_control`."""
    commands = _Commands(operated)
    return {
        "flows": commands.flows,
        "show": commands.show,
        "stats": commands.stats,
        "filters": commands.own["filters"],
        "reload": commands.reload,
        "add-filter": commands.add_filter,
        "delete-filter": commands.delete_filter,
        "abort": commands.abort,
        "drain": commands.own["drain"],
    }


class _Commands:
    def __init__(self, operated: OperatedCrew) -> None:
        self.own = make_commands(operated)
        self._operated = operated
        self._crew = operated.crew

    # --- what there is ---

    async def flows(self, arguments: dict[str, Any]) -> list[dict[str, Any]]:
        answers = await self._ask_all("flows", arguments)
        return [{**flow, "worker": number} for number, flows in answers.items() for flow in flows]

    async def show(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._ask_about_flow("show", arguments)

    async def abort(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return await self._ask_about_flow("abort", arguments)

    async def stats(self, arguments: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = self.own["stats"](arguments)
        answers = await self._ask_all("stats", {})
        for name in _ADDED_UP_BY_NAME:
            counts = Counter(self._crew.left.get(name, {}))
            for answer in answers.values():
                counts.update(answer[name])
            merged[name] = dict(sorted(counts.items()))
        for name in _ADDED_UP:
            merged[name] += sum(answer[name] for answer in answers.values())
        pids = self._crew.workers.pids
        return merged | {
            "workers": [
                {
                    "worker": number,
                    "pid": pids.get(number),
                    "uptime": answers[number]["uptime"] if number in answers else None,
                    **self._crew.counts_of(number),
                }
                for number in range(1, self._crew.workers.count + 1)
            ],
            "workers_gone": self._crew.gone,
            "connections_reset": self._crew.reset,
        }

    # --- policy ---

    async def reload(self, arguments: dict[str, Any]) -> dict[str, Any]:
        changed = self.own["reload"](arguments)
        result: dict[str, Any] = await changed if inspect.isawaitable(changed) else changed
        return result | {"workers": self._crew.workers.listening}

    async def add_filter(self, arguments: dict[str, Any]) -> dict[str, Any]:
        async with self._crew.changing():
            ids = self._operated.full_deployment.filter_ids
            before = set(ids)
            result: dict[str, Any] = self.own["add-filter"](dict(arguments))
            ids = self._operated.full_deployment.filter_ids
            new = {str(key): number for key, number in ids.items() if key not in before}
            done = await self._crew.apply("add-filter", {**arguments, "filter_ids": new})
            return result | {"workers": sorted(done)}

    async def delete_filter(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Without draining it is done only if every worker can; who cannot any more a moment later drains."""
        async with self._crew.changing():
            number = arguments.get("filter")
            if not arguments.get("drain") and isinstance(number, int):
                answers = await self._ask_all("may-delete", {"filter": number})
                if not all(answers.values()):
                    raise ControlError(
                        f"filter {number} is in use: its callout holds bytes of a flow; with --drain it goes "
                        "as soon as it is idle"
                    )
            result: dict[str, Any] = self.own["delete-filter"](arguments)
            done = await self._crew.apply("delete-filter", {"drain": False, **arguments})
            draining = any(answer["state"] == "draining" for answer in done.values())
            return result | {"state": "draining" if draining else "deleted", "workers": sorted(done)}

    # --- asking ---

    async def _ask_all(self, command: str, arguments: dict[str, Any]) -> dict[int, Any]:
        """The answers, without those of workers that have gone meanwhile: there is nothing left of what they had.

        Raises:
            ControlError: one of them could not answer.
        """
        answers = await self._crew.workers.ask_all(command, arguments, ASK_TIMEOUT)
        found = {}
        for number, answer in answers.items():
            if not isinstance(answer, WorkerError):
                found[number] = answer
            elif answer.code != "gone":
                raise ControlError(_of_worker(number, answer), answer.code) from answer
        return found

    async def _ask_about_flow(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        worker, flow = self._flow_named(arguments.get("flow"))
        try:
            answer = await self._crew.workers.ask(worker, command, {**arguments, "flow": flow}, ASK_TIMEOUT)
        except WorkerError as error:
            raise ControlError(_of_worker(worker, error), error.code) from error
        return {**answer, "worker": worker}

    def _flow_named(self, name: object) -> tuple[int, int]:
        said = str(name)
        worker, _, flow = said.partition(".")
        if not (worker.isdecimal() and flow.isdecimal() and len(said) <= _LONGEST_NAME):
            raise ControlError(
                f"flow {said[:_LONGEST_NAME]}: of which worker? With --workers a flow is named W.N, as "
                "`wfpstream ctl flows` does",
                "usage",
            )
        if not 1 <= int(worker) <= self._crew.workers.count:
            raise ControlError(f"no worker {worker}: there are {self._crew.workers.count}")
        return int(worker), int(flow)


def _of_worker(number: int, error: WorkerError) -> str:
    """One that says nothing of workers is told whose it is."""
    return error.text if error.text.startswith("worker ") else f"worker {number}: {error.text}"
