"""A stage: one filter, and the callout it names, as they apply to one flow.

Owns whether the stage is asked, passes or removes what reaches it, and its two lanes. It must not know how
bytes travel between stages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._constants import FilterRunFlags, IncomingFlag
from ._lane import Lane
from ._stream_state import CALL, INSPECTION, PASS, PERMIT_ALL, PLAIN_BLOCK, PLAIN_PERMIT, REMOVE

if TYPE_CHECKING:
    from ._callout import CalloutEntry
    from ._filter import Filter2
    from ._flow import Flow
    from ._records import IncomingMetadataValues

_PERMIT_IF_UNREGISTERED = int(FilterRunFlags.PERMIT_IF_CALLOUT_UNREGISTERED)
_MID_STREAM = int(IncomingFlag.MID_STREAM_INSPECTION)


class Stage:
    """One (filter, callout) pair of a flow.

    Attributes:
        index: place in the flow's pipeline, 0 is asked first.
        next_sub_layer: index of the first stage of the next sublayer: where PERMIT leads (ARB-6).
        kind: CALL, PASS, REMOVE or PERMIT_ALL of `_stream_state`.
        mid_stream: the stage began after the flow was established (MID-1).
    """

    __slots__ = (
        "allowed",
        "context",
        "entry",
        "filter",
        "flow",
        "index",
        "kind",
        "lanes",
        "meta",
        "mid_stream",
        "next_sub_layer",
        "retired",
        "slow_until",
    )

    def __init__(self, flow: Flow, filter: Filter2, entry: CalloutEntry | None, mid_stream: bool) -> None:
        self.flow = flow
        self.filter = filter
        self.entry = entry
        self.mid_stream = mid_stream
        self.index = 0
        self.next_sub_layer = 0
        self.allowed = False
        self.retired = False
        self.context = 0
        self.kind = PASS
        self.meta: IncomingMetadataValues | None = None
        self.lanes = (Lane(self, 0), Lane(self, 1))

    @property
    def is_inspection(self) -> bool:
        """The filter may not modify the stream (ACT-2, POL-2)."""
        return self.filter.action_type == INSPECTION

    @property
    def ever_classified(self) -> bool:
        """The callout was asked at least once on this flow (IND-16)."""
        return self.lanes[0].classified or self.lanes[1].classified

    def refresh(self) -> None:
        """Work out `kind` anew: after registration, association, ALLOW_CONNECTION or retiring."""
        action = self.filter.action_type
        if action == PLAIN_PERMIT:
            self.kind = PERMIT_ALL
        elif action == PLAIN_BLOCK:
            self.kind = REMOVE
        elif self.entry is None or not self.entry.registered:
            self.kind = self._kind_without_callout()
        else:
            self.kind = self._kind_with_callout(self.entry)

    def _kind_without_callout(self) -> int:
        """REG-5, REG-6: an added callout that is not registered."""
        if self.is_inspection:
            return PASS
        return PERMIT_ALL if self.filter.flags & _PERMIT_IF_UNREGISTERED else REMOVE

    def _kind_with_callout(self, entry: CalloutEntry) -> int:
        self.context = self.flow.contexts.get((self.filter.layer_id, entry.callout_id), 0)
        if self.allowed or self.retired:
            return PASS
        if self.mid_stream and not entry.mid_stream_allowed:
            return PASS  # MID-1: skipped on this flow for good
        if entry.conditional_on_flow and not self.context:
            return PASS  # CFN-1: skipped, and skipping never blocks
        return CALL

    def set_meta(self, meta: IncomingMetadataValues) -> None:
        """Give the stage its metadata; MET-4 marks one that began mid-stream."""
        meta.flags = _MID_STREAM if self.mid_stream else 0
        self.meta = meta
