"""Floor 5: the pytest plugin, which wires the rooms below into fixtures, options and reports."""

from __future__ import annotations

__all__: list[str] = []
