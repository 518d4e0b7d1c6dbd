"""A configuration made ready in a thread: who works meanwhile, where callouts are made, and what if all changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import ClassVar

import msgspec
import pytest
import trio

from tests.config.deployed import deployed, filters
from wfpstream.callouts import SequentialCallout, Steps
from wfpstream.cli._preparing import prepare_aside
from wfpstream.config import ConfigError, Deployment, parse_config
from wfpstream.config._model import Rule


class Own(SequentialCallout):
    """Notes which thread makes it, and lets a test do something at that time."""

    made_by: ClassVar[list[int]] = []
    meanwhile: ClassVar[Callable[[], object]] = staticmethod(lambda: None)

    def __init__(self, mark: str = "") -> None:
        super().__init__()
        Own.made_by.append(threading.get_ident())
        Own.meanwhile()
        if mark == "broken":
            raise ValueError("a mark that cannot be")

    def parse(self, direction: str) -> Steps:
        """Nothing."""
        yield from ()


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "made_by", [])
    monkeypatch.setattr(Own, "meanwhile", lambda: None)


def rule(mark: str, name: str = "own") -> str:
    return f"[[rule]]\nname = '{name}'\ncallout = '{__name__}:Own,mark={mark}'\n"


def reload(deployment: Deployment, text: str) -> list[str]:
    async def run() -> list[str]:
        return (await prepare_aside(deployment, parse_config(text), ())).commit().lines()

    return trio.run(run)


def names(deployment: Deployment) -> set[str]:
    return {one.display_data.name for one in filters(deployment.engine, "stream_v4")}


class Many(list[Rule]):
    """Stand for so many rules that it takes time: who looks through them waits until the loop says so."""

    def __init__(self, rules: list[Rule]) -> None:
        super().__init__(rules)
        self.is_read = trio.Event()
        self.go_on = threading.Event()

    def __iter__(self) -> Iterator[Rule]:
        trio.from_thread.run_sync(self.is_read.set)
        assert self.go_on.wait(60)
        return super().__iter__()


def test_the_loop_runs_while_much_is_made_ready() -> None:
    deployment = deployed("")
    loaded = parse_config(rule("a"))
    many = Many(loaded.config.rule)
    msgspec.structs.force_setattr(loaded.config, "rule", many)

    async def run() -> None:
        async def go_on() -> None:
            await many.is_read.wait()
            many.go_on.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(go_on)
            (await prepare_aside(deployment, loaded, ())).commit()

    trio.run(run)
    assert names(deployment) == {"own"}


def test_callout_objects_are_made_where_they_are_called() -> None:
    """So that one which, say, opens a database of its own thread behaves after a reload as it did at the start."""
    deployment = deployed(rule("a"))
    assert reload(deployment, rule("b"))
    assert Own.made_by == [threading.get_ident()] * 2


def test_what_its_making_raises_is_told_as_ever() -> None:
    deployment = deployed(rule("a"))
    with pytest.raises(ConfigError, match="a mark that cannot be"):
        reload(deployment, rule("broken"))
    assert names(deployment) == {"own"}


def test_a_change_by_hand_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployed("")

    def add_once() -> None:
        monkeypatch.setattr(Own, "meanwhile", lambda: None)
        deployment.add_rule("monitor", {}, "by hand")

    monkeypatch.setattr(Own, "meanwhile", add_once)
    assert reload(deployment, rule("a")) == ['+ rule "own"']
    assert names(deployment) == {"own", "by hand"}


def test_changes_without_a_pause_do_not_keep_it_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = deployed("")

    def add() -> None:
        if len(Own.made_by) <= 3:  # later ones would come while the loop does nothing else
            deployment.add_rule("monitor", {}, f"by hand {len(Own.made_by)}")

    monkeypatch.setattr(Own, "meanwhile", add)
    assert reload(deployment, rule("a")) == ['+ rule "own"']
    assert names(deployment) == {"own", "by hand 1", "by hand 2", "by hand 3"}
