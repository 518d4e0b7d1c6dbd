"""What is wrong with a configuration, in a form that a person can act on.

Owns the records of problems and the exception that carries them. Knows nothing of TOML or of the engine.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]


def format_path(path: KeyPath) -> str:
    """`("rule", 0, "when")` as a person writes it: `rule[0].when`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean "find"?`, or what there is to choose from; empty when there is nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; known: {', '.join(names)}" if names else ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it stands (key path, line where known) and what was expected."""

    path: KeyPath
    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = format_path(self.path)
        return f"{where}: {self.text}" if where else self.text


class ConfigError(Exception):
    """A configuration, a CALLOUT or a SPEC that cannot be used.

    Args:
        problems: what is wrong, in the order of the file.
        source: the file's name, or empty for something given on the command line.
    """

    def __init__(self, problems: Sequence[Problem] | str, source: str = "") -> None:
        self.problems = (Problem((), problems),) if isinstance(problems, str) else tuple(problems)
        self.source = source
        super().__init__("; ".join(self.lines()))

    def lines(self) -> list[str]:
        """One line per problem: `FILE:LINE: key.path: what was expected`."""
        return [self._line(problem) for problem in self.problems]

    def _line(self, problem: Problem) -> str:
        if not self.source:
            return str(problem)
        at = f"{self.source}:{problem.line}" if problem.line is not None else self.source
        return f"{at}: {problem}"
