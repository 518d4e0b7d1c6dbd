"""IP fragments put together again (RFC 791 3.2, RFC 8200 4.5), bounded in bytes and in capture time.

Owns the datagrams that are not whole yet. Knows nothing of frames, files or TCP; the header walk made the
fragments and reads what comes out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from wfpstream.wire import Fragment, internet_checksum

MAX_BYTES: Final = 64 << 20
MAX_AGE_NS: Final = 30 * 10**9
LARGEST: Final = 65_535
# What Python keeps beside the bytes: for a datagram its record, key, addresses and its 8,192 bits of what is there,
# for a piece its object, place and slot. Measured with tracemalloc and rounded up, so that the bound is one of
# memory for the smallest fragments too.
DATAGRAM_COST: Final = 2_304
PIECE_COST: Final = 192
# Offsets count in these.
UNIT: Final = 8

_Key = tuple[bytes, bytes, int, int]


class _Datagram:
    """What is there of one datagram. Only pieces that bring something new are kept, so there are at most 8,192."""

    __slots__ = ("cost", "covered", "first_ns", "header", "pieces", "total")

    def __init__(self, time_ns: int) -> None:
        self.first_ns = time_ns
        self.header: bytes | None = None
        self.total: int | None = None
        self.covered = 0  # one bit for each unit that is there
        self.pieces: list[tuple[int, bytes]] = []  # in the order they came
        self.cost = DATAGRAM_COST

    def add(self, fragment: Fragment) -> None:
        """Take what is new of `fragment`; what contradicts the fragments before it is left out as a whole."""
        payload, start = fragment.payload, fragment.offset
        size = len(payload)
        if fragment.more and size % UNIT:
            if fragment.version == 6:
                return  # RFC 8200 4.5: discarded
            # An IPv4 sender cannot mean it either; the whole units are what the next fragment joins on to.
            size -= size % UNIT
        end = start + size
        units = (1 << -(-end // UNIT)) - (1 << start // UNIT)
        if not size or end > LARGEST or not self._agrees(end, last=not fragment.more):
            return
        if not fragment.more:
            self.total = end
        if start == 0 and self.header is None:
            self.header = fragment.header
            self.cost += len(fragment.header)
        if units & ~self.covered:
            self.covered |= units
            self.pieces.append((start, bytes(payload[:size])))
            self.cost += size + PIECE_COST

    def _agrees(self, end: int, *, last: bool) -> bool:
        """Whether a fragment that ends at `end` can belong to a datagram of the length known so far."""
        if self.total is not None:
            return end == self.total if last else end <= self.total
        return not last or self.covered.bit_length() <= -(-end // UNIT)

    def is_whole(self) -> bool:
        """Whether every byte from 0 to the end is there."""
        if self.total is None or self.header is None:
            return False
        return self.covered == (1 << -(-self.total // UNIT)) - 1

    def packet(self, version: int) -> bytes | None:
        """The whole IP packet, None if it is longer than one can be."""
        header, total = self.header, self.total
        assert header is not None
        assert total is not None
        length = len(header) + total - (40 if version == 6 else 0)
        if length > LARGEST:
            return None
        data = bytearray(total)
        # Backwards, so that where they overlap the first copy is written last.
        for start, piece in reversed(self.pieces):
            data[start : start + len(piece)] = piece
        whole = bytearray(header)
        if version == 6:
            whole[4:6] = length.to_bytes(2, "big")
        else:
            whole[2:4] = length.to_bytes(2, "big")
            whole[10:12] = b"\0\0"
            whole[10:12] = internet_checksum(bytes(whole)).to_bytes(2, "big")
        return bytes(whole + data)


class Fragments:
    """Puts IP fragments together, in whatever order they come; of bytes that come twice the first copy wins.

    Bounded: once what is kept costs more than `max_bytes` (with Python's own overhead), the datagrams that began
    first are given up; so is one whose first fragment is older than `max_age_ns` of capture time.
    """

    __slots__ = ("_cost", "_datagrams", "_max_age_ns", "_max_bytes", "given_up")

    def __init__(self, max_bytes: int = MAX_BYTES, max_age_ns: int = MAX_AGE_NS) -> None:
        self._max_bytes = max_bytes
        self._max_age_ns = max_age_ns
        self._cost = 0
        # A plain dict is slow at giving its oldest entry again and again.
        self._datagrams: OrderedDict[_Key, _Datagram] = OrderedDict()
        self.given_up = 0
        """Datagrams dropped because of a bound, of age, or because their parts make no possible packet."""

    @property
    def waiting(self) -> int:
        """Datagrams of which something is still missing."""
        return len(self._datagrams)

    @property
    def cost(self) -> int:
        """Bytes that what is kept takes, about, Python's own objects included."""
        return self._cost

    def add(self, fragment: Fragment, time_ns: int) -> bytes | None:
        """Take a fragment captured at `time_ns`; the whole IP packet if it was the last one missing.

        The packet's fragment fields are cleared (IPv6: the fragment header is gone) and its length is set; `walk_ip`
        reads it. A fragment that the capture cut (`missing`) brings nothing. Raises nothing.
        """
        self._give_up_old(time_ns)
        key = _key_of(fragment)
        datagram = self._datagrams.get(key)
        if datagram is None:
            datagram = self._datagrams[key] = _Datagram(time_ns)
            self._cost += DATAGRAM_COST
        if not fragment.missing:
            before = datagram.cost
            datagram.add(fragment)
            self._cost += datagram.cost - before
            if datagram.is_whole():
                del self._datagrams[key]
                self._cost -= datagram.cost
                packet = datagram.packet(fragment.version)
                self.given_up += packet is None
                return packet
        while self._cost > self._max_bytes and self._datagrams:
            self._give_up_oldest()
        return None

    def _give_up_old(self, time_ns: int) -> None:
        too_old = time_ns - self._max_age_ns
        while self._datagrams and next(iter(self._datagrams.values())).first_ns < too_old:
            self._give_up_oldest()

    def _give_up_oldest(self) -> None:
        _, datagram = self._datagrams.popitem(last=False)
        self._cost -= datagram.cost
        self.given_up += 1


def _key_of(fragment: Fragment) -> _Key:
    """What the fragments of one datagram share; in IPv6 only the first one's next header counts (RFC 8200 4.5)."""
    protocol = fragment.protocol if fragment.version == 4 else -1
    return (fragment.source, fragment.destination, fragment.identification, protocol)
