"""From what a test says, CALLOUT strings and keyword options, to callout objects and engine options.

Owns what a test may say, and the words for what it may not. It must not know proxies, pairs or fixtures.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from wfpstream.engine import AddedCallout, EngineOptions, FilterEngine
    from wfpstream.fwps import Callout

__all__ = [
    "ENGINE_SECTIONS",
    "MadeCallout",
    "add_callouts",
    "add_made",
    "engine_options",
    "made_callouts",
    "make_callout",
]

# The proxy shares the interpreter with the test: how long a callback took there says little about it (V-42, V-43).
_VERIFY = {"level": "warn", "callback_budget": "5s"}
# Nor does the time: a fault that is taken back may take what it needs, as the connection is lost when it may not.
_TIMEOUTS = {"drain": "60s"}
ENGINE_SECTIONS = ("engine", "limits", "policy", "timeouts", "verify")


class MadeCallout(NamedTuple):
    """A callout object, what it is called, and the listener it is limited to ("": any)."""

    callout: Callout
    name: str
    listener: str


def make_callout(what: object, seed: int = 0, listeners: Sequence[str] = ()) -> MadeCallout:
    """The callout a test means.

    Args:
        what: a CALLOUT string, or a callout object.
        seed: for a callout that has an option `seed` where the string does not say one.
        listeners: the names of the listeners there are.

    Raises:
        ValueError, LookupError: the string names no callout, or an option that cannot be used.
        TypeError: it is neither.
    """
    from wfpstream.callouts import create_callout, find_callout
    from wfpstream.config import ConfigError, parse_callout
    from wfpstream.fwps import Callout

    if isinstance(what, Callout):
        return MadeCallout(what, what.name or type(what).__name__, "")
    if not isinstance(what, str):
        hint = f"; write {what.__name__}(), an object" if isinstance(what, type) else ""
        raise TypeError(f"a callout is a CALLOUT string or a Callout object, not {what!r}{hint}")
    try:
        text = parse_callout(what, listeners)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    if text.listener and listeners and text.listener not in listeners:
        raise ValueError(
            f"callout {what!r}: no listener {text.listener!r} here; it is called {listeners[0]!r}"
        )
    options = dict(text.options)
    if "seed" in inspect.signature(find_callout(text.name).__init__).parameters:
        options.setdefault("seed", seed)
    return MadeCallout(create_callout(text.name, options), text.name, text.listener)


def made_callouts(
    callouts: Sequence[str | Callout], seed: int = 0, listeners: Sequence[str] = ()
) -> list[MadeCallout]:
    """All of them. Raises as `make_callout`."""
    if isinstance(callouts, str):
        raise TypeError(f"callouts is a list; write callouts=[{callouts!r}]")
    return [make_callout(what, seed, listeners) for what in callouts]


def add_made(engine: FilterEngine, made: Sequence[MadeCallout]) -> list[AddedCallout]:
    """Add each in a sublayer of its own, the first one asked first. On the engine's thread.

    Raises:
        FwpError: management refused one.
        ValueError: it names a layer that there is not, or is at work elsewhere.
    """
    return [engine.add_callout(one.callout, name=one.name, listener=one.listener or None) for one in made]


def add_callouts(
    engine: FilterEngine, callouts: Sequence[str | Callout], seed: int = 0, listeners: Sequence[str] = ()
) -> list[AddedCallout]:
    """`made_callouts`, added. Raises as both."""
    return add_made(engine, made_callouts(callouts, seed, listeners))


def engine_options(**sections: Any) -> EngineOptions:
    """The engine's options.

    Args:
        sections: `limits`, `timeouts`, `policy`, `engine` and `verify`: dictionaries with the keys and values of the
            configuration file; `verify` may be just its level, "off", "warn" (here the default) or "strict".

    Raises:
        TypeError: there is no such section.
        ValueError: a key or value that cannot be used; the text names it.
    """
    from wfpstream.config import ConfigError, decode_config
    from wfpstream.config import engine_options as options_of

    unknown = sorted(set(sections) - set(ENGINE_SECTIONS))
    if unknown:
        raise TypeError(
            f"no option {unknown[0]!r}; sections of the configuration: {', '.join(ENGINE_SECTIONS)}"
        )
    verify = sections.get("verify") or {}
    said = {"level": verify} if isinstance(verify, str) else dict(verify)
    tables = {name: dict(table) for name, table in sections.items() if table and name != "verify"}
    tables["timeouts"] = _TIMEOUTS | tables.get("timeouts", {})
    try:
        loaded = decode_config({**tables, "verify": _VERIFY | said})
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return options_of(loaded.config)
