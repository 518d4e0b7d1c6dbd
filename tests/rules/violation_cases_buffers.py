"""Owns the cases of what a callout does with buffers, injections and FINs; see `violation_cases`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.rules.answers import answering, block, permit
from tests.rules.minimal import (
    BLOCK,
    DEFER,
    NONE,
    PERMIT,
    RECEIVE,
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    STREAM,
    SUCCESS,
    HandClock,
    World,
    here,
    hints,
    place,
)
from tests.rules.violation_cases import Outcome, case, close
from wfpstream.fwps import ndis_advance_net_buffer_data_start, ndis_retreat_net_buffer_data_start


def pending_world(**world: Any) -> World:
    """A callout that clones and blocks everything but an ABORT."""

    def classify(*call: Any) -> None:
        if call[2].stream_data.data_length:
            w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(classify, **world)
    return w


def both_at_once(w: World, first: Callable[[], object], second: Callable[[], object]) -> None:
    """Two threads inside the bridge at once: the engine's thread looks only when both are there."""
    arrived = threading.Semaphore(0)
    engine = w.driver.engine
    inner = engine.run_soon
    assert inner is not None

    def run_soon(fn: Callable[[], None]) -> None:
        inner(fn)
        arrived.release()

    engine.run_soon = run_soon
    threads = [threading.Thread(target=call) for call in (first, second)]
    for thread in threads:
        thread.start()
        assert arrived.acquire(timeout=30)
    w.settle()
    for thread in threads:
        thread.join(30)


def one_after_the_other(w: World, first: Callable[[], object], second: Callable[[], object]) -> None:
    """The second thread begins when the first has its answer."""
    arrived = threading.Event()
    engine = w.driver.engine
    inner = engine.run_soon
    assert inner is not None

    def run_soon(fn: Callable[[], None]) -> None:
        inner(fn)
        arrived.set()

    engine.run_soon = run_soon
    for call in (first, second):
        thread = threading.Thread(target=call)
        thread.start()
        assert arrived.wait(30)
        arrived.clear()
        w.settle()
        thread.join(30)


class Calls:
    """What the threads of a driver call, each noting its line."""

    def __init__(self, w: World) -> None:
        self.w = w
        self.where = ""

    def arguments(self, flags: int) -> tuple[Any, ...]:
        w = self.w
        return (
            w.callout.injection_handle, 0, 0, w.flow.id, w.callout_id, STREAM, flags,
            w.list_of(b"x"), 1, w.free_in_completion, 0,
        )  # fmt: skip

    def inject(self) -> None:
        self.where = here(1)
        self.w.driver.engine.from_thread(self.w.fwps.stream_inject_async, *self.arguments(SEND))

    def inject_inbound(self) -> None:
        self.w.driver.engine.from_thread(self.w.fwps.stream_inject_async, *self.arguments(RECEIVE_PUSH))

    def resume(self) -> None:
        arguments = (self.w.flow.id, self.w.callout_id, STREAM, RECEIVE_PUSH)
        self.where = here(1)
        self.w.driver.engine.from_thread(self.w.fwps.stream_continue, *arguments)


@case("V-16")
def continue_overlaps_an_injection(bad: bool) -> Outcome:
    w = World(answering(NONE, stream_action=DEFER))
    w.receive(b"held")
    calls = Calls(w)
    (both_at_once if bad else one_after_the_other)(w, calls.inject_inbound, calls.resume)
    return close(w, calls.where)


@case("V-22")
def injections_overlap(bad: bool) -> Outcome:
    w = World(block)
    w.send(b"a")
    calls = Calls(w)
    (both_at_once if bad else one_after_the_other)(w, calls.inject, calls.inject)
    return close(w, calls.where)


@case("V-19")
def fin_injected_where_none_is_pended(bad: bool) -> Outcome:
    w = World(block)
    if not bad:
        w.send_fin()
    w.inject(SEND_FIN, None)
    w.settle()
    return close(w, w.injected_at)


@case("V-20")
def copy_forgotten_at_the_end(bad: bool) -> Outcome:
    copies: list[bytes] = []

    def classify(*call: Any) -> None:
        packet, out = call[2], call[-1]
        out.action_type = BLOCK if packet.stream_data.data_length else PERMIT
        if packet.stream_data.data_length:
            copies.append(packet.stream_data.tobytes())
        elif copies and not bad:
            w.inject_bytes(SEND, copies.pop())

    w = World(classify, options=hints())
    w.send(b"ab")
    w.send_fin()
    w.receive_fin()
    assert w.to_remote == (b"" if bad else b"ab")
    return close(w, place(classify))


@case("V-21")
def injection_after_a_permit(bad: bool) -> Outcome:
    w = World(permit if bad else block)
    w.send(b"a")
    w.inject_bytes(SEND, b"x")
    w.settle()
    return close(w, w.injected_at)


@case("V-23")
def clone_leaked(bad: bool) -> Outcome:
    where: list[str] = []

    def classify(*call: Any) -> None:
        data = call[2].stream_data
        if data.data_length:
            where.append(here())
            w.kept.append(w.fwps.clone_stream_data(data)[1])
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"a")
    if not bad:
        w.discard()
    w.reset("local")
    w.driver.advance(5.1)
    return close(w, where[0])


