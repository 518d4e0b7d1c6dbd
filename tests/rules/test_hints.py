"""What `verify.hints` turns on (VRF-4): guesses that also fit legal callouts."""

from __future__ import annotations

import pytest

from tests.scenarios.support import SEND, B, Bench, P, Script
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus


@pytest.mark.parametrize(("hints", "violations"), [(True, ["V-20"]), (False, [])])
def test_inl_5_bytes_blocked_and_never_compensated_are_told(hints: bool, violations: list[str]) -> None:
    """INL-5, V-20: at flow end blocked > 0 and nothing was injected after the last BLOCK."""
    options = EngineOptions()
    options.verify.hints = hints
    with Bench(Script(B(0), P(0)), options=options, violations=violations) as bench:
        bench.send(b"clo")
        bench.send_fin()
        bench.receive_fin()
        assert bench.to_remote == (b"", True)
        assert bench.to_local == (b"", True)


def test_inl_5_bytes_compensated_later_are_not_told() -> None:
    """INL-5, V-20: the closest legal case: the copy is injected after the BLOCK."""
    options = EngineOptions()
    options.verify.hints = True
    a = Script(B(0), P(0))
    with Bench(a, options=options) as bench:
        bench.send(b"clo")
        assert a.inject_bytes(SEND, b"clo") == NtStatus.STATUS_SUCCESS
        bench.send_fin()
        bench.receive_fin()
        assert bench.completions == ["cmp('clo', SUCCESS)"]
        assert bench.to_remote == (b"clo", True)
        assert bench.to_local == (b"", True)
