"""IP packets inside encapsulations that the header walk does not know, found with scapy's dissectors.

Owns the path from a frame to the IP packets in it: VXLAN, Geneve, GRE (NVGRE, ERSPAN, PPTP), GTP-U, L2TP, PPPoE,
PPP, MPLS and its pseudo-wires, EtherIP, 802.11 and every link type scapy names. Knows nothing of streams or files.

scapy is asked for one header at a time, and which one follows; it never dissects a packet as a whole. So what is
inside the IP packet stays untouched (scapy would go on into TLS or DNS), nothing recurses however deep a packet
nests, and the nesting is ours to bound. Nothing is kept from one packet to the next.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any, Final

from wfpstream.wire import SKIP_TUNNEL, Skip, walk_ip

from ._scapy import QuietScapy
from ._source import first_line

MAX_NESTED: Final = 4
# Labels, tags and options are headers of their own; a stack longer than this is made to keep us busy.
MAX_HEADERS: Final = 64
# No header is longer, but some of scapy's dissectors take time with the square of what they are given.
LONGEST_HEADER: Final = 16 << 10

# The headers that can stand between a frame's start and an IP packet, and the modules that tell scapy of them.
# Whatever else scapy makes of a payload (a beacon, an authentication, DNS) leads nowhere and is not looked into.
_CARRIERS_OF: Final = {
    "scapy.layers.l2": """Ether Dot3 LLC SNAP Dot1Q Dot1AD Dot1AH MPacketPreamble GRE GRErouting GRE_PPTP
        CookedLinux CookedLinuxV2 Loopback LoopbackOpenBSD""",
    "scapy.layers.inet": "IP UDP",
    "scapy.layers.inet6": """IPv46 IPv6 IPv6ExtHdrHopByHop IPv6ExtHdrDestOpt IPv6ExtHdrRouting
        IPv6ExtHdrSegmentRouting""",
    "scapy.layers.dot11": "Dot11 Dot11FCS Dot11QoS PrismHeader RadioTap",
    "scapy.layers.l2tp": "L2TP",
    "scapy.layers.pflog": "PFLog",
    "scapy.layers.ppi": "PPI",
    "scapy.layers.ppp": "PPP PPPoE HDLC DIR_PPP",
    "scapy.layers.vxlan": "VXLAN",
    "scapy.contrib.avs": "AVSWLANHeader",
    "scapy.contrib.chdlc": "CHDLC",
    "scapy.contrib.erspan": "ERSPAN ERSPAN_I ERSPAN_II ERSPAN_III ERSPAN_PlatformSpecific",
    "scapy.contrib.etherip": "EtherIP",
    "scapy.contrib.geneve": "GENEVE",
    "scapy.contrib.gtp": """GTP_U_Header GTPPDUSessionContainer GTP_PDCP_PDU_ExtensionHeader
        GTP_UDPPort_ExtensionHeader""",
    "scapy.contrib.mpls": "MPLS EoMCW",
}
_CARRIERS: Final = frozenset(name for names in _CARRIERS_OF.values() for name in names.split())
_IP: Final = frozenset({"IP", "IPv46", "IPv6"})

# What scapy leaves unbound in some places though it knows the header, by the number that announces it.
_BY_ETHERTYPE: Final = {
    0x0800: "IP",
    0x6558: "Ether",
    0x8100: "Dot1Q",
    0x86DD: "IPv6",
    0x880B: "PPP",
    0x8847: "MPLS",
    0x8848: "MPLS",
    0x8864: "PPPoE",
    0x88A8: "Dot1AD",
    0x9100: "Dot1Q",
    0x9200: "Dot1Q",
}
_BY_PROTOCOL: Final = {17: "UDP", 47: "GRE", 97: "EtherIP", 137: "MPLS"}
_BY_PORT: Final = {
    1701: "L2TP",
    2152: "GTP_U_Header",
    3544: "IPv6",  # Teredo without its authentication and origin headers
    4789: "VXLAN",
    4790: "VXLAN",
    6081: "GENEVE",
    6635: "MPLS",
    8472: "VXLAN",
}
# Where a header keeps the number of what follows, and which table reads it.
_NUMBERS: Final = {
    "type": _BY_ETHERTYPE,
    "code": _BY_ETHERTYPE,
    "proto": _BY_ETHERTYPE,
    "nh": _BY_PROTOCOL,
}
# Link types that scapy has no name for, or another number.
_LINKS: Final = {14: "IPv46", 219: "MPLS"}

_Layer = Any  # a class or an object of scapy's, which has no types to speak of


class TunnelError(ValueError):
    """What scapy could not make sense of in one packet; one line."""


class _Known:
    """scapy's classes for the headers we pass through, by name."""

    def __init__(self) -> None:
        self.classes: dict[str, _Layer] = {}
        for name, classes in _CARRIERS_OF.items():
            module = import_module(name)
            for carrier in classes.split():
                # An older scapy has fewer; what it lacks it never answers either.
                if hasattr(module, carrier):
                    self.classes[carrier] = getattr(module, carrier)
        self.links: dict[int, _Layer] = dict(import_module("scapy.config").conf.l2types.num2layer)
        for number, carrier in _LINKS.items():
            self.links.setdefault(number, self.classes[carrier])


