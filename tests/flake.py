"""Run the plugin's own tests many times, in random order, every other time under xdist: `make flake`.

Owns the repeating and the result line. What fails is kept, with the seed that repeats its order. Not part of CI.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

SUITE = "tests/pytest_plugin"
# They start pytest sessions of their own, which takes most of a run's time: in some of the runs only.
SESSIONS = (
    "test_proxy_sessions.py",
    "test_failures.py",
    "test_leaks.py",
    "test_options.py",
    "test_pair_fixture.py",
    "test_trace_fixture.py",
)
FOLDER = Path("build/flake")
# Longer than a run ever takes; one that is still there hangs, which is a flake too.
LONGEST = 1200.0


@dataclass
class Tally:
    """What came of the runs so far."""

    first: int
    runs: int = 0
    sessions: int = 0
    spread: int = 0
    whole: int = 0
    failed: list[int] = field(default_factory=list)
    tests: set[int] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def line(self, suite: str) -> str:
        """The result, in a line."""
        tests = "-".join(map(str, sorted({min(self.tests), max(self.tests)}))) if self.tests else "no"
        minutes = (time.monotonic() - self.began) / 60
        failed = f"{len(self.failed)} failed"
        if self.failed:
            failed += f" (seeds {', '.join(map(str, self.failed))}; output in {FOLDER}/)"
        return (
            f"flake: {suite}, {tests} tests a session, {self.runs} runs in random order in {self.sessions} sessions "
            f"(seeds {self.first} to {self.first + self.sessions - 1}), {self.spread} runs of them under xdist, "
            f"{self.whole} with the tests that start sessions of their own: "
            f"{failed}, {minutes:.0f} min"
        )


def command(suite: str, seed: int, spread: bool, whole: bool, rounds: int) -> list[str]:
    """One session: a seed is an order, of all rounds of all tests; under xdist they are handed out one by one."""
    order = ["--random-order", "--random-order-bucket=global", f"--random-order-seed={seed}"]
    where = ["-n", "2", "--dist", "load"] if spread else ["-n", "0"]
    without = [] if whole else [f"--ignore-glob=/*/{name}" for name in SESSIONS]
    base = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--count={rounds}"]
    return [*base, *order, *where, *without, *suite.split()]


def run_session(suite: str, seed: int, whole: bool, rounds: int, tally: Tally) -> None:
    """One session of so many rounds; its output is kept when it failed."""
    spread = bool(seed % 2)
    line = command(suite, seed, spread, whole, rounds)
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=LONGEST, check=False)
        code, output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        code, output = 1, f"still running after {LONGEST:.0f} s\n{_text(error.stdout)}"
    tally.runs += rounds
    tally.sessions += 1
    tally.spread += spread * rounds
    tally.whole += whole
    passed = re.search(r"(\d+) passed", output)
    if passed is not None and not code:
        tally.tests.add(int(passed[1]))
        return
    tally.failed.append(seed)
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = FOLDER / f"seed-{seed}.txt"
    kept.write_text(f"{' '.join(line)}\n\n{output}", encoding="utf-8")
    print(f"seed {seed} failed: {kept}", flush=True)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def main(arguments: list[str]) -> int:
    """0: not one run failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.flake", description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument(
        "--first", type=int, default=1, help="seed of the first session; an odd one is under xdist"
    )
    # Starting a session takes longer than a round of its tests.
    parser.add_argument("--rounds", type=int, default=10, help="runs in one session, their tests mixed")
    # 7 is odd, so that those of them that are under xdist alternate too.
    parser.add_argument(
        "--whole-every", type=int, default=7, help="every so manieth session is one run of the whole suite"
    )
    parser.add_argument("--suite", default=SUITE, help="what to run: files, folders, options of pytest")
    chosen = parser.parse_args(arguments)
    tally = Tally(chosen.first)
    try:
        for seed in count(chosen.first):
            if tally.runs >= chosen.runs:
                break
            whole = seed % chosen.whole_every == 0
            rounds = 1 if whole else min(chosen.rounds, chosen.runs - tally.runs)
            run_session(chosen.suite, seed, whole, rounds, tally)
            print(tally.line(chosen.suite), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print(tally.line(chosen.suite), flush=True)
    return 1 if tally.failed or tally.runs < chosen.runs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
