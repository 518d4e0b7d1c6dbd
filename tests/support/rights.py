"""Being somebody with fewer rights for a moment: what root may always do, others must be refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """File access as user `nobody`, if we are root; others have no more rights than their own already.

    Modules that are still to be imported may be out of reach meanwhile: do once before what is to be refused.
    """
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
