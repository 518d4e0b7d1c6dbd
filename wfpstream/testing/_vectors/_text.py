"""How conformance vectors write bytes, calls, completions and answers.

Owns the notation, so that a harness elsewhere can print the same lines. It must not know who is called, nor what
is expected. The format is described in docs/reference/vectors.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import ClassifyOutFlags, StreamActionType, StreamFlags

DISCONNECT = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
_ABORT = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
_EXPEDITED = int(StreamFlags.SEND_EXPEDITED | StreamFlags.RECEIVE_EXPEDITED)
_SHOWN = 40
"""Longer payloads appear by their length only."""


def decode_bytes(value: Any) -> bytes:
    """The bytes a vector writes: text of U+0000 to U+00FF, a repetition, or a list of both.

    Raises ValueError: it is none of these.
    """
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, list):
        return b"".join(map(decode_bytes, value))
    if isinstance(value, dict) and value.keys() == {"repeat", "times"}:
        return decode_bytes(value["repeat"]) * int(value["times"])
    raise ValueError(f"no bytes: {value!r}")


def quoted(data: bytes) -> str:
    """A payload in single quotes; what is not printable ASCII, a quote or a backslash is written as hex."""
    plain = (chr(b) if 0x20 <= b < 0x7F and b not in b"'\\" else f"\\x{b:02x}" for b in data)
    return "'" + "".join(plain) + "'"


def call_text(name: str, flags: int, data: bytes, missed: int, out_flags: int) -> str:
    """One classify call: `A(S5 'hello' m3 +N)`."""
    end = [word for word, bits in (("FIN", DISCONNECT), ("ABORT", _ABORT)) if flags & bits]
    side = "R" if flags & StreamFlags.RECEIVE else "S"
    words = [side if end and not data else f"{side}{len(data)}", *end]
    words += ["EXPEDITED"] if flags & _EXPEDITED else []
    words += [quoted(data)] if 0 < len(data) <= _SHOWN else []
    words += [f"m{missed}"] if missed else []
    words += ["+N"] if out_flags & ClassifyOutFlags.NO_MORE_DATA else []
    words += ["+L"] if out_flags & ClassifyOutFlags.BUFFER_LIMIT_REACHED else []
    return f"{name}({' '.join(words)})"


def completion_text(flags: int, data: bytes, status: int) -> str:
    """One completion: `cmp('hello', SUCCESS)`, `cmp(FIN, SUCCESS)`, `cmp(65536, SUCCESS)`."""
    what = quoted(data) if len(data) <= _SHOWN else str(len(data))
    if flags & DISCONNECT and not data:
        what = "FIN"
    return f"cmp({what}, {NtStatus(status).name.removeprefix('STATUS_')})"


def flag_bits(names: Iterable[str | int]) -> int:
    """Stream flags from their names without `FWPS_STREAM_FLAG_`, or as numbers. Raises KeyError: no such flag."""
    bits = 0
    for name in names:
        bits |= name if isinstance(name, int) else StreamFlags[name]
    return bits


def flag_names(bits: int) -> list[str]:
    """The names of the stream flags that are set, lowest bit first."""
    return [flag.name or "" for flag in StreamFlags if bits & flag]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a classify writes; None is left as it came."""

    action: int | None = None
    enforced: int | None = None
    stream_action: int | None = None
    required: int | None = None


_ACTIONS = {"P": ActionType.PERMIT, "B": ActionType.BLOCK, "C": ActionType.CONTINUE}
_STREAM_ACTIONS = {
    "DEF": StreamActionType.DEFER,
    "DROP": StreamActionType.DROP_CONNECTION,
    "ALLOW": StreamActionType.ALLOW_CONNECTION,
}


def parse_answer(text: str) -> Answer:
    """`P 3`, `B 0`, `C 0`, `NMD 6`, `DEF`, `DROP`, `ALLOW`, or `-` for nothing written.

    Raises ValueError: it is none of these.
    """
    word, _, number = text.partition(" ")
    if text == "-":
        return Answer()
    if word in _ACTIONS:
        return Answer(int(_ACTIONS[word]), int(number))
    none = int(ActionType.NONE)  # ACT-6: recommended beside a stream action
    if word == "NMD":
        return Answer(none, None, int(StreamActionType.NEED_MORE_DATA), int(number))
    if text in _STREAM_ACTIONS:
        return Answer(none, None, int(_STREAM_ACTIONS[text]))
    raise ValueError(f"no answer: {text!r}")
