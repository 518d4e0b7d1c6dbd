"""Owns the kit the scenario tests are written with: scripted callouts, their transcript, and a bench.

A scenario reads like its row in the catalogue: `Script(P(3), P(0))` is callout A answering PERMIT 3, then
PERMIT 0; the transcript it leaves says `A(S5 'hello')`, `A(S FIN +N)`, `cmp('x', SUCCESS)`, `flowDelete(A)`.
Nothing here computes an expected result: expectations stay literal in the tests, and a fault noticed inside a
callout (where an exception would be the engine's V-40) is written down and raised by the bench at the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any

from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    Callout,
    ClassifyOut,
    ClassifyOutFlags,
    IncomingMetadataValues,
    IncomingValues,
    LayerId,
    Mdl,
    NetBufferList,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamFlags,
)
from wfpstream.testing import FlowEnds, MemoryDriver

SEND = int(StreamFlags.SEND)
RECEIVE = int(StreamFlags.RECEIVE)
SEND_FIN = int(StreamFlags.SEND | StreamFlags.SEND_DISCONNECT)
RECEIVE_FIN = int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_DISCONNECT)
RECEIVE_PUSH = int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH)
"""The flags of every RECEIVE data indication (IND-5), hence those to continue with (V-15)."""

_DISCONNECT = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
_ABORT = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
_EXPEDITED = int(StreamFlags.SEND_EXPEDITED | StreamFlags.RECEIVE_EXPEDITED)
_SHOWN = 40
"""Longer payloads appear in the transcript by their length only: `A(S65536)`."""


def shown(data: bytes) -> str:
    """Payload as the transcript writes it, 'AB cloudy CD'."""
    return repr(data.decode("latin-1"))


class Transcript:
    """What the callouts of one bench lived through, in order."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.faults: list[str] = []
        self.busy = False

    @property
    def calls(self) -> list[str]:
        """Classify and flowDelete calls, without the completions."""
        return [entry for entry in self.log if not entry.startswith("cmp(")]

    @property
    def completions(self) -> list[str]:
        """Completions only."""
        return [entry for entry in self.log if entry.startswith("cmp(")]


@dataclass
class Call:
    """One classify call: what was shown, and what can be done inside it."""

    owner: Recording
    fixed: IncomingValues
    meta: IncomingMetadataValues
    packet: StreamCalloutIoPacket
    filter: Any
    flow_context: int
    out: ClassifyOut
    flags: int
    data: bytes
    missed: int
    out_flags: int

    @property
    def flow_id(self) -> int:
        return self.meta.flow_handle

    @property
    def inbound(self) -> bool:
        return bool(self.flags & RECEIVE)

    @property
    def fin(self) -> bool:
        return bool(self.flags & _DISCONNECT)

    @property
    def abort(self) -> bool:
        return bool(self.flags & _ABORT)

    @property
    def no_more_data(self) -> bool:
        return bool(self.out_flags & ClassifyOutFlags.NO_MORE_DATA)

    @property
    def limit_reached(self) -> bool:
        return bool(self.out_flags & ClassifyOutFlags.BUFFER_LIMIT_REACHED)

    def notation(self) -> str:
        """The catalogue's notation; `m` only if there are missed bytes."""
        side = "R" if self.inbound else "S"
        if self.data or not (self.fin or self.abort):
            side += str(len(self.data))
        words = [side]
        words += [word for word, on in (("FIN", self.fin), ("ABORT", self.abort)) if on]
        words += ["EXPEDITED"] if self.flags & _EXPEDITED else []
        words += [shown(self.data)] if 0 < len(self.data) <= _SHOWN else []
        words += [f"m{self.missed}"] if self.missed else []
        words += ["+N"] if self.no_more_data else []
        words += ["+L"] if self.limit_reached else []
        return f"{self.owner.name}({' '.join(words)})"

    def inject(self, data: bytes, flags: int | None = None) -> NtStatus:
        """Inject in the indicated direction (INL-7: DISCONNECT masked off), or with `flags`."""
        return self.owner.inject_bytes(
            self.flags & ~_DISCONNECT if flags is None else flags, data, flow_id=self.flow_id
        )

    def clone(self) -> Pended:
        """Clone the whole indication; the clone is also the last of `owner.pended`."""
        status, chain = self.owner.fwps.clone_stream_data(self.packet.stream_data)
        if status != NtStatus.STATUS_SUCCESS or chain is None:
            raise AssertionError(f"clone: {status!r}")
        pended = Pended(chain, len(self.data), self.flags)
        self.owner.pended.append(pended)
        return pended


Hook = Callable[[Call], object]
"""Runs inside the classify, before the answer is written."""


