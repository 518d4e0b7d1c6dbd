"""Where each key of a TOML text stands: key path to line number.

`tomllib` reads the values and tells no positions, so this walks the text a second time. It only ever sees
text that `tomllib` accepted, so it need not detect errors, and it never interprets a value.
"""

from __future__ import annotations

import re

from wfpstream.config._errors import KeyPath

_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}\n#]*")
_STRINGS = tuple(
    (mark, re.compile(pattern, re.DOTALL))
    for mark, pattern in (
        # A run of up to five quotes ends a multi-line string: two of them are its last characters.
        ('"""', r'"""(?:\\.|(?!""")[^\\])*"{3,5}'),
        ("'''", r"'''(?:(?!''').)*'{3,5}"),
        ('"', r'"(?:\\.|[^"\\])*"'),
        ("'", r"'[^']*'"),
    )
)


def find_lines(text: str) -> dict[KeyPath, int]:
    """The line (from 1) of every key, table header and array element of a valid TOML text."""
    return _Walker(text).walk()


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of `path`, or of the nearest thing around it that is written in the file."""
    for end in range(len(path), 0, -1):
        if path[:end] in lines:
            return lines[path[:end]]
    return None


def end_of_string(text: str, at: int) -> int | None:
    """Where the TOML string that begins at `at` ends, or None if none begins (or ends) there."""
    for mark, pattern in _STRINGS:
        if text.startswith(mark, at):
            match = pattern.match(text, at)
            return match.end() if match else None
    return None


class _Walker:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._counted = 0
        self._line = 1
        self._lines: dict[KeyPath, int] = {}
        self._arrays: dict[KeyPath, int] = {}

    def walk(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_BLANK)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        if match:
            self._at = match.end()

    def _note(self, path: KeyPath) -> None:
        # Positions only grow, so each newline is counted once.
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        self._lines.setdefault(path, self._line)

    def _header(self) -> KeyPath:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        start = self._at
        self._at += brackets
        *parents, last = self._dotted_key()
        end, self._at = self._at, start
        path: KeyPath = ()
        for part in parents:
            self._note((*path, part))
            path = self._entered((*path, part))
        path = (*path, last)
        self._note(path)
        if brackets == 2:
            self._arrays[path] = self._arrays.get(path, -1) + 1
        path = self._entered(path)
        self._note(path)
        self._at = end + brackets
        return path

    def _entered(self, path: KeyPath) -> KeyPath:
        """`path`, with the index of its newest element if it is an array of tables."""
        index = self._arrays.get(path)
        return path if index is None else (*path, index)

    def _dotted_key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_SPACE)
            end = end_of_string(self._text, self._at)
            if end is not None:
                parts.append(self._text[self._at + 1 : end - 1])
                self._at = end
            else:
                start = self._at
                self._skip(_BARE_KEY)
                parts.append(self._text[start : self._at])
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        key = self._dotted_key()
        after, self._at = self._at, start
        path = table
        for part in key:
            path = (*path, part)
            self._note(path)
        self._at = self._text.index("=", after) + 1
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        end = end_of_string(self._text, self._at)
        if end is not None:
            self._at = end
        elif self._text.startswith("[", self._at):
            self._array(path)
        elif self._text.startswith("{", self._at):
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: KeyPath) -> None:
        index = 0
        self._at += 1
        self._skip(_BLANK)
        while not self._text.startswith("]", self._at):
            self._note((*path, index))
            self._value((*path, index))
            index += 1
            self._comma()
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._skip(_BLANK)
        while not self._text.startswith("}", self._at):
            self._pair(path)
            self._comma()
        self._at += 1

    def _comma(self) -> None:
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
        self._skip(_BLANK)
