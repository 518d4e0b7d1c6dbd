"""What all commands share: how an error looks, the exit codes, and commands that know a working example.

Every error is one line, `wfpstream: error: …`; a usage error ends with an example that works.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

DONE = 0
FAILED = 1
USAGE = 2
PROXY_FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 130


class JobError(click.ClickException):
    """The job failed although it was asked for properly: exit code 1.

    Args:
        message: one line.
        code: another exit code.
    """

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.lines = [message]


class InputError(click.ClickException):
    """A usage, a configuration or an input that cannot be used: exit code 2.

    Args:
        lines: what is wrong, one line each.
    """

    exit_code = USAGE

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(lines)
        super().__init__("; ".join(self.lines))


class Command(click.Command):
    """A command whose usage errors print `example`."""

    example = ""


def command(name: str, example: str) -> type[Command]:
    """The class for `cls=` of a command with this example."""
    return type(f"{name.title()}Command", (Command,), {"example": example})


def note(text: str) -> None:
    """One line on stderr that is no error."""
    say(f"wfpstream: {text}")


def say(line: str) -> None:
    """One line on stderr, in one piece."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        # Closed, or its reader is gone: nobody is left to tell.
        return


def report(error: click.ClickException) -> int:
    """Print an error as its line or lines; its exit code."""
    lines = error.lines if isinstance(error, InputError | JobError) else [error.format_message()]
    example = _example(error) if isinstance(error, click.UsageError) else ""
    for line in lines:
        text = _harmless(" ".join(line.split()))
        hint = f"; example: {example}" if example and "example:" not in text else ""
        note(f"error: {text}{hint}")
    return error.code if isinstance(error, JobError) else error.exit_code


def _harmless(text: str) -> str:
    """What it says may come from a file, a socket or another user: it must not steer the terminal."""
    if text.isprintable():
        return text
    from wfpstream.observe import safe_text

    return safe_text(text)


def _example(error: click.UsageError) -> str:
    found = error.ctx.command if error.ctx else None
    return getattr(found, "example", "") or "wfpstream run --mode reverse:127.0.0.1:6379@7000"


def print_out(text: str) -> None:
    """A result on stdout.

    Raises:
        JobError: it cannot be written.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        stdout_failed(error)


def stdout_failed(error: OSError) -> None:
    """What to do when stdout takes no more: a reader that has read enough (`| head`) is no error.

    Raises:
        JobError: it was not that.
    """
    give_up_stdout()
    if not isinstance(error, BrokenPipeError):
        raise JobError(f"cannot write to stdout: {(error.strerror or str(error)).lower()}") from error


def give_up_stdout() -> None:
    """Nothing more can be written there; the interpreter's own flush at exit must find somewhere to flush to."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
