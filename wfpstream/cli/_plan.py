"""What `wfpstream run` and `wfpstream replay` were asked for, as records between reading the options and running.

Owns the records only; `_run` and `_replay` fill them, `_proxy` and `_replaying` obey them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wfpstream.cli._command_line import CommandLine

if TYPE_CHECKING:
    from wfpstream.config import CalloutText, LoadedConfig


Stamp = tuple[int, int, int] | None


def stamp_of(path: str | os.PathLike[str]) -> Stamp:
    """What differs between two versions of a file; None while there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _as_it_is(loaded: LoadedConfig) -> LoadedConfig:
    return loaded


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Which worker this process is, and what it has from its parent.

    Args:
        number: from 1 on.
        of: how many there are.
        events: the descriptor that event lines go to, or None.
        events_wait: the other end of it is read whatever happens: wait for it rather than lose lines.
    """

    number: int
    of: int
    events: int | None
    events_wait: bool


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything `run` was asked for.

    Args:
        loaded: the configuration, its listeners and sections completed by the command line.
        config_file: where it came from, to be read again; None if there is none.
        read_at: the file's stamp from before it was read.
        complete: adds to a configuration what the command line says, as was done for `loaded`.
        callouts: those of `--callout`, in order.
        events: where event lines go: a file, `-` for stdout, or None.
        events_data: which part of payloads they carry.
        ready_file: what to write once everything listens, or None.
        grace: seconds that flows may take to end at a stop.
        verbosity: -1 quiet, 0, or the number of `-v`.
        command: the program to run beside the proxy, with its arguments.
        transparent: intercept connections for the redirect or tproxy listener, for as long as this runs.
        watch: read the configuration again when its file has changed.
        command_line: the words that `complete` and `callouts` come from.
        workers: how many processes; 1: this one alone.
        place: in a worker, which one it is; None elsewhere.
    """

    loaded: LoadedConfig
    config_file: Path | None = None
    read_at: Stamp = None
    complete: Callable[[LoadedConfig], LoadedConfig] = field(default=_as_it_is)
    callouts: tuple[CalloutText, ...] = ()
    events: str | None = None
    events_data: Literal["off", "preview", "full"] = "off"
    ready_file: Path | None = None
    grace: float = 5.0
    verbosity: int = 0
    command: tuple[str, ...] = ()
    transparent: bool = False
    watch: bool = False
    command_line: CommandLine = field(default_factory=CommandLine)
    workers: int = 1
    place: WorkerPlace | None = None


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """Everything `replay` was asked for.

    Args:
        captures: files to read, `-` for stdin.
        problems: a line for each argument that names no capture.
        loaded: the configuration, completed by the command line.
        callouts: those of `--callout`, in order.
        settings: arguments for `ReplayOptions`.
        outputs: where each capture's output goes, or None.
        folder: the folder to make for them, or None.
        as_json: results as JSON lines on stdout.
        events: where event lines go: a file, `-` for stdout, or None.
        events_data: which part of payloads they carry.
        jobs: how many processes.
        verbosity: -1 quiet, 0, or the number of `-v`.
    """

    captures: tuple[str, ...]
    problems: tuple[str, ...]
    loaded: LoadedConfig
    callouts: tuple[CalloutText, ...]
    settings: dict[str, Any]
    outputs: tuple[str, ...] | None
    folder: str | None
    as_json: bool
    events: str | None
    events_data: Literal["off", "preview", "full"]
    jobs: int
    verbosity: int
