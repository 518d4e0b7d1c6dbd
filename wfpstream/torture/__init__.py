"""Floor 4: what a relay does to TCP at its edges, tried from both sides of it; any relay, not only ours."""

from __future__ import annotations

from wfpstream.torture._records import (
    FULL,
    QUICK,
    CaseResult,
    Finding,
    Profile,
    TortureError,
    Verdict,
)
from wfpstream.torture._suite import choose_cases, list_cases, torture

__all__ = [
    "FULL",
    "QUICK",
    "CaseResult",
    "Finding",
    "Profile",
    "TortureError",
    "Verdict",
    "choose_cases",
    "list_cases",
    "torture",
]
