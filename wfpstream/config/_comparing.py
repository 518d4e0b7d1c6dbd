"""The difference between two configurations, as people see it: tables, settings, listeners.

Owns what is said of a change, and which sections cannot change while the engine runs. What a change does to the
engine's objects is `_steps`'.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from wfpstream.config._difference import ADDED, CHANGED, REMOVED, Change, Difference, changed, shown
from wfpstream.config._errors import Problem
from wfpstream.config._listening import parse_ports
from wfpstream.config._model import Condition, Config, Ports, Rule
from wfpstream.config._planned import Declared, Plan, PlannedCallout, fingerprint
from wfpstream.config._settings import engine_options, listener_settings
from wfpstream.config._steps import Steps
from wfpstream.fwp import CalloutFlags

LIVE_SECTIONS = ("limits", "timeouts", "policy")
_FIXED_SECTIONS = ("engine", "verify", "control", "transparent")
_KINDS = ("sublayer", "callout", "rule", "filter")
_MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)
_LATER = "live flows keep the old one until it is idle, and then get the new one"
_NEVER = "live flows keep the old one until it is idle, and then go on without; new flows get the new one"
_NEW_FLOWS = "(new flows only)"


def fixed_problems(old: Config, new: Config) -> list[Problem]:
    """What cannot change while the engine runs, and would."""
    before, after = _fixed_settings(old), _fixed_settings(new)
    return [
        Problem(key, "cannot change while running; restart") for key in after if before[key] != after[key]
    ]


def _fixed_settings(config: Config) -> dict[tuple[str, str], str]:
    """What the fixed sections say, in units of the engine where it has any."""
    options = engine_options(config)
    read: dict[str, object] = {"engine": options, "verify": options.verify}
    settings = {}
    for section in _FIXED_SECTIONS:
        table = getattr(config, section)
        for key in table.__struct_fields__:
            value: Any = getattr(read.get(section, table), key)
            settings[section, key] = fingerprint(_ports(value) if key == "ports" else value)
    return settings


def _ports(said: Ports | None) -> object:
    try:
        return parse_ports(said)
    except ValueError:
        return said


def difference_of(old: Config, new: Config, live: Plan, target: Plan, steps: Steps) -> Difference:
    """Everything that changes.

    Args:
        old: the configuration in force.
        new: the one that takes its place.
        live: what is in force.
        target: what is wanted.
        steps: what is done about it.
    """
    return Difference(
        (*_listener_changes(old, new), *object_changes(live, target, steps), *_setting_changes(old, new))
    )


# --- settings and listeners


def _setting_changes(old: Config, new: Config) -> Iterator[Change]:
    before, after = engine_options(old), engine_options(new)
    for section in LIVE_SECTIONS:
        for key in getattr(new, section).__struct_fields__:
            if getattr(getattr(before, section), key) != getattr(getattr(after, section), key):
                said = [getattr(getattr(config, section), key) for config in (old, new)]
                texts = ["none" if one is None else str(one) for one in said]
                yield Change("setting", f"{section}.{key}", CHANGED, " -> ".join(texts))


def _listener_changes(old: Config, new: Config) -> Iterator[Change]:
    before, after = _listeners(old), _listeners(new)
    for name, settings in after.items():
        if name not in before:
            yield Change("listener", name, ADDED)
        elif settings != before[name]:
            pairs = [(key, before[name][key], settings[key]) for key in settings]
            yield Change("listener", name, CHANGED, ", ".join(_different(pairs)))
    yield from (Change("listener", name, REMOVED) for name in before if name not in after)


def _listeners(config: Config) -> dict[str, dict[str, object]]:
    """What each listener is to be, as it says it; one without a name is known by its address."""
    found: dict[str, dict[str, object]] = {}
    for listener in config.proxy.listener:
        name = listener.name or listener.listen
        number = 2
        while name in found:
            name, number = f"{listener.name or listener.listen}#{number}", number + 1
        read = listener_settings(listener, config.proxy.local)
        said: dict[str, object] = msgspec.structs.asdict(listener)
        said |= {"local": read["local"], "listen": f"{read['host']}:{read['port']}"}
        for key, value in (("accept_proxy", "accept_proxy"), ("allow", "allow_destinations")):
            said[value] = list(read[key]) or None
        said["deny_destinations"] = list(read["deny"]) or None
        found[name] = said
    return found


# --- objects


def object_changes(live: Plan, target: Plan, steps: Steps) -> list[Change]:
    """The changes of tables, kind by kind."""
    teller = _Teller(live, target, steps)
    changes: list[Change] = []
    for kind in _KINDS:
        changes += teller.changes(kind)
    return changes


class _Teller:
    def __init__(self, live: Plan, target: Plan, steps: Steps) -> None:
        self._live = live
        self._target = target
        self._touched = {one.owner for one in steps.callouts_in}
        self._touched |= {one.owner for one in (*steps.come, *steps.gone)}
        self._callouts = _callouts_of(target)
        self._old_filters = _filters_of(live, self._touched)
        self._new_filters = _filters_of(target, self._touched)
        self._displaced = {one.owner for one in steps.come if one.key in steps.displaced}

    def changes(self, kind: str) -> Iterator[Change]:
        """All of one kind."""
        old, new = _of_kind(self._live, kind), _of_kind(self._target, kind)
        added = [one for one in new.values() if one.id not in old]
        removed = [one for one in old.values() if one.id not in new]
        reworded = self._reworded(removed, added)
        for one in new.values():
            if one.id in reworded:
                yield self._changed(reworded[one.id], one)
            elif one.id not in old:
                yield Change(kind, one.name, ADDED, self._mid_stream_note(one))
            elif one.id in self._touched:
                yield from self._touched_one(old[one.id], one)
        again = {one.id for one in reworded.values()}
        yield from (Change(kind, one.name, REMOVED) for one in removed if one.id not in again)

    def _reworded(self, removed: Sequence[Declared], added: Sequence[Declared]) -> dict[str, Declared]:
        """Rules without a name whose options were changed: to WFP others, to people the same."""
        waiting: dict[str, list[Declared]] = {}
        for one in removed:
            waiting.setdefault(self._likeness(one, self._live), []).append(one)
        pairs = {}
        for one in added:
            like = waiting.get(self._likeness(one, self._target)) if one.kind == "rule" else None
            if like:
                pairs[one.id] = like.pop(0)
        return pairs

    def _likeness(self, declared: Declared, plan: Plan) -> str:
        """The same for two rules that differ in the options of their callout at most; unique for others."""
        callout, table = plan.callouts.get(declared.id), declared.table
        if callout is None or not isinstance(table, Rule) or table.name:
            return declared.id
        return f"{callout.spec.use}\0{fingerprint(table.when)}"

    def _touched_one(self, old: Declared, new: Declared) -> Iterator[Change]:
        """One that is there before and after, and something about it changes."""
        missing = self._new_filters[new.id].keys() - self._old_filters[new.id].keys()
        change = self._changed(old, new)
        if change.detail:
            yield change
        elif missing:
            layers = sorted(self._new_filters[new.id][key] for key in missing)
            yield Change(new.kind, new.name, ADDED, f"at {', '.join(layers)}")

    def _changed(self, old: Declared, new: Declared) -> Change:
        parts = self._callout_parts(old, new)
        parts += _table_parts(old, new, without_callout=bool(parts))
        if parts:
            parts[-1] += self._live_flows(new)
        elif new.id in self._displaced:
            parts = ["added anew, to keep the order of the file"]
        elif new.kind == "rule":
            parts = self._weight_parts(new)
        return Change(new.kind, old.name, CHANGED, ", ".join(parts))

    def _callout_parts(self, old: Declared, new: Declared) -> list[str]:
        """How the object of its own differs from the one before."""
        before, after = self._live.callouts.get(old.id), self._target.callouts.get(new.id)
        if before is None or after is None or before is after:
            return []
        one, other = before.spec, after.spec
        keys = [*one.raw, *(key for key in other.raw if key not in one.raw)]
        parts = _different([("use", one.said, other.said)])
        parts += _different([(key, one.raw.get(key), other.raw.get(key)) for key in keys])
        if one.use == other.use and one.code != other.code:
            parts.append(f"{one.said.rpartition(':')[0]} has changed")
        return parts

    def _weight_parts(self, declared: Declared) -> list[str]:
        """The weight of a rule that had to make room."""
        old = [one.weight for one in self._live.sub_layers.values() if one.owner == declared.id]
        new = [one.weight for one in self._target.sub_layers.values() if one.owner == declared.id]
        return [f"weight 0x{a:04X} -> 0x{b:04X}" for a, b in zip(old, new, strict=False) if a != b]

    def _live_flows(self, declared: Declared) -> str:
        """What becomes of flows that live, where that is a question."""
        callouts = self._callouts.get(declared.id, [])
        if not callouts:
            return ""
        return f" ({_LATER if all(map(_joins_live_flows, callouts)) else _NEVER})"

    def _mid_stream_note(self, declared: Declared) -> str:
        callouts = self._callouts.get(declared.id, [])
        is_object = declared.kind == "callout"
        return "" if is_object or all(map(_joins_live_flows, callouts)) else _NEW_FLOWS


def _said(declared: Declared) -> dict[str, Any]:
    return msgspec.structs.asdict(declared.table)


def _of_kind(plan: Plan, kind: str) -> dict[str, Declared]:
    return {one.id: one for one in plan.declared.values() if one.kind == kind}


def _callouts_of(plan: Plan) -> dict[str, list[PlannedCallout]]:
    """The callouts at the stream layer that each table uses."""
    found: dict[str, list[PlannedCallout]] = {}
    for callout in plan.callouts.values():
        if any(layer.startswith("stream") for layer in callout.object.layers):
            found[callout.owner] = [callout]
    for one in plan.filters.values():
        if one.callout is not None and one.layer.is_stream:
            found.setdefault(one.owner, []).append(one.callout)
    return found


def _filters_of(plan: Plan, owners: set[str]) -> dict[str, dict[object, str]]:
    """The filters of some tables: key to layer."""
    found: dict[str, dict[object, str]] = {owner: {} for owner in owners}
    for one in plan.filters.values():
        if one.owner in owners:
            found[one.owner][one.key] = one.layer.name
    return found


def _joins_live_flows(callout: PlannedCallout) -> bool:
    return bool(int(callout.object.flags) & _MID_STREAM)


def _table_parts(old: Declared, new: Declared, *, without_callout: bool) -> list[str]:
    """What two versions of a table say differently; what a callout is, the callout tells."""
    if old.kind == "callout":
        return []
    before, after = _plain(old), _plain(new)
    if old.kind == "sublayer" and before["weight"] != after["weight"]:
        return [f"weight 0x{before['weight']:04X} -> 0x{after['weight']:04X}"]
    keys = [key for key in after if key != "name" and not (without_callout and key == "callout")]
    return _different([(key, before[key], after[key]) for key in keys])


def _plain(declared: Declared) -> dict[str, Any]:
    """A table as key and value; conditions in the words of a condition."""
    said = _said(declared)
    if "when" in said:
        when = msgspec.structs.asdict(said["when"])
        said["when"] = {key: value for key, value in when.items() if value is not None}
    if "condition" in said:
        said["condition"] = [_condition(one) for one in said["condition"]]
    return said


def _condition(condition: Condition) -> str:
    return f"{condition.field} {condition.match} {shown(condition.value)}"


def _different(pairs: Sequence[tuple[str, object, object]]) -> list[str]:
    return changed([pair for pair in pairs if fingerprint(pair[1]) != fingerprint(pair[2])])
