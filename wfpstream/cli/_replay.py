"""`wfpstream replay`: its options, read and checked before any capture is opened.

Owns what the command line says and how it joins the configuration file. Replaying is `_replaying`, which is imported
only then: reading options needs neither scapy nor an engine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import click

from wfpstream.cli._base import command
from wfpstream.cli._captures import find_captures, output_paths, refuse_inputs
from wfpstream.cli._plan import ReplayPlan

if TYPE_CHECKING:
    from wfpstream.config import CalloutText, LoadedConfig

EXAMPLE = "wfpstream replay traffic.pcap --callout stream_edit,find=rainy,replace=sunny -o edited.pcapng"

Level = Literal["off", "warn", "strict"]


@click.command(cls=command("replay", EXAMPLE), short_help="Replay captures through callouts.")
@click.argument("arguments", nargs=-1, required=True, metavar="CAPTURE...")
@click.option("-c", "--config", "config_file", metavar="FILE", help="A configuration in TOML.")
@click.option(
    "--callout", "callout_texts", metavar="CALLOUT", multiple=True,
    help="NAME[,key=value]...: a callout, asked in the order given. Repeatable.",
)  # fmt: skip
@click.option("--local", type=click.Choice(["client", "server"]), help="Which side is the local host.")
@click.option(
    "-o", "--output", "out", metavar="OUT",
    help="Write what left the engine: a .pcap or .pcapng file; with several captures or --jobs a folder.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON line per TCP stream, and nothing else on stdout."
)
@click.option("--events", metavar="FILE|-", help="Write every event as a JSON line.")
@click.option(
    "--events-data", type=click.Choice(["off", "preview", "full"]), default="off", show_default=True,
    help="Payload in the events.",
)  # fmt: skip
@click.option(
    "--verify", "level", type=click.Choice(["off", "warn", "strict"]),
    help="Check the callouts' behaviour (warn, unless the configuration says otherwise); strict: violations fail.",
)  # fmt: skip
@click.option(
    "--jobs", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
    help="Processes: captures are dealt out to them, big ones in parts.",
)  # fmt: skip
@click.option("--coalesce/--no-coalesce", default=None, help="Indicate segments in a row as one item.")
@click.option(
    "--push", type=click.Choice(["always", "captured"]), help="The PUSH flag, as live or as captured."
)
@click.option("--overlap", type=click.Choice(["first", "last"]), help="Which copy of a byte counts.")
@click.option("--verify-checksums", is_flag=True, help="Leave out segments whose checksum is wrong.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.option("-v", "--verbose", count=True, help="One line per flow; -vv: per event; -vvv: with payload.")
def replay(
    *,
    arguments: tuple[str, ...],
    config_file: str | None,
    callout_texts: tuple[str, ...],
    local: Literal["client", "server"] | None,
    out: str | None,
    as_json: bool,
    events: str | None,
    events_data: Literal["off", "preview", "full"],
    level: Level | None,
    jobs: int,
    coalesce: bool | None,
    push: str | None,
    overlap: str | None,
    verify_checksums: bool,
    quiet: bool,
    verbose: int,
) -> int:
    """Replay captures (pcap, pcapng, gzip) through callouts, and tell what they did to each TCP stream.

    CAPTURE is a file, a glob, a folder (every *.pcap, *.pcapng, *.cap and *.ntar in it, also with .gz), or - for
    standard input. Without a callout it tells what the streams are. Capture time is the callouts' time: a day
    replays as fast as the machine can.
    """
    if quiet and verbose:
        raise click.UsageError("-q and -v exclude each other")
    if events == "-" and as_json:
        raise click.UsageError("--events - and --json both write to stdout; give --events a FILE")
    captures, problems = find_captures(arguments)
    in_folder = len(captures) > 1 or jobs > 1
    outputs = None if out is None else output_paths(captures, out, in_folder)
    _check_written(captures, outputs, out, events)
    loaded = _loaded(config_file, local, level)
    said = {
        "coalesce": coalesce,
        "push": push,
        "overlap": overlap,
        "verify_checksums": verify_checksums or None,
    }
    plan = ReplayPlan(
        captures=tuple(captures),
        problems=tuple(problems),
        loaded=loaded,
        callouts=tuple(map(_callout, callout_texts)),
        settings=_settings(loaded, {name: value for name, value in said.items() if value is not None}),
        outputs=None if outputs is None else tuple(outputs),
        folder=out if in_folder else None,
        as_json=as_json,
        events=events,
        events_data=events_data,
        jobs=jobs,
        verbosity=-1 if quiet else verbose,
    )
    from wfpstream.cli._replaying import run_replay

    return run_replay(plan)


def _check_written(
    captures: list[str], outputs: list[str] | None, out: str | None, events: str | None
) -> None:
    from wfpstream.replay import format_of

    written = [(f"-o {out}:" if path != out else "-o", path) for path in outputs or ()]
    if events not in (None, "-"):
        written.append(("--events", str(events)))
    refuse_inputs(captures, written)
    for path in outputs or ():
        try:
            format_of(path)
        except ValueError as error:
            raise click.UsageError(f"-o {error}") from None


def _callout(text: str) -> CalloutText:
    from wfpstream.config import parse_callout

    callout = parse_callout(text)
    if callout.listener:
        what = f"captures have no listeners; leave {callout.listener + ':'!r} out"
        raise click.UsageError(f"--callout {text}: {what}")
    return callout


def _loaded(
    config_file: str | None, local: Literal["client", "server"] | None, level: Level | None
) -> LoadedConfig:
    """The configuration, with what the command line says better."""
    import msgspec

    from wfpstream.config import Config, LoadedConfig, load_config

    loaded = load_config(config_file) if config_file is not None else LoadedConfig(Config())
    config = loaded.config
    if level is None and not loaded.says("verify", "level"):
        level = "warn"
    if level is not None:
        config = msgspec.structs.replace(config, verify=msgspec.structs.replace(config.verify, level=level))
    if local is not None:
        config = msgspec.structs.replace(config, proxy=msgspec.structs.replace(config.proxy, local=local))
    return replace(loaded, config=config)


def _settings(loaded: LoadedConfig, said: dict[str, Any]) -> dict[str, Any]:
    """`[replay]` of the file, and what the command line says better.

    Raises:
        ConfigError: a value is out of its range.
    """
    from wfpstream.config import Problem, replay_settings
    from wfpstream.replay import ReplayOptions

    settings = {**replay_settings(loaded.config), **said}
    try:
        ReplayOptions(**settings)
    except ValueError as error:
        name = str(error).partition("=")[0]
        raise loaded.error([Problem(("replay", name), str(error))]) from None
    return settings
