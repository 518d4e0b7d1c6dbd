"""`stream_edit`: replaces a byte pattern everywhere in the stream, inline or out of band.

Owns both ways of doing the task of WFP's stream edit sample; finding matches is the matcher's. The edited
stream is the same for every way to cut it: matches leftmost first, not overlapping, and what was put in is
not searched again.
"""

from __future__ import annotations

from typing import Any, Literal

from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    ClassifyOut,
    Filter,
    IncomingMetadataValues,
    IncomingValues,
    StreamCalloutIoPacket,
    StreamData,
    Worker,
)

from ._answers import DISCONNECT, INJECTABLE, LAST, LIMIT_REACHED, block, drop, need_more, permit
from ._lane_callout import WorkerCallout, block_here, inject_here
from ._lanes import Direction, Lane
from ._matcher import Matcher
from ._options import Text, as_bytes

# Larger injections are split: one call must stay far below limit `injected` (INJ-43).
_PIECE = 65_536

# Steps of a plan: a positive number permits so many bytes, a negative one holds them for more to come.
_EDIT = 0

_SUCCESS = NtStatus.STATUS_SUCCESS
_PERMIT = int(ActionType.PERMIT)


class EditLane(Lane):
    """Where the editing of one direction stands.

    Attributes:
        plan: what to do with the rest of the present indication, last step first.
        edited: in mode `whole`, what its `_EDIT` stands for: matches in it, its bytes, and what to put in their place.
        left: bytes of it that are still to be decided; the next indication is exactly these (IND-11).
        shown: the flags of the present indication.
        replaced: matches replaced so far.
    """

    __slots__ = ("edited", "left", "plan", "replaced", "shown")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.plan: list[int] = []
        self.edited = (0, 0, b"")
        self.left = 0
        self.shown = 0
        self.replaced = 0


class EditWorker(Worker):
    """Edits a direction out of band."""

    async def run(self) -> None:
        """Inject the edited bytes as soon as they are decided: what may begin a match, at the FIN."""
        edit = self.callout
        assert isinstance(edit, StreamEdit)
        held, replaced = b"", 0
        while True:
            item = await self.next()
            if item.kind == "data":
                data = held + item.data
                matches, tail = edit.search(data, replaced)
                replaced += len(matches)
                if not matches and not tail and not held:
                    await self.inject(item)  # as it came: nothing is copied
                    continue
                item.release()
                held = data[len(data) - tail :]
                await self._put(edit.edited(data[: len(data) - tail], matches))
            elif item.kind == "abort":
                return
            else:
                await self._put(held)
                if item.kind == "end":
                    await self.inject_fin()
                return

    async def _put(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE):
            await self.inject(data[start : start + _PIECE])


