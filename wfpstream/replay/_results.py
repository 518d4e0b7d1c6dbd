"""What a replay found out: per direction, per stream, per capture.

Owns the pinned record (`replay --json`) and nothing of how it came about. Everything here is plain and picklable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class DirectionResult:
    """One direction of a stream, in bytes.

    Attributes:
        bytes_in, sha256_in: the reassembled stream of the capture, as indicated.
        bytes_out, sha256_out: what left the engine; `bytes_in - blocked - discarded + injected`.
        missing: bytes the capture does not hold, given up.
        blocked: original bytes a callout or filter removed.
        discarded: original bytes lost because the flow ended (dropped, blocked, reset) before they left.
        injected: bytes of injections that left the engine.
        fin, rst: as captured.
        retransmitted: bytes that came again; `conflicts`: how many times with other content.
        late: bytes beyond the FIN or after the end of the connection, never indicated.
        out_of_window: segments and resets that fit nowhere in the stream, ignored.
        data_in, data_out: the bytes, if they were to be kept.
    """

    bytes_in: int = 0
    sha256_in: str = ""
    bytes_out: int = 0
    sha256_out: str = ""
    missing: int = 0
    blocked: int = 0
    discarded: int = 0
    injected: int = 0
    fin: bool = False
    rst: bool = False
    retransmitted: int = 0
    conflicts: int = 0
    late: int = 0
    out_of_window: int = 0
    data_in: bytes | None = None
    data_out: bytes | None = None

    def record(self) -> dict[str, Any]:
        """The pinned keys, and ours behind them."""
        return {name: getattr(self, name) for name in _DIRECTION_KEYS}


_DIRECTION_KEYS = (
    "bytes_in", "sha256_in", "bytes_out", "sha256_out", "missing", "blocked", "discarded", "injected",
    "fin", "rst", "retransmitted", "conflicts", "late", "out_of_window",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StreamResult:
    """One TCP connection of a capture.

    Attributes:
        capture: the capture's name as it was given.
        stream: its place by first appearance, from 0.
        client, server: address and port.
        midstream: neither a SYN nor a SYN-ACK was captured.
        ended: how it ended in the engine: fin, rst_client, rst_upstream, drop, abort, timeout; `blocked` by a
            connection layer, `refused` by the peer, `limit` if too much waited for a connection layer's verdict,
            `open` at the end of the capture, `evicted`, `none` if the engine never saw it (only acknowledgements).
        first_packet: number of its first packet in the capture, from 1.
        began, duration: capture time of its first packet, seconds since 1970, and seconds to its end, or its
            last packet.
    """

    capture: str
    stream: int
    client: Address
    server: Address
    midstream: bool
    ended: str
    client_to_server: DirectionResult
    server_to_client: DirectionResult
    first_packet: int
    began: float
    duration: float

    @property
    def changed(self) -> bool:
        """What left the engine is not what came in."""
        return any(d.sha256_in != d.sha256_out for d in (self.client_to_server, self.server_to_client))

    def record(self) -> dict[str, Any]:
        """One line of `replay --json`."""
        return {
            "capture": self.capture,
            "stream": self.stream,
            "client": list(self.client),
            "server": list(self.server),
            "midstream": self.midstream,
            "client_to_server": self.client_to_server.record(),
            "server_to_client": self.server_to_client.record(),
            "ended": self.ended,
            "first_packet": self.first_packet,
            "began": self.began,
            "duration": self.duration,
        }


@dataclass(slots=True)
class CaptureSummary:
    """What can be said of a capture as a whole.

    Attributes:
        capture: its name as it was given.
        packets: records read; `ignored`: segments and packets left out, by reason.
        streams: connections found.
        problems: one line each, with file and packet number, for what could not be read.
        notes: one line each for what was read and yet not followed to its end (streams evicted).
        unreadable: nothing could be read at all.
        failed: it could be read, but replaying it or writing its output failed; `problems` says how.
        violations: how often each contract violation was reported, lint left out.
    """

    capture: str
    packets: int = 0
    streams: int = 0
    ignored: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unreadable: bool = False
    failed: bool = False
    violations: dict[str, int] = field(default_factory=dict)

    def ignore(self, reason: str) -> None:
        """One more packet was left out for this reason."""
        self.ignored[reason] = self.ignored.get(reason, 0) + 1
