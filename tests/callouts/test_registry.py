"""Finding callouts: by name, by module, by file; and what is said where there is none."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import asdict
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from wfpstream.callouts import (
    BUILT_IN,
    Framer,
    OptionError,
    StreamEdit,
    UnknownCalloutError,
    _registry,
    code_digest,
    create_callout,
    describe_callout,
    find_callout,
    list_callouts,
)
from wfpstream.config import parse_callout

SOURCE = '''
"""A file with a callout."""
from wfpstream.fwps import Callout

class Mine(Callout):
    """Mine, all mine."""
    def __init__(self, depth: int = 3) -> None:
        self.depth = depth

class Other:
    pass
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_every_built_in_is_found_and_described() -> None:
    found = {info.name: info for info in list_callouts()}
    assert set(BUILT_IN) <= set(found)
    for name in BUILT_IN:
        info = found[name]
        assert info.error == ""
        assert info.summary
        assert info.example.startswith(name)
        assert "stream" in info.layers
        assert "direction" in [option.name for option in info.options]
        assert all(option.doc for option in info.options), f"{name}: an option without a text"


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_example_of_a_built_in_works_as_it_stands(name: str) -> None:
    said = parse_callout(describe_callout(name).example)
    callout = create_callout(said.name, said.options)
    assert isinstance(callout, find_callout(name))
    assert callout.name == said.name == name


def test_the_description_can_be_written_as_json() -> None:
    text = json.dumps([asdict(info) for info in list_callouts()])
    assert '"stream_edit"' in text


def test_finding_a_built_in_reads_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that adds a fault must not pay for every package that is installed."""

    def fail() -> tuple[EntryPoint, ...]:
        raise AssertionError("the metadata of all installed packages was read")

    monkeypatch.setattr(_registry, "_entry_points", fail)
    assert find_callout("monitor").__name__ == "Monitor"


def test_built_ins_are_found_without_the_package_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_registry, "_entry_points", lambda: ())
    assert find_callout("stream_edit") is StreamEdit


def test_an_entry_point_of_another_package_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("theirs", "wfpstream.callouts.framer:Framer", "wfpstream.callouts")
    monkeypatch.setattr(_registry, "_entry_points", lambda: (point,))
    assert find_callout("theirs") is Framer


def test_a_broken_entry_point_is_listed_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("broken", "no_such_module_anywhere:Thing", "wfpstream.callouts")
    monkeypatch.setattr(_registry, "_entry_points", lambda: (point,))
    (info,) = (info for info in list_callouts() if info.name == "broken")
    assert "no_such_module_anywhere" in info.error
    assert "\n" not in info.error


def test_a_class_is_found_by_module() -> None:
    assert find_callout("wfpstream.callouts.framer:Framer") is Framer


def test_a_class_is_found_by_file(file: Path) -> None:
    cls = find_callout(f"{file}:Mine")
    assert cls.__name__ == "Mine"
    callout = create_callout(f"{file}:Mine", {"depth": "5"})
    assert callout.depth == 5  # type: ignore[attr-defined]


def test_the_folder_of_a_file_is_not_put_on_the_path(file: Path) -> None:
    find_callout(f"{file}:Mine")
    assert str(file.parent) not in sys.path


def test_a_class_without_an_example_gets_one(file: Path) -> None:
    info = describe_callout(f"{file}:Mine")
    assert info.example == f"{file}:Mine"
    assert info.summary == "Mine, all mine."
    assert describe_callout("stream_edit").source == "wfpstream.callouts.stream_edit:StreamEdit"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("stream_edt", "did you mean stream_edit"),
        ("no_such_module_anywhere:Thing", "No module named"),
        ("wfpstream.callouts.framer:Farmer", "there is no 'Farmer' in it"),
        ("wfpstream.callouts.framer:RecordLane", "is no callout class"),
        ("wfpstream.callouts:create_callout", "is no callout class"),
        ("./nowhere.py:Thing", "FileNotFoundError"),
    ],
)
def test_the_error_says_in_one_line_what_is_wrong(name: str, says: str) -> None:
    with pytest.raises(UnknownCalloutError) as caught:
        find_callout(name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_fails_while_it_runs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("raise RuntimeError('two\\nlines')\n")
    with pytest.raises(UnknownCalloutError, match=r"bad\.py:Thing': RuntimeError: two lines$"):
        find_callout(f"{path}:Thing")


def test_a_file_that_was_changed_is_read_anew(file: Path) -> None:
    """Also within one second, and to a text of the same length: no cached form of it is used."""
    name = f"{file}:Mine"
    old, before = find_callout(name), code_digest(name)
    stamp = file.stat()
    file.write_text(file.read_text().replace("depth: int = 3", "depth: int = 4"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert file.stat().st_size == stamp.st_size
    assert [vars(cls())["depth"] for cls in (old, find_callout(name))] == [3, 4]
    assert code_digest(name) != before
    assert not (file.parent / "__pycache__").exists()


def test_a_file_that_has_become_unusable_leaves_the_earlier_code_in_place(file: Path) -> None:
    cls = find_callout(f"{file}:Mine")
    module = sys.modules[cls.__module__]
    file.write_text("raise ValueError('not yet')")
    with pytest.raises(UnknownCalloutError, match="not yet"):
        find_callout(f"{file}:Mine")
    assert sys.modules[cls.__module__] is module


@pytest.mark.parametrize("name", ["monitor", "package.module:Class", "./gone.py:Mine", "gone.py", ""])
def test_only_a_file_has_a_digest(name: str) -> None:
    assert code_digest(name) == ""


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    assert code_digest(f"{pipe}:Mine") == ""
    with pytest.raises(UnknownCalloutError, match="no regular file"):
        find_callout(f"{pipe}:Mine")


def test_a_file_that_is_no_callout_is_refused(file: Path) -> None:
    with pytest.raises(UnknownCalloutError, match="is no callout class"):
        find_callout(f"{file}:Other")


def test_as_root_a_file_that_others_can_write_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    file.chmod(file.stat().st_mode | stat.S_IWOTH)
    with pytest.raises(UnknownCalloutError, match=r"refusing .* as root: others than root can write"):
        find_callout(f"{file}:Mine")


def test_values_a_class_refuses_become_option_errors() -> None:
    with pytest.raises(OptionError, match=r"^pattern_drop: expected at least one byte to find$"):
        create_callout("pattern_drop", {"find": ""})
    with pytest.raises(OptionError, match=r"^stream_edit: option find is missing"):
        create_callout("stream_edit")
