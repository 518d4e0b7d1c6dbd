"""The Windows Filtering Platform's TCP stream layer, in user space.

Importing this package loads neither trio nor scapy: only the rooms that do I/O need them.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
