"""Floor 4: the control socket: a Unix stream socket of one process, JSON lines, for its owner and root only.

It knows no command: the server is given callables. Asking needs no event loop, and importing this loads none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._client import ask
from ._paths import default_socket_path, find_socket
from ._protocol import ControlError, ControlLimits

if TYPE_CHECKING:
    from ._server import Commands, serve_control

__all__ = [
    "Commands",
    "ControlError",
    "ControlLimits",
    "ask",
    "default_socket_path",
    "find_socket",
    "serve_control",
]

_OF_THE_SERVER = ("Commands", "serve_control")


def __getattr__(name: str) -> object:
    """Load the server, and trio with it, only for who serves."""
    if name in _OF_THE_SERVER:
        from . import _server

        return getattr(_server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
