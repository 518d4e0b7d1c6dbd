"""From rules to tests: every rule is named by a test or in the list of deviations, and no test names a rule that
does not exist.

Owns the completeness of the naming. Whether a test says what its rule says is for the reader of both.
"""

from __future__ import annotations

import re
from pathlib import Path

from wfpstream.testing import vectors

TESTS = Path(__file__).parents[1]
DEVIATIONS = TESTS.parent / "docs" / "reference" / "deviations.md"
IDS = frozenset(Path(__file__).with_name("rule_ids.txt").read_text(encoding="utf-8").split())
FAMILIES = frozenset(rule.rpartition("-")[0] for rule in IDS)

_FAMILY = "|".join(sorted(FAMILIES, key=len, reverse=True))
_WRITTEN = re.compile(rf"(?<![A-Za-z0-9-])({_FAMILY})-(\d+[a-z]?)(?![0-9A-Za-z\[])")
_IN_A_NAME = re.compile(rf"\bdef test_({_FAMILY.lower()})_(\d+[a-z]?)_")


def named_in(text: str) -> set[str]:
    """The rule ids a text names: `ARB-6`, or a test called `test_arb_6_...`."""
    written = {f"{family}-{number}" for family, number in _WRITTEN.findall(text)}
    return written | {f"{family.upper()}-{number}" for family, number in _IN_A_NAME.findall(text)}


def named_by_tests() -> dict[str, set[str]]:
    """Every id named in a test module, or by a vector that `tests/scenarios` plays, with what names it."""
    found: dict[str, set[str]] = {}
    for vector in vectors():
        for rule in (vector.id, *vector.rules):
            found.setdefault(rule, set()).add(f"vector {vector.id}")
    for path in sorted(TESTS.rglob("test_*.py")):
        if path == Path(__file__):
            continue
        for rule in named_in(path.read_text(encoding="utf-8")):
            found.setdefault(rule, set()).add(str(path.relative_to(TESTS)))
    return found


def by_number(rules: set[str]) -> list[str]:
    """In the order a person looks for them."""

    def key(rule: str) -> tuple[str, int, str]:
        family, _, number = rule.rpartition("-")
        digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
        return family, int(digits), number

    return sorted(rules, key=key)


def test_the_list_of_rules_is_sound() -> None:
    """Each id once, in the form the texts use."""
    listed = Path(__file__).with_name("rule_ids.txt").read_text(encoding="utf-8").split()
    assert len(listed) == len(IDS)
    assert {rule for rule in IDS if named_in(rule) != {rule}} == set()


def test_every_rule_is_named_by_a_test_or_listed_as_a_deviation() -> None:
    excused = named_in(DEVIATIONS.read_text(encoding="utf-8"))
    assert by_number(set(IDS) - set(named_by_tests()) - excused) == []


def test_no_test_names_a_rule_that_does_not_exist() -> None:
    named = named_by_tests()
    assert {rule: sorted(named[rule]) for rule in by_number(set(named) - IDS)} == {}


def test_the_deviations_name_only_rules_that_exist() -> None:
    assert by_number(named_in(DEVIATIONS.read_text(encoding="utf-8")) - IDS) == []


def test_an_id_is_recognised_in_each_of_its_forms() -> None:
    """The checks above would pass for ever if nothing were recognised."""
    text = '''def test_sc_9b_prefix() -> None:
        """NMD-6, V-17x; not XNMD-7, NMD-71x2, nor a range like IND-2[3-7]."""'''
    assert named_in(text) == {"SC-9b", "NMD-6", "V-17x"}
