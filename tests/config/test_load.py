"""Reading the file: what it says, and every error with its place and what was expected."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from wfpstream.config import Config, ConfigError, config_schema, load_config, parse_config


def errors_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "f.toml")
    return caught.value.lines()


def test_an_empty_file_is_all_defaults() -> None:
    assert parse_config("").config == Config()


def test_every_error_is_named_at_once() -> None:
    text = """\
[proxy]
locl = "client"
[[proxy.listener]]
mode = "revers"
listen = 3
[[rule]]
when = { listener = "web", remote_prt = [80,
  8080] }
[[filter.condition]]
field = ""
[limits]
unsent = "lots"
flows = -1
[policy]
on_limit = "drp"
[foo]
"""
    assert errors_of(text) == [
        'f.toml:2: proxy.locl: unknown key; did you mean "local"?',
        'f.toml:4: proxy.listener[0].mode: expected one of "reverse", "redirect", "tproxy", got "revers"; '
        'did you mean "reverse"?',
        "f.toml:5: proxy.listener[0].listen: expected text, got 3",
        "f.toml:6: rule[0]: callout is missing; expected a name",
        'f.toml:7: rule[0].when.remote_prt: unknown key; did you mean "remote_port"?',
        "f.toml:9: filter: expected [[filter]] tables, got a table",
        'f.toml:12: limits.unsent: expected a size such as "256KiB", or a number of bytes, got "lots"',
        "f.toml:13: limits.flows: expected a whole number, got -1",
        'f.toml:15: policy.on_limit: expected one of "drop", "permit", "bypass", got "drp"; '
        'did you mean "drop"?',
        "f.toml:16: foo: unknown key; known: callout, control, engine, filter, limits, policy, proxy, replay, "
        "rule, sublayer, timeouts, transparent, verify",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a = \n", "f.toml:1: not TOML: invalid value"),
        ("x = 1\ny = [1,\n", "f.toml:3: not TOML: invalid value"),
        ("a = 1\r\nb = \r\n", "f.toml:2: not TOML: invalid value"),
        ("a = 1\na = 2", "f.toml:2: not TOML: cannot overwrite a value"),
        ("rule = 3", "f.toml:1: rule: expected [[rule]] tables, got 3"),
        ("rule = [3]", "f.toml:1: rule[0]: expected a table, got 3"),
        ("limits = []", "f.toml:1: limits: expected a table, got a list"),
        ("[timeouts]\nconnect = -1.5", "f.toml:2: timeouts.connect: expected a time such as"),
        ("[timeouts]\nconnect = '5 parsecs'", "f.toml:2: timeouts.connect: expected a time such as"),
        ("[engine]\nindicate_abort = 1", "f.toml:2: engine.indicate_abort: expected true or false, got 1"),
        (
            "[[sublayer]]\nname = 'x'",
            "f.toml:1: sublayer[0]: weight is missing; expected a number from 0 to 65535",
        ),
        ("[[proxy.listener]]\nname = 'a b'", "f.toml:2: proxy.listener[0].name: expected"),
        (
            "[[filter]]\nname = 'f'\nlayer = 'stream'\naction = 'permit'\nweight = 16",
            "f.toml:5: filter[0].weight: expected a number from 0 to 15 (weight64 takes an exact one), got 16",
        ),
    ],
)
def test_errors(text: str, error: str) -> None:
    assert errors_of(text)[0].startswith(error)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot read it: No such file or directory"):
        load_config(missing)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"# fine\nname = '\xff'\n")
    with pytest.raises(ConfigError, match=r"binary\.toml:2: expected UTF-8 text"):
        load_config(binary)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root refuses")
def test_root_refuses_what_everyone_can_write(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text("")
    path.chmod(0o646)
    with pytest.raises(ConfigError, match="everyone can write it"):
        load_config(path)


def test_a_pipe_is_read_once_only(tmp_path: Path) -> None:
    """A proxy that runs must not wait for the other end of one; `-c <(command)` is fine at the start."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="no regular file"):
        load_config(pipe, again=True)
    ours, theirs = os.pipe()
    try:
        os.write(theirs, b"[limits]\nflows = 7\n")
        os.close(theirs)
        assert load_config(f"/proc/self/fd/{ours}").config.limits.flows == 7
    finally:
        os.close(ours)


@pytest.mark.parametrize("depth", [32, 100, 480, 100_000])
@pytest.mark.parametrize(("opening", "inner", "closing"), [("[", "", "]"), ("{ a = ", "1", " }")])
def test_what_is_nested_too_deeply_is_refused(depth: int, opening: str, inner: str, closing: str) -> None:
    nested = opening * depth + inner + closing * depth
    text = f"[[callout]]\nname = 'x'\nuse = 'monitor'\noptions = {{ log = {nested} }}"
    assert errors_of(text) == ["f.toml: lists and tables are nested deeper than 32 levels"]


def test_a_file_of_any_size_is_not_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises(ConfigError, match="larger than 8 MiB"):
        load_config(path)


def test_relative_names_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("")
    assert load_config(tmp_path / "f.toml").folder == tmp_path


def test_the_shipped_schema_is_the_one_of_the_code() -> None:
    shipped = files("wfpstream.config").joinpath("config.schema.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == config_schema()


def test_the_schema_agrees_with_the_loader() -> None:
    validator = jsonschema.Draft202012Validator(config_schema())
    validator.check_schema(config_schema())
    validator.validate({"limits": {"unsent": "64KiB", "per_flow": 5}, "rule": [{"callout": "monitor"}]})
    wrongs: list[dict[str, object]] = [
        {"limit": {}},
        {"limits": {"unsent": "lots"}},
        {"rule": [{}]},
        {"engine": {"profile": "win95"}},
    ]
    for wrong in wrongs:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(wrong)
