"""The engine under the same script as the reference model: scripted callouts on a `MemoryDriver`.

Owns translating scripts into Fwps* calls and writing down what the callouts saw in the model's words. Nothing
is expected here; comparing is the state machine's.
"""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_OID, uuid5

from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus, uint64
from wfpstream.fwps import Callout, LayerId, NetBufferList, StreamFlags
from wfpstream.testing import FlowEnds, MemoryDriver

from . import script
from .script import RECEIVE, SEND, Call, Deed, Settings, StageScript

LAYER = int(LayerId.STREAM_V4)
DATA_FLAG = (int(StreamFlags.SEND), int(StreamFlags.RECEIVE))
FIN_FLAG = (int(StreamFlags.SEND_DISCONNECT), int(StreamFlags.RECEIVE_DISCONNECT))
URGENT_FLAG = (int(StreamFlags.SEND_EXPEDITED), int(StreamFlags.RECEIVE_EXPEDITED))
ABORT = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
FIN = FIN_FLAG[SEND] | FIN_FLAG[RECEIVE]
URGENT = URGENT_FLAG[SEND] | URGENT_FLAG[RECEIVE]
PUSH = int(StreamFlags.RECEIVE_PUSH)


class ScriptFault(Exception):
    """What a scripted callout raises when its script says so."""


class Kept:
    """A clone that a callout holds."""

    def __init__(self, direction: int, kind: str, chain: NetBufferList, length: int) -> None:
        self.direction = direction
        self.kind = kind
        self.chain = chain
        self.length = length


class Scripted(Callout):
    """A callout that reads its answers from a `StageScript`."""

    layers = ("stream_v4",)

    def __init__(self, number: int, stage: StageScript, calls: tuple[list[Call], list[Call]]) -> None:
        self.number = number
        self.stage = stage
        self.calls = calls
        self.name = f"stage {number}"
        self.filter_action = stage.kind
        self.flags = int(CalloutFlags.CONDITIONAL_ON_FLOW) if stage.conditional else 0
        self.flow_id = 0
        self.asked = [0, 0]
        self.kept: list[Kept] = []
        self.deleted: list[int] = []
        self.completed: tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]] = ([], [])
        self.busy = False

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        data = layer_data.stream_data
        flags = int(data.flags)
        direction = RECEIVE if flags & DATA_FLAG[RECEIVE] else SEND
        kind = "abort" if flags & ABORT else "fin" if flags & FIN else "urgent" if flags & URGENT else "data"
        answer = self.stage.answer(direction, self.asked[direction])
        self.asked[direction] += 1
        out_flags = int(classify_out.flags)
        missed = 0 if kind == "abort" else layer_data.missed_bytes
        place = len(self.calls[direction])
        shown = data.tobytes()
        statuses = tuple(self.perform(direction, deed, (kind, data)) for deed in answer.deeds)
        call = Call(self.number, kind, shown, missed, out_flags, flow_context, statuses)
        self.calls[direction].insert(place, call)
        if answer.raises:
            raise ScriptFault
        classify_out.action_type = answer.action
        layer_data.count_bytes_enforced = answer.enforced
        layer_data.count_bytes_required = answer.required
        layer_data.stream_action = answer.stream_action

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.deleted.append(flow_context)

    def perform(self, direction: int, deed: Deed, inside: tuple[str, Any] | None) -> str:
        """One deed of the script; the name of the status, or nothing for a deed without one."""
        status: NtStatus | None = None
        match deed:
            case script.Inject(pieces, other, fin):
                status = self._inject_own(direction ^ other, pieces, fin)
            case script.PassThrough() if inside:
                status = self._inject_clone(self._clone(direction, *inside))
            case script.Keep() if inside:
                self.kept.append(self._clone(direction, *inside))
            case script.InjectKept() if self.kept:
                status = self._inject_clone(self.kept.pop(0))
            case script.DiscardKept() if self.kept:
                self.fwps.discard_cloned_stream_data(self.kept.pop(0).chain)
            case script.Continue():
                flags = DATA_FLAG[RECEIVE] | PUSH
                status = self.fwps.stream_continue(self.flow_id, self.callout_id(LAYER), LAYER, flags)
            case script.Associate():
                context = script.context_of(self.number)
                status = self.fwps.flow_associate_context(
                    self.flow_id, LAYER, self.callout_id(LAYER), context
                )
            case script.Remove():
                status = self.fwps.flow_remove_context(self.flow_id, LAYER, self.callout_id(LAYER))
        return "" if status is None else status.name

    def _clone(self, direction: int, kind: str, data: Any) -> Kept:
        status, chain = self.fwps.clone_stream_data(data)
        assert status == NtStatus.STATUS_SUCCESS
        assert chain is not None
        return Kept(direction, kind, chain, len(data))

    def _inject_clone(self, item: Kept) -> NtStatus:
        extra = {"fin": FIN_FLAG, "urgent": URGENT_FLAG}.get(item.kind, (0, 0))[item.direction]
        status = self._inject(item.direction, extra, item.chain, item.length, clone=True)
        if not status.ok:
            self.fwps.discard_cloned_stream_data(item.chain)
        return status

    def _inject_own(self, direction: int, pieces: tuple[bytes, ...], fin: bool) -> NtStatus:
        chain: NetBufferList | None = None
        for data in reversed(pieces):
            _, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
            assert nbl is not None
            nbl.next, chain = chain, nbl
        length = sum(map(len, pieces))
        status = self._inject(direction, FIN_FLAG[direction] if fin else 0, chain, length, clone=False)
        while chain is not None and not status.ok:
            nbl, chain = chain, chain.next
            nbl.next = None
            self.fwps.free_net_buffer_list(nbl)
        return status

    def _inject(
        self, direction: int, extra: int, chain: NetBufferList | None, length: int, clone: bool
    ) -> NtStatus:
        return self.fwps.stream_inject_async(
            self.injection_handle, 0, 0, self.flow_id, self.callout_id(LAYER), LAYER,
            DATA_FLAG[direction] | extra, chain, length, self._complete, (direction, clone),
        )  # fmt: skip

    def _complete(self, context: Any, nbl: NetBufferList, dispatch_level: bool) -> None:
        direction, clone = context
        self.completed[direction].append((nbl.tobytes(), NtStatus(nbl.status).name))
        if clone:
            self.fwps.free_clone_net_buffer_list(nbl)
        else:
            self.fwps.free_net_buffer_list(nbl)


