"""What a test's report says of its streams: violations, and of a failed one how to look closer and run it again.

Owns the words and when they are said. It must not know how proxies and pairs are made; they are told of by `watch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from ._artifacts import reproducing_command, trace_of, write_artifacts
from ._options import settings_of
from ._watched import watched_by

if TYPE_CHECKING:
    from ._options import Settings
    from ._watched import Watched

__all__ = ["VIOLATIONS", "fail_for_violations", "new_violations", "summarize", "tell"]

VIOLATIONS = "wfpstream violations"
_FAILURE = "wfpstream"
_LAST_LINES = 40
_MOST_SUMMARIZED = 50


def fail_for_violations(item: pytest.Item) -> None:
    """Fail a test whose body is over if a callout broke the contract, and `verify` is strict."""
    watched = watched_by(item)
    if not watched or settings_of(item).verify != "strict":
        return
    lines = [line for one in watched for line in new_violations(one)]
    if lines:
        pytest.fail("\n".join(["a callout broke its contract:", *lines]), pytrace=False)


def new_violations(watched: Watched) -> list[str]:
    """Lines about the violations that nobody was told of yet."""
    found = _broken_rules(watched)
    fresh, watched.told = found[watched.told :], len(found)
    return [f"{watched.label}: {_describe(one)}" for one in fresh]


def tell(item: pytest.Item, report: pytest.TestReport) -> None:
    """Add to a test's report what its streams have to say."""
    watched = watched_by(item)
    if not watched:
        return
    violations = _unique(
        f"{one.label}: {_describe(event)}" for one in watched for event in _broken_rules(one)
    )
    if violations and report.when in ("call", "teardown"):
        report.sections.append((VIOLATIONS, "\n".join(violations)))
    if report.failed:
        report.sections.append((_FAILURE, "\n".join(_of_failure(item, settings_of(item), watched))))


def summarize(terminal: pytest.TerminalReporter) -> None:
    """The violations of tests that passed all the same, at the end of the run."""
    # A violation may be found out when the test itself had passed: pytest files passed teardowns under "".
    passed = [report for category in ("passed", "") for report in terminal.stats.get(category, [])]
    failed = {one.nodeid for category in ("failed", "error") for one in terminal.stats.get(category, [])}
    told = {
        report.nodeid: text
        for report in passed
        for name, text in getattr(report, "sections", ())
        if name == VIOLATIONS and report.nodeid not in failed
    }
    if not told:
        return
    terminal.section(f"wfpstream: {len(told)} passed with violations of the callout contract")
    for nodeid, text in list(told.items())[:_MOST_SUMMARIZED]:
        terminal.line(nodeid)
        for line in text.splitlines():
            terminal.line(f"  {line}")
    if len(told) > _MOST_SUMMARIZED:
        terminal.line(f"... and {len(told) - _MOST_SUMMARIZED} more tests")
    terminal.line("They fail the tests with --wfp-verify=strict.")


def _broken_rules(watched: Watched) -> list[dict[str, Any]]:
    """Lints (severity L) are hints; those that go by the clock come and go with the machine's load (VRF-3)."""
    return [event for event in watched.violations if event.get("severity") != "L"]


def _describe(event: dict[str, Any]) -> str:
    """One violation in one line."""
    from wfpstream.observe import safe_text

    named = {
        "callout": "{}",
        "filter": "(filter {})",
        "dir": "{}",
        "offset": "at byte {}",
        "flow": "of flow {}",
    }
    who = [form.format(event[key]) for key, form in named.items() if event.get(key) not in (None, "")]
    where = f", {event['where']}" if event.get("where") else ""
    documented = f" ({', '.join(event['documented'])})" if event.get("documented") else ""
    rule = f"; {event['says'].rstrip('.')}{documented}" if event.get("says") else ""
    return safe_text(f"{' '.join([event['rule'], *who])}{where}: {event.get('text', '')}{rule}")


def _of_failure(item: pytest.Item, settings: Settings, watched: Sequence[Watched]) -> list[str]:
    lines = [f"run it again: {reproducing_command(item, settings)}"]
    if settings.artifacts is None:
        lines.append("--wfp-artifacts=DIR keeps the events, a capture of both sides, and the whole trace")
    else:
        try:
            written = write_artifacts(settings.artifacts, item, settings, watched)
        except OSError as error:
            lines.append(f"--wfp-artifacts: nothing could be written: {error}")
        else:
            lines += ["artifacts:", *(f"  {path}" for path in written)]
    for one in watched:
        trace = trace_of(one)
        if trace:
            left_out = len(trace) - _LAST_LINES
            lines.append(f"{one.label}{f', the last {_LAST_LINES} lines' if left_out > 0 else ''}:")
            lines += [f"  {line}" for line in trace[-_LAST_LINES:]]
    return lines


def _unique(lines: Iterable[str]) -> list[str]:
    """Each line once, with how often it came."""
    counts: dict[str, int] = {}
    for line in lines:
        counts[line] = counts.get(line, 0) + 1
    return [line if count == 1 else f"{line} [{count} times]" for line, count in counts.items()]
