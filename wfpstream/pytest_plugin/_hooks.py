"""The plugin's hooks, as thin as they can be: what they do is made elsewhere, and loaded when a test has use for it.

Owns when things are said and checked. It must import nothing but pytest at its top.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

import pytest

__all__ = [
    "pytest_addoption",
    "pytest_assertrepr_compare",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "pytest_terminal_summary",
]


class WorkerController(Protocol):
    """What xdist tells of a worker."""

    config: pytest.Config
    workerinput: dict[str, Any]


_TRACE = f"{__package__}._trace"
_OURS = frozenset(("wfp_pair", "wfp_proxy", "wfp_proxy_session"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """--wfp-seed, --wfp-chop, --wfp-verify, --wfp-artifacts, --wfp-update-snapshots."""
    from ._options import add_options

    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """The marker; a random seed is chosen."""
    from ._options import configure

    configure(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: WorkerController) -> None:
    """xdist: a worker is about to start."""
    from ._options import tell_worker

    tell_worker(node.config, node.workerinput)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that mixes worlds is told so before anything is started; a marker's mistake too."""
    names = set(getattr(item, "fixturenames", ()))
    if not names & (_OURS | {"wfp_clock", "wfp_trace"}):
        return
    from ._options import settings_of
    from ._watched import begin_test
    from ._worlds import refuse_mixed_worlds

    settings_of(item)
    refuse_mixed_worlds(item)
    begin_test(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Items live as long as the session: what a test has recorded goes with its last report."""
    try:
        return (yield)
    finally:
        if _is_watched(item):
            from ._watched import end_test

            end_test(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Under verify=strict a test fails by what its callouts did, if not by itself."""
    result = yield
    if _is_watched(item):
        from ._report import fail_for_violations

        fail_for_violations(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the streams of a test have to say goes to its report."""
    report = yield
    if _is_watched(item):
        from ._report import tell

        tell(item, report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The violations of tests that passed all the same."""
    from ._report import summarize

    summarize(terminalreporter)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Two traces that differ: where, with arrows."""
    if op != "==" or _TRACE not in (type(left).__module__, type(right).__module__):
        return None
    from ._trace import explain_difference

    return explain_difference(left, right)


def _is_watched(item: pytest.Item) -> bool:
    return not _OURS.isdisjoint(getattr(item, "fixturenames", ()))
