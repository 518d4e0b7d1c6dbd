"""From the name of a callout to its class.

Owns the three forms of a name (`NAME`, `package.module:Class`, `./file.py:Class`), the entry points of group
`wfpstream.callouts`, and the description of a class for people. It must not know the grammar around the name.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType

from wfpstream.fwps import Callout

from ._options import OptionError, OptionInfo, convert_options, options_of

GROUP = "wfpstream.callouts"

# Found also where the package's metadata is absent (a source tree on the path).
BUILT_IN = {
    "stream_edit": "wfpstream.callouts.stream_edit:StreamEdit",
    "monitor": "wfpstream.callouts.monitor:Monitor",
    "throttle": "wfpstream.callouts.throttle:Throttle",
    "latency": "wfpstream.callouts.latency:Latency",
    "framer": "wfpstream.callouts.framer:Framer",
    "pattern_drop": "wfpstream.callouts.pattern_drop:PatternDrop",
    "pattern_set": "wfpstream.callouts.pattern_set:PatternSet",
    "allow_after": "wfpstream.callouts.allow_after:AllowAfter",
    "banner": "wfpstream.callouts.banner:Banner",
    "pend_fin": "wfpstream.callouts.pend_fin:PendFin",
    "fault": "wfpstream.callouts.fault:Fault",
}


class UnknownCalloutError(LookupError):
    """No class for this name; the text is one line and says what would be one."""


@dataclass(frozen=True, slots=True)
class CalloutInfo:
    """A callout class, described.

    Attributes:
        name: what to write.
        source: `package.module:Class`, or the file.
        summary: first line of its docstring.
        layers: the layers it serves.
        filter_action: the type of its filters.
        options: its options, in order.
        example: a CALLOUT string that works as it stands.
        error: why it cannot be used here, or empty. Where it could not even be loaded the rest is empty too.
    """

    name: str
    source: str
    summary: str = ""
    layers: tuple[str, ...] = ()
    filter_action: str = ""
    options: tuple[OptionInfo, ...] = ()
    example: str = ""
    error: str = ""


def create_callout(name: str, options: Mapping[str, object] | None = None) -> Callout:
    """Make a callout.

    Args:
        name: `NAME`, `package.module:Class` or `./file.py:Class`.
        options: raw option values by name (text, numbers, truth values, bytes, lists).

    Raises:
        UnknownCalloutError: there is no such class.
        OptionError: an option is unknown, missing, or has a value the class refuses.
    """
    cls = find_callout(name)
    arguments = convert_options(name, cls, options or {})
    try:
        return cls(**arguments)
    except (ValueError, TypeError) as error:
        raise OptionError(f"{name}: {error}") from error


def find_callout(name: str) -> type[Callout]:
    """The class `name` stands for.

    Raises:
        UnknownCalloutError: there is none, it cannot be loaded, or it is no callout.
    """
    if ":" not in name:
        # Ours win, and reading the metadata of all that is installed takes 10 ms and more.
        source = BUILT_IN.get(name) or _sources().get(name)
        if source is None:
            raise UnknownCalloutError(_unknown(name))
        return _checked(_load_module(source, trusted=True), name)
    place = name.rpartition(":")[0]
    if place.endswith(".py") or "/" in place:
        return _checked(_load_file(name), name)
    return _checked(_load_module(name, trusted=False), name)


def code_digest(name: str) -> str:
    """SHA-256, in hex, of the file that `./file.py:Class` names; empty for any other name, or without such a file.

    It tells whether the code has changed since. What the file imports does not count.
    """
    place, colon, _ = name.rpartition(":")
    if not colon or not (place.endswith(".py") or "/" in place):
        return ""
    try:
        file = Path(place).expanduser()
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
    except OSError:
        return ""


def list_callouts() -> list[CalloutInfo]:
    """Every callout found by name, described; one that cannot be loaded carries its error."""
    return [_describe_named(name, source) for name, source in sorted(_sources().items())]


def describe_callout(name: str, cls: type[Callout] | None = None) -> CalloutInfo:
    """Describe one callout.

    Args:
        name: as for `find_callout`.
        cls: its class, if it is at hand.

    Raises:
        UnknownCalloutError: there is no such class.
    """
    return _describe(name, _sources().get(name, name), cls or find_callout(name))


def _sources() -> dict[str, str]:
    """Where each name leads; ours win over a package that takes one of our names."""
    found: dict[str, str] = {point.name: point.value for point in _entry_points()}
    return found | BUILT_IN


def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _describe_named(name: str, source: str) -> CalloutInfo:
    try:
        return _describe(name, source, find_callout(name))
    except UnknownCalloutError as error:
        return CalloutInfo(name, source, error=str(error))


def _describe(name: str, source: str, cls: type[Callout]) -> CalloutInfo:
    options = options_of(cls)
    required = ",".join(f"{option.name}=<{option.type}>" for option in options if option.required)
    doc = inspect.getdoc(cls) or ""
    return CalloutInfo(
        name=name,
        source=source,
        summary=doc.partition("\n")[0],
        layers=tuple(cls.layers),
        filter_action=str(cls.filter_action),
        options=tuple(options),
        example=str(getattr(cls, "example", "")) or ",".join(part for part in (name, required) if part),
        error=_unavailable(cls),
    )


def _unavailable(cls: type[Callout]) -> str:
    """A class that needs what may not be installed says so by a class method `unavailable`."""
    why = getattr(cls, "unavailable", None)
    return str(why()) if callable(why) else ""


def _unknown(name: str) -> str:
    known = sorted(_sources())
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"no callout {name!r}; {hint}there are {', '.join(known)}, package.module:Class and ./file.py:Class"
    )


def _checked(found: object, name: str) -> type[Callout]:
    if not isinstance(found, type) or not issubclass(found, Callout):
        raise UnknownCalloutError(
            f"{name!r} is no callout class: expected a subclass of wfpstream.fwps.Callout"
        )
    return found


def _load_module(source: str, *, trusted: bool) -> object:
    """`package.module:Class`; an installed entry point is trusted as the interpreter trusts it."""
    module_name, _, path = source.partition(":")
    try:
        if not trusted:
            spec = importlib.util.find_spec(module_name)
            if spec is not None and spec.origin is not None and spec.has_location:
                _refuse_foreign_code(Path(spec.origin))
        found: object = importlib.import_module(module_name)
    except UnknownCalloutError:
        raise
    except (Exception, SystemExit) as error:  # whatever the module does while it is imported
        raise UnknownCalloutError(f"cannot load {source!r}: {_one_line(error)}") from error
    return _member(found, path, source)


def _load_file(name: str) -> object:
    """`./file.py:Class`; the file's folder does not become part of the import path."""
    file_name, _, path = name.rpartition(":")
    file = Path(file_name).expanduser()
    try:
        file = file.resolve(strict=True)
        if not file.is_file():
            # Of a pipe whoever reads waits for the other end, and a proxy that runs with him.
            raise UnknownCalloutError(f"cannot load {name!r}: it is no regular file")
        _refuse_foreign_code(file)
        return _member(_execute(file), path, name)
    except UnknownCalloutError:
        raise
    except (Exception, SystemExit) as error:  # whatever the file does while it is run
        raise UnknownCalloutError(f"cannot load {name!r}: {_one_line(error)}") from error


