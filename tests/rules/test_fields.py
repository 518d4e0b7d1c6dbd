"""Fixed fields and metadata (FLD-1..10, MET-*): what a callout learns about a connection.

Owns types and values at the stream layer and at FLOW_ESTABLISHED; the connection layers' are under scenarios.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import (
    Bench,
    C,
    Call,
    P,
    Script,
)
from tests.scenarios.support_connections import Gate, go_on
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, DataType
from wfpstream.fwps import (
    Callout,
    FieldsAleFlowEstablished,
    FieldsStream,
    MetadataField,
)
from wfpstream.testing import FlowEnds, MemoryDriver

ESTABLISHED = "ale_flow_established"


def connect(driver: MemoryDriver, **options: Any) -> FlowEnds:
    flow = driver.connect(**options)
    assert flow is not None
    return flow


# --- fixed fields ---------------------------------------------------------------------------------


def stream_fields(driver: MemoryDriver, **options: Any) -> tuple[Any, ...]:
    """The fixed values of one SEND, one RECEIVE and one FIN indication; they must be the same."""
    seen: list[tuple[Any, ...]] = []

    def look(call: Call) -> None:
        assert call.fixed.value_count == len(call.fixed.incoming_value)
        seen.append(tuple(call.fixed.incoming_value))

    driver.add(Script(*(P(0, look) for _ in range(3))))
    flow = connect(driver, **options)
    flow.send(b"x")
    flow.receive(b"y")
    flow.send_fin()
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]  # FLD-9
    return seen[0]


CLIENT, SERVER, LISTENER = ("10.0.0.1", 4000), ("10.0.0.2", 80), ("10.0.0.9", 8888)


@pytest.mark.parametrize(
    ("local", "local_address", "remote_address", "direction"),
    [("client", CLIENT, SERVER, 0), ("server", LISTENER, CLIENT, 1)],
)
def test_fld_1_to_10_at_stream_v4(
    local: str, local_address: tuple[str, int], remote_address: tuple[str, int], direction: int
) -> None:
    """FLD-1, FLD-2, FLD-3, FLD-4, FLD-5, FLD-6, FLD-7, FLD-8, FLD-9, FLD-10: types and values."""
    numbers = {"10.0.0.1": 0x0A000001, "10.0.0.2": 0x0A000002, "10.0.0.9": 0x0A000009}
    with MemoryDriver(local=local) as driver:
        values = stream_fields(driver, client=CLIENT, server=SERVER, listener_address=LISTENER)
        got = [(one.type, one.value) for one in values]
        assert got == [
            (DataType.UINT32, numbers[local_address[0]]),
            (DataType.UINT8, 1),
            (DataType.UINT32, numbers[remote_address[0]]),
            (DataType.UINT16, local_address[1]),
            (DataType.UINT16, remote_address[1]),
            (DataType.UINT32, direction),
            (DataType.UINT32, 0),
            (DataType.UINT32, 1),
        ]
        assert [field.name for field in sorted(FieldsStream)] == [
            *("IP_LOCAL_ADDRESS", "IP_LOCAL_ADDRESS_TYPE", "IP_REMOTE_ADDRESS", "IP_LOCAL_PORT"),
            *("IP_REMOTE_PORT", "DIRECTION", "FLAGS", "COMPARTMENT_ID"),
        ]


def test_fld_1_and_3_at_stream_v6() -> None:
    """FLD-1, FLD-3: BYTE_ARRAY16; LAY-10: an IPv4 address in a V6 flow is v4-mapped."""
    with MemoryDriver() as driver:
        values = stream_fields(driver, client=("fd00::1", 4000), server=("10.0.0.2", 80))
        assert values[0].type == values[2].type == DataType.BYTE_ARRAY16_TYPE
        assert bytes(values[0].value) == b"\xfd" + bytes(14) + b"\x01"
        assert bytes(values[2].value) == bytes(10) + b"\xff\xff\x0a\x00\x00\x02"


def test_fld_3_an_ipv6_address_in_a_v4_flow() -> None:
    """FLD-3, LAY-10: presented as 0.0.0.0; `upstream_address` holds the truth."""
    upstream: list[object] = []
    with MemoryDriver() as driver:
        driver.add(Script(P(0, lambda call: upstream.append(call.meta.upstream_address)), name="U"))
        values = stream_fields(driver, client=CLIENT, server=("fd00::2", 443))
        assert (values[2].type, values[2].value, values[4].value) == (DataType.UINT32, 0, 443)
        assert upstream == [("fd00::2", 443)]


@pytest.mark.parametrize("local", ["client", "server"])
def test_fld_6_direction_is_that_of_the_connection(local: str) -> None:
    """FLD-6: the same for SEND and RECEIVE; a DIRECTION condition so matches both or neither."""
    with MemoryDriver(local=local) as driver:
        values = stream_fields(driver)
        assert values[FieldsStream.DIRECTION].value == (0 if local == "client" else 1)


@pytest.mark.parametrize(
    ("client", "server", "flags"),
    [
        ("127.0.0.1", "127.0.0.1", 1),
        ("127.0.0.1", "10.0.0.2", 0),
        ("10.0.0.1", "127.0.0.1", 0),
        ("::1", "::1", 1),
        ("fd00::1", "::1", 0),
        ("127.9.9.9", "127.0.0.1", 1),
    ],
)
def test_fld_7_is_loopback_iff_both_addresses_are(client: str, server: str, flags: int) -> None:
    """FLD-7: IS_LOOPBACK, else 0."""
    with MemoryDriver() as driver:
        values = stream_fields(driver, client=(client, 4000), server=(server, 80))
        assert values[FieldsStream.FLAGS].value == flags


@pytest.mark.parametrize(("profile", "count"), [("vista", 7), ("win7", 7), ("win8", 7), ("win10", 8)])
def test_fld_8_compartment_id_is_a_field_of_win10(profile: str, count: int) -> None:
    """FLD-8: valueCount 8 with COMPARTMENT_ID = 1, 7 in older profiles."""
    with MemoryDriver(EngineOptions(profile=profile)) as driver:
        a = Script()
        seen: list[int] = []
        a.add_answers(P(0, lambda call: seen.append(call.fixed.value_count)))
        a.version = 0 if profile == "vista" else 1
        if profile == "vista":
            driver.add(Version0(seen))
        else:
            driver.add(a)
        connect(driver).send(b"x")
        assert seen == [count]


class Version0(Callout):
    """Vista knows FwpsCalloutRegister0 only (OBJ-15)."""

    version = 0

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen

    def classify_fn(self, *arguments: Any) -> None:
        self.seen.append(arguments[0].value_count)
        arguments[-1].action_type = ActionType.PERMIT


@pytest.mark.parametrize("local", ["client", "server"])
def test_fld_1_to_10_at_flow_established(local: str) -> None:
    """FLD-6, FLD-10: 20 fields there; protocol 6, the same addresses, identity fields EMPTY."""
    gate = Gate(ESTABLISHED, go_on)
    with MemoryDriver(local=local) as driver:
        driver.add(gate)
        connect(driver, client=CLIENT, server=SERVER, listener_address=LISTENER)
        values = gate.calls[0].fixed.incoming_value
        fields = FieldsAleFlowEstablished
        assert len(values) == 20
        assert values[fields.IP_PROTOCOL].value == 6
        assert values[fields.DIRECTION].value == (0 if local == "client" else 1)
        assert values[fields.IP_LOCAL_PORT].value == (4000 if local == "client" else 8888)
        assert values[fields.IP_REMOTE_PORT].value == (80 if local == "client" else 4000)
        for field in (fields.ALE_APP_ID, fields.ALE_USER_ID, fields.ALE_PACKAGE_ID):
            assert values[field].type == DataType.EMPTY


# --- metadata -------------------------------------------------------------------------------------


def test_met_1_what_a_stream_indication_brings() -> None:
    """MET-1: FLOW_HANDLE always, SYSTEM_FLAGS, COMPARTMENT_ID; nothing else."""
    seen: list[Any] = []
    with Bench(Script(P(0, lambda call: seen.append(call.meta)))) as bench:
        bench.send(b"x")
        (meta,) = seen
        wanted = MetadataField.FLOW_HANDLE | MetadataField.SYSTEM_FLAGS | MetadataField.COMPARTMENT_ID
        assert meta.current_metadata_values == int(wanted)
        assert meta.flow_handle == bench.flow.id
        assert (meta.system_flags, meta.compartment_id, meta.flags) == (0, 1, 0)
        assert bench.to_remote == (b"x", False)


def test_met_2_what_flow_established_brings() -> None:
    """MET-2: FLOW_HANDLE is there; process members only if they can be filled."""
    gate = Gate(ESTABLISHED, go_on)
    with MemoryDriver() as driver:
        driver.add(gate)
        flow = connect(driver)
        meta = gate.calls[0].meta
        bits = MetadataField(meta.current_metadata_values)
        assert MetadataField.FLOW_HANDLE in bits
        assert meta.flow_handle == flow.id
        process = MetadataField.PROCESS_PATH | MetadataField.TOKEN | MetadataField.PROCESS_ID
        assert not bits & (process | MetadataField.SUB_PROCESS_TAG)


def test_met_5_our_extensions_need_no_presence_test() -> None:
    """MET-5: upstream_address, listener, redirect_context, at every layer of the connection."""
    seen: list[tuple[object, str, object]] = []

    def look(call: Any) -> None:
        seen.append((call.meta.upstream_address, call.meta.listener, call.meta.redirect_context))
        call.out.action_type = ActionType.CONTINUE

    with MemoryDriver() as driver:
        driver.add(Gate(ESTABLISHED, look))
        driver.add(Script(C(0, look)))
        connect(driver, listener="front").send(b"x")
        assert seen == [(("10.0.0.2", 80), "front", None)] * 2
