"""Every test of a proxy over real sockets runs with both drivers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.transport import kit
from wfpstream.transport._connection import Driver

DRIVERS: list[Driver] = ["reactor", "stream"]
WITH_A_PROXY = (
    "test_admission",
    "test_interception",
    "test_last_words",
    "test_proxied",
    "test_proxy",
    "test_proxy_header",
    "test_rearrangement",
    "test_relay_sockets",
    "test_relay_streams",
    "test_served_last",
    "test_tap",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Twice, where there is a proxy."""
    if metafunc.module.__name__.rpartition(".")[2] in WITH_A_PROXY:
        metafunc.fixturenames.append("driver")
        metafunc.parametrize("driver", DRIVERS, indirect=True)


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """What `kit.live` hands to `serve_proxy`."""
    before, kit.current_driver = kit.current_driver, request.param
    yield request.param
    kit.current_driver = before
