"""Standard arbitration at the layers before the stream (ARB-14, LAY-8, LAY-13): a walk one can suspend.

Owns rights, soft and hard decisions and vetoes, and calling classifyFn there. It must not know what a decision
does to the connection: `_connection` and `_establish` act on it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wfpstream.fwp import ActionType

from . import _stream_state as rules
from ._constants import RIGHT_ACTION_WRITE, FilterRunFlags
from ._core import Frame
from ._records import ClassifyOut, IncomingMetadataValues, IncomingValues

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._core import Core
    from ._filter import Filter2
    from ._flow import Flow

_WRITE = int(RIGHT_ACTION_WRITE)
_CLEAR_RIGHT = int(FilterRunFlags.CLEAR_ACTION_RIGHT)
_PERMIT_IF_UNREGISTERED = int(FilterRunFlags.PERMIT_IF_CALLOUT_UNREGISTERED)


class Verdict:
    """The decision so far: PERMIT, BLOCK or none (0), and whether lighter sublayers may still change it."""

    __slots__ = ("action", "callout_name", "filter_id", "hard")

    def __init__(self) -> None:
        self.action = 0
        self.hard = False
        self.filter_id = 0
        self.callout_name: str | None = None

    def merge(self, action: int, hard: bool, filter: Filter2, entry: CalloutEntry | None) -> None:
        """Block overrides permit; a hard decision yields only to a callout's veto (FA)."""
        if self.hard:
            if action != rules.BLOCK or entry is None:
                return
            hard = True
        elif self.action == rules.BLOCK and action != rules.BLOCK:
            return
        self.action = action
        self.hard = hard
        self.filter_id = filter.filter_id
        self.callout_name = entry.name if entry is not None else None


class Arbitration:
    """One classification of one layer, filter by filter; `run` can stop and go on later (LAY-18).

    Attributes:
        pended: a callout pended the operation; `run` is called again after its completion.
    """

    def __init__(
        self,
        core: Core,
        callouts: CalloutTable,
        layer_id: int,
        make_values: Callable[[], IncomingValues],
        make_meta: Callable[[], IncomingMetadataValues],
        layer_data: Callable[[], Any],
        classify_context: Any,
        flow: Flow | None,
        listener: str,
    ) -> None:
        self.core = core
        self.callouts = callouts
        self.layer_id = layer_id
        self.make_values = make_values
        self.make_meta = make_meta
        self.layer_data = layer_data
        self.classify_context = classify_context
        self.flow = flow
        self.listener = listener
        self.verdict = Verdict()
        self.pended = False
        self.current: tuple[Filter2, CalloutEntry] | None = None
        self.after_callout: Callable[[Filter2, CalloutEntry, ClassifyOut], None] = lambda f, e, o: None
        self._filters = core.filters.filters_at(layer_id)
        self._next = 0
        self._decided: Any = None  # sublayer that has decided already

    def restart(self) -> None:
        """From the top (reauthorisation, LAY-19, LAY-23)."""
        self.verdict = Verdict()
        self.pended = False
        self._next = 0
        self._decided = None

    def run(self) -> bool:
        """Ask the filters in turn. True when the layer is decided, False when a callout pended."""
        while self._next < len(self._filters):
            filter = self._filters[self._next]
            self._next += 1
            if filter.sub_layer_key == self._decided:
                continue
            values = self.make_values()
            if filter.matches(values.incoming_value, self.listener):
                self._ask(filter, values)
                if self.pended:
                    return False
        return True

    def answer(self, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """Take a callout's answer, given now or at the completion of what it pended."""
        action, _ = (
            rules.ACTION_EFFECT[filter.action_type].get(out.action_type)
            or rules.OTHER_ACTION[filter.action_type]
        )
        if action == rules.CONTINUE:
            return
        self._decided = filter.sub_layer_key
        self.verdict.merge(action, not out.rights & _WRITE, filter, entry)

    def entry_rights(self) -> int:
        """LAY-13: the write right is there until somebody decided hard."""
        return 0 if self.verdict.hard else _WRITE

    def _ask(self, filter: Filter2, values: IncomingValues) -> None:
        action = filter.action_type
        if action in (rules.PLAIN_PERMIT, rules.PLAIN_BLOCK):
            self._plain(filter, rules.PERMIT if action == rules.PLAIN_PERMIT else rules.BLOCK)
            return
        entry = self.callouts.registered_id(filter.callout_id)
        if entry is None:
            self._unregistered(filter)
            return
        context = self.flow.contexts.get((self.layer_id, entry.callout_id), 0) if self.flow is not None else 0
        if entry.conditional_on_flow and not context:
            return
        self.current = (filter, entry)
        self._call(filter, entry, values, context)
        self.current = None

    def _plain(self, filter: Filter2, action: int) -> None:
        """A plain permit is soft, a plain block hard; CLEAR_ACTION_RIGHT makes either hard."""
        self._decided = filter.sub_layer_key
        hard = action == rules.BLOCK or bool(filter.flags & _CLEAR_RIGHT)
        self.verdict.merge(action, hard, filter, None)

    def _unregistered(self, filter: Filter2) -> None:
        """REG-5, REG-6."""
        if filter.action_type == rules.INSPECTION:
            return
        self._plain(filter, rules.PERMIT if filter.flags & _PERMIT_IF_UNREGISTERED else rules.BLOCK)

    def _call(self, filter: Filter2, entry: CalloutEntry, values: IncomingValues, context: int) -> None:
        core = self.core
        out = ClassifyOut()
        out.rights = self.entry_rights()
        frame = Frame("classify", self.flow, None, entry.callout_id)
        frame.layer_id = self.layer_id
        frame.pending = self
        outer, core.frame = core.frame, frame
        core.callbacks += 1
        assert entry.classify_fn is not None
        try:
            if entry.version == 0:
                entry.classify_fn(values, self.make_meta(), self.layer_data(), filter, context, out)
            else:
                entry.classify_fn(
                    values, self.make_meta(), self.layer_data(), self.classify_context, filter, context, out
                )
        except Exception as error:
            core.violation("V-40", f"{type(error).__name__} out of classifyFn: {error}", flow=self.flow)
            policy = rules.policy_for(core.options.policy.on_callout_error, filter.action_type)
            out.action_type = rules.PLAIN_BLOCK if policy == rules.POLICY_DROP else int(ActionType.CONTINUE)
            self.pended = False
        finally:
            core.frame = outer
        self.after_callout(filter, entry, out)
        if not self.pended:
            self.answer(filter, entry, out)