@dataclass
class Pended:
    """A clone chain the callout owns."""

    chain: NetBufferList
    length: int
    flags: int

    @property
    def fin(self) -> bool:
        return bool(self.flags & _DISCONNECT)


@dataclass(frozen=True)
class Answer:
    """What a classify writes; `action` None leaves actionType as it came."""

    action: int | None
    enforced: int = 0
    stream_action: int = int(StreamActionType.NONE)
    required: int = 0
    hooks: tuple[Hook, ...] = ()

    def give(self, call: Call) -> None:
        for hook in self.hooks:
            hook(call)
        if self.action is not None:
            call.out.action_type = self.action
        if self.stream_action != StreamActionType.NONE:
            call.packet.stream_action = self.stream_action
        if self.enforced:
            call.packet.count_bytes_enforced = self.enforced
        if self.required:
            call.packet.count_bytes_required = self.required


def P(n: int = 0, *hooks: Hook) -> Answer:
    """PERMIT n bytes, 0 = all."""
    return Answer(int(ActionType.PERMIT), n, hooks=hooks)


def B(n: int = 0, *hooks: Hook) -> Answer:
    """BLOCK n bytes, 0 = all."""
    return Answer(int(ActionType.BLOCK), n, hooks=hooks)


def C(n: int = 0, *hooks: Hook) -> Answer:
    """CONTINUE with n bytes, 0 = all."""
    return Answer(int(ActionType.CONTINUE), n, hooks=hooks)


def NMD(n: int = 0, *hooks: Hook) -> Answer:
    """NEED_MORE_DATA until n bytes are there."""
    return _stream(StreamActionType.NEED_MORE_DATA, hooks, n)


def DEF(*hooks: Hook) -> Answer:
    """DEFER until stream_continue."""
    return _stream(StreamActionType.DEFER, hooks)


def DROP(*hooks: Hook) -> Answer:
    """DROP_CONNECTION."""
    return _stream(StreamActionType.DROP_CONNECTION, hooks)


def ALLOW(*hooks: Hook) -> Answer:
    """ALLOW_CONNECTION."""
    return _stream(StreamActionType.ALLOW_CONNECTION, hooks)


def UNSET(*hooks: Hook) -> Answer:
    """Write nothing at all."""
    return Answer(None, hooks=hooks)


def _stream(action: StreamActionType, hooks: tuple[Hook, ...], required: int = 0) -> Answer:
    # ACT-6: NONE is the recommended action type beside a stream action.
    return Answer(int(ActionType.NONE), 0, int(action), required, hooks)


def inj(data: bytes, flags: int | None = None) -> Hook:
    """Inject inside the classify; a refusal fails the bench."""

    def hook(call: Call) -> None:
        status = call.inject(data, flags)
        if status != NtStatus.STATUS_SUCCESS:
            call.owner.transcript.faults.append(f"inject {shown(data)}: {status!r}")

    return hook


def clone(call: Call) -> Pended:
    """Hook: pend a clone of the indication in `owner.pended`."""
    return call.clone()


@dataclass(frozen=True)
class Completion:
    """One call of the completion function."""

    data: bytes
    status: NtStatus
    context: int
    alone: bool
    dispatch_level: bool


@dataclass(frozen=True)
class _Injection:
    flags: int
    free: Callable[[NetBufferList], object]


