"""Playing a conformance case in a world, and comparing what came of it with what its vector says.

Owns the way from a case to a `WorldScript` and the comparison. It must not know how a world moves bytes, nor what a
callout does inside a call. The comparison is described in docs/reference/vectors.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.testing._world import (
    Act,
    Connect,
    Fin,
    Reset,
    Send,
    Side,
    Step,
    Wait,
    Window,
    World,
    WorldScript,
)

from ._api import API_OPERATIONS
from ._callout import FlowScout, Scripted, ScriptedCallout, ScriptedCallout0
from ._compare import compare
from ._files import VectorCase
from ._layers import LAYER_OPERATIONS, LayerCallout
from ._management import MANAGEMENT_OPERATIONS
from ._operations import OPERATIONS
from ._scene import Scene
from ._setup import VectorSetup
from ._text import decode_bytes

STIMULI = ("send", "receive", "fin", "reset", "window", "wait", "do", "connect")
ENTRIES = ("call", "completion", "flowDelete", "notify", "note")
_RANDOM_CUTS = 24
ALL_OPERATIONS = OPERATIONS | API_OPERATIONS | MANAGEMENT_OPERATIONS | LAYER_OPERATIONS


def can_run(case: VectorCase, world: World) -> bool:
    """Whether a world is one of those the case is for, and has what it needs."""
    return world.name in case.worlds and case.needs <= world.capabilities


def run_case(case: VectorCase, world: World) -> list[str]:
    """Play a case, at all its cuts, and compare; the problems in words, none when it passed.

    Raises ValueError, KeyError: the vector is not sound.
    """
    problems: list[str] = []
    for label, body in _cuttings(_repeated(case.body)):
        found = _run_steps(body, world, len(body["steps"]), whole=True)
        if not found and world.name == "memory":
            found = _run_beginnings(body, world)
        problems += [f"{case.id}{label}: {problem}" for problem in found]
    return problems


def _run_beginnings(body: dict[str, Any], world: World) -> list[str]:
    """What either end has seen after a step: the run is ended there, as a world tells only at its end."""
    problems: list[str] = []
    for count, step in enumerate(body["steps"], start=1):
        if step.keys() & {"remote", "local"}:
            problems += _run_steps(body, world, count, whole=False)
    return problems


def _run_steps(body: dict[str, Any], world: World, count: int, *, whole: bool) -> list[str]:
    play = _Play(body, count)
    outcome = world.run(play.script())
    return compare(play.scene, play.steps, outcome, body if whole else None, world.name)


@dataclass(frozen=True, slots=True)
class _Sides:
    """Who is the local host."""

    local: Side
    remote: Side

    @classmethod
    def of(cls, body: dict[str, Any]) -> _Sides:
        return cls("server", "client") if body.get("local") == "server" else cls("client", "server")

    def named(self, name: str) -> Side:
        return {"local": self.local, "remote": self.remote}[name]


class _Play:
    """One run of the first `count` steps."""

    def __init__(self, body: dict[str, Any], count: int) -> None:
        self.body = body
        self.steps: list[dict[str, Any]] = body["steps"][:count]
        self._sides = _Sides.of(body)
        self.scene = Scene(local=self._sides.local, perform=self._perform)
        for spec in body.get("callouts", ()):
            self.scene.callouts[spec["name"]] = make_callout(self.scene, spec)
        for step in body["steps"]:
            for entry in step.get("expect", ()):
                self._give(entry)

    def script(self) -> WorldScript:
        """What the world plays: each step, and then a mark in the transcript."""
        steps: list[Step] = []
        for step in self.steps:
            steps += [self._world_step(step), Act(self.scene.step_done)]
        steps.append(Act(self.scene.unload))
        options = make_options(self.body.get("options", {}))
        connect = bool(self.body.get("connect", True))
        return WorldScript(self._set_up, steps, options, self._sides.local, connect)

    def _set_up(self, engine: FilterEngine) -> None:
        scene = self.scene
        scene.engine = engine
        engine.add_sink(_Listener(scene.hear))
        engine.add_callout(FlowScout(scene, scene.callouts.values()), name="scout")
        setup = VectorSetup(engine)
        setup.add_callouts(scene.callouts.values())
        for spec in self.body.get("filters", ()):
            setup.add_filter(spec)
        self._perform(None, None, self.body.get("setup", ()))

    def _give(self, entry: dict[str, Any]) -> None:
        """An expected entry is also what its callout does when it comes to it."""
        kind = kind_of(entry, ENTRIES)
        if kind != "note":
            self._callout(entry_of(entry, kind)).script(kind, entry)

    def _world_step(self, step: dict[str, Any]) -> Step:
        sides = self._sides
        make: dict[str, Callable[[Any], Step]] = {
            "send": lambda data: Send(sides.local, decode_bytes(data), step.get("urgent", False)),
            "receive": lambda data: Send(sides.remote, decode_bytes(data), step.get("urgent", False)),
            "fin": lambda who: Fin(sides.named(who)),
            "reset": lambda who: Reset(sides.named(who)),
            "window": lambda who: Window(sides.named(who), step["size"]),
            "wait": lambda seconds: Wait(float(seconds)),
            "do": lambda operations: Act(lambda: self._perform(None, None, operations)),
            "connect": make_connect,
        }
        kind = kind_of(step, STIMULI)
        return make[kind](step[kind])

    # -- operations ------------------------------------------------------------------------------------

    def _callout(self, name: str | None) -> Any:
        callouts = self.scene.callouts
        return next(iter(callouts.values())) if name is None else callouts[name]

    def _perform(self, by: Any, call: Any, operations: Iterable[dict[str, Any]]) -> None:
        for operation in operations:
            name = operation["op"]
            try:
                who = self._callout(operation.get("by")) if "by" in operation or by is None else by
                status = ALL_OPERATIONS[name](self.scene, who, call, operation)
            except Exception as error:
                # An error of the vector's or of ours would be V-40 inside a callback, and so look like the engine's.
                self.scene.problem(f"{name}: {error!r}")
            else:
                self.scene.compare_status(name, status, operation.get("returns", "STATUS_SUCCESS"))


class _Listener:
    """A sink that is not interested in payload."""

    wants_data = "off"

    def __init__(self, hear: Callable[[dict[str, Any]], None]) -> None:
        self._hear = hear

    def __call__(self, event: dict[str, Any]) -> None:
        self._hear(event)


def make_callout(scene: Scene, spec: dict[str, Any]) -> Scripted:
    """The scripted callout that a vector declares."""
    if spec.get("layer", "stream") != "stream":
        return LayerCallout(scene, spec)
    kind = ScriptedCallout0 if spec.get("version", 1) == 0 else ScriptedCallout
    return kind(scene, spec)


def make_connect(spec: Any) -> Connect:
    """A connection: true, or an object that names addresses and which side is the local host."""
    named = {} if spec is True else spec
    client, server, listener = (
        None if named.get(who) is None else (str(named[who][0]), int(named[who][1]))
        for who in ("client", "server", "listener")
    )
    return Connect(client, server, listener, named.get("local"), named.get("comesBack", False))


def make_options(values: dict[str, Any]) -> EngineOptions:
    """Engine options with a vector's `options` set. Raises AttributeError: there is no such option."""
    options = EngineOptions()
    options.verify.level = "warn"
    _set_options(options, values)
    return options


