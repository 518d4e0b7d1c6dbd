"""Owns the violations to be provoked: for each V-* a minimal callout that breaks it, and the closest legal one.

Here are those of answers and of callbacks; buffers, injections and the connection layers have modules of their own.
A case is called with True for the bad callout and False for the legal one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.rules.answers import answering, once, permit
from tests.rules.minimal import (
    ALLOW,
    BLOCK,
    CONTINUE,
    DEFER,
    DROP,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    RECEIVE,
    RECEIVE_PUSH,
    SEND,
    STREAM,
    Classify,
    HandClock,
    Plain,
    World,
    here,
    hints,
    parts,
    place,
    small_limit,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwps import ClassifyOutFlags, StreamFlags
from wfpstream.testing import MemoryDriver, accounted

LIMIT = int(ClassifyOutFlags.BUFFER_LIMIT_REACHED)
NO_MORE = int(ClassifyOutFlags.NO_MORE_DATA)
SEND_DISCONNECT = int(StreamFlags.SEND_DISCONNECT)
ABSORB = int(ClassifyOutFlags.ABSORB)


class Outcome(NamedTuple):
    """What a case came to.

    Attributes:
        events: the violations told.
        where: the place that must be named.
        callout: whose fault it is; None where no callout is concerned.
        filters: the filters it may be under; empty where none is concerned.
        on_flow: a flow is concerned.
        besides: other rules that cannot but be broken together with this one.
    """

    events: list[dict[str, Any]]
    where: str | None
    callout: str | None = "minimal"
    filters: Sequence[int] = ()
    on_flow: bool = True
    besides: tuple[str, ...] = ()


Case = Callable[[bool], Outcome]
CASES: dict[str, Case] = {}


def case(rule: str) -> Callable[[Case], Case]:
    """Enters a function as the case of a rule."""

    def enter(function: Case) -> Case:
        assert rule not in CASES
        CASES[rule] = function
        return function

    return enter


def close(w: World, where: str | None, *besides: str, on_flow: bool = True) -> Outcome:
    """The end of a case in a `World`."""
    w.close()
    return Outcome(w.events("violation"), where, "minimal", w.added.filter_ids, on_flow, besides)


def sending(classify: Classify, *pieces: bytes, **world: Any) -> Outcome:
    """The local host sends; the callout's answer is at fault."""
    w = World(classify, **world)
    for piece in pieces:
        w.send(piece)
    return close(w, place(classify))


def deciding_at(flag: int, instead: int = NEED_MORE_DATA) -> Classify:
    """Asks for more until `flag` is set, and permits then."""

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = PERMIT if out.flags & flag else NONE
        packet.stream_action = 0 if out.flags & flag else instead

    return classify


