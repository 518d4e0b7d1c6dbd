"""The quick way of `Callout.inject`: bytes put in front of what the callout is being shown.

Owns the short form of allocating a list, FwpsStreamInjectAsync0 and the completion that only frees the list again, for
the one occasion in which all of that is certain to succeed and nobody can see the list: the callout's own classify,
into the direction it is asked about. It must not have effects of its own: whatever is out of the ordinary is left to
`_injection` (`tests/rules/test_straight` compares the two).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _stream_state as rules
from ._constants import StreamFlags
from ._cutting import CUTTING
from ._flow import LIVE
from ._injection import RESOURCE_FACTOR, take_over_missed
from ._run import InjectedBuffer, Run

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane
    from ._injection import InjectionHandle, Injector

# By direction: the flags an injection of plain data may have, and what of them travels with the bytes.
_PLAIN: tuple[dict[int, int], dict[int, int]] = (
    {
        int(StreamFlags.SEND): 0,
        int(StreamFlags.SEND | StreamFlags.SEND_NODELAY): int(StreamFlags.SEND_NODELAY),
    },
    {
        int(StreamFlags.RECEIVE): 0,
        int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH): int(StreamFlags.RECEIVE_PUSH),
    },
)


class QuickInjection:
    """One per engine.

    Attributes:
        judged: somebody decides which calls fail (`_call_failures`): every call has to be made.
    """

    __slots__ = ("_core", "_injector", "_limit", "_open", "judged")

    def __init__(self, core: Core, injector: Injector) -> None:
        self._core = core
        self._injector = injector
        self._limit = RESOURCE_FACTOR * core.options.limits.injected
        verify = core.options.verify
        self._open = verify.level == "off" and not verify.hints and core.options.completion == "normal"
        self.judged = False

    def inject(
        self, handle_id: int, flow_id: int, callout_id: int, layer_id: int, stream_flags: int, data: bytes
    ) -> bool:
        """Inject `data`, if this is the occasion for it. False: nothing was done, make the calls."""
        core = self._core
        frame = core.frame
        if frame is None or not self._open or frame.callout_id != callout_id:
            return False
        lane, flow = frame.lane, frame.flow
        if lane is None or flow is None:
            return False
        direction = lane.direction
        extra = _PLAIN[direction].get(stream_flags)
        length = len(data)
        injected = flow.injected
        if (
            extra is None
            or flow.id != flow_id
            or flow.layer_id != layer_id
            or not length
            or injected[direction] + length > self._limit
            or self.judged
        ):
            return False
        handle = self._injector.handles.get(handle_id)
        if handle is None or handle.closing or handle.destroyed or not handle.serves_streams:
            return False
        output = flow.out[direction]
        patches = output.patches
        if flow.plain != CUTTING or not core.plain or patches is None:
            if not self._is_usual(lane):
                return False
            self._place(flow, lane, handle, extra, data)
        else:
            # Behind the pieces that have left before; nothing else can have been injected since.
            if patches.handle is not handle or patches.lane is not lane:
                patches.belong(lane, handle)
            patches.views.append(memoryview(data))
            patches.owners.append(None)
            patches.nameless += 1
            patches.nameless_bytes += length
            output.length += length
            lane.carry = 0
            if extra:
                output.push = True
        handle.pending += 1
        injected[direction] += length
        lane.injected += length
        lane.uncompensated = False
        frame.injected = True
        return True

    def _place(self, flow: Flow, lane: Lane, handle: InjectionHandle, extra: int, data: bytes) -> None:
        """As Injector._place and carry_out. The loop that made this classify delivers it."""
        direction = lane.direction
        if lane.stage.index or flow.hole[direction]:
            take_over_missed(flow, lane)
        buffer = InjectedBuffer(None, len(data), lane, handle, None, None)
        run = Run(
            memoryview(data),
            buffer,
            extra,
            lane.stage.next_sub_layer,
            flow.read[direction],
            provenance=handle.provenance,
        )
        run.missed = lane.carry
        lane.carry = 0
        lane.expect((buffer,))
        lane.hand_on(run)

    def _is_usual(self, lane: Lane) -> bool:
        """No row of the validation table, no lint and no event is about this call."""
        stage = lane.stage
        flow = stage.flow
        core = self._core
        return not (
            lane.closed
            or stage.kind != rules.CALL
            or stage.is_inspection
            or flow.phase != LIVE
            or flow.doomed is not None
            or core.tracing
            or not core.started
        )
