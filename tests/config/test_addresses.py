"""HOST:PORT and the SPEC of --mode."""

from __future__ import annotations

import pytest

from wfpstream.config import ConfigError, Listener, format_address, parse_address, parse_mode


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:8080", ("::1", 8080)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
        ("tcp://db.example:5432", ("db.example", 5432)),
        ("7000", ("0.0.0.0", 7000)),
        (":7000", ("0.0.0.0", 7000)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text, default_host="0.0.0.0") == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected HOST:PORT"),
        ("host", "expected HOST:PORT"),
        ("80", "without a host"),
        (":80", "without a host"),
        ("host:", "expected HOST:PORT"),
        ("host:80x", "expected HOST:PORT"),
        ("host:٣", "expected HOST:PORT"),
        ("host:65536", "at most 65535"),
        ("::1:80", "stands in brackets"),
        ("[::1]", "expected HOST:PORT"),
        ("[host]:80", "expected an IPv6 address in the brackets"),
    ],
)
def test_bad_addresses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_address(text)


def test_addresses_are_written_as_they_are_read() -> None:
    for text in ("127.0.0.1:80", "[::1]:8080"):
        assert format_address(*parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("reverse:127.0.0.1:6379", Listener(upstream="127.0.0.1:6379")),
        ("reverse:tcp://h:1@7000", Listener(upstream="h:1", listen="127.0.0.1:7000")),
        ("reverse:h:1@0.0.0.0:7000", Listener(upstream="h:1", listen="0.0.0.0:7000")),
        ("reverse:[::1]:1@[::]:2", Listener(upstream="[::1]:1", listen="[::]:2")),
        ("redis=reverse:h:1", Listener(name="redis", upstream="h:1")),
        ("redirect@127.0.0.1:9", Listener(mode="redirect", listen="127.0.0.1:9")),
        ("t=tproxy@[::]:9", Listener(name="t", mode="tproxy", listen="[::]:9")),
    ],
)
def test_modes(text: str, listener: Listener) -> None:
    assert parse_mode(text) == listener


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected one of reverse, redirect, tproxy"),
        ("revers:h:1", "expected one of reverse"),
        ("reverse", r"expected reverse:HOST:PORT"),
        ("reverse:h", "expected HOST:PORT, got 'h'"),
        ("reverse:h:0", "cannot be 0"),
        ("reverse:h:1@", "expected HOST:PORT, got ''"),
        ("redirect", "expected redirect@HOST:PORT"),
        ("redirect@80", "without a host"),
        ("a b=reverse:h:1", "the name of a listener"),
        ("=reverse:h:1", "the name of a listener"),
    ],
)
def test_bad_modes_print_a_working_example(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_mode(text)
    _, _, example = str(caught.value).partition("example: --mode ")
    assert parse_mode(example).upstream