class Recording(Callout):
    """Writes down every call in the catalogue's notation; what to answer is up to `decide`."""

    layers = ("stream",)
    version = 1

    def __init__(self, name: str = "A", *, action: str = "callout_unknown", flags: int = 0) -> None:
        super().__init__()
        self.name = name
        self.filter_action = action
        self.flags = flags
        self.transcript = Transcript()
        self.flow_id = 0
        self.layer_id = int(LayerId.STREAM_V4)
        self.pended: list[Pended] = []
        self.completed_nbls: list[Completion] = []
        self._injections: dict[int, _Injection] = {}

    def decide(self, call: Call) -> Answer:
        """Answer one call; override."""
        raise NotImplementedError

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        stream_data = layer_data.stream_data
        call = Call(
            self, in_fixed_values, in_meta_values, layer_data, filter, flow_context, classify_out,
            int(stream_data.flags), stream_data.tobytes(), layer_data.missed_bytes, int(classify_out.flags),
        )  # fmt: skip
        if self.transcript.busy:  # IND-10
            self.transcript.faults.append(f"{call.notation()} overlaps another classify")
        self.transcript.busy = True
        try:
            self.transcript.log.append(call.notation())
            self.decide(call).give(call)
        except Exception as error:
            self.transcript.faults.append(f"{call.notation()}: {error!r}")
            raise
        finally:
            self.transcript.busy = False

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.transcript.log.append(f"flowDelete({self.name})")

    # What a worker does, outside a classify, or a hook inside it.

    def inject_bytes(self, flags: int, data: bytes, *, flow_id: int | None = None) -> NtStatus:
        """Inject bytes of our own (ALO-1); they are freed in the completion, or here if refused."""
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, Mdl(data), 0, len(data))
        if status != NtStatus.STATUS_SUCCESS or nbl is None:
            raise AssertionError(f"allocate: {status!r}")
        status = self.inject_chain(flags, nbl, len(data), self.fwps.free_net_buffer_list, flow_id=flow_id)
        if status != NtStatus.STATUS_SUCCESS:
            self.fwps.free_net_buffer_list(nbl)
        return status

    def inject_pended(self, index: int = 0, flags: int | None = None) -> NtStatus:
        """Inject a clone of `pended` with the flags it was indicated with; discarded if refused."""
        item = self.pended.pop(index)
        flags = item.flags if flags is None else flags
        status = self.inject_chain(flags, item.chain, item.length, self.fwps.free_clone_net_buffer_list)
        if status != NtStatus.STATUS_SUCCESS:
            self.fwps.discard_cloned_stream_data(item.chain)
        return status

    def discard_pended(self, index: int = 0) -> None:
        self.fwps.discard_cloned_stream_data(self.pended.pop(index).chain)

    def inject_null_fin(self, flags: int) -> NtStatus:
        """Inject a FIN with netBufferList NULL: no completion follows (INJ-38)."""
        return self.inject_chain(flags, None, 0, self.fwps.free_net_buffer_list)

    def inject_chain(
        self,
        flags: int,
        chain: NetBufferList | None,
        length: int,
        free: Callable[[NetBufferList], object],
        *,
        flow_id: int | None = None,
    ) -> NtStatus:
        """The bare call; `free` ends each NBL in its completion. A refused chain stays the caller's."""
        context = len(self._injections) + 1
        self._injections[context] = _Injection(flags, free)
        return self.fwps.stream_inject_async(
            self.injection_handle, 0, 0, self.flow_id if flow_id is None else flow_id,
            self.callout_id(self.layer_id), self.layer_id, flags, chain, length, self._complete, context,
        )  # fmt: skip

    def resume(self, flags: int = RECEIVE_PUSH) -> NtStatus:
        """stream_continue for this callout."""
        return self.fwps.stream_continue(self.flow_id, self.callout_id(self.layer_id), self.layer_id, flags)

    def associate(self, context: int, flow_id: int | None = None) -> NtStatus:
        """Associate a context for the stream layer, so that flowDelete is called."""
        return self.fwps.flow_associate_context(
            self.flow_id if flow_id is None else flow_id,
            self.layer_id, self.callout_id(self.layer_id), context,
        )  # fmt: skip

    def _complete(self, context: int, nbl: NetBufferList, dispatch_level: bool) -> None:
        injection = self._injections[context]
        data, status = nbl.tobytes(), nbl.status
        text = "FIN" if injection.flags & _DISCONNECT and not data else shown(data)
        if len(data) > _SHOWN:
            text = str(len(data))
        self.transcript.log.append(f"cmp({text}, {NtStatus(status).name.removeprefix('STATUS_')})")
        self.completed_nbls.append(
            Completion(data, NtStatus(status), context, nbl.next is None, bool(dispatch_level))
        )
        injection.free(nbl)


class Script(Recording):
    """Answers the first call with the first answer and so on; calls past the script get `then`.

    An unexpected call so shows up in the transcript, where the test compares it.
    """

    def __init__(
        self,
        *answers: Answer,
        name: str = "A",
        then: Answer | None = None,
        action: str = "callout_unknown",
        flags: int = 0,
    ) -> None:
        super().__init__(name, action=action, flags=flags)
        self._answers = list(answers)
        self._then = P(0) if then is None else then

    def add_answers(self, *answers: Answer) -> None:
        """More answers, for hooks that need the callout itself."""
        self._answers += answers

    def decide(self, call: Call) -> Answer:
        return self._answers.pop(0) if self._answers else self._then


