"""Live traffic: sockets, the two drivers over the engine, original destinations, the worker parent."""

from __future__ import annotations

__all__: list[str] = []
