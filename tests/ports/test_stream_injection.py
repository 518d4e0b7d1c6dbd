"""WFPSampler's stream injection callouts pass every stream through unchanged (SC-60, OOB-10, SC-126)."""

from __future__ import annotations

import pytest

from tests.ports.bench import PortBench, verifying
from tests.ports.stream_injection import BasicStreamInjection, FastStreamInjection, StreamInjection
from tests.scenarios.support import cuttings
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS
KINDS = ["fast", "basic"]


def load(bench: PortBench, kind: str) -> StreamInjection:
    """Load one of the callouts; the flow follows."""
    machine = bench.machine("A")
    port: StreamInjection
    if kind == "fast":
        port = FastStreamInjection(machine)
    else:
        port = BasicStreamInjection(machine, out_of_band=kind == "out of band")
    bench.load(port)
    bench.connect()
    return port


@pytest.mark.parametrize("kind", KINDS)
def test_sc_60_every_indication_is_injected(kind: str) -> None:
    with PortBench() as bench:
        load(bench, kind)
        bench.send(b"abc")
        bench.receive(b"xyz")
        bench.send_fin()
        assert bench.to_remote == (b"abc", True)
        assert not bench.has_ended()
        bench.receive_fin()
        assert bench.calls == [
            "A(S3 'abc') -> clone, inj('abc'), B 0",
            "A(R3 'xyz') -> clone, inj('xyz'), B 0",
            "A(S FIN +N) -> clone, inj(FIN), B 0",
            "A(R FIN +N) -> clone, inj(FIN), B 0",
        ]
        assert bench.completions == [
            "cmp('abc', SUCCESS)",
            "cmp('xyz', SUCCESS)",
            "cmp(FIN, SUCCESS)",
            "cmp(FIN, SUCCESS)",
        ]
        assert bench.to_local == (b"xyz", True)
        assert bench.has_ended()
        assert bench.resets == (False, False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", cuttings(b"pass-through"), ids=len)
def test_sc_60_at_any_cuts(kind: str, pieces: list[bytes]) -> None:
    with PortBench() as bench:
        load(bench, kind)
        bench.send(*pieces)
        bench.receive(*pieces)
        bench.send_fin()
        bench.receive_fin()
        assert bench.to_remote == (b"pass-through", True)
        assert bench.to_local == (b"pass-through", True)
        assert len(bench.completions) == 2 * len(pieces) + 2
        for direction in (0, 1):
            led = bench.flow.ledger(direction)
            assert (led.read, led.blocked_original, led.injected, led.written) == (12, 12, 12, 12)


@pytest.mark.parametrize("kind", KINDS)
def test_sc_60_abort_is_refused(kind: str) -> None:
    # The call is made from inside the ABORT's own classify.
    with PortBench(violations=["V-37"]) as bench:
        load(bench, kind)
        bench.send(b"abc")
        bench.reset("local")
        assert bench.calls == [
            "A(S3 'abc') -> clone, inj('abc'), B 0",
            "A(S ABORT +N) -> clone, inj('') = FWP_NOT_FOUND, discard, B 0",
        ]
        assert bench.completions == ["cmp('abc', SUCCESS)"]
        assert bench.to_remote == (b"abc", False)
        assert bench.resets == (True, True)


def load_out_of_band(bench: PortBench) -> BasicStreamInjection:
    port = load(bench, "out of band")
    assert isinstance(port, BasicStreamInjection)
    return port


@pytest.mark.parametrize("mdls", [1, 3])
def test_basic_out_of_band_injects_references_from_a_worker(mdls: int) -> None:
    options = verifying()
    options.indicate_mdls = mdls
    with PortBench(options=options) as bench:
        port = load_out_of_band(bench)
        bench.send(b"abc", b"def")
        bench.receive(b"xyz")
        bench.send_fin()
        bench.receive_fin()
        assert bench.calls == [
            "A(S3 'abc') -> B 0",
            "A(S3 'def') -> B 0",
            "A(R3 'xyz') -> B 0",
            "A(S FIN +N) -> B 0",
            "A(R FIN +N) -> B 0",
        ]
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert not bench.has_ended()
        port.run_worker()
        bench.driver.settle()
        assert bench.to_remote == (b"abcdef", True)
        assert bench.to_local == (b"xyz", True)
        assert len(bench.completions) == 5
        assert bench.has_ended()


def test_basic_out_of_band_after_a_reset() -> None:
    # A worker that comes after the end is the ordinary race: no violation (VRF-2).
    with PortBench() as bench:
        port = load_out_of_band(bench)
        bench.send(b"abc")
        bench.reset("remote")
        assert bench.calls == ["A(S3 'abc') -> B 0", "A(R ABORT +N) -> B 0"]
        assert bench.has_ended()
        port.run_worker()
        assert bench.calls[2:] == [
            "clone", "inj(S, 'abc') = FWP_NOT_FOUND", "discard",
            "clone", "inj(R, '') = FWP_NOT_FOUND", "discard",
        ]  # fmt: skip
        assert bench.completions == []
        assert bench.to_remote == (b"", False)
        bench.driver.advance(60.0)


def test_unload_of_an_injecting_driver() -> None:
    with PortBench() as bench:
        port = load(bench, "basic")
        bench.send(b"before ")
        statuses = port.unload()
        assert statuses.handle_destroy == SUCCESS
        assert statuses.unregister == [SUCCESS, SUCCESS]
        assert statuses.sub_layer_delete == NtStatus.STATUS_FWP_IN_USE
        assert statuses.engine_close == SUCCESS
        bench.send(b"after")
        assert bench.to_remote == (b"before after", False)
        assert len(bench.calls) == 1