@case("V-24")
def held_too_long(bad: bool) -> Outcome:
    clock = HandClock()
    w = pending_world(clock=clock)
    w.send(b"a")
    clock.now += 30.5 if bad else 29.5
    where = here()
    w.fwps.discard_cloned_stream_data(w.kept.pop())
    return close(w, where)


@case("V-25")
def wrong_free_function(bad: bool) -> Outcome:
    w = pending_world()
    w.send(b"a")
    where = here()
    (w.fwps.free_net_buffer_list if bad else w.fwps.free_clone_net_buffer_list)(w.kept.pop())
    return close(w, where)


@case("V-26")
def freed_twice(bad: bool) -> Outcome:
    w = pending_world()
    w.send(b"a")
    clone = w.kept.pop()
    w.fwps.free_clone_net_buffer_list(clone)
    where = here(2)
    if bad:
        w.fwps.free_clone_net_buffer_list(clone)
    return close(w, where)


@case("V-27")
def used_after_the_classify(bad: bool) -> Outcome:
    def classify(*call: Any) -> None:
        data = call[2].stream_data
        chain = data.net_buffer_list_chain
        if not bad:
            w.fwps.reference_net_buffer_list(chain)
        w.kept += [data, chain]
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"abc")
    data, chain = w.kept
    buffer = bytearray(3)
    if bad:
        where = here()
        w.fwps.copy_stream_data_to_buffer(data, buffer, 3)
    else:
        where = ""
        buffer[:] = chain.tobytes()
        w.fwps.dereference_net_buffer_list(chain)
    assert (bytes(buffer) == b"abc") is not bad
    return close(w, where)


@case("V-28")
def handle_destroyed_in_a_callback(bad: bool) -> Outcome:
    where: list[str] = [""]

    def destroy() -> None:
        where.append(here())
        w.fwps.injection_handle_destroy(handle)

    def classify(*call: Any) -> None:
        if bad:
            destroy()
        call[-1].action_type = BLOCK

    w = World(classify)
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    w.send(b"a")
    destroy()
    return close(w, where[1])


@case("V-29")
def freed_with_its_start_moved(bad: bool) -> Outcome:
    w = pending_world()
    w.send(b"abc")
    clone = w.kept.pop()
    ndis_advance_net_buffer_data_start(clone.first_net_buffer, 2)
    if not bad:
        ndis_retreat_net_buffer_data_start(clone.first_net_buffer, 2)
    where = here()
    w.fwps.discard_cloned_stream_data(clone)
    return close(w, where)


@case("V-34")
def leaked_after_a_refusal(bad: bool) -> Outcome:
    w = World(permit)
    where = here()
    _, nbl = w.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, b"x", 0, 1)
    assert w.inject(SEND, nbl, length=2) != SUCCESS
    if not bad:
        w.fwps.free_net_buffer_list(nbl)
    return close(w, where)._replace(callout="minimal")


@case("V-35")
def completion_does_not_free(bad: bool) -> Outcome:
    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        if not bad:
            w.fwps.free_net_buffer_list(nbl)

    w = World(block)
    where = here()
    _, nbl = w.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, b"x", 0, 1)
    assert w.inject(SEND, nbl, completion_fn=complete) == SUCCESS
    w.settle()
    return close(w, where)


@case("V-37")
def injection_long_after_a_reset(bad: bool) -> Outcome:
    w = World(block)
    w.send(b"a")
    w.reset()
    w.driver.advance(5.5 if bad else 4.5)
    w.inject_bytes(SEND, b"x")
    return close(w, w.injected_at)


@case("V-50")
def data_with_a_disconnect_bit(bad: bool) -> Outcome:
    w = World(block)
    if not bad:
        w.send_fin()
    w.inject_bytes(SEND_FIN, b"x")
    w.settle()
    return close(w, w.injected_at, "V-19")


@case("V-52")
def pended_fin_never_injected(bad: bool) -> Outcome:
    w = World(block)
    w.send_fin()
    w.driver.advance(5.5 if bad else 4.5)
    w.reset()
    return close(w, place(block))


@case("V-53")
def pended_bytes_out_of_order(bad: bool) -> Outcome:
    w = pending_world(options=hints())
    w.send(b"a")
    w.send(b"b")
    if bad:
        w.kept.reverse()
    while w.kept:
        w.inject_kept(SEND)
    w.settle()
    return close(w, w.injected_at)


@case("V-58")
def inbound_list_with_two_net_buffers(bad: bool) -> Outcome:
    w = World(block)
    nbl, other = w.list_of(b"a"), w.list_of(b"b")
    assert nbl.first_net_buffer is not None
    nbl.first_net_buffer.next = other.first_net_buffer
    w.inject(RECEIVE if bad else SEND, nbl)
    w.settle()
    w.fwps.free_net_buffer_list(other)
    return close(w, w.injected_at)
