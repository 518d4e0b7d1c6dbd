"""The out-of-band port where it works: SC-51, SC-53, SC-61, and both ports in one machine: SC-66, SC-67."""

from __future__ import annotations

import pytest

from tests.ports.bench import PortBench, verifying
from tests.ports.inline_edit import InlineEdit
from tests.ports.oob_edit import OobEdit
from tests.ports.stream_edit import Settings

RAINY = Settings(b"rainy", b"cloudy")
CLOUDY = Settings(b"cloudy", b"sunny")


def load_oob(bench: PortBench, name: str = "A") -> OobEdit:
    port = OobEdit(bench.machine(name), RAINY)
    bench.load(port)
    return port


def run_worker(bench: PortBench, port: OobEdit) -> None:
    while port.work_items:
        port.run_work_items()
        bench.driver.settle()


def test_sc_51_edit_with_the_fin_pended() -> None:
    with PortBench() as bench:
        port = load_oob(bench)
        bench.connect()
        bench.send(b"x rainy")
        bench.send_fin()
        assert bench.calls == ["A(S7 'x rainy') -> clone, B 0", "A(S FIN +N) -> clone, B 0"]
        assert bench.to_remote == (b"", False)
        run_worker(bench, port)
        assert bench.calls[2:] == ["inj(S, 'x ')", "inj(S, 'cloudy')", "discard", "inj(S, FIN)"]
        assert bench.to_remote == (b"x cloudy", True)
        assert bench.completions == ["cmp('x ', SUCCESS)", "cmp('cloudy', SUCCESS)", "cmp(FIN, SUCCESS)"]
        assert not bench.has_ended()


@pytest.mark.parametrize("late", [False, True])
def test_sc_53_pended_fin_then_a_reset(late: bool) -> None:
    # Later than `verify.grace` the clone is a leak, and injecting it is no ordinary race any more (VRF-2, V-37).
    with PortBench(violations=["V-23", "V-37"] if late else []) as bench:
        port = load_oob(bench)
        bench.connect()
        bench.send_fin()
        bench.driver.advance(1.0)
        bench.reset("remote")
        assert bench.calls == ["A(S FIN +N) -> clone, B 0", "A(R ABORT +N) -> B 0", "flowDelete(A)"]
        assert bench.resets == (True, True)
        bench.driver.advance(6.0 if late else 4.0)
        run_worker(bench, port)
        assert bench.calls[3:] == ["inj(S, FIN) = FWP_NOT_FOUND", "discard"]


def several_edits(bench: PortBench, port: OobEdit) -> None:
    bench.send(b"rainy and rainy", b"rainy", b"ra", b"iny.")
    run_worker(bench, port)
    assert bench.calls == [
        "A(S15 'rainy and rainy') -> clone, B 0",
        "A(S5 'rainy') -> clone, B 0",
        "A(S2 'ra') -> NMD 5",
        "A(S6 'rainy.') -> clone, B 0",
        "inj(S, 'cloudy')",
        "inj(S, ' and ')",
        "inj(S, 'cloudy')",
        "discard",
        "inj(S, 'cloudy')",
        "discard",
        "inj(S, 'cloudy')",
        "inj(S, '.')",
        "discard",
    ]


def test_oob_edit_replaces_every_match() -> None:
    """The last item is two lists: the worker copies them through one private FWPS_STREAM_DATA0 (CPY-2)."""
    with PortBench() as bench:
        port = load_oob(bench)
        bench.connect()
        several_edits(bench, port)
        assert bench.to_remote == (b"cloudy and cloudycloudycloudy.", False)
        assert len(bench.completions) == 6


