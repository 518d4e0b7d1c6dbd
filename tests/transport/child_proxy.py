"""A proxy in a process of its own, `python -m tests.transport.child_proxy JSON`, with limits no test could bear.

Prints a JSON line when it listens, one with what it sees for every line on its stdin, and a last one when that has
ended and the proxy has stopped. A line with a number lets so many seconds pass at once before.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import trio
import trio.testing

from tests.transport import kit
from wfpstream.callouts import Monitor
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy


def status_of_process(name: str) -> int:
    """A line of /proc/self/status, KiB."""
    text = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith(name + ":")))


class Child:
    """The proxy and what it counts."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        options = EngineOptions()
        for section in ("limits", "timeouts"):
            for key, value in wanted.get(section, {}).items():
                assert hasattr(getattr(options, section), key)
                setattr(getattr(options, section), key, value)
        self.wanted = wanted
        self.engine = FilterEngine(kit.current_clock, options)
        self.engine.add_callout(Monitor(summary=False, digest=False))
        self.engine.add_sink(self)
        self.events: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.most_stored = 0
        self.proxy: Proxy

    wants_trace = False

    def __call__(self, event: dict[str, Any]) -> None:
        """Count it, with its reason."""
        reason = event.get("reason")
        self.events[event["event"] + (f" {reason}" if reason else "")] += 1

    def log(self, line: str) -> None:
        """Count it; not what depends on how busy the machine is."""
        if not kit.is_about_time(line):
            self.lines[line] += 1

    async def run(self) -> None:
        """Until stdin ends."""
        specs = [
            ListenerSpec(
                name=f"web{number}",
                upstream_host="127.0.0.1",
                upstream_port=self.wanted["upstream"],
                accept_proxy=tuple(self.wanted.get("accept_proxy", ())),
            )
            for number in range(self.wanted.get("listeners", 1))
        ]
        async with trio.open_nursery() as nursery:
            self.proxy = await nursery.start(self._serve, specs)
            nursery.start_soon(self._weigh)
            say({"ports": [listener.port for listener in self.proxy.listeners]} | self.seen())
            async with trio.lowlevel.FdStream(os.dup(0)) as asked:
                async for data in asked:  # who asks waits for the answer: it is one line
                    if data.strip():
                        kit.pass_time(float(data))
                        await trio.testing.wait_all_tasks_blocked()
                    say(self.seen())
            await self.proxy.stop()
            nursery.cancel_scope.cancel()
        say(self.seen() | {"after": True})

    async def _serve(self, specs: list[ListenerSpec], task_status: trio.TaskStatus[Proxy]) -> None:
        driver = self.wanted["driver"]
        await serve_proxy(self.engine, specs, grace=0.0, log=self.log, driver=driver, task_status=task_status)

    async def _weigh(self) -> None:
        """What is stored at most, as often as the loop comes round."""
        while True:
            self.most_stored = max(self.most_stored, self.engine.fwps.core.stored)
            await trio.sleep(0.01)

    def seen(self) -> dict[str, Any]:
        """What there is now."""
        return {
            "connections": self.proxy.connections,
            "accepted": self.proxy.accepted,
            "refused": self.proxy.refused,
            "rejected": dict(self.proxy.rejected),
            "flows": len(self.engine.flows),
            "stored": self.engine.fwps.core.stored,
            "most_stored": self.most_stored,
            "counters": self.engine.counters,
            "descriptors": len(os.listdir("/proc/self/fd")),
            "resident": status_of_process("VmRSS"),
            "most_resident": status_of_process("VmHWM"),
            "events": self.events,
            "lines": self.lines,
        }


def say(what: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    wanted = json.loads(sys.argv[1])
    if "nofile" in wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted["nofile"], wanted["nofile"]))
    kit.timed(lambda: Child(wanted).run())()
