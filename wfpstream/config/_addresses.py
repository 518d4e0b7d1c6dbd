"""`HOST:PORT` and the SPEC of `--mode`, read from text.

Owns their grammar; resolves no names and opens no sockets.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from wfpstream.config._errors import ConfigError
from wfpstream.config._model import Listener

EXAMPLE = "--mode reverse:127.0.0.1:6379@127.0.0.1:7000"

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_MODES = ("reverse", "redirect", "tproxy")


def parse_address(text: str, *, default_host: str | None = None) -> tuple[str, int]:
    """(host, port) from `HOST:PORT`, `[IPV6]:PORT` or, with a default host, `PORT` alone.

    Raises:
        ValueError: it has another form; the text says what was expected.
    """
    plain = text.removeprefix("tcp://")
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:\[\]]*)):(\d+)|(\d+)", plain, re.ASCII)
    if match is None:
        hint = " (an IPv6 address stands in brackets)" if plain.count(":") > 1 and "[" not in plain else ""
        raise ValueError(f"expected HOST:PORT, got {text!r}{hint}")
    in_brackets, host, port, only_port = match.groups()
    if in_brackets is not None:
        host = _ipv6(in_brackets)
    if not host:
        if default_host is None:
            raise ValueError(f"expected HOST:PORT, got {text!r} without a host")
        host = default_host
    number = int(port or only_port)
    if number > 65535:
        raise ValueError(f"a port is at most 65535, got {number}")
    return host, number


def _ipv6(text: str) -> str:
    address, _, scope = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise ValueError(f"expected an IPv6 address in the brackets, got {text!r}") from None
    return f"{address}%{scope}" if scope else address


def format_address(host: str, port: int) -> str:
    """`HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_mode(text: str) -> Listener:
    """Read a SPEC: `[NAME=]reverse:HOST:PORT[@[HOST:]PORT]`, `[NAME=]redirect@HOST:PORT`, or with tproxy.

    Raises:
        ConfigError: it has another form.
    """
    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = "", text
    elif not _NAME.fullmatch(name):
        raise _error(text, f"the name of a listener has letters, digits, '_', '-' and '.', not {name!r}")
    mode = re.match(r"[a-z]*", rest)
    kind = mode[0] if mode else ""
    if kind not in _MODES:
        raise _error(text, f"expected one of {', '.join(_MODES)}")
    rest = rest[len(kind) :]
    try:
        return _reverse(name, rest) if kind == "reverse" else _transparent(name, kind, rest)
    except ValueError as error:
        raise _error(text, str(error)) from None


def _reverse(name: str, rest: str) -> Listener:
    if not rest.startswith(":"):
        raise ValueError("expected reverse:HOST:PORT[@[HOST:]PORT]")
    upstream, at, listen = rest[1:].partition("@")
    host, port = parse_address(upstream)
    if port == 0:
        raise ValueError("the upstream's port cannot be 0")
    address = parse_address(listen, default_host="127.0.0.1") if at else ("127.0.0.1", 0)
    return Listener(
        name=name, mode="reverse", listen=format_address(*address), upstream=format_address(host, port)
    )


def _transparent(name: str, kind: str, rest: str) -> Listener:
    if not rest.startswith("@"):
        raise ValueError(f"expected {kind}@HOST:PORT")
    mode: Literal["redirect", "tproxy"] = "redirect" if kind == "redirect" else "tproxy"
    return Listener(name=name, mode=mode, listen=format_address(*parse_address(rest[1:])))


def _error(text: str, what: str) -> ConfigError:
    return ConfigError(f"mode {text!r}: {what}; example: {EXAMPLE}")
