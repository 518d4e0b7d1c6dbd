"""Policy changes under a running stream: every byte arrives, in order, and each rule begins and ends between two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest
import trio

from tests.transport.churn import BY_HAND, Churn, Mark, check_order, marks_of
from tests.transport.kit import assert_clean, make_engine
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy

MIB = 1 << 20


@contextmanager
def end(*words: object) -> Iterator[subprocess.Popen[str]]:
    """One end of the connection, in a process of its own."""
    command = [sys.executable, "-m", "tests.support.numbered", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def line_of(process: subprocess.Popen[str]) -> str:
    """The next line it prints."""
    assert process.stdout is not None
    return await trio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)


async def run(size: int, seed: int) -> tuple[Churn, dict[str, Any], dict[str, Any], float]:
    """`size` bytes each way under changing rules: what was changed, what client and server found, and how long."""
    Mark.forget()
    engine = make_engine()
    lines: list[str] = []
    churn = Churn(engine, Random(seed))
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
                found = [json.loads(await line_of(process)) for process in (client, server)]
            seconds = time.monotonic() - begin
            await proxy.stop()
            nursery.cancel_scope.cancel()
    assert not lines
    assert not engine.violations
    assert_clean(engine)
    return churn, found[0], found[1], seconds


def check_all(size: int, churn: Churn, client: dict[str, Any], server: dict[str, Any]) -> None:
    """Nothing lost, nothing changed but the marks, and the marks in order."""
    for here, there, inbound in ((client, server, True), (server, client, False)):
        assert here["wrong"] == ""
        assert here["size"] == size
        assert here["received"] == there["sent"]
        check_order(marks_of(here["runs"], BY_HAND), churn.changes, inbound)


@pytest.mark.parametrize("seed", range(2))
def test_no_byte_is_lost_while_rules_change(seed: int) -> None:
    """MGMT-11, MGMT-16: rules of every kind take each other's place under a stream in both directions."""
    size = int(os.environ.get("CHURN_MIB", "16")) * MIB
    churn, client, server, seconds = trio.run(run, size, seed)
    check_all(size, churn, client, server)
    print(
        f"{size / MIB:.0f} MiB each way in {seconds:.1f} s, {len(churn.changes)} rules, {churn.noise} other changes"
    )
    print(Counter(change.how for change in churn.changes))
    assert len(churn.changes) > 3
    assert churn.noise > 50
