"""Floor 2: the built-in callouts, finding callouts by name, and what authors of callouts may build on.

Owns one file per callout. It must not know drivers, management or configuration.
"""

from __future__ import annotations

from ._options import (
    OptionError,
    OptionInfo,
    Rate,
    Size,
    Text,
    Time,
    as_bytes,
    convert_options,
    parse_rate,
    parse_size,
    parse_time,
)
from ._registry import (
    BUILT_IN,
    GROUP,
    CalloutInfo,
    UnknownCalloutError,
    code_digest,
    create_callout,
    describe_callout,
    find_callout,
    list_callouts,
)
from ._sequential import SequentialCallout, Step, Steps, block, need, permit, replace
from .allow_after import AllowAfter
from .banner import Banner
from .fault import Fault
from .framer import Framer
from .latency import Latency
from .monitor import DirectionStats, FlowStats, Monitor
from .pattern_drop import PatternDrop
from .pend_fin import PendFin
from .stream_edit import StreamEdit
from .throttle import Throttle

__all__ = [
    "BUILT_IN",
    "GROUP",
    "AllowAfter",
    "Banner",
    "CalloutInfo",
    "DirectionStats",
    "Fault",
    "FlowStats",
    "Framer",
    "Latency",
    "Monitor",
    "OptionError",
    "OptionInfo",
    "PatternDrop",
    "PendFin",
    "Rate",
    "SequentialCallout",
    "Size",
    "Step",
    "Steps",
    "StreamEdit",
    "Text",
    "Throttle",
    "Time",
    "UnknownCalloutError",
    "as_bytes",
    "block",
    "code_digest",
    "convert_options",
    "create_callout",
    "describe_callout",
    "find_callout",
    "list_callouts",
    "need",
    "parse_rate",
    "parse_size",
    "parse_time",
    "permit",
    "replace",
]
