"""A recording as lines of text: what the sides did, what callouts were shown and answered, what the sides got.

Owns the notation, which playbooks are written in too. It must not know what a line is compared with, nor who
recorded.

    >> client b'a rai'                                          a side sends; also: fin, reset, urgent b'!'
    << stream_edit to_upstream b'rai' need_more                 what a callout was shown, and its answer
    << stream_edit to_upstream inject 5                         a call of it
    << server b'a '                                             what a side gets; also: fin, reset, urgent b'!'
    -- 0.3 s                                                    virtual time, when it has moved
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from ._recorder import Event, Moment, resets_of

_SIDES = {"client": "client", "upstream": "server"}
_MOST = 64
_LITERAL = re.compile(r"""b(?P<quote>['"])(?:\\.|(?!(?P=quote)).)*(?P=quote)(?:\s*\*\s*(?P<times>\d+))?""")


def trace_lines(
    entries: Iterable[Event | Moment], *, with_time: bool = True, first: int | None = None
) -> list[str]:
    """The lines of a recording.

    Args:
        entries: as a `Recorder` has them.
        with_time: say when time has moved; not where it is the machine's.
        first: the flow whose lines do not say its number; by default the first one there is.
    """
    lines: list[str] = []
    shown: dict[tuple[Any, ...], bytes] = {}
    now = f"-- {0.0:.9g} s"
    for entry in entries:
        flow = entry.flow if isinstance(entry, Moment) else entry.get("flow")
        first = flow if first is None and flow else first
        said = list(_of_moment(entry) if isinstance(entry, Moment) else _of_event(entry, shown))
        if not said:
            continue
        at = entry.at if isinstance(entry, Moment) else entry["t"]
        # As it is written: a sum of delays is not always the same in its last bit.
        moved = f"-- {at:.9g} s"
        if with_time and moved != now:
            now = moved
            lines.append(moved)
        prefix = "" if flow in (first, 0, None) else f"[{flow}] "
        lines += [f"{mark} {prefix}{text}" for mark, text in said]
    return lines


def normal_line(line: str) -> str:
    """A line as `trace_lines` would write it: bytes in one notation, long ones in short, single spaces elsewhere.

    Raises:
        ValueError: a byte string in it is not well-formed.
    """
    parts, at = [], 0
    for match in _LITERAL.finditer(line):
        parts.append(_squeeze(line[at : match.start()]))
        parts.append(bytes_text(literal(match[0])))
        at = match.end()
    parts.append(_squeeze(line[at:]))
    return "".join(parts).strip()


def literal(text: str) -> bytes:
    """The bytes that `b'...'`, or `b'...' * N`, says. Raises ValueError: it is not well-formed."""
    match = _LITERAL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected bytes such as b'abc' or b'abc' * 10, not {text!r}")
    source, _, _ = text.strip().rpartition("*") if match["times"] else (text.strip(), "", "")
    try:
        value = ast.literal_eval(source.strip())
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{source!r} is no byte string: {error}") from error
    assert isinstance(value, bytes)
    return value * int(match["times"] or 1)


def bytes_text(data: bytes) -> str:
    """Bytes as a line has them: whole up to 64 of them, else their beginning, length and digest."""
    if len(data) <= _MOST:
        return repr(data)
    return f"{data[:_MOST]!r}...[{len(data)} bytes, sha256 {sha256(data).hexdigest()[:16]}]"


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# -- moments -----------------------------------------------------------------------------------------------------


def _of_moment(moment: Moment) -> Iterator[tuple[str, str]]:
    if moment.deed == "joined":
        return
    mark = ">>" if moment.deed.endswith("read") else "<<"
    side = _SIDES[moment.leg]
    if moment.deed.startswith("fin"):
        yield mark, f"{side} fin"
    elif moment.deed == "reset_read":
        yield mark, f"{side} reset"
    else:
        yield mark, f"{side} {'urgent ' if moment.urgent else ''}{bytes_text(moment.data)}"


# -- events ------------------------------------------------------------------------------------------------------


def _of_event(event: Event, shown: dict[tuple[Any, ...], bytes]) -> Iterator[tuple[str, str]]:
    key = (event.get("flow"), event.get("stage"), event.get("dir"))
    if event["event"] == "indicate":
        shown[key] = event.get("data") or b""
    elif event["event"] == "classify":
        yield "<<", f"{_who(event)} {_what(event, shown.pop(key, b''))} {_answer(event)}"
    else:
        say = _SAYINGS.get(event["event"])
        text = say(event) if say is not None else ""
        if text:
            yield "<<", text
    if event["event"] == "flow_deleted":
        for leg, from_peer in resets_of(event["reason"]):
            if not from_peer:
                yield "<<", f"{_SIDES[leg]} reset"


def _who(event: Mapping[str, Any]) -> str:
    words = (event.get("callout") or _stage_name(event), event.get("dir"))
    return " ".join(str(word) for word in words if word)


def _stage_name(event: Mapping[str, Any]) -> str:
    return f"filter-{event['filter']}" if event.get("filter") else ""


def _what(event: Mapping[str, Any], data: bytes) -> str:
    flags = event.get("flags", [])
    ends = [
        name for name, mark in (("fin", "DISCONNECT"), ("abort", "ABORT")) if any(mark in f for f in flags)
    ]
    content = [bytes_text(data)] if data or not ends else []
    urgent = ["urgent"] if any("EXPEDITED" in flag for flag in flags) else []
    missed = [f"missed {event['missed']}"] if event.get("missed") else []
    return " ".join([*missed, *urgent, *content, *ends])


def _answer(event: Mapping[str, Any]) -> str:
    """The verb, and how many bytes it was about unless it was all of them."""
    stream_action = event.get("stream_action", "NONE")
    if stream_action == "NEED_MORE_DATA":
        required = event.get("required")
        return f"need_more {required}" if required else "need_more"
    if stream_action != "NONE":
        return str(stream_action).lower()
    verb = str(event["action"]).lower()
    enforced = event.get("enforced", 0)
    return f"{verb} {enforced}" if enforced not in (0, event.get("len")) else verb


def _inject(event: Event) -> str:
    what = "fin" if any("DISCONNECT" in flag for flag in event.get("flags", [])) else ""
    length = str(event["len"]) if event["len"] or not what else ""
    status = event.get("status", "STATUS_SUCCESS")
    failed = "" if status == "STATUS_SUCCESS" else f"= {status}"
    return " ".join(word for word in (_who(event), "inject", length, what, failed) if word)


def _discard(event: Event) -> str:
    if event.get("reason") == "blocked":
        return ""  # the answer has said so
    return f"{_who(event)} discard {event['len']} ({event.get('reason')})"


def _completed(event: Event) -> str:
    if event.get("status") == "STATUS_SUCCESS":
        return ""
    return f"{_who(event)} injection of {event['len']} failed: {event['status']}"


def _violation(event: Event) -> str:
    return f"violation {event['rule']} {_who(event)}".rstrip()


# What is not here is said by another line, or is no decision.
_SAYINGS: dict[str, Callable[[Event], str]] = {
    "inject": _inject,
    "inject_complete": _completed,
    "continue": lambda event: f"{_who(event)} continue",
    "pause": lambda event: f"{_who(event)} paused",
    "resume": lambda event: f"{_who(event)} resumed",
    "discard": _discard,
    "violation": _violation,
    "refused": lambda event: f"{event.get('call')} refused: {event.get('status')}",
    "policy": lambda event: f"policy {event['name']} {event['value']}",
    "flow_blocked": lambda event: f"blocked at {event.get('layer')} by {_who(event)}",
    "connect_failed": lambda event: f"connect failed: {event.get('reason')}",
    "flow_deleted": lambda event: f"ended {event['reason']}",
}
