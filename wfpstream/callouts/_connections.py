"""Which connection of its listener a flow is: the name under which random choices are made.

Owns the counting, at ALE_FLOW_ESTABLISHED, so that it follows the order of the connections and not who speaks
first.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from wfpstream.fwps import ClassifyOut, Filter, IncomingMetadataValues, IncomingValues

from ._answers import inspect
from ._lane_callout import WorkerCallout
from ._lanes import Lane, LaneT, NoLane


class CountedLane(Lane):
    """A lane that knows its connection.

    Attributes:
        listener: name of the listener.
        number: which connection of that listener, from 1.
    """

    __slots__ = ("listener", "number")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.listener = ""
        self.number = 0


class CountingCallout(WorkerCallout[LaneT]):
    """A `WorkerCallout` whose lanes are counted; they are made before the flow says a byte."""

    layers = ("stream", "ale_flow_established")

    def __init__(self, lane_class: type[LaneT], direction: str) -> None:
        super().__init__(lane_class, direction, opened=self._opened)
        self._connections: Counter[str] = Counter()

    def classify_ale_flow_established(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Count the connection."""
        inspect(classify_out)
        try:
            self.lanes.establish(in_fixed_values, in_meta_values)
        except NoLane:
            self.lanes.refuse(in_meta_values.flow_handle)

    def _opened(self, lanes: list[LaneT], fixed: IncomingValues, meta: IncomingMetadataValues) -> None:
        listener = meta.listener
        self._connections[listener] += 1
        for lane in lanes:
            if isinstance(lane, CountedLane):
                lane.listener = listener
                lane.number = self._connections[listener]
            self.opened(lane)

    def opened(self, lane: LaneT) -> None:
        """A lane is there."""
