"""Standard arbitration at the layers before the stream (ARB-14, LAY-8, LAY-13): a walk one can suspend.

Owns rights, soft and hard decisions and vetoes, and calling classifyFn there. It must not know what a decision
does to the connection: `_connections` and `_establish` act on it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _stream_state as rules
from ._constants import RIGHT_ACTION_WRITE, FilterRunFlags
from ._core import Frame
from ._records import ClassifyOut, IncomingMetadataValues, IncomingValues
from ._violations import CALLOUT_FAULTS
from ._watched_metadata import watching

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._core import Core
    from ._filter import Filter2, MatchFunction
    from ._flow import Flow
    from ._point_index import PointIndex

_WRITE = int(RIGHT_ACTION_WRITE)
_LOOKED_ON = (rules.CONTINUE, None)  # the effect of an answer that decides nothing, as it should
_CLEAR_RIGHT = int(FilterRunFlags.CLEAR_ACTION_RIGHT)
_PERMIT_IF_UNREGISTERED = int(FilterRunFlags.PERMIT_IF_CALLOUT_UNREGISTERED)


class Decision(NamedTuple):
    """What one filter said: PERMIT, BLOCK or CONTINUE, and whether lighter sublayers may still change it."""

    action: int
    hard: bool
    filter: Filter2
    entry: CalloutEntry | None


class Verdict:
    """The decision so far: PERMIT, BLOCK or none (0), and whether lighter sublayers may still change it."""

    __slots__ = ("action", "callout_name", "filter_id", "hard")

    def __init__(self, decisions: Iterable[Decision] = ()) -> None:
        self.action = 0
        self.hard = False
        self.filter_id = 0
        self.callout_name: str | None = None
        for decision in decisions:
            self.merge(decision)

    def merge(self, decision: Decision) -> None:
        """Block overrides permit; a hard permit yields only to a callout's veto (FA)."""
        if decision.action == rules.CONTINUE:
            return
        blocks = decision.action == rules.BLOCK
        if self.action == rules.BLOCK:
            self.hard = self.hard or (blocks and decision.hard)
            return
        if self.hard and (not blocks or decision.entry is None):
            return
        self.hard = self.hard or decision.hard
        self.action = decision.action
        self.filter_id = decision.filter.filter_id
        self.callout_name = decision.entry.name if decision.entry is not None else None


