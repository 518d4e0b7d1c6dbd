"""From a configuration to an engine's objects: names, weights, conditions, and every error in its place."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from wfpstream.config import (
    ConfigError,
    build_engine,
    engine_options,
    load_config,
    parse_callout,
    parse_config,
)
from wfpstream.engine import Attempt, Endpoints, EngineOptions, FilterEngine
from wfpstream.fwp import ActionType, MatchType, NtStatus
from wfpstream.fwpm import CONDITION_KEYS, LAYERS, Filter, SubLayer

LISTENERS = """
[[proxy.listener]]
name = "web"
upstream = "127.0.0.1:8080"
[[proxy.listener]]
name = "mail"
upstream = "127.0.0.1:25"
"""
FIELDS = {key: name for name, key in CONDITION_KEYS.items()}


def built(text: str, *callouts: str) -> FilterEngine:
    texts = [parse_callout(callout, ["web", "mail"]) for callout in callouts]
    return build_engine(parse_config(text, "f.toml"), texts)


def errors_of(text: str, *callouts: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        built(text, *callouts)
    return caught.value.lines()


def filters_of(engine: FilterEngine, layer: str = "stream_v4") -> list[Filter]:
    """The filters of a layer in the order of evaluation."""
    (key,) = (key for key, one in LAYERS.items() if one.name == layer)
    status, filters = engine.session.filter_enum(key)
    assert status.ok
    return filters


def sub_layers_of(engine: FilterEngine) -> dict[str, SubLayer]:
    status, sub_layers = engine.session.sub_layer_enum()
    assert status.ok
    return {one.display_data.name: one for one in sub_layers}


def conditions_of(filter_: Filter) -> list[tuple[str, str, Any]]:
    return [
        (FIELDS[one.field_key], MatchType(one.match_type).name.lower(), one.condition_value.value)
        for one in filter_.conditions
    ]


def attempt(engine: FilterEngine, port: int, client: str = "10.0.0.1", listener: str = "web") -> Attempt:
    server = "::1" if ":" in client else "127.0.0.1"
    return engine.connection_requested(
        Endpoints(
            client=(client, 40000),
            destination=(server, port),
            listener_address=(server, 7000),
            listener=listener,
        )
    )


def test_an_empty_configuration_is_a_plain_relay() -> None:
    engine = built("")
    assert all(not filters_of(engine, layer.name) for layer in LAYERS.values())


def test_the_command_line_is_asked_first_then_the_rules_each_in_order() -> None:
    text = """
    [[rule]]
    callout = "monitor"
    [[rule]]
    name = "second"
    callout = "framer"
    """
    engine = built(textwrap.dedent(text), "allow_after,bytes=1", "monitor,log=none")
    asked = [one.display_data.name for one in sub_layers_of(engine).values()]
    assert asked[:4] == ["--callout allow_after", "--callout monitor", "monitor", "second"]
    actions = {one.display_data.name: one.action_type for one in filters_of(engine)}
    assert actions["--callout monitor"] == actions["monitor"] == ActionType.CALLOUT_INSPECTION
    assert actions["second"] == ActionType.CALLOUT_UNKNOWN


def test_a_callout_has_a_filter_at_each_layer_it_serves() -> None:
    engine = built('[[rule]]\ncallout = "monitor"')
    served = [layer.name for layer in LAYERS.values() if filters_of(engine, layer.name)]
    assert served == ["stream_v4", "stream_v6", "ale_flow_established_v4", "ale_flow_established_v6"]


def test_one_object_for_all_rules_that_name_it() -> None:
    text = """
    [[callout]]
    name = "watch"
    use = "monitor"
    [[rule]]
    callout = "watch"
    when = { remote_port = 80 }
    [[rule]]
    callout = "watch"
    when = { remote_port = 443 }
    [[rule]]
    callout = "monitor"
    """
    keys = [one.callout_key for one in filters_of(built(textwrap.dedent(text)))]
    assert keys[0] == keys[1] != keys[2]


def test_when() -> None:
    text = """
    [[rule]]
    callout = "monitor"
    when = { listener = ["web", "mail"], remote_port = [80, "1000-2000"], local_address = "10.0.0.0/8", \
direction = "outbound" }
    """
    engine = built(LISTENERS + textwrap.dedent(text))
    v4, v6 = (conditions_of(filters_of(engine, layer)[0]) for layer in ("stream_v4", "stream_v6"))
    assert [(field, match) for field, match, _ in v4] == [
        ("listener", "equal"),
        ("listener", "equal"),
        ("ip_remote_port", "equal"),
        ("ip_remote_port", "range"),
        ("ip_local_address", "equal"),
        ("direction", "equal"),
    ]
    assert (v4[4][2].addr, v4[4][2].mask) == (0x0A000000, 0xFF000000)
    # An IPv4 address reaches the IPv6 layers as a mapped one (LAY-10).
    assert (v6[4][2].addr[10:13], v6[4][2].prefix_length) == (b"\xff\xff\x0a", 104)


def test_an_ipv6_address_makes_no_filter_at_the_ipv4_layers() -> None:
    engine = built('[[rule]]\ncallout = "monitor"\nwhen = { remote_address = ["fe80::/10", "::1"] }')
    assert not filters_of(engine, "stream_v4")
    assert len(conditions_of(filters_of(engine, "stream_v6")[0])) == 2


def test_a_rule_of_one_listener() -> None:
    for text in ('callout = "web:monitor"', 'callout = "monitor"\nwhen = { listener = "web" }'):
        conditions = conditions_of(filters_of(built(f"{LISTENERS}[[rule]]\n{text}"))[0])
        assert conditions == [("listener", "equal", "web")]
    engine = built(LISTENERS, "mail:monitor")
    assert conditions_of(filters_of(engine)[0]) == [("listener", "equal", "mail")]


LONG = """
[[sublayer]]
name = "light"
weight = 1
[[sublayer]]
name = "heavy"
weight = 0xFFF0
[[callout]]
name = "sunny"
use = "stream_edit"
options = { find = "rainy", replace = "sunny" }
[[filter]]
name = "automatic"
layer = "stream_v4"
sublayer = "light"
action = "callout_unknown"
callout = "sunny"
options = { n = 3 }
[[filter]]
name = "range"
layer = "stream_v4"
sublayer = "light"
action = "permit"
weight = 15
[[filter]]
name = "exact"
layer = "stream_v4"
sublayer = "heavy"
action = "block"
weight64 = "0xF000000000000001"
"""


def test_the_long_form() -> None:
    exact, in_range, automatic = filters_of(built(LONG))
    assert [one.display_data.name for one in (exact, in_range, automatic)] == ["exact", "range", "automatic"]
    assert exact.effective_weight.value == 0xF000000000000001
    assert in_range.effective_weight.value >> 60 == 15
    assert automatic.effective_weight.value >> 60 == 0
    assert automatic.provider_object == {"n": 3}
    assert exact.action_type == ActionType.BLOCK


@pytest.mark.parametrize(
    ("condition", "blocked", "passed"),
    [
        ("field = 'ip_remote_port'\nvalue = 25", (25, "10.0.0.1"), (26, "10.0.0.1")),
        ("field = 'ip_remote_port'\nmatch = 'range'\nvalue = '20-30'", (30, "::1"), (31, "::1")),
        ("field = 'ip_remote_port'\nmatch = 'range'\nvalue = [20, 30]", (20, "10.0.0.1"), (19, "10.0.0.1")),
        ("field = 'ip_remote_port'\nmatch = 'greater'\nvalue = 1023", (1024, "::1"), (1023, "::1")),
        ("field = 'ip_local_address'\nvalue = '10.0.0.0/8'", (1, "10.9.9.9"), (1, "11.0.0.1")),
        ("field = 'ip_local_address'\nvalue = '10.0.0.1/32'", (1, "10.0.0.1"), (1, "10.0.0.2")),
        (
            "field = 'ip_local_address'\nmatch = 'not_equal'\nvalue = '10.0.0.1'",
            (1, "10.0.0.2"),
            (1, "10.0.0.1"),
        ),
        ("field = 'ip_local_address'\nmatch = 'not_equal'\nvalue = '::1'", (1, "10.0.0.2"), (1, "::1")),
        (
            "field = 'ip_local_address'\nmatch = 'range'\nvalue = '10.0.0.1-10.0.0.9'",
            (1, "10.0.0.9"),
            (1, "::2"),
        ),
        ("field = 'ip_local_address'\nvalue = 'fe80::/10'", (1, "fe80::1"), (1, "10.0.0.1")),
        ("field = 'flags'\nmatch = 'flags_all_set'\nvalue = 'is_loopback'", (1, "::1"), (1, "10.0.0.1")),
        ("field = 'flags'\nmatch = 'flags_any_set'\nvalue = ['is_loopback']", (1, "127.0.0.1"), (1, "::2")),
        ("field = 'ip_protocol'\nvalue = 'tcp'", (1, "10.0.0.1"), None),
        ("field = 'ip_protocol'\nmatch = 'not_equal'\nvalue = 6", None, (1, "10.0.0.1")),
        ("field = 'listener'\nmatch = 'equal_case_insensitive'\nvalue = 'WEB'", (1, "10.0.0.1"), None),
        ("field = 'listener'\nvalue = 'mail'", None, (1, "10.0.0.1")),
    ],
)
def test_conditions_decide(
    condition: str, blocked: tuple[int, str] | None, passed: tuple[int, str] | None
) -> None:
    text = f"[[filter]]\nname = 'f'\nlayer = 'ale_auth_connect'\naction = 'block'\n[[filter.condition]]\n{condition}"
    engine = built(LISTENERS + text)
    if blocked is not None:
        assert attempt(engine, *blocked).verdict == "block"
    if passed is not None:
        assert attempt(engine, *passed).verdict == "permit"


def test_a_callout_in_a_file_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from wfpstream.fwps import Callout\n"
        "class Mine(Callout):\n"
        "    def __init__(self, text: bytes, count: int = 1) -> None:\n"
        "        self.text = text\n"
    )
    (tmp_path / "word").write_bytes(b"\xff")
    (tmp_path / "f.toml").write_text('[[rule]]\ncallout = "./mine.py:Mine,text=@word"\n')
    engine = build_engine(load_config(tmp_path / "f.toml"))
    assert filters_of(engine)[0].display_data.name == "./mine.py:Mine,text=@word"


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (
            "[[rule]]\ncallout = 'moniter'",
            ["f.toml:2: rule[0].callout: no callout 'moniter'; did you mean monitor?"],
        ),
        (
            "[[rule]]\ncallout = 'stream_edit,fnd=x'",
            ["f.toml:2: rule[0].callout: stream_edit: no option fnd; did you mean find?"],
        ),
        (
            "[[rule]]\ncallout = 'stream_edit'",
            ["f.toml:2: rule[0].callout: stream_edit: option find is missing"],
        ),
        (
            "[[rule]]\ncallout = 'monitor,x'",
            ["f.toml:2: rule[0].callout: callout 'monitor,x': expected key=value"],
        ),
        (
            LISTENERS + "[[rule]]\ncallout = 'wab:monitor'",
            ['f.toml:9: rule[0].callout: no listener is named "wab"; did you mean "web"?'],
        ),
        (
            LISTENERS + "[[rule]]\ncallout = 'monitor'\nwhen = { listener = ['web', 'x'] }",
            ['f.toml:10: rule[0].when.listener[1]: no listener is named "x"; known: mail, web'],
        ),
        (
            LISTENERS + "[[rule]]\ncallout = 'web:monitor'\nwhen = { listener = 'mail' }",
            ["f.toml:10: rule[0].when.listener: the callout names its listener already"],
        ),
        (
            "[[rule]]\ncallout = 'monitor'\nwhen = { remote_port = [] }",
            ["f.toml:3: rule[0].when.remote_port: expected at least one value"],
        ),
        (
            "[[rule]]\ncallout = 'monitor'\nwhen = { remote_port = 70000 }",
            ["f.toml:3: rule[0].when.remote_port: UINT16 70000 is not within 0..65535"],
        ),
        (
            "[[rule]]\ncallout = 'monitor'\nwhen = { remote_port = '9-1' }",
            ["f.toml:3: rule[0].when.remote_port: range from 9 down to 1"],
        ),
        (
            "[[rule]]\ncallout = 'monitor'\nwhen = { remote_port = 'http' }",
            ["f.toml:3: rule[0].when.remote_port: expected a number for ip_remote_port"],
        ),
        (
            "[[rule]]\ncallout = 'monitor'\nwhen = { local_address = '10.0.0.1/8' }",
            ["f.toml:3: rule[0].when.local_address: expected an address or a network such as"],
        ),
        (
            "[[callout]]\nname = 'a'\nuse = 'monitor'\n[[callout]]\nname = 'a'\nuse = 'monitor'",
            ['f.toml:5: callout[1].name: there is a callout "a" already'],
        ),
        (
            "[[sublayer]]\nname = 'universal'\nweight = 1",
            ['f.toml:2: sublayer[0].name: there is a sublayer "universal" already'],
        ),
        (
            "[[proxy.listener]]\nname = 'a'\nlisten = 'x'\n[[proxy.listener]]\nname = 'a'\nupstream = 'h:0'",
            [
                "f.toml:1: proxy.listener[0]: mode reverse needs an upstream, HOST:PORT",
                "f.toml:3: proxy.listener[0].listen: expected HOST:PORT, got 'x'",
                'f.toml:5: proxy.listener[1].name: there is a listener "a" already',
                "f.toml:6: proxy.listener[1].upstream: expected a port from 1 to 65535, got 0",
            ],
        ),
        (
            "[[proxy.listener]]\nmode = 'redirect'\nupstream = 'h:1'",
            ["f.toml:1: proxy.listener[0]: mode redirect takes no upstream"],
        ),
    ],
)
def test_errors(text: str, errors: list[str]) -> None:
    lines = errors_of(text)
    assert len(lines) == len(errors), lines
    for line, error in zip(lines, errors, strict=True):
        assert line.startswith(error)


BASE = (
    "[[callout]]\nname = 'c'\nuse = 'framer'\n[[sublayer]]\nname = 's'\nweight = 1\n[[filter]]\nname = 'f'\n"
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "layer = 'straem'\naction = 'permit'",
            'f.toml:9: filter[0].layer: no layer "straem"; did you mean "stream"?',
        ),
        ("layer = 'stream'\naction = 'callout_unknown'", "f.toml:7: filter[0]: callout is missing"),
        (
            "layer = 'stream'\naction = 'permit'\ncallout = 'c'",
            "f.toml:11: filter[0].callout: action permit takes no",
        ),
        (
            "layer = 'stream'\naction = 'callout_unknown'\ncallout = 'd'",
            'f.toml:11: filter[0].callout: no [[callout]] is named "d"; known: c',
        ),
        (
            "layer = 'stream'\naction = 'callout_unknown'\ncallout = 'c'",
            "f.toml:7: filter[0]: sublayer is missing",
        ),
        (
            "layer = 'stream'\naction = 'callout_unknown'\ncallout = 'c'\nsublayer = 't'",
            'f.toml:12: filter[0].sublayer: no [[sublayer]] is named "t"; known: inspection, s, universal',
        ),
        (
            "layer = 'ale_auth_connect'\naction = 'callout_unknown'\ncallout = 'c'\nsublayer = 's'",
            'f.toml:9: filter[0].layer: callout "c" does not serve layer ale_auth_connect; it serves stream',
        ),
        (
            "layer = 'stream'\naction = 'permit'\nweight = 1\nweight64 = '2'",
            "f.toml:12: filter[0].weight64: weight and weight64 exclude each other",
        ),
        (
            "layer = 'stream'\naction = 'permit'\nweight64 = '99999999999999999999'",
            "f.toml:11: filter[0].weight64: expected at most 0xFFFFFFFFFFFFFFFF",
        ),
        (
            "layer = 'stream'\naction = 'permit'\n[[filter.condition]]\nfield = 'ip_remote_prt'\nvalue = 1",
            'f.toml:11: filter[0].condition[0]: no field "ip_remote_prt"; did you mean "ip_remote_port"?',
        ),
        (
            "layer = 'stream'\naction = 'permit'\n[[filter.condition]]\nfield = 'ip_protocol'\nvalue = 6",
            "f.toml:11: filter[0].condition[0]: layer stream does not offer ip_protocol; it offers",
        ),
        (
            "layer = 'stream'\naction = 'permit'\n[[filter.condition]]\nfield = 'ip_remote_port'\nvalue = '1-2'",
            'f.toml:11: filter[0].condition[0]: a range needs match = "range"',
        ),
        (
            "layer = 'stream'\naction = 'permit'\n[[filter.condition]]\nfield = 'direction'\nvalue = 'up'",
            'f.toml:11: filter[0].condition[0]: expected "outbound" or "inbound"',
        ),
        (
            "layer = 'stream_v4'\naction = 'permit'\n[[filter.condition]]\nfield = 'ip_local_address'\nvalue = '::1'",
            "f.toml:7: filter[0]: no flow can meet its conditions at its layer",
        ),
        (
            "layer = 'stream'\naction = 'permit'\npermit_if_callout_unregistered = true",
            "f.toml:7: filter[0]: filter_add was refused: STATUS_FWP_INVALID_FLAGS",
        ),
        (
            "layer = 'stream'\naction = 'permit'\n[[filter.condition]]\nfield = 'ip_remote_port'\n"
            "match = 'prefix'\nvalue = 6",
            "f.toml:7: filter[0]: filter_add was refused: STATUS_FWP_MATCH_TYPE_MISMATCH",
        ),
    ],
)
def test_filter_errors(text: str, error: str) -> None:
    (line,) = errors_of(BASE + text)
    assert line.startswith(error)


def test_what_refers_to_something_wrong_is_not_wrong_as_well() -> None:
    text = BASE.replace("framer", "framr") + "layer = 'stream'\naction = 'callout_unknown'\ncallout = 'c'"
    (line,) = errors_of(text + "\n[[rule]]\ncallout = 'c'")
    assert line.startswith("f.toml:1: callout[0]: no callout 'framr'")


def test_a_layer_that_the_profile_does_not_have() -> None:
    text = "[engine]\nprofile = 'vista'\n[[filter]]\nname = 'f'\nlayer = 'ale_connect_redirect'\naction = 'block'"
    assert errors_of(text) == [
        'f.toml:5: filter[0].layer: layer "ale_connect_redirect" does not exist in profile vista'
    ]


def test_errors_of_the_command_line_have_no_place() -> None:
    (line,) = errors_of("", "moniter")
    assert line.startswith("f.toml: no callout 'moniter'")


def test_nothing_is_left_of_a_transaction_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    engines: list[FilterEngine] = []

    def made(*args: Any) -> FilterEngine:
        engines.append(FilterEngine(*args))
        return engines[-1]

    monkeypatch.setattr("wfpstream.config._deploy.FilterEngine", made)
    text = LONG + "permit_if_callout_unregistered = true\n"
    errors_of(text)
    (engine,) = engines
    assert not filters_of(engine)
    assert "light" not in sub_layers_of(engine)
    assert engine.session.callout_enum() == (NtStatus.STATUS_SUCCESS, [])
    assert engine.fwps.callouts.registered() == []


def test_settings_have_the_defaults_of_the_engine_but_for_live_ones() -> None:
    expected = EngineOptions()
    expected.timeouts.stuck = 60.0  # live; off in memory and replay
    assert engine_options(parse_config("").config) == expected


def test_settings() -> None:
    text = """
    [limits]
    unsent = "64KiB"
    injected = 5
    pended = "1.5MB"
    deferred = "1k"
    flows = 7
    [timeouts]
    connect = "250ms"
    idle = "2m"
    turn = 0.5
    stuck = 0
    [policy]
    on_limit = "bypass"
    [engine]
    profile = "win7"
    need_more_mode = "additional"
    callbacks_per_turn = 9
    [verify]
    level = "strict"
    callback_budget = "1ms"
    """
    options = engine_options(parse_config(textwrap.dedent(text)).config)
    assert (options.limits.unsent, options.limits.injected, options.limits.pended) == (65536, 5, 1_500_000)
    assert (options.limits.deferred, options.limits.flows) == (1000, 7)
    assert (options.timeouts.connect, options.timeouts.idle) == (0.25, 120.0)
    assert (options.timeouts.turn, options.timeouts.stuck) == (0.5, 0.0)
    assert options.policy.on_limit == "bypass"
    assert (options.profile, options.need_more_mode, options.callbacks_per_turn) == ("win7", "additional", 9)
    assert (options.verify.level, options.verify.callback_budget) == ("strict", 0.001)
