"""Metadata members and their presence bits (MET-3): a member whose bit is clear must not be read."""

from __future__ import annotations

import pytest

from tests.scenarios.support import Bench, Call, P, Script
from wfpstream.engine import EngineOptions
from wfpstream.fwps import IncomingMetadataValues
from wfpstream.testing import MemoryDriver

ABSENT = [
    "process_id",
    "process_path",
    "token",
    "sub_process_tag",
    "completion_handle",
    "transport_endpoint_handle",
    "parent_endpoint_handle",
    "redirect_records",
    "local_redirect_target_pid",
    "original_destination",
    "discard_metadata",
]


@pytest.mark.parametrize("member", ABSENT)
def test_met_3_reading_an_absent_member_is_told(member: str) -> None:
    """MET-3: under the verifier it has a poison value, and V-30 is reported."""
    plain, seen = getattr(IncomingMetadataValues(), member), []

    def read(call: Call) -> None:
        seen.append(getattr(call.meta, member))

    with Bench(Script(P(0, read)), violations=["V-30"]) as bench:
        bench.send(b"x")
        assert seen != [plain]
        assert bench.to_remote == (b"x", False)


def test_met_3_what_is_there_may_be_read() -> None:
    """MET-3: the closest legal case: members whose bit is set, and our extensions (MET-5)."""

    def read(call: Call) -> None:
        meta = call.meta
        assert (meta.flow_handle, meta.system_flags, meta.compartment_id) == (call.flow_id, 0, 1)
        assert (meta.listener, meta.redirect_context, meta.flags) == ("", None, 0)
        assert meta.upstream_address == ("10.0.0.2", 80)

    with Bench(Script(P(0, read))) as bench:
        bench.send(b"x")
        assert bench.to_remote == (b"x", False)


def test_met_3_without_the_verifier_nothing_is_told() -> None:
    """MET-3: poison and report belong to the verifier."""
    options = EngineOptions()
    options.verify.level = "off"
    with MemoryDriver(options) as driver:
        driver.add(Script(P(0, lambda call: call.meta.process_id)))
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
        assert flow.remote.data == b"x"
