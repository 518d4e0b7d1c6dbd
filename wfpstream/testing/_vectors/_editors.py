"""The ideal inline editors that some vectors name instead of scripting every answer.

Owns the two styles: N asks for more data, K keeps a private copy. docs/reference/vectors.md has them in words, for a
harness of another language. They know nothing of callouts: bytes in, injections and an answer out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from wfpstream.fwps import ClassifyOutFlags, StreamFlags

from ._text import DISCONNECT, Answer, decode_bytes, parse_answer

_ABORT = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
_ALL = parse_answer("P 0")
_TAKE = parse_answer("B 0")

Decision = tuple[list[bytes], Answer]
"""What to inject before the answer, and the answer."""


class Editor(Protocol):
    """What decides in a scripted callout's place."""

    def decide(self, flags: int, data: bytes, out_flags: int) -> Decision:
        """One call: stream flags, bytes shown, flags of FWPS_CLASSIFY_OUT0."""
        ...


def make_editor(spec: dict[str, Any]) -> Editor:
    """The editor of a vector's `edit`. Raises KeyError: no such style."""
    styles: dict[str, Callable[[dict[str, Any]], Editor]] = {"N": _Waiting, "K": _Keeping}
    return styles[spec["style"]](spec)


class _Replacing:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.find = decode_bytes(spec["find"])
        self.replacement = decode_bytes(spec["replace"])
        self.asks = int(spec.get("asks", len(self.find)))

    def replaced(self, blocked: int) -> Decision:
        """A match of which `blocked` bytes are at the head of what is shown (INL-1, INL-6)."""
        return [self.replacement] if self.replacement else [], parse_answer(f"B {blocked}")

    def before_match(self, data: bytes) -> Decision | None:
        """The decision while no match is under way; None: all of it could be the start of one."""
        at = data.find(self.find)
        if at == 0:
            return self.replaced(len(self.find))
        if at < 0:
            tail = _start_of_match(data, self.find)
            if tail == len(data):
                return None
            at = len(data) - tail if tail else 0
        return [], parse_answer(f"P {at}")


class _Waiting(_Replacing):
    """Style N."""

    def decide(self, flags: int, data: bytes, out_flags: int) -> Decision:
        if flags & (DISCONNECT | _ABORT):
            return [], _ALL
        decision = self.before_match(data)
        if decision is not None:
            return decision
        last = out_flags & ClassifyOutFlags.NO_MORE_DATA
        return [], _ALL if last else parse_answer(f"NMD {self.asks}")


class _Keeping(_Replacing):
    """Style K: one private copy per direction."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__(spec)
        self._kept = {False: b"", True: b""}

    def decide(self, flags: int, data: bytes, out_flags: int) -> Decision:
        inbound = bool(flags & StreamFlags.RECEIVE)
        if flags & _ABORT:
            return [], _ALL
        kept, self._kept[inbound] = self._kept[inbound], b""
        if flags & DISCONNECT:
            return [kept] if kept else [], _ALL
        injected: list[bytes] = []
        while kept:
            seen = kept + data
            if seen.startswith(self.find):
                more, answer = self.replaced(len(self.find) - len(kept))
                return injected + more, answer
            if self.find.startswith(seen):
                self._kept[inbound] = seen
                return injected, _TAKE
            # Not this match; another one may begin inside what is kept.
            count = len(kept) - _start_of_match(kept[1:], self.find)
            injected.append(kept[:count])
            kept = kept[count:]
        decision = self.before_match(data)
        if decision is None:
            self._kept[inbound] = data
            return injected, _TAKE
        return injected + decision[0], decision[1]


def _start_of_match(data: bytes, find: bytes) -> int:
    """Length of the longest end of `data` that a match could begin with."""
    longest = min(len(data), len(find) - 1)
    return next((n for n in range(longest, 0, -1) if find.startswith(data[-n:])), 0)
