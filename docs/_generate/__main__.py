"""`python -m docs._generate`: write the generated pages."""

from __future__ import annotations

from docs._generate import write_pages

for name in write_pages():
    print(f"docs/{name}: written")