class Arbitration:
    """One classification of one layer, filter by filter; `run` can stop and go on later (LAY-18).

    A subclass says what the layer shows: `make_values`, `make_meta`, `layer_data`.

    Attributes:
        pended: a callout pended the operation; `run` is called again after its completion.
        current: filter and callout of the classifyFn on the stack, else None.
        rights: the entry rights of the callout asked last (LAY-13).
        required_flags: callout flags without which a callout is not asked (CFN-5).
    """

    __slots__ = (
        "_again",
        "_asked_again",
        "_candidates",
        "_decided",
        "_decisions",
        "_next",
        "_places",
        "_struck",
        "_values",
        "callouts",
        "classify_context",
        "core",
        "current",
        "flow",
        "layer_id",
        "listener",
        "number",
        "pended",
        "required_flags",
        "rights",
        "verdict",
    )

    def __init__(
        self,
        core: Core,
        callouts: CalloutTable,
        layer_id: int,
        classify_context: int | None,
        flow: Flow | None,
        number: int,
        listener: str,
    ) -> None:
        self.core = core
        self.callouts = callouts
        self.layer_id = layer_id
        self.classify_context = classify_context
        self.flow = flow
        self.number = number
        self.listener = listener
        self.verdict = Verdict()
        self.pended = False
        self.current: tuple[Filter2, CalloutEntry] | None = None
        self.rights = _WRITE
        self.required_flags = 0
        self._candidates = core.filters.candidates(layer_id, listener)
        self._next = 0
        self._values: IncomingValues | None = None
        self._places: list[int] | None = None  # of the candidates that come into question for these values
        self._decided: Any = None  # sublayer that has decided already
        self._decisions: dict[int, Decision] = {}  # by filter id, in the order of asking
        self._again: list[Filter2] = []
        self._asked_again: frozenset[int] = frozenset()
        self._struck: frozenset[int] = frozenset()  # filters whose callout broke its contract under `strict`

    # -- what the layer shows ------------------------------------------------------------------------------

    def make_values(self) -> IncomingValues:
        """The fixed values, asked for once until `renew`."""
        raise NotImplementedError

    def make_meta(self) -> IncomingMetadataValues:
        """The metadata of one classify."""
        raise NotImplementedError

    def layer_data(self) -> Any:
        """What classifyFn gets as layerData."""
        return None

    def after_callout(self, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """Called when classifyFn returned, before its answer counts."""

    def after_fault(self, filter: Filter2, entry: CalloutEntry) -> None:
        """Called instead when it raised."""

    # -- the walk ------------------------------------------------------------------------------------------

    def renew(self) -> None:
        """The operation goes on after it was pended: what the values say of it may have changed."""
        self.pended = False
        self._values = self._places = None

    def restart(self) -> None:
        """From the top, with the filters of now (reauthorisation, LAY-19, LAY-23)."""
        self.verdict = Verdict()
        self.pended = False
        self._candidates = self.core.filters.candidates(self.layer_id, self.listener)
        self._places = None
        self._next = 0
        self._decided = None
        self._decisions.clear()
        self._again.clear()

    def ask_again(self, filter: Filter2) -> None:
        """This filter's callout is classified once more, when all were asked (LAY-25)."""
        if filter.filter_id not in self._asked_again:
            self._asked_again |= {filter.filter_id}
            self._again.append(filter)

    def run(self) -> bool:
        """Ask the filters in turn. True when the layer is decided, False when a callout pended."""
        candidates = self._candidates
        while self._next < len(candidates):
            if candidates.by_value is not None and not self._skip(candidates.by_value):
                break
            filter, match, following = candidates[self._next]
            if self._decided is not None and filter.sub_layer_key == self._decided:
                self._next = following
                continue
            self._next += 1
            self._ask(filter, match)
            if self.pended:
                return False
        while self._again:
            filter = self._again.pop(0)
            self._ask(filter, filter.matches)
            if self.pended:
                return False
        return True

    def _skip(self, index: PointIndex) -> bool:
        """Past those of thousands of candidates whose conditions the values cannot meet; False: no other is left."""
        places = self._places
        if places is None:
            places = self._places = index.places(self._fixed_values().incoming_value)
        position = bisect_left(places, self._next)
        if position == len(places):
            self._next = len(self._candidates)
            return False
        self._next = places[position]
        return True

    def run_alone(self) -> None:
        """As `run`, where there is one candidate, no layer data and nobody can pend: the usual case, short."""
        ((filter, match, _),) = self._candidates
        entry = self.callouts.registered_id(filter.callout_id)
        core = self.core
        if (
            match is not None
            or entry is None
            or entry.version == 0
            or entry.conditional_on_flow
            or self.required_flags
            or core.options.verify.level != "off"
        ):
            self.run()
            return
        self._next = 1
        self.current = (filter, entry)
        # As `_call`.
        out = ClassifyOut()
        frame = Frame("classify", self.flow, None, entry.callout_id)
        frame.layer_id = self.layer_id
        frame.pending = self
        began = core.overruns.since = core.clock()
        outer, core.frame = core.frame, frame
        core.callbacks += 1
        try:
            try:
                entry.classify_fn(  # type: ignore[misc]
                    self.make_values(), self.make_meta(), None, self.classify_context, filter, 0, out
                )
            except CALLOUT_FAULTS as error:
                core.violation("V-40", f"{type(error).__name__} out of classifyFn: {error}", error=error)
                core.frame = outer
                self._fault(filter, entry)
                return
            finally:
                core.frame = outer
                core.overruns.newcomer_asked(entry.name, entry.classify_code, began)
            if rules.ACTION_EFFECT[filter.action_type].get(out.action_type) != _LOOKED_ON:
                self._returned(filter, entry, out)
        finally:
            self.current = None

    def answer(self, filter: Filter2, entry: CalloutEntry, action_type: int, rights: int) -> None:
        """Take a callout's answer, given now or at the completion of what it pended (ACT-1..ACT-5)."""
        effect = rules.ACTION_EFFECT[filter.action_type].get(action_type)
        action, rule = effect or rules.OTHER_ACTION[filter.action_type]
        if rule is not None:
            text = f"{entry.name} answered {action_type:#x}"
            self.tell(rule, text, filter, entry)
        if filter.filter_id in self._struck:
            self._decide_for(filter)
        else:
            self.decide(Decision(action, not rights & _WRITE, filter, entry))

    def tell(
        self, rule: str, text: str, filter: Filter2, entry: CalloutEntry, *, judged: bool = True
    ) -> None:
        """A violation of a callout of this layer; not `judged`: in a call that is being made."""
        self.core.violation(
            rule,
            text,
            flow=self.flow,
            entry=entry,
            filter_id=filter.filter_id,
            layer=self,
            judged=judged,
        )

    def strike(self, filter_id: int) -> None:
        """`--verify strict`: this filter's callout broke its contract; `on_callout_error` stands for its answer."""
        filter = next((each for each, _, _ in self._candidates if each.filter_id == filter_id), None)
        if filter is None or filter_id in self._struck:
            return
        self._struck |= {filter_id}
        if self.current is None or self.current[0].filter_id != filter_id:
            self._decide_for(filter)  # else it is done when the callout has returned

    def decide(self, decision: Decision) -> None:
        """A filter's decision; asked once more, its new one stands in the old one's place."""
        filter = decision.filter
        if decision.action != rules.CONTINUE:
            self._decided = filter.sub_layer_key
        known = filter.filter_id in self._decisions
        self._decisions[filter.filter_id] = decision
        if known:
            self.verdict = Verdict(self._decisions.values())
        else:
            self.verdict.merge(decision)

    def _entry_rights(self, filter: Filter2) -> int:
        """LAY-13: the write right is there until a heavier filter decided hard."""
        if filter.filter_id not in self._decisions:
            return 0 if self.verdict.hard else _WRITE
        before = []
        for decision in self._decisions.values():
            if decision.filter is filter:
                break
            before.append(decision)
        return 0 if Verdict(before).hard else _WRITE

    def _fixed_values(self) -> IncomingValues:
        values = self._values
        if values is None:
            values = self._values = self.make_values()
        return values

    def _ask(self, filter: Filter2, match: MatchFunction | None) -> None:
        if match is not None and not match(self._fixed_values().incoming_value, self.listener):
            return
        action = filter.action_type
        if action == rules.PLAIN_PERMIT or action == rules.PLAIN_BLOCK:  # noqa: PLR1714
            self._plain(filter, rules.PERMIT if action == rules.PLAIN_PERMIT else rules.BLOCK)
            return
        entry = self.callouts.registered_id(filter.callout_id)
        if entry is None:
            self._unregistered(filter)
            return
        context = self.flow.contexts.get((self.layer_id, entry.callout_id), 0) if self.flow is not None else 0
        if entry.conditional_on_flow and not context:
            return
        if self.required_flags and entry.flags & self.required_flags != self.required_flags:
            return
        self.rights = self._entry_rights(filter) if self._decisions else _WRITE
        self.current = (filter, entry)
        try:
            self._call(filter, entry, context)
        finally:
            self.current = None

    def _plain(self, filter: Filter2, action: int) -> None:
        """A plain permit is soft, a plain block hard; CLEAR_ACTION_RIGHT makes either hard."""
        hard = action == rules.BLOCK or bool(filter.flags & _CLEAR_RIGHT)
        self.decide(Decision(action, hard, filter, None))

    def _unregistered(self, filter: Filter2) -> None:
        """REG-5, REG-6."""
        if filter.action_type == rules.INSPECTION:
            return
        self._plain(filter, rules.PERMIT if filter.flags & _PERMIT_IF_UNREGISTERED else rules.BLOCK)

    def _call(self, filter: Filter2, entry: CalloutEntry, context: int) -> None:
        core = self.core
        values = self._fixed_values()
        out = ClassifyOut()
        out.rights = self.rights
        frame = Frame("classify", self.flow, None, entry.callout_id)
        frame.layer_id = self.layer_id
        frame.pending = self
        began = core.overruns.since = core.clock()
        outer, core.frame = core.frame, frame
        core.callbacks += 1
        assert entry.classify_fn is not None
        meta = self.make_meta()
        if core.options.verify.level != "off":
            meta = watching(meta, self._report_member)
        try:
            if entry.version == 0:
                entry.classify_fn(values, meta, self.layer_data(), filter, context, out)
            else:
                entry.classify_fn(
                    values, meta, self.layer_data(), self.classify_context, filter, context, out
                )
        except CALLOUT_FAULTS as error:
            core.violation("V-40", f"{type(error).__name__} out of classifyFn: {error}", error=error)
            core.frame = outer
            self._fault(filter, entry)
            return
        finally:
            core.frame = outer
            core.overruns.newcomer_asked(entry.name, entry.classify_code, began)
        self._returned(filter, entry, out)

    def _returned(self, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """classifyFn has returned: what it said counts."""
        if filter.filter_id in self._struck:
            self._fault(filter, entry)
            return
        self.after_callout(filter, entry, out)
        if not self.pended:
            self.answer(filter, entry, out.action_type, out.rights)

    def _report_member(self, member: str) -> None:
        self.core.violation("V-30", f"metadata member {member} read without its presence bit")

    def _fault(self, filter: Filter2, entry: CalloutEntry) -> None:
        """ACT-14: what it pended is void; `on_callout_error` stands for its answer."""
        self.after_fault(filter, entry)
        self.pended = False
        self._decide_for(filter)

    def _decide_for(self, filter: Filter2) -> None:
        """What `on_callout_error` decides in a callout's place."""
        policy = rules.policy_for(self.core.options.policy.on_callout_error, filter.action_type)
        action = rules.BLOCK if policy == rules.POLICY_DROP else rules.CONTINUE
        entry = self.callouts.registered_id(filter.callout_id)
        self.decide(Decision(action, not self.rights, filter, entry))