class Bench:
    """An engine with one flow and the scripted stages, driven in memory."""

    def __init__(self, stages: list[StageScript], settings: Settings, local: str = "client", **engine: str):
        options = EngineOptions(need_more_mode=settings.need_more_mode)
        options.limits.need_more_data = settings.limit
        options.limits.unsent = settings.unsent
        options.policy.on_callout_error = settings.on_callout_error
        options.policy.on_limit = settings.on_limit
        options.verify.level = "warn"
        for name, value in engine.items():
            setattr(options, name, value)
        self.driver = MemoryDriver(options=options, local=local)
        self.calls: tuple[list[Call], list[Call]] = ([], [])
        self.callouts = [Scripted(number, stage, self.calls) for number, stage in enumerate(stages)]
        for callout in self.callouts:
            self._add(callout)
        flow = self.driver.connect()
        assert flow is not None
        self.flow: FlowEnds = flow
        for callout in self.callouts:
            callout.flow_id = flow.id

    def _add(self, callout: Scripted) -> None:
        """The callout's filter, in the sublayer its script names; weights fall with the numbers."""
        session = self.driver.session
        ((_, key, _),) = self.driver.fwps.register(callout, callout.name)
        sublayer = uuid5(NAMESPACE_OID, f"sublayer {callout.stage.sublayer}")
        named = fwpm.DisplayData(callout.name)
        weight = 0x4000 - callout.stage.sublayer
        status = session.sub_layer_add(
            fwpm.SubLayer(sub_layer_key=sublayer, display_data=named, weight=weight)
        )
        assert status in (NtStatus.STATUS_SUCCESS, NtStatus.STATUS_FWP_ALREADY_EXISTS)
        layer = fwpm.LAYER_STREAM_V4
        status, _ = session.callout_add(
            fwpm.Callout(callout_key=key, display_data=named, applicable_layer=layer)
        )
        assert status == NtStatus.STATUS_SUCCESS
        status, _ = session.filter_add(
            fwpm.Filter(
                display_data=named,
                layer_key=layer,
                sub_layer_key=sublayer,
                weight=uint64(1000 - callout.number),
                action_type=ActionType[callout.filter_action.upper()],
                callout_key=key,
            )
        )
        assert status == NtStatus.STATUS_SUCCESS

    def peer_sends(self, direction: int, kind: str, data: bytes = b"") -> None:
        """As `Model.peer_sends`."""
        if kind == "fin":
            (self.flow.send_fin, self.flow.receive_fin)[direction]()
        else:
            (self.flow.send, self.flow.receive)[direction](data, urgent=kind == "urgent")

    def act(self, number: int, direction: int, deed: Deed) -> str:
        """As `Model.act`."""
        status = self.callouts[number].perform(direction, deed, None)
        self.driver.settle()
        return status

    def reset(self, leg: int) -> None:
        """As `Model.reset`."""
        self.flow.reset(("local", "remote")[leg])

    def abort(self) -> str:
        """As `Model.abort`."""
        status = self.driver.fwps.flow_abort(self.flow.id)
        self.driver.settle()
        return NtStatus(status).name

    def window(self, direction: int, size: int | None) -> None:
        """As `Model.window`."""
        (self.flow.remote, self.flow.local)[direction].window = size
        self.driver.settle()

    def close(self) -> None:
        """Discard what is kept, and stop."""
        for callout in self.callouts:
            for kept in callout.kept:
                callout.fwps.discard_cloned_stream_data(kept.chain)
            callout.kept.clear()
        self.driver.close()
