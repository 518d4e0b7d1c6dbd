"""`wfpstream run`: its options, read and checked before anything is opened.

Owns what the command line says and how it joins the configuration file. Running it is `_proxy`, which is
imported only then: reading options needs no trio.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from wfpstream.cli._base import command
from wfpstream.cli._command_line import CommandLine
from wfpstream.cli._plan import RunPlan, stamp_of

# More than any machine has use for; each has some 30 MiB of its own.
MOST_WORKERS = 1024
EXAMPLE = "wfpstream run --mode reverse:127.0.0.1:6379@7000 --callout monitor"


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    from wfpstream.callouts import parse_time

    try:
        return parse_time(value)
    except ValueError:
        raise click.BadParameter(f'expected seconds, or a time such as "250ms", got {value!r}') from None


def _workers(ctx: click.Context, param: click.Parameter, value: int) -> int:
    if not 1 <= value <= MOST_WORKERS:
        raise click.BadParameter(f"expected a number of processes from 1 to {MOST_WORKERS}, got {value}")
    return value


@click.command(
    cls=command("run", EXAMPLE),
    short_help="Run the proxy, and a command beside it.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("-c", "--config", "config_file", metavar="FILE", help="A configuration in TOML.")
@click.option(
    "--mode", "modes", metavar="SPEC", multiple=True,
    help="[NAME=]reverse:HOST:PORT[@[HOST:]PORT]: the upstream, then where to listen; or "
    "[NAME=]redirect@HOST:PORT, [NAME=]tproxy@HOST:PORT for intercepted connections. Repeatable.",
)  # fmt: skip
@click.option(
    "--callout", "callout_texts", metavar="CALLOUT", multiple=True,
    help="[LISTENER:]NAME[,key=value]...: a callout, asked in the order given. Repeatable.",
)  # fmt: skip
@click.option("--local", type=click.Choice(["client", "server"]), help="Which side is the local host.")
@click.option("--events", metavar="FILE|-", help="Write every event as a JSON line.")
@click.option(
    "--events-data", type=click.Choice(["off", "preview", "full"]), default="off", show_default=True,
    help="Payload in the events.",
)  # fmt: skip
@click.option("--ready-file", metavar="FILE", help="Written, in one step, when everything listens.")
@click.option(
    "--verify", "level", type=click.Choice(["off", "warn", "strict"]),
    help="Check the callouts' behaviour; strict: violations fail the run.",
)  # fmt: skip
@click.option(
    "--grace", metavar="SECONDS", default="5", show_default=True, callback=_seconds,
    help="How long flows may take to end at a stop.",
)  # fmt: skip
@click.option(
    "--workers", type=int, metavar="N", default=1, show_default=True, callback=_workers,
    help="So many processes share the listeners and the policy.",
)  # fmt: skip
@click.option(
    "--transparent",
    is_flag=True,
    help="Intercept connections, as [transparent] says, for the redirect or tproxy listener; undone at the end.",
)
@click.option("--watch", is_flag=True, help="Read the configuration again when its file has changed.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors, and what listens.")
@click.option("-v", "--verbose", count=True, help="One line per flow; -vv: per event; -vvv: with payload.")
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ARG...]")
def run(
    *,
    config_file: str | None,
    modes: tuple[str, ...],
    callout_texts: tuple[str, ...],
    local: Literal["client", "server"] | None,
    events: str | None,
    events_data: Literal["off", "preview", "full"],
    ready_file: str | None,
    level: Literal["off", "warn", "strict"] | None,
    grace: float,
    workers: int,
    transparent: bool,
    watch: bool,
    quiet: bool,
    verbose: int,
    command_line: tuple[str, ...],
) -> int:
    """Run the proxy until it is told to stop, or as long as COMMAND runs.

    Without a callout it is a plain relay. COMMAND finds it in WFPSTREAM_ADDRESS, WFPSTREAM_HOST and
    WFPSTREAM_PORT (and, for a listener NAME, WFPSTREAM_ADDRESS_NAME and so on); its exit code is ours.
    """
    from wfpstream.config import Config, LoadedConfig, load_config

    if quiet and verbose:
        raise click.UsageError("-q and -v exclude each other")
    if events == "-" and command_line:
        raise click.UsageError("--events - and -- COMMAND both write to stdout; give --events a FILE")
    if watch and config_file is None:
        raise click.UsageError("--watch needs a configuration file: -c FILE")
    line = CommandLine(modes, callout_texts, local, level)
    read_at = stamp_of(config_file) if config_file is not None else None
    loaded = line.complete(load_config(config_file) if config_file is not None else LoadedConfig(Config()))
    plan = RunPlan(
        loaded=loaded,
        config_file=Path(config_file) if config_file is not None else None,
        read_at=read_at,
        command_line=line,
        complete=line.complete,
        callouts=line.read_callouts(loaded),
        events=events,
        events_data=events_data,
        ready_file=Path(ready_file) if ready_file is not None else None,
        grace=grace,
        verbosity=-1 if quiet else verbose,
        command=command_line,
        transparent=transparent,
        watch=watch,
        workers=workers,
    )
    _check_listeners(plan)
    if workers > 1:
        from wfpstream.cli._workers import run_workers

        return run_workers(plan)
    from wfpstream.cli._proxy import run_proxy

    return run_proxy(plan)


def _check_listeners(plan: RunPlan) -> None:
    listeners = plan.loaded.config.proxy.listener
    if not listeners:
        raise click.UsageError("nothing to listen on: give --mode, or -c with a [[proxy.listener]]")
    intercepted = [listener for listener in listeners if listener.mode != "reverse"]
    if plan.transparent and len(intercepted) != 1:
        raise click.UsageError(
            "--transparent needs exactly one redirect or tproxy listener; "
            "example: wfpstream run --mode redirect@0.0.0.0:15001 --transparent"
        )
    names = [listener.name for listener in listeners if listener.name]
    for callout in plan.callouts:
        if callout.listener and callout.listener not in names:
            known = ", ".join(names) or "none has a name (--mode NAME=reverse:...)"
            raise click.UsageError(
                f"--callout {callout.listener}:{callout.name}: no such listener; known: {known}"
            )
