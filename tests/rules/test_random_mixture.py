"""Random callouts, limits and options, by seed: whatever they do, the invariants hold.

The invariant: nothing but the documented ever comes out of the engine, every ledger closes after every step, every
accepted list completes once, every context is deleted once, and the engine comes to rest. What the bytes are is the
model's business (tests/model); here any mixture of options goes.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout, LayerId, NetBufferList, StreamActionType, StreamFlags
from wfpstream.testing import FlowEnds, MemoryDriver

STREAM = int(LayerId.STREAM_V4)
DATA_FLAGS = (
    int(StreamFlags.SEND),
    int(StreamFlags.RECEIVE),
    int(StreamFlags.SEND | StreamFlags.SEND_EXPEDITED),
    int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH),
)
FIN_FLAGS = (
    int(StreamFlags.SEND | StreamFlags.SEND_DISCONNECT),
    int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_DISCONNECT),
)
ACTIONS = [
    *[int(ActionType.PERMIT)] * 3,
    *[int(ActionType.BLOCK)] * 2,
    int(ActionType.CONTINUE),
    int(ActionType.NONE),
    99,
]


def random_options(dice: random.Random) -> EngineOptions:
    """Any of the engine's switches, and limits small enough to be met."""
    options = EngineOptions(
        completion=dice.choice(("normal", "early")),
        inject_delivery=dice.choice(("inline", "queued")),
        indicate_abort=dice.random() < 0.7,
        indicate_mdls=dice.choice((1, 3)),
        callbacks_per_turn=dice.choice((1000, 3, 1)),
        fin_with_data=dice.random() < 0.2,
        fin_lookahead=dice.random() < 0.2,
        discard_layer=dice.random() < 0.2,
        need_more_mode=dice.choice(("total", "additional")),
    )
    options.verify.level = dice.choice(("warn", "strict", "off"))
    options.verify.hints = dice.random() < 0.3
    options.policy.on_callout_error = dice.choice(("drop", "permit", "bypass"))
    options.policy.on_limit = dice.choice(("drop", "permit", "bypass"))
    limits = options.limits
    limits.need_more_data = dice.choice((16, 1 << 20))
    limits.pended = dice.choice((20, 1 << 20))
    limits.unsent = dice.choice((10, 1 << 18))
    limits.injected = dice.choice((10, 1 << 20))
    limits.per_flow = dice.choice((40, 1 << 26))
    limits.total = dice.choice((60, 1 << 30))
    return options


class Whim(Callout):
    """Answers, clones, injects, associates and raises as the dice say; counts what must come in pairs."""

    def __init__(self, dice: random.Random, action: str, flags: int) -> None:
        self.dice = dice
        self.filter_action = action
        self.flags = flags
        self.kept: list[tuple[NetBufferList | None, int, int, int]] = []
        self.lists: Counter[str] = Counter()
        self.contexts: Counter[str] = Counter()

    def classify_fn(self, *call: Any) -> None:
        metadata, packet, out, dice = call[1], call[2], call[-1], self.dice
        flow, shown = metadata.flow_handle, packet.stream_data
        if dice.random() < 0.2:
            self.inject_something(flow)
        if dice.random() < 0.2:
            _, chain = self.fwps.clone_stream_data(shown)
            self.kept.append((chain, len(shown), shown.flags, flow))
        if dice.random() < 0.1:
            self.change_context(flow)
        if dice.random() < 0.02:
            self.fwps.flow_abort(flow)
        if dice.random() < 0.01:
            raise ValueError("a whim")
        out.action_type = dice.choice(ACTIONS)
        packet.stream_action = dice.choices([*StreamActionType, 77], weights=[700, 150, 10, 100, 20, 5], k=1)[
            0
        ]
        if packet.stream_action == StreamActionType.NEED_MORE_DATA:
            packet.count_bytes_required = dice.randint(0, len(shown) + 3)
        if dice.random() < 0.5:
            packet.count_bytes_enforced = dice.randint(0, len(shown) + (dice.random() < 0.1))

    def change_context(self, flow: int) -> None:
        me = self.callout_id(STREAM)
        if self.dice.random() < 0.6:
            status = self.fwps.flow_associate_context(flow, STREAM, me, self.dice.randint(0, 3))
            self.contexts["associated"] += status == NtStatus.STATUS_SUCCESS
        else:
            self.fwps.flow_remove_context(flow, STREAM, me)

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.contexts["deleted"] += 1

    def inject_something(self, flow: int) -> None:
        dice = self.dice
        if dice.random() < 0.08:
            self.give(flow, None, 0, dice.choice(FIN_FLAGS))
            return
        content = bytes(dice.choice(b"IJK") for _ in range(dice.randint(0, 5)))
        _, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, content, 0, len(content))
        if not self.give(flow, nbl, len(content), dice.choice(DATA_FLAGS)):
            assert nbl is not None
            self.fwps.free_net_buffer_list(nbl)

    def give(
        self, flow: int, nbl: NetBufferList | None, length: int, flags: int, kind: str = "allocated"
    ) -> bool:
        """The bare call; counts the lists that must complete."""
        count, each = 0, nbl
        while each is not None:
            count, each = count + 1, each.next
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            flow,
            self.callout_id(STREAM),
            STREAM,
            flags,
            nbl,
            length,
            self.done,
            None,
        )
        if status == NtStatus.STATUS_SUCCESS:
            self.lists["accepted"] += count
        return status == NtStatus.STATUS_SUCCESS

    def done(self, kind: str, nbl: NetBufferList, dispatch_level: bool) -> None:
        self.lists["completed"] += 1
        assert nbl.next is None
        if kind == "clone":
            self.fwps.free_clone_net_buffer_list(nbl)
        else:
            self.fwps.free_net_buffer_list(nbl)

    def work(self, flow: int) -> None:
        """What a worker does between the classifies."""
        choice = self.dice.random()
        if choice < 0.4:
            self.inject_something(flow)
        elif choice < 0.6:
            flags = int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH)
            self.fwps.stream_continue(flow, self.callout_id(STREAM), STREAM, flags)
        elif self.kept:
            chain, length, flags, owner = self.kept.pop(0)
            if self.dice.random() < 0.4 or not self.give(owner, chain, length, flags, "clone"):
                self.fwps.discard_cloned_stream_data(chain)


