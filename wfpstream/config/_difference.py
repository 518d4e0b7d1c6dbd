"""What a change of the configuration changes, for people and for programs.

Owns the records and their lines. What has changed is compared elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

What = Literal["added", "removed", "changed"]
ADDED: Final = "added"
REMOVED: Final = "removed"
CHANGED: Final = "changed"
_MARKS = {ADDED: "+", REMOVED: "-", CHANGED: "~"}
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is added, removed or changed.

    Attributes:
        kind: `rule`, `filter`, `sublayer`, `callout`, `listener` or `setting`.
        name: its name; of a setting its key, such as `limits.unsent`.
        what: `added`, `removed` or `changed`.
        detail: what has changed, or more about it; may be empty.
    """

    kind: str
    name: str
    what: What
    detail: str = ""

    def __str__(self) -> str:
        """One line: `~ callout "sunny": find "a" -> "b"`."""
        name = (
            self.name
            if self.kind == "setting"
            else f"{self.kind} {json.dumps(self.name, ensure_ascii=False)}"
        )
        if not self.detail:
            return f"{_MARKS[self.what]} {name}"
        return f"{_MARKS[self.what]} {name}{':' if self.what == CHANGED else ''} {self.detail}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Everything that is added, removed or changed; falsy when that is nothing."""

    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)

    def lines(self) -> list[str]:
        """One line per change, in the order of the file; what is removed comes last of its kind."""
        return [str(change) for change in self.changes]

    def as_data(self) -> list[dict[str, Any]]:
        """The same as plain data, for JSON."""
        return [
            {"kind": change.kind, "name": change.name, "what": change.what, "detail": change.detail}
            for change in self.changes
        ]


def changed(pairs: Sequence[tuple[str, object, object]]) -> list[str]:
    """`find "a" -> "b"` for each (name, old, new) that differ."""
    return [f"{name} {shown(old)} -> {shown(new)}".lstrip() for name, old, new in pairs]


def shown(value: object) -> str:
    """A value in few words, as a configuration would write it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(shown(one) for one in value)}]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key} = {shown(one)}" for key, one in value.items()) + "}"
    else:
        text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
