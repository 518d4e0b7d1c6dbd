"""The page of the torture suite: its cases from the suite, what they found with other relays from the template."""

from __future__ import annotations

from pathlib import Path

from docs._generate._markdown import code, generated, page, table
from wfpstream.torture import list_cases

TEXTS = Path(__file__).with_name("torture.md")


def torture_page() -> str:
    """`reference/torture.md`: `<!-- cases -->` of the template becomes the table of cases."""
    rows = [(code(name), title) for name, title in list_cases()]
    text = TEXTS.read_text(encoding="utf-8")
    text = text.replace("<!-- cases -->", table(["case", "what is done, and what must arrive"], rows))
    return page(generated("the suite and `docs/_generate/torture.md`"), text)
