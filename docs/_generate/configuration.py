"""The page of the configuration file, from the Structs that read it.

Owns the order of the tables and what is said around them; keys, types, defaults and meanings are the Structs'.
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
from msgspec import Meta

from docs._generate._markdown import code, generated, page, table
from wfpstream.config import Config

TEXTS = Path(__file__).with_name("configuration.md")

# The heading, the Struct's name, and whether the file may have many of it.
_TABLES = (
    ("[proxy]", "Proxy"),
    ("[[proxy.listener]]", "Listener"),
    ("[[rule]]", "Rule"),
    ("when", "When"),
    ("[[sublayer]]", "SubLayer"),
    ("[[callout]]", "Callout"),
    ("[[filter]]", "Filter"),
    ("[[filter.condition]]", "Condition"),
    ("[limits]", "Limits"),
    ("[timeouts]", "Timeouts"),
    ("[policy]", "Policy"),
    ("[engine]", "Engine"),
    ("[verify]", "Verify"),
    ("[control]", "Control"),
    ("[transparent]", "Transparent"),
    ("[replay]", "Replay"),
)


def configuration_page() -> str:
    """`reference/configuration.md`: every `<!-- table: NAME -->` of the template becomes that table's keys."""
    text = TEXTS.read_text(encoding="utf-8")
    structs = dict(_structs(Config))
    assert set(structs) == {name for _, name in _TABLES} | {"Config"}, "a table is missing in _TABLES"
    for heading, name in _TABLES:
        mark = f"<!-- table: {heading} -->"
        assert mark in text, f"{mark} is missing in the template"
        text = text.replace(mark, _keys(structs[name]))
    return page(generated("`wfpstream/config/_model.py` and `docs/_generate/configuration.md`"), text)


def _structs(kind: object) -> typing.Iterator[tuple[str, type[msgspec.Struct]]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind.__name__, kind
        for field in msgspec.structs.fields(kind):
            yield from _structs(field.type)
    for part in get_args(kind):
        yield from _structs(part)


def _keys(struct: type[msgspec.Struct]) -> str:
    rows = []
    for field in msgspec.structs.fields(struct):
        if any(_structs(field.type)) and field.name in ("listener", "condition"):
            continue  # a table of its own
        rows.append((code(field.name), _type(field.type), _default(field), _meaning(field.type)))
    return table(["key", "value", "default", "meaning"], rows)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT or field.default is None or field.default == "":
        return ""
    return code(msgspec.json.encode(field.default).decode())


def _metas(kind: object) -> list[Meta]:
    if get_origin(kind) is typing.Annotated:
        inner, *extras = get_args(kind)
        return [extra for extra in extras if isinstance(extra, Meta)] + _metas(inner)
    return []


def _meaning(kind: object) -> str:
    return next((str(meta.description) for meta in _metas(kind) if meta.description), "")


def _type(kind: object) -> str:
    for meta in _metas(kind):
        if meta.extra and "expected" in meta.extra:
            return str(meta.extra["expected"])
    if get_origin(kind) is typing.Annotated:
        return _type(get_args(kind)[0])
    if get_origin(kind) is typing.Literal:
        return ", ".join(code(f'"{choice}"') for choice in get_args(kind))
    if any(_structs(kind)):
        return "a table"
    words = [_type(part) for part in _union(kind)] if len(_union(kind)) > 1 else [_word(kind)]
    return " or ".join(dict.fromkeys(words))


def _union(kind: object) -> list[object]:
    """The alternatives of a union, without None; a list counts as one."""
    if get_origin(kind) in (list, dict) or not get_args(kind):
        return [kind]
    return [part for part in get_args(kind) if part is not type(None)]


def _word(kind: Any) -> str:
    words = {
        str: "text",
        int: "number",
        float: "number",
        bool: "`true` or `false`",
        dict: "a table",
        list: "a list",
    }
    alternatives = _union(kind)
    if len(alternatives) == 1 and alternatives[0] is not kind:
        return _type(alternatives[0])
    return words.get(get_origin(kind) or kind, "any value")
