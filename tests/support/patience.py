"""Longer waiting for `wfp_proxy`: five seconds suit who looks at a test, not a machine that has other things to do.

Owns how long our own tests wait for what a proxy does, where they say nothing else. Import `patient` in a conftest.
"""

from __future__ import annotations

import pytest

from wfpstream.pytest_plugin import WfpProxy

# Bounds what would otherwise hang for ever; never what a test waits for.
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait_flow`, `wait_event`, `idle` and their twins have time."""
    for name in ("wait_flow", "wait_event", "idle"):
        for method in (vars(WfpProxy)[name], vars(WfpProxy)[f"{name}_async"]):
            if method.__kwdefaults__:
                monkeypatch.setitem(method.__kwdefaults__, "timeout", PATIENCE)
            else:
                monkeypatch.setattr(method, "__defaults__", (*method.__defaults__[:-1], PATIENCE))
