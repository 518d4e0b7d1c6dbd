"""`python -m benchmarks [NAME...]`: a text table each; `--json FILE` keeps them.

`python -m benchmarks peers ...` and `python -m benchmarks long ...` have options of their own: `--help`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import birth, engine, match, reload, replay, slow, verify
from benchmarks.peers import long_main, peers_main

MEASUREMENTS = {
    "birth": birth.measure,
    "engine": engine.measure,
    "match": match.measure,
    "reload": reload.measure,
    "replay": replay.measure,
    "slow": slow.measure,
    "verify": verify.measure,
}
WITH_OPTIONS = {"peers": peers_main, "long": long_main}


def main() -> int:
    """Run what is asked for; by default all but the long run."""
    if sys.argv[1:2] and sys.argv[1] in WITH_OPTIONS:
        return WITH_OPTIONS[sys.argv[1]](sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*MEASUREMENTS, []], help="which (default: all, then peers)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds, interleaved; medians are shown")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.names or MEASUREMENTS:
        figures[name] = MEASUREMENTS[name](arguments.rounds)
        print()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if arguments.names else peers_main(["--rounds", str(arguments.rounds)])


if __name__ == "__main__":
    sys.exit(main())