class _NoCache(SourceFileLoader):
    """Compiles the file as it is now: a cached form is told from an older one by its second and size only."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _execute(file: Path) -> ModuleType:
    module_name = f"wfpstream_file_{file.stem}_{abs(hash(str(file))):x}"
    loader = _NoCache(module_name, str(file))
    spec = importlib.util.spec_from_file_location(module_name, file, loader=loader)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(module_name)
    # Where dataclasses, pickle and typing look a class's module up.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        if before is not None:
            sys.modules[module_name] = before  # its classes are at work
        raise
    return module


def _member(found: object, path: str, source: str) -> object:
    for part in path.split("."):
        if not hasattr(found, part):
            raise UnknownCalloutError(f"cannot load {source!r}: there is no {part!r} in it")
        found = getattr(found, part)
    return found


def _refuse_foreign_code(file: Path) -> None:
    """As root, code that somebody else can write is not run (architecture: security)."""
    if os.geteuid() != 0:
        return
    for path in (file, file.parent):
        status = path.stat()
        sticky = stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)
        by_group = status.st_mode & stat.S_IWGRP and status.st_gid != 0
        if status.st_uid != 0 or ((status.st_mode & stat.S_IWOTH or by_group) and not sticky):
            raise UnknownCalloutError(
                f"refusing {str(file)!r} as root: others than root can write {str(path)!r}"
            )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
