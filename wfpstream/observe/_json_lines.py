"""The event sink: one JSON line per event, to a file, a pipe or a terminal.

Owns encoding, `ts`, what is kept of payloads, and what happens when the reader is slow or gone. A sink never
disturbs the engine: it raises nothing, and it never waits for a reader (what a full pipe does not take is
kept up to a bound, then counted as lost).
"""

from __future__ import annotations

import base64
import os
import select
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import msgspec

DataMode = Literal["off", "preview", "full"]

PREVIEW = 64
_BACKLOG_LIMIT = 4 * 1024 * 1024
# A pipe that polls writable takes this much without waiting (POSIX: PIPE_BUF, 4096 on Linux).
_CHUNK = 4096
_CLOSE_WAIT_MS = 2000


def wall_time(_t: float) -> float:
    """The wall clock, for worlds whose events are delivered as they happen."""
    return time.time()


class JsonLines:
    """A sink for `FilterEngine.add_sink`.

    Args:
        fd: where to write; taken over, and closed by `close()`, if `owned`.
        data: which part of payloads to keep: `off` none, `preview` the first 64 bytes, `full` all.
        timestamp: wall time in seconds for an event's `t`; replay gives the capture's time.
        waits: wait for a slow reader, instead of losing events: for worlds whose time is not the reader's.
        worker: which of several processes we are, for the key `worker`; None: we are alone.
        on_failure: called with one line of text when writing has failed; the sink is silent from then on.
        on_backlog: called when a reader became too slow; `flush()` is wanted when `fd` is writable again.
    """

    def __init__(
        self,
        fd: int,
        *,
        data: DataMode = "off",
        owned: bool = True,
        timestamp: Callable[[float], float] = wall_time,
        waits: bool = False,
        worker: int | None = None,
        on_failure: Callable[[str], None] = lambda text: None,
        on_backlog: Callable[[], None] = lambda: None,
    ) -> None:
        self.wants_data: DataMode = data
        self.lost = 0
        self._fd = fd
        self._owned = owned
        self._timestamp = timestamp
        self._on_failure = on_failure
        self._on_backlog = on_backlog
        self._patient = waits
        self._waits = waits or stat.S_ISREG(os.fstat(fd).st_mode)
        self._backlog = bytearray()
        self._unreported = 0
        self._open = True
        self._more: dict[str, object] = {} if worker is None else {"worker": worker}
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def __call__(self, event: dict[str, object]) -> None:
        """Write one event; the dict itself is left as it is."""
        if not self._open:
            return
        try:
            line = self._encode(event)
        except Exception as error:  # an event that cannot be encoded must not end the flow it tells of
            self._fail(f"event {event.get('event')} cannot be written: {error}", fatal=False)
            return
        self._write(line)

    @property
    def backlog(self) -> int:
        """How many bytes wait for the reader."""
        return len(self._backlog)

    def fileno(self) -> int:
        """The descriptor whose writability `flush()` waits for."""
        return self._fd

    def flush(self) -> None:
        """Write of the backlog what the reader takes now."""
        if self._open and self._backlog:
            self._push()

    def close(self) -> None:
        """Give the reader two more seconds for what is left, then close. Closing twice is fine."""
        if not self._open:
            return
        deadline = time.monotonic() + _CLOSE_WAIT_MS / 1000
        while self._backlog and time.monotonic() < deadline:
            _writable(self._fd, _CLOSE_WAIT_MS)
            self.flush()
        if self._backlog:
            self._fail(f"{len(self._backlog)} bytes of events were not read")
        self._end()

    def _encode(self, event: dict[str, object]) -> bytes:
        t = event.get("t")
        record = {**event, **self._more, "ts": _iso(self._timestamp(t if isinstance(t, float) else 0.0))}
        data = record.pop("data", None)
        if self.wants_data != "off" and isinstance(data, bytes | bytearray | memoryview):
            kept = data if self.wants_data == "full" else data[:PREVIEW]
            record["data"] = base64.b64encode(kept).decode("ascii")
        return self._encoder.encode(record) + b"\n"

    def _write(self, line: bytes) -> None:
        if len(self._backlog) + len(line) > _BACKLOG_LIMIT:
            self.lost += 1
            self._unreported += 1
            return
        if self._unreported and not self._backlog:
            line = self._loss_record() + line
        was_empty = not self._backlog
        self._backlog += line
        self._push()
        if was_empty and self._backlog and self._open:
            self._on_backlog()

    def _loss_record(self) -> bytes:
        record = {"event": "events_lost", "flow": 0, "seq": 0, "t": 0.0, "count": self._unreported}
        self._unreported = 0
        return self._encode(record)

    def _push(self) -> None:
        try:
            while self._backlog and (self._waits or _writable(self._fd, 0)):
                with memoryview(self._backlog) as view:
                    chunk = bytes(view if self._waits else view[:_CHUNK])
                if not self._write_out(chunk):
                    return
        except OSError as error:
            self._fail(f"events cannot be written: {error.strerror}")

    def _write_out(self, chunk: bytes) -> bool:
        """Write as much of it as is taken; whether any was."""
        try:
            del self._backlog[: os.write(self._fd, chunk)]
        except BlockingIOError:
            # Somebody made the descriptor non-blocking; it says "later" in its own way.
            return self._patient and _writable(self._fd, None)
        return True

    def _fail(self, text: str, *, fatal: bool = True) -> None:
        if fatal:
            self._backlog.clear()
            self._end()
        self._on_failure(text)

    def _end(self) -> None:
        if self._open and self._owned:
            os.close(self._fd)
        self._open = False


def _writable(fd: int, timeout_ms: int | None) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    # Also true when the reader is gone: the write then says so.
    return bool(poll.poll(timeout_ms))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
