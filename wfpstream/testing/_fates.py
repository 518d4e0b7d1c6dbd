"""What became of each byte of one flow, read off its events.

Owns working out, for each stage and direction, which bytes went on and which were taken out, from the answers and from
what follows them: the way through the stages is walked once more, with lengths in place of bytes. It must not know the
form in which this is shown and compared (`_canonical`), nor an engine: events are all it gets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]

DIRECTIONS = ("to_upstream", "to_client")

PERMITTED, BLOCKED, DISCARDED, PUT_IN = "permitted", "blocked", "discarded", "put in"

# Of a flow that one of these ended, only what had got through is the same for every cut of the stream.
_CUT_SHORT = frozenset(("drop", "abort"))
_ANSWERS = frozenset(("indicate", "classify"))
# Reported right behind an answer that is not allowed; a policy then decides (ACT-13). They are never switched off.
_ILLEGAL = frozenset(("V-2", "V-3", "V-5", "ACT-13"))


class Piece:
    """Bytes of one origin on their way: their place as events give it, their length, put in by a stage or not."""

    __slots__ = ("length", "offset", "put_in")

    def __init__(self, offset: int, length: int, put_in: bool) -> None:
        self.offset = offset
        self.length = length
        self.put_in = put_in

    def split(self, length: int) -> Piece:
        """Cut off the first `length` bytes."""
        front = Piece(self.offset, length, self.put_in)
        self.length -= length
        if not self.put_in:
            self.offset += length
        return front

    def holds(self, offset: int) -> bool:
        """Does an indication that begins here, by its event, begin in this piece?"""
        if self.put_in:
            return offset == self.offset
        return self.offset <= offset < self.offset + self.length


class Entry:
    """One step of a side: `length` bytes permitted, blocked or discarded, or put in by the stage itself."""

    __slots__ = ("deed", "from_above", "length")

    def __init__(self, deed: str, length: int, from_above: bool) -> None:
        self.deed = deed
        self.length = length
        self.from_above = from_above

    @property
    def shown(self) -> int:
        """Bytes of what reaches the stage."""
        return 0 if self.deed == PUT_IN else self.length

    @property
    def left(self) -> int:
        """Bytes of what leaves the stage."""
        return self.length if self.deed in (PERMITTED, PUT_IN) else 0


class Side:
    """One direction of a stage.

    Attributes:
        queue: what reached the stage and is not decided.
        history: what became of the rest, and what the stage put in, in this order.
        fin_shown: its FIN was indicated.
        fin: what was answered to it; "" if nothing.
        closed: the stage injected a FIN: what comes behind it does not count any more.
        ended_early: it did so before it was shown one.
    """

    __slots__ = ("closed", "ended_early", "fin", "fin_shown", "history", "queue")

    def __init__(self) -> None:
        self.queue: deque[Piece] = deque()
        self.history: list[Entry] = []
        self.fin_shown = False
        self.fin = ""
        self.closed = False
        self.ended_early = False

    @property
    def waiting(self) -> int:
        """Bytes in the queue."""
        return sum(piece.length for piece in self.queue)

    @property
    def has_taken(self) -> bool:
        """Did it take the last bytes that were decided, or the FIN, out of the stream (OOB-5)?"""
        decided = next((entry for entry in reversed(self.history) if entry.deed != PUT_IN), None)
        return self.fin == BLOCKED or (decided is not None and decided.deed == BLOCKED)

    @property
    def let_go_of_fin(self) -> bool:
        """Has a FIN left the stage?"""
        return self.closed or self.fin == PERMITTED

    def note(self, deed: str, length: int, from_above: bool = False) -> None:
        """Write a step down."""
        if not self.closed and length:
            self.history.append(Entry(deed, length, from_above))

    def take(self, count: int) -> list[Piece]:
        """The first `count` bytes of the queue, or what there is."""
        taken = []
        while count and self.queue:
            head = self.queue[0]
            piece = self.queue.popleft() if head.length <= count else head.split(count)
            count -= piece.length
            taken.append(piece)
        return taken

    def cut_behind(self, limit: int) -> None:
        """Forget what comes after the first `limit` bytes that left, if more did."""
        for place, entry in enumerate(self.history):
            if entry.left > limit:
                entry.length = limit
                del self.history[place + (limit > 0) :]
                self.cut_unsettled()
                return
            limit -= entry.left

    def cut_unsettled(self) -> None:
        """Forget what was taken out behind the last bytes that were permitted."""
        last = max((i for i, entry in enumerate(self.history) if entry.deed == PERMITTED), default=-1)
        self.history[last + 1 :] = [entry for entry in self.history[last + 1 :] if entry.deed == PUT_IN]


class Stage:
    """A stage of the flow, known by its filter within one log and by the name of its callout between logs."""

    __slots__ = ("allowed", "callout", "filter", "index", "sides")

    def __init__(self, filter_id: int | None, index: float, callout: str | None) -> None:
        self.filter = filter_id
        self.index = index
        self.callout = callout
        self.allowed = False
        self.sides = {direction: Side() for direction in DIRECTIONS}


class FlowFates:
    """The stages of one flow with what each of them did.

    Args:
        events: the flow's events, in order.

    Attributes:
        stages: in the order in which they are asked.
        reason: of the flow's end; "" if it has not ended, or only because the driver stopped.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._source = dict.fromkeys(DIRECTIONS, 0)  # bytes of the original stream that reached the stages
        self._open: Stage | None = None  # the stage whose classify is on the stack
        self._raised = False
        self._used: set[int] = set()  # `discard` events that belong to a classify
        self.stages: list[Stage] = []
        self._find_stages()
        self._by_filter = {stage.filter: stage for stage in self.stages}
        deleted = next((event for event in reversed(events) if event["event"] == "flow_deleted"), None)
        reason = deleted["reason"] if deleted is not None else ""
        self.reason: str = "" if reason == "stop" else reason
        for place, event in enumerate(events):
            self._read(place, event)
        if deleted is not None:
            self._pass_the_rest(deleted["ledger"])
        for direction in DIRECTIONS:
            self._cut(direction)

    def ended(self, direction: str) -> str:
        """How a direction ended: "fin", else the reason of the flow's end, "open" without one."""
        if self.reason == "fin":
            return "fin"
        if self.stages and self.stages[-1].sides[direction].let_go_of_fin:
            return "fin"
        return self.reason or "open"

    def fin_of(self, place: int, direction: str) -> str:
        """What a stage did to the end of the stream: "permitted", "blocked", "injected"; "" if nothing is certain."""
        side = self.stages[place].sides[direction]
        below = [stage.sides[direction] for stage in self.stages[place + 1 :]]
        if self.reason in _CUT_SHORT and not all(each.let_go_of_fin for each in (side, *below)):
            return ""
        if side.closed:
            return "injected"
        if any(each.ended_early for each in below):
            return ""  # the flow may have ended before the peer's own FIN came
        return PERMITTED if self.reason == "fin" else side.fin

    # -- the stages ------------------------------------------------------------------------------------

    def _find_stages(self) -> None:
        """Every stage that was asked, and those that removed without being asked (ARB-10), in their order."""
        known: dict[int | None, Stage] = {}
        asked_last = dict.fromkeys(DIRECTIONS, -1.0)
        for event in self._events:
            kind = event["event"]
            if kind in _ANSWERS:
                index: float = event["stage"]
                asked_last[event["dir"]] = index
            elif kind == "discard" and event["reason"] == BLOCKED and event["filter"] not in known:
                index = event.get("stage", asked_last[event["dir"]] + 0.5)
            else:
                continue
            stage = known.get(event["filter"])
            if stage is None:
                self._make_room(known, index)
                known[event["filter"]] = stage = Stage(event["filter"], index, event.get("callout"))
            stage.index = index
        if not known and any(event["event"] == "inject" for event in self._events):
            known[None] = Stage(None, 0, None)
        self.stages = sorted(known.values(), key=lambda stage: stage.index)

    def _make_room(self, known: dict[int | None, Stage], index: float) -> None:
        """Filters that came later move the ones below them (MGMT-11)."""
        if any(stage.index == index for stage in known.values()):
            for stage in known.values():
                stage.index += stage.index >= index

    # -- event by event --------------------------------------------------------------------------------

    def _read(self, place: int, event: Event) -> None:
        kind = event["event"]
        if kind == "indicate":
            self._open = self._by_filter[event["filter"]]
            self._raised = False
            if _has(event, "_DISCONNECT"):
                self._open.sides[event["dir"]].fin_shown = True
        elif kind == "violation":
            self._raised |= event["rule"] == "V-40"
        elif kind == "classify":
            self._open = None
            if not _has(event, "_ABORT"):
                self._decide(place, event)
        elif kind == "inject" and event["status"] == "STATUS_SUCCESS" and event["dir"] is not None:
            self._put_in(self._injector(place, event), event)
        elif kind == "discard" and event["reason"] == BLOCKED and place not in self._used:
            stage = self._by_filter[event["filter"]]
            self._move(stage, event, event["len"], BLOCKED)

    def _decide(self, place: int, event: Event) -> None:
        """Apply an answer as the engine did."""
        stage = self._by_filter[event["filter"]]
        action = event["stream_action"]
        if self._raised or (action != "NONE" and self._follows(place, _ILLEGAL)):
            action = {"permit": "PERMIT_ALL", "bypass": "ALLOW_CONNECTION"}.get(
                self._policy(place), "NOTHING"
            )
        elif action == "DROP_CONNECTION" and (self.reason != "drop" or self._goes_on(place)):
            action = "PERMIT_ALL"  # an inspection callout cannot drop (DRP-1)
        if action == "NONE":
            count = min(event["enforced"], event["len"]) or event["len"]
            if count < 0 or self._was_lost(place, event):
                return
            self._move(stage, event, count, self._fate_of(place, stage, event["dir"], count))
            self._end(stage, event, count, BLOCKED if event["action"] == "BLOCK" else PERMITTED)
        elif action in ("ALLOW_CONNECTION", "PERMIT_ALL"):
            stage.allowed |= action == "ALLOW_CONNECTION"
            self._move(stage, event, event["len"], PERMITTED)
            self._end(stage, event, event["len"], PERMITTED)

    def _end(self, stage: Stage, event: Event, count: int, answer: str) -> None:
        if _has(event, "_DISCONNECT") and count == event["len"]:
            stage.sides[event["dir"]].fin = answer

    def _following(self, place: int) -> list[tuple[int, Event]]:
        """What the engine said before it asked anybody else."""
        found = []
        for later in range(place + 1, len(self._events)):
            if self._events[later]["event"] in _ANSWERS:
                break
            found.append((later, self._events[later]))
        return found

    def _behind(self, place: int) -> Iterator[Event]:
        """The events behind one, none of them copied: whoever asks stops soon."""
        return (self._events[later] for later in range(place + 1, len(self._events)))

    def _follows(self, place: int, rules: frozenset[str]) -> bool:
        return any(e["event"] == "violation" and e["rule"] in rules for _, e in self._following(place))

    def _policy(self, place: int) -> str:
        for _, event in self._following(place):
            if event["event"] == "policy" and event["name"] in ("on_callout_error", "on_limit"):
                return str(event["value"])
        return "drop"

    def _goes_on(self, place: int) -> bool:
        """Is anything but a reset indicated after this?"""
        return any(e["event"] == "indicate" and not _has(e, "_ABORT") for e in self._behind(place))

    def _fate_of(self, place: int, stage: Stage, direction: str, count: int) -> str:
        """What was done with the decided bytes: what is taken out leaves a `discard` event at once."""
        fate = PERMITTED
        for later, event in self._following(place):
            mine = event["event"] == "discard" and event.get("filter") == stage.filter
            if not count or not mine or event["dir"] != direction:
                continue
            self._used.add(later)
            fate = BLOCKED if event["reason"] == BLOCKED else DISCARDED
            count -= event["len"]
        return fate

    def _was_lost(self, place: int, event: Event) -> bool:
        """Did the flow end inside this classify, so that its answer was not obeyed?"""
        if not event["len"] or self._goes_on(place):
            return False
        return any(
            e["event"] == "discard"
            and "filter" not in e
            and e["dir"] == event["dir"]
            and e.get("offset") == event["offset"]
            for _, e in self._following(place)
        )

    # -- injections ------------------------------------------------------------------------------------

    def _put_in(self, stage: Stage, event: Event) -> None:
        side = stage.sides[event["dir"]]
        side.note(PUT_IN, event["len"])
        if event["len"]:
            self._deliver(stage, event["dir"], Piece(event["offset"], event["len"], True))
        if _has(event, "_DISCONNECT") and not side.closed:
            side.closed = True
            side.ended_early = not side.fin_shown

    def _injector(self, place: int, event: Event) -> Stage:
        """Whose injection this is: the event's word, the stage on the stack, or who could have done it."""
        named = self._by_filter.get(event.get("filter"))
        if named is not None:
            return named
        if self._open is not None:
            return self._open
        sides = {stage.index: stage.sides[event["dir"]] for stage in self.stages}
        able = [stage for stage in self.stages if sides[stage.index].has_taken]
        able = able or [stage for stage in self.stages if not sides[stage.index].history] or self.stages
        below = self._shown_next(place, event)
        if below is not None:
            able = [stage for stage in able if stage.index < below] or able
        return able[-1]

    def _shown_next(self, place: int, event: Event) -> int | None:
        """The stage that is shown the injected bytes, if that is what happens next."""
        for later in self._behind(place):
            if later.get("dir") != event["dir"] or later["event"] not in ("indicate", "inject"):
                continue
            same = (later.get("offset"), later["len"]) == (event["offset"], event["len"])
            return later["stage"] if later["event"] == "indicate" and same and later["stage"] else None
        return None

    # -- bytes -----------------------------------------------------------------------------------------

    def _move(self, stage: Stage, event: Event, count: int, fate: str) -> None:
        """Take the `count` bytes that begin where the event says, and send on those that go on."""
        if not count:
            return
        place, direction = self.stages.index(stage), event["dir"]
        side = stage.sides[direction]
        urgent = _has(event, "_EXPEDITED")
        if urgent and not place:
            self._supply(direction, event["offset"] + count)
        if urgent and self._overtakes(side, event["offset"]):
            pieces = self._take_out(side, event["offset"], count)
        else:
            self._align(place, direction, event["offset"])
            self._fill(place, direction, count)
            pieces = side.take(count)
        for piece in pieces:
            side.note(fate, piece.length, piece.put_in)
            if fate == PERMITTED:
                self._deliver(stage, direction, piece)

    def _deliver(self, stage: Stage, direction: str, piece: Piece) -> None:
        below = self.stages.index(stage) + 1
        if below < len(self.stages):
            self.stages[below].sides[direction].queue.append(piece)

    def _pass_by(self, stage: Stage, direction: str, count: int) -> None:
        """Bytes went past a stage that was not asked about them (ARB-6, ALW-1, MID-1)."""
        side = stage.sides[direction]
        for piece in side.take(count):
            side.note(PERMITTED, piece.length, piece.put_in)
            self._deliver(stage, direction, piece)

    def _align(self, place: int, direction: str, offset: int) -> None:
        """Let go by what lies before the bytes shown: it was not shown."""
        stage = self.stages[place]
        queue = stage.sides[direction].queue
        skipped = 0
        for piece in queue:
            if piece.holds(offset):
                self._pass_by(stage, direction, skipped + (0 if piece.put_in else offset - piece.offset))
                return
            skipped += piece.length
        if place and not queue:
            self._align(place - 1, direction, offset)
        elif not place:
            self._supply(direction, offset)
        else:
            return
        self._pass_by(stage, direction, stage.sides[direction].waiting)

    def _supply(self, direction: str, until: int) -> None:
        """The original stream reaches the first stage."""
        begin = self._source[direction]
        if until > begin:
            self.stages[0].sides[direction].queue.append(Piece(begin, until - begin, False))
            self._source[direction] = until

    def _fill(self, place: int, direction: str, count: int) -> None:
        """See to `count` bytes in front of a stage: what the stages above were not asked about has passed them."""
        missing = count - self.stages[place].sides[direction].waiting
        if missing <= 0:
            return
        if place:
            self._fill(place - 1, direction, missing)
            self._pass_by(self.stages[place - 1], direction, missing)
        else:
            self._supply(direction, self._source[direction] + missing)

    def _overtakes(self, side: Side, offset: int) -> bool:
        """Is an urgent byte shown before others that wait (IND-7)?"""
        return any(piece.holds(offset) for piece in side.queue) and not (
            side.queue[0].holds(offset) and (side.queue[0].put_in or side.queue[0].offset == offset)
        )

    def _take_out(self, side: Side, offset: int, count: int) -> list[Piece]:
        """An urgent indication from the middle of the queue."""
        before: list[Piece] = []
        while not side.queue[0].holds(offset):
            before.append(side.queue.popleft())
        head = side.queue[0]
        if not head.put_in and head.offset < offset:
            before.append(head.split(offset - head.offset))
        taken = side.take(count)
        side.queue.extendleft(reversed(before))
        return taken

    # -- the end ---------------------------------------------------------------------------------------

    def _pass_the_rest(self, ledger: Mapping[str, Mapping[str, int]]) -> None:
        """What went past stages that are asked no more leaves no event but the ledger."""
        for direction in DIRECTIONS if self.stages else ():
            all_passed = self.reason == "fin"
            if all_passed or self.stages[0].allowed:
                counts = ledger[direction]
                self._supply(direction, counts["read"] - counts["discarded"])
            for stage in self.stages:
                if all_passed or stage.allowed:
                    self._pass_by(stage, direction, stage.sides[direction].waiting)

    def _cut(self, direction: str) -> None:
        """Keep what does not depend on where the stream was cut.

        Behind a FIN that a stage injected, and when the flow was ended before its time, how much a stage above had
        done already is chance: of its work counts what the stages below have decided about.
        """
        wanted: int | None = None
        for stage in reversed(self.stages):
            side = stage.sides[direction]
            if wanted is not None:
                side.cut_behind(wanted)
            if self.reason in _CUT_SHORT:
                side.cut_unsettled()
            if wanted is not None or side.closed or self.reason != "fin":
                wanted = sum(entry.shown for entry in side.history)


def _has(event: Event, ending: str) -> bool:
    return any(flag.endswith(ending) for flag in event.get("flags", ()))
