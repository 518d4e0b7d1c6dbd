"""Floor 5: the command line. It wires the rooms below together and decides nothing they decide."""

from __future__ import annotations

from wfpstream.cli._main import main

__all__ = ["main"]
