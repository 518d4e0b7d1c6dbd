"""Addresses of loopback for tests that give ports back and want them again.

Owns that no two processes get the same one.
"""

from __future__ import annotations

import os


def own_host() -> str:
    """An address of loopback that no other process uses: a port there that was given back stays free."""
    pid = os.getpid()
    return f"127.{1 + (pid >> 16) % 250}.{pid >> 8 & 255}.{pid & 255 or 1}"
