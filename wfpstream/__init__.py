"""wfpstream: the Windows Filtering Platform's TCP stream layer in user space, exact and fast.

Owns the public short cuts, loaded when they are first asked for: `wfpstream --help` needs no engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfpstream.engine import Endpoints, EngineOptions, FilterEngine
    from wfpstream.fwp import FwpError, NtStatus

__version__ = "0.1.0"

__all__ = ["Endpoints", "EngineOptions", "FilterEngine", "FwpError", "NtStatus", "__version__"]


def __getattr__(name: str) -> object:
    if name in ("FwpError", "NtStatus"):
        from wfpstream import fwp

        return getattr(fwp, name)
    if name in ("Endpoints", "EngineOptions", "FilterEngine"):
        from wfpstream import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
