"""What is owed of an item that was decided piece by piece, sent in any portions, kept, given up and looked at."""

from __future__ import annotations

from typing import Any

import pytest

from wfpstream.callouts import StreamEdit
from wfpstream.engine import Endpoints, FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.fwps import Flow
from wfpstream.fwps._classify import Classifier
from wfpstream.fwps._output import MAX_PIECES
from wfpstream.fwps._patchwork import Patchwork

TEXT = b"no match, rainy; rainyrainy and more of it, rainy"
EDITED = TEXT.replace(b"rainy", b"SUN")
MATCHES = TEXT.count(b"rainy")
INJECTED = 3 * MATCHES
FIRST = b"a flow is not plain before something has gone through it"


class Bench:
    """An engine without sinks and verifier, one flow, and a driver's buffer that is used again at once."""

    def __init__(self, replace: bytes = b"SUN") -> None:
        self.engine = FilterEngine(lambda: 0.0)
        self.callout = StreamEdit("rainy", replace)
        self.engine.add_callout(self.callout)
        endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
        flow = self.engine.flow_established(self.engine.connection_requested(endpoints))
        assert flow is not None
        self.flow: Flow = flow
        self.engine.turn()
        self.receive(FIRST)
        self.flow.sent(1, len(FIRST))
        self.settle()

    def receive(self, data: bytes) -> None:
        """One item; the output is not settled yet."""
        self.buffer = bytearray(data)
        self.flow.received(1, memoryview(self.buffer))

    def settle(self) -> None:
        self.engine.settle_output(self.flow)
        self.buffer[:] = b"?" * len(self.buffer)

    def send(self, most: int) -> bytes:
        """What a socket with so much room takes of one batch."""
        views, _ = self.flow.output(1).batch()
        data = b"".join(views)[:most]
        self.flow.sent(1, len(data))
        return data

    def send_all(self, most: int, settle: bool) -> bytes:
        sent = b""
        while self.flow.output(1).length:
            sent += self.send(most)
            if settle:
                self.settle()
            self.check()
        return sent

    def check(self) -> None:
        """The books are right, whatever has been sent so far."""
        ledger = self.flow.ledger(1)
        assert ledger.faults() == []
        assert 0 <= self.flow.injected[1] <= self.callout.fwps.core.options.limits.injected

    @property
    def patches(self) -> Patchwork:
        patches = self.flow.output(1).patches
        assert patches is not None
        return patches


@pytest.mark.parametrize("settle", [False, True])
@pytest.mark.parametrize("most", range(1, len(EDITED) + 1))
def test_cmp_4_any_portions_make_up_the_whole(most: int, settle: bool) -> None:
    """CMP-4, LED-3: whatever a socket takes at a time; kept bytes do not lie in the driver's buffer any more."""
    bench = Bench()
    bench.receive(TEXT)
    assert bench.patches.nameless == MATCHES
    assert bench.flow.injected[1] == INJECTED
    if settle:
        bench.settle()
    assert bench.send_all(most, settle) == EDITED
    assert bench.flow.injected[1] == 0
    assert bench.flow.ledger(1).written == len(FIRST) + len(EDITED)
    assert not bench.flow.stages[0].lanes[1].outstanding


def test_an_injection_counts_until_its_last_byte_is_sent() -> None:
    """CMP-4, CMP-6: and in the order in which it was made."""
    bench = Bench()
    bench.receive(TEXT)
    levels = []
    while bench.flow.output(1).length:
        bench.send(1)
        levels.append(bench.flow.injected[1])
    marks, at = [], 0
    for part in TEXT.split(b"rainy")[:-1]:
        at += len(part) + 3
        marks.append(at)
    assert levels == [
        INJECTED - 3 * sum(mark <= sent for mark in marks) for sent in range(1, len(EDITED) + 1)
    ]


def test_what_a_second_item_leaves_comes_behind_what_is_owed_of_the_first() -> None:
    bench = Bench()
    sent = b""
    items = [TEXT, b"without any", TEXT + b"rai", b"n", b"y rainy"]
    for item in items:
        bench.receive(item)
        sent += bench.send(20)
        bench.settle()
        bench.check()
    sent += bench.send_all(7, settle=True)
    assert sent == b"".join(items).replace(b"rainy", b"SUN")
    assert bench.flow.injected == [0, 0]


def test_ihc_destroying_the_handle_waits_for_what_is_not_sent() -> None:
    bench = Bench()
    bench.receive(TEXT)
    bench.settle()
    fwps, handle = bench.callout.fwps, bench.callout.injection_handle
    assert fwps.injection_handle_destroy(handle) == NtStatus.STATUS_PENDING
    assert bench.send(len(EDITED) - 1) == EDITED[:-1]
    bench.engine.turn()
    assert not fwps.injection_handle_closed(handle)
    bench.send(1)
    bench.engine.turn()
    assert fwps.injection_handle_closed(handle)


def test_a_flow_that_ends_gives_up_what_is_owed() -> None:
    """IND-18, DRP-4, CMP-9: the books close, and no injection is left."""
    bench = Bench()
    bench.receive(TEXT)
    bench.settle()
    bench.send(20)
    bench.flow.gone("abort")
    assert bench.flow.ended
    ledger = bench.flow.ledger(1)
    assert (ledger.faults(), ledger.written, ledger.discarded_out) == ([], len(FIRST) + 20, len(EDITED) - 20)
    assert bench.flow.injected[1] == 0


def test_ind_25_a_small_rest_does_not_keep_the_memory_of_the_whole() -> None:
    bench = Bench()
    bench.receive(b"x" * 100_000 + b"rainy" + b"y" * 1000 + b"rainy" + b"z" * 10_000)
    bench.settle()
    assert sum({id(view.obj): len(view.obj) for view in bench.patches.views}.values()) > 100_000  # type: ignore[arg-type]
    bench.send(100_500)
    bench.settle()
    kept = sum({id(view.obj): len(view.obj) for view in bench.patches.views}.values())  # type: ignore[arg-type]
    assert kept < 3 * bench.flow.output(1).length
    assert bench.send_all(999, settle=True) == b"y" * 503 + b"SUN" + b"z" * 10_000


def test_inl_1_matches_by_the_hundred_need_no_run_and_no_new_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick loop is taken, and what came of it is sent in one batch; the callout was asked for every piece."""
    bench = Bench()
    named, general, asked = [], [], []
    name_all, classify = Patchwork.name_all, Classifier.classify
    answer = bench.callout.classify_fn

    def count_named(self: Patchwork) -> None:
        named.append(self.nameless)
        name_all(self)

    def count_general(self: Classifier, *call: Any) -> Any:
        general.append(call)
        return classify(self, *call)

    def count_asked(*call: Any) -> None:
        asked.append(id(call[2]))
        answer(*call)

    monkeypatch.setattr(Patchwork, "name_all", count_named)
    monkeypatch.setattr(Classifier, "classify", count_general)
    entry = bench.flow.stages[0].entry
    assert entry is not None
    entry.classify_fn = count_asked
    text = (b"." * 50 + b"rainy") * 300 + b"end"
    bench.receive(text)
    views, _ = bench.flow.output(1).batch()
    assert (len(views), len(asked), len(set(asked[1:]))) == (601, 601, 1)
    assert len(views) < MAX_PIECES
    assert bench.send(len(text)) == text.replace(b"rainy", b"SUN")
    assert sum(named) == len(general) == 0
    assert bench.flow.injected[1] == 0
