"""What a replay can be told, with defaults and units.

Owns names and bounds. It must not know configuration files or the command line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class ReplayOptions:
    """How captures are read, put in order and shown to the callouts. Sizes in bytes, times in seconds.

    Attributes:
        local: which side of a connection is WFP's local host, unless the configuration says otherwise.
        coalesce: consecutive in-order segments of one direction may be indicated as one item of up to 64 KiB.
        push: PUSH on every inbound item as live ("always"), or where a segment had PSH ("captured", IND-5).
        overlap: which copy counts of bytes that arrived twice before their turn; what was delivered stays.
        verify_checksums: leave out segments whose checksum is wrong (hardware fills them in late: off).
        ahead: most bytes of one direction that wait for a hole before them; beyond it the hole is given up.
        ahead_total: the same for all directions together.
        streams: most connections followed at a time; then those quiet for longest are ended, and said so.
        idle: a connection quiet for so long is ended, and said so; 0 = never.
        linger: how long capture time may go on after the last packet for delays and throttles to end.
        keep_data: keep the bytes of both sides in the results.
    """

    local: Literal["client", "server"] = "client"
    coalesce: bool = True
    push: Literal["always", "captured"] = "always"
    overlap: Literal["first", "last"] = "first"
    verify_checksums: bool = False
    ahead: int = 16 * MIB
    ahead_total: int = 256 * MIB
    streams: int = 65536
    idle: float = 0.0
    linger: float = 3600.0
    keep_data: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (
            ("local", ("client", "server")),
            ("push", ("always", "captured")),
            ("overlap", ("first", "last")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(allowed)}")
        for name in ("ahead", "ahead_total", "streams"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected at least 1")
        for name in ("idle", "linger"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected 0 or more seconds")
