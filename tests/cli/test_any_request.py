"""Whatever the control socket is asked for: a result, or an error with a code, and the proxy works on."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.in_memory import InMemoryProxy
from wfpstream.cli._commands import make_commands
from wfpstream.control import ControlError

CONFIG = """
[[proxy.listener]]
name = "web"
upstream = "127.0.0.1:80"
[[rule]]
name = "lines"
callout = "framer,by=line"
"""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 20)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["web", "10.0.0.0/8", "1-2", "outbound", "::1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CALLOUTS = st.sampled_from(
    ["monitor", "banner,text=x", "web:framer,by=line", "nowhere:monitor", "framer", "monitor,log=9", "./x.py:Y", "os:X",
     "lines", "a\x00b", "banner,text=@/dev/null", "banner,text=@/", ",", ":", "stream_edit,find="]
)  # fmt: skip
WHEN = st.dictionaries(
    st.sampled_from(["listener", "remote_port", "remote_address", "local_port", "direction", "nonsense"]),
    JSON,
    max_size=2,
)
_FILTER = "[[filter]]\nname = '{}'\nlayer = 'stream'\naction = '{}'\n"
TOML = st.sampled_from(
    [
        "",
        "[[rule]]",
        "[[rule]]\ncallout = 'monitor'",
        "[proxy]",
        "x = ",
        _FILTER.format("f", "block"),
        _FILTER.format("g", "callout_unknown") + "callout = 'gone'\nsublayer = 'gone'",
        "[[sublayer]]\nname = 's'\nweight = 99999",
        "[[callout]]\nname = 'c'\nuse = 'nothing'",
        "\x00",
    ]
)
REQUESTS = st.one_of(
    st.tuples(
        st.sampled_from(["flows", "stats", "filters", "reload"]),
        st.dictionaries(st.text(max_size=5), JSON, max_size=1),
    ),
    st.tuples(st.sampled_from(["show", "abort"]), st.fixed_dictionaries({}, optional={"flow": JSON})),
    st.tuples(
        st.just("add-filter"),
        st.fixed_dictionaries(
            {},
            optional={
                "callout": CALLOUTS | JSON,
                "when": WHEN | JSON,
                "name": st.sampled_from(["a", "b", "lines", "", "\x1b"]) | JSON,
                "toml": TOML | JSON,
            },
        ),
    ),
    st.tuples(st.just("add-filter"), st.fixed_dictionaries({"callout": CALLOUTS, "when": WHEN})),
    st.tuples(st.just("add-filter"), st.fixed_dictionaries({"toml": TOML})),
    st.tuples(
        st.just("delete-filter"),
        st.fixed_dictionaries(
            {"filter": st.integers(0, 40) | JSON}, optional={"drain": st.booleans() | JSON}
        ),
    ),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("config") / "f.toml"
    found.write_text(CONFIG)
    return found


@given(st.lists(REQUESTS, max_size=8))
@settings(max_examples=60)
def test_any_request(file: Path, requests: list[tuple[str, dict[str, Any]]]) -> None:
    proxy = InMemoryProxy(file)
    commands = make_commands(proxy)
    ends = proxy.connect()
    ends.send(b"half")

    async def carry_out(name: str, arguments: dict[str, Any]) -> ControlError | None:
        try:
            result = commands[name](arguments)
            msgspec.json.encode(await result if inspect.isawaitable(result) else result)
        except ControlError as error:
            return error
        return None

    async def main() -> None:
        for name, arguments in requests:
            error = await carry_out(name, arguments)
            assert error is None or error.code in ("usage", "failed")
            proxy.driver.settle()
        for name in ("flows", "stats", "filters"):
            assert await carry_out(name, {}) is None

    trio.run(main)
    for one in (ends, proxy.connect()):
        if not one.ended:
            assert all(not one.ledger(direction).faults() for direction in (0, 1))
    proxy.driver.close()
