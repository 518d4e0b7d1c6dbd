"""Options of callouts: what a parameter takes, and turning raw values (command line, TOML) into it.

Owns the units (sizes, times, rates, text), the reading of a class's `__init__` into a list of options, and
the one-line errors that name option, value and what was expected. It must not know any callout, nor where a
raw value came from.
"""

from __future__ import annotations

import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin


class OptionError(ValueError):
    """An option that cannot be used; the text is one line and says what was expected."""


@dataclass(frozen=True, slots=True)
class OptionKind:
    """What an option takes.

    Attributes:
        name: for lists of options: `size`, `text`, `a|b`.
        expected: for errors: "a time such as 250ms, 1.5s or 2m".
        read: turns a raw value into it; raises ValueError for anything else.
    """

    name: str
    expected: str
    read: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class OptionInfo:
    """One option of a callout class.

    Attributes:
        name: as written on the command line and in TOML (`for`, not `for_`).
        parameter: the parameter of `__init__`.
        type: name of the type for people.
        required: no default.
        default: the default, in a form JSON can carry; None if there is none.
        doc: one line from the `Args:` section of the docstring.
    """

    name: str
    parameter: str
    type: str
    required: bool
    default: object
    doc: str


_BYTES = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base**power
    for power, letters in enumerate(("kK", "M", "G", "T"), start=1)
    for letter in letters
    for suffix, base in (("", 1000), ("B", 1000), ("iB", 1024))
}
_SECONDS = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")
_RATE_ENDS = (("/s", 1.0), ("ps", 1.0), ("/m", 60.0), ("/h", 3600.0))


def parse_size(value: object) -> int:
    """Bytes, from a number of bytes or a text such as `64KiB` (1024s), `64kB` (1000s) or `1.5MiB`.

    Raises:
        ValueError: it is neither, or negative.
    """
    return round(_scaled(value, _BYTES))


def parse_time(value: object) -> float:
    """Seconds, from a number of seconds or a text such as `250ms`, `10s`, `5m`.

    Raises:
        ValueError: it is neither, or negative.
    """
    return _scaled(value, _SECONDS)


def parse_rate(value: object) -> float:
    """Bytes per second, from a number or a text such as `1MiB/s`, `64kB/s`, `600/m`.

    Raises:
        ValueError: it is neither, or negative.
    """
    if isinstance(value, str):
        for end, seconds in _RATE_ENDS:
            if value.rstrip().endswith(end):
                return _scaled(value.rstrip()[: -len(end)], _BYTES) / seconds
    return _scaled(value, _BYTES)


def as_bytes(value: object) -> bytes:
    """Bytes as they are, text by UTF-8.

    Raises:
        ValueError: it is neither. Numbers are refused: `0x41` or `1e3` would have lost their spelling.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise ValueError("not text")


def _scaled(value: object, units: Mapping[str, float]) -> float:
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value)
        if match is None or match[2] not in units:
            raise ValueError("unknown form or unit")
        return float(match[1]) * units[match[2]]
    number = _read_number(value)
    if not 0 <= number < math.inf:
        raise ValueError("negative or not finite")
    return number


def _read_number(value: object) -> float:
    if isinstance(value, str):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return float(value)


def _read_int(value: object) -> int:
    if isinstance(value, str):
        return int(value, 0)
    number = _read_number(value)
    if number != int(number):
        raise ValueError("not whole")
    return int(number)


def _read_bool(value: object) -> bool:
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str):
        if value.lower() not in words:
            raise ValueError("not a truth value")
        return words[value.lower()]
    if not isinstance(value, bool):
        raise ValueError("not a truth value")
    return value


def _read_str(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    if not isinstance(value, str):
        raise ValueError("not text")
    return value


TEXT = OptionKind("text", 'text (a number needs quotes: "80")', as_bytes)
SIZE = OptionKind("size", "a size such as 512, 64KiB or 1.5MiB", parse_size)
TIME = OptionKind("time", "a time such as 250ms, 1.5s or 2m", parse_time)
RATE = OptionKind("rate", "a rate such as 1MiB/s, 64kB/s or 1200 (bytes per second)", parse_rate)

# A parameter annotated with one of these takes the number (or the bytes) and the text form alike.
Text = Annotated[bytes | str, TEXT]
Size = Annotated[int | str, SIZE]
Time = Annotated[float | str, TIME]
Rate = Annotated[float | str, RATE]

_PLAIN = {
    int: OptionKind("int", "a whole number", _read_int),
    float: OptionKind("float", "a number", _read_number),
    bool: OptionKind("bool", "true or false", _read_bool),
    str: OptionKind("str", 'text (a number needs quotes: "80")', _read_str),
    bytes: TEXT,
}
_ANYTHING = OptionKind("any", "any value", lambda value: value)
_LISTS: dict[object, Callable[[list[object]], object]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
    Collection: list,
}


def kind_of(hint: object) -> OptionKind:
    """What a parameter with this annotation takes; an annotation of no known form takes anything."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return next((extra for extra in args[1:] if isinstance(extra, OptionKind)), None) or kind_of(args[0])
    if origin is Literal:
        return _choice(args)
    if origin in (typing.Union, types.UnionType):
        return _either(args)
    if hint in _LISTS or origin in _LISTS:
        return _list(_LISTS[origin or hint], kind_of(args[0]) if args else _ANYTHING)
    if isinstance(hint, type):
        return _PLAIN.get(hint, _ANYTHING)
    return _ANYTHING


