"""`wfpstream callouts`: every callout found, its options, an example, its source."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

import click
import msgspec

from wfpstream.cli._base import command, print_out

if TYPE_CHECKING:
    from wfpstream.callouts import CalloutInfo, OptionInfo

_WIDTH = 100


@click.command(
    cls=command("callouts", "wfpstream callouts --json"), short_help="List every callout, with its options."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per callout.")
def callouts(as_json: bool) -> None:
    """List every callout: options (type, default), a ready example, its source."""
    from wfpstream.callouts import list_callouts

    found = list_callouts()
    if as_json:
        print_out("\n".join(msgspec.json.encode(info).decode() for info in found))
        return
    print_out("\n\n".join(_described(info) for info in found))


def _described(info: CalloutInfo) -> str:
    head = f"{info.name}  {info.summary}".rstrip()
    if info.error:
        return f"{info.name}\n    cannot be used: {info.error}\n    source   {info.source}"
    lines = [head, f"    example  --callout {shlex.quote(info.example)}"]
    lines += [f"    layers   {', '.join(info.layers)} ({info.filter_action})", f"    source   {info.source}"]
    for option in info.options:
        lines += [f"    {_signature(option)}", *_wrapped(option.doc)]
    return "\n".join(lines)


def _signature(option: OptionInfo) -> str:
    if option.required:
        return f"{option.name}=<{option.type}> (required)"
    default = "" if option.default is None else f" (default {_default(option.default)})"
    return f"{option.name}=<{option.type}>{default}"


def _default(value: object) -> str:
    """As one would write it: TOML's truth values, text without quotes."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
