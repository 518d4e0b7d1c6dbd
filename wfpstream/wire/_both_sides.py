"""A capture of both sides of a proxy: what it and its client, and what it and its upstream, said to each other.

Owns the order of frames and the made-up parts: handshakes, sequence numbers, addresses where there are none. One
pcapng with two interfaces, so that Wireshark shows either side or both. Knows nothing of flows but their numbers.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from ._capture import pcapng_header, pcapng_record
from ._stream_writer import StreamWriter
from ._walk import LINK_ETHERNET

Place = tuple[str, int]

_INTERFACES = ("client", "upstream")
# Documentation addresses (RFC 5737, RFC 3849): the proxy's own where nobody knows any.
_OWN = {4: "192.0.2.1", 6: "2001:db8::1"}
_PEER = {4: "192.0.2.2", 6: "2001:db8::2"}
_FIRST_SEQUENCE = 1_000


class BothSides:
    """The two connections of any number of flows as one pcapng.

    Sides are "client" and "upstream"; on the first the peer connects to us, on the second we connect to it. What has
    happened already is not written again, and nothing follows a FIN in its direction or a reset.
    """

    def __init__(self) -> None:
        self._records = [pcapng_header(LINK_ETHERNET, _INTERFACES)]
        self._streams: dict[tuple[int, str], StreamWriter] = {}
        self._finished: set[tuple[int, str, bool]] = set()
        self._next_port = 50_000

    def joined(self, time_ns: int, flow: int, side: str, own: Place | None, peer: Place | None) -> None:
        """A side begins, with its handshake; where an address is unknown one is made up."""
        version = 6 if _version(own or peer) == 6 and _version(peer or own) == 6 else 4
        packed = (_pack(peer or (_PEER[version], 80)), _pack(own or self._own(version, side, peer)))
        client, server = packed if side == "client" else packed[::-1]
        if len(client[0]) != len(server[0]):  # an IPv4 peer of an IPv6 socket, or the other way round
            client, server = (_mapped(client[0]), client[1]), (_mapped(server[0]), server[1])
        interface = _INTERFACES.index(side)

        def write(time_ns: int, frame: bytes) -> None:
            self._records.append(pcapng_record(time_ns, frame, interface=interface))

        stream = StreamWriter(write, client, server, _FIRST_SEQUENCE, _FIRST_SEQUENCE)
        self._streams[flow, side] = stream
        stream.established(time_ns)

    def data(
        self, time_ns: int, flow: int, side: str, from_peer: bool, data: bytes, urgent: bool = False
    ) -> None:
        """Bytes that the peer sent (or that it was sent)."""
        direction = self._direction(side, from_peer)
        if not data or (flow, side, from_peer) in self._finished:
            return
        if urgent:
            self._stream(time_ns, flow, side).urgent(time_ns, direction, data)
        else:
            self._stream(time_ns, flow, side).data(time_ns, direction, [data])

    def fin(self, time_ns: int, flow: int, side: str, from_peer: bool) -> None:
        """The peer half-closed (or saw us do it)."""
        self._finished.add((flow, side, from_peer))
        self._stream(time_ns, flow, side).fin(time_ns, self._direction(side, from_peer))

    def reset(self, time_ns: int, flow: int, side: str, from_peer: bool) -> None:
        """The peer reset its connection (or we did)."""
        self._stream(time_ns, flow, side).reset(time_ns, self._direction(side, from_peer))

    def pcapng(self) -> bytes:
        """The capture so far."""
        return b"".join(self._records)

    def _stream(self, time_ns: int, flow: int, side: str) -> StreamWriter:
        if (flow, side) not in self._streams:  # its beginning was not told
            self.joined(time_ns, flow, side, None, None)
        return self._streams[flow, side]

    def _own(self, version: int, side: str, peer: Place | None) -> Place:
        """An address of ours; a port that no other made-up connection to the same peer has."""
        if side == "client":
            return _OWN[version], 80
        self._next_port += 1
        return _OWN[version], self._next_port

    @staticmethod
    def _direction(side: str, from_peer: bool) -> int:
        """0: the connection's client sends, 1: its server does. On the upstream's side we are the client."""
        return 0 if from_peer == (side == "client") else 1


def _numeric(place: Place) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(place[0].partition("%")[0])
    except ValueError:
        return None  # a name


def _version(place: Place | None) -> int:
    address = _numeric(place) if place is not None else None
    return address.version if address is not None else 4


def _pack(place: Place) -> tuple[bytes, int]:
    address = _numeric(place) or ip_address(_PEER[4])
    return address.packed, place[1]


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address
