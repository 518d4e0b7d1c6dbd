"""The sample project in examples/: its tests, run from an installed wheel in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.system import missing, require

pytestmark = [pytest.mark.system("redis-server"), pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

# What pip says when it reaches no index, as against what it says of a package it cannot install.
_NO_INDEX = re.compile(
    r"Failed to establish a new connection|Temporary failure in name resolution|Read timed out"
)


def run(*command: str | Path, cwd: Path) -> str:
    """Output of a command that has to succeed."""
    # Neither our environment's packages nor its options for pytest may be seen by the sample.
    mine = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("PYTHON", "PYTEST", "WFPSTREAM"))
    }
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=mine, capture_output=True, text=True, timeout=500, check=False
    )
    output = done.stdout + done.stderr
    if done.returncode and _NO_INDEX.search(output):
        missing("no package index can be reached")
    assert done.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sample, with `venv/` beside it."""
    require("redis-server")
    folder = tmp_path_factory.mktemp("sample")
    sample, dist, python = folder / "examples", folder / "dist", folder / "venv/bin/python"
    shutil.copytree(ROOT / "examples", sample, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    pip = ("-m", "pip", "--disable-pip-version-check")
    run(sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", dist, ROOT, cwd=folder)
    [wheel] = dist.glob("wfpstream-*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    run(python, *pip, "install", wheel, f"{sample}[test]", cwd=folder)
    return sample


def test_its_requirements_bring_the_fixtures_from_the_wheel(installed: Path) -> None:
    python = installed.parent / "venv/bin/python"
    place = run(python, "-c", "import wfpstream; print(wfpstream.__file__)", cwd=installed)
    assert Path(place.strip()).is_relative_to(installed.parent / "venv")
    assert "wfp_proxy" in run(python, "-m", "pytest", "--fixtures", "-q", cwd=installed)


def test_its_ten_tests_pass(installed: Path) -> None:
    """Plain, asyncio and trio tests against a real redis and a real HTTP server, warnings being errors."""
    python = installed.parent / "venv/bin/python"
    assert re.search(r"\b10 passed in ", run(python, "-m", "pytest", cwd=installed))