def _choice(choices: tuple[object, ...]) -> OptionKind:
    def read(value: object) -> object:
        for choice in choices:
            if value == choice and type(value) is type(choice):
                return choice
        raise ValueError("no such choice")

    names = [str(choice) for choice in choices]
    return OptionKind("|".join(names), "one of " + ", ".join(names), read)


def _either(members: tuple[object, ...]) -> OptionKind:
    kinds = [kind_of(member) for member in members if member is not type(None)]
    optional = len(kinds) < len(members)

    def read(value: object) -> object:
        if value is None and optional:
            return None
        for kind in kinds:
            try:
                return kind.read(value)
            except ValueError:
                continue
        raise ValueError("fits no member")

    names = dict.fromkeys(kind.name for kind in kinds)
    return OptionKind(" or ".join(names), ", or ".join(dict.fromkeys(k.expected for k in kinds)), read)


def _list(build: Callable[[list[object]], object], kind: OptionKind) -> OptionKind:
    def read(value: object) -> object:
        many = value if isinstance(value, list | tuple | set | frozenset) else [value]
        return build([kind.read(one) for one in many])

    return OptionKind(f"list of {kind.name}", f"a list; each {kind.expected}", read)


def options_of(cls: type) -> list[OptionInfo]:
    """The options of a callout class: the parameters of its `__init__`, in order."""
    docs = _documented(inspect.getdoc(cls) or "")
    return [
        OptionInfo(
            name=option_name(parameter.name),
            parameter=parameter.name,
            type=kind_of(parameter.annotation).name,
            required=parameter.default is parameter.empty,
            default=_plain_default(parameter.default),
            doc=docs.get(parameter.name, ""),
        )
        for parameter in _parameters(cls)
    ]


def option_name(parameter: str) -> str:
    """`for_` is written `for`: a keyword of Python cannot be a parameter."""
    return parameter.removesuffix("_")


def convert_options(callout: str, cls: type, raw: Mapping[str, object]) -> dict[str, Any]:
    """Turn raw option values into keyword arguments for `cls`.

    Args:
        callout: its name, for errors.
        cls: the callout class.
        raw: text, numbers, truth values, bytes and lists of them, by option name.

    Raises:
        OptionError: an unknown or missing option, or a value of another kind.
    """
    parameters = {option_name(parameter.name): parameter for parameter in _parameters(cls)}
    converted: dict[str, Any] = {}
    for name, value in raw.items():
        parameter = parameters.get(name) or parameters.get(name.replace("-", "_"))
        if parameter is None:
            raise OptionError(f"{callout}: {_unknown(name, list(parameters))}")
        kind = kind_of(parameter.annotation)
        try:
            converted[parameter.name] = kind.read(value)
        except ValueError as error:
            raise OptionError(f"{callout}: option {name}={value!r}: expected {kind.expected}") from error
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.name not in converted
    ]
    if missing:
        raise OptionError(f"{callout}: option {missing[0]} is missing; options: {', '.join(parameters)}")
    return converted


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    listed = f"; options: {', '.join(known)}" if known else "; it takes no options"
    return f"no option {name}{hint}{listed}"


def _parameters(cls: type) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(cls, eval_str=True)
    except (NameError, TypeError):  # an annotation that exists for type checkers only
        signature = inspect.signature(cls)
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter for parameter in signature.parameters.values() if parameter.kind in named]


def _plain_default(default: object) -> object:
    if default is inspect.Parameter.empty:
        return None
    if isinstance(default, bytes):
        return default.decode("utf-8", "backslashreplace")
    if isinstance(default, tuple | set | frozenset | list):
        return [_plain_default(one) for one in default]
    return default if default is None or isinstance(default, str | int | float) else repr(default)


_ARGS = re.compile(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", re.MULTILINE)
_ARG = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:\s*(.*)$")


def _documented(doc: str) -> dict[str, str]:
    """The `Args:` section of a docstring, by parameter."""
    section = _ARGS.search(doc)
    if section is None:
        return {}
    lines = [line for line in section[1].splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        match = _ARG.match(line[margin:])
        if match is not None:
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
