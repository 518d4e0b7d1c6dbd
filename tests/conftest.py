"""What holds for every test: hypothesis profiles, and the `system` marker.

`@pytest.mark.system("tshark", "root")` names what a test needs outside Python ("root" is the right, not a
program); `tests.support.system.require` does the same from inside a test.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.support.system import require, require_root

# Runs of pytest inside a test: how our plugin is tested.
pytest_plugins = ("pytester",)

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile(
    "deep", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow]
)


def _profile() -> str:
    if os.environ.get("WFPSTREAM_DEEP"):
        return "deep"
    return "ci" if os.environ.get("CI") else "default"


settings.load_profile(_profile())


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip or fail a `system` test whose programs are missing."""
    for marker in item.iter_markers("system"):
        for program in marker.args:
            if program == "root":
                require_root()
            else:
                require(program)
