"""What a configuration asks for, as management records: callout objects, sublayers, filters.

Owns names and what refers to what. It makes the callout objects and touches no engine, so that everything
that is wrong is found before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import ParamSpec
from uuid import UUID, uuid5

from wfpstream.callouts import OptionError, UnknownCalloutError, create_callout
from wfpstream.config._callout_text import CalloutText, parse_callout
from wfpstream.config._errors import ConfigError, KeyPath, Problem, did_you_mean
from wfpstream.config._listening import check_listening
from wfpstream.config._load import LoadedConfig
from wfpstream.config._matching import (
    Invalid,
    Wanted,
    check_listeners,
    conditions_at,
    wanted_by_filter,
    wanted_by_when,
)
from wfpstream.config._model import Callout as CalloutTable
from wfpstream.config._model import Filter, Rule, SubLayer
from wfpstream.fwp import EMPTY, ActionType, FwpValue, MatchType, uint8, uint64
from wfpstream.fwpm import (
    LAYER_KEYS,
    LAYERS,
    SUBLAYER_INSPECTION,
    SUBLAYER_UNIVERSAL,
    FilterCondition,
    FilterFlags,
    Layer,
    find_layer,
    layer_keys,
)
from wfpstream.fwps import Callout

# Sublayers of --callout are asked before those of [[rule]]; a [[sublayer]] says its own weight.
COMMAND_LINE_WEIGHT = 0xFFFF
RULE_WEIGHT = 0xDFFF
P = ParamSpec("P")
_NAMESPACE = UUID("4d1f2c56-6f0b-5b0e-8d52-3c1f9a7be0c4")
_BUILT_IN = {"universal": SUBLAYER_UNIVERSAL, "inspection": SUBLAYER_INSPECTION}


@dataclass(frozen=True, slots=True, eq=False)
class PlannedCallout:
    """A callout object, and the name its keys are made from (REG-9)."""

    name: str
    object: Callout
    path: KeyPath


@dataclass(frozen=True, slots=True)
class PlannedSubLayer:
    """A sublayer to add."""

    key: UUID
    name: str
    weight: int
    path: KeyPath


@dataclass(frozen=True, slots=True)
class PlannedFilter:
    """A filter to add at one layer."""

    name: str
    layer: Layer
    sub_layer: UUID
    action: ActionType
    path: KeyPath
    callout: PlannedCallout | None = None
    conditions: tuple[FilterCondition, ...] = ()
    weight: FwpValue = EMPTY
    options: object | None = None
    flags: int = 0


@dataclass(slots=True)
class Plan:
    """Everything to add, in order."""

    callouts: list[PlannedCallout] = field(default_factory=list)
    sub_layers: list[PlannedSubLayer] = field(default_factory=list)
    filters: list[PlannedFilter] = field(default_factory=list)


def make_plan(loaded: LoadedConfig, callouts: Sequence[CalloutText] = ()) -> Plan:
    """Make the records and the callout objects of a configuration.

    Args:
        loaded: the configuration. Without a listener in it, rules may name any: `run` can still add them.
        callouts: those of the command line, asked before all of the file's rules.

    Raises:
        ConfigError: something in it cannot be used; every such thing is named.
    """
    planner = _Planner(loaded)
    config = loaded.config
    planner.problems += check_listening(config)
    for text in callouts:
        planner.attempt(planner.add_command_line, text)
    for index, sub_layer in enumerate(config.sublayer):
        planner.attempt(planner.add_sub_layer, sub_layer, ("sublayer", index))
    for index, callout in enumerate(config.callout):
        planner.attempt(planner.add_callout, callout, ("callout", index))
    for index, rule in enumerate(config.rule):
        planner.attempt(planner.add_rule, rule, index)
    for index, one in enumerate(config.filter):
        planner.attempt(planner.add_filter, one, ("filter", index))
    if planner.problems:
        raise loaded.error(list(dict.fromkeys(planner.problems)))
    return planner.plan


class _Planner:
    def __init__(self, loaded: LoadedConfig) -> None:
        self.plan = Plan()
        self.problems: list[Problem] = []
        self._folder = loaded.folder
        self._profile = loaded.config.engine.profile
        listeners = loaded.config.proxy.listener
        self._listeners = [one.name for one in listeners if one.name] if listeners else None
        self._sub_layers: dict[str, UUID] = dict(_BUILT_IN)
        # None for one that is in the file and cannot be used: what refers to it is not wrong as well.
        self._named: dict[str, PlannedCallout | None] = {}
        self._names: set[str] = {callout.name for callout in loaded.config.callout}

    def attempt(self, add: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run one step; what is wrong with it is noted, and the next one still runs."""
        try:
            add(*args, **kwargs)
        except Invalid as error:
            self.problems += error.problems

    def add_command_line(self, text: CalloutText) -> None:
        """A callout of `--callout`: in its own sublayer, for every layer it serves."""
        callout = self._make(text.name, text.options, (), Path())
        wanted = [Wanted((), "listener", MatchType.EQUAL, text.listener)] if text.listener else []
        self._add_short(callout, callout.name, COMMAND_LINE_WEIGHT, wanted)

    def add_sub_layer(self, sub_layer: SubLayer, path: KeyPath) -> None:
        """A `[[sublayer]]`."""
        if sub_layer.name in self._sub_layers:
            raise _invalid((*path, "name"), f'there is a sublayer "{sub_layer.name}" already')
        key = uuid5(_NAMESPACE, f"sublayer/{sub_layer.name}")
        self._sub_layers[sub_layer.name] = key
        self.plan.sub_layers.append(PlannedSubLayer(key, sub_layer.name, sub_layer.weight, path))

    def add_callout(self, callout: CalloutTable, path: KeyPath) -> None:
        """A `[[callout]]`: one object, whatever number of rules and filters name it."""
        if callout.name in self._named:
            raise _invalid((*path, "name"), f'there is a callout "{callout.name}" already')
        self._named[callout.name] = None
        made = self._make(callout.use, callout.options, path, self._folder, callout.name)
        self._named[callout.name] = made

    def add_rule(self, rule: Rule, index: int) -> None:
        """A `[[rule]]`: in its own sublayer, for every layer its callout serves."""
        path: KeyPath = ("rule", index)
        wanted = wanted_by_when(rule.when, (*path, "when"))
        self.problems += check_listeners(wanted, self._listeners)
        if rule.callout in self._named:
            callout = self._named[rule.callout]
        else:
            callout, listener = self._inline(rule.callout, (*path, "callout"))
            if listener:
                limit = Wanted((*path, "callout"), "listener", MatchType.EQUAL, listener)
                self.problems += check_listeners([limit], self._listeners)
                if rule.when.listener is not None:
                    raise _invalid((*path, "when", "listener"), "the callout names its listener already")
                wanted = [limit, *wanted]
        if callout is not None:
            self._add_short(
                callout, rule.name or f"rule {index + 1}: {callout.name}", RULE_WEIGHT, wanted, path
            )

    def add_filter(self, one: Filter, path: KeyPath) -> None:
        """A `[[filter]]`: one per family of its layer."""
        layers = self._layers(one.layer, path)
        callout = self._callout_of(one, path)
        sub_layer = self._sub_layer_of(one, path)
        if one.weight is not None and one.weight64 is not None:
            raise _invalid((*path, "weight64"), "weight and weight64 exclude each other")
        wanted = wanted_by_filter(one.condition, path)
        self.problems += check_listeners(wanted, self._listeners)
        planned = PlannedFilter(
            name=one.name,
            layer=layers[0],
            sub_layer=sub_layer,
            action=ActionType[one.action.upper()],
            path=path,
            callout=callout,
            weight=_weight(one, path),
            options=one.options,
            flags=_flags(one),
        )
        self._add_filters(planned, layers, wanted)

    def _make(
        self, use: str, options: Mapping[str, object], path: KeyPath, folder: Path, name: str = ""
    ) -> PlannedCallout:
        """A callout object under a name that no other has."""
        try:
            made = create_callout(_in_folder(use, folder), options)
        except (UnknownCalloutError, OptionError) as error:
            raise Invalid([Problem(path, str(error))]) from error
        name = name or self._free_name(use.rpartition("/")[2])
        self._names.add(name)
        callout = PlannedCallout(name, made, path)
        self.plan.callouts.append(callout)
        return callout

    def _free_name(self, wish: str) -> str:
        numbered = (f"{wish}#{number}" for number in count(2))
        return next(name for name in chain([wish], numbered) if name not in self._names)

    def _inline(self, text: str, path: KeyPath) -> tuple[PlannedCallout, str]:
        try:
            parsed = parse_callout(text, self._listeners or (), self._folder)
        except ConfigError as error:
            raise Invalid([Problem(path, error.problems[0].text)]) from error
        return self._make(parsed.name, parsed.options, path, self._folder), parsed.listener

    def _add_short(
        self,
        callout: PlannedCallout,
        name: str,
        heaviest: int,
        wanted: Sequence[Wanted],
        path: KeyPath = (),
    ) -> None:
        """One sublayer below those already planned from `heaviest` on, and a filter per layer."""
        used = {sub_layer.weight for sub_layer in self.plan.sub_layers if sub_layer.path[:1] != ("sublayer",)}
        weight = next(weight for weight in range(heaviest, -1, -1) if weight not in used)
        key = uuid5(_NAMESPACE, f"short/{weight}")
        self.plan.sub_layers.append(PlannedSubLayer(key, name, weight, path))
        layers = [layer for served in callout.object.layers for layer in self._layers(served, path)]
        action = ActionType[callout.object.filter_action.upper()]
        planned = PlannedFilter(
            name=name, layer=layers[0], sub_layer=key, action=action, path=path, callout=callout
        )
        self._add_filters(planned, layers, wanted)

    def _add_filters(self, planned: PlannedFilter, layers: Iterable[Layer], wanted: Sequence[Wanted]) -> None:
        problems: list[Problem] = []
        added = []
        for layer in layers:
            try:
                conditions = conditions_at(layer, wanted, self._profile)
            except Invalid as error:
                problems += error.problems
                continue
            if conditions is not None:
                added.append(replace(planned, layer=layer, conditions=conditions))
        if not added and not problems:
            problems = [Problem(planned.path, "no flow can meet its conditions at its layer")]
        if problems:
            raise Invalid(problems)
        self.plan.filters += added

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


def _in_folder(use: str, folder: Path) -> str:
    """A file's name, relative to the folder of the configuration."""
    place, colon, member = use.rpartition(":")
    if colon and ("/" in place or place.endswith(".py")):
        return f"{folder / place}:{member}"
    return use


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
