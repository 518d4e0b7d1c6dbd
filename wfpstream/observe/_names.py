"""The names of the events and of their keys, as the schema has them.

Owns that reading of the schema. It must not know who asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from wfpstream.observe._schema import events_schema


@cache
def event_keys() -> Mapping[str, frozenset[str]]:
    """Of each event there is the keys it may have, those of every event included."""
    schema = events_schema()
    common = frozenset(schema["properties"])
    found: dict[str, frozenset[str]] = {}
    for rule in schema["allOf"]:
        for name in _named(rule["if"]["properties"]["event"]):
            found[name] = found.get(name, common) | frozenset(rule["then"].get("properties", {}))
    return found


def _named(condition: Mapping[str, Any]) -> list[str]:
    return [condition["const"]] if "const" in condition else list(condition["enum"])
