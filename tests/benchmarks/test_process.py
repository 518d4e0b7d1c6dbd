"""What a process and its children have used."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers._process import cpu_seconds, descriptors, family, memory_bytes

BURN = "import time\nwhile time.process_time() < 0.3: pass\n"
WAIT = "import sys; print('there', flush=True); sys.stdin.read()\n"


@contextmanager
def python(program: str) -> Iterator[int]:
    """The process id of a Python that runs this, then waits; it has said "there"."""
    process = subprocess.Popen(
        [sys.executable, "-c", program + WAIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process.pid


def test_cpu_of_the_process_itself() -> None:
    with python("") as idle, python(BURN) as busy:
        assert cpu_seconds(busy) >= 0.3
        assert cpu_seconds(busy) > cpu_seconds(idle)


def test_cpu_of_children_that_live_and_that_have_ended() -> None:
    ended = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
    lives = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {BURN + WAIT!r}], stdin=-1, stdout=-1, text=True)\n"
        "child.stdout.readline()\n"
    )
    with python(ended) as parent:
        assert family(parent) == [parent]
        assert cpu_seconds(parent) >= 0.29  # an ended child's comes in clock ticks
    with python(lives) as parent:
        assert len(family(parent)) == 2
        assert cpu_seconds(parent) >= 0.3


def test_memory_and_descriptors() -> None:
    with python("") as small, python("kept = bytearray(50 << 20)\nkept[::4096] = kept[::4096]\n") as large:
        assert memory_bytes(large) - memory_bytes(small) > 40 << 20
    with python("import os\nkept = [os.dup(0) for _ in range(20)]\n") as many:
        assert descriptors(many) >= 23


def test_a_process_that_has_gone_has_used_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert cpu_seconds(process.pid) == 0.0
    assert memory_bytes(process.pid) == 0
    assert descriptors(process.pid) == 0
    assert family(os.getpid())[0] == os.getpid()
