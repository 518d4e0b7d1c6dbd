"""Every V-* of section 20 is caught with its id and its place, and the closest legal callout is not (VRF-7).

Owns the completeness: a violation without a case fails. The single forms of each are in `test_violations*`.
"""

from __future__ import annotations

import pytest

from tests.rules import violation_cases_buffers, violation_cases_connections, violation_cases_management
from tests.rules.test_mapping import IDS
from tests.rules.violation_cases import CASES
from wfpstream.fwps import VIOLATION_RULES

# Importing them fills the table.
MODULES = (violation_cases_buffers, violation_cases_connections, violation_cases_management)


def test_vrf_7_every_violation_of_the_semantics_is_in_the_table_and_has_a_case() -> None:
    """VRF-7: none is left out, and none is made up."""
    listed = {rule for rule in IDS if rule.startswith("V-")}
    assert set(VIOLATION_RULES) - {"ACT-13"} == listed
    assert set(CASES) == set(VIOLATION_RULES)
    assert {case.__module__ for case in CASES.values()} >= {module.__name__ for module in MODULES}


@pytest.mark.parametrize("rule", VIOLATION_RULES)
def test_vrf_7_the_bad_callout_is_caught_with_id_and_place(rule: str) -> None:
    """VRF-6, VRF-7: rule, callout, filter, flow, and the line; with what the rule says and where it is documented."""
    outcome = CASES[rule](True)
    told = {event["rule"] for event in outcome.events}
    assert told == {rule, *outcome.besides}
    table = VIOLATION_RULES[rule]
    for event in (event for event in outcome.events if event["rule"] == rule):
        assert event["where"] == outcome.where
        assert outcome.where is not None
        assert event["callout"] == outcome.callout
        assert event["filter"] in (outcome.filters or (None,))
        assert (event["flow"] > 0) is outcome.on_flow
        assert (event["says"], event["documented"]) == (table.says, list(table.documented))
        assert event["decided_by"] == list(table.decided_by)
        assert event["text"]


@pytest.mark.parametrize("rule", VIOLATION_RULES)
def test_vrf_1_the_closest_legal_callout_is_not(rule: str) -> None:
    """VRF-1, VRF-7: nothing at all is told of it."""
    outcome = CASES[rule](False)
    assert [(event["rule"], event["text"]) for event in outcome.events] == []


def test_the_table_says_something_of_each() -> None:
    """Section 20: severity, a sentence, sources, and rules that exist."""
    for rule, one in VIOLATION_RULES.items():
        assert one.severity in ("E", "W", "L"), rule
        assert one.says.endswith("."), rule
        assert one.documented, rule
        assert set(one.decided_by) <= IDS, rule
