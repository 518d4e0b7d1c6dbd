"""A proxy that is none: a real engine in memory, and a deployment that notes what it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.testing import MemoryDriver


@dataclass
class Listening:
    name: str = "web"
    mode: str = "reverse"
    host: str = "127.0.0.1"
    port: int = 8888


@dataclass
class Proxying:
    listeners: tuple[Listening, ...] = (Listening(), Listening("", "redirect", "::1", 9))
    connections: int = 3
    accepted: int = 7
    refused: int = 1
    rejected: dict[str, int] = field(default_factory=lambda: {"own_listener": 2})


class Changed:
    """A difference of these lines."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines

    def lines(self) -> list[str]:
        return list(self._lines)

    def as_data(self) -> list[dict[str, str]]:
        return [{"name": line} for line in self._lines]


class Deployment:
    """Notes what it is asked for; raises `error`, if there is one."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        self.engine: FilterEngine

    def add_rule(self, callout_text: str, when: Mapping[str, object], name: str | None = None) -> Changed:
        self._note("rule", callout_text, dict(when), name)
        return Changed(f'+ rule "{name}"')

    def add_fragment(self, toml_text: str) -> Changed:
        self._note("fragment", toml_text)
        return Changed("+ callout", "+ filter \x1b[2J")

    def delete_filter(self, filter_id: int, drain: bool) -> NtStatus:
        self._note("delete", filter_id, drain)
        return self.engine.session.filter_delete_by_id(filter_id)

    def _note(self, *asked: Any) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append(asked)


class Operated:
    """What a runner offers to its control socket."""

    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver
        self.engine = driver.engine
        self.deployment = Deployment()
        self.deployment.engine = driver.engine
        self.proxy = Proxying()
        self.reloads: list[Changed | Exception] = []
        self.drained: list[float | None] = []

    async def reload(self) -> Changed:
        found = self.reloads.pop(0) if self.reloads else Changed()
        if isinstance(found, Exception):
            raise found
        return found

    def drain(self, grace: float | None) -> None:
        self.drained.append(grace)
