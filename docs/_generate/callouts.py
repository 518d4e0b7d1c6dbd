"""The page of the built-in callouts, from what `wfpstream callouts` prints.

Owns the page's form; names, options and summaries are the classes' own.
"""

from __future__ import annotations

import msgspec

from docs._generate._markdown import code, generated, page, table
from wfpstream.callouts import BUILT_IN, CalloutInfo, OptionInfo, list_callouts

INTRODUCTION = """\
# Built-in callouts

What `wfpstream callouts` prints on your machine, for the callouts that come with wfpstream; entry points of other
packages (group `wfpstream.callouts`) are listed there too. How a callout and its options are written on the command
line is in [the command line](cli.md#callout), in a file in [configuration](configuration.md#callout).

All of them take `direction`: `to_client` or `to_upstream` say it for people and do not depend on which side is the
local host; `inbound` and `outbound` mean WFP's RECEIVE and SEND. All of them may be added to flows that are already
there, and let go of everything they hold when they are drained. Random choices come from the seed, the listener, the
number of the connection, the direction and the byte offset, never from the order of calls, so a run can be repeated.

Types: a *size* is a number of bytes or a text such as `64KiB` (1024s) or `64kB` (1000s); a *time* is a number of
seconds or a text such as `250ms`; a *rate* is bytes per second or a text such as `1MiB/s`; *text* becomes bytes by
UTF-8."""


def callouts_page() -> str:
    """`reference/callouts.md`."""
    found = sorted((info for info in list_callouts() if info.name in BUILT_IN), key=lambda info: info.name)
    summary = table(["name", "what"], [(f"[{info.name}](#{info.name})", info.summary) for info in found])
    return page(generated("the callouts' docstrings"), INTRODUCTION, summary, *map(_section, found))


def _section(info: CalloutInfo) -> str:
    layers = ", ".join(code(layer) for layer in info.layers)
    return page(
        f"## {info.name}",
        info.summary,
        f"Layers: {layers}; filter type {code(info.filter_action)}; class {code(info.source)}.",
        table(["option", "type", "default", "meaning"], map(_option, info.options)),
        f"```console\n$ wfpstream run --mode reverse:127.0.0.1:8080@8888 --callout {_quoted(info.example)}\n```",
    )


def _option(option: OptionInfo) -> tuple[str, str, str, str]:
    if option.required:
        default = "required"
    elif option.default is None or option.default == "":
        default = ""
    else:
        text = (
            option.default
            if isinstance(option.default, str)
            else msgspec.json.encode(option.default).decode()
        )
        default = code(text)
    return code(option.name), " or ".join(map(code, option.type.split("|"))), default, option.doc


def _quoted(text: str) -> str:
    """As a shell wants it."""
    plain = all(character.isalnum() or character in "_-./:,=@%+" for character in text)
    return text if plain else f"'{text}'"
