"""Who is shown an injection, and when (INJ-3, INJ-5).

Owns the delivery to the stages below; position, statuses and completions are tested with the injection.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import NMD, SEND, Answer, B, Bench, C, Call, P, Script, inj
from tests.scenarios.support_api import ManagedBench, Plane, in_one_sub_layer
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS


@pytest.mark.parametrize("answer", [C(0, inj(b"!")), B(0, inj(b"!")), P(0, inj(b"!"))])
def test_inj_3_remaining_filters_of_the_sub_layer_are_skipped(answer: Answer) -> None:
    """INJ-3: B beside the injector sees none of it, whatever was answered; C below does."""
    a, b, c = Script(answer), Script(name="B", then=C(0)), Script(name="C", then=C(0))

    def add(plane: Plane) -> None:
        in_one_sub_layer(a, b)(plane)
        plane.register(c)
        plane.callout("C")
        assert plane.callout_filter(c, sub_layer=plane.sub_layer("lower", 0x20))[0] == SUCCESS
        status, a.injection_handle = plane.driver.fwps.injection_handle_create(0, 1)
        assert status == SUCCESS
        a.fwps = plane.driver.fwps
        a._ids = {a.layer_id: plane.ids["A"]}

    with ManagedBench(a, b, c, add=add, violations=["V-47"]) as bench:
        bench.send(b"x")
        assert not any("!" in call for call in bench.calls_of("B"))
        assert bench.calls_of("C")[0] == "C(S1 '!')"
        assert bench.completions == ["cmp('!', SUCCESS)"]
        assert bytes(bench.flow.remote.data)[:1] == b"!"
        assert bench.to_remote == (b"!" if answer.action == B(0).action else b"!x", False)
        assert a.fwps.injection_handle_destroy(a.injection_handle) == SUCCESS


@pytest.mark.parametrize("delivery", ["inline", "queued"])
@pytest.mark.parametrize("completion", ["normal", "early"])
def test_inj_5_lower_stages_are_called_after_the_classify_returned(delivery: str, completion: str) -> None:
    """INJ-5: no lower classify inside the inject call; the injected bytes come before the action's own."""
    during: list[int] = []

    def inject(call: Call) -> None:
        for data in (b"1", b"2"):
            assert call.inject(data) == SUCCESS
            during.append(len(call.owner.transcript.log))

    options = EngineOptions(inject_delivery=delivery, completion=completion)
    with Bench(Script(P(1, inject), C(0)), Script(name="B", then=C(0)), options=options) as bench:
        bench.send(b"xy")
        assert during == [1, 1]
        assert bench.calls == [
            *("A(S2 'xy')", "B(S1 '1')", "B(S1 '2')", "B(S1 'x')"),
            *("A(S1 'y')", "B(S1 'y')"),
        ]
        assert bench.completions == ["cmp('1', SUCCESS)", "cmp('2', SUCCESS)"]
        assert bench.to_remote == (b"12xy", False)


def test_inj_5_a_waiting_stage_below_takes_the_injection_into_its_wait() -> None:
    """INJ-5: what B waits for comes from the injection; the action's own bytes follow it."""
    a = Script(P(0), B(1, inj(b"bc", SEND)), P(0))
    with Bench(a, Script(NMD(3), name="B", then=C(0))) as bench:
        bench.send(b"a", b"xd")
        assert bench.calls_of("B") == ["B(S1 'a')", "B(S3 'abc')", "B(S1 'd' m1)"]
        assert bench.completions == ["cmp('bc', SUCCESS)"]
        assert bench.to_remote == (b"abcd", False)
