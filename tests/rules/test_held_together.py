"""What waits in tiny pieces is put together: nobody can tell, and it costs in proportion to its bytes.

Held bytes lie in one buffer that grows, with the borders of the items they came in (NMD-5, IND-21). Here the same
mixtures are played with the pieces left apart, and long streams of single bytes are counted, not timed.
"""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest

from wfpstream.engine import DEFERRED as HELD_BACK
from wfpstream.engine import Endpoints, EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, Flow, StreamActionType
from wfpstream.fwps._hoard import Hoard
from wfpstream.fwps._net_buffer import chain_of
from wfpstream.fwps._run import Run
from wfpstream.testing import FlowEnds, MemoryDriver

Log = list[Any]
PERMIT, BLOCK, CONTINUE = (int(a) for a in (ActionType.PERMIT, ActionType.BLOCK, ActionType.CONTINUE))
NEED_MORE, DEFER, ALLOW = (
    int(StreamActionType[name]) for name in ("NEED_MORE_DATA", "DEFER", "ALLOW_CONNECTION")
)


class Asking(Callout):
    """Mostly wants more than there is; writes down what it is shown, list by list."""

    filter_action = "callout_unknown"

    def __init__(self, name: str, log: Log, dice: random.Random) -> None:
        self.name = name
        self.log = log
        self.dice = dice
        self.patience = dice.choice((0.5, 0.8, 0.95))
        self.deferred: set[int] = set()

    def classify_fn(self, *call: Any) -> None:
        meta, packet, out = call[1], call[2], call[-1]
        shown = packet.stream_data
        lists = [nbl.tobytes() for nbl in chain_of(shown.net_buffer_list_chain)]
        entry = (out.action_type, out.flags, packet.missed_bytes)
        self.log.append((self.name, int(shown.flags), lists, bytes(shown.view()), shown.tobytes(), entry))
        dice = self.dice
        out.action_type = dice.choice((PERMIT, PERMIT, CONTINUE, BLOCK))
        length = shown.data_length
        if not length:
            out.action_type = CONTINUE
        elif not out.flags and dice.random() < self.patience:
            packet.stream_action = NEED_MORE
            packet.count_bytes_required = dice.choice((0, length + dice.randint(0, 30)))
        elif dice.random() < 0.1 and shown.flags & 1 and meta.flow_handle not in self.deferred:
            packet.stream_action = DEFER
            self.deferred.add(meta.flow_handle)
        elif dice.random() < 0.02:
            packet.stream_action = ALLOW
        elif dice.random() < 0.6:
            packet.count_bytes_enforced = dice.randint(1, length)
        if dice.random() < 0.1:
            _, clone = self.fwps.clone_stream_data(shown)
            self.log.append([nbl.tobytes() for nbl in chain_of(clone)])
            self.fwps.discard_cloned_stream_data(clone, 0, False)

    def go_on(self, flow: FlowEnds) -> None:
        if flow.id in self.deferred:
            self.deferred.discard(flow.id)
            layer = flow.flow.layer_id
            self.log.append(self.fwps.stream_continue(flow.id, self.callout_id(layer), layer, 1))


def play(seed: int) -> tuple[Log, list[dict[str, Any]]]:
    dice = random.Random(seed)
    options = EngineOptions(callbacks_per_turn=dice.choice((1000, 1000, 5)))
    options.limits.need_more_data = dice.choice((20, 200, 1 << 20))
    options.policy.on_limit = "permit"
    options.verify.level = dice.choice(("off", "warn"))
    driver = MemoryDriver(options)
    if dice.random() < 0.5:
        driver.engine.remove_sink(driver.events)
    log: Log = []
    callouts = [Asking(f"C{number}", log, dice) for number in range(dice.randint(1, 3))]
    added = [driver.add(callout) for callout in callouts]
    flow = driver.connect()
    assert flow is not None
    ended: set[int] = set()
    for _ in range(dice.randint(10, 60)):
        choice, direction = dice.random(), dice.choice((0, 1))
        if direction not in ended and not flow.ended:
            _one_input(dice, flow, direction, choice, ended)
        if dice.random() < 0.1:
            dice.choice(callouts).go_on(flow)
        if dice.random() < 0.01:
            added[0].retire()
            callouts[0].deferred.clear()
        if dice.random() < 0.1:
            end = (flow.local, flow.remote)[direction]
            end.window = dice.choice((0, 3, 100, None))
        driver.settle()
        _note(log, flow)
    for callout in callouts:
        callout.go_on(flow)
    driver.close()
    _note(log, flow)
    return log, list(driver.events)


