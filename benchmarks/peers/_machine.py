"""Where and with what a run was made: CPU, kernel, versions. Whoever quotes a figure quotes this."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.peers._interpreter import describe_build
from benchmarks.peers._programs import Peer, find_program, tree_of_wfpstream
from benchmarks.peers._venv import MissingError, version_of


def describe_machine() -> dict[str, Any]:
    """What the reader needs to know of this machine, and the state of the source."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "python_build": describe_build(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "load_average": round(os.getloadavg()[0], 2),
    }


def version_text(peer: Peer) -> str:
    """A peer's version, or nothing where it cannot be told."""
    if isinstance(peer.version, str):
        return peer.version
    if peer.version[0] == "venv":
        return version_of(peer.version[1])
    try:
        program = peer.version[0] if "/" in peer.version[0] else find_program(peer.version[0])
    except MissingError:
        return ""
    done = subprocess.run(
        [program, *peer.version[1:]],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **peer.environment},
    )
    found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    return found[0] if found else ""


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    """What the package measured is at; and whether it has been changed since."""
    git = ["git", "-C", str(tree_of_wfpstream())]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True)
    changed = subprocess.run(
        [*git, "diff", "--quiet", "HEAD", "--", "wfpstream"], check=False, capture_output=True
    )
    return head.stdout.strip() + (" with changes" if head.stdout and changed.returncode else "")
