"""Rules that leave marks on a numbered stream, and who changes them as fast as it can.

A rule writes the number of its generation, modulo 3 and from 1, into two free bits of every byte it meets that has
no mark there yet. So the receiver sees which rule each byte met: generations must come one after the other, none
left out, none twice, changing between two bytes anywhere. Marks are made in every way a callout can do it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import groupby
from random import Random
from typing import Any, ClassVar, NamedTuple

import trio

from wfpstream import fwpm
from wfpstream.config import deploy, parse_config
from wfpstream.engine import AddedCallout, FilterEngine
from wfpstream.engine._filter_engine import listener_condition
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus
from wfpstream.fwps import (
    Callout,
    ClassifyOut,
    ClassifyOutFlags,
    IncomingMetadataValues,
    OutOfBandCallout,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamFlags,
    Worker,
)
from wfpstream.fwps._constants import NotifyType

BY_HAND, BY_CONFIG = 4, 6
RING = 3

_RECEIVE = int(StreamFlags.RECEIVE)
_DIRECTION = int(StreamFlags.RECEIVE | StreamFlags.SEND)
_FIN = int(StreamFlags.RECEIVE_DISCONNECT | StreamFlags.SEND_DISCONNECT)
_ABORT = int(StreamFlags.RECEIVE_ABORT | StreamFlags.SEND_ABORT)
_LAST = int(ClassifyOutFlags.NO_MORE_DATA | ClassifyOutFlags.BUFFER_LIMIT_REACHED)
# Held for this much by a rule that wants more at a time.
HUNGER = 96 * 1024


def marking(generation: int, shift: int) -> bytes:
    """The translation that marks what has no mark."""
    value = (generation % RING + 1) << shift
    return bytes(byte if byte >> shift & 3 else byte | value for byte in range(256))


class Mark(Callout):
    """A rule: marks inline what it is shown. The subclasses do the same in other ways.

    Attributes:
        made: every rule of the present run, by (shift, generation).
        ended: directions (inbound or not) whose FIN was seen.
        gone: set when the last filter that named it has gone.
    """

    flags = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)
    made: ClassVar[dict[tuple[int, int], Mark]] = {}
    ended: ClassVar[set[bool]] = set()

    def __init__(self, generation: int, shift: int = BY_HAND) -> None:
        self.generation = generation
        self.table = marking(generation, shift)
        self.met: set[bool] = set()
        self.gone = trio.Event()
        self._effective = trio.Event()
        self._filters = 0
        self.made[shift, generation] = self

    @classmethod
    def forget(cls) -> None:
        """A new run."""
        cls.made.clear()
        cls.ended.clear()

    async def effective(self) -> frozenset[bool]:
        """Wait until bytes of both directions got this mark from now on; those that ended do not count."""
        self.met.clear()
        self._effective = trio.Event()
        self._look()
        await self._effective.wait()
        return frozenset(self.met)

    def notify_fn(self, notify_type: int, filter_key: Any, filter: Any) -> int:
        """Count the filters."""
        if notify_type == NotifyType.ADD_FILTER:
            self._filters += 1
        elif notify_type == NotifyType.DELETE_FILTER:
            self._filters -= 1
            if not self._filters:
                self.gone.set()
        return NtStatus.STATUS_SUCCESS

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: IncomingMetadataValues,
        layer_data: StreamCalloutIoPacket,
        classify_context: object,
        filter: object,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """FIN and reset pass, data is decided."""
        stream = layer_data.stream_data
        self.see_end(stream.flags)
        classify_out.action_type = int(ActionType.PERMIT)
        if stream.data_length and not stream.flags & _ABORT:
            self.decide(in_fixed_values.layer_id, in_meta_values.flow_handle, layer_data, classify_out)

    def see_end(self, flags: int) -> None:
        """Note the end of a direction."""
        inbound = bool(flags & _RECEIVE)
        if flags & (_FIN | _ABORT) and inbound not in self.ended:
            self.ended.add(inbound)
            for mark in self.made.values():
                mark._look()

    def marked(self, data: bytes, inbound: bool) -> bytes:
        """`data` with this mark where there was none; that some was marked is noted."""
        marked = data.translate(self.table)
        if inbound not in self.met and marked != data:
            self.met.add(inbound)
            self._look()
        return marked

    def _look(self) -> None:
        if len(self.met | self.ended) == 2:
            self._effective.set()

    def decide(self, layer_id: int, flow_id: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Replace all of it."""
        self.replace(layer_id, flow_id, packet, out, packet.stream_data.data_length)

    def replace(
        self, layer_id: int, flow_id: int, packet: StreamCalloutIoPacket, out: ClassifyOut, count: int
    ) -> None:
        """Inject the first `count` bytes marked, and block them (INL-2)."""
        stream = packet.stream_data
        marked = self.marked(stream.tobytes()[:count], bool(stream.flags & _RECEIVE))
        status = self.inject(flow_id, layer_id, stream.flags & _DIRECTION, marked)
        assert status.ok, status.name
        out.action_type = int(ActionType.BLOCK)
        packet.count_bytes_enforced = count


