"""ALW-7, ALW-8 with a driver made of lists: handed over and taken back at random, while rules come and go.

Whatever the order of things, the receiver gets the stream as it was sent, every rule sees one stretch of it without a
hole, and the ledger closes.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wfpstream.engine import AddedCallout, Endpoints, FilterEngine
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import Callout, StreamActionType, StreamFlags

_SEND = int(StreamFlags.SEND)


class Watching(Callout):
    """Permits and remembers; asks no more after `calls`, joins running flows."""

    flags = CalloutFlags.ALLOW_MID_STREAM_INSPECTION

    def __init__(self, calls: int) -> None:
        self.calls = calls
        self.seen: tuple[list[bytes], list[bytes]] = ([], [])

    def classify_fn(self, *call: Any) -> None:
        """Permit, or ALLOW_CONNECTION."""
        packet, out = call[2], call[-1]
        data = packet.stream_data
        self.seen[0 if data.flags & _SEND else 1].append(data.tobytes())
        self.calls -= 1
        out.action_type = ActionType.PERMIT
        if self.calls <= 0:
            packet.stream_action = StreamActionType.ALLOW_CONNECTION


class ListDriver:
    """Keeps the driver's side of the border; `wire` is what the receivers have."""

    def __init__(self, engine: FilterEngine) -> None:
        self.engine = engine
        endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
        flow = engine.flow_established(engine.connection_requested(endpoints))
        assert flow is not None
        self.flow = flow
        self.came = [0, 0]
        self.pipes = [bytearray(), bytearray()]
        self.wire = [bytearray(), bytearray()]
        self.hand_overs = 0

    def arrive(self, direction: int, count: int) -> None:
        """Bytes come; each says its place modulo 251 and its direction."""
        start = self.came[direction]
        data = stream(direction, start, count)
        self.came[direction] += count
        if self.flow.is_offloaded:
            self.pipes[direction] += data
        else:
            self.flow.received(direction, data)
        self.serve()

    def write(self, direction: int, count: int) -> None:
        """The receiver takes up to `count` bytes."""
        if self.flow.is_offloaded:
            piece = self.pipes[direction][:count]
            del self.pipes[direction][:count]
            self.wire[direction] += piece
            self.flow.passed(direction, len(piece))
            return
        output = self.flow.output(direction)
        while count and output.length:
            sent = output.batch()[0][0][:count]
            self.wire[direction] += sent
            count -= len(sent)
            self.flow.sent(direction, len(sent))
        self.serve()

    def hand_over(self) -> None:
        """If the engine wants it and nothing is owed."""
        flow = self.flow
        if flow.offload_wanted and not flow.is_offloaded and not any(out.length for out in flow.out):
            self.hand_overs += 1
            flow.offloaded()

    def serve(self) -> None:
        """What a driver does when it is told to look."""
        self.engine.settle_output(self.flow)
        if self.flow.is_offloaded and not self.flow.offload_wanted:
            for direction in (0, 1):
                self.flow.left_over(direction, bytes(self.pipes[direction]))
                self.pipes[direction].clear()
            self.flow.onloaded()

    def turn(self) -> None:
        """A turn of the engine, and what it says."""
        if self.flow in self.engine.turn():
            self.serve()


def stream(direction: int, start: int, count: int) -> bytes:
    """Bytes that say where they stand."""
    return bytes((place * 7 + place // 251 + direction) % 256 for place in range(start, start + count))


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 1), st.integers(1, 300)),
        st.tuples(st.just("write"), st.integers(0, 1), st.integers(1, 400)),
        st.tuples(st.just("hand over"), st.just(0), st.just(0)),
        st.tuples(st.just("add"), st.just(0), st.integers(1, 4)),
        st.tuples(st.just("retire"), st.just(0), st.just(0)),
        st.tuples(st.just("turn"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@given(steps=_STEPS)
@settings(deadline=None, max_examples=150)
def test_alw_8_whatever_the_order_the_stream_is_whole(steps: list[tuple[str, int, int]]) -> None:
    """Order of bytes exact, offsets and ledger right."""
    engine = FilterEngine(lambda: 0.0)
    driver = ListDriver(engine)
    rules: list[Watching] = []
    added: list[AddedCallout] = []
    for name, direction, amount in steps:
        if name == "arrive":
            driver.arrive(direction, amount)
        elif name == "write":
            driver.write(direction, amount)
        elif name == "hand over":
            driver.hand_over()
        elif name == "add":
            rules.append(Watching(amount))
            added.append(engine.add_callout(rules[-1]))
        elif name == "retire" and added:
            added.pop(0).retire()
        elif name == "turn":
            driver.turn()
    driver.turn()
    for direction in (0, 1):
        driver.write(direction, driver.came[direction])
        whole = stream(direction, 0, driver.came[direction])
        assert driver.wire[direction] == whole
        ledger = driver.flow.ledger(direction)
        assert (ledger.read, ledger.written, ledger.unsent) == (len(whole), len(whole), 0)
        assert ledger.faults() == []
        for rule in rules:
            assert b"".join(rule.seen[direction]) in whole


def test_alw_7_the_random_driver_does_hand_over() -> None:
    """What the test above is about does happen in it."""
    engine = FilterEngine(lambda: 0.0)
    driver = ListDriver(engine)
    rule = Watching(1)
    engine.add_callout(rule)
    driver.turn()
    driver.arrive(0, 10)
    driver.write(0, 10)
    driver.hand_over()
    driver.arrive(0, 20)
    driver.write(0, 5)
    second = Watching(99)
    added = engine.add_callout(second)
    driver.turn()
    driver.arrive(0, 7)
    driver.write(0, 100)
    assert rule.seen[0] == [stream(0, 0, 10)]
    assert second.seen[0] == [stream(0, 30, 7)]
    added.retire()
    driver.turn()
    driver.hand_over()
    assert driver.hand_overs == 2
    assert driver.wire[0] == stream(0, 0, 37)
