"""`wfpstream show`: what a configuration becomes: layers, sublayers, filters by effective weight, callouts."""

from __future__ import annotations

import click
import msgspec

from wfpstream.cli._base import command, print_out


@click.command(
    cls=command("show", "wfpstream show wfpstream.toml --json"),
    short_help="Show what a configuration becomes.",
)
@click.argument("config_file", metavar="CONFIG")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(config_file: str, as_json: bool) -> None:
    """Show what a configuration becomes, in the order of asking.

    Layers, their sublayers from the heaviest on, in each the filters by effective weight, and the callouts.
    """
    from wfpstream.cli._describe import as_text, describe_engine
    from wfpstream.config import build_engine, load_config

    described = describe_engine(build_engine(load_config(config_file)))
    print_out(msgspec.json.encode(described, enc_hook=str).decode() if as_json else as_text(described))
