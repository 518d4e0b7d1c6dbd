"""The monitor port: contexts at FLOW_ESTABLISHED, CONDITIONAL_ON_FLOW, and inspection that changes nothing."""

from __future__ import annotations

import pytest

from tests.ports.bench import PortBench
from tests.ports.monitor import Message, Monitor
from tests.scenarios.support import cuttings
from wfpstream.fwp import NtStatus
from wfpstream.fwps import LayerId

SUCCESS = NtStatus.STATUS_SUCCESS
PORT = 1863
TEXT = b"MSG 1 N 50\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n\r\nhello there"


def load(bench: PortBench, remote_port: int = PORT) -> Monitor:
    port = Monitor(bench.machine("A"), remote_port)
    bench.load(port)
    return port


def connect(bench: PortBench, remote_port: int = PORT) -> None:
    bench.connect_to(("10.0.0.1", 50000), ("10.0.0.2", remote_port))


def test_monitor_reports_messages_of_both_directions() -> None:
    with PortBench() as bench:
        port = load(bench)
        connect(bench)
        (flow,) = port.flows
        assert flow.flow_handle == bench.flow.id
        assert flow.local_address.value == 0x0A000001
        assert flow.remote_address.value == 0x0A000002
        assert (flow.local_port.value, flow.remote_port.value) == (50000, PORT)
        assert flow.ip_proto.value == 6
        bench.send(TEXT)
        bench.receive(b"ACK 1\r\n", TEXT)
        bench.send_fin()
        bench.receive_fin()
        assert bench.calls == [
            f"A(S{len(TEXT)}) -> C 0",
            "A(R7 'ACK 1\\r\\n') -> C 0",
            f"A(R{len(TEXT)}) -> C 0",
            "A(S FIN +N) -> C 0",
            "A(R FIN +N) -> C 0",
            "flowDelete(A)",
        ]
        assert port.messages == [
            Message(False, 50000, PORT, b"hello there"),
            Message(True, 50000, PORT, b"hello there"),
        ]
        assert bench.to_remote == (TEXT, True)
        assert bench.to_local == (b"ACK 1\r\n" + TEXT, True)
        assert port.flows == []


def test_monitor_is_not_asked_for_other_flows() -> None:
    # CFN-1: without a context the stream callout is skipped, although its filter has no condition.
    with PortBench() as bench:
        port = load(bench)
        connect(bench, 80)
        assert port.flows == []
        bench.send(TEXT)
        bench.receive(TEXT)
        bench.send_fin()
        bench.receive_fin()
        assert bench.calls == []
        assert port.messages == []
        assert bench.to_remote == (TEXT, True)
        assert bench.to_local == (TEXT, True)


@pytest.mark.parametrize("pieces", cuttings(TEXT), ids=len)
def test_monitor_changes_nothing_at_any_cuts(pieces: list[bytes]) -> None:
    with PortBench() as bench:
        load(bench)
        connect(bench)
        bench.send(*pieces)
        bench.receive(*pieces)
        assert bench.to_remote == (TEXT, False)
        assert bench.to_local == (TEXT, False)
        for direction in (0, 1):
            led = bench.flow.ledger(direction)
            assert (led.read, led.injected, led.blocked_original, led.written) == (len(TEXT), 0, 0, len(TEXT))


def test_monitor_switched_off() -> None:
    with PortBench() as bench:
        port = load(bench)
        port.monitoring = False
        connect(bench)
        assert port.flows == []
        port.monitoring = True
        bench.send(TEXT)
        assert bench.calls == []
        assert port.messages == []
        assert bench.to_remote == (TEXT, False)


def test_monitor_flow_ends_by_a_reset() -> None:
    with PortBench() as bench:
        port = load(bench)
        connect(bench)
        bench.send(b"MSG")
        bench.reset("remote")
        assert bench.calls == ["A(S3 'MSG') -> C 0", "A(R ABORT +N) -> C 0", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert port.flows == []


def test_monitor_unload_with_live_flows() -> None:
    with PortBench() as bench:
        port = load(bench)
        connect(bench)
        first = bench.flow
        connect(bench)
        assert len(port.flows) == 2
        # UNR-2: a flow still holds a context of the callout, which goes on (UNR-3).
        busy = port.fwps.callout_unregister_by_id(port.callout_ids[LayerId.STREAM_V4])
        assert busy == NtStatus.STATUS_DEVICE_BUSY
        bench.send(TEXT)
        assert len(port.messages) == 1
        statuses = port.unload()
        assert statuses.remove_context == [SUCCESS, SUCCESS]
        assert statuses.unregister == [SUCCESS] * 4
        assert statuses.sub_layer_delete == NtStatus.STATUS_FWP_IN_USE
        assert statuses.engine_close == SUCCESS
        assert bench.calls[-2:] == ["flowDelete(A)", "flowDelete(A)"]
        assert port.flows == []
        bench.send(TEXT)
        first.send(TEXT)
        assert bytes(first.remote.data) == TEXT
        assert len(port.messages) == 1


def test_monitor_does_not_watch_new_flows_while_unloading() -> None:
    with PortBench() as bench:
        port = load(bench)
        port.unloading = True
        connect(bench)
        assert port.flows == []
        bench.send(TEXT)
        assert bench.calls == []
        port.unloading = False
