"""A new set of filters on a running flow (MGMT-12), and that it gives no false alarm (VRF-1)."""

from __future__ import annotations

from tests.scenarios.support import Script
from tests.scenarios.support_api import ManagedBench, key, registered
from wfpstream.fwp import CalloutFlags, NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS
MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


def test_mgmt_12_the_match_set_follows_the_policy_generation() -> None:
    """MGMT-12: conditions are evaluated for the flow once, and again for a new set of filters."""
    a = Script(name="A", flags=MID_STREAM)
    with ManagedBench(a, add=registered(a)) as bench:
        bench.send(b"a", b"b")
        assert bench.log == ["A(S1 'a')", "A(S1 'b')"]
        assert bench.plane.session.filter_delete_by_key(key("filter A")) == SUCCESS
        bench.send(b"c")
        assert bench.plane.callout_filter(a, sub_layer=key("sublayer A"))[0] == SUCCESS
        bench.send(b"d")
        assert bench.log == ["A(S1 'a')", "A(S1 'b')", "A(S1 'd')"]
        assert bench.to_remote == (b"abcd", False)
