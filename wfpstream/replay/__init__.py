"""Floor 4: captures through the same engine: reading, reassembly, the replay driver, the output capture.

The only room that may import scapy (GPL-2.0-only), and it does so when a capture is opened. It must not know
configuration files, event files or the command line.
"""

from __future__ import annotations

from wfpstream.wire import StreamWriter

from ._jobs import replay_captures
from ._options import ReplayOptions
from ._output import CaptureFile, format_of
from ._reader import CaptureError, CaptureReader, open_capture
from ._replay import CaptureReplay, ReplayResult, replay_capture
from ._results import CaptureSummary, DirectionResult, StreamResult
from ._task import ReplayTask, TaskResult, run_task
from ._workers import WorkerProcesses

__all__ = [
    "CaptureError",
    "CaptureFile",
    "CaptureReader",
    "CaptureReplay",
    "CaptureSummary",
    "DirectionResult",
    "ReplayOptions",
    "ReplayResult",
    "ReplayTask",
    "StreamResult",
    "StreamWriter",
    "TaskResult",
    "WorkerProcesses",
    "format_of",
    "open_capture",
    "replay_capture",
    "replay_captures",
    "run_task",
]