def _one_input(dice: random.Random, flow: FlowEnds, direction: int, choice: float, ended: set[int]) -> None:
    put = (flow.send, flow.receive)[direction]
    if choice < 0.7:
        for _ in range(dice.choice((1, 1, 5, 30))):
            put(dice.randbytes(dice.choice((1, 1, 1, 2, 9))))
    elif choice < 0.8:
        put(dice.randbytes(dice.choice((100, 5000))))
    elif choice < 0.83:
        put(b"!", urgent=True)
    elif choice < 0.86:
        put(dice.randbytes(3), push=dice.random() < 0.5)
    elif choice < 0.88:
        flow.gap(direction, 3)
    elif choice < 0.9:
        (flow.send_fin, flow.receive_fin)[direction]()
        ended.add(direction)


def _note(log: Log, flow: FlowEnds) -> None:
    for direction in (0, 1):
        log.append((flow.ledger(direction), flow.flow.may_read(direction), flow.flow.stored))
    log.append([(bytes(end.data), end.fin, end.reset) for end in (flow.local, flow.remote)])


def _compare(seeds: range, monkeypatch: pytest.MonkeyPatch) -> int:
    together = 0
    for seed in seeds:
        counted = [0]
        with monkeypatch.context() as patch:
            _count(patch, counted)
            mine = play(seed)
        together += counted[0]
        with monkeypatch.context() as patch:
            patch.setattr(Run, "absorb", lambda self, following, more=0: False)
            apart = play(seed)
        assert len(mine[0]) == len(apart[0])
        for one, other in zip(mine[0], apart[0], strict=True):
            assert one == other, seed
        assert mine == apart, seed
    return together


def _count(patch: pytest.MonkeyPatch, counted: list[int]) -> None:
    put = Hoard._put

    def counting(self: Hoard, view: memoryview) -> None:
        counted[0] += len(view)
        put(self, view)

    patch.setattr(Hoard, "_put", counting)


