"""The page of the command line, from the commands themselves.

Owns the page's form and what is said around the options; the template has the words, the commands the options.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Its help, its commands if it is a group, and its options in a table."""
    parts = [" ".join((command.help or "").split())]
    commands: list[click.Command] = []
    if isinstance(command, click.Group):
        commands = [command.commands[name] for name in command.list_commands(click.Context(command))]
        rows = [(code(_called(one)), " ".join((one.help or "").split())) for one in commands]
        parts.append(table(["command", "what"], rows))
    options = _options([command, *commands])
    if options:
        parts.append(table(["option", "default", "meaning"], options))
    return page(*parts).strip()


def _called(command: click.Command) -> str:
    """A command of a group with its arguments."""
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    return " ".join([command.name or "", *(one.make_metavar(click.Context(command)) for one in arguments)])


def _options(commands: Sequence[click.Command]) -> list[tuple[str, str, str]]:
    """A row for each option of these commands; one that not all have says whose it is."""
    owners: dict[tuple[str, str, str], list[str]] = {}
    for command in commands:
        for option in command.params:
            if isinstance(option, click.Option):
                row = (code(_spelled(option)), _default(option), option.help or "")
                owners.setdefault(row, []).append(command.name or "")
    of_all = len(commands) - 1  # a group need not have the options of all its commands
    return [
        row if len(names) >= of_all else (row[0], row[1], f"{', '.join(names)}: {row[2]}")
        for row, names in owners.items()
    ]


def _spelled(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag or option.count:
        return names
    if isinstance(option.type, click.Choice):
        return f"{names} {'|'.join(map(str, option.type.choices))}"
    return f"{names} {option.metavar or option.type.name.upper()}"


def _default(option: click.Option) -> str:
    return code(str(option.default)) if option.show_default and option.default is not None else ""
