"""The header by which one proxy tells the next who the client is: the PROXY protocol, versions 1 and 2.

Owns both formats (HAProxy's specification "The PROXY protocol", sections 2.1 and 2.2), read as strictly as it asks
for and built. It knows bytes and addresses only: not where they come from, nor who may be believed.

Reading is incremental. What can still become a header is "more, please"; the first byte that cannot is an error.
Only the TLVs of version 2 are judged when the whole header is there, as their checksum has to be.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import Final, Literal, NamedTuple

__all__ = ["MAX_PROXY_HEADER", "ProxyHeader", "ProxyHeaderError", "build_proxy_header", "parse_proxy_header"]

MAX_PROXY_HEADER: Final = 4096
"""The longest header that is read, bytes. The specification's length field could say 65,551."""

_MAX_LINE: Final = 107
_FAMILIES: Final = ("TCP4", "TCP6", "UNKNOWN")
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_PREFIX: Final = 16
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _INET, _INET6, _UNIX = 0, 1, 2, 3
_STREAM = 1
_ADDRESS_SIZE: Final = {_INET: 4, _INET6: 16, _UNIX: 108}
_CRC32C: Final = 3
_MAPPED: Final = bytes(10) + b"\xff\xff"

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4 = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_V4_BEGUN = re.compile(rf"(?:{_OCTET}\.){{0,3}}(?:{_OCTET})?")
_V6_BEGUN = re.compile(r":|(?:::)?(?:[0-9A-Fa-f]{1,4}::?)*[0-9A-Fa-f]{0,4}")
# Not in the specification, but inet_ntop writes IPv4 in IPv6 so, and senders with IPv6 sockets ask inet_ntop.
_V4_IN_V6 = re.compile(r"::(?:[Ff]{4}:)?([0-9]+\.[0-9.]*)")
_PORT = re.compile(r"0|[1-9][0-9]{0,4}")


class ProxyHeaderError(ValueError):
    """These bytes do not begin with a PROXY header that we accept. The text is one line, without raw bytes."""


class ProxyHeader(NamedTuple):
    """What a PROXY header says.

    `source` and `destination` are both there or both None; None means: take the connection's own addresses. So it
    is with LOCAL (a health check of the proxy itself), UNKNOWN, unspecified and Unix-domain addresses.
    """

    version: Literal[1, 2]
    command: Literal["proxy", "local"]
    """Version 1 has no LOCAL."""
    source: tuple[str, int] | None
    """The client, as (numeric address, port). IPv4-mapped IPv6 addresses are given in their IPv4 form."""
    destination: tuple[str, int] | None
    """Where the client connected to, in the same form."""
    tlvs: bytes
    """The type-length-value fields of version 2 as they came, framing and checksum verified. Empty with LOCAL and
    unspecified addresses: what follows those is ignored, as section 2.2 has it."""


def parse_proxy_header(data: bytes | bytearray | memoryview) -> tuple[ProxyHeader, int] | None:
    """The header at the beginning of `data`, and its length in bytes: the stream begins behind it.

    None while more bytes are needed: then everything in `data` belongs to the header.

    Raises:
        ProxyHeaderError: no continuation of `data` begins with a header we accept.
    """
    head = bytes(data[:MAX_PROXY_HEADER])
    if not head:
        return None
    if head.startswith(b"P"):
        return _parse_line(head)
    return _parse_binary(head)


# --- version 1 --------------------------------------------------------------------------------------


def _parse_line(head: bytes) -> tuple[ProxyHeader, int] | None:
    end = head.find(b"\r", 0, _MAX_LINE - 1)
    text = head[: _MAX_LINE - 1 if end < 0 else end].decode("latin-1")
    words = text.split(" ")
    _check_words(words, whole=end >= 0)
    if end < 0:
        if len(head) >= _MAX_LINE - 1:
            raise ProxyHeaderError(f"PROXY header: the line has no CRLF within {_MAX_LINE} bytes")
        return None
    if len(head) == end + 1:
        return None
    if head[end + 1] != 0x0A:
        raise ProxyHeaderError("PROXY header: a CR in the line is not followed by LF")
    source = destination = None
    if words[1] != "UNKNOWN":
        source, destination = (_plain(words[2]), int(words[4])), (_plain(words[3]), int(words[5]))
    return ProxyHeader(1, "proxy", source, destination, b""), end + 2


