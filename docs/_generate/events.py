"""The page of the events, from the JSON Schema that is shipped.

Owns the page's form; which keys an event has is the schema's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docs._generate._markdown import code, generated, page, table
from wfpstream.observe import events_schema

TEXTS = Path(__file__).with_name("events.md")


def events_page() -> str:
    """`reference/events.md`."""
    schema: dict[str, Any] = dict(events_schema())
    always = table(["key", "value", "meaning"], _rows(schema["properties"], schema["required"]))
    sections = "\n".join(_section(one) for one in schema["allOf"])
    text = TEXTS.read_text(encoding="utf-8")
    for mark, content in (("<!-- keys of every event -->", always), ("<!-- the events -->", sections)):
        assert mark in text
        text = text.replace(mark, content.strip("\n"))
    return page(generated("`wfpstream/observe/events.schema.json` and `docs/_generate/events.md`"), text)


def _section(rule: dict[str, Any]) -> str:
    condition, then = rule["if"]["properties"]["event"], rule["then"]
    names = [condition["const"]] if "const" in condition else condition["enum"]
    rows = _rows(then.get("properties", {}), then.get("required", []))
    return page(
        "### " + ", ".join(names),
        _sentence(then.get("description", "")),
        table(["key", "value", "meaning"], rows) if rows else "No keys of its own.",
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "." if text else ""


def _rows(properties: dict[str, Any], required: list[str]) -> list[tuple[str, str, str]]:
    return [
        (
            code(key) if key in required else f"{code(key)} (may be absent)",
            _type(one),
            one.get("description", ""),
        )
        for key, one in properties.items()
    ]


def _type(one: dict[str, Any]) -> str:
    if one.get("$ref") == "#/$defs/dir":
        return "`to_client` or `to_upstream`"
    if "enum" in one:
        return " or ".join(code("null" if value is None else str(value)) for value in one["enum"])
    kinds = one.get("type", "any")
    return " or ".join([kinds] if isinstance(kinds, str) else kinds)
