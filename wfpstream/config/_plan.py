"""What a configuration asks for, made of its tables: callout objects, sublayers, filters.

Owns idents and what refers to what. It touches no engine, so that everything that is wrong is found before anything is
changed. Tables added by hand are planned behind those of the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import ParamSpec
from uuid import UUID

import msgspec

from wfpstream.config import _weights
from wfpstream.config._callout_text import CalloutText, parse_callout
from wfpstream.config._errors import ConfigError, KeyPath, Problem, did_you_mean
from wfpstream.config._listening import check_listening
from wfpstream.config._load import LoadedConfig
from wfpstream.config._making import CalloutMaker, MakeObject, right_here
from wfpstream.config._matching import (
    Invalid,
    Wanted,
    check_listeners,
    conditions_at,
    wanted_by_filter,
    wanted_by_when,
)
from wfpstream.config._model import Callout as CalloutTable
from wfpstream.config._model import Filter, Rule, SubLayer, When
from wfpstream.config._planned import (
    Added,
    Declared,
    Plan,
    PlannedCallout,
    PlannedFilter,
    PlannedSubLayer,
    fingerprint,
    key_of,
)
from wfpstream.config._weights import Band, NoRoom
from wfpstream.fwp import EMPTY, ActionType, FwpValue, MatchType, uint8, uint64
from wfpstream.fwpm import (
    LAYER_KEYS,
    LAYERS,
    SUBLAYER_INSPECTION,
    SUBLAYER_UNIVERSAL,
    FilterFlags,
    Layer,
    find_layer,
    layer_keys,
)

P = ParamSpec("P")
_BUILT_IN = {"universal": SUBLAYER_UNIVERSAL, "inspection": SUBLAYER_INSPECTION}
_NOTHING = Plan()
_LONGEST_LABEL = 120


def make_plan(
    loaded: LoadedConfig,
    callouts: Sequence[CalloutText] = (),
    added: Sequence[Added] = (),
    live: Plan = _NOTHING,
    make: MakeObject = right_here,
) -> Plan:
    """Plan a configuration.

    Args:
        loaded: the configuration. Without a listener in it, rules may name any: `run` can still add them.
        callouts: those of the command line, asked before all of the file's rules.
        added: what was added by hand.
        live: what is in force; what is unchanged keeps its callout object and its weight.
        make: calls what makes a callout object, where it is to be made.

    Raises:
        ConfigError: something in it cannot be used; every such thing is named.
    """
    planner = _Planner(loaded, Plan(), live, make)
    config = loaded.config
    planner.problems += check_listening(config)
    for text in callouts:
        planner.attempt(planner.add_command_line, text)
    for index, sub_layer in enumerate(config.sublayer):
        planner.attempt(planner.add_sub_layer, sub_layer, ("sublayer", index))
    for index, callout in enumerate(config.callout):
        planner.attempt(planner.add_callout, callout, ("callout", index))
    for index, rule in enumerate(config.rule):
        planner.attempt(planner.add_rule, rule, ("rule", index))
    for index, one in enumerate(config.filter):
        planner.attempt(planner.add_filter, one, ("filter", index))
    for table in added:
        planner.attempt(planner.add_by_hand, table, (f"added by hand: {table.label}",))
    return planner.finished()


def extend_plan(
    loaded: LoadedConfig, plan: Plan, added: Sequence[tuple[Added, KeyPath]]
) -> tuple[Plan, list[Added]]:
    """What is in force, with tables added by hand, each with where it stands; the tables get their idents.

    Raises:
        ConfigError: as `make_plan`.
    """
    planner = _Planner(loaded, plan.copy(), plan)
    known = len(plan.declared)
    for table, path in added:
        planner.attempt(planner.add_by_hand, table, path)
    extended = planner.finished()
    idents = [declared.ident for declared in list(extended.declared.values())[known:]]
    return extended, [replace(table, ident=ident) for (table, _), ident in zip(added, idents, strict=True)]


class _Planner:
    def __init__(self, loaded: LoadedConfig, plan: Plan, live: Plan, make: MakeObject = right_here) -> None:
        self.plan = plan
        self.problems: list[Problem] = []
        self._loaded = loaded
        self._known_weights = live.sub_layers
        self._profile = loaded.config.engine.profile
        listeners = loaded.config.proxy.listener
        self._listeners = [one.name for one in listeners if one.name] if listeners else None
        self._sub_layers: dict[str, UUID] = dict(_BUILT_IN)
        # None for one that is in the file and cannot be used: what refers to it is not wrong as well.
        self._named: dict[str, PlannedCallout | None] = {}
        for declared in plan.declared.values():
            if declared.kind == "sublayer":
                self._sub_layers[declared.name] = key_of("sublayer", declared.ident)
            elif declared.kind == "callout":
                self._named[declared.name] = plan.callouts[declared.id]
        names = {callout.name for callout in (*plan.callouts.values(), *live.callouts.values())}
        taken = names | {callout.name for callout in loaded.config.callout}
        self._maker = CalloutMaker(live, taken, make)
        self._occurrences: Counter[str] = Counter()

    def finished(self) -> Plan:
        """The plan, its weights found."""
        self.attempt(self._find_weights)
        if self.problems:
            raise self._loaded.error(list(dict.fromkeys(self.problems)))
        return self.plan

    def attempt(self, add: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run one step; what is wrong with it is noted, and the next one still runs."""
        try:
            add(*args, **kwargs)
        except Invalid as error:
            self.problems += error.problems

    # -- tables

    def add_command_line(self, text: CalloutText) -> None:
        """A callout of `--callout`: in its own sublayer, for every layer it serves."""
        ident = self._numbered(f"--callout/{text.name}/{fingerprint(text.options)}/{text.listener}")
        table = Rule(callout=text.name, when=When(listener=text.listener or None))
        declared = Declared("rule", ident, text.name.rpartition("/")[2], table, ())
        callout = self._make(declared, text.name, text.options, Path())
        said = (f"--callout {text.listener}:{text.name}",)
        wanted = [Wanted(said, "listener", MatchType.EQUAL, text.listener)] if text.listener else []
        self.problems += check_listeners(wanted, self._listeners)
        self._add_short(
            replace(declared, name=f"--callout {callout.name}"), callout, _weights.COMMAND_LINE, wanted
        )

    def add_by_hand(self, added: Added, path: KeyPath) -> None:
        """A table that is not in the file."""
        table = added.table
        if isinstance(table, Rule):
            self._refuse_twin(f"rule/named/{table.name}", f"rule/by hand/named/{table.name}", path)
            self.add_rule(table, path, added)
        elif isinstance(table, SubLayer):
            self.add_sub_layer(table, path)
        elif isinstance(table, CalloutTable):
            self.add_callout(table, path, added.folder)
        else:
            self._refuse_twin(f"filter/{table.name}", f"filter/{table.name}", path)
            self.add_filter(table, path)
        for key in added.gone:
            self.plan.filters.pop(key, None)

    def _refuse_twin(self, one: str, other: str, path: KeyPath) -> None:
        for declared in (self.plan.declared.get(one), self.plan.declared.get(other)):
            if declared is not None:
                what = f'there is a {declared.kind} "{declared.name}" already'
                raise _invalid((*path, "name"), what)

    def add_sub_layer(self, sub_layer: SubLayer, path: KeyPath) -> None:
        """A `[[sublayer]]`."""
        if sub_layer.name in self._sub_layers:
            raise _invalid((*path, "name"), f'there is a sublayer "{sub_layer.name}" already')
        declared = self._declare(Declared("sublayer", sub_layer.name, sub_layer.name, sub_layer, path))
        key = self._sub_layers[sub_layer.name] = key_of("sublayer", sub_layer.name)
        self.plan.sub_layers[key] = PlannedSubLayer(
            key, sub_layer.name, declared.id, path, weight=sub_layer.weight
        )

    def add_callout(self, callout: CalloutTable, path: KeyPath, folder: Path | None = None) -> None:
        """A `[[callout]]`: one object, whatever number of rules and filters name it."""
        if callout.name in self._named:
            raise _invalid((*path, "name"), f'there is a callout "{callout.name}" already')
        self._named[callout.name] = None
        declared = self._declare(Declared("callout", callout.name, callout.name, callout, path))
        made = self._make(declared, callout.use, callout.options, folder or self._loaded.folder)
        self._named[callout.name] = made

    def add_rule(self, rule: Rule, path: KeyPath, added: Added | None = None) -> None:
        """A `[[rule]]`: in its own sublayer, for every layer its callout serves."""
        declared = self._declared_rule(rule, path, added)
        wanted = wanted_by_when(rule.when, (*path, "when"))
        self.problems += check_listeners(wanted, self._listeners)
        if rule.callout in self._named:
            callout = self._named[rule.callout]
        else:
            folder = added.folder if added is not None else self._loaded.folder
            callout, listener = self._inline(declared, rule.callout, (*path, "callout"), folder)
            if listener:
                limit = Wanted((*path, "callout"), "listener", MatchType.EQUAL, listener)
                self.problems += check_listeners([limit], self._listeners)
                if rule.when.listener is not None:
                    raise _invalid((*path, "when", "listener"), "the callout names its listener already")
                wanted = [limit, *wanted]
        if callout is not None:
            band = _weights.RULES if added is None else _weights.BY_HAND
            self._add_short(declared, callout, band, wanted)

    def add_filter(self, one: Filter, path: KeyPath) -> None:
        """A `[[filter]]`: one per family of its layer."""
        layers = self._layers(one.layer, path)
        callout = self._callout_of(one, path)
        sub_layer = self._sub_layer_of(one, path)
        if one.weight is not None and one.weight64 is not None:
            raise _invalid((*path, "weight64"), "weight and weight64 exclude each other")
        wanted = wanted_by_filter(one.condition, path)
        self.problems += check_listeners(wanted, self._listeners)
        declared = Declared("filter", self._numbered(one.name, "filter/"), one.name, one, path)
        planned = PlannedFilter(
            key=sub_layer,
            name=one.name,
            owner=declared.id,
            layer=layers[0],
            sub_layer=sub_layer,
            action=ActionType[one.action.upper()],
            path=path,
            callout=callout,
            weight=_weight(one, path),
            options=one.options,
            options_said=fingerprint(one.options),
            flags=_flags(one),
        )
        self._add_filters(declared, planned, layers, wanted)

    # -- what they have in common

    def _declare(self, declared: Declared) -> Declared:
        self.plan.declared[declared.id] = declared
        return declared

    def _numbered(self, ident: str, kind: str = "") -> str:
        """The ident itself, and with a number for those that say the same."""
        self._occurrences[kind + ident] += 1
        number = self._occurrences[kind + ident]
        return ident if number == 1 else f"{ident}#{number}"

    def _declared_rule(self, rule: Rule, path: KeyPath, added: Added | None) -> Declared:
        """Who a rule is: what it is called or, without a name, what it says; never where it stands."""
        when = {key: value for key, value in _said(rule.when).items() if value is not None}
        said = " when ".join(part for part in (rule.callout, _shown_when(when)) if part)
        label = rule.name or (said if len(said) <= _LONGEST_LABEL else f"{said[: _LONGEST_LABEL - 3]}...")
        ident = f"named/{rule.name}" if rule.name else f"text/{rule.callout}/{fingerprint(when)}"
        if added is not None and added.ident:
            ident = added.ident
        elif added is not None:
            ident = self._free_ident(f"by hand/{ident}")
        else:
            ident = self._numbered(ident)
        return self._declare(Declared("rule", ident, label, rule, path))

    def _free_ident(self, wish: str) -> str:
        numbered = (f"{wish}#{number}" for number in count(2))
        return next(one for one in chain([wish], numbered) if f"rule/{one}" not in self.plan.declared)

    def _make(
        self, declared: Declared, use: str, options: Mapping[str, object], folder: Path
    ) -> PlannedCallout:
        made = self.plan.callouts[declared.id] = self._maker.make(declared, use, options, folder)
        return made

    def _inline(
        self, declared: Declared, text: str, path: KeyPath, folder: Path
    ) -> tuple[PlannedCallout, str]:
        try:
            parsed = parse_callout(text, self._listeners or (), folder)
        except ConfigError as error:
            raise Invalid([Problem(path, error.problems[0].text)]) from error
        made = self._make(replace(declared, path=path), parsed.name, parsed.options, folder)
        return made, parsed.listener

    def _add_short(
        self, declared: Declared, callout: PlannedCallout, band: Band, wanted: Sequence[Wanted]
    ) -> None:
        """One sublayer in its band, and a filter per layer."""
        self._declare(declared)
        path = declared.path
        key = key_of("rule", declared.ident)
        self.plan.sub_layers[key] = PlannedSubLayer(key, declared.name, declared.id, path, band=band)
        layers = [layer for served in callout.object.layers for layer in self._layers(served, path)]
        planned = PlannedFilter(
            key=key,
            name=declared.name,
            owner=declared.id,
            layer=layers[0],
            sub_layer=key,
            action=ActionType[callout.object.filter_action.upper()],
            path=path,
            callout=callout,
        )
        self._add_filters(declared, planned, layers, wanted)

    def _find_weights(self) -> None:
        """The weights of the short form, among those that the file says."""
        sub_layers = self.plan.sub_layers
        taken = {one.weight for one in sub_layers.values() if one.band is None}
        for band in (_weights.COMMAND_LINE, _weights.BY_HAND, _weights.RULES):
            order = [one.key for one in sub_layers.values() if one.band is band]
            known = {key: one.weight for key, one in self._known_weights.items() if one.band is band}
            try:
                found = _weights.place(order, known, taken, band)
            except NoRoom:
                raise _invalid((), f"{len(order)} rules are more than there are weights for") from None
            for key, weight in found.items():
                sub_layers[key] = replace(sub_layers[key], weight=weight)

    def _add_filters(
        self, declared: Declared, planned: PlannedFilter, layers: Iterable[Layer], wanted: Sequence[Wanted]
    ) -> None:
        problems: list[Problem] = []
        found = []
        for layer in layers:
            try:
                conditions = conditions_at(layer, wanted, self._profile)
            except Invalid as error:
                problems += error.problems
                continue
            if conditions is not None:
                key = key_of(declared.kind, declared.ident, layer.name)
                found.append(replace(planned, key=key, layer=layer, conditions=conditions))
        if not found and not problems:
            problems = [Problem(planned.path, "no flow can meet its conditions at its layer")]
        if problems:
            raise Invalid(problems)
        self._declare(declared)
        self.plan.filters |= {one.key: one for one in found}

    def _layers(self, name: str, path: KeyPath) -> list[Layer]:
        try:
            keys = layer_keys(name)
        except KeyError:
            stems = {known.removesuffix("_v4").removesuffix("_v6") for known in LAYER_KEYS}
            hint = did_you_mean(name, stems | set(LAYER_KEYS))
            raise _invalid((*path, "layer"), f'no layer "{name}"{hint}') from None
        if any(find_layer(key, self._profile) is None for key in keys):
            raise _invalid((*path, "layer"), f'layer "{name}" does not exist in profile {self._profile}')
        return [LAYERS[key] for key in keys]

    def _callout_of(self, one: Filter, path: KeyPath) -> PlannedCallout | None:
        if not one.action.startswith("callout_"):
            if one.callout is not None:
                raise _invalid((*path, "callout"), f"action {one.action} takes no callout")
            return None
        if one.callout is None:
            raise _invalid(path, f"callout is missing; action {one.action} needs the name of a [[callout]]")
        if one.callout not in self._named:
            hint = did_you_mean(one.callout, self._named)
            raise _invalid((*path, "callout"), f'no [[callout]] is named "{one.callout}"{hint}')
        callout = self._named[one.callout]
        if callout is None:
            # Its own error is told already.
            raise Invalid([])
        served = {key for name in callout.object.layers for key in layer_keys(name)}
        if not served.issuperset(layer_keys(one.layer)):
            layers = ", ".join(callout.object.layers)
            what = f'callout "{one.callout}" does not serve layer {one.layer}; it serves {layers}'
            raise _invalid((*path, "layer"), what)
        return callout

    def _sub_layer_of(self, one: Filter, path: KeyPath) -> UUID:
        if one.sublayer is None:
            if one.callout is not None:
                raise _invalid(path, "sublayer is missing; a filter with a callout needs one")
            return SUBLAYER_UNIVERSAL
        if one.sublayer not in self._sub_layers:
            hint = did_you_mean(one.sublayer, self._sub_layers)
            raise _invalid((*path, "sublayer"), f'no [[sublayer]] is named "{one.sublayer}"{hint}')
        return self._sub_layers[one.sublayer]


def _invalid(path: KeyPath, text: str) -> Invalid:
    return Invalid([Problem(path, text)])


def _said(table: msgspec.Struct) -> dict[str, object]:
    return msgspec.structs.asdict(table)


def _shown_when(when: Mapping[str, object]) -> str:
    shown = {key: ", ".join(map(str, said)) if isinstance(said, list) else said for key, said in when.items()}
    return ", ".join(f"{key} = {said}" for key, said in shown.items())


def _weight(one: Filter, path: KeyPath) -> FwpValue:
    """MGMT-6: a range, an exact weight, or automatic."""
    if one.weight is not None:
        return uint8(one.weight)
    if one.weight64 is None:
        return EMPTY
    number = int(one.weight64, 0) if isinstance(one.weight64, str) else one.weight64
    if number >= 2**64:
        raise _invalid((*path, "weight64"), "expected at most 0xFFFFFFFFFFFFFFFF")
    return uint64(number)


def _flags(one: Filter) -> int:
    flags = FilterFlags(0)
    if one.clear_action_right:
        flags |= FilterFlags.CLEAR_ACTION_RIGHT
    if one.permit_if_callout_unregistered:
        flags |= FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED
    return int(flags)
