"""An engine's objects for people and programs: layers, sublayers, filters by effective weight, callouts.

It reads them through a session, as any tool could; the order is the order of asking.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec

from wfpstream.cli._base import JobError
from wfpstream.engine import FilterEngine
from wfpstream.fwp import ActionType, DataType, FwpValue, MatchType
from wfpstream.fwpm import CONDITION_KEYS, LAYERS, Filter, FilterCondition, FilterFlags
from wfpstream.observe import safe_text

_FIELD_NAMES = {key: name for name, key in CONDITION_KEYS.items()}


def describe_engine(engine: FilterEngine) -> dict[str, Any]:
    """An engine's layers, sublayers, filters and callouts, as plain data in the order of evaluation."""
    _, session = engine.management.engine_open()
    if session is None:
        raise JobError("the engine has been stopped")
    _, sub_layers = session.sub_layer_enum()
    _, callouts = session.callout_enum()
    names = {callout.callout_key: callout.display_data.name for callout in callouts}
    layers = []
    for layer in LAYERS.values():
        _, filters = session.filter_enum(layer.key)
        used = [
            {
                "name": sub_layer.display_data.name,
                "weight": sub_layer.weight,
                "filters": [
                    _filter(one, names.get(one.callout_key) if one.callout_key else None)
                    for one in filters
                    if one.sub_layer_key == sub_layer.sub_layer_key
                ],
            }
            for sub_layer in sub_layers
        ]
        layers.append({"name": layer.name, "sublayers": [one for one in used if one["filters"]]})
    session.engine_close()
    return {
        "layers": layers,
        "sublayers": [{"name": one.display_data.name, "weight": one.weight} for one in sub_layers],
        "callouts": [
            {
                "name": callout.display_data.name,
                "id": callout.callout_id,
                "key": str(callout.callout_key),
                "layer": LAYERS[callout.applicable_layer].name,
            }
            for callout in callouts
        ],
    }


def _filter(one: Filter, callout: str | None) -> dict[str, Any]:
    return {
        "name": one.display_data.name,
        "id": one.filter_id,
        "weight": f"0x{int(one.effective_weight.value or 0):016X}",
        "action": ActionType(one.action_type).name.lower(),
        "callout": callout,
        "conditions": [_condition(condition) for condition in one.conditions],
        "flags": [flag.name.lower() for flag in FilterFlags if one.flags & flag and flag.name],
        "retiring": one.retiring,
        "options": one.provider_object,
    }


def _condition(condition: FilterCondition) -> dict[str, Any]:
    name = _FIELD_NAMES.get(condition.field_key, str(condition.field_key))
    return {
        "field": name,
        "match": MatchType(condition.match_type).name.lower(),
        "value": _value(name, condition.condition_value),
    }


def _value(field: str, value: FwpValue) -> Any:
    """A condition's value as the configuration would write it."""
    if value.type == DataType.RANGE_TYPE:
        return [_value(field, value.value.low), _value(field, value.value.high)]
    if value.type == DataType.V4_ADDR_MASK:
        prefix = value.value.mask.bit_count()
        return f"{ipaddress.IPv4Address(value.value.addr)}/{prefix}"
    if value.type == DataType.V6_ADDR_MASK:
        return f"{_address(value.value.addr)}/{value.value.prefix_length}"
    if field.endswith("_address"):
        return _address(value.value)
    if isinstance(value.value, bytes):
        return value.value.decode("utf-8", "backslashreplace")
    return value.value


def _address(value: int | bytes) -> str:
    """A mapped address shows the IPv4 address that it is."""
    address = ipaddress.ip_address(value)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return f"::ffff:{mapped}" if mapped else str(address)


def as_text(described: dict[str, Any]) -> str:
    """The same for people; layers without filters are left out."""
    lines = []
    for layer in described["layers"]:
        if not layer["sublayers"]:
            continue
        lines.append(f"layer {layer['name']}")
        for sub_layer in layer["sublayers"]:
            lines.append(f"  sublayer {safe_text(sub_layer['name'])} (weight 0x{sub_layer['weight']:04X})")
            lines += [f"    {_filter_text(one)}" for one in sub_layer["filters"]]
    if not lines:
        lines.append("no filters: a plain relay")
    if described["callouts"]:
        lines.append("callouts")
        lines += [
            f"  {one['id']:>3}  {safe_text(one['name'])} at {one['layer']}  {{{one['key']}}}"
            for one in described["callouts"]
        ]
    return "\n".join(lines)


def _filter_text(one: dict[str, Any]) -> str:
    callout = f" {safe_text(one['callout'])}" if one["callout"] else ""
    text = f"{one['weight']}  #{one['id']} {safe_text(one['name'])}: {one['action']}{callout}"
    conditions = [
        f"{condition['field']} {condition['match']} {safe_text(_plain(condition['value']))}"
        for condition in one["conditions"]
    ]
    if conditions:
        text += f" when {'; '.join(conditions)}"
    flags = [*one["flags"], "out of force, draining"] if one["retiring"] else one["flags"]
    if flags:
        text += f" [{', '.join(flags)}]"
    if one["options"] is not None:
        text += f" options {safe_text(_plain(one['options']))}"
    return text


def _plain(value: Any) -> str:
    if isinstance(value, list) and len(value) == 2:
        return f"{value[0]}-{value[1]}"
    return msgspec.json.encode(value, enc_hook=str).decode() if isinstance(value, dict) else str(value)
