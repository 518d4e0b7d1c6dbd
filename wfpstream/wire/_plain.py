"""The usual frame: Ethernet, IPv4 without options or IPv6 without extensions, whole, one TCP segment.

Owns one look at such a frame, for replay's hot path: where it answers, it finds what `walk` finds. It must not know any
other kind of frame; those it leaves to `walk`.
"""

from __future__ import annotations

from struct import Struct

from ._walk import LINK_ETHERNET

Plain = tuple[bytes, int, int, int, bytes]
"""(addresses and ports as they stand in the header, sequence, acknowledgement, flags, payload)."""

_URG = 0x20
_TCP = 6
# Ethertype; version and length; total length; fragment; protocol; addresses and ports; TCP's own.
_V4 = Struct(">12xHBxH2xHxB2x12sIIBB")
_V4_MIN = 54
_V6 = Struct(">12xHB3xHBx36sIIBB")
_V6_MIN = 74


def plain_tcp(link_type: int, frame: bytes) -> Plain | None:
    """What a plain frame carries, or None: ask `walk`.

    Urgent segments, fragments, frames cut by the snap length and those whose lengths lie are not plain.
    """
    if link_type != LINK_ETHERNET or len(frame) < _V4_MIN:
        return None
    ethertype, version, total, fragment, protocol, key, sequence, acknowledgement, offset, flags = (
        _V4.unpack_from(frame)
    )
    if ethertype == 0x0800:
        start, end = 34 + (offset >> 4) * 4, 14 + total
        plain = version == 0x45 and protocol == _TCP and not fragment & 0x3FFF
    elif ethertype == 0x86DD and len(frame) >= _V6_MIN:
        _, version, length, protocol, key, sequence, acknowledgement, offset, flags = _V6.unpack_from(frame)
        start, end = 54 + (offset >> 4) * 4, 54 + length
        plain = version >> 4 == 6 and protocol == _TCP
    else:
        return None
    if not plain or flags & _URG or offset < 0x50 or not start <= end <= len(frame):
        return None
    return key, sequence, acknowledgement, flags, frame[start:end]
