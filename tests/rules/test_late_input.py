"""Input that meets a flow which ends while the engine catches up (DEF-6, DRP-2, LED-4)."""

from __future__ import annotations

import pytest

from tests.scenarios.support import DEF, DROP, Answer, Bench, Call, P, Script
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS


def abort(call: Call) -> None:
    assert call.owner.fwps.flow_abort(call.flow_id) == SUCCESS


@pytest.mark.parametrize("ending", [DROP(), P(0, abort)], ids=["drop", "abort"])
def test_drp_2_bytes_that_come_with_the_end_are_counted(ending: Answer) -> None:
    """DRP-2, LED-4: continued bytes are shown before later-read ones (DEF-6) and end the flow there."""
    a = Script(DEF(), ending)
    with Bench(a) as bench:
        bench.receive(b"ab", b"cde")
        assert bench.flow.pending_input(1) == 3
        assert a.resume() == SUCCESS
        bench.reset("remote")  # what its kernel still held is read first (IND-27)
        assert bench.log == ["A(R2 'ab')", "A(R2 'ab')"]
        assert bench.resets == (True, True)
        ledger = bench.flow.ledger(1)
        assert (ledger.held, ledger.queued, ledger.unsent) == (0, 0, 0)
        assert ledger.read == ledger.discarded
        assert bench.to_local == (b"", False)
