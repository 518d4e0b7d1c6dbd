"""The undo record: whatever lies in its place and is not exactly ours is refused, and nothing happens."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.intercept.kernel import Kernel, machine
from wfpstream.intercept import InterceptError, Interception, Machine, apply, undo
from wfpstream.intercept import _records as record_room

PLAN = Interception(15001, mode="tproxy")


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def here(tmp_path: Path, kernel: Kernel) -> Machine:
    """A machine where something is applied."""
    found = machine(tmp_path, kernel)
    apply(PLAN, machine=found)
    return found


def folder_of(here: Machine) -> Path:
    assert here.state is not None
    return here.state


def file_of(here: Machine) -> Path:
    (name,) = os.listdir(folder_of(here))
    return folder_of(here) / name


def refused(here: Machine, kernel: Kernel, message: str) -> None:
    """Undo, with and without the name, is one clear error, and nothing is changed."""
    before = kernel.state()
    for name in (None, "wfpstream"):
        with pytest.raises(InterceptError, match=message):
            undo(name, machine=here)
    with pytest.raises(InterceptError):
        apply(Interception(1), machine=here)
    assert kernel.state() == before


def test_it_is_private_and_holds_names_and_values_only(here: Machine) -> None:
    assert folder_of(here).stat().st_mode & 0o777 == 0o700
    assert file_of(here).stat().st_mode & 0o777 == 0o600
    assert os.listdir(folder_of(here)) == [file_of(here).name], "nothing beside it"
    text = file_of(here).read_text()
    assert set(json.loads(text)) == {
        "version", "name", "made", "boot", "namespace", "plan", "rules", "routes", "owner",
    }  # fmt: skip
    for word in ("nft", "add", "delete", "lookup", "/sbin"):
        assert word not in text


def test_a_link_in_its_place_is_not_followed(here: Machine, kernel: Kernel, tmp_path: Path) -> None:
    file = file_of(here)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    refused(here, kernel, "is refused: too many levels of symbolic links")


def test_a_link_in_place_of_the_folder_is_not_followed(here: Machine, kernel: Kernel, tmp_path: Path) -> None:
    folder_of(here).rename(tmp_path / "real")
    folder_of(here).symlink_to(tmp_path / "real")
    refused(here, kernel, "cannot use .*/state/intercept for undo records: not a directory")


def test_a_link_on_the_way_is_not_followed(here: Machine, kernel: Kernel, tmp_path: Path) -> None:
    folder_of(here).parent.rename(tmp_path / "real")
    folder_of(here).parent.symlink_to(tmp_path / "real")
    refused(here, kernel, "cannot use .*/state for undo records: not a directory")


@pytest.mark.parametrize("mode", [0o622, 0o606 | 0o20, 0o666, 0o777])
def test_a_record_writable_by_others_is_refused(here: Machine, kernel: Kernel, mode: int) -> None:
    file_of(here).chmod(mode)
    refused(here, kernel, "is writable by others")


@pytest.mark.parametrize("mode", [0o770, 0o722, 0o777])
def test_a_folder_writable_by_others_is_refused(here: Machine, kernel: Kernel, mode: int) -> None:
    folder_of(here).chmod(mode)
    refused(here, kernel, "is writable by others")


def test_a_folder_above_writable_by_others_is_refused(here: Machine, kernel: Kernel) -> None:
    folder_of(here).parent.chmod(0o777)
    refused(here, kernel, "state is writable by others")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("part", ["file", "folder", "above"])
def test_what_belongs_to_somebody_else_is_refused(here: Machine, kernel: Kernel, part: str) -> None:
    path = {"file": file_of(here), "folder": folder_of(here), "above": folder_of(here).parent}[part]
    os.chown(path, 65534, 65534)
    refused(here, kernel, "belongs to user 65534")


def test_a_fifo_in_its_place_does_not_hold_us(here: Machine, kernel: Kernel) -> None:
    file = file_of(here)
    file.unlink()
    os.mkfifo(file, 0o600)
    refused(here, kernel, "is refused: it is no file")


def test_a_folder_in_its_place_is_refused(here: Machine, kernel: Kernel) -> None:
    file = file_of(here)
    file.unlink()
    file.mkdir(0o700)
    refused(here, kernel, "is refused: it is no file")


def changed(here: Machine, **values: Any) -> None:
    """The record, with some of its values (`plan__port`: of its plan) changed."""
    data = json.loads(file_of(here).read_text())
    for name, value in values.items():
        target, _, key = name.rpartition("__")
        (data[target] if target else data)[key] = value
    file_of(here).write_text(json.dumps(data))


RULE = {"family": "ipv4", "priority": 100, "mark": 1400, "table": 577}


@pytest.mark.parametrize(
    "values",
    [
        {"version": 2},
        {"name": "filter"},
        {"name": "../../etc/passwd"},
        {"name": 'x"; delete table inet filter'},
        {"namespace": 1},
        {"namespace": "1"},
        {"plan__name": "filter"},
        {"plan__port": 0},
        {"plan__interface": 'a" b'},
        {"rules": [RULE | {"priority": 0}]},
        {"rules": [RULE | {"priority": 32766}]},
        {"rules": [RULE | {"table": "main"}]},
        {"rules": [RULE | {"table": -1}]},
        {"rules": [RULE | {"mark": 1 << 32}]},
        {"rules": [RULE | {"family": "inet"}]},
        {"rules": [RULE] * 3},
        {"rules": [RULE | {"command": "rm"}]},
        {"routes": [{"family": "ipv4", "table": 577, "to": "10.0.0.0/8"}]},
        {"commands": ["nft flush ruleset"]},
        {"owner": {"pid": -1, "start": 0}},
        {"made": -1},
    ],
)
def test_a_record_with_a_wrong_value_is_refused(
    here: Machine, kernel: Kernel, values: dict[str, Any]
) -> None:
    changed(here, **values)
    refused(here, kernel, "the undo record .* is refused")


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(b"")
@example(b"null")
@example(b"[" * 100_000)
@example(b"{" + b" " * 70_000 + b"}")
def test_rubbish_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    kernel = Kernel()
    here = machine(tmp_path_factory.mktemp("rubbish"), kernel)
    apply(PLAN, machine=here)
    file_of(here).write_bytes(data)
    refused(here, kernel, "the undo record .* is refused")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_no_record_makes_undo_touch_what_is_not_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever a record says, a foreign table stays, and so do the machine's own rules and routes."""
    kernel = Kernel({"filter": "somebody's", "nat": ""})
    here = machine(tmp_path_factory.mktemp("forged"), kernel)
    apply(PLAN, machine=here)
    whole = json.loads(file_of(here).read_text())
    whole[data.draw(st.sampled_from(sorted(whole)))] = data.draw(VALUES)
    file_of(here).write_text(json.dumps(whole))
    with contextlib.suppress(InterceptError):
        undo(machine=here)
    assert kernel.tables.items() >= {"filter": "somebody's", "nat": ""}.items()


