r"""The CALLOUT string of the command line and of `[[rule]]`: `[LISTENER:]NAME[,key=value]...`.

Owns its grammar only: which callouts there are, and what type an option has, is the callouts room's.
A value is a TOML value if it parses as one, else plain text in which `\n \r \t \\ \, \xHH` are understood;
`key=@FILE` is the bytes of a file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path

from wfpstream.config._errors import ConfigError
from wfpstream.config._positions import end_of_string

EXAMPLE = "stream_edit,find=rainy,replace=sunny"

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\", ",": b","}
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class CalloutText:
    """What a CALLOUT string says.

    Args:
        name: a built-in or entry-point name, `package.module:Class`, or `./file.py:Class`.
        options: raw option values; TOML types, text, or bytes where text cannot say it.
        listener: the listener it is limited to, or empty.
    """

    name: str
    options: dict[str, object] = field(default_factory=dict)
    listener: str = ""


def parse_callout(text: str, listeners: Collection[str] = (), folder: Path | None = None) -> CalloutText:
    """Read a CALLOUT string.

    Args:
        text: the string.
        listeners: the names of the listeners there are; they decide what `NAME:OTHER` means where its form
            leaves it open (`web:monitor` or `module:Class`).
        folder: what a relative name after `@` starts from; absent: the current folder.

    Raises:
        ConfigError: it has another form, or a file it names cannot be read.
    """
    fields = _fields(text)
    head = _plain_text(next(fields), text)
    listener, name = _split_head(head, listeners)
    if not name:
        raise _error(text, "expected the name of a callout")
    options: dict[str, object] = {}
    for item in fields:
        key, equals, raw = item.partition("=")
        key = key.strip()
        if not equals or not _KEY.fullmatch(key):
            raise _error(text, f"expected key=value, got {item!r} (a comma inside a value is written \\,)")
        key = key.replace("-", "_")
        if key in options:
            raise _error(text, f"option {key} is given twice")
        options[key] = _value(raw, text, folder or Path())
    return CalloutText(name, options, listener)


def anchor_callout(text: str, folder: Path) -> str:
    """The same CALLOUT with relative file names begun at `folder`: for a process that has another current folder.

    Raises:
        ConfigError: it has another form.
    """
    begin = str(folder / "x")[:-1].replace("\\", r"\\").replace(",", r"\,")
    head, *options = _fields(text)
    first, colon, rest = head.partition(":")
    has_listener = ":" in rest and "." not in first and "/" not in first
    listener, name = (first + colon, rest) if has_listener else ("", head)
    place = name.rpartition(":")[0]
    if (place.endswith(".py") or "/" in place) and not place.startswith("/"):
        name = begin + name.removeprefix("./")
    anchored = [listener + name]
    for option in options:
        key, equals, raw = option.partition("=")
        if raw.startswith("@") and not raw.startswith("@/"):
            raw = f"@{begin}{raw[1:].removeprefix('./')}"
        anchored.append(key + equals + raw)
    return ",".join(anchored)


def _error(text: str, what: str) -> ConfigError:
    return ConfigError(f"callout {text!r}: {what}; example: {EXAMPLE}")


def _split_head(head: str, listeners: Collection[str]) -> tuple[str, str]:
    first, colon, rest = head.partition(":")
    if not colon:
        return "", head
    if "." in first or "/" in first:
        return "", head
    # A class name begins with a capital, the name of a callout does not; a listener's name beats both.
    if first in listeners or ":" in rest or not rest[:1].isupper():
        return first, rest
    return "", head


def _fields(text: str) -> Iterator[str]:
    """The parts between commas: not those of a TOML string, array or table, nor those after a backslash."""
    start = at = 0
    is_head = True
    while at < len(text):
        if text[at] == ",":
            yield text[start:at]
            start = at = at + 1
            is_head = False
        elif text[at] == "\\":
            at += 2
        elif text[at] == "=" and not is_head:
            at = _end_of_value(text, at + 1)
        else:
            at += 1
    yield text[start:]


def _end_of_value(text: str, start: int) -> int:
    """Where a bracketed or quoted TOML value ends; `start` for any other, whose commas then count."""
    at = start + len(text[start:]) - len(text[start:].lstrip(" "))
    end = _end_of_toml(text, at)
    if end is None:
        return start
    after = end + len(text[end:]) - len(text[end:].lstrip(" "))
    ends = after == len(text) or text[after] == ","
    return after if ends and _as_toml(text[at:end]) is not None else start


def _end_of_toml(text: str, at: int) -> int | None:
    end = end_of_string(text, at)
    if end is not None or text[at : at + 1] not in _CLOSING:
        return end
    expected = []
    while at < len(text):
        if text[at] in _CLOSING:
            expected.append(_CLOSING[text[at]])
        elif text[at] in ("]", "}"):
            if not expected or expected.pop() != text[at]:
                return None
            if not expected:
                return at + 1
        at = end_of_string(text, at) or at + 1
    return None


def _as_toml(raw: str) -> object:
    """The TOML value `raw` is, or None; dates are texts to us, and so are comments and line ends."""
    try:
        table = tomllib.loads(f"value = {raw}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return None
    value: object = table["value"]
    is_text = isinstance(value, str)
    if len(table) != 1 or isinstance(value, date | datetime | time) or ("#" in raw and not is_text):
        return None
    return value


def _value(raw: str, text: str, folder: Path) -> object:
    if raw.startswith("@"):
        return _read_file(folder / _plain_text(raw[1:], text), text)
    value = _as_toml(raw)
    return _plain(raw, text) if value is None else value


def _read_file(path: Path, text: str) -> bytes:
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _error(text, f"cannot read '{path}': {reason}") from error


def _plain_text(raw: str, text: str) -> str:
    value = _plain(raw, text)
    if isinstance(value, bytes):
        raise _error(text, f"{raw!r} is not text")
    return value


def _plain(raw: str, text: str) -> str | bytes:
    """Resolve the escapes; bytes if they make something that is no UTF-8."""
    parts: list[bytes] = []
    at = 0
    while at < len(raw):
        if raw[at] != "\\":
            end = raw.find("\\", at)
            end = len(raw) if end < 0 else end
            # Bytes of the command line that are no UTF-8 come in as surrogates.
            parts.append(raw[at:end].encode("utf-8", "surrogateescape"))
            at = end
            continue
        mark = raw[at + 1 : at + 2]
        digits = raw[at + 2 : at + 4]
        if mark in _ESCAPES:
            parts.append(_ESCAPES[mark])
            at += 2
        elif mark == "x" and re.fullmatch(r"[0-9A-Fa-f]{2}", digits):
            parts.append(bytes.fromhex(digits))
            at += 4
        else:
            known = r"\n \r \t \\ \, \xHH"
            raise _error(text, f"unknown escape {raw[at : at + 2]!r}; known: {known}")
    value = b"".join(parts)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
