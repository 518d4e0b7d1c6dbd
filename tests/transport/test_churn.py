"""Policy changes under a running stream: every byte arrives, in order, and each rule begins and ends between two."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
import trio

from tests.support.numbered import BLOCK, Checker, Pattern, Received, end
from tests.transport.churn import BY_CONFIG, BY_HAND, Change, Churn, Mark, Reloads, check_order, marks_of
from tests.transport.kit import assert_clean, is_about_time
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy
from wfpstream.transport._connection import Driver

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


async def run(size: int, seed: int, driver: Driver, changes: int) -> Outcome:
    """`size` bytes each way under changing rules, and as many more as it takes to change so often."""
    Mark.forget()
    reloads = Reloads(Random(seed))
    engine = reloads.deployment.engine
    churn = Churn(engine, Random(seed))
    lines: list[str] = []
    with end("serve", size, open_ended=True) as server:
        spec = ListenerSpec(upstream_host="127.0.0.1", upstream_port=int(await line_of(server)))

        async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
            await serve_proxy(
                engine, [spec], grace=0.0, log=lines.append, driver=driver, task_status=task_status
            )

        async with trio.open_nursery() as nursery:
            proxy: Proxy = await nursery.start(serve)
            begin = time.monotonic()
            with end("connect", size, proxy.listeners[0].port, open_ended=True) as client:
                nursery.start_soon(churn.rules)
                nursery.start_soon(churn.others)
                nursery.start_soon(reloads.run)
                while min(len(churn.changes), len(reloads.changes), churn.noise // 10) <= changes:
                    await trio.sleep(0.01)
                for process in (client, server):
                    assert process.stdin is not None
                    process.stdin.close()
                found = [json.loads(await line_of(process)) for process in (client, server)]
            seconds = time.monotonic() - begin
            await proxy.stop()
            nursery.cancel_scope.cancel()
    assert [line for line in lines if not is_about_time(line)] == []
    assert not engine.violations
    assert_clean(engine)
    return Outcome(churn, reloads, found[0], found[1], seconds)


def check_all(size: int, outcome: Outcome) -> None:
    """Nothing lost, nothing changed but the marks, and the marks in order."""
    client, server = outcome.client, outcome.server
    for here, there, inbound in ((client, server, True), (server, client, False)):
        assert here["wrong"] == ""
        assert here["size"] >= size
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


def check_run(size: int, seed: int, driver: Driver, changes: int) -> None:
    """Run it, tell the figures and check everything."""
    outcome = trio.run(run, size, seed, driver, changes)
    print(told(size, outcome))
    check_all(size, outcome)


@pytest.mark.parametrize(("seed", "driver"), [(0, "reactor"), (1, "reactor"), (2, "stream")])
def test_no_byte_is_lost_while_rules_change(seed: int, driver: Driver) -> None:
    """MGMT-11, MGMT-16: rules of every kind take each other's place under a stream in both directions."""
    check_run(16 * MIB, seed, driver, 3)


@pytest.mark.system
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("driver", ["reactor", "stream"])
def test_a_gib_each_way_while_rules_change(driver: Driver) -> None:
    """MGMT-11, MGMT-16: as above, as much as `CHURN_MIB` says, from a seed that is different each time."""
    size = int(os.environ.get("CHURN_MIB", "1024")) * MIB
    seed = int(os.environ.get("CHURN_SEED") or time.time())
    print(f"seed {seed} (CHURN_SEED={seed} begins the same way)")
    check_run(size, seed, driver, 100)


# --- the checks can fail ----------------------------------------------------------------------------


def stream(blocks: int, flip: bool = False) -> bytearray:
    """The first blocks of a numbered stream."""
    pattern = Pattern(flip)
    return bytearray().join([bytes(pattern.block(number)) for number in range(blocks)])


def found_in(data: bytes | bytearray, piece: int = 100_003) -> Received:
    """What a receiver says to it, read in pieces."""
    checker = Checker(flip=False)
    for start in range(0, len(data), piece):
        checker.take(memoryview(data)[start : start + piece])
    return checker.found


def test_a_right_stream_is_right() -> None:
    data = stream(3)
    found = found_in(data)
    assert (found.wrong, found.size, found.runs) == ("", len(data), [(0, len(data))])
    assert found.received == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("spoil", "at"),
    [
        (lambda data: data.__setitem__(700_000, data[700_000] ^ 1), 700_000),
        (lambda data: data.__delitem__(700_007), 700_007),
        (lambda data: data.__delitem__(slice(700_000, 700_008)), 700_005),
        (lambda data: data.insert(700_003, data[700_003]), 700_004),
        (lambda data: data.__setitem__(slice(0, BLOCK), data[BLOCK : 2 * BLOCK]), 3),
    ],
    ids=["a bit", "a byte lost", "a word lost", "a byte twice", "another block"],
)
def test_a_wrong_byte_is_found(spoil: Callable[[bytearray], object], at: int) -> None:
    data = stream(3)
    spoil(data)
    found = found_in(data)
    assert found.wrong.startswith("at byte ")
    assert at <= found.size <= at + 40


def test_the_other_direction_is_another_stream() -> None:
    assert found_in(stream(1, flip=True)).size == 0


def test_marks_are_found_to_the_byte() -> None:
    data = stream(2)
    for start, end_, mark in ((5, 6, 1), (6, 600_001, 9), (600_001, 600_002, 15)):
        data[start:end_] = bytes(byte | mark << 4 for byte in data[start:end_])
    found = found_in(data)
    assert found.wrong == ""
    assert found.runs == [(0, 5), (1, 1), (9, 599_995), (15, 1), (0, 2 * BLOCK - 600_002)]
    assert marks_of(found.runs, BY_HAND) == [0, 1, 3, 0]
    assert marks_of(found.runs, BY_CONFIG) == [0, 2, 3, 0]


BOTH = frozenset((False, True))
FOUR = [
    Change(0, "first", BOTH),
    Change(1, "at once", BOTH),
    Change(2, "with a gap", BOTH),
    Change(3, "at once", BOTH),
]


@pytest.mark.parametrize("marks", [[1, 2, 3, 1], [0, 1, 2, 0, 3, 1], [1, 2, 3, 1, 2], [0, 1, 2, 3, 1, 0, 2]])
def test_orders_that_are_right(marks: list[int]) -> None:
    check_order(marks, FOUR, inbound=True)


@pytest.mark.parametrize(
    "marks",
    [
        [],
        [1, 2, 3],
        [1, 3, 1],
        [1, 2, 1, 3],
        [2, 3, 1, 2],
        [1, 2, 3, 1, 2, 3],
        [1, 2, 1, 2, 3, 1],
        [0, 1, 0, 2, 0, 3, 0, 1, 0],
    ],
)
def test_orders_that_are_wrong(marks: list[int]) -> None:
    """A rule that nothing met, one that came back, one out of turn, bytes that met none."""
    with pytest.raises(AssertionError):
        check_order(marks, FOUR, inbound=True)
