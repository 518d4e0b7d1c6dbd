"""`python -m benchmarks peers`: its options, and what is written where."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers._cases import CASES, Case, choose_cases
from benchmarks.peers._load import LoadError
from benchmarks.peers._programs import PEERS, Peer, choose_peers, is_from_venv
from benchmarks.peers._record import Record, make_record, write_record
from benchmarks.peers._report import report
from benchmarks.peers._rounds import Run, raise_descriptor_limit
from benchmarks.peers._venv import install


def peers_main(arguments: Sequence[str]) -> int:
    """Run what is asked for; 2 for what cannot be understood or built."""
    options = _parser().parse_args(arguments)
    if options.list:
        _list()
        return 0
    try:
        trees = {
            name: Path(path).resolve() for name, _, path in (tree.partition("=") for tree in options.tree)
        }
        cases = choose_cases(options.only)
        peers_of = {case.name: _peers_of(case, options.peers, trees) for case in cases}
        record = run(
            cases,
            peers_of,
            options.rounds,
            pinned=options.pin,
            with_install=not options.no_install,
            keep=options.json,
            share=options.share,
        )
    except (ValueError, LoadError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    print(report(record))
    return 0


def run(
    cases: Sequence[Case],
    peers_of: dict[str, list[Peer]],
    rounds: int,
    *,
    pinned: bool = False,
    with_install: bool = True,
    keep: Path | None = None,
    share: float = 1.0,
) -> Record:
    """Install what is missing, measure, and sum up; after every round the record so far is written to `keep`.

    Raises:
        LoadError: the load generator cannot be built.
    """
    raise_descriptor_limit()
    peers = list({peer.name: peer for case in cases for peer in peers_of[case.name]}.values())
    if with_install:
        install({peer.version[1] for peer in peers if is_from_venv(peer)})
    measuring = Run(cases, peers_of, pinned=pinned, share=share)

    def after_round(done: int) -> None:
        if keep is not None:
            write_record(make_record(measuring.table, peers, done, pinned), keep)

    return make_record(measuring.perform(rounds, after_round), peers, rounds, pinned)


def _peers_of(case: Case, names: str | None, trees: dict[str, Path]) -> list[Peer]:
    return choose_peers(names or ",".join(case.peers), trees)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=__doc__)
    parser.add_argument("--only", help="cases, by the beginnings of their names: bulk,ping-pong-1")
    parser.add_argument("--peers", help="who takes part (default: each case's own)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; medians are shown")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the amounts: 0.02 to see whether it runs"
    )
    parser.add_argument("--json", type=Path, help="write the record here as well")
    parser.add_argument(
        "--pin", action="store_true", help="the relay on the last CPU, the load on the others"
    )
    parser.add_argument(
        "--tree", action="append", default=[], metavar="NAME=FOLDER",
        help="measure the wfpstream of another source tree beside this one, as NAME:wfpstream; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--no-install", action="store_true", help="take no peer from PyPI that is not there yet"
    )
    parser.add_argument("--list", action="store_true", help="the names of cases and peers")
    return parser


def _list() -> None:
    for case in CASES:
        print(f"{case.name:20} {case.title}")
    print()
    for peer in PEERS:
        print(f"{peer.name:20} {peer.title}")
