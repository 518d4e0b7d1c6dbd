"""The server behind the proxy of a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pytest_plugin.kit import Upstream
from tests.support.patience import patient

__all__ = ["patient", "upstream"]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A server that the test plays by hand."""
    server = Upstream()
    yield server
    server.close()
