"""The page of the violations, from the table that the events quote.

Owns the page's form; the sentences are the table's.
"""

from __future__ import annotations

from pathlib import Path

from docs._generate._markdown import generated, page, table
from wfpstream.fwps import VIOLATION_RULES, ViolationRule

TEXTS = Path(__file__).with_name("violations.md")
MARK = "<!-- the violations -->"

_SEVERITIES = {"E": "error", "W": "warning", "L": "lint"}


def violations_page() -> str:
    """`reference/violations.md`."""
    text = TEXTS.read_text(encoding="utf-8")
    assert MARK in text
    rows = [_row(rule, one) for rule, one in VIOLATION_RULES.items()]
    head = ["id", "severity", "what the contract demands", "documented in", "goes on by", "seen by"]
    text = text.replace(MARK, table(head, rows))
    return page(generated("`wfpstream/fwps/_violation_rules.py` and `docs/_generate/violations.md`"), text)


def _row(rule: str, one: ViolationRule) -> list[str]:
    return [
        rule,
        _SEVERITIES[one.severity],
        one.says,
        "; ".join(one.documented),
        ", ".join(one.decided_by),
        one.seen_by,
    ]
