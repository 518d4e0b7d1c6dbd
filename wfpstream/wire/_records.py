"""What the header walk answers: a TCP segment, an IP fragment, or the reason why it is neither.

Owns these three records and the reasons; must not know how frames are read, nor what is done with the answer.
They are made once per packet, so they are plain slotted objects, filled in by the walk without a constructor.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ._checksum import internet_checksum

SKIP_NOT_IP: Final = 1
SKIP_NOT_TCP: Final = 2
SKIP_TUNNEL: Final = 3
SKIP_MALFORMED: Final = 4
SKIP_UNKNOWN_LINK: Final = 5

_PSEUDO_END: Final = b"\0\0\0\x06"  # zero and the protocol of TCP


class Skip(NamedTuple):
    """A packet that holds no TCP segment this package reads.

    `kind` is SKIP_NOT_IP, SKIP_NOT_TCP, SKIP_TUNNEL (an encapsulation that is known and not walked here),
    SKIP_MALFORMED (headers that are cut or contradict themselves) or SKIP_UNKNOWN_LINK. `text` is for people.
    """

    kind: int
    text: str


class Segment:
    """One TCP segment (RFC 9293 3.1) and the IP header around it. Only `walk` and `walk_ip` make them.

    `payload` is a view of the frame given to `walk`: it is valid as long as that buffer keeps its bytes.
    """

    __slots__ = (
        "_frame",
        "_ip_at",
        "_tcp_at",
        "acknowledgement",
        "destination",
        "destination_port",
        "flags",
        "missing",
        "payload",
        "sequence",
        "source",
        "source_port",
        "urgent",
        "version",
        "window",
    )

    version: int
    """4 or 6."""
    source: bytes
    """4 or 16 bytes. Under IPv6 mobility and source routing the connection's own end, as its checksum has it."""
    destination: bytes
    """4 or 16 bytes. With hops of a source route still ahead: the last one, as the checksum has it."""
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    """The low 8 bits: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128."""
    window: int
    """As sent, not scaled."""
    urgent: int
    """The urgent pointer, whether or not URG is set."""
    payload: memoryview
    """The payload bytes that were captured; padding and trailers behind the IP packet are cut off."""
    missing: int
    """Payload bytes that the IP header promises and the capture does not hold."""
    _frame: bytes | memoryview
    _ip_at: int
    _tcp_at: int

    def checksum_ok(self) -> bool:
        """Whether the IPv4 header's and the TCP checksum hold. A segment cut by the capture answers True.

        What a network card was to fill in later (checksum offload) is captured wrong and answers False.
        """
        if self.missing:
            return True
        frame, ip, tcp = self._frame, self._ip_at, self._tcp_at
        start = tcp + (frame[tcp + 12] >> 4 << 2)
        end = start + len(self.payload)
        if start > len(frame):  # the capture cuts the TCP options of a segment without payload
            return True
        if self.version == 4 and internet_checksum(frame[ip : ip + ((frame[ip] & 15) << 2)]):
            return False
        pseudo = self.source + self.destination + (end - tcp).to_bytes(4, "big") + _PSEUDO_END
        return internet_checksum(pseudo, frame[tcp:end]) == 0

    def __repr__(self) -> str:
        ports = f"{self.source_port} > {self.destination_port}"
        numbers = f"seq={self.sequence} ack={self.acknowledgement} flags={self.flags:#04x}"
        return (
            f"<Segment IPv{self.version} {ports} {numbers} {len(self.payload)} bytes, {self.missing} missing>"
        )


class Fragment:
    """One fragment of an IP packet that may lead to TCP (RFC 791 3.2, RFC 8200 4.5).

    `header + payload of all fragments in order` is the packet, once its length field (IPv4 bytes 2-3, the
    whole; IPv6 bytes 4-5, what follows the first 40 bytes) is set, and for IPv4 the header checksum.
    """

    __slots__ = (
        "destination",
        "header",
        "identification",
        "missing",
        "more",
        "offset",
        "payload",
        "protocol",
        "source",
        "version",
    )

    def __init__(
        self,
        version: int,
        source: bytes,
        destination: bytes,
        identification: int,
        protocol: int,
        offset: int,
        more: bool,
        payload: memoryview,
        missing: int,
        header: bytes,
    ) -> None:
        self.version = version
        """4 or 6."""
        self.source = source
        self.destination = destination
        self.identification = identification
        """16 bits in IPv4, 32 bits in IPv6."""
        self.protocol = protocol
        """What the reassembled payload begins with: an IP protocol number, in IPv6 also an extension header."""
        self.offset = offset
        """Where the payload belongs, in bytes; offset and payload together never pass 65,535."""
        self.more = more
        """False in the last fragment."""
        self.payload = payload
        """The captured bytes of this fragment, at least one, as a view of the frame given to `walk`."""
        self.missing = missing
        """Bytes of this fragment that the capture does not hold: it cannot be completed from this copy."""
        self.header = header
        """The headers in front of the payload, with all trace of fragmentation cleared."""

    def __repr__(self) -> str:
        span = f"{self.offset}+{len(self.payload)}{'...' if self.more else ''}"
        return f"<Fragment IPv{self.version} id={self.identification} protocol={self.protocol} {span}>"


Walked = Segment | Fragment | Skip


def malformed(text: str) -> Skip:
    """A packet whose headers are cut or contradict themselves."""
    return Skip(SKIP_MALFORMED, text)
