"""Who owns which buffer: clones, references, allocated lists, and what of it is pended (section 16).

Owns the life of every NET_BUFFER_LIST a callout may hold, the pended bytes of each lane, and the leak checks
of CLN-9. It must not move bytes: injecting hands a buffer over, `_injection` does the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wfpstream.fwp import CalloutFlags, NtStatus

from ._constants import PacketInjectionState
from ._net_buffer import Mdl, NetBuffer, NetBufferList, chain_of
from ._run import Provenance
from ._stream_data import IndicatedData, IndicatedRecord, StreamData
from ._violations import where_in_callout

if TYPE_CHECKING:
    from ._callout import CalloutTable
    from ._core import Core, Frame
    from ._flow import Lane

CLONE, ALLOCATED, REFERENCE = "clone", "allocated", "reference"
CALLER, ENGINE, FREED = 0, 1, 2

_L2_BATCH = int(CalloutFlags.ALLOW_L2_BATCH_CLASSIFY)


class BufferRecord:
    """One buffer a callout owns, or lent to an injection."""

    __slots__ = (
        "about",
        "blocked",
        "born",
        "callout_id",
        "completed",
        "flow_id",
        "handle_id",
        "kind",
        "lane",
        "length",
        "provenance",
        "refused",
        "serial",
        "shape",
        "site",
        "state",
        "taken",
    )

    def __init__(self, kind: str, length: int, lane: Lane | None, provenance: Provenance) -> None:
        self.kind = kind
        self.length = length
        self.lane = lane
        self.provenance = provenance
        self.state = CALLER
        self.blocked = False  # its bytes were taken out of the stream: they are pended (OOB-1)
        self.taken = False  # a worker of the base class has it (IND-24)
        self.completed = False
        self.refused = False
        self.callout_id = 0
        self.flow_id = lane.stage.flow.id if lane is not None else 0
        self.handle_id = 0
        self.born = 0.0
        self.serial = 0
        self.site: str | None = None
        self.about: Lane | None = None  # where it was injected last, for reports
        self.shape: Any = None


class Ownership:
    """The registry of live buffers of one engine."""

    def __init__(self, core: Core, callouts: CalloutTable) -> None:
        self.core = core
        self.callouts = callouts
        self.live: dict[BufferRecord, NetBufferList] = {}
        self._serial = 0
        self.verifying = core.options.verify.level != "off"

    # -- making ----------------------------------------------------------------------------------------

    def clone_stream_data(self, data: StreamData, flags: int) -> tuple[NtStatus, NetBufferList | None]:
        """CLN-1..CLN-4."""
        if flags:
            return NtStatus.STATUS_INVALID_PARAMETER, None  # CLN-3
        if not self.is_valid(data):
            self.tell_of_data("stream data cloned after the classify without a reference", data)
            return NtStatus.STATUS_INVALID_PARAMETER, None
        first: NetBufferList | None = None
        last: NetBufferList | None = None
        for content, provenance, lane, pended in self._sources(data):
            nbl = self._clone_over(content, lane, provenance, pended)
            if last is None:
                first = nbl
            else:
                last.next = nbl
            last = nbl
        return NtStatus.STATUS_SUCCESS, first

    def _sources(self, data: StreamData) -> list[tuple[bytes, Provenance, Lane | None, bool]]:
        """The content of each clone: one per indicated list, trimmed to the indicated range (CLN-1)."""
        segments = data.segments()
        lane: Any = data.lane
        if segments is not None:
            found: list[Any] = [(bytes(view), provenance, lane, False) for view, provenance in segments]
            return found or [(b"", (), lane, False)]
        parts: dict[int, tuple[NetBufferList, list[memoryview]]] = {}
        for nbl, piece in data.walk_lists(data.data_length):
            parts.setdefault(id(nbl), (nbl, []))[1].append(piece)
        found = []
        for nbl, pieces in parts.values():
            record = nbl._record
            pended = isinstance(record, IndicatedRecord) and record.references > 0
            found.append(
                (b"".join(pieces), getattr(record, "provenance", ()), getattr(record, "lane", None), pended)
            )
        first = data.net_buffer_list_chain
        return found or [(b"", (), getattr(first._record if first else None, "lane", None), False)]

    def _clone_over(
        self, content: bytes, lane: Lane | None, provenance: Provenance, pended: bool
    ) -> NetBufferList:
        mdl = Mdl(content)
        nbl = NetBufferList(NetBuffer(mdl, 0, len(content)))
        record = self._register(CLONE, nbl, len(content), lane, provenance)
        if pended:
            self._set_blocked(record)
        return nbl

    def allocate(self, mdl: Any, data_offset: int, data_length: int) -> tuple[NtStatus, NetBufferList | None]:
        """ALO-1: one list over the caller's memory."""
        chain = mdl if isinstance(mdl, Mdl) or mdl is None else Mdl(mdl)
        nbl = NetBufferList(NetBuffer(chain, data_offset, data_length))
        self._register(ALLOCATED, nbl, data_length, None, ())
        return NtStatus.STATUS_SUCCESS, nbl

    def clone_list(self, nbl: NetBufferList, flags: int, deep: bool) -> tuple[NtStatus, NetBufferList | None]:
        """CLN-10, CLN-11: one list, whole."""
        entry = self.callouts.find_id(self.core.frame.callout_id) if self.core.frame else None
        if flags or (entry is not None and entry.flags & _L2_BATCH):
            return NtStatus.STATUS_INVALID_PARAMETER, None  # CFN-8
        record = nbl._record
        if not self._is_source(record):
            self._tell("V-27", "list cloned that is neither indicated now, referenced nor owned", record)
            return NtStatus.STATUS_INVALID_PARAMETER, None
        clone = NetBufferList()
        previous: NetBuffer | None = None
        for net_buffer in nbl.net_buffers():
            copy = NetBuffer(Mdl(b"".join(net_buffer.pieces())), 0, net_buffer.data_length)
            if previous is None:
                clone.first_net_buffer = copy
            else:
                previous.next = copy
            previous = copy
        clone.parent = nbl
        lane = None if deep else getattr(record, "lane", None)  # CLN-11: a deep clone pins nothing
        made = self._register(CLONE, clone, clone.data_length, lane, getattr(record, "provenance", ()))
        if getattr(record, "blocked", False) or (isinstance(record, IndicatedRecord) and not record.valid):
            self._set_blocked(made)
        return NtStatus.STATUS_SUCCESS, clone

    def _register(
        self, kind: str, nbl: NetBufferList, length: int, lane: Lane | None, provenance: Provenance
    ) -> BufferRecord:
        record = BufferRecord(kind, length, lane, provenance)
        frame = self.core.frame
        if frame is not None:
            record.callout_id = frame.callout_id
            if frame.flow is not None and not record.flow_id:
                record.flow_id = frame.flow.id
            if lane is not None and frame.lane is lane and kind == CLONE:
                frame.clones.append(record)
        if lane is not None:
            lane.stage.flow.pended_total += length
            lane.stage.flow.plain = 0
            record.callout_id = record.callout_id or lane.stage.filter.callout_id
        record.born = self.core.clock()
        self._serial += 1
        record.serial = self._serial
        if self.verifying:
            record.site = where_in_callout()
            record.shape = _shape(nbl)
        nbl._record = record
        self.live[record] = nbl
        return record

    # -- references ------------------------------------------------------------------------------------

    def reference(self, nbl: NetBufferList) -> None:
        """REF-1: the list and the indicated range stay valid after the classify."""
        record = nbl._record
        if not isinstance(record, IndicatedRecord) or not (record.valid or record.references):
            if not (isinstance(record, BufferRecord) and record.state == CALLER):
                self._tell("V-27", "reference on a list that is not valid any more", record)
            return
        record.references += 1
        if record.references == 1:
            lane: Any = record.lane
            held = self._register(REFERENCE, nbl, nbl.data_length, lane, ())
            nbl._record = record
            record.reference = held
            if self.core.frame is not None:
                self.core.frame.clones.append(held)

    def dereference(self, nbl: NetBufferList) -> None:
        """REF-2."""
        record = nbl._record
        if not isinstance(record, IndicatedRecord):
            return
        if record.references == 0:
            self._tell("V-26", "more dereferences than references", record)
            return
        record.references -= 1
        if record.references == 0:
            held = record.reference
            assert isinstance(held, BufferRecord)
            self._check_shape(nbl, held)
            self._retire(held)

    # -- ending ----------------------------------------------------------------------------------------

    def free(self, nbl: NetBufferList, kind: str) -> None:
        """FwpsFreeNetBufferList (allocated) or FwpsFreeCloneNetBufferList (clone): CLN-5, CLN-6."""
        record = nbl._record
        if not isinstance(record, BufferRecord):
            self._tell("V-25", "a list of the engine's freed by a callout", record)
            return
        if record.state != CALLER:
            self._tell("V-26", "list freed twice, or while an injection has it", record)
            return
        if record.kind != kind:
            self._tell("V-25", f"{record.kind} list freed as {kind}", record)
        self._check_shape(nbl, record)
        self._retire(record)

    def discard_chain(self, chain: NetBufferList | None) -> None:
        """FwpsDiscardClonedStreamData0: a whole chain, or what is left of it (CLN-5)."""
        for nbl in chain_of(chain):
            record = nbl._record
            if isinstance(record, BufferRecord) and record.state == FREED:
                self._tell("V-26", "list discarded twice", record)
                continue
            self.free(nbl, CLONE)

    def _check_age(self, record: BufferRecord) -> None:
        """CLN-8, V-24: lint, and only where time is real (VRF-3)."""
        verify = self.core.options.verify
        if verify.virtual_time or not self.verifying or record.kind == ALLOCATED:
            return
        if self.core.clock() - record.born > verify.clone_age:
            self.core.violation("V-24", f"{record.kind} held longer than {verify.clone_age:g} s", record.lane)

    def _retire(self, record: BufferRecord) -> None:
        self._check_age(record)
        record.state = FREED
        self._unpend(record)
        self.live.pop(record, None)
        if record.lane is not None:
            flow = record.lane.stage.flow
            flow.pended_total -= record.length
            flow.activity = self.core.clock()
            self._woke(flow)

    def _woke(self, flow: Any) -> None:
        if self.core.short_of_memory:
            self.core.recount(flow)
        if flow.paused[0] or flow.paused[1]:
            self.core.touch(flow)
            self.core.request_turn()

    def _check_shape(self, nbl: NetBufferList, record: BufferRecord) -> None:
        """CLN-7, CLN-13: structural changes must be undone."""
        if not self.verifying or record.kind == ALLOCATED:
            return  # an allocated list is the caller's own to shape
        if record.shape is not None and _shape(nbl) != record.shape:
            self.core.violation("V-29", "list given back with structural modifications in place", record.lane)

    # -- pended bytes ----------------------------------------------------------------------------------

    def after_classify(self, frame: Frame, data: StreamData, blocked: bool) -> None:
        """The indication is over: what was cloned or referenced of blocked bytes is pended (OOB-1)."""
        lane = frame.lane
        if lane is not None and blocked:
            for record in frame.clones:
                if record.state == CALLER:
                    self._set_blocked(record)
                    lane.oob_ever = True
        chain = data._chain
        if chain is not None:
            for nbl in chain_of(chain):
                self._end_indication(nbl)
        data.invalidate(keep_chain=chain is not None)
        if self.verifying and type(data) is IndicatedData:
            data.expire(self._report_use)

    def _end_indication(self, nbl: NetBufferList) -> None:
        record = nbl._record
        if not isinstance(record, IndicatedRecord):
            return
        record.valid = False
        for net_buffer in nbl.net_buffers():
            if record.references:
                mdl = net_buffer.mdl_chain
                while mdl is not None:  # the driver reuses its buffer: keep the bytes (REF-1)
                    mdl.data = memoryview(bytes(mdl.data))
                    mdl = mdl.next
            elif self.verifying and (net_buffer.data_offset, net_buffer.data_length) != (0, record.length):
                lane: Any = record.lane
                self.core.judged("V-29", "indicated list given back with its data start moved", lane)

    def _set_blocked(self, record: BufferRecord) -> None:
        if record.blocked or record.lane is None:
            return
        record.blocked = True
        lane = record.lane
        lane.pended_buffers += 1
        lane.pended_bytes += record.length
        flow = lane.stage.flow
        flow.pended_waiting[lane.direction] += record.length
        flow.activity = self.core.clock()

    def _unpend(self, record: BufferRecord) -> None:
        if not record.blocked or record.lane is None:
            return
        record.blocked = False
        lane = record.lane
        lane.pended_buffers -= 1
        lane.pended_bytes -= record.length
        flow = lane.stage.flow
        if flow.draining:  # MGMT-16: this may have been the last thing a retiring stage had
            self.core.mark(flow)
            self.core.request_turn()
        if record.taken:
            flow.taken[lane.direction] -= record.length
        else:
            flow.pended_waiting[lane.direction] -= record.length

    def take(self, record: BufferRecord) -> None:
        """IND-24: a worker took these pended bytes; they do not stop the reading any more."""
        if record.blocked and not record.taken and record.lane is not None:
            record.taken = True
            flow = record.lane.stage.flow
            flow.pended_waiting[record.lane.direction] -= record.length
            flow.taken[record.lane.direction] += record.length
            if flow.taken[record.lane.direction] > self.core.options.limits.taken:
                self.core.mark(flow)  # IND-24: the policy does not wait for more input
                self.core.request_turn()
            flow.activity = self.core.clock()
            self._woke(flow)

    # -- handing over to an injection ------------------------------------------------------------------

    def hand_over(self, record: BufferRecord, handle_id: int) -> None:
        """An accepted injection owns the buffer until its completion (INJ-1)."""
        if record.blocked and self.core.options.verify.hints:
            self._check_order(record)
        self._check_age(record)
        record.state = ENGINE
        record.handle_id = handle_id
        self._unpend(record)
        if record.lane is not None:
            flow = record.lane.stage.flow
            flow.pended_total -= record.length
            self._woke(flow)

    def _check_order(self, record: BufferRecord) -> None:
        """V-53, a hint: pended bytes come back in another order than they were taken out."""
        lane = record.lane
        assert lane is not None
        if record.serial < lane.newest_injected:
            self.core.violation("V-53", "pended bytes are injected out of their order", lane)
        lane.newest_injected = max(record.serial, lane.newest_injected)

    def hand_back(self, nbl: NetBufferList) -> None:
        """CMP-8: the completion owns it again and must free it."""
        record = nbl._record
        if isinstance(record, BufferRecord):
            record.state = CALLER
            record.completed = True
            if record.lane is not None:
                record.lane.stage.flow.pended_total += record.length

    def can_be_injected(self, nbl: NetBufferList) -> bool:
        """INJ-40: owned by the caller, neither pending elsewhere nor freed."""
        record = nbl._record
        return not isinstance(record, BufferRecord) or record.state == CALLER

    # -- questions -------------------------------------------------------------------------------------

    def injection_state(self, handle: int, nbl: NetBufferList) -> tuple[PacketInjectionState, object]:
        """QPI-1, QPI-2."""
        provenance: Provenance = getattr(nbl._record, "provenance", ())
        if not provenance:
            return PacketInjectionState.NOT_INJECTED, None
        if provenance[-1][0] == handle:
            return PacketInjectionState.INJECTED_BY_SELF, provenance[-1][1]
        for made_by, context in reversed(provenance):
            if made_by == handle:
                return PacketInjectionState.PREVIOUSLY_INJECTED_BY_SELF, context
        return PacketInjectionState.INJECTED_BY_OTHER, None

    def is_valid(self, data: StreamData) -> bool:
        """CLN-2."""
        if data.is_indicated:
            return True
        chain = data._chain
        return chain is not None and all(self._is_source(nbl._record) for nbl in chain_of(chain))

    def _report_use(self, data: StreamData) -> None:
        if not self.is_valid(data):
            self.tell_of_data("stream data read after the classify without a reference", data)

    def _is_source(self, record: object) -> bool:
        if isinstance(record, IndicatedRecord):
            return record.valid or record.references > 0
        return isinstance(record, BufferRecord) and record.state != FREED

    def _tell(self, rule: str, text: str, record: object, where: str | None = None) -> None:
        """A violation about a buffer; outside of callbacks it is the buffer that knows whose it is."""
        lane: Any = getattr(record, "lane", None) or getattr(record, "about", None)
        entry = None
        if lane is None and self.core.frame is None and isinstance(record, BufferRecord):
            entry = self.callouts.find_id(record.callout_id)
        flow = self.core.flows.get(record.flow_id) if isinstance(record, BufferRecord) else None
        self.core.violation(rule, text, lane, flow, entry=entry, where=where)

    def tell_of_data(self, text: str, data: StreamData) -> None:
        """V-27: stream data used after its classify."""
        lane: Any = data.lane
        chain = data._chain
        if lane is None and chain is not None:
            lane = getattr(chain._record, "lane", None)
        self.core.violation("V-27", text, lane)

    # -- leaks -----------------------------------------------------------------------------------------

    def report_leaks(
        self, *, flow_id: int | None = None, callout_id: int | None = None, handle_id: int | None = None
    ) -> int:
        """CLN-9: whatever still lives of a flow, a callout, a handle, or at all. Returns how many."""
        leaked = 0
        for record in list(self.live):
            if record.state != CALLER:
                continue
            if flow_id is not None and record.flow_id != flow_id:
                continue
            if callout_id is not None and record.callout_id != callout_id:
                continue
            if handle_id is not None and record.handle_id != handle_id:
                continue
            leaked += 1
            rule = "V-35" if record.completed else "V-34" if record.refused else "V-23"
            text = f"{record.kind} of {record.length} bytes leaked, made at {record.site}"
            self._tell(rule, text, record, record.site)
            self.live.pop(record)
        return leaked


def _shape(nbl: NetBufferList) -> tuple[tuple[int, int], ...]:
    """What CLN-7 compares: offset and length of every NET_BUFFER."""
    return tuple((nb.data_offset, nb.data_length) for nb in nbl.net_buffers())
