"""`wfpstream check`: is a configuration valid? Every error with its place and what was expected."""

from __future__ import annotations

import click

from wfpstream.cli._base import command, print_out


@click.command(cls=command("check", "wfpstream check wfpstream.toml"), short_help="Validate a configuration.")
@click.argument("config_file", metavar="CONFIG")
def check(config_file: str) -> None:
    """Validate a configuration: its keys and values, its names, its callouts and their options.

    The callouts are made, as `run` would make them; nothing is listened on.
    """
    from wfpstream.config import build_engine, load_config

    build_engine(load_config(config_file))
    print_out(f"{config_file}: valid")
