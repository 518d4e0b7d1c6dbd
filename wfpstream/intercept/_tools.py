"""Running `nft` and `ip`: argument lists, no shell, a fixed path, a time limit.

Owns how the kernel's programs are found and called, and what of their answers may be shown. It must not know what
they are asked for.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from wfpstream.intercept._errors import InterceptError

# Not the caller's PATH: what root runs here must not depend on who asked.
FOLDERS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/local/bin")
TIME_LIMIT = 15.0
PACKAGES = {"nft": "nftables", "ip": "iproute2", "ss": "iproute2"}


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit code and what it printed."""

    code: int
    out: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked for."""
        return self.code == 0

    @property
    def reason(self) -> str:
        """Its complaint without the lines that point at it; never empty."""
        lines = [line.strip() for line in self.error.splitlines() if line.strip(" \t^~")]
        return lines[0] if lines else f"exit code {self.code}"


class Tools(Protocol):
    """What runs the programs; tests have one that is a small kernel in memory."""

    def find(self, program: str) -> str | None:
        """Where `program` is, or None."""

    def run(self, program: str, arguments: Sequence[str], text: str = "") -> Outcome:
        """Run it with `text` on its stdin.

        Raises:
            InterceptError: it is not there, cannot be started or does not end.
        """


class SystemTools:
    """The programs of this machine."""

    def __init__(self, folders: Sequence[str] = FOLDERS) -> None:
        self._folders = folders

    def find(self, program: str) -> str | None:
        """Where `program` is, or None."""
        for folder in self._folders:
            path = os.path.join(folder, program)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return path
        return None

    def run(self, program: str, arguments: Sequence[str], text: str = "") -> Outcome:
        """Run it with `text` on its stdin.

        Raises:
            InterceptError: it is not there, cannot be started or does not end.
        """
        path = self.find(program)
        if path is None:
            raise InterceptError(missing(program, self._folders))
        try:
            done = subprocess.run(
                [path, *arguments],
                input=text.encode(),
                capture_output=True,
                timeout=TIME_LIMIT,
                check=False,
                # Ctrl-C is for us alone: it must not end the program that takes everything back.
                start_new_session=True,
                cwd="/",
                env=self._environment(),
            )
        except subprocess.TimeoutExpired:
            raise InterceptError(f"{program} did not end within {TIME_LIMIT:g} s") from None
        except OSError as error:
            raise InterceptError(
                f"{program} cannot be started: {(error.strerror or str(error)).lower()}"
            ) from error
        return Outcome(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def _environment(self) -> Mapping[str, str]:
        return {"PATH": os.pathsep.join(self._folders), "LC_ALL": "C"}


def missing(program: str, folders: Sequence[str] = FOLDERS) -> str:
    """The line for a program that is not there."""
    return f"{program} is not installed (package {PACKAGES[program]}); looked in {', '.join(folders)}"


def check(program: str, outcome: Outcome, what: str) -> Outcome:
    """The outcome, if it is good.

    Raises:
        InterceptError: it is not; the line says what was tried and why it failed.
    """
    if not outcome.ok:
        raise InterceptError(f"{what}: {program} says: {outcome.reason}")
    return outcome
