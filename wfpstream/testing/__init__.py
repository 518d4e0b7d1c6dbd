"""Floor 4: driving an engine from tests, without sockets or an event loop, and comparing what happened."""

from __future__ import annotations

from ._accounted import accounted
from ._api_fault_report import ApiFaultReport, FaultResult, check_api_faults, fate_of
from ._api_faults import FAILING_CALLS, ApiFaults, Exploration, FailedCall, FaultRun, explore_api_faults
from ._call_sites import CallSite
from ._canonical import (
    CanonicalDirection,
    CanonicalFlow,
    CanonicalInjection,
    CanonicalLog,
    CanonicalRun,
    CanonicalStage,
    canonical,
    canonical_diff,
)
from ._check import (
    CheckFailed,
    CheckFailure,
    CheckReport,
    HypothesisMissing,
    Problem,
    Said,
    Sample,
    check_callout,
    examine_callout,
)
from ._check_driver import DriverReport, check_driver
from ._chop import Chop, Cutter
from ._memory_driver import EventList, FlowEnds, MemoryDriver, Peer
from ._memory_world import MemoryWorld
from ._pair import ConnectionBlocked, Pair, PairedCallout, PairEnd, WouldBlock, make_pair
from ._playbook import Playbook, PlaybookError, first_difference
from ._recorder import Moment, Recorder
from ._trace_lines import normal_line, trace_lines
from ._traces import in_order
from ._vectors import Vector, VectorCase, can_run, run_case, vector, vectors, vectors_schema
from ._world import (
    CAPABILITIES,
    Act,
    Connect,
    EndState,
    Fin,
    Reset,
    Send,
    Side,
    Step,
    Wait,
    Window,
    World,
    WorldOutcome,
    WorldScript,
)

__all__ = [
    "CAPABILITIES",
    "FAILING_CALLS",
    "Act",
    "ApiFaultReport",
    "ApiFaults",
    "CallSite",
    "CanonicalDirection",
    "CanonicalFlow",
    "CanonicalInjection",
    "CanonicalLog",
    "CanonicalRun",
    "CanonicalStage",
    "CheckFailed",
    "CheckFailure",
    "CheckReport",
    "Chop",
    "Connect",
    "ConnectionBlocked",
    "Cutter",
    "DriverReport",
    "EndState",
    "EventList",
    "Exploration",
    "FailedCall",
    "FaultResult",
    "FaultRun",
    "Fin",
    "FlowEnds",
    "HypothesisMissing",
    "MemoryDriver",
    "MemoryWorld",
    "Moment",
    "Pair",
    "PairEnd",
    "PairedCallout",
    "Peer",
    "Playbook",
    "PlaybookError",
    "Problem",
    "Recorder",
    "Reset",
    "Said",
    "Sample",
    "Send",
    "Side",
    "Step",
    "Vector",
    "VectorCase",
    "Wait",
    "Window",
    "World",
    "WorldOutcome",
    "WorldScript",
    "WouldBlock",
    "accounted",
    "can_run",
    "canonical",
    "canonical_diff",
    "check_api_faults",
    "check_callout",
    "check_driver",
    "examine_callout",
    "explore_api_faults",
    "fate_of",
    "first_difference",
    "in_order",
    "make_pair",
    "normal_line",
    "run_case",
    "trace_lines",
    "vector",
    "vectors",
    "vectors_schema",
]