class InPieces(Mark):
    """Decides an indication in several answers: remainder sequences."""

    def decide(self, layer_id: int, flow_id: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Half of what is left, down to some rest."""
        length = packet.stream_data.data_length
        self.replace(layer_id, flow_id, packet, out, length if length < 10_000 else length // 2 + 1)


class Hungry(Mark):
    """Waits for more bytes than one indication has."""

    def decide(self, layer_id: int, flow_id: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """NEED_MORE_DATA until enough is there."""
        if packet.stream_data.data_length >= HUNGER or out.flags & _LAST:
            super().decide(layer_id, flow_id, packet, out)
            return
        out.action_type = int(ActionType.NONE)
        packet.stream_action = int(StreamActionType.NEED_MORE_DATA)
        packet.count_bytes_required = HUNGER


class Deferring(Mark):
    """Defers what comes in every other time, and goes on a moment later."""

    def __init__(self, generation: int, shift: int = BY_HAND) -> None:
        super().__init__(generation, shift)
        self._deferred = False

    def decide(self, layer_id: int, flow_id: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """DEFER, inbound (DEF-1)."""
        flags = packet.stream_data.flags
        self._deferred = bool(flags & _RECEIVE) and not self._deferred
        if not self._deferred:
            super().decide(layer_id, flow_id, packet, out)
            return
        out.action_type = int(ActionType.NONE)
        packet.stream_action = int(StreamActionType.DEFER)
        self.after(0.0, self._go_on, flow_id, layer_id, flags)

    def _go_on(self, flow_id: int, layer_id: int, flags: int) -> None:
        self.fwps.stream_continue(flow_id, self.callout_id(layer_id), layer_id, flags)


class MarkWorker(Worker):
    """Marks in its own time."""

    async def run(self) -> None:
        """A drain changes nothing: what was taken is marked and injected at once anyway."""
        mark = self.callout
        assert isinstance(mark, OutOfBand)
        while True:
            item = await self.next()
            if item.kind == "data":
                await self.inject(mark.marked(item.data, self.inbound))
            elif item.kind == "end":
                await self.inject_fin()
                return
            elif item.kind == "abort":
                return


class OutOfBand(OutOfBandCallout, Mark):
    """Clones, blocks and injects from a worker."""

    worker_class = MarkWorker

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: IncomingMetadataValues,
        layer_data: StreamCalloutIoPacket,
        classify_context: object,
        filter: object,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Leave it to the worker."""
        self.see_end(layer_data.stream_data.flags)
        super().classify_fn(
            in_fixed_values,
            in_meta_values,
            layer_data,
            classify_context,
            filter,
            flow_context,
            classify_out,
        )


class Slow(OutOfBand):
    """As `OutOfBand`, with injections that come later: much is pended when the rule has to go."""

    def make_worker(self, host: Any, flow: Any, direction: int) -> Worker:
        """A worker that sleeps a little before each injection."""
        return SlowWorker(host, self, flow, direction)


class SlowWorker(MarkWorker):
    """Sleeps before it takes."""

    async def next(self) -> Any:
        """The next item, a little later."""
        await self.sleep(0.0005)
        return await super().next()


KINDS: tuple[type[Mark], ...] = (Mark, InPieces, Hungry, Deferring, OutOfBand, Slow)


class Change(NamedTuple):
    """A generation: how it came into force, and the directions of which bytes surely got its mark."""

    generation: int
    how: str
    met: frozenset[bool]


# What a configuration may have beside its marking rule; none of it changes a byte.
HARMLESS = (
    "monitor,to=/dev/null",
    "latency,delay=1ms",
    "throttle,rate=1GiB/s",
    "stream_edit,find=nowhere,replace=x",
    "stream_edit,find=nowhere,replace=x,mode=oob",
)


@dataclass
class Reloads:
    """Configurations in force one after the other, until the stream is over.

    Attributes:
        changes: each configuration, in order.
    """

    dice: Random
    changes: list[Change] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._kind = self.dice.choice(KINDS)
        self.deployment = deploy(parse_config(self._text(0)), clock=time.monotonic)

    def _text(self, generation: int) -> str:
        """A configuration: the same rule again with another option or class, others that come and go."""
        if self.dice.random() < 0.5:
            self._kind = self.dice.choice(KINDS)
        callout = f"{self._kind.__module__}:{self._kind.__name__},generation={generation},shift={BY_CONFIG}"
        # What was above the marking rule stays above it: bytes held between its old and its new place would meet
        # neither of the two, and then the one after next.
        above, below = ([self.dice.choice(HARMLESS)] if self.dice.random() < 0.5 else [] for _ in range(2))
        rules = [*(("above", one) for one in above), ("mark", callout), *(("below", one) for one in below)]
        limit = self.dice.choice(("256KiB", "512KiB"))
        return f'[limits]\nunsent = "{limit}"\n' + "".join(
            f'[[rule]]\nname = "{name}"\ncallout = "{callout}"\n' for name, callout in rules
        )

    async def run(self) -> None:
        """Each as soon as the rule of the one before has marked bytes of both directions."""
        how = "first"
        for generation in range(1 << 30):
            if generation:
                loaded = parse_config(self._text(generation))
                assert self.deployment.prepare(loaded).commit()
                await Mark.made[BY_CONFIG, generation - 1].gone.wait()
                how = "reloaded"
            met = await Mark.made[BY_CONFIG, generation].effective()
            self.changes.append(Change(generation, how, met))
            if len(Mark.ended) == 2:
                break


@dataclass
class Churn:
    """Changes rules by hand until the stream is over.

    Attributes:
        changes: each generation, in order.
        noise: changes that concern no byte, committed or aborted.
    """

    engine: FilterEngine
    dice: Random
    changes: list[Change] = field(default_factory=list)
    noise: int = 0

    async def rules(self) -> None:
        """One rule after the other, each as soon as the one before has marked bytes of both directions."""
        current: AddedCallout | None = None
        for generation in range(1 << 30):
            mark = self.dice.choice(KINDS)(generation)
            how = self.dice.choice(("at once", "overlapping", "with a gap")) if current else "first"
            old, current = current, await self._swap(current, mark, how)
            if old is not None:
                await self._forget(old)
            self.changes.append(Change(generation, f"{type(mark).__name__} {how}", await mark.effective()))
            if len(Mark.ended) == 2:
                break

    async def _swap(self, old: AddedCallout | None, mark: Mark, how: str) -> AddedCallout:
        session = self.engine.session
        if how == "at once":
            check(session.transaction_begin())
        if old is not None and how != "overlapping":
            self._retire(old)
        if old is not None and how == "with a gap":
            await gone(old)
        new = self.engine.add_callout(
            mark, name=f"mark {mark.generation}", weight=self.dice.randint(1, 0x7000)
        )
        if how == "at once":
            check(session.transaction_commit())
        if old is not None and how == "overlapping":
            self._retire(old)
        return new

    def _retire(self, added: AddedCallout) -> None:
        for filter_id in added.filter_ids:
            check(self.engine.session.filter_retire_by_id(filter_id))

    async def _forget(self, added: AddedCallout) -> None:
        """The retired filters are gone, or go soon; then everything else of the rule can be deleted."""
        await gone(added)
        added.filter_ids.clear()
        check(self.engine.remove_callout(added))

    async def others(self) -> None:
        """Changes beside the rules, as fast as the loop turns: nothing of them may be felt."""
        deeds = [self._unmatched, self._aborted, self._dynamic, self._changed]
        while True:
            for deed in self.dice.choices(deeds, k=4):
                deed()
                self.noise += 1
            await trio.lowlevel.checkpoint()

    def _unmatched(self) -> None:
        """A filter that matches no flow here, and is deleted again."""
        session = self.engine.session
        filter_id = checked(session.filter_add(block(elsewhere=True)))
        check(session.filter_delete_by_id(filter_id))

    def _aborted(self) -> None:
        """A filter that would block everything, in a transaction that comes to nothing (MGMT-2)."""
        session = self.engine.session
        check(session.transaction_begin())
        checked(session.filter_add(block()))
        check(session.transaction_abort())

    def _dynamic(self) -> None:
        """Objects that end with their session (OBJ-2)."""
        status, session = self.engine.management.engine_open(fwpm.SessionFlags.DYNAMIC)
        assert session is not None, status.name
        checked(session.filter_add(block(elsewhere=True)))
        check(session.engine_close())

    def _changed(self) -> None:
        """One filter in place of another, in one transaction."""
        session = self.engine.session
        old = checked(session.filter_add(block(elsewhere=True)))
        check(session.transaction_begin())
        check(session.filter_delete_by_id(old))
        new = checked(session.filter_add(block(elsewhere=True)))
        check(session.transaction_commit())
        check(session.filter_delete_by_id(new))


async def gone(added: AddedCallout) -> None:
    """Wait until the last filter of a retired rule is gone."""
    assert isinstance(added.callout, Mark)
    await added.callout.gone.wait()


def block(elsewhere: bool = False) -> fwpm.Filter:
    """A filter that blocks all flows, or those of a listener that is not there."""
    return fwpm.Filter(
        display_data=fwpm.DisplayData("block"),
        layer_key=fwpm.LAYER_STREAM_V4,
        action_type=ActionType.BLOCK,
        conditions=(listener_condition("elsewhere"),) if elsewhere else (),
    )


def check(status: NtStatus) -> None:
    """What was asked for was done."""
    assert status.ok, status.name


def checked(answer: tuple[NtStatus, int]) -> int:
    """As `check`; the id."""
    check(answer[0])
    return answer[1]


# --- what the receiver saw --------------------------------------------------------------------------


def marks_of(runs: list[tuple[int, int]], shift: int) -> list[int]:
    """The marks at `shift` in order, equal neighbours once: 0 for none, else generation % 3 + 1."""
    return [mark for mark, _ in groupby(mark << 4 >> shift & 3 for mark, _ in runs)]


def check_order(marks: list[int], changes: list[Change], inbound: bool) -> None:
    """Every generation that marked bytes is there, one after the other; bytes without a mark only where allowed."""
    generations = [mark for mark in marks if mark]
    sure = [change.generation for change in changes if inbound in change.met]
    assert sure == list(range(len(sure)))
    # The last one may have begun when the stream was over.
    assert len(sure) <= len(generations) <= len(changes) + 1, (len(sure), len(generations), len(changes))
    assert generations == [generation % RING + 1 for generation in range(len(generations))]
    gaps = sum(1 for change in changes if change.how.endswith(("first", "with a gap")))
    assert marks.count(0) <= gaps + 1