class Bench:
    """A MemoryDriver with the callouts in descending sublayers, and one flow.

    More filters and callouts: `before` runs ahead of adding the callouts (so what it adds is asked first),
    `setup` behind it; the flow begins after both.
    On exit: the ledger balances in both directions, no fault was noted inside a callout, what the test did not
    look at (`to_remote`, `to_local`, `resets`, completions) is empty, and, after the driver was closed with
    its leak checks, the violations are exactly `violations`.
    """

    def __init__(
        self,
        *callouts: Callout,
        violations: Sequence[str] = (),
        options: EngineOptions | None = None,
        local: str = "client",
        context: int = 0,
        before: Callable[[MemoryDriver], object] | None = None,
        setup: Callable[[Bench], object] | None = None,
    ) -> None:
        self.callouts = callouts
        self.violations = list(violations)
        self._looked_at: set[str] = set()
        self.transcript = Transcript()
        options = EngineOptions() if options is None else options
        options.verify.level = "warn"
        self.driver = MemoryDriver(options=options, local=local)
        for callout in callouts:
            if isinstance(callout, Recording):
                callout.transcript = self.transcript
        if before is not None:
            before(self.driver)
        self.added = [self.driver.add(callout) for callout in callouts]
        if setup is not None:
            setup(self)
        self.flow = self.connect()
        if context:
            for callout in callouts:
                if isinstance(callout, Recording):
                    assert callout.associate(context) == NtStatus.STATUS_SUCCESS

    def connect(self) -> FlowEnds:
        """One more flow; the callouts' `flow_id` is the newest one's."""
        flow = self.driver.connect()
        assert flow is not None
        for callout in self.callouts:
            if isinstance(callout, Recording):
                callout.flow_id = flow.id
        return flow

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        self.driver.settle()
        assert self.transcript.faults == []
        self.check_ledger()
        self._check_the_rest_is_empty()
        self.driver.close()
        assert self.driver.violations == self.violations

    def _check_the_rest_is_empty(self) -> None:
        looked_at = set(self._looked_at)
        if "to_remote" not in looked_at:
            assert self.to_remote == (b"", False)
        if "to_local" not in looked_at:
            assert self.to_local == (b"", False)
        if "resets" not in looked_at:
            assert self.resets == (False, False)
        if "completions" not in looked_at:
            assert self.completions == []

    @property
    def log(self) -> list[str]:
        """Calls and completions, in order."""
        self._looked_at.add("completions")
        return self.transcript.log

    @property
    def calls(self) -> list[str]:
        return self.transcript.calls

    @property
    def completions(self) -> list[str]:
        self._looked_at.add("completions")
        return self.transcript.completions

    def calls_of(self, name: str) -> list[str]:
        """The calls of one callout."""
        return [entry for entry in self.calls if entry.startswith(f"{name}(")]

    def settle(self) -> None:
        self.driver.settle()

    def send(self, *pieces: bytes) -> None:
        """Local host to remote, one indication per piece; settles after each."""
        for piece in pieces:
            self.flow.send(piece)
            self.driver.settle()

    def receive(self, *pieces: bytes) -> None:
        """Remote to local host, one indication per piece; settles after each."""
        for piece in pieces:
            self.flow.receive(piece)
            self.driver.settle()

    def send_fin(self) -> None:
        self.flow.send_fin()
        self.driver.settle()

    def receive_fin(self) -> None:
        self.flow.receive_fin()
        self.driver.settle()

    def reset(self, leg: str) -> None:
        self._looked_at.add("resets")  # an end that resets is reset; the test says what else
        self.flow.reset(leg)
        self.driver.settle()

    @property
    def to_remote(self) -> tuple[bytes, bool]:
        """Bytes and FIN that reached the remote end."""
        self._looked_at.add("to_remote")
        return bytes(self.flow.remote.data), self.flow.remote.fin

    @property
    def to_local(self) -> tuple[bytes, bool]:
        """Bytes and FIN that reached the local host."""
        self._looked_at.add("to_local")
        return bytes(self.flow.local.data), self.flow.local.fin

    @property
    def resets(self) -> tuple[bool, bool]:
        """Whether the local and the remote leg were reset."""
        self._looked_at.add("resets")
        return self.flow.local.reset, self.flow.remote.reset

    def check_ledger(self, flow: FlowEnds | None = None) -> None:
        """LED-4 from the bare counts, then LED-1 to LED-3 stage by stage; both directions."""
        for d in (0, 1):
            led = (flow or self.flow).ledger(d)
            came = led.read + led.injected
            lost = led.blocked_original + led.blocked_injected + led.held + led.queued + led.discarded
            assert came - lost == led.written + led.unsent + led.discarded_out
            assert led.faults() == []


def bytewise(data: bytes) -> list[bytes]:
    """One byte per segment."""
    return [data[i : i + 1] for i in range(len(data))]


def cut_at(data: bytes, *places: int) -> list[bytes]:
    """Cut before each offset; empty pieces are left out."""
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


def cuttings(data: bytes, runs: int = 12, seed: int = 1) -> list[list[bytes]]:
    """The input whole, byte by byte, and at random places, the same ones each time."""
    cut = [[data], bytewise(data)]
    dice = random.Random(seed)
    for _ in range(runs if len(data) > 1 else 0):
        cuts = dice.randint(1, min(6, len(data) - 1))
        cut.append(cut_at(data, *dice.sample(range(1, len(data)), cuts)))
    return cut