@cache
def _known() -> _Known:
    """Load scapy's layers, once; half a second."""
    return _Known()


def inner_packets(link_type: int, frame: bytes) -> list[bytes]:
    """The IP packets inside `frame`, each from its IP header on; none if scapy finds none.

    An IP packet that itself carries a tunnel is passed through, not returned: `walk_ip` reads what is returned.

    Raises: TunnelError, one line: more than 4 encapsulations in one another, a link type scapy does not know, or
    whatever scapy raised on these bytes.
    """
    try:
        with QuietScapy():
            return _descend(link_type, bytes(frame))
    except TunnelError:
        raise
    except (
        Exception
    ) as error:  # scapy's dissectors raise anything on bytes they do not expect; RecursionError too
        raise TunnelError(f"scapy: {type(error).__name__}: {first_line(error)}") from None


def _descend(link_type: int, data: bytes) -> list[bytes]:
    known = _known()
    header = known.links.get(link_type)
    if header is None:
        raise TunnelError(f"link type {link_type} is not known")
    under: _Layer = None
    met: dict[str, int] = {}
    for _ in range(MAX_HEADERS):
        header = _resolved(header, data, under)
        name = header.__name__
        if not data or name not in _CARRIERS:
            return []
        if name in _IP and not _is_tunnel(data):
            return [data]
        _count(met, name)
        try:
            under, data = _one_header(header, data, under)
            header = _following(known, under, data) if data else None
        except Exception as error:  # a header that is cut or damaged
            raise TunnelError(f"scapy, {name}: {type(error).__name__}: {first_line(error)}") from None
        if header is None:
            return []
    raise TunnelError(f"more than {MAX_HEADERS} headers in one another")


def _resolved(header: _Layer, data: bytes, under: _Layer) -> _Layer:
    """The class that fits these bytes: scapy lets some headers choose (GRE's version, Ethernet or 802.3)."""
    hook = header.__dict__.get("dispatch_hook")
    return header if hook is None else header.dispatch_hook(data, _underlayer=under)


def _is_tunnel(packet: bytes) -> bool:
    walked = walk_ip(packet)
    return isinstance(walked, Skip) and walked.kind == SKIP_TUNNEL


def _count(met: dict[str, int], name: str) -> None:
    """Count a header; none may come inside itself more often than packets nest. Labels are a stack, not a nesting."""
    if name == "MPLS":
        return
    name = "IP" if name in _IP else name
    met[name] = met.get(name, 0) + 1
    if met[name] > MAX_NESTED + (name in ("IP", "Ether", "Dot1Q")):
        raise TunnelError(f"more than {MAX_NESTED} encapsulations in one another")


def _one_header(header: _Layer, data: bytes, under: _Layer) -> tuple[_Layer, bytes]:
    """Dissect one header at the start of `data`; the header, and what is behind it.

    These are the steps scapy's own `dissect` takes, as its manual offers them for overriding. Left out are those
    behind the header: the payload is not dissected, nor cut to a length (which may lie) that the header gives; the
    inner IP packet knows its own.
    """
    head = data[:LONGEST_HEADER]
    layer = header(_underlayer=under)
    layer.original = head  # some headers find their end by it
    rest = bytes(layer.post_dissect(layer.do_dissect(layer.pre_dissect(head))))
    if len(head) < len(data):
        rest += data[LONGEST_HEADER:]
    return layer, rest


def _following(known: _Known, layer: _Layer, payload: bytes) -> _Layer | None:
    """The class of the header that follows `layer`, None if there is none that can lead to IP."""
    name = type(layer).__name__
    if name == "UDP":
        port = _BY_PORT.get(layer.dport) or _BY_PORT.get(layer.sport)
        return known.classes[port] if port else None
    guess = layer.guess_payload_class(payload)
    if guess.__name__ in _CARRIERS:
        return guess
    for field, table in _NUMBERS.items():
        number = layer.fields.get(field)
        if isinstance(number, int):
            found = (_BY_PROTOCOL if name in _IP else table).get(number)
            return known.classes[found] if found else None
    return None
