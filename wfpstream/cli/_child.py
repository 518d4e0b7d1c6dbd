"""The program that `run -- COMMAND` runs beside the proxy: its environment, its signals, its exit code.

Owns one child process; knows nothing of the proxy but the addresses it is given.
"""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Mapping, Sequence

import trio

from wfpstream.cli._base import NOT_EXECUTABLE, NOT_FOUND, JobError
from wfpstream.config import format_address

FORWARDED = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
# A terminal sends these to its whole foreground group, so the child has its own already.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def environment(listeners: Sequence[tuple[str, str, int]]) -> dict[str, str]:
    """WFPSTREAM_ADDRESS, _HOST and _PORT of the first listener, and with _NAME of each named one.

    Args:
        listeners: (name, host, port), in order.
    """
    found: dict[str, str] = {}
    for index, (name, host, port) in enumerate(listeners):
        # Nobody can connect to "any address"; the loopback address of that family is one of them.
        host = _WILDCARDS.get(host, host)
        suffixes = [""] if index == 0 else []
        suffixes += ["_" + re.sub(r"[^A-Za-z0-9]", "_", name).upper()] if name else []
        for suffix in suffixes:
            found[f"WFPSTREAM_ADDRESS{suffix}"] = format_address(host, port)
            found[f"WFPSTREAM_HOST{suffix}"] = host
            found[f"WFPSTREAM_PORT{suffix}"] = str(port)
    return found


async def start(command: Sequence[str], variables: Mapping[str, str], descriptors: int) -> trio.Process:
    """Start the command.

    Args:
        command: the program and its arguments.
        variables: added to our own environment.
        descriptors: its soft limit of open files: the one we were started with, for programs that cannot do
            with more (select).

    Raises:
        JobError: it cannot be started; exit code 127 if there is no such program, 126 otherwise.
    """
    ours, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(descriptors, ours), hard))
    try:
        return await trio.lowlevel.open_process(list(command), env={**os.environ, **variables})
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        raise JobError(f"cannot run {command[0]}: {(error.strerror or '').lower()}", code) from error
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ours, hard))


def forward(process: trio.Process, number: int) -> None:
    """Hand a signal that we got to the command, unless the terminal gave it one itself."""
    if number in _FROM_TERMINAL and _is_our_terminal():
        return
    if process.returncode is None:
        process.send_signal(number)


def exit_code(process: trio.Process) -> int:
    """The command's own code, or 128+n if signal n killed it."""
    code = process.returncode or 0
    return 128 - code if code < 0 else code


def _is_our_terminal() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
