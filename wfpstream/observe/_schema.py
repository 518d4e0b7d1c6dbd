"""The JSON Schema of event lines, as shipped beside this file."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def events_schema() -> dict[str, Any]:
    """The schema that every line of `--events` follows (JSON Schema 2020-12)."""
    text = files(__package__).joinpath("events.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
