"""The keys of a vector's management objects: names that are GUIDs.

Owns the translation both ways: a name's bytes, filled up with zeros, are the GUID's. It must not know objects.
"""

from __future__ import annotations

from uuid import UUID

_LENGTH = 16


def key_of(name: str) -> UUID:
    """The key that a vector calls `name`. Raises ValueError: no ASCII, or longer than 16 characters."""
    data = name.encode("ascii")
    if len(data) > _LENGTH:
        raise ValueError(f"a key's name has at most {_LENGTH} characters: {name!r}")
    return UUID(bytes=data.ljust(_LENGTH, b"\0"))


def name_of(key: UUID | None) -> str | None:
    """The name behind such a key; None for None."""
    return None if key is None else key.bytes.rstrip(b"\0").decode("latin-1")
