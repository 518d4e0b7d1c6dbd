"""Floor 4: what a relay does to TCP at its edges, tried from both sides of it; any relay, not only ours."""

from __future__ import annotations

__all__: list[str] = []
