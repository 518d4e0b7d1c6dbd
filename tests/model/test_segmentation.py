"""Where the input is cut must not show in the output, for callouts whose answers depend on the stream alone.

Owns callouts that decide by stream offset (pass-through, partial permits, NEED_MORE_DATA, edits), one or more
stages deep, and every cut of a short stream plus random cuts of a longer one. IND-3: segment borders mean
nothing; NMD-2, IND-11: waiting and partial decisions lose and double nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout, ClassifyOutFlags, StreamActionType, StreamFlags
from wfpstream.testing import MemoryDriver

FIN = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
INBOUND = int(StreamFlags.RECEIVE)
CANNOT_WAIT = int(ClassifyOutFlags.NO_MORE_DATA | ClassifyOutFlags.BUFFER_LIMIT_REACHED)


@dataclass(frozen=True)
class Plan:
    """What happens to the stream in cells of `size` bytes: cell n gets `fates[n % len(fates)]`.

    A fate is "permit", "continue", "block", "insert" (a byte before the cell), or "replace" (by one byte).
    `whole`: a cell is decided only once it is there as a whole, otherwise as much of it as is shown.
    """

    size: int
    fates: tuple[str, ...]
    whole: bool

    def expected(self, data: bytes) -> bytes:
        """The output, from the plan alone."""
        out = bytearray()
        for start in range(0, len(data), self.size):
            cell, fate = data[start : start + self.size], self.fates[start // self.size % len(self.fates)]
            out += {"insert": b"<" + cell, "block": b"", "replace": b"*"}.get(fate, cell)
        return bytes(out)


class ByOffset(Callout):
    """Decides by the place of a byte in the stream; counts what it decided, per direction."""

    layers = ("stream",)

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan = plan
        self.name = name
        self.done = [0, 0]
        self.shown = (bytearray(), bytearray())
        self.ends = [0, 0]

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        data = layer_data.stream_data
        flags = int(data.flags)
        direction = 1 if flags & INBOUND else 0
        classify_out.action_type = ActionType.PERMIT
        if flags & FIN:
            self.ends[direction] += 1
            return
        at, plan = self.done[direction], self.plan
        view = self.shown[direction]
        view[at:] = data.tobytes()  # IND-9: what is shown begins where the last decision ended
        left = plan.size - at % plan.size
        if plan.whole and len(data) < left and not int(classify_out.flags) & CANNOT_WAIT:
            layer_data.stream_action = StreamActionType.NEED_MORE_DATA
            layer_data.count_bytes_required = left
            classify_out.action_type = ActionType.NONE
            return
        count = min(left, len(data))
        self.done[direction] = at + count
        fate = plan.fates[at // plan.size % len(plan.fates)]
        if at % plan.size == 0 and fate in ("insert", "replace"):
            text = b"<" if fate == "insert" else b"*"
            status = self.inject(in_meta_values.flow_handle, in_fixed_values.layer_id, flags, text)
            assert status == NtStatus.STATUS_SUCCESS
        layer_data.count_bytes_enforced = count
        if fate in ("block", "replace"):
            classify_out.action_type = ActionType.BLOCK
        elif fate == "continue":
            classify_out.action_type = ActionType.CONTINUE


def pieces(data: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    """`data` cut at these offsets."""
    borders = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in pairwise(borders) if b > a]


def run(data: bytes, cuts: tuple[int, ...], plans: list[Plan], direction: int, limit: int = 1 << 20) -> None:
    """Send the pieces through the stages; outputs and views must be those of the plans alone."""
    options = EngineOptions()
    options.limits.need_more_data = limit
    options.verify.level = "strict"
    stages = [ByOffset(plan, f"stage {number}") for number, plan in enumerate(plans)]
    with MemoryDriver(options=options) as driver:
        for stage in stages:
            driver.add(stage)
        flow = driver.connect()
        assert flow is not None
        send, end = ((flow.send, flow.send_fin), (flow.receive, flow.receive_fin))[direction]
        for piece in pieces(data, cuts):
            send(piece)
        end()
        peer = (flow.remote, flow.local)[direction]
        expected = data
        for stage in stages:
            assert bytes(stage.shown[direction]) == expected
            assert stage.ends[direction] == 1
            expected = stage.plan.expected(expected)
        assert bytes(peer.data) == expected
        assert peer.fin
        assert flow.ledger(direction).faults() == []


FATES = ("permit", "continue", "block", "insert", "replace")
PLANS = [
    Plan(1000, ("permit",), False),
    Plan(1000, ("continue",), False),
    Plan(3, ("permit",), True),
    Plan(3, ("permit",), False),
    Plan(2, ("continue", "permit", "block"), True),
    Plan(3, ("replace", "permit", "insert"), True),
    Plan(3, ("block", "insert", "continue"), False),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: f"{'-'.join(p.fates)} {p.size}{' whole' * p.whole}")
@pytest.mark.parametrize("direction", [0, 1], ids=["send", "receive"])
def test_every_cut_of_a_short_stream(plan: Plan, direction: int) -> None:
    data = b"abcdefg"
    for count in range(len(data)):
        for cuts in combinations(range(1, len(data)), count):
            run(data, cuts, [plan], direction)


def test_every_cut_through_two_stages() -> None:
    data = b"abcdefgh"
    plans = [Plan(3, ("permit", "replace", "block"), True), Plan(2, ("insert", "continue"), True)]
    for count in range(len(data)):
        for cuts in combinations(range(1, len(data)), count):
            run(data, cuts, plans, 1)


plan_strategy = st.builds(
    Plan,
    st.integers(1, 9),
    st.lists(st.sampled_from(FATES), min_size=1, max_size=4).map(tuple),
    st.booleans(),
)


@given(
    data=st.binary(min_size=1, max_size=80),
    cuts=st.lists(st.integers(1, 79), max_size=20, unique=True).map(tuple),
    plans=st.lists(plan_strategy, min_size=1, max_size=3),
    direction=st.integers(0, 1),
    limit=st.sampled_from((1 << 20, 5)),  # NMD-6: at the limit a cell is decided in parts
)
def test_random_cuts_through_several_stages(
    data: bytes, cuts: tuple[int, ...], plans: list[Plan], direction: int, limit: int
) -> None:
    run(data, tuple(c for c in cuts if c < len(data)), plans, direction, limit)
