"""Floor 0: formats without I/O: from a captured frame to its TCP segment, the writing of captures, PROXY headers."""

from __future__ import annotations

from ._both_sides import BothSides
from ._capture import pcap_header, pcap_record, pcapng_header, pcapng_record
from ._checksum import internet_checksum
from ._plain import plain_tcp
from ._proxy_protocol import (
    MAX_PROXY_HEADER,
    ProxyHeader,
    ProxyHeaderError,
    build_proxy_header,
    parse_proxy_header,
)
from ._records import (
    SKIP_MALFORMED,
    SKIP_NOT_IP,
    SKIP_NOT_TCP,
    SKIP_TUNNEL,
    SKIP_UNKNOWN_LINK,
    Fragment,
    Segment,
    Skip,
    Walked,
)
from ._stream_writer import StreamWriter
from ._synthesis import FrameMaker, handshake_options, tcp_frame
from ._walk import (
    LINK_ETHERNET,
    LINK_IPV4,
    LINK_IPV6,
    LINK_LOOP,
    LINK_NULL,
    LINK_RAW,
    LINK_SLL,
    LINK_SLL2,
    walk,
    walk_ip,
)

__all__ = [
    "LINK_ETHERNET",
    "LINK_IPV4",
    "LINK_IPV6",
    "LINK_LOOP",
    "LINK_NULL",
    "LINK_RAW",
    "LINK_SLL",
    "LINK_SLL2",
    "MAX_PROXY_HEADER",
    "SKIP_MALFORMED",
    "SKIP_NOT_IP",
    "SKIP_NOT_TCP",
    "SKIP_TUNNEL",
    "SKIP_UNKNOWN_LINK",
    "BothSides",
    "Fragment",
    "FrameMaker",
    "ProxyHeader",
    "ProxyHeaderError",
    "Segment",
    "Skip",
    "StreamWriter",
    "Walked",
    "build_proxy_header",
    "handshake_options",
    "internet_checksum",
    "parse_proxy_header",
    "pcap_header",
    "pcap_record",
    "pcapng_header",
    "pcapng_record",
    "plain_tcp",
    "tcp_frame",
    "walk",
    "walk_ip",
]
