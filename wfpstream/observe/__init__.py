"""Floor 4: event sinks: JSON lines, lines for people; and the files they are written to.

Sinks are plain callables for `FilterEngine.add_sink`. They never raise and never wait for a reader.
"""

from __future__ import annotations

from wfpstream.observe._files import open_private_file, replace_private_file, write_private_file
from wfpstream.observe._human import HumanLines, describe_ends, describe_event, describe_flow
from wfpstream.observe._json_lines import DataMode, JsonLines, wall_time
from wfpstream.observe._schema import events_schema
from wfpstream.observe._text import safe_bytes, safe_text

__all__ = [
    "DataMode",
    "HumanLines",
    "JsonLines",
    "describe_ends",
    "describe_event",
    "describe_flow",
    "events_schema",
    "open_private_file",
    "replace_private_file",
    "safe_bytes",
    "safe_text",
    "wall_time",
    "write_private_file",
]
