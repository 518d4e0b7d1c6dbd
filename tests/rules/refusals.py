"""Owns reading off the source code which rule returns which status: pairs that stand together in a call or tuple."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import wfpstream

PACKAGE = Path(wfpstream.__file__).parent
ROOMS = ("fwps", "fwpm", "engine")

_RULE = re.compile(r"[A-Z]+-\d+[a-z]?")


def pairs_in_the_code() -> set[tuple[str, str]]:
    """(status name, rule id) wherever a refusal names both."""
    found: set[tuple[str, str]] = set()
    for room in ROOMS:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            found |= set(_pairs(ast.parse(path.read_text(encoding="utf-8"))))
    return found


def _pairs(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            parts = node.args
        elif isinstance(node, ast.Tuple):
            parts = node.elts
        else:
            continue
        statuses = [part.attr for part in parts if isinstance(part, ast.Attribute) and _is_status(part)]
        rules = [part.value for part in parts if isinstance(part, ast.Constant) and _is_rule(part.value)]
        for status in statuses:
            for rule in rules:
                yield status, str(rule)


def _is_status(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr.startswith("STATUS_")


def _is_rule(value: object) -> bool:
    return isinstance(value, str) and _RULE.fullmatch(value) is not None and not value.startswith("V-")
