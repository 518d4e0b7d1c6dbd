"""Hard limits (IND-24): where stopping the reading cannot help, `on_limit` decides.

Owns memory that grows without a byte being read; back-pressure is with the memory limits.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import SEND, B, Bench, Script, clone
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS


@pytest.mark.parametrize("limit", ["per_flow", "total"])
@pytest.mark.parametrize("value", ["drop", "permit"])
def test_ind_24_memory_that_grows_after_the_reading_stopped(limit: str, value: str) -> None:
    """IND-24: `per_flow` or `total` reached by a flow that has stopped reading already: `on_limit`.

    Pended bytes stopped the reading; injections of the callout's own make do the rest. POL-3: a callout that
    cannot drain is dropped whatever the value.
    """
    options = EngineOptions()
    setattr(options.limits, limit, 100)
    options.policy.on_limit = value
    a = Script(then=B(0, clone))
    with Bench(a, options=options) as bench:
        bench.flow.remote.window = 0
        bench.send(b"0" * 60, b"1" * 60)
        assert bench.flow.pending_input(0) == 60
        assert bench.resets == (False, False)
        assert a.inject_bytes(SEND, b"x" * 60) == SUCCESS
        bench.settle()
        assert bench.resets == (True, True)
        assert bench.driver.engine.counters[f"policy.on_limit.{value}"] >= 1
        a.discard_pended()
        assert len(bench.completions) == 1
        assert bench.to_remote == (b"", False)
