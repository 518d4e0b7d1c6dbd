"""`wfp_trace`: what a test's streams did, to look at, to compare, and to script.

Owns what the fixture offers. Lines, playbooks and canonical logs are `wfpstream.testing`'s; files are `_snapshots`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from wfpstream.testing import Pair, Playbook, canonical, first_difference, normal_line

from ._artifacts import trace_of
from ._options import settings_of
from ._snapshots import UPDATE, snapshot_of
from ._watched import watched_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._watched import Watched

__all__ = ["Trace", "explain_difference"]

_NAMES = ("snapshot", "happened")


class Trace:
    """The decision log of a test: what came in, what callouts were shown and answered, what went out.

    Compare it with text (`assert wfp_trace == "..."`), with a snapshot (`wfp_trace.assert_snapshot()`), or write
    what is to happen first (`wfp_trace.play("...")`).
    """

    def __init__(self, node: pytest.Item) -> None:
        self._node = node
        self._playbooks: list[Playbook] = []

    # -- looking ---------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """What happened so far, line by line; several pairs or proxies each under a heading of their own."""
        return self._under_headings(trace_of)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def __repr__(self) -> str:
        return f"<wfp_trace of {len(self.lines)} lines>"

    @property
    def canonical(self) -> str:
        """What is the same wherever the streams were cut, in every world: each byte's fate, stage by stage."""
        return "\n".join(self._under_headings(_canonical_of))

    # -- comparing -------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """With text, or another trace, line by line; empty lines and spaces at the borders of lines do not count."""
        if not isinstance(other, str | Trace):
            return NotImplemented
        return not self.diff(other)

    __hash__ = None  # type: ignore[assignment]

    def diff(self, expected: str | Trace) -> str:
        """Where this differs first from what was expected, with arrows; "" if it does not.

        `<< ...` in `expected` stands for any lines.
        """
        wanted = expected.lines if isinstance(expected, Trace) else _lines_of(expected)
        return first_difference(wanted, self.lines)

    def assert_snapshot(self, name: str = "") -> None:
        """Compare with the snapshot of this test, or write it with --wfp-update-snapshots.

        Decisions are compared line by line. Where the streams are not cut as the test says (a live proxy, or
        --wfp-chop), the canonical log is compared instead, which is the same for every cut.

        Args:
            name: tells several snapshots of one test apart.
        """
        __tracebackhide__ = True
        snapshot = snapshot_of(self._node, name)
        sections = self._sections()
        try:
            if self._node.config.option.wfp_update_snapshots:
                snapshot.write(sections)
                return
            stored = snapshot.read()
        except (OSError, UnicodeDecodeError) as error:
            pytest.fail(f"the snapshot {snapshot.path} cannot be used: {error}", pytrace=False)
        if stored is None:
            raise AssertionError(f"there is no snapshot {snapshot.path} yet: run the test once with {UPDATE}")
        for section, lines in sections.items():
            self._compare(section, stored.get(section), lines, f"{snapshot.path}: [{section}]")

    def _compare(self, section: str, stored: list[str] | None, lines: list[str], where: str) -> None:
        __tracebackhide__ = True
        if stored is None:
            if section == "decisions":
                return  # it was written where cuts are not the test's: the canonical log is what counts
            raise AssertionError(f"{where} is missing; {UPDATE} writes it anew")
        difference = first_difference(stored, lines, _NAMES)
        if difference:
            raise AssertionError(
                f"the trace is not the one of {where}\n{difference}\n{UPDATE} makes it the new snapshot"
            )

    # -- scripting -------------------------------------------------------------------------------------------

    def playbook(self, pair: Pair | None = None, text: str = "") -> Playbook:
        """A script of a pair (the only one there is, unless one is given), to be written with >> and <<.

        It has to be played: one that was forgotten fails the test.

        Raises:
            pytest.UsageError: there is no pair, or there are several.
            PlaybookError: the text is not well-formed.
        """
        __tracebackhide__ = True
        book = Playbook(pair if pair is not None else self._only_pair(), text)
        self._playbooks.append(book)
        return book

    def play(self, text: str, pair: Pair | None = None) -> None:
        """Do what the lines say (`>> client b'abc'`), and compare with what they expect (`<< server b'abc'`).

        Raises:
            AssertionError: something else happened; the first difference is marked with arrows.
            pytest.UsageError, PlaybookError: as `playbook`; or a line cannot be done.
        """
        __tracebackhide__ = True
        self.playbook(pair, text).play()

    def finish(self) -> None:
        """Fail if a playbook was written and not played."""
        forgotten = sum(not book.played for book in self._playbooks)
        if forgotten:
            pytest.fail(f"{forgotten} playbook(s) of wfp_trace were written and never played", pytrace=False)

    # -- inside ----------------------------------------------------------------------------------------------

    def _only_pair(self) -> Pair:
        __tracebackhide__ = True
        pairs = [one.pair for one in watched_by(self._node) if one.pair is not None]
        if not pairs:
            raise pytest.UsageError(
                "a playbook drives the two ends of a wfp_pair, and this test has made none: begin with "
                "pair = wfp_pair([...]). Over a wfp_proxy the clients and servers are the test's own."
            )
        if len(pairs) > 1:
            raise pytest.UsageError(f"this test has {len(pairs)} pairs: say which one, playbook(pair)")
        return pairs[0]

    def _sections(self) -> dict[str, list[str]]:
        cut_as_said = not settings_of(self._node).chop and all(
            one.kind == "pair" for one in watched_by(self._node)
        )
        sections = {"decisions": [normal_line(line) for line in self.lines]} if cut_as_said else {}
        return sections | {"canonical": self.canonical.splitlines()}

    def _under_headings(self, make: Callable[[Watched], list[str]]) -> list[str]:
        watched = watched_by(self._node)
        if len(watched) == 1:
            return make(watched[0])
        return [line for one in watched for line in (f"== {one.label}", *make(one))]


def explain_difference(left: object, right: object) -> list[str] | None:
    """What pytest says under a comparison of a trace with text or with another one; None if it is none."""
    if isinstance(left, Trace) and isinstance(right, str | Trace):
        return ["the trace is another one", *left.diff(right).splitlines()]
    if isinstance(right, Trace) and isinstance(left, str):
        return ["the trace is another one", *right.diff(left).splitlines()]
    return None


def _canonical_of(watched: Watched) -> list[str]:
    return str(canonical(watched.events)).splitlines()


def _lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