@pytest.mark.parametrize("block", range(4))
def test_nmd_5_nobody_sees_that_pieces_lie_together(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """NMD-5, IND-21, IND-8, NMD-15, DEF-5, CLN-1: items, lists, events and ledgers are those of pieces apart."""
    assert _compare(range(block * 20, block * 20 + 20), monkeypatch) > 300


@pytest.mark.parametrize("seed", [5840, 6320, 6396])
def test_ind_21_what_was_decided_together_stays_one_item(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces ended items once, when it came; a stage further on they do not, wherever it is cut or put."""
    _compare(range(seed, seed + 1), monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("block", range(20))
def test_nmd_5_nobody_sees_it_for_many(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for 4,000 seeds more."""
    _compare(range(5000 + block * 200, 5200 + block * 200), monkeypatch)


class Waiting(Callout):
    """Holds everything up to `wanted` bytes, asking for `step` more each time; then permits it."""

    def __init__(self, wanted: int, step: int) -> None:
        self.wanted = wanted
        self.step = step
        self.calls = 0
        self.longest = 0

    def classify_fn(self, *call: Any) -> None:
        packet, out = call[2], call[-1]
        shown = packet.stream_data
        self.calls += 1
        self.longest = max(self.longest, shown.data_length)
        assert len(shown.view()) == shown.data_length
        out.action_type = PERMIT
        if not out.flags and shown.data_length < self.wanted:
            packet.stream_action = NEED_MORE
            packet.count_bytes_required = min(self.wanted, shown.data_length + self.step)


def single_bytes(callout: Waiting, count: int) -> bytes:
    """`count` bytes come one by one through the cycle of a driver; returns what comes out."""
    engine = FilterEngine(lambda: 0.0)
    engine.use_virtual_time()
    engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    buffer = memoryview(bytearray(1))
    out = bytearray()
    for number in range(count):
        buffer[0] = number * 7 & 255
        if engine.pass_on(flow, 0, buffer):
            out += buffer
        else:
            _write(flow, out)
            engine.settle_output(flow)
    return bytes(out)


def _write(flow: Flow, out: bytearray) -> None:
    output = flow.output(0)
    while output.length:
        views, _ = output.batch()
        for view in views:
            out += view
        flow.sent(0, sum(map(len, views)))


@pytest.mark.parametrize("step", [1 << 30, 1000, 1])
def test_nmd_2_single_bytes_are_copied_a_few_times_each(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """NMD-2, NMD-13: however often a callout asks for more, the copying stays in proportion to the bytes."""
    counted = [0]
    _count(monkeypatch, counted)
    for count in (2000, 8000):
        counted[0] = 0
        callout = Waiting(count, step)
        content = single_bytes(callout, count)
        assert content == bytes(number * 7 & 255 for number in range(count))
        assert callout.longest == count
        assert counted[0] <= 6 * count


def test_nmd_13_single_bytes_take_a_few_times_their_memory() -> None:
    """20,000 bytes in as many items: a run of its own for each would be twenty times as much."""
    count = 20_000
    tracemalloc.start()
    try:
        single_bytes(Waiting(count * 2, 1 << 30), count)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * count


def test_ind_25_a_small_rest_does_not_keep_the_memory_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """IND-25: what uses less than a quarter of a buffer is copied out of it."""

    class Leaving(Waiting):
        def classify_fn(self, *call: Any) -> None:
            super().classify_fn(*call)
            packet = call[2]
            if not packet.stream_action and packet.stream_data.data_length > 10:
                packet.count_bytes_enforced = packet.stream_data.data_length - 10
            elif not packet.stream_action:
                packet.stream_action = NEED_MORE

    driver = MemoryDriver()
    driver.add(Leaving(10_000, 1 << 30))
    flow = driver.connect()
    assert flow is not None
    for _ in range(10_000):
        flow.send(b"x")
    flow.send(b"y")
    lane = flow.flow.lanes[0][0]
    memory = sum(len(bytes(run.view.obj)) for run in lane.queue)
    assert flow.ledger(0).held
    assert memory < 2_500
    driver.close()


@pytest.mark.long
def test_nmd_6_eight_mib_in_single_bytes() -> None:
    """NMD-6: the limit is reached with exactly 8 MiB held, and nothing is lost."""
    count = 8 << 20
    callout = Waiting(count * 2, 1 << 30)
    content = single_bytes(callout, count)
    assert len(content) == callout.longest == count
    assert content[:256] * (count // 256) == content


def test_ind_7_an_urgent_byte_deferred_in_front_of_held_bytes_stays_itself() -> None:
    """IND-7, IND-22: it left its place at the end, and the driver's buffer is used again."""
    shown: Log = []

    class Deferring(Callout):
        def classify_fn(self, *call: Any) -> None:
            packet, out = call[2], call[-1]
            shown.append(packet.stream_data.tobytes())
            out.action_type = PERMIT
            if len(shown) == 1:
                packet.stream_action, packet.count_bytes_required = NEED_MORE, 100
            elif len(shown) == 2:
                packet.stream_action = DEFER

    engine = FilterEngine(lambda: 0.0)
    callout = Deferring()
    engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    buffer = memoryview(bytearray(1))
    for byte, urgent in ((b"a", False), (b"b", False), (b"c", False), (b"!", True), (b"d", False)):
        buffer[:] = byte
        flow.received(1, buffer, urgent)
        engine.settle_output(flow)
    assert flow.may_read(1) == HELD_BACK
    callout.fwps.stream_continue(flow.id, callout.callout_id(flow.layer_id), flow.layer_id, 1)
    engine.turn()
    assert shown[:3] == [b"a", b"!", b"!"]
