"""Which Python runs the benchmarks, and with them every relay that is written in Python.

Owns the choice (the fastest that is here, unless `PYTHON` in the environment names one), what is said of it, and the
restart of this process on it, in a virtual environment that is made once. Must not know what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass

from benchmarks.peers._programs import tree_of_wfpstream
from benchmarks.peers._venv import MissingError, base_executable, prepare

# Set for the process that runs on the chosen one: what was chosen from.
CHOSEN = "WFPSTREAM_BENCHMARKS_CHOSEN"
_PROBES = 8
# A difference below this is noise: then it stays as it is.
_FASTER = 0.95
# Calls, attributes, small numbers and slices, as a relay has them. Prints what this Python is and the loop's CPU ms.
_PROBE = """
import json, os, sys, time
import ensurepip, venv
if sys.version_info < (3, 11):
    raise SystemExit("it is Python " + sys.version.split()[0])
class Way:
    __slots__ = ("count", "held")
    def __init__(self):
        self.count, self.held = 0, None
    def take(self, view, flags):
        if flags & 4 or self.held is not None:
            return 0
        self.count += len(view)
        return self.count
def loop(items):
    way, view, kept = Way(), memoryview(bytearray(64)), {}
    for number in range(items):
        kept[number & 7] = way.take(view[: number & 63], number & 3)
began = time.process_time()
loop(200_000)
cost = (time.process_time() - began) * 1e3
base = os.path.realpath(sys._base_executable)
print(json.dumps({"base": base, "version": sys.version.split()[0], "cost": cost}))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter: its program without any virtual environment, its version, CPU milliseconds of the loop."""

    base: str
    version: str
    cost: float


def settle(arguments: list[str]) -> None:
    """Go on with this very command on the chosen Python; returns where this process is to do it.

    Raises:
        ValueError: `PYTHON` names one that cannot be taken.
    """
    if CHOSEN in os.environ or {"-h", "--help", "--list"} & set(arguments):
        return
    found = candidates(os.environ.get("PYTHON", ""))
    chosen = choose(found)
    try:
        program = prepare(chosen.base, chosen.version, may_install="--no-install" not in arguments)
    except MissingError as error:
        print(f"benchmarks: {error}; staying on {sys.executable}", file=sys.stderr)
        return
    print(f"benchmarks: on Python {chosen.version}, {chosen.base}", file=sys.stderr)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment[CHOSEN] = json.dumps([vars(python) for python in found])
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(tree_of_wfpstream()), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    os.execve(program, [program, "-m", "benchmarks", *arguments], environment)


def candidates(named: str) -> list[Python]:
    """The one that is named; else the one that runs this, and the system's if it is another.

    Raises:
        ValueError: what is named is no Python that can be taken.
    """
    programs = [named] if named else [sys.executable, "/usr/bin/python3"]
    found: dict[str, Python] = {}
    for _ in range(_PROBES):  # in turn, so that all meet the same weather
        for program in programs:
            try:
                python = probe(program)
            except ValueError:
                if named:
                    raise
                continue
            known = found.get(python.base, python)
            found[python.base] = min(python, known, key=lambda one: one.cost)
    return list(found.values())


def probe(program: str) -> Python:
    """What it is, and what the loop costs there.

    Raises:
        ValueError: it does not run, is too old, or cannot make virtual environments.
    """
    path = shutil.which(program)
    if path is None:
        raise ValueError(f"PYTHON={program}: there is no such program")
    done = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it failed"])[-1].strip()
        raise ValueError(f"PYTHON={program} is no Python 3.11 or newer with venv and ensurepip: {said}")
    return Python(**json.loads(done.stdout))


def choose(found: list[Python]) -> Python:
    """The first, unless another one is clearly faster."""
    fastest = min(found, key=lambda python: python.cost)
    return fastest if fastest.cost < found[0].cost * _FASTER else found[0]


def describe_build() -> str:
    """How the running Python was built, and what the loop costs beside the others that could have been taken."""
    base = base_executable()
    options = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    named = [word for word in ("--enable-optimizations", "--with-lto") if word in options]
    is_packaged = base.startswith("/usr/bin/")
    text = f"{'the distribution' if is_packaged else 'not the distribution'}'s, {platform.python_compiler()}"
    if named:
        text += f", configured with {' and '.join(named)}"
    elif not is_packaged:  # a package's rules may optimise without its configuration knowing: Debian's do
        text += ", configured with neither --enable-optimizations nor --with-lto"
    found = [Python(**fields) for fields in json.loads(os.environ.get(CHOSEN, "[]"))]
    costs = [python.cost for python in found if python.base == base]
    for other in found:
        if costs and other.base != base:
            share = f"{costs[0] / other.cost:.2f} of the CPU it takes on the other one here, {other.version}"
            text += f"; a loop of plain Python takes {share}"
    return text
