"""`wfpstream torture`: what does a relay, any relay, do to TCP at its edges?

Owns the options, what is printed and the exit code; the cases are the torture room's.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import msgspec

from wfpstream.cli._base import DONE, FAILED, JobError, command, note, print_out

if TYPE_CHECKING:
    from wfpstream.torture import CaseResult, Profile

EXAMPLE = "wfpstream torture 127.0.0.1:7000 --upstream-listen 127.0.0.1:6379"
_INDENT = " " * 4


def _list(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from wfpstream.torture import list_cases

    print_out("\n".join(f"{name}\n{_INDENT}{title}" for name, title in list_cases()))
    context.exit()


@click.command(cls=command("torture", EXAMPLE), short_help="Try what any relay loses or distorts.")
@click.argument("relay", metavar="HOST:PORT")
@click.option(
    "--upstream-listen",
    "upstream",
    metavar="HOST:PORT",
    required=True,
    help="Where the relay connects to: this command listens there.",
)
@click.option(
    "--only", metavar="NAME", multiple=True, help="Only this case, or with its base name both sides'."
)
@click.option("--quick", is_flag=True, help="Less of everything: seconds instead of minutes.")
@click.option("--connections", metavar="N", type=click.IntRange(1), help="How many short connections.")
@click.option("--bulk", metavar="MIB", type=click.IntRange(1), help="Size of the big transfer, each way.")
@click.option(
    "--pause",
    metavar="SECONDS",
    type=click.FloatRange(0, 86400),
    help="How long idle and half-closed connections are left alone.",
)
@click.option(
    "--patience",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    help="How long to wait for what is due.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per case, and one for the sum.")
@click.option(
    "--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List the cases and exit."
)
def torture(
    relay: str,
    upstream: str,
    only: tuple[str, ...],
    as_json: bool,
    **asked: Any,
) -> int:
    """Try the relay at HOST:PORT, ours or another, from both of its sides, and report what it loses or distorts.

    It must relay to the address of --upstream-listen. Exit code 1 if a case found something lost or distorted.
    """
    import trio

    from wfpstream.torture import TortureError, choose_cases
    from wfpstream.torture import torture as try_relay

    try:
        choose_cases(only)
    except TortureError as error:
        raise click.UsageError(f"--only: {error}") from error
    here = _address(relay, "HOST:PORT")
    there = _address(upstream, "--upstream-listen")
    show = _show_json if as_json else _show_text
    run = partial(try_relay, here, there, profile=_profile(**asked), only=only, on_result=show)
    try:
        results = trio.run(run)
    except TortureError as error:
        raise JobError(str(error)) from error
    _show_sum(results, as_json)
    return FAILED if any(one.verdict.is_fault for one in results) else DONE


def _address(text: str, name: str) -> tuple[str, int]:
    from wfpstream.config import parse_address

    try:
        host, port = parse_address(text)
    except ValueError as error:
        raise click.UsageError(f"{name}: {error}") from error
    if port == 0:
        raise click.UsageError(f"{name}: port 0 names nothing a relay can be told beforehand")
    return host, port


def _profile(quick: bool, connections: int | None, bulk: int | None, **times: float | None) -> Profile:
    from wfpstream.torture import FULL, QUICK

    for name, value in times.items():
        if value is not None and math.isnan(value):
            raise click.UsageError(f"--{name}: nan is no number of seconds")
    changes: dict[str, Any] = {name: value for name, value in times.items() if value is not None}
    if connections is not None:
        changes["connections"] = connections
    if bulk is not None:
        changes["bulk"] = bulk << 20
    return replace(QUICK if quick else FULL, **changes)


def _show_text(result: CaseResult) -> None:
    said = [f"{one.verdict.value}: {one.text}" for one in result.findings]
    facts = ", ".join(f"{name} {value:g}" for name, value in result.facts.items())
    head = f"{result.name:<32} {result.verdict.value:<10} {result.seconds:7.2f} s  {facts}".rstrip()
    print_out("\n".join([head, *(_INDENT + line for line in said)]))


def _show_json(result: CaseResult) -> None:
    print_out(msgspec.json.encode(result).decode())


def _show_sum(results: list[CaseResult], as_json: bool) -> None:
    from wfpstream.torture import Verdict

    counts = {one.value: sum(result.verdict is one for result in results) for one in Verdict}
    if as_json:
        print_out(msgspec.json.encode({"cases": len(results), "verdicts": counts}).decode())
        return
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print_out(f"{len(results)} {'case' if len(results) == 1 else 'cases'}: {said}")
    if counts[Verdict.FAILED]:
        note("a case that failed says nothing about the relay's manners: no connection came through")
