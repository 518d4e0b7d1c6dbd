"""How items move through the stages, and what answers do to them (sections 5 to 12).

Owns the queues' rules: who is asked next, with which bytes, and where decided bytes go. It must not know the
engine.
"""

from __future__ import annotations

from itertools import groupby

from . import script
from .deeds import Deeds
from .parts import (
    CONTINUED,
    DEFERRED,
    IDLE,
    WAITING,
    Lane,
    Stage,
    Unit,
    alike,
    cut_off,
    effect_of,
    is_illegal,
    pieces_of,
)
from .script import Answer, Call


class Waterfall(Deeds):
    """One flow and the way of its bytes."""

    # -- items on their way -------------------------------------------------------------------------------

    def _send_on(self, direction: int, place: int, units: list[Unit]) -> None:
        """Depth first in the direction that runs (ARB-15); the other direction's turn comes."""
        if direction == self._running:
            self._arrive(direction, place, units)
        else:
            self._arrivals[direction].append((place, units))

    def _arrive(self, direction: int, place: int, units: list[Unit]) -> None:
        """Units reach the tail of a stage's queue, or the output, and the stage is asked as often as it can be."""
        self._put(direction, place, units)
        if place == len(self.stages):
            return
        lane = self.stages[place].lanes[direction]
        while self.state == "live" and lane.queue and self._step(direction, place):
            pass

    def _put(self, direction: int, place: int, units: list[Unit]) -> None:
        if place == len(self.stages):
            self._emerge(direction, units)
            return
        arrival = object()
        for _, group in groupby(units, key=lambda u: id(u.piece)):
            piece = object()
            for unit in group:
                unit.piece, unit.arrival, unit.seen, unit.counted = piece, arrival, False, False
        stage = self.stages[place]
        lane = stage.lanes[direction]
        lane.queue += units

    def _emerge(self, direction: int, units: list[Unit]) -> None:
        receiver = self.receivers[direction]
        for unit in units:
            if unit.kind == "fin":
                receiver.fin_owed = unit
            elif unit.kind == "byte":
                receiver.owed.append(unit)

    def _leave(self, unit: Unit) -> None:
        if unit.buffer is not None:
            unit.buffer.left -= 1

    # -- one stage ----------------------------------------------------------------------------------------

    def _step(self, direction: int, place: int) -> bool:
        """One indication, or something that passes; False when the stage can do nothing now."""
        stage = self.stages[place]
        lane = stage.lanes[direction]
        if not stage.active:
            self._step_aside(direction, place)
            return True
        if lane.mode == DEFERRED:
            return False
        head = lane.queue[0]
        if head.kind == "hole":
            self._pass_hole(direction, place, lane.queue.pop(0))
        elif head.skip == stage.script.sublayer:
            self._pass_hidden(direction, place)
        elif head.kind == "fin":
            self._indicate(direction, place, "fin", [head], 0)
        elif head.urgent:
            self._indicate(direction, place, "urgent", [head], 0)
        elif self._overtake(stage, lane):
            self._indicate_overtaking(direction, place)
        else:
            shown, flags = self._what_to_show(direction, place)
            if not shown:
                return False
            self._indicate(direction, place, "data", shown, flags)
        return True

    def _visible(self, stage: Stage, lane: Lane) -> tuple[list[Unit], Unit | None]:
        """The bytes that can be shown together, and the FIN or urgent byte behind them, if one is there."""
        bytes_: list[Unit] = []
        for unit in lane.queue:
            hidden = unit.skip == stage.script.sublayer
            if unit.kind == "fin" or (unit.urgent and not hidden):
                return bytes_, unit
            if unit.kind == "byte" and not hidden:
                bytes_.append(unit)
        return bytes_, None

    def _what_to_show(self, direction: int, place: int) -> tuple[list[Unit], int]:
        stage = self.stages[place]
        lane = stage.lanes[direction]
        available, behind = self._visible(stage, lane)
        if lane.remainder:  # IND-11
            return available[: lane.remainder], script.LIMIT_REACHED if lane.limited else 0
        if lane.mode == CONTINUED:  # DEF-5
            return available, 0
        if lane.mode == IDLE:
            return [u for u in available if u.arrival is available[0].arrival], 0
        if len(available) >= self.settings.limit:  # NMD-6
            cut_off(available[self.settings.limit :], available[self.settings.limit - 1])
            return available[: self.settings.limit], script.LIMIT_REACHED
        enough = len(available) > lane.shown and len(available) >= lane.required  # NMD-3
        if enough or (behind is not None and behind.kind == "fin"):  # IND-15
            return available, 0
        return [], 0

    def _overtake(self, stage: Stage, lane: Lane) -> bool:
        """Open in the rules (IND-7), as in the engine: an urgent byte does not wait behind held ones."""
        behind = self._visible(stage, lane)[1]
        if lane.mode != WAITING or behind is None or not behind.urgent:
            return False
        lane.missed += self._missed_before(stage, lane, behind)
        lane.queue.remove(behind)
        lane.queue.insert(0, behind)
        return True

    def _indicate_overtaking(self, direction: int, place: int) -> None:
        stage = self.stages[place]
        lane = stage.lanes[direction]
        shown, required = lane.shown, lane.required
        self._indicate(direction, place, "urgent", lane.queue[:1], 0)
        if lane.mode == IDLE and stage.active:
            lane.mode, lane.shown, lane.required = WAITING, shown, required

    def _pass_hole(self, direction: int, place: int, hole: Unit) -> None:
        lane = self.stages[place].lanes[direction]
        lane.missed += hole.missing if not hole.counted else 0
        self._send_on(direction, place + 1, [hole])

    def _pass_hidden(self, direction: int, place: int) -> None:
        """ARB-13: what bypasses the stage goes on once everything visible ahead of it is decided."""
        stage = self.stages[place]
        lane = stage.lanes[direction]
        arrival, sublayer = lane.queue[0].arrival, stage.script.sublayer
        passing: list[Unit] = []
        while lane.queue and lane.queue[0].arrival is arrival:
            if lane.queue[0].skip != sublayer and lane.queue[0].kind != "hole":
                break
            passing.append(lane.queue.pop(0))
        self._send_on(direction, place + 1, self._pass(stage, lane, passing))

    def _pass(self, stage: Stage, lane: Lane, units: list[Unit]) -> list[Unit]:
        """Units go past a stage that does not look at them; what is left of them."""
        if lane.closed:  # OOB-7, IND-20: nothing may follow the FIN that this stage injected
            self._discard(lane, units)
            return []
        for unit in units:
            lane.bypassed += unit.kind == "byte"
            lane.closed |= unit.kind == "fin"
            if stage.active and not unit.counted:
                lane.missed += unit.missing  # ARB-11
        return units

    def _step_aside(self, direction: int, place: int) -> None:
        """The stage is asked no more: NMD-15, ALW-3. What it held counts as permitted, the rest as bypassed.

        Open in the rules, as in the engine: item by item, and an allowed stage permits (ARB-6) while a stage
        without its context is as if its filter did not match (CFN-1).
        """
        stage = self.stages[place]
        lane = stage.lanes[direction]
        lane.mode, lane.remainder, lane.limited = IDLE, 0, False
        queue, lane.queue = lane.queue, []
        items: list[list[Unit]] = []
        for units in alike(queue, lambda u: (id(u.arrival), u.kind)):
            seen = [] if lane.closed else [u for u in units if u.seen and u.kind == "byte"]
            for unit in units:
                unit.skip = stage.script.sublayer if stage.allowed else unit.skip
            lane.permitted += len(seen)
            left = self._pass(stage, lane, [u for u in units if u not in seen])
            items.append([u for u in units if u in seen or u in left])
        for units in items:
            self._send_on(direction, place + 1, units)

    def _discard(self, lane: Lane, units: list[Unit]) -> None:
        for unit in units:
            lane.discarded += unit.kind == "byte"
            self._leave(unit)

    # -- a classify ---------------------------------------------------------------------------------------

    def _indicate(self, direction: int, place: int, kind: str, shown: list[Unit], flags: int) -> None:
        stage = self.stages[place]
        lane = stage.lanes[direction]
        if self._fin_follows(lane, shown[-1]):
            flags |= script.NO_MORE_DATA  # NMD-9
        data = b"" if kind == "fin" else bytes(u.value for u in shown)
        missed = lane.missed + self._missed_before(stage, lane, shown[-1])
        lane.missed = 0
        for unit in shown:
            unit.seen = True
        lane.mode, lane.remainder = IDLE, 0
        answer, injected = self._ask(direction, place, kind, data, missed, flags, shown)
        verdict = self._verdict(stage, direction, kind, flags, answer)
        if verdict == "drop":  # DRP-2: no further classify, not even of what was just injected
            self.state = "doomed"
        released: list[list[Unit]] = []
        if self.state == "live":
            released = self._apply(direction, place, kind, shown, flags, answer, verdict)
        for units in injected + released:  # INJ-5: before the action's own bytes; one item after the other
            self._send_on(direction, place + 1, units)
        self._finish_removal(place)

    def _fin_follows(self, lane: Lane, unit: Unit) -> bool:
        if unit.kind == "fin":
            return True
        sublayer = next(s.script.sublayer for s in self.stages if lane in s.lanes)
        behind = lane.queue[lane.queue.index(unit) + 1 :]
        rest = [u for u in behind if u.kind != "hole" and (u.kind == "fin" or u.skip != sublayer)]
        return bool(rest) and rest[0].kind == "fin"

    def _missed_before(self, stage: Stage, lane: Lane, last: Unit) -> int:
        """ARB-11, by stream position: what lies unseen between the shown bytes."""
        missed = 0
        for unit in lane.queue[: lane.queue.index(last)]:
            if unit.counted:
                continue
            if unit.kind == "hole" or unit.skip == stage.script.sublayer:
                missed += unit.missing
            unit.counted = True
        return missed

    def _ask(
        self, direction: int, place: int, kind: str, data: bytes, missed: int, flags: int, shown: list[Unit]
    ) -> tuple[Answer, list[list[Unit]]]:
        stage = self.stages[place]
        lane = stage.lanes[direction]
        stage.classified = True
        answer = stage.script.answer(direction, lane.calls)
        lane.calls += 1
        context = stage.context
        delayed: list[list[Unit]] = []
        self._delayed = delayed
        inside = (direction, kind, pieces_of(shown))
        statuses = tuple(self._perform(place, direction, deed, inside) for deed in answer.deeds)
        self._delayed = None
        self.calls[direction].append(Call(place, kind, data, missed, flags, context, statuses))
        return answer, delayed

    def _verdict(self, stage: Stage, direction: int, kind: str, flags: int, answer: Answer) -> str:
        """What an answer comes to: decide, wait, defer, allow, drop, or pass on everything (sections 7 to 11)."""
        inspection = stage.script.kind == script.INSPECTION
        action = answer.stream_action
        policy = ""
        if answer.raises:  # ACT-14
            policy = self.settings.on_callout_error
        elif action != script.NO_ACTION and is_illegal(action, direction, kind, flags):  # ACT-13
            at_limit = action == script.NEED_MORE_DATA and flags & script.LIMIT_REACHED
            policy = self.settings.on_limit if at_limit else self.settings.on_callout_error
        if policy:  # POL-1, POL-2
            return "pass" if inspection else {"permit": "pass", "bypass": "allow"}.get(policy, "drop")
        if action == script.DROP_CONNECTION and inspection:  # DRP-1
            return "pass"
        return ("decide", "wait", "drop", "defer", "allow")[action]

    def _apply(
        self,
        direction: int,
        place: int,
        kind: str,
        shown: list[Unit],
        flags: int,
        answer: Answer,
        verdict: str,
    ) -> list[list[Unit]]:
        """What the stage's own queue becomes; the items that leave it."""
        stage = self.stages[place]
        lane = stage.lanes[direction]
        if verdict == "decide":
            count = len(shown) if not 0 < answer.enforced < len(shown) else answer.enforced  # ACT-7
            lane.limited = bool(flags & script.LIMIT_REACHED)  # NMD-7
            return self._move(stage, lane, shown, count, effect_of(answer.action, stage.script.kind))
        if verdict == "pass":
            return self._move(stage, lane, shown, len(shown), script.CONTINUE)
        if verdict == "wait":
            lane.mode, lane.shown = WAITING, len(shown)
            additional = self.settings.need_more_mode == "additional"
            lane.required = answer.required + (len(shown) if additional else 0)  # NMD-3
        elif verdict == "defer":
            lane.mode = DEFERRED
        else:  # ALW-1 to ALW-3: this queue goes on by itself, the other one in its direction's turn
            stage.allowed = True
            self._arrivals[1 - direction].append((place, []))
        return []

    def _move(self, stage: Stage, lane: Lane, shown: list[Unit], count: int, effect: int) -> list[list[Unit]]:
        """The first `count` of the shown units are decided; what hides between them keeps its place (ARB-13)."""
        if shown[0].kind == "fin":
            return self._move_fin(stage, lane, effect)
        lane.remainder = len(shown) - count
        lane.limited &= bool(lane.remainder)
        end = lane.queue.index(shown[count - 1]) + 1
        decided, lane.queue = lane.queue[:end], lane.queue[end:]
        sublayer = stage.script.sublayer
        items: list[list[Unit]] = []
        for units in alike(decided, lambda u: u.skip == sublayer and id(u.arrival)):
            hidden = units[0].skip == sublayer
            items.append(
                self._pass(stage, lane, units) if hidden else self._decide(stage, lane, units, effect)
            )
        return [units for units in items if units]

    def _decide(self, stage: Stage, lane: Lane, units: list[Unit], effect: int) -> list[Unit]:
        """Bytes that were shown, and the holes between them."""
        left: list[Unit] = []
        for unit in units:
            if unit.kind == "hole":
                left.append(unit)
            elif effect == script.BLOCK:
                lane.blocked += 1
                lane.blocked_original += unit.original
                self._leave(unit)
                left += [Unit("hole", 1)] if unit.original else []
            elif lane.closed:  # OOB-7
                self._discard(lane, [unit])
            else:
                lane.permitted += 1
                unit.skip = stage.script.sublayer if effect == script.PERMIT else unit.skip  # ARB-6
                left.append(unit)
        return left

    def _move_fin(self, stage: Stage, lane: Lane, effect: int) -> list[list[Unit]]:
        """IND-14."""
        fin = lane.queue.pop(0)
        if lane.closed or effect == script.BLOCK:
            self._leave(fin)
            return []
        lane.closed = True
        fin.skip = stage.script.sublayer if effect == script.PERMIT else fin.skip
        return [[fin]]
