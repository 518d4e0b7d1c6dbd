"""`wfpstream show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wfpstream.cli import main

TEXT = """
[[sublayer]]
name = "heavy"
weight = 0x9000
[[sublayer]]
name = "light"
weight = 2
[[callout]]
name = "sunny"
use = "stream_edit"
options = { find = "rainy" }
[[filter]]
name = "second"
layer = "stream_v4"
sublayer = "light"
action = "callout_terminating"
callout = "sunny"
weight = 3
options = { n = 3 }
[[filter]]
name = "third"
layer = "stream_v4"
sublayer = "light"
action = "permit"
clear_action_right = true
[[filter]]
name = "first"
layer = "stream"
sublayer = "heavy"
action = "block"
weight64 = "0x10"
[[filter.condition]]
field = "ip_remote_address"
value = "10.0.0.0/8"
[[filter.condition]]
field = "ip_remote_port"
match = "range"
value = "80-90"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f.toml"
    path.write_text(TEXT)
    return path


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["show", *arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def test_json(file: Path) -> None:
    described: dict[str, Any] = json.loads(shown(str(file), "--json"))
    layers = {layer["name"]: layer["sublayers"] for layer in described["layers"]}
    heavy, light = layers["stream_v4"]
    assert (heavy["name"], heavy["weight"], light["weight"]) == ("heavy", 0x9000, 2)
    assert [one["name"] for one in heavy["filters"] + light["filters"]] == ["first", "second", "third"]
    assert heavy["filters"][0]["weight"] == "0x0000000000000010"
    assert heavy["filters"][0]["conditions"] == [
        {"field": "ip_remote_address", "match": "equal", "value": "10.0.0.0/8"},
        {"field": "ip_remote_port", "match": "range", "value": [80, 90]},
    ]
    second = light["filters"][0]
    assert (second["action"], second["callout"], second["options"]) == (
        "callout_terminating",
        "sunny",
        {"n": 3},
    )
    assert layers["stream_v6"][0]["filters"][0]["conditions"][0]["value"] == "::ffff:10.0.0.0/104"
    assert layers["ale_auth_connect_v4"] == []
    assert [(one["name"], one["layer"]) for one in described["callouts"]] == [
        ("sunny", "stream_v4"),
        ("sunny", "stream_v6"),
    ]
    assert [one["weight"] for one in described["sublayers"]] == sorted(
        (one["weight"] for one in described["sublayers"]), reverse=True
    )


def test_text_is_in_the_order_of_asking(file: Path) -> None:
    lines = shown(str(file)).splitlines()
    assert lines[:6] == [
        "layer stream_v4",
        "  sublayer heavy (weight 0x9000)",
        "    0x0000000000000010  #3 first: block when ip_remote_address equal 10.0.0.0/8; ip_remote_port range 80-90",
        "  sublayer light (weight 0x0002)",
        '    0x3000000000000000  #1 second: callout_terminating sunny options {"n":3}',
        "    0x0000000000000000  #2 third: permit [clear_action_right]",
    ]
    assert "callouts" in lines


def test_nothing_is_a_plain_relay(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("")
    assert shown(str(tmp_path / "f.toml")) == "no filters: a plain relay\n"


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text(
        '[[filter]]\nname = "\\u001b[2J"\nlayer = "stream_v4"\naction = "permit"\n'
    )
    assert r"\x1b[2J: permit" in shown(str(tmp_path / "f.toml"))
