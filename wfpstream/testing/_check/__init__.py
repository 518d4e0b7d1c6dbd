"""`check_callout`: a callout over every cut, order, end and schedule of samples; the smallest case that goes wrong.

Owns the search and the report. It must not know pytest or the command line.
"""

from __future__ import annotations

from ._callout import CheckFailed, check_callout, examine_callout
from ._judge import Problem
from ._mixtures import HypothesisMissing
from ._report import CheckFailure, CheckReport
from ._samples import Said, Sample

__all__ = [
    "CheckFailed",
    "CheckFailure",
    "CheckReport",
    "HypothesisMissing",
    "Problem",
    "Said",
    "Sample",
    "check_callout",
    "examine_callout",
]