class StreamEdit(WorkerCallout[EditLane]):
    """Replaces one byte pattern by another, across every segment border.

    Only bytes at the end of an indication that may begin a match wait for the next ones. The same bytes come
    out in every mode; what differs is how. `inline`: a match is blocked and the replacement injected in its
    place, all other bytes are permitted as they are. `whole`: an indication with a match in it is blocked and
    what it becomes is injected, a copy: by far the cheapest way where a stream is full of matches, since it
    takes one decision instead of two for every match. `oob`: everything is pended, and injected by a worker.

    Args:
        find: the pattern, at least one byte.
        replace: what to put in its place; may be empty, or contain the pattern.
        mode: `inline`, `whole` (inline as well, an indication at a time) or `oob` (out of band).
        count: most replacements in each direction of a connection.
        direction: where to replace.

    Raises:
        ValueError: the pattern is empty, or an option is out of its range.
    """

    worker_class = EditWorker
    name = "stream_edit"
    example = "stream_edit,find=rainy,replace=sunny"

    def __init__(
        self,
        find: Text,
        replace: Text = b"",
        mode: Literal["inline", "whole", "oob"] = "inline",
        count: int | None = None,
        direction: Direction = "both",
    ) -> None:
        super().__init__(EditLane, direction)
        self._matcher = Matcher(as_bytes(find))
        self._replacement = as_bytes(replace)
        self._one = (1, len(self._matcher.pattern), self._replacement)
        if mode not in ("inline", "whole", "oob"):
            raise ValueError(f"mode={mode!r}: expected inline, whole or oob")
        if count is not None and count < 0:
            raise ValueError(f"count={count}: expected 0 or more")
        self._inline = mode != "oob"
        self._whole = mode == "whole"
        self._count = count
        # What is shown next is likely to be the rest of what was shown last: hundreds of times where matches abound.
        self._last: EditLane | None = None

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """As the base does it; the rest of an indication follows its plan at once."""
        stream: StreamData = layer_data.stream_data
        lane, length = self._last, stream.data_length
        if (
            lane is None
            or lane.left != length
            or not length
            or lane.flow_id != in_meta_values.flow_handle
            or lane.filter_id != filter.filter_id
            or lane.shown != stream.flags
            or classify_out.flags
            or self.draining
        ):
            super().classify_fn(
                in_fixed_values,
                in_meta_values,
                layer_data,
                classify_context,
                filter,
                flow_context,
                classify_out,
            )
        elif (step := lane.plan[-1]) > 0:
            # As `_follow_plan`: most often, bytes that only pass.
            del lane.plan[-1]
            classify_out.action_type = _PERMIT
            layer_data.count_bytes_enforced = step
            lane.left = length - step
        else:
            self._follow_plan(lane, stream, layer_data, classify_out)

    def closed(self, lane: EditLane) -> None:
        """Its flow is over."""
        if lane is self._last:
            self._last = None

    def search(self, data: bytes, replaced: int) -> tuple[list[int], int]:
        """(where the matches begin, length of the tail that may begin another), after `replaced` matches."""
        limit = None if self._count is None else self._count - replaced
        if limit == 0:
            return [], 0
        matches = self._matcher.find_all(data, limit)
        if len(matches) == limit:
            return matches, 0
        return matches, self._matcher.tail(data, matches[-1] + len(self._matcher.pattern) if matches else 0)

    def edited(self, data: bytes, matches: list[int]) -> bytes:
        """`data` with these matches replaced."""
        parts, at = [], 0
        for match in matches:
            parts += [data[at:match], self._replacement]
            at = match + len(self._matcher.pattern)
        parts.append(data[at:])
        return b"".join(parts)

    def pends(
        self, lane: EditLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Out of band, everything; inline, nothing."""
        if not self._inline:
            return True
        length = stream.data_length
        if answer.flags & LIMIT_REACHED:
            self._edit_at_limit(lane, stream, packet, answer)
        # A new indication is searched once; its remainders follow the plan.
        elif length and (lane.left == length or self._plan(lane, stream)):
            self._follow_plan(lane, stream, packet, answer)
        return False

    def _follow_plan(
        self, lane: EditLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        step = lane.plan.pop()
        if step > 0:
            permit(packet, answer, step)
            lane.left = stream.data_length - step
        elif step == _EDIT:
            self._replace(lane, stream, packet, answer)
        else:
            lane.left = 0
            if not answer.flags & LAST:
                need_more(packet, answer)  # one more byte may settle it: never the whole pattern at once

    def _plan(self, lane: EditLane, stream: StreamData) -> bool:
        """Search the indication; False if all of it passes."""
        data = stream.tobytes()
        matches, tail = self.search(data, lane.replaced)
        if not matches and not tail:
            return False
        decided = len(data) - tail
        if self._whole and matches:
            lane.edited = (len(matches), decided, self.edited(data[:decided], matches))
            lane.plan = [-tail, _EDIT] if tail else [_EDIT]
        else:
            lane.plan = self._pieces(matches, decided, tail)
        lane.shown = stream.flags
        self._last = lane
        return True

    def _pieces(self, matches: list[int], decided: int, tail: int) -> list[int]:
        steps, at = [], 0
        for match in matches:
            if match > at:
                steps.append(match - at)
            steps.append(_EDIT)
            at = match + len(self._matcher.pattern)
        if at < decided:
            steps.append(decided - at)
        if tail:
            steps.append(-tail)
        steps.reverse()
        return steps

    def _replace(
        self, lane: EditLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        count, length, data = lane.edited if self._whole else self._one
        lane.left = 0
        flags = stream.flags
        if len(data) > _PIECE or not data:
            if not self._put(lane, stream, data, packet, answer):
                return
        else:  # as `inject_here`
            status = self.inject(lane.flow_id, lane.layer_id, flags & INJECTABLE, data)
            if status is not _SUCCESS and not status.ok:
                drop(packet, answer)
                return
        if flags & DISCONNECT:
            block_here(self, lane, stream, packet, answer, length)
        else:
            block(packet, answer, length)
        lane.replaced += count
        lane.left = stream.data_length - length

    def _put(
        self,
        lane: EditLane,
        stream: StreamData,
        data: bytes,
        packet: StreamCalloutIoPacket,
        answer: ClassifyOut,
    ) -> bool:
        pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
        return all(inject_here(self, lane, stream, piece, packet, answer) for piece in pieces)

    def _edit_at_limit(
        self, lane: EditLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """NMD-7: at the engine's limit all of it is decided at once, and nothing may wait."""
        data = stream.tobytes()
        matches, _ = self.search(data, lane.replaced)
        lane.left = 0
        if matches and self._put(lane, stream, self.edited(data, matches), packet, answer):
            lane.replaced += len(matches)
            block_here(self, lane, stream, packet, answer, stream.data_length)
