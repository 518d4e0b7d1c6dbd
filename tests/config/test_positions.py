"""Key paths to lines, for every form TOML has."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.config._errors import KeyPath
from wfpstream.config._positions import find_lines, line_of

TEXT = '''\
# a comment with [brackets] and = signs
title = "x"

[proxy]  # the proxy
local = 'client'
"quoted key" = 1
a.b.c = 2

[[proxy.listener]]
name = """
two
lines \\""" still"""
mode = "reverse"

[[proxy.listener]]
name = \'\'\'literal
\'\'\'

[[rule]]
when = { port = [80,
  # which one?
  8080,
], text = "a, }b" }
callout = "after"

[[filter]]
name = "f"
[[filter.condition]]
field = "one"
[[filter.condition]]
field = "two"
[[filter]]
[[filter.condition]]
field = "three"
[limits]
unsent = 1_000
when = 1979-05-27 07:32:00
last = true'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("proxy",), 4),
        (("proxy", "local"), 5),
        (("proxy", "quoted key"), 6),
        (("proxy", "a", "b", "c"), 7),
        (("proxy", "listener", 0), 9),
        (("proxy", "listener", 0, "name"), 10),
        (("proxy", "listener", 0, "mode"), 13),
        (("proxy", "listener", 1), 15),
        (("rule", 0, "when"), 20),
        (("rule", 0, "when", "port"), 20),
        (("rule", 0, "when", "port", 0), 20),
        (("rule", 0, "when", "port", 1), 22),
        (("rule", 0, "when", "text"), 23),
        (("rule", 0, "callout"), 24),
        (("filter", 0, "condition", 0, "field"), 29),
        (("filter", 0, "condition", 1, "field"), 31),
        (("filter", 1, "condition", 0, "field"), 34),
        (("limits",), 35),
        (("limits", "unsent"), 36),
        (("limits", "last"), 38),
    ],
)
def test_lines(path: KeyPath, line: int) -> None:
    assert find_lines(TEXT)[path] == line


def test_the_text_of_this_test_is_toml() -> None:
    tomllib.loads(TEXT)


def test_the_nearest_key_stands_for_one_that_is_not_written() -> None:
    lines = find_lines(TEXT)
    assert line_of(lines, ("rule", 0, "when", "port", 7)) == 20
    assert line_of(lines, ("filter", 1, "callout")) == 32
    assert line_of(lines, ("nowhere",)) is None
    assert line_of(lines, ()) is None


_KEYS = st.text("abc_-1", min_size=1, max_size=4)
_TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f", min_codepoint=0x20), max_size=8)


def _toml_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_VALUES = st.recursive(
    st.integers(-9, 9).map(str) | st.booleans().map(lambda b: str(b).lower()) | _TEXTS.map(_toml_text),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[\n" + ",\n".join(items) + "\n]"),
    max_leaves=5,
)


@given(st.dictionaries(_KEYS, _VALUES, max_size=5), st.dictionaries(_KEYS, _VALUES, max_size=3))
def test_every_key_is_found_where_it_was_written(top: dict[str, str], inner: dict[str, str]) -> None:
    expected: dict[KeyPath, int] = {}
    text = ""
    for prefix, table in (((), top), (("table", 0), inner)):
        if prefix:
            text += "[[table]]\n"
        for key, value in table.items():
            expected[(*prefix, key)] = text.count("\n") + 1
            text += f"{key} = {value} # {key}\n"
    if "table" in top:
        return
    tomllib.loads(text)
    lines = find_lines(text)
    assert {path: lines.get(path) for path in expected} == expected
