"""What a listener is asked to be: its address, how the destination of a connection is found, what is allowed.

Owns the fields and that they make sense together. It must not know sockets, the engine or the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._networks import parse_networks

__all__ = ["ListenerSpec", "ListeningPlace"]

MODES = ("reverse", "redirect", "tproxy")


@dataclass(frozen=True)
class ListenerSpec:
    """One listener to open.

    Attributes:
        name: what filters and events call it (condition field `listener`).
        mode: "reverse": everything goes to the one upstream. "redirect": to where the connection went before a
            REDIRECT rule sent it here. "tproxy": to where it still believes to go, since a TPROXY rule rewrites
            nothing; needs CAP_NET_ADMIN.
        host, port: where to listen; an address of this machine or a name for one, port 0 for a free one.
        upstream_host, upstream_port: reverse: where accepted connections go; an address or a name.
        local: which side is WFP's local host, "client" or "server".
        nodelay: the local leg counts as one with TCP_NODELAY: SEND_NODELAY is set (IND-6).
        keep_client: tproxy: connect to the upstream from the client's address; `keep_port`: and from its port.
        accept_proxy: networks trusted to begin a connection with a PROXY header; empty: none is expected.
        send_proxy: version of the PROXY header for the upstream; 0: none.
        allow, deny: networks that destinations must, or must not, lie in; an empty `allow` is any.

    Raises:
        ValueError: they do not make sense together; the text is one line.
    """

    name: str = ""
    mode: str = "reverse"
    host: str = "127.0.0.1"
    port: int = 0
    upstream_host: str = ""
    upstream_port: int = 0
    local: str = "client"
    nodelay: bool = False
    keep_client: bool = False
    keep_port: bool = False
    accept_proxy: tuple[str, ...] = ()
    send_proxy: int = 0
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for wrong, why in (
            (self.mode not in MODES, f"mode is 'reverse', 'redirect' or 'tproxy', not {self.mode!r}"),
            (self.local not in ("client", "server"), f"local is 'client' or 'server', not {self.local!r}"),
            (self.is_reverse and not self._has_upstream, "reverse mode needs an upstream host and port"),
            (
                not self.is_reverse and bool(self.upstream_host or self.upstream_port),
                f"mode {self.mode} has no upstream: connections go where they were going",
            ),
            (self.keep_client and self.mode != "tproxy", "only mode tproxy can keep the client's address"),
            (self.keep_port and not self.keep_client, "keep_port is for a listener that keeps the address"),
            (self.send_proxy not in (0, 1, 2), f"send_proxy is 0, 1 or 2, not {self.send_proxy!r}"),
        ):
            if wrong:
                raise ValueError(f"listener {self.name!r}: {why}")
        try:
            for networks in (self.accept_proxy, self.allow, self.deny):
                parse_networks(networks)
        except ValueError as error:
            raise ValueError(f"listener {self.name!r}: {error}") from None

    @property
    def is_reverse(self) -> bool:
        """The destination is configured, not found."""
        return self.mode == "reverse"

    @property
    def _has_upstream(self) -> bool:
        return bool(self.upstream_host) and 0 < self.upstream_port < 65536

    @property
    def upstream(self) -> tuple[str, int]:
        """Where connections go, as configured; ("", 0) in the other modes."""
        return (self.upstream_host, self.upstream_port)


class ListeningPlace:
    """Where a listener is, and what it was asked to be.

    Attributes:
        spec: what was asked for; a rearrangement gives it another one, for new connections.
        host, port: where it listens really.
    """

    def __init__(self, spec: ListenerSpec, address: tuple[Any, ...]) -> None:
        self.spec = spec
        self.host: str = address[0]
        self.port: int = address[1]

    @property
    def name(self) -> str:
        """As filters and events call it."""
        return self.spec.name

    @property
    def mode(self) -> str:
        """How the destination of a connection is found."""
        return self.spec.mode

    @property
    def upstream(self) -> tuple[str, int]:
        """Where connections go, as configured; ("", 0) if that is found for each of them."""
        return self.spec.upstream

    def __str__(self) -> str:
        return f"listener {self.name or f'{self.host}:{self.port}'}"
