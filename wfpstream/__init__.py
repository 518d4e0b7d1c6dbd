"""wfpstream: the Windows Filtering Platform's TCP stream layer in user space, exact and fast."""

from __future__ import annotations

from wfpstream.engine import Endpoints, EngineOptions, FilterEngine
from wfpstream.fwp import FwpError, NtStatus

__version__ = "0.1.0"

__all__ = ["Endpoints", "EngineOptions", "FilterEngine", "FwpError", "NtStatus", "__version__"]
