"""`python -m benchmarks [birth|engine|loopback|reload|replay|verify]`: a text table each; `--json FILE` keeps them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import birth, engine, loopback, reload, replay, verify
from benchmarks.peers import peers_main

MEASUREMENTS = {
    "birth": birth.measure,
    "engine": engine.measure,
    "loopback": loopback.measure,
    "reload": reload.measure,
    "replay": replay.measure,
    "verify": verify.measure,
}


def main() -> int:
    """Run what is asked for, all by default."""
    if sys.argv[1:2] == ["peers"]:
        return peers_main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASUREMENTS, []], help="which (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, interleaved; medians are shown")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.names or MEASUREMENTS:
        figures[name] = MEASUREMENTS[name](arguments.rounds)
        print()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
