"""Policy changes under a running stream: every byte arrives, in order, and each rule begins and ends between two."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import trio

from tests.support.numbered import end
from tests.transport.churn import BY_CONFIG, BY_HAND, Churn, Mark, Reloads, check_order, marks_of
from tests.transport.kit import assert_clean
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy

MIB = 1 << 20


async def line_of(process: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert process.stdout is not None
    return await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)


@dataclass
class Outcome:
    """What was changed, what client and server found, and how long it took in seconds."""

    churn: Churn
    reloads: Reloads
    client: dict[str, Any]
    server: dict[str, Any]
    seconds: float


async def run(size: int, seed: int) -> Outcome:
    """`size` bytes each way under changing rules."""
    Mark.forget()
    reloads = Reloads(Random(seed))
    engine = reloads.deployment.engine
    churn = Churn(engine, Random(seed))
    lines: list[str] = []
    with end("serve", size) as server:
        spec = ListenerSpec(upstream_host="127.0.0.1", upstream_port=int(await line_of(server)))

        async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
            await serve_proxy(engine, [spec], grace=0.0, log=lines.append, task_status=task_status)

        async with trio.open_nursery() as nursery:
            proxy: Proxy = await nursery.start(serve)
            begin = time.monotonic()
            with end("connect", size, proxy.listeners[0].port) as client:
                nursery.start_soon(churn.rules)
                nursery.start_soon(churn.others)
                nursery.start_soon(reloads.run)
                found = [json.loads(await line_of(process)) for process in (client, server)]
            seconds = time.monotonic() - begin
            await proxy.stop()
            nursery.cancel_scope.cancel()
    assert not lines
    assert not engine.violations
    assert_clean(engine)
    return Outcome(churn, reloads, found[0], found[1], seconds)


def check_all(size: int, outcome: Outcome) -> None:
    """Nothing lost, nothing changed but the marks, and the marks in order."""
    client, server = outcome.client, outcome.server
    for here, there, inbound in ((client, server, True), (server, client, False)):
        assert here["wrong"] == ""
        assert here["size"] == size
        assert here["received"] == there["sent"]
        check_order(marks_of(here["runs"], BY_HAND), outcome.churn.changes, inbound)
        check_order(marks_of(here["runs"], BY_CONFIG), outcome.reloads.changes, inbound)


def told(size: int, outcome: Outcome) -> str:
    """Figures for who runs it with `-s`."""
    return (
        f"{size / MIB:.0f} MiB each way in {outcome.seconds:.1f} s: {len(outcome.churn.changes)} rules by hand, "
        f"{len(outcome.reloads.changes)} configurations, {outcome.churn.noise} changes beside them; "
        f"to server {outcome.server['received']}, to client {outcome.client['received']}"
    )


def check_run(size: int, seed: int) -> Outcome:
    """Run it, tell the figures and check everything."""
    outcome = trio.run(run, size, seed)
    print(told(size, outcome))
    check_all(size, outcome)
    return outcome


@pytest.mark.parametrize("seed", range(2))
def test_no_byte_is_lost_while_rules_change(seed: int) -> None:
    """MGMT-11, MGMT-16: rules of every kind take each other's place under a stream in both directions."""
    outcome = check_run(16 * MIB, seed)
    assert len(outcome.churn.changes) > 3
    assert len(outcome.reloads.changes) > 3
    assert outcome.churn.noise > 50


@pytest.mark.system
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_gib_each_way_while_rules_change() -> None:
    """MGMT-11, MGMT-16: as above, as much as `CHURN_MIB` says, from a seed that is different each time."""
    size = int(os.environ.get("CHURN_MIB", "1024")) * MIB
    seed = int(os.environ.get("CHURN_SEED") or time.time())
    print(f"seed {seed} (CHURN_SEED={seed} begins the same way)")
    outcome = check_run(size, seed)
    assert len(outcome.churn.changes) > 100
    assert len(outcome.reloads.changes) > 100
