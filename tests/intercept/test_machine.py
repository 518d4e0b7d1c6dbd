"""Any history of applying, undoing, crashing and meddling: others' things stay, and ours can always be undone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.intercept.kernel import OURS, Kernel, Killed, machine
from wfpstream.intercept import InterceptError, Interception, RoutePart, RulePart, TablePart, apply, undo

NAMES = ("web", "db", "all")
PORTS = st.sampled_from([(), (80,), (5432,), ((80, 90),)])


class Histories(RuleBasedStateMachine):
    """The model is what there must be at least and at most; the kernel in memory is what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.kernel = Kernel({"docker": ""}, [("-4", 100, 1, 577)], [("-6", 578)])
        self.here = machine(Path(self.folder.name).resolve(), self.kernel)
        # Others' things; ours by name: complete ones, and those a crash may have left in part.
        self.foreign: list[set[Any]] = [{"docker"}, set(self.kernel.rules), set(self.kernel.routes)]
        self.applied: dict[str, Interception] = {}
        self.crashed: set[str] = set()

    def teardown(self) -> None:
        """Whatever happened: one `undo`, and everything is as others have it."""
        undo(machine=self.here)
        for name in NAMES:
            assert undo(name, machine=self.here) == [f"{name}: nothing to undo"]
        assert self.things() == self.foreign
        self.folder.cleanup()

    def things(self) -> list[set[Any]]:
        return [set(self.kernel.tables), set(self.kernel.rules), set(self.kernel.routes)]

    def ours(self) -> list[set[Any]]:
        return [there - foreign for there, foreign in zip(self.things(), self.foreign, strict=True)]

    @rule(name=st.sampled_from(NAMES), mode=st.sampled_from(["redirect", "tproxy"]), ports=PORTS)
    def apply_it(self, name: str, mode: Any, ports: Any) -> None:
        before = self.things()
        plan = Interception(15001, name=name, mode=mode, redirect_ports=ports)
        try:
            apply(plan, machine=self.here)
        except InterceptError:
            assert self.things() == before, "refused, and nothing changed"
        else:
            assert name not in self.applied
            self.applied[name] = plan

    @rule(name=st.sampled_from(NAMES), step=st.integers(0, 4), after=st.booleans())
    def apply_and_fail(self, name: str, step: int, after: bool) -> None:
        before = self.things()
        self.kernel.fail_at = len(self.kernel.calls) + step
        self.kernel.fail_with = InterceptError("ip did not end within 15 s") if after else None
        self.kernel.fails_after = after
        try:
            apply(Interception(15001, name=name, mode="tproxy"), machine=self.here)
        except InterceptError:
            assert self.things() == before
        else:
            self.applied[name] = Interception(15001, name=name, mode="tproxy")
        finally:
            self.kernel.fail_at = None

    @rule(name=st.sampled_from(NAMES), step=st.integers(0, 4), after=st.booleans(), ports=PORTS)
    def apply_and_be_killed(self, name: str, step: int, after: bool, ports: Any) -> None:
        self.kernel.fail_at = len(self.kernel.calls) + step
        self.kernel.fail_with, self.kernel.fails_after = Killed(), after
        try:
            apply(Interception(15001, name=name, mode="tproxy", redirect_ports=ports), machine=self.here)
        except Killed:
            self.crashed.add(name)
        except InterceptError:
            pass
        else:
            self.applied[name] = Interception(15001, name=name, mode="tproxy", redirect_ports=ports)
        finally:
            self.kernel.fail_at, self.kernel.is_dead = None, False

    @rule(name=st.sampled_from([*NAMES, None]))
    def undo_it(self, name: str | None) -> None:
        undo(name, machine=self.here)
        gone = {name} if name else set(NAMES)
        self.applied = {own: plan for own, plan in self.applied.items() if own not in gone}
        self.crashed -= gone

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def somebody_removes_a_part(self, data: st.DataObject) -> None:
        """Ours are removed behind our back."""
        kind = data.draw(st.integers(0, 2))
        ours = sorted(self.ours()[kind])
        if not ours:
            return
        part = data.draw(st.sampled_from(ours))
        if kind == 0:
            del self.kernel.tables[part]
        else:
            (self.kernel.rules if kind == 1 else self.kernel.routes).remove(part)

    @rule(number=st.integers(579, 581), flag=st.sampled_from(["-4", "-6"]))
    def somebody_adds(self, number: int, flag: str) -> None:
        """Others use routing tables near ours; never one of ours, as little as we use theirs."""
        used = {table for _, table in self.kernel.routes} | {table for *_, table in self.kernel.rules}
        if number not in used:
            self.kernel.routes.append((flag, number))
            self.foreign[2].add((flag, number))

    @invariant()
    def what_others_have_is_there(self) -> None:
        for there, foreign in zip(self.things(), self.foreign, strict=True):
            assert foreign <= there

    @invariant()
    def our_tables_are_known(self) -> None:
        tables = {name for name, comment in self.kernel.tables.items() if comment == OURS}
        assert tables <= set(self.applied) | self.crashed


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_parts_are_told_apart() -> None:
    """The order in which they are made is the one that makes a crash harmless: the table is the last."""
    with tempfile.TemporaryDirectory() as folder:
        record = apply(Interception(1, mode="tproxy"), machine=machine(Path(folder).resolve(), Kernel()))
    kinds = [type(part) for part in record.parts]
    assert kinds == [RoutePart, RoutePart, RulePart, RulePart, TablePart]
