"""Change the source at random places, one at a time, and see whether a test notices: `python -m tests.mutation`.

Works on the last commit, in a git worktree and with a cosmic-ray of its own, so nothing here is touched.
Prints each change that no test noticed, and the score. Linux's nice 19: it takes what others leave, so tests have a
limit of processor time; one of wall time would take a busy machine for a test that noticed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = ("_arbitration", "_ledger", "_passage", "_straight")
# What notices most changes, within seconds; what passes here is tried once more by all the rules, but for those
# that play thousands of random histories.
QUICK = (
    "test_arbitration",
    "test_ledger",
    "test_actions",
    "test_fin_and_abort",
    "test_allow_drop_abort",
    "test_injection",
    "test_out_of_band",
    "test_defer",
    "test_need_more_data",
    "test_straight.py::test_ind_26_short_and_general_way_are_one[0-True]",
    "test_straight.py::test_ind_26_short_and_general_way_are_one[0-False]",
)
SLOW = (
    "test_retiring",
    "test_random_mixture",
    "test_found_by_chance",
    "test_no_false_alarms",
    "test_mapping",
    "test_threads",
    "test_hard_limits",
    "test_straight",
)
# A test that waits uses no processor time; nobody else may have so much more of it than we.
_PATIENCE = 30
# No plugins but our own: they take longer to load than these tests to run.
INI = "[pytest]\nmarkers =\n    system: other programs\n    long: minutes\n"
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CI": "1"}


def main() -> None:
    """Run it."""
    options = read_options()
    folder: Path = options.folder.resolve()
    tree = folder / "tree"
    make_tree(tree)
    tool = install(folder / "venv")
    session = folder / "session.sqlite"
    session.unlink(missing_ok=True)
    (folder / "pytest.ini").write_text(INI)
    quick, wide = folder / "quick.toml", folder / "wide.toml"
    tests = [f"tests/rules/{name}" for name in map(file_name, QUICK)]
    quick.write_text(config(options.python, tests, folder, 90))
    wide.write_text(config(options.python, wide_tests(tree), folder, 300))
    helper = [tool / "python", Path(__file__).with_name("_sample.py")]
    try:
        for one in (quick, wide):
            run([tool / "cosmic-ray", "baseline", one], tree)
        run([tool / "cosmic-ray", "init", quick, session], tree)
        run([*helper, "choose", session, options.sample, options.seed], tree)
        execute([tool / "cosmic-ray", "exec", quick, session], tree, 0.6 * options.minutes)
        run([*helper, "again", session], tree)
        execute([tool / "cosmic-ray", "exec", wide, session], tree, 0.4 * options.minutes)
        run([*helper, "report", session], tree)
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=False)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutation")
    parser.add_argument("--python", default=sys.executable, help="has the project's tools")
    parser.add_argument("--sample", default="120", help="how many changes")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--minutes", type=float, default=60.0, help="then it stops, and reports what it has")
    return parser.parse_args()


def make_tree(tree: Path) -> None:
    """The last commit, in a folder of its own."""
    if tree.exists():
        shutil.rmtree(tree)
    tree.parent.mkdir(parents=True, exist_ok=True)
    run(["git", "worktree", "prune"], ROOT)
    run(["git", "worktree", "add", "--detach", tree, "HEAD"], ROOT)


def install(folder: Path) -> Path:
    """cosmic-ray in a venv of its own; its programs' folder."""
    if not (folder / "bin" / "cosmic-ray").exists():
        venv.create(folder, with_pip=True, clear=True)
        run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", "cosmic-ray"], ROOT)
    return folder / "bin"


def file_name(name: str) -> str:
    """A test file, or a test in one."""
    return name if "::" in name else f"{name}.py"


def wide_tests(tree: Path) -> list[str]:
    """The connection layers, and all the rules that take seconds, but for the verifier's many tables."""
    rules = sorted(path.stem for path in (tree / "tests" / "rules").glob("test_*.py"))
    chosen = [name for name in rules if name not in SLOW and "violation" not in name]
    return ["tests/fwps", *(f"tests/rules/{name}.py" for name in chosen)]


def config(python: str, tests: list[str], folder: Path, limit: int) -> str:
    """cosmic-ray's configuration: which files, which tests, and how many seconds of a processor they have."""
    modules = ", ".join(f'"wfpstream/fwps/{name}.py"' for name in FILES)
    options = f"-c {folder / 'pytest.ini'} --rootdir=. -x -q -m 'not long' -p no:cacheprovider"
    command = f"{python} -m pytest {options} {' '.join(map(shlex.quote, tests))}"
    limited = shlex.join(["sh", "-c", f"ulimit -t {limit}; exec {command}"])
    return (
        f"[cosmic-ray]\nmodule-path = [{modules}]\ntimeout = {_PATIENCE * limit}.0\nexcluded-modules = []\n"
        f"test-command = {json.dumps(limited)}\n\n"
        '[cosmic-ray.distributor]\nname = "local"\n'
    )


def run(command: list[object], folder: Path) -> None:
    subprocess.run([str(word) for word in command], cwd=folder, check=True, env=ENVIRONMENT)


def execute(command: list[object], folder: Path, minutes: float) -> None:
    """Until all is done, or the time is up."""
    process = subprocess.Popen(["nice", "-n", "19", *map(str, command)], cwd=folder, env=ENVIRONMENT)
    end = time.monotonic() + 60 * minutes
    try:
        process.wait(end - time.monotonic())
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
        print(f"stopped after {minutes:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