@pytest.mark.parametrize("size", [1_000, 4_096, 16_384, 65_536])
def test_sc_61_busy_threshold(size: int) -> None:
    stream = b"0123456789abcdef" * 65_536
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    with PortBench() as bench:
        port = load_oob(bench)
        bench.connect()
        bench.receive(*pieces)
        bench.receive_fin()
        assert bench.calls[-1].endswith("-> DEF")
        assert bench.flow.pending_input(1) > 0
        run_worker(bench, port)
        assert bench.to_local == (stream, True)
        calls = bench.calls
        assert calls.count("A(R FIN +N) -> clone, B 0") == 1
        assert calls[-1] == "inj(R, FIN)"
        deferrals = [at for at, call in enumerate(calls) if call.endswith("-> DEF")]
        assert calls.count("continue") == len(deferrals) > 1
        assert {entry.rpartition(", ")[2] for entry in bench.completions} == {"SUCCESS)"}


def test_sc_66_out_of_band_above_inline() -> None:
    with PortBench(inbound=True) as bench:
        port = load_oob(bench)
        bench.load(InlineEdit(bench.machine("B"), CLOUDY))
        bench.connect()
        bench.receive(b"it is rainy today")
        run_worker(bench, port)
        assert bench.calls == [
            "A(R17 'it is rainy today') -> clone, B 0",
            "inj(R, 'it is ')",
            "B(R6 'it is ' m17) -> P 0",
            "inj(R, 'cloudy')",
            "B(R6 'cloudy') -> inj('sunny'), B 6",
            "inj(R, ' today')",
            "B(R6 ' today') -> P 0",
            "discard",
        ]
        assert bench.to_local == (b"it is sunny today", False)
        assert sorted(bench.completions) == [
            "cmp(' today', SUCCESS)",
            "cmp('cloudy', SUCCESS)",
            "cmp('it is ', SUCCESS)",
            "cmp('sunny', SUCCESS)",
        ]
        # CMP-6: first in, first out for the stage that injected.
        own = [entry for entry in bench.completions if "sunny" not in entry]
        assert own == ["cmp('it is ', SUCCESS)", "cmp('cloudy', SUCCESS)", "cmp(' today', SUCCESS)"]


@pytest.mark.parametrize("completion", ["normal", "early"])
@pytest.mark.parametrize("delivery", ["inline", "queued"])
def test_sc_66_whenever_lower_stages_and_completions_run(completion: str, delivery: str) -> None:
    """SC-132, SC-133, IRQ-5: the bytes, the calls of B, and the order of A's completions stay."""
    options = verifying()
    options.completion = completion
    options.inject_delivery = delivery
    with PortBench(inbound=True, options=options) as bench:
        port = load_oob(bench)
        bench.load(InlineEdit(bench.machine("B"), CLOUDY))
        bench.connect()
        bench.receive(b"it is rainy today")
        run_worker(bench, port)
        assert [call for call in bench.calls if call.startswith("B(")] == [
            "B(R6 'it is ' m17) -> P 0",
            "B(R6 'cloudy') -> inj('sunny'), B 6",
            "B(R6 ' today') -> P 0",
        ]
        assert bench.to_local == (b"it is sunny today", False)
        own = [entry for entry in bench.completions if "sunny" not in entry]
        assert own == ["cmp('it is ', SUCCESS)", "cmp('cloudy', SUCCESS)", "cmp(' today', SUCCESS)"]


def test_sc_67_inline_above_out_of_band() -> None:
    with PortBench(inbound=True) as bench:
        inline = InlineEdit(bench.machine("A"), CLOUDY)
        inline.sub_layer_weight = 0x60
        bench.load(inline)
        port = load_oob(bench, "B")
        bench.connect()
        bench.receive(b"it is rainy today")
        run_worker(bench, port)
        assert bench.calls == [
            "A(R17 'it is rainy today') -> P 0",
            "B(R17 'it is rainy today') -> clone, B 0",
            "inj(R, 'it is ')",
            "inj(R, 'cloudy')",
            "inj(R, ' today')",
            "discard",
        ]
        assert bench.to_local == (b"it is cloudy today", False)
