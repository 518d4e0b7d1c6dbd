"""`wfpstream show`: layers, sublayers, filters by effective weight, callouts: of a file, or of a running proxy."""

from __future__ import annotations

import click
import msgspec

from wfpstream.cli._base import command, print_out


@click.command(
    cls=command("show", "wfpstream show wfpstream.toml --json"),
    short_help="Show what a configuration becomes, or what is in force.",
)
@click.argument("config_file", metavar="[CONFIG]", required=False)
@click.option(
    "--socket", "socket_path", metavar="PATH", help="The control socket of the proxy that is meant."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(config_file: str | None, socket_path: str | None, as_json: bool) -> None:
    """Show what a configuration becomes, in the order of asking; without CONFIG what a running proxy has in force.

    Layers, their sublayers from the heaviest on, in each the filters by effective weight, and the callouts.
    """
    if config_file is None:
        from wfpstream.cli._ctl import show_in_force

        show_in_force(socket_path, as_json)
        return
    if socket_path is not None:
        raise click.UsageError("--socket shows a running proxy, CONFIG a file: give one of them")
    from wfpstream.cli._describe import as_text, describe_engine
    from wfpstream.config import build_engine, load_config

    described = describe_engine(build_engine(load_config(config_file)))
    print_out(msgspec.json.encode(described, enc_hook=str).decode() if as_json else as_text(described))