def one_step(dice: random.Random, driver: MemoryDriver, flow: FlowEnds, ended: set[int]) -> None:
    """A peer sends, half-closes, resets or reads, or time passes."""
    direction, choice = dice.choice((0, 1)), dice.random()
    open_ = direction not in ended
    if choice < 0.6 and open_:
        content = (
            b"!" if choice < 0.03 else bytes(dice.randrange(97, 123) for _ in range(dice.randint(1, 12)))
        )
        (flow.send, flow.receive)[direction](content, urgent=content == b"!")
    elif choice < 0.64 and open_:
        ended.add(direction)
        (flow.send_fin, flow.receive_fin)[direction]()
    elif choice < 0.66:
        flow.reset(dice.choice(("local", "remote")))
        ended.update((0, 1))
    elif choice < 0.8:
        dice.choice((flow.local, flow.remote)).window = dice.choice((0, 3, None))
    else:
        driver.advance(dice.choice((0.0, 0.5, 3.0)))


def play(seed: int) -> None:
    dice = random.Random(seed)
    driver = MemoryDriver(random_options(dice))
    kinds = ("callout_unknown", "callout_unknown", "callout_terminating", "callout_inspection")
    callouts = [Whim(dice, dice.choice(kinds), dice.choice((0, 0, 1, 8))) for _ in range(dice.randint(1, 3))]
    for callout in callouts:
        driver.add(callout)
    flows = [flow for _ in range(dice.randint(1, 2)) if (flow := driver.connect()) is not None]
    ended: dict[int, set[int]] = {flow.id: set() for flow in flows}
    for _ in range(dice.randint(5, 60)):
        flow = dice.choice(flows)
        if dice.random() < 0.3:
            dice.choice(callouts).work(flow.id)
            driver.settle()
        else:
            one_step(dice, driver, flow, ended[flow.id])
        for each in flows:
            assert each.ledger(0).faults() + each.ledger(1).faults() == []
    driver.close()
    for flow in flows:
        for direction in (0, 1):
            ledger = flow.ledger(direction)
            assert (ledger.held, ledger.queued, ledger.unsent) == (0, 0, 0)
    for callout in callouts:
        assert callout.lists["accepted"] == callout.lists["completed"]
        assert callout.contexts["associated"] == callout.contexts["deleted"]


@pytest.mark.parametrize("block", range(8))
def test_led_5_the_invariants_hold_for_any_mixture(block: int) -> None:
    """LED-1 to LED-5, CMP-1, CTX-15: 400 seeds."""
    for seed in range(block * 50, block * 50 + 50):
        play(seed)


@pytest.mark.long
@pytest.mark.parametrize("block", range(100))
def test_led_5_the_invariants_hold_for_many_mixtures(block: int) -> None:
    """The same for 20,000 seeds more."""
    for seed in range(10_000 + block * 200, 10_000 + block * 200 + 200):
        play(seed)
