"""Playbooks: what the two ends of a pair do, and everything that is to come of it, in the notation of traces.

Owns playing one and showing where it went another way. It must not know pytest or files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ._chop import Chop
from ._pair import Pair, PairEnd
from ._recorder import Recorder
from ._trace_lines import literal, normal_line, trace_lines

DONE, EXPECTED, TIME = ">>", "<<", "--"
ANYTHING = "<< ..."
_CONTEXT = 4
_SAME_INSTANT = 1e-6
_INPUTS = "b'bytes', urgent b'!', fin, reset, receive, receive N, window N, window none"


class PlaybookError(ValueError):
    """A playbook that is not well-formed; the text says which line, and what is expected there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a playbook: its mark (`>>`, `<<` or `--`), what follows that, and its number, from 1."""

    mark: str
    text: str
    number: int

    def __str__(self) -> str:
        return f"{self.mark} {self.text}"

    @property
    def normal(self) -> str:
        """As a trace would have it."""
        return normal_line(str(self))


class Playbook:
    """A script of a pair. Lines as in a trace (`trace_lines`): `>>` is done, `<<` is expected to come of it.

    ::

        book = Playbook(pair) >> "client b'a rai'" << "stream_edit to_upstream b'a rai' permit 2" << ...
        book.play()

    or as one text: `Playbook(pair, text).play()`. `-- 0.3 s` lets virtual time pass until then. `<< ...` stands for
    any lines until the next one. Beside what a trace shows, `>> server receive` and `>> server receive N` take what
    has arrived, `>> server window N` rules how much more the server keeps. Empty lines and what follows a `#` at the
    beginning of a line are left out.

    Args:
        pair: must have a recorder. A chop has no power over it: a playbook says its own segments.
        text: lines to begin with.

    Attributes:
        played: `play` was called.
    """

    def __init__(self, pair: Pair, text: str = "") -> None:
        __tracebackhide__ = True  # where pytest shows tracebacks, the line of the test is what counts
        if pair.recorder is None:
            raise PlaybookError("a playbook needs a pair that is recorded")
        self.played = False
        self._pair = pair
        self._lines: list[Line] = []
        for number, line in enumerate(text.splitlines(), 1):
            self._add(line.strip(), number)

    def __rshift__(self, line: str) -> Playbook:
        """Then this is done: `>> "client b'abc'"`."""
        __tracebackhide__ = True
        self._add(f">> {line}", len(self._lines) + 1)
        return self

    def __lshift__(self, line: str) -> Playbook:
        """And this is expected of it: `<< "server b'abc'"`."""
        __tracebackhide__ = True
        self._add(f"<< {line}", len(self._lines) + 1)
        return self

    def play(self) -> list[str]:
        """Do what it says, and compare.

        Returns:
            What happened, as lines.

        Raises:
            AssertionError: something else happened; the first difference is marked with arrows.
            PlaybookError: a line cannot be done, for instance receiving where nothing has arrived.
        """
        __tracebackhide__ = True
        self.played = True
        recorder = self._pair.recorder
        assert recorder is not None
        chop, recorder.chop = recorder.chop, Chop()
        happened: list[str] = []
        try:
            for line in self._lines:
                if line.mark != EXPECTED:
                    happened += [line.normal, *self._perform(line, recorder)]
        finally:
            recorder.chop = chop
        difference = first_difference([line.normal for line in self._lines], happened)
        if difference:
            raise AssertionError(f"the playbook went another way:\n{difference}")
        return happened

    # -- reading it ------------------------------------------------------------------------------------------

    def _add(self, line: str, number: int) -> None:
        __tracebackhide__ = True
        if not line or line.startswith("#"):
            return
        read = Line(line[:2], line[2:].strip(), number)
        try:
            if read.mark not in (DONE, EXPECTED, TIME):
                raise ValueError("a line begins with >>, << or --")
            normal_line(read.text)
            if read.mark == DONE:
                self._input(read.text)
            elif read.mark == TIME:
                self._refuse_before_last(_instant(read.text))
        except ValueError as error:
            raise PlaybookError(f"playbook, line {number}: {error}: {line}") from None
        self._lines.append(read)

    def _refuse_before_last(self, instant: float) -> None:
        """A time is counted from the beginning, so that a later line has a later one."""
        last = max((_instant(line.text) for line in self._lines if line.mark == TIME), default=0.0)
        if instant < last:
            raise ValueError(f"time does not go back: it is {last:g} s already, counted from the beginning")

    def _input(self, text: str) -> Callable[[], object]:
        """What an input line does."""
        name, _, rest = text.partition(" ")
        rest = rest.strip()
        if name not in ("client", "server"):
            raise ValueError(f"expected client or server, not {name!r}")
        end: PairEnd = getattr(self._pair, name)
        verb, _, argument = rest.partition(" ")
        if rest.startswith(("b'", 'b"')):
            data = literal(rest)
            return lambda: end.send(data)
        if verb == "urgent":
            byte = literal(argument)
            return lambda: end.send(byte, urgent=True)
        if verb == "receive":
            count = _number(argument, at_least=1) if argument else None
            return lambda: end.receive(count)
        if verb == "window":
            size = None if argument == "none" else _number(argument, at_least=0)
            return lambda: setattr(end, "window", size)
        plain = {"fin": end.close_write, "reset": end.reset}.get(rest)
        if plain is None:
            raise ValueError(f"after {name} expected one of {_INPUTS}")
        return plain

    # -- playing it ------------------------------------------------------------------------------------------

    def _perform(self, line: Line, recorder: Recorder) -> list[str]:
        """Do one line. Returns what came of it."""
        __tracebackhide__ = True
        begin = len(recorder.entries)
        try:
            if line.mark == DONE:
                self._input(line.text)()
            else:
                self._advance(_instant(line.text))
        except (OSError, ValueError) as error:
            raise PlaybookError(f"playbook, line {line.number}: {line}: {error}") from None
        # What the engine reads now may have been sent by an earlier line: only what came of it counts.
        first = self._pair.ends.flow.number
        came = trace_lines(recorder.entries[begin:], with_time=False, first=first)
        return [one for one in came if one.startswith(EXPECTED)]

    def _advance(self, instant: float) -> None:
        """Until then, and to what is due so close to it that a trace writes both alike."""
        self._pair.advance(max(0.0, instant - self._pair.now))
        while (due := self._pair.driver.next_instant()) is not None and due - instant < _SAME_INSTANT:
            self._pair.advance(max(0.0, due - self._pair.now))


def first_difference(
    expected: Sequence[str], happened: Sequence[str], names: tuple[str, str] = ("expected", "happened")
) -> str:
    """Where two traces differ first, with what precedes it and arrows; "" if they do not.

    `<< ...` of `expected` stands for any lines until the next one.

    Raises:
        ValueError: a byte string in a line is not well-formed.
    """
    wanted = [normal_line(line) for line in expected]
    found = [normal_line(line) for line in happened]
    place = at = 0
    while place < len(wanted):
        if wanted[place] == ANYTHING:
            place += 1
            at = _skip_to(wanted, place, found, at)
        elif at < len(found) and found[at] == wanted[place]:
            place += 1
            at += 1
        else:
            return _show(wanted, place, found, at, names)
    return "" if at == len(found) else _show(wanted, place, found, at, names)


def _skip_to(wanted: list[str], place: int, found: list[str], at: int) -> int:
    """The first line at or behind `at` that is the next one wanted; the end if none is or nothing more is."""
    if place == len(wanted):
        return len(found)
    return next((i for i in range(at, len(found)) if found[i] == wanted[place]), len(found))


def _show(wanted: list[str], place: int, found: list[str], at: int, names: tuple[str, str]) -> str:
    width = max(len(name) for name in names)
    missing, instead = (
        wanted[place] if place < len(wanted) else "(nothing more)",
        found[at] if at < len(found) else "(nothing more)",
    )
    lines = [f"{'':{width}}    {line}" for line in found[max(0, at - _CONTEXT) : at]]
    lines.append(f"{names[0]:{width}} -> {missing}")
    lines.append(f"{names[1]:{width}} => {instead}")
    column = next((i for i, (a, b) in enumerate(zip(missing, instead, strict=False)) if a != b), None)
    if column is None:
        column = min(len(missing), len(instead))
    lines.append(f"{'':{width}}    {'':{column}}^")
    lines += [f"{'then':>{width}}    {line}" for line in found[at + 1 : at + 1 + _CONTEXT]]
    return "\n".join(line.rstrip() for line in lines)


def _number(text: str, at_least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= at_least):
        raise ValueError(f"expected a number of bytes, {at_least} or more, not {text!r}")
    return int(text)


def _instant(text: str) -> float:
    number, _, unit = text.partition(" ")
    instant = float(number) if unit.strip() == "s" else math.nan
    if not 0 <= instant < math.inf:
        raise ValueError("expected a time such as -- 0.3 s")
    return instant
