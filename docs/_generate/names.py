"""The table of WFP's names and ours, from `names.toml`; our names are looked up in the code.

Owns the rules by which a name of ours follows from WFP's, and the page. It must not know any name itself.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import EnumMeta
from pathlib import Path
from typing import Any

from docs._generate._markdown import code, generated, page, table

SOURCE = Path(__file__).with_name("names.toml")
PLANNED, NONE, CONCEPT = "planned", "none", "concept"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

INTRODUCTION = """\
# WFP's names and ours

Whoever knows a WFP name finds here what it is called in wfpstream. The rule: the prefix goes (the room says it), the
version digit goes where only one version exists, functions and members become snake_case, enumerators keep their
words. `fwp` is the shared vocabulary, `fwps` the run time (what a callout meets), `fwpm` management; each is imported
from `wfpstream`.

- *not yet*: the name is settled, the behaviour is not there yet.
- *not emulated*: it has no counterpart; the remark says why.
- *instead*: it has no counterpart of its own; what is named does its work.

A function's parameters stand in WFP's order. What behaves differently is in [deviations](deviations.md)."""


@dataclass(frozen=True, slots=True)
class Name:
    """One name.

    Args:
        wfp: as WFP's documentation writes it.
        ours: dotted, below the package: `fwps.StreamFlags.SEND`; empty if there is none.
        state: empty, or `planned`, `none`, `concept`.
        remark: one line.
    """

    wfp: str
    ours: str
    state: str
    remark: str

    @property
    def room(self) -> str:
        return self.ours.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Group:
    """Names that belong together; `complete`: every member of `ours` is to be among them."""

    title: str
    note: str
    ours: str
    complete: bool
    names: tuple[Name, ...]


def read_groups(source: Path = SOURCE) -> list[Group]:
    """The data file."""
    return [_group(raw) for raw in tomllib.loads(source.read_text(encoding="utf-8"))["group"]]


def _group(raw: dict[str, Any]) -> Group:
    names = tuple(_name(raw, key, value) for key, value in raw["names"].items())
    return Group(raw["title"], raw.get("note", ""), raw.get("ours", ""), raw.get("complete", False), names)


def _name(group: dict[str, Any], key: str, value: str | dict[str, str]) -> Name:
    said = {"remark": value} if isinstance(value, str) else value
    prefix, style, root = group.get("prefix", ""), group.get("style", "same"), group.get("ours", "")
    wfp = prefix + key if style == "same" else key
    state = said.get("state", "")
    own = said.get("ours") or _derived(key, prefix, style)
    ours = own[1:] if own.startswith("=") else f"{root}.{own}"
    return Name(wfp, "" if state == NONE else ours, state, said.get("remark", ""))


def _derived(key: str, prefix: str, style: str) -> str:
    if style == "same":
        return key
    plain = key.removeprefix(prefix) if style == "function" else key
    return "_".join(_WORD.findall(re.sub(r"\d+$", "", plain))).lower()


def resolve(ours: str) -> object:
    """What a dotted name stands for; `function(parameter)` is a parameter's name.

    Raises:
        AttributeError: nothing has that name.
    """
    name, _, parameter = ours.rstrip(")").partition("(")
    room, *rest = name.split(".")
    found: object = importlib.import_module(f"wfpstream.{room}")
    for part in rest:
        found = getattr(found, part)
    if not parameter:
        return found
    assert callable(found)
    if parameter not in inspect.signature(found).parameters:
        raise AttributeError(f"{name} has no parameter {parameter}")
    return parameter


def find_faults(groups: list[Group]) -> Iterator[str]:
    """Everything in which the data file and the code disagree, one line each."""
    for group in groups:
        for name in group.names:
            yield from _faults_of(name)
        if group.complete:
            members = resolve(group.ours)
            assert isinstance(members, EnumMeta)
            named = {name.ours.rpartition(".")[2] for name in group.names}
            yield from (
                f"{group.ours}.{one}: not in names.toml" for one in sorted({*members.__members__} - named)
            )


def _faults_of(name: Name) -> Iterator[str]:
    if name.state == NONE:
        if not name.remark:
            yield f"{name.wfp}: not emulated, and no reason is given"
        return
    try:
        resolve(name.ours)
    except AttributeError:
        if name.state != PLANNED:
            yield f"{name.wfp}: there is no {name.ours}"
        return
    if name.state == PLANNED:
        yield f"{name.wfp}: {name.ours} exists now; take the state out of docs/_generate/names.toml"


def names_page() -> str:
    """`reference/wfp_names.md`."""
    groups = read_groups()
    parts = [generated("`docs/_generate/names.toml`"), INTRODUCTION]
    for group in groups:
        parts += [f"## {group.title}", group.note]
        rows = [(code(name.wfp), _ours(name), code(name.room), name.remark) for name in group.names]
        parts.append(table(["WFP", "here", "room", "remark"], rows))
    return page(*parts)


def _ours(name: Name) -> str:
    if name.state == NONE:
        return "*not emulated*"
    short = name.ours.partition(".")[2]
    if name.state == PLANNED:
        return f"*not yet*: {code(short)}"
    if name.state == CONCEPT:
        return f"*instead*: {code(short)}"
    return code(short + _signature(resolve(name.ours)))


def _signature(found: object) -> str:
    """The parameters' names, of a function."""
    if not inspect.isfunction(found):
        return ""
    return f"({', '.join(one for one in inspect.signature(found).parameters if one != 'self')})"
