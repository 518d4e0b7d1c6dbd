"""What `run -v` prints: one line per flow, with `-vv` one per event, with `-vvv` payload too.

Owns the wording of events for people. Everything that came from outside is escaped before it is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from wfpstream.observe._text import safe_bytes, safe_text

# Events that end a connection before or with its flow: the lines of -v.
_PER_FLOW = frozenset({"flow_blocked", "connect_failed", "flow_deleted"})
# Never left out, whatever the level: somebody has to do something about them. (Of slow callouts the proxy tells.)
_ALWAYS = frozenset({"violation", "policy", "sink_failed", "ledger_fault"})
_HEAD = ("event", "flow", "seq", "t", "worker")
_ORDER = (
    "listener", "client", "server", "local", "remote", "layer", "stage", "callout", "filter", "dir", "flags",
    "offset", "len", "missed", "action", "enforced", "stream_action", "required",
)  # fmt: skip


class HumanLines:
    """A sink for `FilterEngine.add_sink` that prints lines for people.

    Args:
        write: takes one line, without its end.
        level: 0 only what needs attention, 1 one line per flow, 2 every event, 3 payloads too.
        on_failure: called once with one line of text when `write` has failed; the sink is silent then.
        worker: which of several processes we are: flow 7 of worker 2 is `flow 2.7`; None: we are alone.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        level: int,
        on_failure: Callable[[str], None] = lambda text: None,
        worker: int | None = None,
    ) -> None:
        self.wants_data: Literal["off", "preview"] = "preview" if level >= 3 else "off"
        # What concerns single bytes need not even be built for us.
        self.wants_trace = level >= 2
        self._write = write
        self._level = level
        self._on_failure = on_failure
        self._failed = False
        self._worker = worker
        self._ends: dict[object, str] = {}

    def __call__(self, event: Mapping[str, object]) -> None:
        """Print the event, if its level asks for it."""
        if self._failed:
            return
        try:
            line = self._line(event)
            if line:
                self._write(line)
        except Exception as error:  # a terminal that went away must not end the flow it told of
            self._failed = True
            self._on_failure(f"events cannot be shown: {error}")

    def _line(self, event: Mapping[str, object]) -> str:
        name = event.get("event")
        if self._worker is not None:
            event = {**event, "worker": self._worker}
        if name == "flow_established":
            self._ends[event.get("flow")] = describe_ends(event)
        ends = self._ends.pop(event.get("flow"), "") if name == "flow_deleted" else ""
        if self._level >= 1 and name in _PER_FLOW:
            return describe_flow(event, ends)
        if self._level >= 2:
            return describe_event(event)
        return describe_event(event) if name in _ALWAYS else ""


def describe_ends(event: Mapping[str, object]) -> str:
    """`10.0.0.1:40000 -> 10.0.0.2:80 (web)`."""
    text = f"{_address(event.get('client'))} -> {_address(event.get('server'))}"
    listener = event.get("listener")
    return f"{text} ({safe_text(str(listener))})" if listener else text


def describe_flow(event: Mapping[str, object], ends: str = "") -> str:
    """One line about a connection that has ended, or never began."""
    head = _flow(event)
    name = event.get("event")
    if name == "flow_deleted":
        parts = [ends, safe_text(str(event.get("reason", ""))), *_totals(event)]
        duration = event.get("duration")
        if isinstance(duration, int | float):
            parts.append(f"{duration:.3f} s")
        return f"{head} {', '.join(filter(None, parts))}"
    what = "blocked" if name == "flow_blocked" else "connect failed"
    listener = f" ({safe_text(str(event['listener']))})" if event.get("listener") else ""
    return f"{head} {_address(event.get('client'))}{listener}: {what}{_rest(event, ('listener', 'client'))}"


def describe_event(event: Mapping[str, object]) -> str:
    """Any event as one line: its flow, its name, and what it says in a fixed order."""
    return f"{_flow(event)} {safe_text(str(event.get('event')))}{_rest(event, ())}"


def _flow(event: Mapping[str, object]) -> str:
    worker = f"{event['worker']}." if "worker" in event else ""
    return f"flow {worker}{event.get('flow')}"


def _rest(event: Mapping[str, object], skipped: tuple[str, ...]) -> str:
    names = [name for name in _ORDER if name in event]
    names += [name for name in event if name not in _ORDER]
    shown = [
        f"{safe_text(name)}={_value(name, event[name])}"
        for name in names
        if name not in _HEAD and name not in skipped and event[name] not in (None, "", [], ())
    ]
    return f" {' '.join(shown)}" if shown else ""


def _value(name: str, value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        return safe_bytes(bytes(value))
    if isinstance(value, list | tuple):
        is_address = name in ("client", "server", "local", "remote")
        return _address(value) if is_address else "|".join(safe_text(str(part)) for part in value)
    if isinstance(value, Mapping):
        return (
            "{" + " ".join(f"{safe_text(str(key))}={_value('', part)}" for key, part in value.items()) + "}"
        )
    if isinstance(value, float):
        return f"{value:.6g}"
    text = safe_text(str(value))
    return f'"{text}"' if " " in text else text


def _address(value: object) -> str:
    if isinstance(value, list | tuple) and len(value) >= 2:
        host = safe_text(str(value[0]))
        return f"[{host}]:{value[1]}" if ":" in host else f"{host}:{value[1]}"
    return safe_text(str(value))


def _totals(event: Mapping[str, object]) -> list[str]:
    ledger = event.get("ledger")
    if not isinstance(ledger, Mapping):
        return []
    totals = []
    for direction in ("to_upstream", "to_client"):
        counts = ledger.get(direction)
        if isinstance(counts, Mapping):
            read, written = counts.get("read", 0), counts.get("written", 0)
            totals.append(
                f"{direction} {written} B" if read == written else f"{direction} {read} -> {written} B"
            )
    return totals
