"""Many patterns compiled into one, and streams searched for all of them at once (hyperscan, extra `match`).

Owns the compiling, the databases that callouts share, and the streams; everything that is peculiar about the library
stays in here. It must not know callouts or flows. `import hyperscan` happens at the first compile.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakValueDictionary

INSTALL: Final = "pattern_set needs hyperscan, which is not installed: pip install 'wfpstream[match]'"

# How a pattern is shown in an error or a log line, characters.
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern and its number: the line of the file, or the place in the list, from 1."""

    number: int
    text: bytes

    def __str__(self) -> str:
        text = self.text.decode("ascii", "backslashreplace")
        return f"pattern {self.number} {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'!r}"


@dataclass(frozen=True, slots=True)
class Syntax:
    """How patterns are meant: literally, or as regular expressions, with what flags."""

    regex: bool = False
    caseless: bool = False
    multiline: bool = False
    dotall: bool = False
    once: bool = False


def why_unavailable() -> str:
    """One line that says what to install; empty when all is there."""
    try:
        import hyperscan  # noqa: F401
    except ImportError:
        return INSTALL
    return ""


def read_patterns(patterns: bytes | str | Sequence[bytes | str]) -> tuple[Pattern, ...]:
    """The patterns of a list, or of a text with one a line; blank lines are left out, a final CR is not part of one.

    Raises:
        ValueError: there is none, or one of a list is empty.
    """
    if isinstance(patterns, bytes | str):
        lines = [line.removesuffix(b"\r") for line in _as_bytes(patterns).split(b"\n")]
        found = tuple(Pattern(number, line) for number, line in enumerate(lines, 1) if line)
    else:
        found = tuple(Pattern(number, _as_bytes(text)) for number, text in enumerate(patterns, 1))
        for pattern in found:
            if not pattern.text:
                raise ValueError(f"pattern {pattern.number} is empty")
    if not found:
        raise ValueError("expected at least one pattern")
    return found


def _as_bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


class PatternDatabase:
    """Compiled patterns; any number of streams of any number of callouts may use one.

    Args:
        patterns: what to look for.
        syntax: how they are meant.

    Raises:
        ValueError: hyperscan is not there, or refuses a pattern, which is named.
    """

    def __init__(self, patterns: tuple[Pattern, ...], syntax: Syntax) -> None:
        unavailable = why_unavailable()
        if unavailable:
            raise ValueError(unavailable)
        self.syntax = syntax
        self.patterns = {pattern.number: pattern for pattern in patterns}
        self._database = _compile(patterns, syntax)
        # Scans have a scratch each; closing can only use the database's own.
        self._closing = threading.Lock()

    def scratch(self) -> Any:
        """Working memory for one scan at a time."""
        import hyperscan

        return hyperscan.Scratch(self._database)

    def open(self, scratch: Any) -> PatternStream:
        """A stream from its beginning."""
        return PatternStream(self, self._database, scratch, self._closing)


class PatternStream:
    """One stream of bytes, searched piece by piece; the hits do not depend on how it was cut."""

    __slots__ = ("_closing", "_database", "_found", "_handler", "_owner", "_scratch", "_stream", "scanned")

    def __init__(self, owner: PatternDatabase, database: Any, scratch: Any, closing: threading.Lock) -> None:
        self._stream: Any = None
        self._owner = owner  # the stream of the library keeps neither database nor handler alive
        self._database = database
        self._scratch = scratch
        self._closing = closing
        self._found: list[tuple[int, int]] = []
        self._handler = self._note
        self.scanned = 0
        self._stream = database.stream(match_event_handler=self._handler)
        self._stream.__enter__()

    def _note(self, number: int, start: int, end: int, flags: int, context: object) -> None:
        self._found.append((end, number))

    def scan(self, data: memoryview) -> list[tuple[int, int]]:
        """(end, number) of every hit that ends in `data`, in this order; `end` counts from the stream's beginning."""
        self._stream.scan(data, scratch=self._scratch, match_event_handler=self._handler)
        self.scanned += len(data)
        return self._taken()

    def end(self) -> list[tuple[int, int]]:
        """The stream ends here: the hits that only its end makes (`$`)."""
        self._close(self._handler)
        return self._taken()

    def close(self) -> None:
        """Give up the stream: nobody knows how it would have ended."""
        if self._stream is not None:
            self._close(_ignore)

    def _taken(self) -> list[tuple[int, int]]:
        found = self._found
        if not found:
            return found
        self._found = []
        return sorted(set(found))

    def _close(self, handler: Any) -> None:
        stream, self._stream = self._stream, None
        with self._closing:
            stream.close(match_event_handler=handler)

    def __del__(self) -> None:
        self.close()  # the library would leak it


def _ignore(number: int, start: int, end: int, flags: int, context: object) -> None:
    """A hit nobody wants."""


_shared: WeakValueDictionary[tuple[tuple[Pattern, ...], Syntax], PatternDatabase] = WeakValueDictionary()


def database_for(patterns: tuple[Pattern, ...], syntax: Syntax) -> PatternDatabase:
    """The database of these patterns; the same one as long as somebody has it. Raises as `PatternDatabase`."""
    key = (patterns, syntax)
    database = _shared.get(key)
    if database is None:
        database = _shared[key] = PatternDatabase(patterns, syntax)
    return database


def _compile(patterns: Sequence[Pattern], syntax: Syntax) -> Any:
    import hyperscan

    try:
        return _compiled(patterns, syntax)
    except hyperscan.error as error:
        refused, why = _refused_one(patterns, syntax, error)
        what = str(refused) if refused is not None else f"{len(patterns)} patterns together"
        raise ValueError(f"{what}: {_one_line(why)}") from error


def _refused_one(
    patterns: Sequence[Pattern], syntax: Syntax, error: Exception
) -> tuple[Pattern | None, Exception]:
    """Which pattern the library means, by halves: it does not say so. None where each half of a set is all right."""
    import hyperscan

    while len(patterns) > 1:
        middle = len(patterns) // 2
        for half in (patterns[:middle], patterns[middle:]):
            try:
                _compiled(half, syntax)
            except hyperscan.error as narrower:
                patterns, error = half, narrower
                break
        else:
            return None, error
    return patterns[0], error


def _compiled(patterns: Sequence[Pattern], syntax: Syntax) -> Any:
    import hyperscan

    flags = hyperscan.HS_FLAG_CASELESS if syntax.caseless else 0
    flags |= hyperscan.HS_FLAG_SINGLEMATCH if syntax.once else 0
    if syntax.regex:
        flags |= hyperscan.HS_FLAG_MULTILINE if syntax.multiline else 0
        flags |= hyperscan.HS_FLAG_DOTALL if syntax.dotall else 0
    # The library reads a pattern up to its first zero byte.
    zero = any(b"\0" in one.text for one in patterns)
    texts = [one.text for one in patterns]
    if zero:
        texts = [text.replace(b"\0", rb"\x00") if syntax.regex else _spelled_out(text) for text in texts]
    database = hyperscan.Database(mode=hyperscan.HS_MODE_STREAM)
    database.compile(
        expressions=texts,
        ids=[one.number for one in patterns],
        flags=[flags] * len(patterns),
        literal=not (syntax.regex or zero),
    )
    return database


def _spelled_out(text: bytes) -> bytes:
    """A regular expression that means these bytes."""
    return b"".join(rb"\x%02x" % byte for byte in text)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
