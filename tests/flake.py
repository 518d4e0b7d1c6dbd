"""Run the plugin's own tests many times, in random order, every other time under xdist: `make flake`.

Owns the repeating, the file of results and the result line. A session that has ended is written down, so a series that
was interrupted goes on where it stopped; results of another commit do not count. What fails is kept, with the seed that
repeats its order. Not part of CI.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from types import FrameType

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


@dataclass(frozen=True)
class Result:
    """What came of one session; a line of the file.

    Attributes:
        code: what is measured: the commit, "+" if files differ from it.
        seed: of the order of its tests.
        spread: under xdist.
        whole: with the tests that start sessions of their own.
        runs: how often each test ran.
        tests: how many passed.
        failed: it did not end well.
        seconds: how long it took.
        cpu: seconds of processor time that ended with it.
    """

    code: str
    suite: str
    seed: int
    spread: bool
    whole: bool
    runs: int
    tests: int
    failed: bool
    seconds: float
    cpu: float


@dataclass
class Series:
    """The sessions of one code and one suite so far."""

    code: str
    suite: str
    results: list[Result] = field(default_factory=list)

    @property
    def runs(self) -> int:
        return sum(one.runs for one in self.results)

    @property
    def failed(self) -> list[int]:
        """Seeds."""
        return sorted(one.seed for one in self.results if one.failed)

    def recall(self, file: Path) -> None:
        """What the file has of the same code and suite."""
        if file.exists():
            lines = file.read_text(encoding="utf-8").splitlines()
            every = [Result(**json.loads(line)) for line in lines]
            self.results = [one for one in every if (one.code, one.suite) == (self.code, self.suite)]

    def add(self, result: Result, file: Path) -> None:
        """One more, in the file too."""
        self.results.append(result)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as written:
            written.write(json.dumps(asdict(result)) + "\n")

    def line(self) -> str:
        """The result, in a line."""
        passed = {one.tests for one in self.results if one.tests}
        tests = "-".join(map(str, sorted({min(passed), max(passed)}))) if passed else "no"
        seeds = [one.seed for one in self.results]
        between = f" (seeds {min(seeds)} to {max(seeds)})" if seeds else ""
        spread = sum(one.runs for one in self.results if one.spread)
        whole = sum(one.runs for one in self.results if one.whole)
        failed = f"{len(self.failed)} failed"
        if self.failed:
            failed += f" (seeds {', '.join(map(str, self.failed))}; output in {FOLDER}/)"
        minutes = sum(one.cpu for one in self.results) / 60
        return (
            f"flake: {self.suite} at {self.code}, {tests} tests a session, "
            f"{self.runs} runs in random order in {len(seeds)} sessions{between}, {spread} runs of them under xdist, "
            f"{whole} with the tests that start sessions of their own: "
            f"{failed}, {minutes:.0f} min of processor time"
        )


class Sessions:
    """Pytest sessions as processes. `end` may be called while others run."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = Lock()
        self._cpu = _processor_time()
        self.ended = False

    def end(self) -> None:
        """Kill them; what they bring counts no more."""
        with self._lock:
            self.ended = True
            for process in self._running:
                process.kill()

    def run(self, series: Series, seed: int, whole: bool, runs: int) -> Result | None:
        """One session; its output is kept when it failed. None: it was ended."""
        spread = bool(seed % 2)
        line = command(series.suite, seed, spread, whole, runs)
        began = time.monotonic()
        code, output = self._output_of(line)
        if self.ended:
            return None
        found = re.search(r"(\d+) passed", output)
        failed = bool(code) or found is None
        if failed:
            FOLDER.mkdir(parents=True, exist_ok=True)
            kept = FOLDER / f"seed-{seed}.txt"
            kept.write_text(f"{' '.join(line)}\n\n{output}", encoding="utf-8")
            print(f"seed {seed} failed: {kept}", flush=True)
        passed = int(found[1]) if found is not None and not failed else 0
        seconds = round(time.monotonic() - began, 1)
        return Result(
            series.code, series.suite, seed, spread, whole, runs, passed, failed, seconds, self._more_cpu()
        )

    def _output_of(self, line: list[str]) -> tuple[int, str]:
        with self._lock:
            if self.ended:
                return 1, ""
            process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self._running.add(process)
        try:
            output, _ = process.communicate(timeout=LONGEST)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            return 1, f"still running after {LONGEST:.0f} s\n{output}"
        finally:
            with self._lock:
                self._running.discard(process)

    def _more_cpu(self) -> float:
        """Of everything that has ended since we were asked last, whichever session it belonged to."""
        with self._lock:
            before, self._cpu = self._cpu, _processor_time()
            return round(self._cpu - before, 1)


def command(suite: str, seed: int, spread: bool, whole: bool, runs: int) -> list[str]:
    """One session: a seed is an order, of all runs of all tests; under xdist they are handed out one by one."""
    order = ["--random-order", "--random-order-bucket=global", f"--random-order-seed={seed}"]
    where = ["-n", "2", "--dist", "load"] if spread else ["-n", "0"]
    without = [] if whole else [f"--ignore-glob=/*/{name}" for name in SESSIONS]
    base = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--count={runs}"]
    return [*base, *order, *where, *without, *suite.split()]


def code_here() -> str:
    """The commit that is checked out, with "+" when files differ from it."""
    asked = (
        ["git", "rev-parse", "--short=12", "HEAD"],
        ["git", "status", "--porcelain", "--untracked-files=no"],
    )
    commit, changed = (
        subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip() for line in asked
    )
    return (commit or "no commit") + "+" * bool(changed)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def to_do(series: Series, chosen: argparse.Namespace) -> Iterator[tuple[int, bool, int]]:
    """Seed, whole or not, and runs of each session that is still needed; asked for one when there is room for it."""
    done = {one.seed for one in series.results}
    promised = series.runs
    for seed in count(chosen.first):
        if promised >= chosen.runs:
            return
        if seed not in done:
            whole = seed % chosen.whole_every == 0
            runs = 1 if whole else min(chosen.rounds, chosen.runs - promised)
            promised += runs
            yield seed, whole, runs


def play(series: Series, chosen: argparse.Namespace, sessions: Sessions) -> None:
    """Run what is needed, so many sessions at once."""
    needed = to_do(series, chosen)
    began = time.monotonic()
    running: set[Future[Result | None]] = set()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        try:
            while True:
                late = chosen.minutes and time.monotonic() - began > chosen.minutes * 60
                while not late and len(running) < chosen.jobs and (one := next(needed, None)) is not None:
                    running.add(pool.submit(sessions.run, series, *one))
                if not running:
                    return
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for result in (future.result() for future in ended):
                    if result is not None:
                        series.add(result, FOLDER / "results.jsonl")
                        print(series.line(), flush=True)
        except KeyboardInterrupt:
            print(
                "interrupted: sessions under way do not count, and the same command goes on from here",
                flush=True,
            )
        finally:
            sessions.end()


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
    # Half of a session's time is waiting.
    parser.add_argument("--jobs", type=int, default=1, help="sessions at once")
    parser.add_argument("--minutes", type=float, default=0, help="start no session after them; 0: no end")
    parser.add_argument("--suite", default=SUITE, help="what to run: files, folders, options of pytest")
    chosen = parser.parse_args(arguments)
    series = Series(code_here(), chosen.suite)
    series.recall(FOLDER / "results.jsonl")
    play(series, chosen, Sessions())
    print(series.line(), flush=True)
    return 1 if series.failed or series.runs < chosen.runs else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(main(sys.argv[1:]))
