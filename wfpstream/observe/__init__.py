"""Floor 4: event sinks: JSON lines, lines for people; and the files they are written to.

Sinks are plain callables for `FilterEngine.add_sink`. They never raise and never wait for a reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfpstream.observe._files import open_private_file, replace_private_file, write_private_file
from wfpstream.observe._human import HumanLines, describe_ends, describe_event, describe_flow
from wfpstream.observe._json_lines import DataMode, JsonLines, wall_time
from wfpstream.observe._names import event_keys
from wfpstream.observe._schema import events_schema
from wfpstream.observe._text import safe_bytes, safe_text

if TYPE_CHECKING:
    from wfpstream.observe._merging import LineMerger, open_event_pipe

__all__ = [
    "DataMode",
    "HumanLines",
    "JsonLines",
    "LineMerger",
    "describe_ends",
    "describe_event",
    "describe_flow",
    "event_keys",
    "events_schema",
    "open_event_pipe",
    "open_private_file",
    "replace_private_file",
    "safe_bytes",
    "safe_text",
    "wall_time",
    "write_private_file",
]

_OF_MERGING = ("LineMerger", "open_event_pipe")


def __getattr__(name: str) -> object:
    """Load the merger, and trio with it, only for who merges."""
    if name in _OF_MERGING:
        from wfpstream.observe import _merging

        return getattr(_merging, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
