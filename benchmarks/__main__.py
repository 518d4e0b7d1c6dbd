"""`python -m benchmarks [OPTION...] [NAME...]`: a text table each; `--keep FOLDER` writes the figures as JSON as well.

`python -m benchmarks peers ...` and `python -m benchmarks long ...` have options of their own: `--help`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks import birth, engine, match, reload, replay, slow, verify
from benchmarks.peers import describe_machine, long_main, peers_main, settle

MEASUREMENTS = {
    "engine": engine.measure,
    "birth": birth.measure,
    "match": match.measure,
    "slow": slow.measure,
    "reload": reload.measure,
    "verify": verify.measure,
    "replay": replay.measure,
}
WITH_OPTIONS = {"peers": peers_main, "long": long_main}
ROUNDS = 3
# What `--quick` leaves of the amounts of `peers` and `long`.
_SHARE = "0.02"


def main() -> int:
    """Run what is asked for; by default all but the long run, `peers` first. 1: something broke, 2: it cannot begin."""
    try:
        settle(sys.argv[1:])
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    # As an interrupt does: the relays are ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if sys.argv[1:2] and sys.argv[1] in WITH_OPTIONS:
        return WITH_OPTIONS[sys.argv[1]](sys.argv[2:])
    options = _parser().parse_args()
    if options.quick:
        options.rounds = 1
        _make_short()
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
    failed = False
    names = options.names or ["peers", *MEASUREMENTS]
    for name in (name for name in names if name in WITH_OPTIONS):
        failed |= WITH_OPTIONS[name](_arguments_of(name, options)) != 0
        print(flush=True)
    rest = [name for name in names if name in MEASUREMENTS]
    return int(failed | (bool(rest) and not _measure(rest, options.rounds, options.keep)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*WITH_OPTIONS, *MEASUREMENTS, []], help="default: all but long"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds, interleaved; medians are shown")
    parser.add_argument("--quick", action="store_true", help="one round of very little: does it run?")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="peers.json, long.json, and engine.json: the rest"
    )
    parser.add_argument("--no-install", action="store_true", help="install nothing")
    return parser


def _make_short() -> None:
    """Less of what takes minutes, for `--quick`."""
    engine.SUB_LAYERS, engine.HELD_MIB = (1, 8), (1,)
    slow.SECONDS = 0.5
    replay.BULK_SEGMENTS = replay.SMALL_PACKETS = replay.SCAPY_PACKETS
    replay.PIPED_MIB = (16,)


def _arguments_of(name: str, options: argparse.Namespace) -> list[str]:
    """The command line of `peers` or `long`."""
    arguments = ["--share", _SHARE] if options.quick else []
    if name == "peers":
        arguments += ["--rounds", str(options.rounds)]
    if name == "peers" and options.no_install:
        arguments.append("--no-install")
    if options.keep is not None:
        arguments += ["--json", str(options.keep / f"{name}.json")]
    return arguments


def _measure(names: list[str], rounds: int, keep: Path | None) -> bool:
    """One after the other, each kept when it is done; one that breaks is told and does not end the others."""
    found: dict[str, Any] = {"machine": describe_machine(), "rounds": rounds}
    for name in names:
        try:
            found[name] = MEASUREMENTS[name](rounds)
        except Exception:
            traceback.print_exc()
            print(f"benchmarks: {name} broke", file=sys.stderr)
            continue
        print(flush=True)
        if keep is not None:
            (keep / "engine.json").write_text(json.dumps(found, indent=1) + "\n")
    return set(names) <= set(found)


if __name__ == "__main__":
    sys.exit(main())
