"""Much data and many flows: bounded memory, nothing lost, nothing left behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.kit import proxy

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

GIB = 1 << 30
MIB = 1 << 20
# A Python process with trio, msgspec and the engine in it starts at about 30 MiB; the stores of one direction
# (unsent 256 KiB, pended and injected 1 MiB each, the receive buffer) are small beside that.
MEMORY_BOUND = 64 * MIB
CROWD = 2000


@contextlib.contextmanager
def peer(*role: object) -> Iterator[subprocess.Popen[str]]:
    """A process of `tests.system.peers`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.system.peers", *map(str, role)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def line_of(process: subprocess.Popen[str]) -> str:
    """The next line the peer prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def digest_of_source(size: int) -> str:
    """SHA-256 of what the role `source` sends."""
    block = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    for _ in range(size // len(block)):
        digest.update(block)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "callout", ["monitor", "stream_edit,find=nowhere,replace=x,mode=oob", "throttle,rate=300MiB/s,burst=4MiB"]
)
def test_a_gib_to_a_slow_receiver_stays_in_bounded_memory(tmp_path: Path, callout: str) -> None:
    with peer("source", GIB) as source:
        port = int(line_of(source))
        with proxy(("127.0.0.1", port), tmp_path, callout, events=False) as running:
            with peer("slow_sink", running.port, 1) as sink:
                found = json.loads(line_of(sink))
            peak = running.peak_memory()
    assert found == {"size": GIB, "sha256": digest_of_source(GIB)}
    print(f"peak resident memory with {callout}: {peak / MIB:.0f} MiB, bound {MEMORY_BOUND / MIB:.0f} MiB")
    assert peak < MEMORY_BOUND


def test_two_thousand_concurrent_flows_with_an_out_of_band_edit(tmp_path: Path) -> None:
    edit = "stream_edit,find=rainy,replace=sunny,mode=oob,direction=to_upstream"
    with peer("echo") as server:
        port = int(line_of(server))
        with proxy(("127.0.0.1", port), tmp_path, edit) as running:
            before = running.descriptors()
            with peer("crowd", running.port, CROWD) as clients:
                found = json.loads(line_of(clients))
            while (
                running.descriptors() > before
            ):  # the last sockets are closed a moment after their peers saw the end
                assert running.process.poll() is None
    assert found == {"count": CROWD, "wrong": []}
    events = running.events()
    kinds = Counter(event["event"] for event in events)
    assert kinds["flow_established"] == kinds["flow_deleted"] == CROWD
    accepted = [e for e in events if e["event"] == "inject" and e["status"] == "STATUS_SUCCESS"]
    with_data = [e for e in accepted if e["len"]]
    assert kinds["inject_complete"] == len(with_data), "every injection completed"
    reasons = Counter(event["reason"] for event in events if event["event"] == "flow_deleted")
    assert reasons == {"fin": CROWD}