def _set_options(target: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        present = getattr(target, name)
        if isinstance(value, dict):
            _set_options(present, value)
        else:
            setattr(target, name, value)


def kind_of(item: dict[str, Any], kinds: Sequence[str]) -> str:
    """The one key of `kinds` that an object has. Raises ValueError: none, or several."""
    found = [kind for kind in kinds if kind in item]
    if len(found) != 1:
        raise ValueError(f"exactly one of {', '.join(kinds)} is needed in {item}")
    return found[0]


def entry_of(entry: dict[str, Any], kind: str) -> str | None:
    """The callout of an expected entry; None: the only one."""
    if kind == "call":
        return str(entry[kind]).partition("(")[0]
    return entry.get("flowDelete") if kind == "flowDelete" else entry.get("of")


def _repeated(body: dict[str, Any]) -> dict[str, Any]:
    """The case with a step of `times` n written n times."""
    steps = [step for step in body["steps"] for _ in range(step.get("times", 1))]
    return body | {"steps": steps}


# --- cuts -------------------------------------------------------------------------------------------------


def _cuttings(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The case with its data steps in pieces: (label of the cut, body)."""
    cuts = body.get("cuts")
    if cuts is None:
        yield "", body
        return
    if cuts != "any":
        for places in cuts:
            yield f" cut at {places}", _cut(body, partial(_always, places))
        return
    yield " in one piece", body
    yield " byte by byte", _cut(body, lambda length: range(1, length))
    for seed in range(_RANDOM_CUTS):
        yield f" at random cuts, seed {seed}", _cut(body, _RandomPlaces(seed))


def _always(places: list[int], length: int) -> list[int]:
    return places


class _RandomPlaces:
    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)

    def __call__(self, length: int) -> list[int]:
        count = self._dice.randint(0, min(6, max(0, length - 1)))
        return self._dice.sample(range(1, length), count) if count else []


def _cut(body: dict[str, Any], places: Callable[[int], Iterable[int]]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for step in body["steps"]:
        steps += _cut_step(step, places)
    return body | {"steps": steps}


def _cut_step(step: dict[str, Any], places: Callable[[int], Iterable[int]]) -> Iterator[dict[str, Any]]:
    kind = kind_of(step, STIMULI)
    if kind not in ("send", "receive"):
        yield step
        return
    data = decode_bytes(step[kind])
    edges = [0, *sorted(place for place in set(places(len(data))) if 0 < place < len(data)), len(data)]
    pieces = [data[a:b].decode("latin-1") for a, b in pairwise(edges)]
    for piece in pieces[:-1]:
        yield {kind: piece}
    yield step | {kind: pieces[-1]}