def _check_words(words: list[str], *, whole: bool) -> None:
    """Raise unless these words can begin a line; `whole`: the last one is complete, and the line ends behind it."""
    if words[0] != "PROXY" and (len(words) > 1 or whole or not "PROXY".startswith(words[0])):
        raise ProxyHeaderError("there is no PROXY header")
    family = words[1] if len(words) > 1 else ""
    if family == "UNKNOWN":
        # The rest of the line is ignored; but a line that ends with a bare LF is none (section 2.1).
        if any("\n" in word for word in words):
            raise ProxyHeaderError("PROXY header: a LF in the line has no CR in front of it")
        return
    is_begun = len(words) == 2 and not whole and any(name.startswith(family) for name in _FAMILIES)
    if len(words) > 1 and family not in ("TCP4", "TCP6") and not is_begun:
        raise ProxyHeaderError(f"PROXY header: {family!a} is none of {', '.join(_FAMILIES)}")
    if len(words) > 6 or (whole and len(words) < 6):
        raise ProxyHeaderError(
            "PROXY header: expected two addresses and two ports, each after a single space"
        )
    is_address = _is_v4 if family == "TCP4" else _is_v6
    for at, word in enumerate(words[2:], 2):
        complete = whole or at < len(words) - 1
        if at < 4 and not is_address(word, complete):
            raise ProxyHeaderError(f"PROXY header: {word!a} is no address of {family}")
        if at >= 4 and not _is_port(word, complete):
            raise ProxyHeaderError(f"PROXY header: {word!a} is no port")


def _is_v4(text: str, complete: bool) -> bool:
    """Whether it is an IPv4 address, or can become one."""
    return (_V4 if complete else _V4_BEGUN).fullmatch(text) is not None


def _is_v6(text: str, complete: bool) -> bool:
    """Whether it is an IPv6 address, or can become one."""
    dotted = _V4_IN_V6.fullmatch(text)
    if dotted is not None:
        return _is_v4(dotted[1], complete)
    if _V6_BEGUN.fullmatch(text) is None or text.count("::") > 1:
        return False
    groups = sum(1 for group in text.split(":") if group)
    most = 7 if "::" in text else 8
    is_open = text.endswith(":") and not text.endswith("::")
    if complete:
        return not is_open and (groups <= most if "::" in text else groups == most)
    return groups + is_open <= most


def _is_port(text: str, complete: bool) -> bool:
    """Whether it is a port, or can become one."""
    return (not text and not complete) or (_PORT.fullmatch(text) is not None and int(text) <= 65535)


def _plain(text: str) -> str:
    """An address as the rest of the package writes it."""
    address = ipaddress.ip_address(text)
    return str(getattr(address, "ipv4_mapped", None) or address)


# --- version 2 --------------------------------------------------------------------------------------


def _parse_binary(head: bytes) -> tuple[ProxyHeader, int] | None:
    if head[: len(_SIGNATURE)] != _SIGNATURE[: len(head)]:
        raise ProxyHeaderError("there is no PROXY header")
    command = _command(head[12]) if len(head) > 12 else None
    if command is None or len(head) < 14:
        return None
    # LOCAL says nothing but its length (section 2.2).
    family = _family(head[13]) if command == _PROXY else _UNSPECIFIED
    if len(head) < _PREFIX:
        _check_length(_PREFIX + (head[14] << 8 if len(head) > 14 else 0))
        return None
    length = _PREFIX + int.from_bytes(head[14:16], "big")
    _check_length(length)
    tlvs_at = _PREFIX + _address_block_size(family)
    if length < tlvs_at:
        raise ProxyHeaderError(f"PROXY header: {length} bytes are too short for its addresses")
    if len(head) < length:
        return None
    return _binary_header(head[:length], "proxy" if command == _PROXY else "local", family, tlvs_at), length


def _check_length(length: int) -> None:
    if length > MAX_PROXY_HEADER:
        raise ProxyHeaderError(f"PROXY header: longer than {MAX_PROXY_HEADER} bytes")


def _command(byte: int) -> int:
    if byte >> 4 != 2:
        raise ProxyHeaderError(f"PROXY header: version {byte >> 4} is unknown")
    if byte & 15 not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"PROXY header: command {byte & 15} is unknown")
    return byte & 15


def _family(byte: int) -> int:
    """The address family, _UNSPECIFIED if either half of the byte says so."""
    family, protocol = byte >> 4, byte & 15
    if family > _UNIX or protocol > 2:
        raise ProxyHeaderError(f"PROXY header: family and protocol {byte:#04x} are unknown")
    if _UNSPECIFIED in (family, protocol):
        return _UNSPECIFIED
    if protocol != _STREAM:
        raise ProxyHeaderError("PROXY header: it announces datagrams, on a stream")
    return family


