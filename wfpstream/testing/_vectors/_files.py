"""The conformance vectors that ship with the package: where they are and how they are read.

Owns finding and reading the files, and the records; playing a case is `_run`. It must not know worlds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

EVERY_WORLD = ("memory", "stream", "reactor", "replay")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class VectorCase:
    """One case of a scenario, as its file has it; docs/reference/vectors.md describes the members.

    Attributes:
        vector: the scenario, "SC-15".
        name: the case's own name inside the file.
        worlds: the worlds in which it can be played.
        needs: capabilities it needs of a world (`CAPABILITIES`).
        body: the JSON object itself.
    """

    vector: str
    name: str
    worlds: tuple[str, ...]
    needs: frozenset[str]
    body: dict[str, Any] = field(repr=False)

    @property
    def id(self) -> str:
        """The name by which a report calls it: "SC-15 one segment"."""
        return f"{self.vector} {self.name}"


@dataclass(frozen=True, slots=True)
class Vector:
    """One scenario of the catalogue: its id, what it says in a line, the rules it shows, and its cases."""

    id: str
    title: str
    rules: tuple[str, ...]
    cases: tuple[VectorCase, ...]


@cache
def vectors() -> tuple[Vector, ...]:
    """Every vector shipped, in the order of the catalogue. Raises ValueError: a file of another format."""
    folder = files("wfpstream.testing").joinpath("vectors")
    texts = [one.read_text(encoding="utf-8") for one in folder.iterdir() if one.name.endswith(".json")]
    return tuple(sorted(map(parse_vector, texts), key=_place))


def vector(vector_id: str) -> Vector:
    """The vector of one scenario, such as "SC-9b". Raises KeyError: there is none."""
    return {one.id: one for one in vectors()}[vector_id]


def vectors_schema() -> dict[str, Any]:
    """The schema that every vector file follows (JSON Schema 2020-12)."""
    text = files("wfpstream.testing").joinpath("vectors.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def parse_vector(text: str) -> Vector:
    """A vector from its file's text. Raises ValueError: no JSON, or another format; KeyError: a member lacks."""
    content = json.loads(text)
    if content.get("format") != FORMAT:
        raise ValueError(f"vector of format {content.get('format')!r}, not {FORMAT}")
    cases = tuple(_case(content["id"], body) for body in content["cases"])
    return Vector(content["id"], content["title"], tuple(content.get("rules", ())), cases)


def _case(vector_id: str, body: dict[str, Any]) -> VectorCase:
    worlds = tuple(body.get("worlds", EVERY_WORLD))
    needs = frozenset(body.get("needs", ())) | _needs_that_show(body)
    return VectorCase(vector_id, body["case"], worlds, needs, body)


# What a step needs of a world, by its kind.
_NEEDED_BY_STEP = {
    "fin": "half_close",
    "reset": "reset",
    "urgent": "urgent",
    "window": "window",
    "wait": "virtual_time",
    "connect": "second_flow",
}


def _needs_that_show(body: dict[str, Any]) -> set[str]:
    """Capabilities that need not be named, as the case cannot do without them."""
    steps = body["steps"]
    needs = {need for step in steps for name, need in _NEEDED_BY_STEP.items() if name in step}
    ends = [where.get(side, {}) for where in (*steps, body.get("end", {})) for side in ("remote", "local")]
    return needs | ({"reset"} if any(end.get("reset") for end in ends if end) else set())


def _place(one: Vector) -> tuple[int, str]:
    found = re.fullmatch(r"SC-(\d+)([a-z]?)", one.id)
    if found is None:
        raise ValueError(f"no scenario id: {one.id!r}")
    return int(found[1]), found[2]
