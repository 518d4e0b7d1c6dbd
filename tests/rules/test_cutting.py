"""Items decided piece by piece, in one quick loop and in the general way: the same calls, bytes, levels and ledgers.

`test_straight` compares all short ways with the general one over mixtures in which an item is seldom cut more than
once. Here nearly all of them are cut into many pieces, with injections between, and receivers that take a few bytes at
a time; now and then a callout does something else in the middle.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.rules.test_random_mixture import STREAM
from tests.rules.test_straight import (
    Editing,
    Log,
    Telling,
    check_summaries,
    close_short_ways,
    state_of,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import ClassifyOut, Flow, StreamData
from wfpstream.fwps._cutting import Cutting
from wfpstream.fwps._flow import Lane
from wfpstream.fwps._patchwork import Patchwork
from wfpstream.fwps._quick_injection import QuickInjection
from wfpstream.testing import FlowEnds, MemoryDriver

JOINS = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)
PIECES = (int(ActionType.PERMIT), int(ActionType.PERMIT), int(ActionType.BLOCK), int(ActionType.CONTINUE))


class Shears(Editing):
    """Cuts small pieces off, most of the time."""

    def __init__(self, name: str, log: Log, dice: random.Random, action: str, flags: int) -> None:
        super().__init__(name, log, dice, action, flags)
        self.calm = dice.choice((0.98, 0.995, 1.0))
        self.objects: list[Any] = []

    def classify_fn(self, *call: Any) -> None:
        packet, out, dice = call[2], call[-1], self.dice
        shown = packet.stream_data
        length = shown.data_length
        if dice.random() >= self.calm or not length:
            super().classify_fn(*call)
            return
        entry = (
            out.action_type,
            out.flags,
            out.rights,
            out.reserved,
            packet.missed_bytes,
            packet.stream_action,
        )
        levels = [call[1].flow_handle, int(shown.flags), shown.tobytes(), packet.count_bytes_enforced, entry]
        self.log.append((self.name, *levels))
        self.log.append([values_of(each) for each in self.objects])
        if dice.random() < 0.03:
            self.something_else(call[1].flow_handle, shown)
        if dice.random() < 0.5:
            data = bytes(dice.choice(b"IJK") for _ in range(dice.randint(1, 5)))
            status = self.inject(call[1].flow_handle, STREAM, shown.flags, data)
            self.log.append((self.name, "injected", data, status.name))
        if dice.random() < 0.03:
            self.objects += dice.sample((shown, packet, out), dice.randint(1, 3))
        if dice.random() < 0.1:
            self.log.append([bytes(piece) for piece in shown.pieces()])
        if dice.random() < 0.03:
            out.reserved = shown.flags = 77
        out.action_type = dice.choice(PIECES)
        packet.count_bytes_enforced = dice.randint(1, min(4, length))


def values_of(kept: Any) -> tuple[Any, ...]:
    """What an object of an indication that is over shows (IND-22): that it is over, and else what it did."""
    if isinstance(kept, StreamData):
        return (int(kept.flags), kept.data_length, kept.is_indicated)
    if isinstance(kept, ClassifyOut):
        return (int(kept.action_type), kept.reserved)
    return (kept.missed_bytes, kept.count_bytes_enforced, kept.stream_data.data_length)


def options_for(dice: random.Random) -> EngineOptions:
    options = EngineOptions(
        inject_delivery=dice.choice(("inline", "queued")), need_more_mode=dice.choice(("total", "additional"))
    )
    limits = options.limits
    limits.unsent = dice.choice((10, 1 << 18, 1 << 18))
    limits.injected = dice.choice((10, 1 << 20, 1 << 20))
    limits.per_flow = dice.choice((60, 1 << 26, 1 << 26))
    return options


def step(dice: random.Random, driver: MemoryDriver, flow: FlowEnds, ended: set[int]) -> None:
    direction, choice = dice.choice((0, 1)), dice.random()
    if choice < 0.65 and direction not in ended:
        content = bytes(dice.randrange(97, 123) for _ in range(dice.randint(1, 60)))
        (flow.send, flow.receive)[direction](content)
    elif choice < 0.67 and direction not in ended:
        (flow.send, flow.receive)[direction](b"!", urgent=True)
    elif choice < 0.69 and direction not in ended:
        ended.add(direction)
        (flow.send_fin, flow.receive_fin)[direction]()
    elif choice < 0.70:
        flow.reset(dice.choice(("local", "remote")))
        ended.update((0, 1))
    elif choice < 0.95:
        dice.choice((flow.local, flow.remote)).window = dice.choice((0, 1, 7, 40, None, None, None))
    else:
        driver.advance(dice.choice((0.0, 0.5, 3.0)))


def play(seed: int) -> Log:
    dice = random.Random(seed)
    driver = MemoryDriver(options_for(dice))
    driver.engine.remove_sink(driver.events)
    log: Log = []
    actions = ("callout_unknown", "callout_unknown", "callout_terminating")
    callouts: list[Telling] = [Shears("C0", log, dice, dice.choice(actions), 0)]
    if dice.random() < 0.3:
        callouts.insert(0, Telling("above", log, dice, dice.choice(actions), 0))
    added = [driver.add(callout) for callout in callouts]
    flow = driver.connect()
    assert flow is not None
    for callout in callouts:
        callout.flows = [flow.id]
    ended: set[int] = set()
    sees_all: Log = []
    for _ in range(dice.randint(5, 40)):
        choice = dice.random()
        if choice < 0.03:
            dice.choice(callouts).work(flow.id)
            driver.settle()
        elif choice < 0.04 and added:
            added.pop().remove()
        elif choice < 0.05:
            driver.engine.add_sink(sees_all.append)
        elif choice < 0.08 and len(callouts) < 4:
            callouts.append(Telling(f"later {len(callouts)}", log, dice, dice.choice(actions), JOINS))
            callouts[-1].flows = [flow.id]
            added.append(driver.add(callouts[-1]))
        else:
            step(dice, driver, flow, ended)
        check_summaries(driver, flow)
        log.append(state_of(driver, flow, with_turn=False))
    for end in (flow.local, flow.remote):
        end.window = None
    driver.advance(1.0)
    log.append(state_of(driver, flow, with_turn=False))
    driver.close()
    log.append(state_of(driver, flow, with_turn=False))
    return log


def count(patch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the loop obeyed an answer of its own, injected without a run, and gave such injections one later."""
    done = {"cut": 0, "injected": 0, "named": 0}
    go_on, place, name_all = Cutting.go_on, QuickInjection._place, Patchwork.name_all
    inject = QuickInjection.inject

    def cut(self: Cutting, flow: Flow, lane: Lane, *item: Any) -> Any:
        before = len(flow.out[lane.direction].piecewise().views)
        result = go_on(self, flow, lane, *item)
        patches = flow.out[lane.direction].patches
        done["cut"] += patches is not None and len(patches.views) > before + 2
        return result

    def injected(self: QuickInjection, *call: Any) -> bool:
        done["injected"] += 1
        result = inject(self, *call)
        done["injected"] -= not result
        return result

    def placed(self: QuickInjection, *call: Any) -> None:
        done["injected"] -= 1
        place(self, *call)

    def named(self: Patchwork) -> None:
        done["named"] += self.nameless > 0
        name_all(self)

    patch.setattr(Cutting, "go_on", cut)
    patch.setattr(QuickInjection, "inject", injected)
    patch.setattr(QuickInjection, "_place", placed)
    patch.setattr(Patchwork, "name_all", named)
    return done


def compare(seeds: range, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    done = count(monkeypatch)
    for seed in seeds:
        short = play(seed)
        before = dict(done)
        with monkeypatch.context() as patch:
            close_short_ways(patch)
            general = play(seed)
        assert done == before
        for mine, theirs in zip(short, general, strict=False):
            assert mine == theirs, seed
        assert len(short) == len(general), seed
    return done


@pytest.mark.parametrize("block", range(4))
def test_inl_1_cutting_quickly_and_in_the_general_way_is_one(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INL-1, INL-2, IND-11, CMP-4, CMP-6, IND-22, LED-1..LED-5: 200 seeds."""
    done = compare(range(block * 50, block * 50 + 50), monkeypatch)
    assert min(done.values()) > 10


@pytest.mark.long
@pytest.mark.parametrize("block", range(50))
def test_inl_1_cutting_quickly_and_in_the_general_way_is_one_for_many(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for 20,000 seeds more."""
    compare(range(10_000 + block * 400, 10_000 + block * 400 + 400), monkeypatch)
