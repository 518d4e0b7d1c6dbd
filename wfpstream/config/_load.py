"""TOML text to the Structs of the file format, finding everything that is wrong at once.

msgspec stops at the first error and knows no lines, so the shape is checked here, key by key, and msgspec
converts what passed. What only the other tables can tell (a name that is not there) is `_check`'s.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import msgspec

from wfpstream.config._errors import ConfigError, KeyPath, Problem, did_you_mean
from wfpstream.config._model import Config
from wfpstream.config._positions import find_lines, line_of


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A configuration and where it stands.

    Args:
        config: what the file says.
        source: the file's name, for messages.
        folder: what relative names in it start from.
        text: what it was decoded from; for messages, which name lines.
    """

    config: Config
    source: str = ""
    folder: Path = field(default_factory=Path)
    text: str = field(default="", repr=False)

    def says(self, *path: str) -> bool:
        """Whether the file itself has that key, rather than its default."""
        return path in find_lines(self.text)

    def error(self, problems: list[Problem]) -> ConfigError:
        """The exception for `problems`, with their lines, in the order of the file."""
        lines = find_lines(self.text)
        placed = [Problem(problem.path, problem.text, line_of(lines, problem.path)) for problem in problems]
        return ConfigError(sorted(placed, key=lambda problem: problem.line or 0), self.source)


# Some 100,000 rules. Decoding as much takes seconds already, in which a running proxy does nothing else.
MAX_SIZE = 8 << 20
_DEEPEST = 32
_TOO_DEEP = f"lists and tables are nested deeper than {_DEEPEST} levels"


def load_config(path: str | os.PathLike[str], *, again: bool = False) -> LoadedConfig:
    """Read and decode a configuration file.

    Args:
        path: the file; the first time it may also be a pipe.
        again: something runs meanwhile, and must not wait for a pipe's other end.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has keys or values of another form; every one is named.
    """
    source = os.fspath(path)
    try:
        with open(source, "rb", opener=_open_without_waiting if again else None) as file:
            _refuse_foreign_hands(file.fileno(), source)
            if again and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError("cannot read it again: it is no regular file", source)
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise ConfigError(f"it is larger than {MAX_SIZE >> 20} MiB", source)
        text = data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", source) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem((), "expected UTF-8 text", line)], source) from error
    return parse_config(text, source)


def parse_config(text: str, source: str = "") -> LoadedConfig:
    """Decode the text of a configuration; `source` names it in messages, its folder is that of the file.

    Raises:
        ConfigError: as `load_config`.
    """
    # TOML knows two line ends; with one of them the position in the text is the position in the file.
    text = text.replace("\r\n", "\n")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, source) from error
    except RecursionError:
        raise ConfigError(_TOO_DEEP, source) from None
    folder = Path(source).resolve().parent if source else Path.cwd()
    return decode_config(raw, LoadedConfig(Config(), source, folder, text))


def decode_config(raw: Mapping[str, object], place: LoadedConfig | None = None) -> LoadedConfig:
    """Decode what a configuration says; `place` knows where it says it.

    Raises:
        ConfigError: it has keys or values of another form; every one is named.
    """
    place = place or LoadedConfig(Config())
    if _is_deep(raw):
        raise ConfigError(_TOO_DEEP, place.source)
    problems = list(_check_table(Config, raw, ()))
    if problems:
        raise place.error(problems)
    return replace(place, config=msgspec.convert(raw, Config))


def _is_deep(raw: object) -> bool:
    """Whether it would be too much for whoever walks through it."""
    level = [raw]
    for _ in range(_DEEPEST):
        tables = [one for one in level if isinstance(one, dict)]
        lists = [one for one in level if isinstance(one, list)]
        level = [item for one in tables for item in one.values()] + [item for one in lists for item in one]
    return any(isinstance(one, dict | list) for one in level)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _refuse_foreign_hands(fd: int, source: str) -> None:
    # Whoever can write it chooses the code that root runs.
    if os.geteuid() == 0 and os.fstat(fd).st_mode & stat.S_IWOTH:
        raise ConfigError("everyone can write it, so root will not read it (chmod o-w)", source)