def test_an_error_never_carries_what_could_steer_a_terminal(here: Machine) -> None:
    changed(here, **{"\x1b[2J\nwfpstream: all is well": 1})
    with pytest.raises(InterceptError) as caught:
        undo(machine=here)
    assert all(line.isprintable() for line in caught.value.lines)


def test_files_that_are_no_records_are_left_alone(here: Machine, kernel: Kernel) -> None:
    others = ["notes", ".wfpstream.3.999", "x.json", "a.b.3"]
    for name in others:
        (folder_of(here) / name).write_text("mine")
    undo(machine=here)
    assert sorted(os.listdir(folder_of(here))) == sorted(others)
    assert kernel.state() == Kernel().state()


def test_a_record_of_another_namespace_is_left_alone(here: Machine, kernel: Kernel) -> None:
    """Its table may have the same name as one of ours."""
    file = file_of(here)
    number = int(file.suffix[1:]) + 1
    changed(here, namespace=number)
    file.rename(file.with_suffix(f".{number}"))
    before = kernel.state()
    assert undo(machine=here) == ["nothing to undo"]
    assert kernel.state() == before
    assert file.with_suffix(f".{number}").exists()


def test_a_record_from_before_the_machine_started_is_forgotten(here: Machine, kernel: Kernel) -> None:
    """What it tells of went with the start; something else may have the same names now."""
    changed(here, boot="another")
    before = kernel.state()
    assert undo(machine=here) == ["nothing to undo"]
    assert kernel.state() == before
    assert os.listdir(folder_of(here)) == []


@pytest.mark.parametrize("path", ["relative/folder", "/tmp/../etc"])
def test_the_folder_has_a_plain_absolute_path(tmp_path: Path, path: str) -> None:
    found = machine(tmp_path, Kernel())
    with pytest.raises(InterceptError, match="must be an absolute path"):
        apply(PLAN, machine=Machine(found.tools, found.proc, Path(path)))


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(InterceptError, match=r"cannot use .*/state for undo records: not a directory"):
        apply(PLAN, machine=machine(tmp_path, Kernel()))


def test_a_name_is_never_a_path(here: Machine) -> None:
    with pytest.raises(InterceptError, match="is not usable"):
        undo("../wfpstream", machine=here)


def test_two_at_a_time_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two applies under one name is refused; never do both half of it."""
    monkeypatch.setattr(record_room, "LOCK_PATIENCE", 3600.0)

    class Slow(Kernel):
        def run(self, program: str, arguments: Any, text: str = "") -> Any:
            inside.append(threading.get_ident())
            assert len(set(inside)) == 1, "two at a time"
            done = super().run(program, arguments, text)
            if arguments[0] == "-f":
                inside.clear()
            return done

    inside: list[int] = []
    kernel = Slow()
    outcomes: list[str] = []

    def work() -> None:
        try:
            apply(PLAN, machine=machine(tmp_path, kernel))
            outcomes.append("applied")
        except InterceptError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "applied" in outcomes
    assert any("is there already" in outcome for outcome in outcomes)
    assert len(kernel.calls) == 5


def test_a_lock_that_is_never_given_back_is_told(
    here: Machine, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_room, "LOCK_PATIENCE", 0.0)
    with record_room.open_records(folder_of(here), create=False), pytest.raises(InterceptError) as caught:
        undo(machine=here)
    assert "another apply or undo has been at work" in str(caught.value)
