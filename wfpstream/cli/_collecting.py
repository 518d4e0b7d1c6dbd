"""The garbage collector while a proxy runs: seldom, and not over what lives as long as the process.

A flow is freed by counting references when it is over (a test holds that), so there is little to find, and looking for
it costs a fifth of a connection's CPU. Owns only the collector's settings.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["collecting_seldom"]

# New objects between two looks at the youngest; Python's own 700 is for programs that make more cycles.
_YOUNGEST = 20_000


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """As long as this lasts; what exists at its beginning is never looked at."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_YOUNGEST, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
