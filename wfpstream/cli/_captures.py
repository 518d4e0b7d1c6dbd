"""Which captures the arguments of `replay` name, and where each one's output goes.

Owns names and folders; no file is opened. What is in a capture is the replay room's.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence

import click

SUFFIXES = (".pcap", ".pcapng", ".cap", ".ntar")
STANDARD_INPUT = "-"


def find_captures(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """The captures that files, globs and folders name, and a line for each argument that names none.

    Folders are searched with all that is in them, in the order of names. A file that is not there is a capture that
    cannot be read, and told when it is opened.
    """
    found: list[str] = []
    problems: list[str] = []
    for argument in arguments:
        named, problem = _named_by(argument)
        found += named
        if problem:
            problems.append(problem)
    if found.count(STANDARD_INPUT) > 1:
        raise click.UsageError("standard input (-) can be read only once")
    return found, problems


def _named_by(argument: str) -> tuple[list[str], str]:
    if argument == STANDARD_INPUT:
        return [argument], ""
    if os.path.isdir(argument):
        return _in_folder(argument)
    if not glob.has_magic(argument) or os.path.lexists(argument):
        return [argument], ""
    found: list[str] = []
    for name in sorted(glob.glob(argument, recursive=True)):
        found += _in_folder(name)[0] if os.path.isdir(name) else [name]
    return found, "" if found else f"{argument}: no capture has such a name"


def _in_folder(folder: str) -> tuple[list[str], str]:
    failures: list[OSError] = []
    found = [
        os.path.join(parent, name)
        for parent, _, names in sorted(os.walk(folder, onerror=failures.append))
        for name in sorted(names)
        if is_capture_name(name)
    ]
    if found:
        return found, ""
    reason = failures[0].strerror.lower() if failures and failures[0].strerror else ""
    wanted = ", ".join(f"*{suffix}" for suffix in SUFFIXES)
    return [], f"{folder}: {reason or f'no capture in this folder ({wanted}, each also with .gz)'}"


def is_capture_name(name: str) -> bool:
    """A file of this name is taken for a capture when its folder is named."""
    return name.lower().removesuffix(".gz").endswith(SUFFIXES)


def output_paths(captures: Sequence[str], out: str, in_folder: bool) -> list[str]:
    """Where the output of each capture goes.

    Args:
        out: what the user said.
        in_folder: it is a folder even if it is not there yet.

    Raises:
        click.UsageError: it cannot be that.
    """
    if in_folder and os.path.lexists(out) and not os.path.isdir(out):
        raise click.UsageError(
            f"-o {out}: with several captures or --jobs it is a folder, and here is a file"
        )
    if not in_folder and not os.path.isdir(out):
        return [out]
    taken: set[str] = set()
    return [os.path.join(out, _free_name(capture, taken)) for capture in captures]


def _free_name(capture: str, taken: set[str]) -> str:
    """The capture's own name, without .gz, with a number if another one has it already."""
    base = "stdin" if capture == STANDARD_INPUT else os.path.basename(capture)
    base = base[:-3] if base.lower().endswith(".gz") else base
    stem, suffix = os.path.splitext(base)
    if suffix.lower() not in SUFFIXES:
        stem, suffix = base, ".pcap"
    name, number = f"{stem}{suffix}", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}{suffix}"
    taken.add(name)
    return name


def refuse_inputs(captures: Iterable[str], written: Iterable[tuple[str, str]]) -> None:
    """Nothing that is written may be a capture that is read.

    Args:
        written: the option, and the path that it makes us write.

    Raises:
        click.UsageError: one is.
    """
    inputs = {identity: capture for capture in captures for identity in _identity(capture)}
    taken: dict[tuple[int, int], str] = {}
    for option, path in written:
        for identity in _identity(path):
            if identity in inputs:
                raise click.UsageError(f"{option} {path}: this is the capture {inputs[identity]} itself")
            if identity in taken:
                raise click.UsageError(f"{option} {path}: written by {taken[identity]} already")
            taken[identity] = option


def _identity(path: str) -> Iterator[tuple[int, int]]:
    """Device and number of a regular file, whatever it is called."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return
    if os.path.isfile(path):
        yield status.st_dev, status.st_ino
