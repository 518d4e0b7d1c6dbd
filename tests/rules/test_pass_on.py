"""`FilterEngine.pass_on` and `owe`: an item that counts as written before it is sent, and what was not taken of it.

They are to do what `Flow.received` and `Flow.sent` do: played against the general way, and step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.rules.test_straight import Editing, Telling, close_short_ways, play
from wfpstream.engine import Endpoints, EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, Flow
from wfpstream.fwps._plain import PlainWay


@pytest.mark.parametrize("kind", [Telling, Editing])
@pytest.mark.parametrize("block", range(2))
def test_ind_26_an_item_passed_on_and_not_taken_is_owed_as_any_other(
    kind: type[Telling], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CMP-4, CMP-15, LED-3: 120 seeds of any mixture; nothing is sent at once, so every item is owed first."""
    owed = 0

    def pass_or_owe(self: PlainWay, flow: Flow, direction: int, view: memoryview) -> bool:
        nonlocal owed
        if self.pass_on(flow, direction, view):
            self.owe(flow, direction, view, 0)
            owed += 1
        return False

    for seed in range(block * 30, block * 30 + 30):
        with monkeypatch.context() as patch:
            patch.setattr(PlainWay, "relay", pass_or_owe)
            passed = play(seed, False, kind)
        with monkeypatch.context() as patch:
            close_short_ways(patch)
            assert passed == play(seed, False, kind), seed
    assert owed > 20


class Seeing(Callout):
    """Passes everything on, and keeps what it saw."""

    def __init__(self, action: str, answer: ActionType) -> None:
        self.filter_action = action
        self.answer = int(answer)
        self.seen: list[Any] = []

    def classify_fn(self, *call: Any) -> None:
        packet, out = call[2], call[-1]
        shown = packet.stream_data
        self.seen.append((call[1].flow_handle, int(shown.flags), shown.tobytes(), out.action_type))
        out.action_type = self.answer


def begin(stages: int) -> tuple[FilterEngine, Flow, list[Seeing]]:
    options = EngineOptions()
    options.verify.level = "off"
    engine = FilterEngine(lambda: 0.0, options)
    engine.use_virtual_time()
    kinds = [("callout_unknown", ActionType.PERMIT), ("callout_inspection", ActionType.CONTINUE)]
    callouts = [Seeing(*kinds[number % 2]) for number in range(stages)]
    for callout in callouts:
        engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80), nodelay=True)
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    engine.turn()
    return engine, flow, callouts


def take(engine: FilterEngine, flow: Flow, direction: int, most: int) -> bytes:
    """What a socket that takes `most` bytes gets of what is owed."""
    taken = b"".join(flow.output(direction).batch()[0])[:most] if flow.output(direction).length else b""
    if taken:
        flow.sent(direction, len(taken))
    engine.settle_output(flow)
    return taken


def by_passing_on(item: bytes, engine: FilterEngine, flow: Flow, direction: int, most: int) -> bytes:
    """One item as the reactor's legs do it."""
    buffer = memoryview(bytearray(item))
    if not engine.pass_on(flow, direction, buffer):
        return take(engine, flow, direction, most)
    taken = bytes(buffer[:most])
    if len(taken) < len(item):
        engine.owe(flow, direction, buffer, len(taken))
        engine.settle_output(flow)
    buffer[:] = b"\xdd" * len(buffer)  # the next read uses the buffer again
    return taken


def by_five_calls(item: bytes, engine: FilterEngine, flow: Flow, direction: int, most: int) -> bytes:
    """One item as any driver may do it."""
    flow.received(direction, item)
    return take(engine, flow, direction, most)


def state_of(engine: FilterEngine, flow: Flow) -> list[Any]:
    levels = [
        (
            flow.ledger(d),
            flow.ledger(d).faults(),
            flow.may_read(d),
            flow.output(d).length,
            flow.output(d).push,
        )
        for d in (0, 1)
    ]
    rests = [b"".join(flow.output(d).batch()[0]) for d in (0, 1)]
    return [levels, rests, flow.stored, flow.abort, engine.has_pending]


STEPS: Sequence[tuple[int, bytes, int]] = [
    (0, b"first", 99), (0, b"whole", 99), (1, b"and back", 99), (0, b"a part", 3), (1, b"beside", 99),
    (0, b"behind", 2), (0, b"", 99), (0, b"x", 99), (1, b"nothing", 0), (1, b"more", 99), (0, b"plain again", 99),
]  # fmt: skip


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
def test_led_3_what_a_socket_did_not_take_is_owed_and_counted_as_unsent(stages: int) -> None:
    """LED-1 to LED-4, IND-5, IND-6, IND-8: after every step both worlds are alike, and every byte arrives in order."""
    worlds = []
    for cycle in (by_passing_on, by_five_calls):
        engine, flow, callouts = begin(stages)
        history, arrived = [], [b"", b""]
        for direction, item, most in STEPS:
            call = cycle if item else take_only
            arrived[direction] += call(item, engine, flow, direction, most)
            history.append((state_of(engine, flow), list(arrived)))
        for direction in (0, 1):
            arrived[direction] += take(engine, flow, direction, 1 << 20)
        worlds.append((history, arrived, [callout.seen for callout in callouts], state_of(engine, flow)))
    assert worlds[0] == worlds[1]
    assert worlds[0][1] == [b"".join(item for d, item, _ in STEPS if d == way) for way in (0, 1)]


def take_only(item: bytes, engine: FilterEngine, flow: Flow, direction: int, most: int) -> bytes:
    """The socket takes more of what was owed before; nothing is read."""
    return take(engine, flow, direction, most)


def test_ctx_5_a_context_that_comes_and_goes_is_the_one_shown() -> None:
    """CTX-5: what an item needs is put together once per flow, and anew when something of it changes."""
    shown: list[int] = []

    class Context(Seeing):
        def classify_fn(self, *call: Any) -> None:
            super().classify_fn(*call)
            shown.append(call[5])

    engine = FilterEngine(lambda: 0.0)
    engine.use_virtual_time()
    callout = Context("callout_unknown", ActionType.PERMIT)
    engine.add_callout(callout)
    flow = engine.flow_established(
        engine.connection_requested(Endpoints(client=("10.0.0.1", 1), destination=("10.0.0.2", 80)))
    )
    assert flow is not None
    layer = flow.layer_id

    def item() -> None:
        by_passing_on(b"x", engine, flow, 0, 99)

    item()
    item()
    callout.fwps.flow_associate_context(flow.id, layer, callout.callout_id(layer), 7)
    item()
    item()
    callout.fwps.flow_remove_context(flow.id, layer, callout.callout_id(layer))
    item()
    assert shown == [0, 0, 7, 7, 0]
