"""The golden transcripts SC-111 to SC-124: faithful ports of the stream edit sample, call by call.

Each scenario's vector is played on the port, which answers for itself; what the tape then says must be what the vector
says (that the vector holds with scripted answers is `tests/scenarios`). The sample has faults, and the wrong output is
part of the expectation: it shows that the engine hands a port exactly what the sample would get. An assertion of the
sample is an expected event.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.ports.bench import PortBench, verifying
from tests.ports.golden import Golden, golden_case, golden_ids, play
from tests.ports.inline_edit import InlineEdit
from tests.ports.oob_edit import OobEdit
from tests.ports.stream_edit import Settings
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.testing import VectorCase

SUCCESS = NtStatus.STATUS_SUCCESS


class InlineBench(PortBench):
    """InlineEdit, "cloudy" becomes "sunny"; the flow is OUTBOUND."""

    def __init__(self) -> None:
        super().__init__()
        self.port = InlineEdit(self.machine("A"), Settings(b"cloudy", b"sunny"))
        self.load(self.port)
        self.connect()

    def __enter__(self) -> InlineBench:
        return self


class OobBench(PortBench):
    """OobEdit, "rainy" becomes "cloudy"; its worker runs when the test says so."""

    def __init__(self, case: VectorCase) -> None:
        super().__init__(
            violations=case.body.get("violations"),
            options=options_of(case),
            inbound=case.body.get("local") == "server",
        )
        self.port = OobEdit(self.machine("A"), Settings(b"rainy", b"cloudy"))
        self.load(self.port)
        self.connect()

    def __enter__(self) -> OobBench:
        return self

    def run_worker(self, step: dict[str, Any]) -> None:
        """What the worker injects, and what follows from it, to the end."""
        while self.port.work_items:
            self.port.run_work_items()
            self.driver.settle()


def options_of(case: VectorCase) -> EngineOptions:
    """The options that these cases have."""
    options, named = verifying(), case.body.get("options", {})
    options.indicate_abort = named.get("indicate_abort", True)
    options.timeouts.half_closed = named.get("timeouts", {}).get("half_closed", 0)
    return options


@pytest.mark.parametrize(("vector_id", "name"), golden_ids(111, 112, 113, 114, 115, 116, 117, 118))
def test_inline_edit_is_handed_what_the_vector_says(vector_id: str, name: str) -> None:
    """SC-111, SC-112, SC-113, SC-114, SC-115, SC-116, SC-117, SC-118."""

    def no_worker(step: dict[str, Any]) -> None:
        raise AssertionError("InlineEdit has no worker")

    with InlineBench() as bench:
        play(bench, golden_case(vector_id, name), no_worker)


@pytest.mark.parametrize(("vector_id", "name"), golden_ids(119, 120, 121, 122, 123))
def test_oob_edit_is_handed_what_the_vector_says(vector_id: str, name: str) -> None:
    """SC-119, SC-120, SC-121, SC-122, SC-123."""
    case = golden_case(vector_id, name)
    with OobBench(case) as bench:
        play(bench, case, bench.run_worker)
        assert bench.has_ended() == ("flow" in case.body["end"])


@pytest.mark.parametrize(
    ("name", "handle_destroy"),
    [
        # The flush is not completed yet: the destroy is finished after it (IRQ-6).
        ("with a beginning in its private buffer", NtStatus.STATUS_PENDING),
        ("while bytes are held", SUCCESS),
    ],
)
def test_sc_124_unload_while_inline_edit_works(name: str, handle_destroy: NtStatus) -> None:
    with InlineBench() as bench:

        def unload(step: dict[str, Any]) -> None:
            # The vector associates the context that the port has since FLOW_ESTABLISHED, and unloads in two steps.
            if any(one["op"] == "FwpsFlowRemoveContext0" for one in step["do"]):
                unload_inline(bench, handle_destroy)

        play(bench, golden_case("SC-124", name), unload)


def unload_inline(bench: InlineBench, handle_destroy: NtStatus) -> None:
    """Unload, and the statuses it meets."""
    statuses = bench.port.unload()
    assert statuses.remove_context == [SUCCESS]
    assert statuses.handle_destroy == handle_destroy
    assert bench.driver.fwps.injection_handle_closed(bench.port.injection_handle)
    assert statuses.unregister == [SUCCESS] * 4
    assert statuses.sub_layer_delete == NtStatus.STATUS_FWP_IN_USE
    assert statuses.engine_close == SUCCESS
    assert bench.port.contexts_alive == 0
    bench.driver.settle()
    session = bench.driver.session
    assert session.filter_enum() == (SUCCESS, [])
    assert session.callout_enum() == (SUCCESS, [])
    status, _ = session.sub_layer_get_by_key(bench.port.sub_layer_key)
    assert status == NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND


def test_the_lines_of_a_vector_are_those_of_the_catalogue() -> None:
    """What the ports are compared with is not made by them: two rows of the catalogue, written out."""
    inline = Golden(golden_case("SC-118", "with the flags of the first beginning"))
    assert inline.calls == [
        "A(S8 'AB xx cl') -> P 6",
        "A(S2 'cl') -> B 0",
        "A(S7 'oudy CD') -> inj('sunny'), B 4",
        "A(S3 ' CD') -> NMD 6",
        "A(R FIN +N) -> inj(S, 'clo'), assert(state is idle at FIN), P 0",
        "A(S3 ' CD' +N) -> P 0",
        "A(S FIN +N) -> P 0",
        "flowDelete(A)",
    ]
    assert inline.completions == ["cmp('sunny', SUCCESS)", "cmp('clo', SUCCESS)"]
    worker = Golden(golden_case("SC-122", "then the worker"))
    assert worker.calls == [
        "A(R7 'x rainy') -> clone, B 0",
        "A(R ABORT +N) -> clone, B 0",
        "flowDelete(A)",
        "inj(R, 'x ') = FWP_NOT_FOUND",
        "discard",
        "inj(R, '') = FWP_NOT_FOUND",
        "discard",
    ]
    busy = Golden(golden_case("SC-119", "five bytes"))
    assert busy.calls[3:] == ["inj(R, 20000)", "continue", "A(R20000) -> clone, B 0", "inj(R, 20000)"]