@case("V-1")
def rights_written(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        call[-1].action_type = PERMIT
        if bad:
            call[-1].rights = 0

    return sending(classify, b"a")


@case("V-2")
def more_at_the_buffer_limit(bad: bool) -> Outcome:
    asking = answering(NONE, stream_action=NEED_MORE_DATA)
    return sending(asking if bad else deciding_at(LIMIT), b"abcd", b"efgh", options=small_limit())


@case("V-3")
def outbound_deferred(bad: bool) -> Outcome:
    classify = answering(NONE, stream_action=DEFER)
    w = World(classify)
    (w.send if bad else w.receive)(b"a")
    return close(w, place(classify))


@case("V-4")
def drop_under_inspection(bad: bool) -> Outcome:
    drop = answering(NONE, stream_action=DROP)
    return sending(drop, b"a", action="callout_inspection" if bad else "callout_unknown")


@case("V-4b")
def drop_under_terminating(bad: bool) -> Outcome:
    drop = answering(NONE, stream_action=DROP)
    return sending(drop, b"a", action="callout_terminating" if bad else "callout_unknown")


@case("V-5")
def more_at_the_end(bad: bool) -> Outcome:
    classify = answering(NONE, stream_action=NEED_MORE_DATA) if bad else deciding_at(NO_MORE)
    w = World(classify)
    w.send(b"ab")
    w.send_fin()
    return close(w, place(classify))


@case("V-6")
def action_never_written(bad: bool) -> Outcome:
    def silent(*call: Any) -> None:
        pass

    return sending(silent, b"a", action="callout_terminating" if bad else "callout_inspection")


@case("V-7")
def action_type_beside_a_stream_action(bad: bool) -> Outcome:
    return sending(answering(PERMIT if bad else NONE, stream_action=NEED_MORE_DATA), b"a")


@case("V-8")
def more_enforced_than_shown(bad: bool) -> Outcome:
    return sending(answering(PERMIT, enforced=6 if bad else 5), b"hello")


@case("V-9")
def permit_nothing(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        w.inject_bytes(SEND, b"x")
        call[-1].action_type = PERMIT
        call[2].count_bytes_enforced = 0 if bad else 1

    w = World(classify, options=hints())
    w.send(b"a")
    return close(w, place(classify))


@case("V-10")
def required_without_need_more_data(bad: bool) -> Outcome:
    return sending(answering(PERMIT, required=4 if bad else 0), b"a")


@case("V-11")
def enforced_with_need_more_data(bad: bool) -> Outcome:
    return sending(answering(NONE, enforced=1 if bad else 0, stream_action=NEED_MORE_DATA), b"ab")


@case("V-12")
def required_above_the_limit(bad: bool) -> Outcome:
    asking = answering(NONE, stream_action=NEED_MORE_DATA, required=9 if bad else 8)
    return sending(asking, b"a", options=small_limit())


@case("V-13")
def part_decided_at_the_limit(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = NONE
        if not out.flags & LIMIT:
            packet.stream_action = NEED_MORE_DATA
            return
        out.action_type = PERMIT
        packet.count_bytes_enforced = 3 if bad and len(packet.stream_data) == 8 else 0

    return sending(classify, b"abcdefgh", options=small_limit())


@case("V-14")
def continued_inside_a_classify(bad: bool) -> Outcome:
    where: list[str] = [""]

    def go_on() -> None:
        where.append(here())
        w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH)

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = NONE
        packet.stream_action = DEFER
        if bad:
            go_on()

    w = World(once(classify))
    w.receive(b"a")
    go_on()
    w.settle()
    return close(w, where[1])


@case("V-15")
def continued_with_other_flags(bad: bool) -> Outcome:
    w = World(once(answering(NONE, stream_action=DEFER)))
    w.receive(b"a")
    where = here()
    w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE if bad else RECEIVE_PUSH)
    w.settle()
    return close(w, where)


def out_of_band_then(answer: int, stream_action: int = 0) -> tuple[World, Classify]:
    """The first indication is cloned and blocked, the others are answered so."""

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        if w.kept or w.events("classify"):
            out.action_type = answer
            packet.stream_action = stream_action
        else:
            w.keep_clone(packet)
            out.action_type = BLOCK

    w = World(classify)
    w.send(b"a")
    return w, classify


@case("V-17")
def permit_while_bytes_are_pended(bad: bool) -> Outcome:
    w, classify = out_of_band_then(PERMIT if bad else BLOCK)
    w.send(b"b")
    w.discard()
    return close(w, place(classify))


@case("V-17w")
def return_to_inline(bad: bool) -> Outcome:
    w, classify = out_of_band_then(PERMIT if bad else BLOCK)
    w.discard()
    w.send(b"b")
    return close(w, place(classify))


@case("V-17x")
def urgent_byte_overtakes(bad: bool) -> Outcome:
    w, classify = out_of_band_then(PERMIT)
    if not bad:
        w.discard()
    w.send(b"!", urgent=True)
    if bad:
        w.discard()
    return close(w, place(classify))


@case("V-18")
def allowed_with_something_pended(bad: bool) -> Outcome:
    w, classify = out_of_band_then(NONE, ALLOW)
    if not bad:
        w.discard()
    w.send(b"b")
    if bad:
        w.discard()
    return close(w, place(classify))


@case("V-30")
def metadata_read_without_its_bit(bad: bool) -> Outcome:
    where: list[str] = [""]

    def classify(*call: Any) -> None:
        meta = call[1]
        if bad or meta.current_metadata_values & 0x10:  # FWPS_METADATA_FIELD_PROCESS_ID, never there (MET-1)
            where.append(here())
            assert meta.process_id
        call[-1].action_type = PERMIT

    w = World(classify)
    w.send(b"a")
    return close(w, where[-1])


@case("V-36")
def absorb_at_the_stream_layer(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        call[-1].action_type = PERMIT
        if bad:
            call[-1].flags |= ABSORB

    return sending(classify, b"a")


@case("V-40")
def exception(bad: bool) -> Outcome:
    where: list[str] = []

    def classify(*call: Any) -> None:
        where.append(here(2))
        if bad:
            raise ValueError("broken")
        call[-1].action_type = PERMIT

    w = World(classify)
    w.send(b"a")
    return close(w, where[0])


@case("V-42")
def over_the_time_budget(bad: bool) -> Outcome:
    clock = HandClock()

    def slow(*call: Any) -> None:
        clock.now += 0.02 if bad else 0.005
        call[-1].action_type = PERMIT

    return sending(slow, b"a", clock=clock)


@case("V-43")
def held_although_nodelay(bad: bool) -> Outcome:
    clock = HandClock()
    classify = once(answering(NONE, stream_action=NEED_MORE_DATA))
    w = World(classify, clock=clock, nodelay=True)
    w.send(b"a")
    clock.now += 1.0 if bad else 0.001
    w.send(b"b")
    return close(w, place(classify))


@case("V-45")
def flag_newer_than_the_structure(bad: bool) -> Outcome:
    w = World(permit, flags=4, version=0 if bad else 1)  # ALLOW_MID_STREAM_INSPECTION: FWPS_CALLOUT1
    outcome = close(w, place(permit), on_flow=False)
    return outcome._replace(filters=())  # said at the registration, before there is a filter


@case("V-46")
def inspection_injects(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        call[-1].action_type = CONTINUE
        if bad:
            w.inject_bytes(SEND, b"x")

    w = World(classify, action="callout_inspection")
    w.send(b"a")
    return close(w, w.injected_at)


@case("V-49")
def reserved_member_written(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        call[-1].action_type = PERMIT
        if bad:
            call[-1].out_context = 1

    return sending(classify, b"a")


@case("V-51")
def asks_without_end(bad: bool) -> Outcome:
    classify = answering(NONE, stream_action=NEED_MORE_DATA, required=1)
    return sending(classify, *[b"a"] * (64 if bad else 63))


@case("ACT-13")
def unknown_stream_action(bad: bool) -> Outcome:
    return sending(answering(NONE, stream_action=99 if bad else NEED_MORE_DATA), b"a")


class Counting(Plain):
    """Counts what it is shown, and decides on pairs of bytes."""

    def __init__(self, classify: Classify) -> None:
        super().__init__(classify, name="counting")
        self.shown = {False: 0, True: 0}
        self.undecided = 0

    def count(self, flow_handle: int, inbound: bool) -> int:
        return self.shown[inbound]


def counting(classify: Classify, options: EngineOptions) -> tuple[MemoryDriver, Counting, list[int]]:
    """A driver with a counting callout whose count is checked."""
    callout = Counting(classify)
    driver = MemoryDriver(options=options)
    added = driver.add(accounted(callout, callout.count))
    return driver, callout, added.filter_ids


def played(driver: MemoryDriver, *pieces: bytes) -> list[dict[str, Any]]:
    """The local host sends the pieces and half-closes; the violations."""
    flow = driver.connect()
    assert flow is not None
    for piece in pieces:
        flow.send(piece)
        driver.settle()
    flow.send_fin()
    flow.receive_fin()
    driver.settle()
    assert flow.remote.data == b"".join(pieces)
    driver.close()
    return [event for event in driver.events if event["event"] == "violation"]


@case("V-56")
def remainder_counted_as_new(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        packet, out = parts(call)
        length = packet.stream_data.data_length
        callout.shown[False] += length - (0 if bad else callout.undecided)
        out.action_type = PERMIT
        packet.count_bytes_enforced = 2 if length > 2 else 0
        callout.undecided = max(0, length - 2)

    driver, callout, filters = counting(classify, quiet())
    return Outcome(played(driver, b"abcd", b"e"), place(classify), "counting", filters)


@case("V-57")
def counted_after_the_fin(bad: bool) -> Outcome:
    ends: list[int] = []

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        flags, length = int(packet.stream_data.flags), packet.stream_data.data_length
        out.action_type = PERMIT
        inbound = bool(flags & RECEIVE)
        if flags & SEND_DISCONNECT and not inbound:
            ends.append(1)
        # Takes a second FIN for a byte of data.
        callout.shown[inbound] += 1 if bad and len(ends) == 2 and not inbound else length

    options = quiet()
    options.repeat_fin = True
    driver, callout, filters = counting(classify, options)
    return Outcome(played(driver, b"ab"), place(classify), "counting", filters)


def quiet() -> EngineOptions:
    """The options of a world, for those that make their driver themselves."""
    options = EngineOptions()
    options.verify.level = "warn"
    return options
