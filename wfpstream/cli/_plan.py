"""What `wfpstream run` was asked for, as one record between reading the options and running.

Owns the record only; `_run` fills it, `_proxy` obeys it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from wfpstream.config import CalloutText, LoadedConfig


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything `run` was asked for.

    Args:
        loaded: the configuration, its listeners and sections completed by the command line.
        callouts: those of `--callout`, in order.
        events: where event lines go: a file, `-` for stdout, or None.
        events_data: which part of payloads they carry.
        ready_file: what to write once everything listens, or None.
        grace: seconds that flows may take to end at a stop.
        verbosity: -1 quiet, 0, or the number of `-v`.
        command: the program to run beside the proxy, with its arguments.
    """

    loaded: LoadedConfig
    callouts: tuple[CalloutText, ...] = ()
    events: str | None = None
    events_data: Literal["off", "preview", "full"] = "off"
    ready_file: Path | None = None
    grace: float = 5.0
    verbosity: int = 0
    command: tuple[str, ...] = ()