def _address_block_size(family: int) -> int:
    """Two addresses, and two ports where there are any."""
    if family == _UNSPECIFIED:
        return 0
    return 2 * _ADDRESS_SIZE[family] + (0 if family == _UNIX else 4)


def _binary_header(
    header: bytes, command: Literal["proxy", "local"], family: int, tlvs_at: int
) -> ProxyHeader:
    if family == _UNSPECIFIED:
        return ProxyHeader(2, command, None, None, b"")
    _check_tlvs(header, tlvs_at)
    tlvs = header[tlvs_at:]
    if family == _UNIX:
        return ProxyHeader(2, command, None, None, tlvs)
    size = _ADDRESS_SIZE[family]
    hosts = [_host(header[at : at + size]) for at in (_PREFIX, _PREFIX + size)]
    ports = [int.from_bytes(header[at : at + 2], "big") for at in (tlvs_at - 4, tlvs_at - 2)]
    return ProxyHeader(2, command, (hosts[0], ports[0]), (hosts[1], ports[1]), tlvs)


def _check_tlvs(header: bytes, start: int) -> None:
    """Walk the fields from `start` to the end of the header (2.2), and verify the checksum if one is there (2.2.3)."""
    at, checksum_at = start, 0
    while at < len(header):
        value = at + 3
        end = value + int.from_bytes(header[at + 1 : value], "big")
        if max(value, end) > len(header):
            raise ProxyHeaderError("PROXY header: a field reaches beyond the end of the header")
        if header[at] == _CRC32C:
            if end - value != 4 or checksum_at:
                raise ProxyHeaderError("PROXY header: the checksum is not one field of 4 bytes")
            checksum_at = value
        at = end
    if checksum_at:
        blank = header[:checksum_at] + bytes(4) + header[checksum_at + 4 :]
        if _crc32c(blank) != int.from_bytes(header[checksum_at : checksum_at + 4], "big"):
            raise ProxyHeaderError("PROXY header: the checksum is wrong")


@cache
def _crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


def _crc32c(data: bytes) -> int:
    """CRC-32C (RFC 4960, appendix B), as the number whose big-endian bytes are in the header."""
    table, crc = _crc32c_table(), 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


# --- building ---------------------------------------------------------------------------------------


def build_proxy_header(
    version: int, source: tuple[str, int] | None, destination: tuple[str, int] | None
) -> bytes:
    """The header for a connection from `source` to `destination`, each a numeric address and a port.

    Without either the receiver is told to take the connection's own addresses: UNKNOWN in version 1, LOCAL in
    version 2. If the families differ, the IPv4 address is written as IPv6 (::ffff:0:0/96). A zone is left out.

    Raises:
        ValueError: another version than 1 and 2, no numeric address, or no port.
    """
    if version not in (1, 2):
        raise ValueError(f"there are PROXY headers of version 1 and 2, not {version}")
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _SIGNATURE + b"\x20\0\0\0"
    hosts = [_packed(source[0]), _packed(destination[0])]
    ports = [source[1], destination[1]]
    for port in ports:
        if not 0 <= port <= 65535:
            raise ValueError(f"a port is 0 to 65535, not {port}")
    if len(hosts[0]) != len(hosts[1]):
        hosts = [_MAPPED[: 16 - len(host)] + host for host in hosts]
    is_v6 = len(hosts[0]) == 16
    if version == 1:
        texts = [_canonical_v6(host) if is_v6 else str(ipaddress.IPv4Address(host)) for host in hosts]
        family = "TCP6" if is_v6 else "TCP4"
        return f"PROXY {family} {texts[0]} {texts[1]} {ports[0]} {ports[1]}\r\n".encode()
    block = b"".join([*hosts, *(port.to_bytes(2, "big") for port in ports)])
    return _SIGNATURE + bytes((0x21, 0x21 if is_v6 else 0x11)) + len(block).to_bytes(2, "big") + block


def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host.partition("%")[0]).packed


def _canonical_v6(packed: bytes) -> str:
    """RFC 5952, but without dotted IPv4, which section 2.1 does not know and newer Pythons write."""
    if packed.startswith(_MAPPED):
        return f"::ffff:{packed[12:14].hex().lstrip('0') or 0}:{packed[14:].hex().lstrip('0') or 0}"
    return str(ipaddress.IPv6Address(packed))


def _host(packed: bytes) -> str:
    """A packed address as the rest of the package writes it."""
    return _plain(str(ipaddress.ip_address(packed)))
