"""The tape: writes down what passes between a port and the run time, in the notation of the catalogue.

Owns the notation. It stands between the two, so a port contains nothing but the driver; it changes no argument
and no answer. `A(S9 'cloudy CD') -> inj('sunny'), B 6` is one classify, with what was called inside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    Callout0,
    ClassifyOutFlags,
    IncomingMetadataValues,
    IncomingValues,
    LayerId,
    NetBufferList,
    RunTime,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamData,
    StreamFlags,
)

CompletionFn = Callable[[Any, NetBufferList, bool], None]

_SEND = int(StreamFlags.SEND)
_RECEIVE = int(StreamFlags.RECEIVE)
_DISCONNECT = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
_ABORT = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
_STREAM_LAYERS = (LayerId.STREAM_V4, LayerId.STREAM_V6)
_ACTIONS = {
    int(ActionType.PERMIT): "P",
    int(ActionType.BLOCK): "B",
    int(ActionType.CONTINUE): "C",
}
_STREAM_ACTIONS = {
    int(StreamActionType.DEFER): "DEF",
    int(StreamActionType.DROP_CONNECTION): "DROP",
    int(StreamActionType.ALLOW_CONNECTION): "ALLOW",
}
_SHOWN = 40
"""Longer payloads appear by their length only: `A(R20000)`."""


def shown(data: bytes) -> str:
    """Payload as it is written, 'AB cloudy CD', or its length."""
    return repr(data.decode("latin-1")) if len(data) <= _SHOWN else str(len(data))


def short(status: int) -> str:
    """Name of an NTSTATUS without its prefix."""
    return NtStatus(status).name.removeprefix("STATUS_")


def side_of(flags: int) -> str:
    """The direction of stream flags: S, R, or 0 when they name none."""
    return "S" if flags & _SEND else "R" if flags & _RECEIVE else "0"


class Tape:
    """What the ports of one bench did, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._inside: list[str] | None = None
        self._indicated = ""

    @property
    def calls(self) -> list[str]:
        """Everything but the completions."""
        return [entry for entry in self.log if not entry.startswith("cmp(")]

    @property
    def completions(self) -> list[str]:
        """Completions only."""
        return [entry for entry in self.log if entry.startswith("cmp(")]

    def tap(self, run_time: RunTime, name: str) -> RunTime:
        """The run time as a port called `name` in the transcript gets it."""
        return cast(RunTime, _TappedRunTime(self, run_time, name))

    def assertion(self, text: str) -> None:
        """An assertion of a port did not hold."""
        self.note(f"assert({text})")

    # -- used by the tapped run time ---------------------------------------------------------------------

    def note(self, text: str) -> tuple[list[str], int]:
        """Write down a call made now; returns the place, to add its status."""
        entries = self.log if self._inside is None else self._inside
        entries.append(text)
        return entries, len(entries) - 1

    def direction_note(self, flags: int) -> str:
        """The direction, where it is not that of the indication."""
        side = side_of(flags)
        return "" if self._inside is not None and side == self._indicated else f"{side}, "

    def classify(self, flags: int, call: str, run: Callable[[], str]) -> None:
        """One classify: `run` returns what was answered."""
        place = len(self.log)
        self.log.append(call)
        self._inside, self._indicated = [], side_of(flags)
        try:
            answer = run()
            self.log[place] = f"{call} -> {', '.join([*self._inside, answer])}"
        finally:
            self._inside = None


def call_text(name: str, packet: StreamCalloutIoPacket, out_flags: int) -> str:
    """A classify call, `A(S3 'abc' m2 +N)`."""
    data = packet.stream_data.tobytes()
    flags = int(packet.stream_data.flags)
    fin, abort = bool(flags & _DISCONNECT), bool(flags & _ABORT)
    words = [side_of(flags) + (str(len(data)) if data or not (fin or abort) else "")]
    words += [word for word, on in (("FIN", fin), ("ABORT", abort)) if on]
    words += [shown(data)] if 0 < len(data) <= _SHOWN else []
    words += [f"m{packet.missed_bytes}"] if packet.missed_bytes else []
    words += ["+N"] if out_flags & ClassifyOutFlags.NO_MORE_DATA else []
    words += ["+L"] if out_flags & ClassifyOutFlags.BUFFER_LIMIT_REACHED else []
    return f"{name}({' '.join(words)})"


def answer_text(packet: StreamCalloutIoPacket, action_type: int) -> str:
    """What a classify answered, `P 3`, `NMD 6`, `DEF`."""
    action = int(packet.stream_action)
    if action == StreamActionType.NEED_MORE_DATA:
        return f"NMD {packet.count_bytes_required}"
    if action:
        return _STREAM_ACTIONS.get(action, f"stream action {action}")
    return f"{_ACTIONS.get(action_type, action_type)} {packet.count_bytes_enforced}"


