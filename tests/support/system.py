"""Programs and rights outside Python that a test may need.

On a developer's machine a missing one skips the test and says why. Where `WFPSTREAM_SYSTEM=1` promises that
all of them are there (as `.ci/run` does), a missing one fails it.
"""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

# Servers and network tools live in the sbin folders, which an ordinary user's PATH leaves out.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def is_promised() -> bool:
    """Whether the environment promises every program (`WFPSTREAM_SYSTEM=1`)."""
    return os.environ.get("WFPSTREAM_SYSTEM") == "1"


def find_program(program: str) -> str | None:
    """The path of `program`, also from the sbin folders, or None."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SBIN])
    return shutil.which(program, path=path)


def require(program: str) -> str:
    """The path of `program`; without it the test skips, or fails where it was promised."""
    found = find_program(program)
    if found is None:
        missing(f"{program} is not installed")
    return found


def require_root() -> None:
    """Skip (or fail, as `require` does) unless the tests run as root."""
    if os.geteuid() != 0:
        missing("needs root")


def missing(reason: str) -> NoReturn:
    """Skip the running test for `reason`, or fail it where everything was promised."""
    if is_promised():
        pytest.fail(f"{reason}, and WFPSTREAM_SYSTEM=1 promises it", pytrace=False)
    pytest.skip(reason)
