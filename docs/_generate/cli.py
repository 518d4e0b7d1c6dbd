"""The page of the command line, from the commands themselves.

Owns the page's form and what is said around the options; the template has the words, the commands the options.
"""

from __future__ import annotations

from pathlib import Path

import click

from docs._generate._markdown import code, generated, page, table
from wfpstream.cli import main

TEXTS = Path(__file__).with_name("cli.md")


def cli_page() -> str:
    """`reference/cli.md`: every `<!-- options: COMMAND -->` of the template becomes that command's options."""
    text = TEXTS.read_text(encoding="utf-8")
    context = click.Context(main, info_name="wfpstream")
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        mark = f"<!-- options: {name} -->"
        assert command is not None
        assert mark in text, f"{mark} is missing in the template"
        text = text.replace(mark, _described(command))
    return page(generated("the commands and `docs/_generate/cli.md`"), text)


def _described(command: click.Command) -> str:
    """Its help, and its options in a table."""
    help_text = " ".join((command.help or "").split())
    rows = [
        (code(_spelled(option)), _default(option), option.help or "")
        for option in command.params
        if isinstance(option, click.Option)
    ]
    return page(help_text, table(["option", "default", "meaning"], rows) if rows else "").strip()


def _spelled(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.metavar or option.type.name.upper()}"


def _default(option: click.Option) -> str:
    return code(str(option.default)) if option.show_default and option.default is not None else ""
