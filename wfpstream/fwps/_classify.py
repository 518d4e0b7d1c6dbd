"""Calling classifyFn at the stream layer, and what one call leaves behind.

Owns the entry values (IND-8), the frame on the stack, the events and the checks around a call (section 20).
What the answer does to bytes is `_waterfall`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wfpstream.fwp import ActionType

from . import _stream_state as rules
from ._constants import DiscardModule, GeneralDiscardReason, MetadataField, StreamActionType, StreamFlags
from ._core import Frame
from ._records import (
    ClassifyOut,
    DiscardMetadata,
    IncomingMetadataValues,
    IncomingValues,
    StreamCalloutIoPacket,
)
from ._stream_data import IndicatedData, Pieces, Segment, StreamData
from ._stream_state import ABORT, DATA, FIN, URGENT
from ._violations import CALLOUT_FAULTS
from ._watched_metadata import watching

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane, Stage
    from ._ownership import Ownership
    from ._run import Run

PREVIEW_BYTES = 64
_DISCONNECTS = rules.DISCONNECT_FLAG[0] | rules.DISCONNECT_FLAG[1]
# The very objects that ClassifyOut and StreamCalloutIoPacket begin with: small integers exist once.
_ZERO, _ONE = 0, 1
_FLAG_NAMES = {int(flag): str(flag.name) for flag in StreamFlags}
_OUT_FLAG_NAMES = {rules.NO_MORE_DATA: "NO_MORE_DATA", rules.BUFFER_LIMIT_REACHED: "BUFFER_LIMIT_REACHED"}
_DISCARD_BITS = int(MetadataField.DISCARD_REASON | MetadataField.FLOW_HANDLE | MetadataField.SYSTEM_FLAGS)


class StreamClassifyContext:
    """The classifyContext of a stream classify: nothing can be pended with it (LAY-23)."""

    __slots__ = ()


STREAM_CONTEXT = StreamClassifyContext()


class RecordedOut(ClassifyOut):
    """Under the verifier: remembers whether the callout wrote an action type (V-6), keeps IND-8's value."""

    __slots__ = ("_action_type", "wrote_action")

    def __init__(self, action_type: int, flags: int) -> None:
        # As ClassifyOut does, without the setter below.
        self._action_type = action_type
        self.out_context = self.filter_id = self.reserved = 0
        self.rights = 1
        self.flags = flags
        self.wrote_action = False

    @property
    def action_type(self) -> int:
        """What the callout wrote, else what the one before left (IND-8)."""
        return self._action_type

    @action_type.setter
    def action_type(self, value: int) -> None:
        self._action_type = value
        self.wrote_action = True


