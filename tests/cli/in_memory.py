"""A proxy that can be asked and steered like any other, but whose connections are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.operated import Listening, Proxying
from tests.control.kit import serving
from wfpstream.cli._commands import make_commands
from wfpstream.config import Difference, deploy, load_config
from wfpstream.testing import FlowEnds, MemoryDriver


class InMemoryProxy:
    """What `wfpstream run -c FILE` offers to its control socket; time stands still."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.deployment = deploy(load_config(file))
        self.driver = MemoryDriver(engine=self.deployment.engine)
        self.engine = self.deployment.engine
        listeners = self.deployment.loaded.config.proxy.listener
        self.proxy = Proxying(
            tuple(Listening(one.name, one.mode, port=8888) for one in listeners),
            connections=0, accepted=0, refused=0, rejected={},
        )  # fmt: skip
        self.drained: list[float | None] = []

    def connect(self, client: tuple[str, int] | None = None) -> FlowEnds:
        """A connection to the first listener."""
        self.proxy.connections += 1
        self.proxy.accepted += 1
        ends = self.driver.connect(client, ("127.0.0.1", 8080), listener=self.proxy.listeners[0].name)
        assert ends is not None
        return ends

    async def reload(self) -> Difference:
        return self.deployment.prepare(load_config(self._file)).commit()

    def drain(self, grace: float | None) -> None:
        self.drained.append(grace)


@contextmanager
def running_in_memory(file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryProxy]:
    """Let `wfpstream ctl` find such a proxy, and no other."""
    monkeypatch.setattr("wfpstream.control._paths._folders", lambda: iter([folder]))
    proxy = InMemoryProxy(file)
    try:
        with serving(folder / "1.sock", make_commands(proxy)):
            yield proxy
    finally:
        proxy.driver.close()
