"""A mitmproxy script that does in TCP mode what the measured `stream_edit` does, as its own documents show it.

A pattern across two messages is not found: mitmproxy hands over one read at a time.
"""

from __future__ import annotations

from typing import Any

FIND = b"find-this-needle"
REPLACE = b"FOUND-THE-NEEDLE"


def tcp_message(flow: Any) -> None:
    """Change what was just read."""
    message = flow.messages[-1]
    message.content = message.content.replace(FIND, REPLACE)
