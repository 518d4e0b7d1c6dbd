"""The addresses of one accepted connection, as its driver knows them.

Owns the record only; `_addresses` makes fixed values of it (FLD-*).
"""

from __future__ import annotations

from typing import NamedTuple

Address = tuple[str, int]


class Endpoints(NamedTuple):
    """The addresses of one accepted connection (FLD-10).

    Attributes:
        client: the client's address and port (peer of the accepted socket, or what PROXY protocol says).
        destination: what the client asked for: the original destination, or the configured upstream.
        listener_address: our own address, which is LOCAL for `local = "server"` in reverse mode.
        listener: name of the listener.
        local: which side is WFP's local host, "client" or "server".
        nodelay: the local leg sends without delay (IND-6).
        label: what events call this flow; None numbers flows from 1.
    """

    client: Address
    destination: Address
    listener_address: Address | None = None
    listener: str = ""
    local: str = "client"
    nodelay: bool = False
    label: int | None = None
