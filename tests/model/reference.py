"""A reference model of the stream layer: lists of single bytes, one list for each stage and direction.

Written from the machine model of the semantics (section 0.3) and its numbered rules, to be compared with the
engine; it must not know the engine. Slow and obvious is the aim: no runs, no views, no counters that could be
read off a list. Where the rules leave something open (how many items a stage that goes away releases, which
direction moves first) the model follows the engine, and says so. What stands here is the flow seen from
outside: peers, reading and writing, completions and the end; `waterfall` is what moves inside.
"""

from __future__ import annotations

from . import script
from .deeds import DISCONNECTED, NOT_FOUND, SUCCESS
from .parts import DEFERRED, IDLE, Unit
from .script import RECEIVE, SEND, Deed
from .waterfall import Waterfall


class Model(Waterfall):
    """One flow."""

    # -- what happens to the flow from outside -----------------------------------------------------------

    def peer_sends(self, direction: int, kind: str, data: bytes = b"") -> None:
        """The peer sends `data`, an "urgent" byte or a "fin"; it goes in when the direction may be read."""
        self._outbox[direction].append((kind, data))
        self._serve()

    def window(self, direction: int, size: int | None) -> None:
        """The receiver of that direction takes `size` more bytes, None for any number."""
        self.receivers[direction].window = size
        self._serve()

    def reset(self, leg: int) -> None:
        """A peer resets (IND-18); leg 0 is the local host's, its stream direction is SEND."""
        self.receivers[1 - leg].reset = True
        self._empty_outbox(leg)
        if self.state == "live":
            self._end("flushing", "STATUS_CONNECTION_RESET", leg)
        self._serve()

    def abort(self) -> str:
        """FwpsFlowAbort (ABT-1, ABT-2)."""
        if self.state != "live":
            return NOT_FOUND
        self._end("ended", "STATUS_CONNECTION_ABORTED", None)
        return SUCCESS

    def act(self, number: int, direction: int, deed: Deed) -> str:
        """A stage does something outside any classify."""
        status = self._perform(number, direction, deed, None)
        self._settle()
        self._serve()
        return status

    def pending_input(self, direction: int) -> int:
        """Bytes the sender could not get rid of."""
        return sum(len(data) for _, data in self._outbox[direction])

    # -- the driver's side: reading and writing -----------------------------------------------------------

    def _serve(self) -> None:
        moved = True
        while moved:
            moved = self._write(SEND) | self._write(RECEIVE)
            for direction in (SEND, RECEIVE):
                moved |= self._feed(direction)

    def _feed(self, direction: int) -> bool:
        outbox = self._outbox[direction]
        if not outbox or not self._may_read(direction):
            return False
        kind, data = outbox.pop(0)
        self._take_in(direction, kind, data)
        if kind != "fin":  # the memory driver's order: data is written at once, a FIN in the next round
            self._write(SEND)
            self._write(RECEIVE)
        return True

    def _take_in(self, direction: int, kind: str, data: bytes) -> None:
        if kind == "fin":
            self._fin_read[direction] = True
            units = [Unit("fin")]
        else:
            piece = object()
            units = [Unit("byte", value, piece=piece, urgent=kind == "urgent") for value in data]
            self.read[direction] += len(data)
        self._arrivals[direction].append((0, units))
        self._settle()

    def _may_read(self, direction: int) -> bool:
        if self.state != "live" or self._fin_read[direction]:
            return False
        if any(stage.lanes[direction].mode == DEFERRED for stage in self.stages):  # DEF-3
            return False
        receiver = self.receivers[direction]  # IND-24: stop at half the limit, go on at a quarter
        level, limit = len(receiver.owed), self.settings.unsent
        receiver.paused = level * 4 > limit if receiver.paused else level * 2 >= limit
        return not receiver.paused

    def _empty_outbox(self, leg: int) -> None:
        """IND-27: what the kernel still holds is read before the reset, or discarded if deferred."""
        outbox = self._outbox[leg]
        deferred = leg == RECEIVE and any(s.lanes[RECEIVE].mode == DEFERRED for s in self.stages)
        for kind, data in outbox:
            if kind == "fin":
                continue
            if deferred or self.state != "live":
                self.read[leg] += len(data)
                self.unread[leg] += len(data)
            else:
                self._take_in(leg, kind, data)
        outbox.clear()

    def _write(self, direction: int) -> bool:
        receiver = self.receivers[direction]
        moved = False
        while receiver.owed and receiver.window != 0 and not receiver.reset:
            unit = receiver.owed.pop(0)
            if unit.urgent:
                receiver.urgent.append((len(receiver.data), bytes([unit.value])))
            receiver.data.append(unit.value)
            if receiver.window is not None:
                receiver.window -= 1
            self._leave(unit)
            moved = True
        if receiver.fin_owed is not None and not receiver.owed and not receiver.reset and not receiver.fin:
            receiver.fin = True
            self._leave(receiver.fin_owed)
            moved = True
        if self.state == "flushing" and not any(r.owed for r in self.receivers):
            self.receivers[SEND].reset = self.receivers[RECEIVE].reset = True
            self.state = "ended"
        self._complete()
        self._end_if_done()
        return moved

    def _settle(self) -> None:
        """Until nothing moves. SEND before RECEIVE is the engine's choice; the rules leave it open."""
        while self.state == "live" and (self._arrivals[SEND] or self._arrivals[RECEIVE]):
            for direction in (SEND, RECEIVE):
                self._running = direction
                arrivals = self._arrivals[direction]
                while self.state == "live" and arrivals:
                    lowest = max(place for place, _ in arrivals)  # OOB-4: ahead of what is decided later
                    first = next(a for a in arrivals if a[0] == lowest)
                    arrivals.remove(first)
                    self._arrive(direction, *first)
        self._running = None
        if self.state == "doomed":
            self.dropped = True
            self._end("ended", "STATUS_CONNECTION_ABORTED", None)
        self._complete()
        self._end_if_done()

    # -- completions and the end ---------------------------------------------------------------------------

    def _complete(self) -> None:
        """CMP-4, CMP-6."""
        for stage in self.stages:
            for lane in stage.lanes:
                while lane.outstanding and lane.outstanding[0].left == 0:
                    lane.completed.append((lane.outstanding.pop(0).data, SUCCESS))

    def _end_if_done(self) -> None:
        """OBJ-13."""
        outstanding = any(lane.outstanding for stage in self.stages for lane in stage.lanes)
        if self.state == "live" and not outstanding and all(r.fin and not r.owed for r in self.receivers):
            self._end("ended", DISCONNECTED, None)

    def _end(self, state: str, status: str, leg: int | None) -> None:
        """IND-18, DRP-2, CTX-21: discard, ABORT indications, completions, contexts."""
        graceful = status == DISCONNECTED
        self.state = "ending"
        self._discard_queues()
        self._complete()
        for direction, receiver in enumerate(self.receivers):
            if leg is None or direction == 1 - leg:
                receiver.given_up += len(receiver.owed)
                receiver.owed.clear()
            receiver.reset |= leg is None and not graceful
        for place, stage in enumerate(self.stages):
            if leg is not None and stage.active and (stage.classified or stage.context):
                self._ask(leg, place, "abort", b"", 0, script.NO_MORE_DATA, [Unit("fin")])
                if stage.removing:
                    self._delete_context(stage)
        for stage in self.stages:
            for lane in stage.lanes:
                lane.completed += [(b.data, SUCCESS if b.left == 0 else status) for b in lane.outstanding]
                lane.outstanding.clear()
            self._delete_context(stage)
        self.state = state

    def _discard_queues(self) -> None:
        for direction in (SEND, RECEIVE):
            for place, units in self._arrivals[direction]:
                if place == len(self.stages):
                    self._emerge(direction, units)
                else:
                    self.stages[place].lanes[direction].queue += units
            self._arrivals[direction].clear()
            for stage in self.stages:
                lane = stage.lanes[direction]
                lane.discarded += lane.stored
                lane.queue.clear()
                lane.mode = IDLE
