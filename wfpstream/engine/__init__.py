"""Floor 3: the facade over management, run time and flows: input in, output out, net events."""

from __future__ import annotations

from wfpstream.fwps import (
    ABORT_FLUSH,
    ABORT_NONE,
    ABORT_NOW,
    FULL,
    QUIET,
    READ_ENDED,
    YES,
    Attempt,
    Endpoints,
    EngineOptions,
    Flow,
    Limits,
    Output,
    Policy,
    Timeouts,
    Verify,
)
from wfpstream.fwps import HELD_BACK as DEFERRED

from ._bridge import Bridge
from ._describe import describe_flow, describe_flow_in_depth, describe_load
from ._filter_engine import AddedCallout, FilterEngine
from ._left_behind import LEAK_RULES, left_behind
from ._tap import Leg, Place, Tap, tapped
from ._work import Work

ENDED = READ_ENDED

__all__ = [
    "ABORT_FLUSH",
    "ABORT_NONE",
    "ABORT_NOW",
    "DEFERRED",
    "ENDED",
    "FULL",
    "LEAK_RULES",
    "QUIET",
    "READ_ENDED",
    "YES",
    "AddedCallout",
    "Attempt",
    "Bridge",
    "Endpoints",
    "EngineOptions",
    "FilterEngine",
    "Flow",
    "Leg",
    "Limits",
    "Output",
    "Place",
    "Policy",
    "Tap",
    "Timeouts",
    "Verify",
    "Work",
    "describe_flow",
    "describe_flow_in_depth",
    "describe_load",
    "left_behind",
    "tapped",
]
