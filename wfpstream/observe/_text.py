"""Bytes and names from the network, made safe to show: nothing that reaches a terminal can steer it."""

from __future__ import annotations


def safe_text(text: str) -> str:
    """`text` with everything but printable characters (control, direction marks, surrogates) as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def safe_bytes(data: bytes, limit: int = 64) -> str:
    """`data` as quoted text with escapes, cut after `limit` bytes."""
    shown = repr(data[:limit])[1:]
    return f"{shown}..." if len(data) > limit else shown
