"""A token bucket over a clock that is handed in.

Owns the arithmetic only: how many bytes may go now, and when more may. It must not know who waits.
"""

from __future__ import annotations

# Sleeping for exactly the time `wait` says must yield the bytes waited for, whatever float rounding does; and
# a wait must be long enough to move a clock that has run for years.
_ROUNDING = 1e-3
_SHORTEST_WAIT = 1e-3


class TokenBucket:
    """Lets `rate` bytes per second through, and up to `burst` at once after a pause.

    Args:
        rate: bytes per second, more than 0.
        burst: bytes, at least 1.
        now: seconds; the bucket starts full.
    """

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float, wanted: int) -> int:
        """Take up to `wanted` bytes; how many were granted."""
        self._refill(now)
        granted = min(wanted, int(self._tokens + _ROUNDING))
        self._tokens -= granted
        return granted

    def wait(self, now: float, wanted: int) -> float:
        """Seconds until `wanted` bytes (or a full burst, if that is less) may go."""
        self._refill(now)
        lacking = min(wanted, self.burst) - self._tokens
        return max(_SHORTEST_WAIT, lacking / self.rate) if lacking > _ROUNDING else 0.0

    def _refill(self, now: float) -> None:
        self._tokens = min(float(self.burst), self._tokens + (now - self._at) * self.rate)
        self._at = now
