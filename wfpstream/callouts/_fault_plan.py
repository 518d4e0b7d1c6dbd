"""What a fault does, to which connections, and from where on: the part without state.

Owns the rules between the options, the choice of connections and the corrupted bytes; every random choice
comes from (seed, listener, n-th connection, direction, byte offset). It must not know flows or callouts.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal, get_args

Deed = Literal["fin", "rst", "stall", "truncate", "blackhole", "corrupt", "slice"]

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The options of `fault`, checked. Sizes in bytes, times in seconds.

    Raises:
        ValueError: options that contradict each other; the text names them.
    """

    do: Deed
    after: int | None
    at: float | None
    lasts: float | None
    size: int
    rate: float | None
    nth: int | None
    every: int | None
    probability: float
    seed: int

    def __post_init__(self) -> None:
        if self.do not in get_args(Deed):
            raise ValueError(f"do={self.do!r}: expected one of {', '.join(get_args(Deed))}")
        if self.after is not None and self.at is not None:
            raise ValueError("give after=BYTES or at=TIME, not both")
        if self.lasts is not None and self.do != "stall":
            raise ValueError("for=TIME belongs to do=stall")
        if self.rate is not None and (self.do != "slice" or self.rate <= 0):
            raise ValueError("rate=RATE belongs to do=slice, and is more than 0")
        if self.size < 1 or (self.size != 1 and self.do not in ("corrupt", "slice")):
            raise ValueError("size=SIZE belongs to do=corrupt and do=slice, and is at least 1")
        if any(count is not None and count < 1 for count in (self.nth, self.every)):
            raise ValueError("nth and every count connections: expected 1 or more")
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability}: expected a number from 0 to 1")

    @property
    def counts(self) -> bool:
        """What happens to a connection depends on which one of the listener it is."""
        chooses = self.nth is not None or self.every is not None or self.probability < 1
        return chooses or self.do == "corrupt"

    def chooses(self, listener: str, number: int) -> bool:
        """Whether the `number`-th connection (from 1) of the listener gets the fault."""
        if self.nth is not None and number != self.nth:
            return False
        if self.every is not None and number % self.every:
            return False
        return self.probability >= 1 or self._random(listener, number, "chosen").random() < self.probability

    def corrupt(self, data: bytes, listener: str, number: int, direction: str, offset: int) -> bytes:
        """`data`, which begins at `offset` of its direction, with every byte changed to another one.

        The same offset always gets the same change, however the stream is cut.
        """
        first = offset // _BLOCK
        last = (offset + len(data) - 1) // _BLOCK
        masks = b"".join(
            # A mask of 0 would leave its byte as it is.
            self._random(listener, number, direction, block).randbytes(_BLOCK).replace(b"\0", b"\xff")
            for block in range(first, last + 1)
        )
        start = offset - first * _BLOCK
        mask = masks[start : start + len(data)]
        changed = int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")
        return changed.to_bytes(len(data), "big")

    def _random(self, *place: object) -> Random:
        return Random("/".join(map(str, (self.seed, *place))))