class _TappedRunTime:
    """Delegates everything; what the catalogue lists is written down on the way."""

    def __init__(self, tape: Tape, run_time: RunTime, name: str) -> None:
        self._tape = tape
        self._run_time = run_time
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run_time, name)

    # -- registration: every callback of the port goes through the tape ----------------------------------

    def callout_register1(self, device_object: object, callout: Callout0) -> tuple[NtStatus, int]:
        wrapped = type(callout)(
            callout.callout_key,
            callout.flags,
            self._classify(cast("Callable[..., None]", callout.classify_fn)),
            callout.notify_fn,
            self._flow_delete(callout.flow_delete_fn),
        )
        return self._run_time.callout_register1(device_object, wrapped)

    def _classify(self, classify_fn: Callable[..., None]) -> Callable[..., None]:
        def classify(
            in_fixed_values: IncomingValues,
            in_meta_values: IncomingMetadataValues,
            layer_data: Any,
            classify_context: Any,
            filter: Any,
            flow_context: int,
            classify_out: Any,
        ) -> None:
            def run() -> str:
                classify_fn(
                    in_fixed_values,
                    in_meta_values,
                    layer_data,
                    classify_context,
                    filter,
                    flow_context,
                    classify_out,
                )
                return answer_text(layer_data, classify_out.action_type) if layer_data is not None else ""

            if in_fixed_values.layer_id not in _STREAM_LAYERS:
                run()
                return
            call = call_text(self._name, layer_data, int(classify_out.flags))
            self._tape.classify(int(layer_data.stream_data.flags), call, run)

        return classify

    def _flow_delete(
        self, flow_delete_fn: Callable[[int, int, int], None] | None
    ) -> Callable[[int, int, int], None] | None:
        if flow_delete_fn is None:
            return None

        def flow_delete(layer_id: int, callout_id: int, flow_context: int) -> None:
            self._tape.note(f"flowDelete({self._name})")
            flow_delete_fn(layer_id, callout_id, flow_context)

        return flow_delete

    # -- calls --------------------------------------------------------------------------------------------

    def stream_inject_async(
        self,
        injection_handle: int,
        injection_context: Any,
        flags: int,
        flow_id: int,
        callout_id: int,
        layer_id: int,
        stream_flags: int,
        net_buffer_list: NetBufferList | None,
        data_length: int,
        completion_fn: CompletionFn,
        completion_context: Any = None,
    ) -> NtStatus:
        text = self._injected(stream_flags, net_buffer_list)
        entries, place = self._tape.note(f"inj({self._tape.direction_note(stream_flags)}{text})")

        def completed(context: Any, nbl: NetBufferList, dispatch_level: bool) -> None:
            what = "FIN" if stream_flags & _DISCONNECT and not nbl.data_length else shown(nbl.tobytes())
            self._tape.note(f"cmp({what}, {short(nbl.status)})")
            completion_fn(context, nbl, dispatch_level)

        status = self._run_time.stream_inject_async(
            injection_handle,
            injection_context,
            flags,
            flow_id,
            callout_id,
            layer_id,
            stream_flags,
            net_buffer_list,
            data_length,
            completed,
            completion_context,
        )
        if status != NtStatus.STATUS_SUCCESS:
            entries[place] += f" = {short(status)}"
        return status

    def _injected(self, stream_flags: int, chain: NetBufferList | None) -> str:
        data = b""
        while chain is not None:
            data += chain.tobytes()
            chain = chain.next
        if not data:
            return "FIN" if stream_flags & _DISCONNECT else "''"
        return shown(data) + (" FIN" if stream_flags & _DISCONNECT else "")

    def stream_continue(self, flow_id: int, callout_id: int, layer_id: int, stream_flags: int) -> NtStatus:
        entries, place = self._tape.note("continue")
        status = self._run_time.stream_continue(flow_id, callout_id, layer_id, stream_flags)
        if status != NtStatus.STATUS_SUCCESS:
            entries[place] += f" = {short(status)}"
        return status

    def clone_stream_data(
        self, stream_data: StreamData, nbl_pool: object = None, nb_pool: object = None, flags: int = 0
    ) -> tuple[NtStatus, NetBufferList | None]:
        self._tape.note("clone")
        return self._run_time.clone_stream_data(stream_data, nbl_pool, nb_pool, flags)

    def discard_cloned_stream_data(
        self, chain: NetBufferList | None, flags: int = 0, dispatch_level: bool = False
    ) -> None:
        self._tape.note("discard")
        self._run_time.discard_cloned_stream_data(chain, flags, dispatch_level)
