"""`wfpstream verify`: its options. Checking is `_verifying`, which is imported only then.

Owns what the command line says; what is checked, and how, is the testing room's.
"""

from __future__ import annotations

import click

from wfpstream.cli._base import command

EXAMPLE = "wfpstream verify stream_edit,find=rainy,replace=sunny"


@click.command(cls=command("verify", EXAMPLE), short_help="Check that a callout keeps the contract.")
@click.argument("callout_text", metavar="CALLOUT")
@click.option(
    "--capture", "captures", metavar="FILE", multiple=True,
    help="Take the streams of a capture as samples (pcap, pcapng, gzip). Repeatable.",
)  # fmt: skip
@click.option(
    "--limit", metavar="SIZE", default="4KiB", show_default=True,
    help="Bytes taken of each direction of a captured stream.",
)  # fmt: skip
@click.option(
    "--streams", metavar="N", type=click.IntRange(min=1), default=4, show_default=True,
    help="Streams taken of each capture.",
)  # fmt: skip
@click.option(
    "--word", "words", metavar="TEXT", multiple=True,
    help="Something the callout looks for; its text options are such words already. Repeatable.",
)  # fmt: skip
@click.option(
    "--effort", metavar="N", type=click.IntRange(min=1), default=300, show_default=True,
    help="Cases to try, about.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same cases.")
@click.option("--lint", is_flag=True, help="Lint findings count as well.")
@click.option("--ignore", metavar="RULE", multiple=True, help="A rule that does not count. Repeatable.")
@click.option(
    "--depends-on", "depends_on", type=click.Choice(["cuts", "order", "time"]), multiple=True,
    help="What the output may depend on besides the bytes. Repeatable.",
)  # fmt: skip
@click.option("--repeat-fin", is_flag=True, help="Also indicate a FIN twice.")
@click.option("--no-api-failures", is_flag=True, help="Do not make API calls fail.")
@click.option("--case", metavar="CASE", help="Play one case again, as a report gives it.")
@click.option("-q", "--quiet", is_flag=True, help="Only the exit code.")
def verify(
    *,
    callout_text: str,
    captures: tuple[str, ...],
    limit: str,
    streams: int,
    words: tuple[str, ...],
    effort: int,
    seed: int,
    lint: bool,
    ignore: tuple[str, ...],
    depends_on: tuple[str, ...],
    repeat_fin: bool,
    no_api_failures: bool,
    case: str | None,
    quiet: bool,
) -> int:
    """Run a callout over sample streams in every way they may reach it, and show the smallest case that goes wrong.

    The samples are cut, merged, ended early, reset, interleaved and slowed down; completions, delivery and workers come
    early or late; each API call is made to fail. The output must stay the same, and the contract be kept: no error and
    no warning of the verifier. Needs hypothesis (extra `test`).
    """
    from wfpstream.cli._verifying import CheckPlan, run_check

    return run_check(
        CheckPlan(
            callout_text=callout_text,
            captures=captures,
            limit=limit,
            streams=streams,
            words=words,
            how={
                "effort": effort,
                "seed": seed,
                "lint": lint,
                "ignore": ignore,
                "repeat_fin": repeat_fin,
                "api_failures": not no_api_failures,
                "case": case,
                **({"depends_on": depends_on} if depends_on else {}),
            },
            quiet=quiet,
        )
    )
