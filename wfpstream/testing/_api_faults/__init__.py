"""Calls of the API that fail on demand: at each call site once, or by chance, and what it means to survive that.

Owns the plans, the search for call sites and the report. It must not know how a call is made to fail (the engine asks a
judge), nor pytest.
"""

from __future__ import annotations

from ._plans import FAILING_CALLS, ApiFaults, Exploration, FailedCall, FaultRun, explore_api_faults
from ._report import ApiFaultReport, FaultResult, check_api_faults, fate_of
from ._sites import CallSite

__all__ = [
    "FAILING_CALLS",
    "ApiFaultReport",
    "ApiFaults",
    "CallSite",
    "Exploration",
    "FailedCall",
    "FaultResult",
    "FaultRun",
    "check_api_faults",
    "explore_api_faults",
    "fate_of",
]
