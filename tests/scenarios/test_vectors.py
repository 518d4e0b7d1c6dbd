"""The scenario catalogue, from its vectors: every case of every file, in memory, and the files themselves.

Owns playing them and the checks on the files. What a scenario says is in `wfpstream/testing/vectors/SC-*.json`.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from wfpstream.testing import MemoryWorld, VectorCase, run_case, vectors, vectors_schema

RULES = frozenset((Path(__file__).parents[1] / "rules" / "rule_ids.txt").read_text(encoding="utf-8").split())
CASES = [case for vector in vectors() for case in vector.cases]
FOLDER = files("wfpstream.testing").joinpath("vectors")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case_in_memory(case: VectorCase) -> None:
    assert run_case(case, MemoryWorld()) == []


def test_every_file_follows_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(vectors_schema())
    validator.check_schema(vectors_schema())
    faults = {
        path.name: [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(content)]
        for path in FOLDER.iterdir()
        if (content := json.loads(path.read_text(encoding="utf-8")))
    }
    assert {name: found for name, found in faults.items() if found} == {}


def test_every_file_is_named_after_its_scenario() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {f"{vector.id}.json" for vector in vectors()}


def test_every_scenario_of_the_catalogue_has_a_vector() -> None:
    catalogue = {rule for rule in RULES if rule.startswith("SC-")}
    assert {vector.id for vector in vectors()} == catalogue


def test_rules_named_in_vectors_exist() -> None:
    named = {vector.id: set(vector.rules) for vector in vectors()}
    assert {name: rules - RULES for name, rules in named.items() if rules - RULES} == {}
    assert all(named.values())


def test_case_names_are_unique() -> None:
    names = [case.id for case in CASES]
    assert sorted(set(names)) == sorted(names)


def _violated(cases: list[VectorCase]) -> set[str]:
    return {rule for case in cases for rule in case.body.get("violations", ())}


def test_violations_that_are_expected_are_rules() -> None:
    assert _violated(CASES) - RULES == set()