class Classifier:
    """Calls the stream classify functions of one engine."""

    ownership: Ownership

    def __init__(self, core: Core) -> None:
        self.core = core
        verify = core.options.verify
        self.verifying = verify.level != "off"
        self.clocked = False
        self.watch_clock(not verify.virtual_time)
        self._injected = False  # the classify whose answer is being applied injected something
        self.after_classify: Any = None  # set by the contexts' part: pending removals (CTX-11)

    def watch_clock(self, is_real: bool) -> None:
        """Time callbacks, if time is real: `timeouts.turn`, V-42, V-43 (VRF-3)."""
        self.clocked = is_real and (self.verifying or self.core.options.timeouts.turn > 0)
        self.core.overruns.follow_options(is_real)

    def classify(
        self,
        flow: Flow,
        lane: Lane,
        kind: int,
        flags: int,
        segments: list[Segment],
        length: int,
        out_flags: int,
        answer: int,
        offset: int,
    ) -> tuple[ClassifyOut, StreamCalloutIoPacket] | None:
        """One classify. Returns the answer, None when the callout raised (ACT-14)."""
        core = self.core
        stage = lane.stage
        lane.classified = True
        missed, lane.missed = lane.missed, 0
        frame = lane.frame
        if frame is None:
            frame = lane.frame = Frame("classify", flow, lane, stage.filter.callout_id)
            frame.layer_id = stage.filter.layer_id
        elif frame.clones:
            frame.clones = []
        frame.injected = False
        frame.abort = kind == ABORT
        frame.fin = flags & _DISCONNECTS != 0
        if self.verifying or core.tracing:
            return self._classify_watched(
                frame, flow, lane, kind, flags, segments, length, out_flags, answer, offset, missed
            )
        data = IndicatedData(flags, length, segments, lane, core.options.indicate_mdls)
        packet = StreamCalloutIoPacket(data, missed)
        out = ClassifyOut(answer, out_flags)
        began = core.overruns.since = core.clock() if self.clocked else 0.0
        result = self._call(frame, stage, packet, out)
        if self.clocked and result is not None:
            self._check_time(frame, core.clock() - began, packet)
        self._injected = frame.injected
        if frame.clones or data._chain is not None:
            self.ownership.after_classify(frame, data, self._is_block(lane, kind, out, packet, result))
        else:
            data._segments = data._offset = data._view = data._pieces = None  # as `invalidate`
        return result

    def _classify_watched(
        self,
        frame: Frame,
        flow: Flow,
        lane: Lane,
        kind: int,
        flags: int,
        segments: list[Segment],
        length: int,
        out_flags: int,
        answer: int,
        offset: int,
        missed: int,
    ) -> tuple[ClassifyOut, StreamCalloutIoPacket] | None:
        """The same under the verifier, or for a sink that wants every indication."""
        core = self.core
        stage = lane.stage
        poison = None
        if self.verifying and segments:
            segments, poison = self._own_buffers(segments)
        data = IndicatedData(flags, length, segments, lane, core.options.indicate_mdls)
        packet = StreamCalloutIoPacket(data, missed)
        out = RecordedOut(answer, out_flags) if self.verifying else ClassifyOut(answer, out_flags)
        if core.tracing:
            self._emit_indicate(flow, lane, flags, out_flags, length, missed, offset, data)
        began = core.overruns.since = core.clock() if self.clocked else 0.0
        result = self._call(frame, stage, packet, out)
        if self.clocked and result is not None:
            self._check_time(frame, core.clock() - began, packet)
        self._injected = frame.injected
        if self.verifying and result is not None and not self._is_usual(frame, out_flags, out, packet, data):
            self._check(frame, lane, kind, length, out, packet)
        if self.verifying or frame.clones or data._chain is not None:
            self.ownership.after_classify(frame, data, self._is_block(lane, kind, out, packet, result))
        else:
            data._segments = data._offset = data._view = data._pieces = None  # as `invalidate`
        if poison is not None:
            for buffer in poison:
                buffer[:] = b"\xdd" * len(buffer)
        if core.tracing:
            self._emit_classify(flow, lane, flags, out_flags, length, missed, offset, out, packet)
        return result

    def _call(
        self, frame: Frame, stage: Stage, packet: StreamCalloutIoPacket, out: ClassifyOut
    ) -> tuple[ClassifyOut, StreamCalloutIoPacket] | None:
        core = self.core
        entry = stage.entry
        assert entry is not None
        assert entry.classify_fn is not None
        values = stage.flow.stream_values
        outer, core.frame = core.frame, frame
        core.callbacks += 1
        try:
            if entry.version == 0:
                entry.classify_fn(values, stage.meta, packet, stage.filter, stage.context, out)
            else:
                entry.classify_fn(
                    values, stage.meta, packet, STREAM_CONTEXT, stage.filter, stage.context, out
                )
            if not (
                # Nearly every answer: three members as they were, and three plain integers. Else look closely.
                packet.stream_action is _ZERO
                and packet.count_bytes_required is _ZERO
                and out.rights is _ONE
                and type(out.flags) is type(out.action_type) is type(packet.count_bytes_enforced) is int
            ):
                _demand_sound(out, packet)
        except CALLOUT_FAULTS as error:
            self._failed(frame, error)
            return None
        finally:
            core.frame = outer
        return out, packet

    def _failed(self, frame: Frame, error: BaseException) -> None:
        """ACT-14."""
        self.core.violation(
            "V-40", f"{type(error).__name__} out of classifyFn: {error}", frame.lane, error=error
        )

    def answered(
        self,
        lane: Lane,
        kind: int,
        data: IndicatedData,
        packet: StreamCalloutIoPacket,
        out: ClassifyOut,
        fault: BaseException | None,
    ) -> tuple[ClassifyOut, StreamCalloutIoPacket] | None:
        """What `classify` does after the call, for a caller that made it itself (`_plain`): an unusual answer."""
        core, frame = self.core, lane.frame
        core.frame = frame
        try:
            if fault is None:
                _demand_sound(out, packet)
            else:
                self._failed(frame, fault)
        except TypeError as error:
            fault = error
            self._failed(frame, error)
        finally:
            core.frame = None
        result = (out, packet) if fault is None else None
        self._injected = frame.injected
        if frame.clones or data._chain is not None:
            self.ownership.after_classify(frame, data, self._is_block(lane, kind, out, packet, result))
        return result

    def _check_time(self, frame: Frame, spent: float, packet: StreamCalloutIoPacket) -> None:
        """The budget of one call; V-42, V-43: clock-based lint, off under virtual time (VRF-3)."""
        options = self.core.options
        verify, lane = options.verify, frame.lane
        assert lane is not None
        overruns = self.core.overruns
        if spent > overruns.budget:
            entry = lane.stage.entry
            assert entry is not None
            overruns.note(lane.stage.flow, entry.name, entry.classify_code, spent)
        if not self.verifying:
            return
        self.core.check_budget("classifyFn", self.core.clock() - spent, lane, None)
        urged = lane.direction == rules.SEND and packet.stream_data.flags & rules.FLUSH_FLAG[rules.SEND]
        if urged and lane.held_since and self.core.clock() - lane.held_since > verify.callback_budget:
            self.core.judged("V-43", "data was held although SEND_NODELAY was set", lane)

    def finish(self, flow: Flow, lane: Lane) -> None:
        """After the answer was applied: context removals that waited for it (CTX-11)."""
        if flow.removing:
            self.after_classify(flow)

    def _own_buffers(self, segments: list[Segment]) -> tuple[list[Segment], list[bytearray]]:
        """Verification: every indication has its own buffer, poisoned on return (V-27)."""
        buffers = []
        own: list[Segment] = []
        for view, provenance in segments.split() if isinstance(segments, Pieces) else segments:
            buffer = bytearray(view)
            buffers.append(buffer)
            own.append((memoryview(buffer), provenance))
        return own, buffers

    def _is_block(
        self, lane: Lane, kind: int, out: ClassifyOut, packet: StreamCalloutIoPacket, result: object
    ) -> bool:
        """Did the callout take the shown bytes or FIN out of the stream (OOB-1)?"""
        if result is None or packet.stream_action != rules.NONE or kind == ABORT:
            return False
        action = lane.stage.filter.action_type
        effect = rules.ACTION_EFFECT[action].get(out.action_type) or rules.OTHER_ACTION[action]
        return effect[0] == rules.BLOCK

    # -- bookkeeping of decisions ----------------------------------------------------------------------

    def note_decision(self, lane: Lane, kind: int, effect: int) -> None:
        """OOB-2, OOB-3, OOB-5: what this decision means for what is pended."""
        if effect == rules.BLOCK:
            if kind != FIN:
                lane.last_blocked = True
                lane.uncompensated = not (self._injected or lane.pended_buffers)
            return
        pended = lane.pended_buffers > 0 or lane.fin_pended
        if kind == URGENT:
            if pended:
                self.core.judged("V-17x", "an urgent byte overtakes what is pended", lane)
            return
        if pended:
            self.core.judged("V-17", "PERMIT or CONTINUE while data or a FIN is pended out of band", lane)
        elif lane.oob_ever and not lane.stage.is_inspection:
            self.core.judged("V-17w", "return to inline after out-of-band work", lane)
        if kind == DATA:
            lane.last_blocked = False

    def _is_usual(
        self,
        frame: Frame,
        out_flags: int,
        out: ClassifyOut,
        packet: StreamCalloutIoPacket,
        data: StreamData,
    ) -> bool:
        """Nothing of what `_check` looks for can be there: an action type, and the rest as it was."""
        return not (
            packet.stream_action
            or packet.count_bytes_required
            or frame.clones
            or out.flags != out_flags
            or out.rights != 1
            or out.out_context
            or out.filter_id
            or out.reserved
            or data._offset is not None
            or not out.wrote_action  # type: ignore[attr-defined]
            or self.core.options.verify.hints
        )

    def _check(
        self,
        frame: Frame,
        lane: Lane,
        kind: int,
        length: int,
        out: ClassifyOut,
        packet: StreamCalloutIoPacket,
    ) -> None:
        """The lints of an answer: they change nothing (V-1, V-6, V-7, V-9..V-11, V-36, V-49)."""
        report = self.core.judged
        self._check_members(lane, out, packet)
        if lane.stage.is_inspection and frame.clones and out.action_type == rules.PLAIN_BLOCK:
            report("V-46", "an inspection callout clones and relies on BLOCK", lane)
        if packet.stream_action == rules.NONE:
            if packet.count_bytes_required:
                report("V-10", "countBytesRequired without NEED_MORE_DATA", lane)
            unwritten = not out.wrote_action  # type: ignore[attr-defined]
            if unwritten and out.action_type and not lane.stage.is_inspection and kind != ABORT:
                report("V-6", "actionType was left as the previous callout wrote it", lane)
            self._check_hints(frame, lane, out, packet, length)
            return
        if out.action_type not in rules.SILENT_BESIDE_STREAM_ACTION and out.wrote_action:  # type: ignore[attr-defined]
            report("V-7", "an action type beside a stream action is ignored", lane)
        if packet.count_bytes_enforced and packet.stream_action in (rules.NEED_MORE_DATA, rules.DEFER):
            report("V-11", "countBytesEnforced is ignored here", lane)
        if packet.count_bytes_required and packet.stream_action != rules.NEED_MORE_DATA:
            report("V-10", "countBytesRequired without NEED_MORE_DATA", lane)

    def _check_members(self, lane: Lane, out: ClassifyOut, packet: StreamCalloutIoPacket) -> None:
        """Members a callout must leave alone (V-1, V-36, V-49)."""
        report = self.core.judged
        if out.rights != 1:
            report("V-1", "classifyOut.rights written at the stream layer", lane)
        if out.flags & rules.ABSORB:
            report("V-36", "ABSORB at a stream layer", lane)
        if out.out_context or out.filter_id or out.reserved:
            report("V-49", "reserved members of classifyOut written", lane)
        place = packet.stream_data._offset
        if place is not None and (place.net_buffer_offset or place.stream_data_offset):
            report("V-49", "reserved members of dataOffset written", lane)

    def _check_hints(
        self, frame: Frame, lane: Lane, out: ClassifyOut, packet: StreamCalloutIoPacket, length: int
    ) -> None:
        if not self.core.options.verify.hints or not length:
            return
        permit_all = out.action_type == int(ActionType.PERMIT) and not packet.count_bytes_enforced
        if permit_all and frame.injected:
            self.core.judged("V-9", "PERMIT of 0 bytes permits everything (ACT-8)", lane)

    # -- the discard layer -----------------------------------------------------------------------------

    def indicate_discard(self, flow: Flow, lane: Lane, run: Run) -> None:
        """DSC-2: bytes removed by a plain BLOCK filter or REG-5, shown once, the result ignored."""
        core = self.core
        if not core.options.discard_layer:
            return
        layer = flow.layer_id + 1  # STREAM_V4_DISCARD follows STREAM_V4, likewise V6 (FWPS_BUILTIN_LAYERS)
        meta = IncomingMetadataValues(_DISCARD_BITS)
        meta.flow_handle = flow.id
        meta.discard_metadata = DiscardMetadata(
            DiscardModule.GENERAL, GeneralDiscardReason.FIREWALL_POLICY, lane.stage.filter.filter_id
        )
        shown = watching(meta, self._report_member) if self.verifying else meta
        values = IncomingValues(layer, flow.stream_values.incoming_value)
        data = IndicatedData(rules.DIRECTION_FLAG[lane.direction], run.length, [(run.view, ())], lane, 1)
        for filter in core.filters.filters_at(layer):
            entry = self.ownership.callouts.registered_id(filter.callout_id)
            if entry is None or not filter.matches(values.incoming_value, flow.endpoints.listener):
                continue
            frame = Frame("classify", flow, None, filter.callout_id)
            frame.filter_id = filter.filter_id
            out, packet = ClassifyOut(), StreamCalloutIoPacket(data, 0)
            outer, core.frame = core.frame, frame
            core.callbacks += 1
            try:
                context = (STREAM_CONTEXT,) if entry.version else ()
                assert entry.classify_fn is not None
                entry.classify_fn(values, shown, packet, *context, filter, 0, out)
            except CALLOUT_FAULTS as error:
                core.violation("V-40", f"{type(error).__name__} at the discard layer: {error}", error=error)
            finally:
                core.frame = outer
            if out.flags & rules.ABSORB:
                core.violation(
                    "V-36", "ABSORB at a discard layer", flow=flow, entry=entry, filter_id=filter.filter_id
                )
        data.invalidate(keep_chain=False)

    def _report_member(self, member: str) -> None:
        self.core.violation("V-30", f"metadata member {member} read without its presence bit")

    # -- events ----------------------------------------------------------------------------------------

    def _emit_indicate(
        self,
        flow: Flow,
        lane: Lane,
        flags: int,
        out_flags: int,
        length: int,
        missed: int,
        offset: int,
        data: StreamData,
    ) -> None:
        stage = lane.stage
        keys: dict[str, Any] = {
            "stage": stage.index,
            "callout": stage.entry.name if stage.entry else None,
            "filter": stage.filter.filter_id,
            "dir": flow.direction_name(lane.direction),
            "flags": names_of(flags, _FLAG_NAMES),
            "offset": offset,
            "len": length,
            "missed": missed,
            "out_flags": names_of(out_flags, _OUT_FLAG_NAMES),
        }
        if self.core.data_wanted != "off":
            content = data.tobytes()
            keys["data"] = content if self.core.data_wanted == "full" else content[:PREVIEW_BYTES]
        self.core.emit("indicate", flow, **keys)

    def _emit_classify(
        self,
        flow: Flow,
        lane: Lane,
        flags: int,
        out_flags: int,
        length: int,
        missed: int,
        offset: int,
        out: ClassifyOut,
        packet: StreamCalloutIoPacket,
    ) -> None:
        stage = lane.stage
        self.core.emit(
            "classify",
            flow,
            stage=stage.index,
            callout=stage.entry.name if stage.entry else None,
            filter=stage.filter.filter_id,
            dir=flow.direction_name(lane.direction),
            flags=names_of(flags, _FLAG_NAMES),
            offset=offset,
            len=length,
            missed=missed,
            out_flags=names_of(out_flags, _OUT_FLAG_NAMES),
            action=_name_of(ActionType, out.action_type),
            enforced=packet.count_bytes_enforced,
            stream_action=_name_of(StreamActionType, packet.stream_action),
            required=packet.count_bytes_required,
        )


def _demand_sound(out: ClassifyOut, packet: StreamCalloutIoPacket) -> None:
    """The answer must consist of integers, whatever the callout put there: TypeError."""
    values: tuple[object, ...] = (
        out.action_type,
        out.rights,
        out.flags,
        packet.stream_action,
        packet.count_bytes_enforced,
        packet.count_bytes_required,
    )
    if not all(isinstance(value, int) for value in values):
        raise TypeError("classifyFn left a value that is not an integer in its answer")


def names_of(flags: int, names: dict[int, str]) -> list[str]:
    """The names of the set bits."""
    return [name for bit, name in names.items() if flags & bit]


def _name_of(kind: Any, value: Any) -> str:
    try:
        return str(kind(value).name)
    except ValueError:
        return str(value)