def _syntax_error(message: str, text: str, source: str) -> ConfigError:
    what, _, place = message.rpartition(" (at ")
    words = place.rstrip(")").replace(",", "").split()
    if words[:1] == ["line"]:
        line = int(words[1])
    else:
        what, line = what or message, text.count("\n") + 1
    return ConfigError([Problem((), f"not TOML: {what[:1].lower()}{what[1:]}", line)], source)


def _check_table(kind: type[msgspec.Struct], raw: object, path: KeyPath) -> Iterator[Problem]:
    if not isinstance(raw, dict):
        yield Problem(path, f"expected a table, got {_shown(raw)}")
        return
    fields = _fields(kind)
    for key in raw:
        if key not in fields:
            yield Problem((*path, key), f"unknown key{did_you_mean(key, fields)}")
    for name, info in fields.items():
        if name in raw:
            yield from _check_value(info.type, raw[name], (*path, name))
        elif info.required:
            yield Problem(path, f"{name} is missing; expected {_expected(info.type)}")


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {info.encode_name: info for info in msgspec.structs.fields(kind)}


def _check_value(kind: object, raw: object, path: KeyPath) -> Iterator[Problem]:
    table = _table_in(kind)
    if table is not None and typing.get_origin(kind) is list:
        if not isinstance(raw, list):
            yield Problem(path, f"expected [[{path[-1]}]] tables, got {_shown(raw)}")
            return
        for index, item in enumerate(raw):
            yield from _check_table(table, item, (*path, index))
    elif table is not None:
        yield from _check_table(table, raw, path)
    else:
        yield from _check_leaf(kind, raw, path)


def _table_in(kind: object) -> type[msgspec.Struct] | None:
    inner = typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind
    return inner if isinstance(inner, type) and issubclass(inner, msgspec.Struct) else None


def _check_leaf(kind: object, raw: object, path: KeyPath) -> Iterator[Problem]:
    try:
        msgspec.convert(raw, type=kind)
    except msgspec.ValidationError:
        hint = did_you_mean(raw, _choices(kind)) if isinstance(raw, str) and _choices(kind) else ""
        hint = hint if hint.startswith("; did") else ""
        yield Problem(path, f"expected {_expected(kind)}, got {_shown(raw)}{hint}")


def _choices(kind: object) -> list[str]:
    """The texts of a Literal, however deep it stands in Annotated and unions."""
    if typing.get_origin(kind) is typing.Literal:
        return [str(choice) for choice in typing.get_args(kind)]
    return [choice for part in typing.get_args(kind) for choice in _choices(part)]


_WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "a table",
    list: "a list",
}  # fmt: skip


def _expected(kind: object) -> str:
    """In words, what a field takes."""
    if typing.get_origin(kind) is typing.Annotated:
        inner, *metas = typing.get_args(kind)
        for meta in metas:
            if isinstance(meta, msgspec.Meta) and meta.extra and "expected" in meta.extra:
                return str(meta.extra["expected"])
        return _expected(inner)
    choices = _choices(kind)
    if choices:
        return "one of " + ", ".join(f'"{choice}"' for choice in choices)
    origin = typing.get_origin(kind) or kind
    if isinstance(origin, type) and origin in _WORDS:
        return _WORDS[origin]
    words = [_expected(part) for part in typing.get_args(kind) if part is not type(None)]
    return " or ".join(dict.fromkeys(words)) or "a value"


def _shown(raw: object) -> str:
    """A value as TOML writes it, short."""
    if isinstance(raw, dict):
        return "a table"
    if isinstance(raw, list):
        return "a list"
    text = json.dumps(raw, ensure_ascii=False) if isinstance(raw, str | bool | int | float) else str(raw)
    return text if len(text) <= 60 else text[:57] + "..."
