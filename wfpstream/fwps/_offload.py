"""Handing a flow over to its driver, and taking it back (ALW-7, ALW-8).

Owns when a driver may move a flow's bytes by itself, what it reports of them, and who is told. It must not know how a
driver moves bytes, nor how the engine does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _stream_state as rules
from ._flow import LIVE
from ._run import Run

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Stage


class Offloading:
    """The flows of one engine that their drivers move by themselves."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # Flow id -> what had been read of each direction at the hand-over; None: it had ended.
        self._began: dict[int, list[int | None]] = {}
        core.data_wanted_changed = self._look_at_all

    def is_wanted(self, flow: Flow) -> bool:
        """ALW-7. A flow that is asked about again and again costs a look at one flag."""
        if flow.nobody_asks is None:
            flow.nobody_asks = all(_is_inactive(stage) for stage in flow.stages)
        return (
            flow.nobody_asks
            and flow.phase == LIVE
            and flow.doomed is None
            and not flow.urgent_seen
            and not (flow.needs_stages or flow.marked)
            and self._core.data_wanted == "off"
            and _holds_nothing(flow)
        )

    def begin(self, flow: Flow) -> None:
        """The driver moves the bytes from now on."""
        if flow.is_offloaded:
            return
        flow.is_offloaded = True
        began = [None if ended else read for ended, read in zip(flow.input_ended, flow.read, strict=True)]
        self._began[flow.id] = began
        core = self._core
        core.count("offloads")
        if core.sinks:
            for direction in (0, 1):
                if began[direction] is not None:
                    core.emit("offload", flow, dir=flow.direction_name(direction))

    def end(self, flow: Flow) -> None:
        """Bytes come by `received` again, or never."""
        if not flow.is_offloaded:
            return
        flow.is_offloaded = False
        core = self._core
        for direction, began in enumerate(self._began.pop(flow.id)):
            if began is None:
                continue
            moved = flow.read[direction] - began
            core.count("offloaded_bytes", moved)
            if core.sinks:
                core.emit("onload", flow, dir=flow.direction_name(direction), len=moved)

    def passed(self, flow: Flow, direction: int, count: int) -> None:
        """LED-3: read, bypassed by every stage, written."""
        self._went_by(flow, direction, count)
        flow.out[direction].written_o += count

    def left_over(self, flow: Flow, direction: int, data: bytes) -> None:
        """Read, bypassed by every stage, and not written: owed before anything that was put out meanwhile."""
        if not data:
            return
        run = Run(memoryview(data), None, 0, len(flow.stages), flow.read[direction])
        self._went_by(flow, direction, run.length)
        output = flow.out[direction]
        flow.plain = 0
        output.put_first(run)

    def _went_by(self, flow: Flow, direction: int, count: int) -> None:
        flow.read[direction] += count
        for lane in flow.lanes[direction]:
            lane.bypassed_o += count
        flow.activity = self._core.clock()

    def look_again(self, flow: Flow) -> None:
        """What the driver does by itself may not be wanted any more: it is to ask."""
        self._core.touch(flow)
        self._core.request_turn()

    def _look_at_all(self) -> None:
        """A sink came or went: one that wants bytes takes every flow back."""
        if self._core.data_wanted == "off":
            return
        for flow_id in self._began:
            flow = self._core.flows.get(flow_id)
            if flow is not None:  # else it ends already, and its driver is at it
                self.look_again(flow)


def _is_inactive(stage: Stage) -> bool:
    """It lets everything pass and will ask nobody on this flow any more, whatever is registered or associated."""
    if stage.kind not in (rules.PASS, rules.PERMIT_ALL):
        return False
    skipped = stage.mid_stream and stage.entry is not None and not stage.entry.mid_stream_allowed
    return stage.allowed or stage.retired or skipped or stage.filter.action_type == rules.PLAIN_PERMIT


def _holds_nothing(flow: Flow) -> bool:
    """Nothing held, queued, pended or uncompleted in either direction."""
    return not flow.pended_total and all(
        not lane.queue and not lane.outbox and not lane.outstanding and not lane.fin_pended
        for lanes in flow.lanes
        for lane in lanes
    )
