"""Runs of pytest inside a test, over a file of tests that use our fixtures.

Everything they load is loaded here first: what is imported inside such a run is thrown away afterwards.
"""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

from wfpstream import pytest_plugin
from wfpstream.callouts import BUILT_IN, find_callout

__all__ = ["LEAKING", "QUIET", "run", "text_of"]

for _path in Path(pytest_plugin.__file__).parent.glob("_*.py"):
    import_module(f"{pytest_plugin.__name__}.{_path.stem}")
for _name in BUILT_IN:
    find_callout(_name)

# pytest-asyncio has its opinion of a session that does not say this.
QUIET = ("-o", "asyncio_default_fixture_loop_scope=function") if find_spec("pytest_asyncio") else ()

# What a leaking callout looks like, for the tests that want one.
LEAKING = """
import pytest
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout

class Leaking(Callout):
    "Keeps a clone of everything, and lets everything pass."
    kept = []
    def classify_fn(self, fixed, meta, layer_data, context, filter, flow_context, out):
        _, chain = self.fwps.clone_stream_data(layer_data.stream_data)
        self.kept.append(chain)
        out.action_type = int(ActionType.PERMIT)

class Breaking(Callout):
    "Answers for more bytes than it was shown (V-8)."
    def classify_fn(self, fixed, meta, layer_data, context, filter, flow_context, out):
        layer_data.count_bytes_enforced = layer_data.stream_data.data_length + 1
        out.action_type = int(ActionType.PERMIT)
"""


def run(pytester: pytest.Pytester, source: str, *arguments: str, prelude: str = LEAKING) -> pytest.RunResult:
    """Run a file of tests (beside what is in `prelude`), with the plugin's command line options."""
    pytester.makepyfile(test_inner=f"{dedent(prelude)}\n\n{dedent(source)}")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", *QUIET, *arguments)


def text_of(result: pytest.RunResult) -> str:
    """All that it has printed."""
    return re.sub(r"\x1b\[[0-9;]*m", "", result.stdout.str() + result.stderr.str())
