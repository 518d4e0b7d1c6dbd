"""`wfpstream run` while its file is read again and again and `ctl` changes filters: no byte is lost."""

from __future__ import annotations

import json
import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.support.numbered import end
from tests.system import told_marks
from tests.system.kit import configured_proxy
from tests.transport.churn import BY_CONFIG, BY_HAND, HARMLESS, Change, check_order, marks_of
from wfpstream.control import ask

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


class Rounds(threading.Thread):
    """Changes something for each generation, as soon as the one before is effective; until `over`.

    Attributes:
        changes: each generation that became effective.
        error: what a change raised.
    """

    def __init__(self, name: str, folder: Path, change: Callable[[int, str], object]) -> None:
        super().__init__(name=name)
        self.changes: list[Change] = []
        self.error: BaseException | None = None
        self.fifo = str(folder / f"{name}.fifo")
        self.change = change
        os.mkfifo(self.fifo)
        self._reader = os.open(self.fifo, os.O_RDWR)
        self._over, self.over = os.pipe()

    def run(self) -> None:
        try:
            for generation in range(1 << 30):
                self.change(generation, self.fifo)
                met = self._wait(generation)
                if met is None:
                    return
                self.changes.append(Change(generation, self.name if generation else "first", met))
        except Exception as error:
            self.error = error

    def _wait(self, generation: int) -> frozenset[bool] | None:
        """The directions that have the mark of a generation; None if the stream is over."""
        while True:
            ready, _, _ = select.select([self._reader, self._over], [], [])
            if self._over in ready:
                return None
            for line in os.read(self._reader, select.PIPE_BUF).decode().splitlines():
                number, *directions = line.split()
                if int(number) == generation:
                    return frozenset(direction == "inbound" for direction in directions)

    def end(self) -> None:
        """The stream is over."""
        os.write(self.over, b"!")
        self.join()
        for fd in (self._reader, self._over, self.over):
            os.close(fd)
        assert self.error is None, repr(self.error)


class Operator:
    """Changes the rules of a running proxy from outside."""

    def __init__(self, folder: Path, upstream: int, dice: Random) -> None:
        self.file = folder / "wfpstream.toml"
        self.socket = folder / "control"
        self.signal: Callable[[], None] = lambda: None
        self._dice = dice
        self._hand_made: list[str] = []
        self._head = (
            f'[control]\nsocket = "{self.socket}"\n[[proxy.listener]]\nupstream = "127.0.0.1:{upstream}"\n'
        )

    def text(self, generation: int, fifo: str) -> str:
        """A configuration with a marking rule and others around it."""
        mark = told_marks.callout_text(self._dice, generation, BY_CONFIG, fifo)
        above, below = ([self._dice.choice(HARMLESS)] if self._dice.random() < 0.5 else [] for _ in range(2))
        named = [*(("above", one) for one in above), ("mark", mark), *(("below", one) for one in below)]
        return self._head + "".join(
            f'[[rule]]\nname = "{name}"\ncallout = "{callout}"\n' for name, callout in named
        )

    def reload(self, generation: int, fifo: str) -> None:
        """The file is written anew and read, on a signal or on a command; the first was read at the start."""
        if not generation:
            return
        beside = self.file.with_suffix(".new")
        beside.write_text(self.text(generation, fifo))
        os.replace(beside, self.file)
        if self._dice.random() < 0.5:
            self.signal()
        else:
            assert ask(self.socket, "reload")["changes"]

    def by_hand(self, generation: int, fifo: str) -> None:
        """One rule more; then the one before goes, as soon as it is idle."""
        name = f"by hand {generation}"
        callout = told_marks.callout_text(self._dice, generation, BY_HAND, fifo)
        ask(self.socket, "add-filter", {"callout": callout, "name": name})
        for old in self._hand_made:
            for one in self._filters(old):
                ask(self.socket, "delete-filter", {"filter": one, "drain": True})
        self._hand_made = [name]

    def _filters(self, name: str) -> list[int]:
        layers: list[dict[str, Any]] = ask(self.socket, "filters")["layers"]
        filters = [one for layer in layers for sub in layer["sublayers"] for one in sub["filters"]]
        return [one["id"] for one in filters if one["name"] == name and not one["retiring"]]


@pytest.mark.system
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(64 * MIB, id="64MiB", marks=pytest.mark.timeout(600)),
        pytest.param(1 << 30, id="1GiB", marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ],
)
def test_reloads_and_ctl_under_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """MGMT-11, MGMT-16: SIGHUP, `ctl reload`, `ctl add-filter` and `ctl delete-filter --drain`, all the time.

    Again with another stream as long as there were too few changes under it: it may be faster than who changes.
    """
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    reloads = by_hand = 0
    while min(reloads, by_hand) <= 3:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        reloads, by_hand = (
            known + made
            for known, made in zip((reloads, by_hand), stream_under_changes(folder, size), strict=True)
        )


def stream_under_changes(folder: Path, size: int) -> tuple[int, int]:
    """How often the file was read again under a stream each way, and how many rules were made by hand."""
    with end("serve", size) as server:
        assert server.stdout is not None
        operator = Operator(folder, int(server.stdout.readline()), Random(5))
        file, hand = (
            Rounds("reloaded", folder, operator.reload),
            Rounds("added", folder, operator.by_hand),
        )
        with configured_proxy(operator.text(0, file.fifo), folder, "-q", events=False) as running:
            operator.signal = lambda: running.process.send_signal(signal.SIGHUP)
            with end("connect", size, running.port) as client:
                assert client.stdout is not None
                file.start()
                hand.start()
                try:
                    found = [
                        json.loads(process.stdout.readline())
                        for process in (client, server)
                        if process.stdout
                    ]
                finally:
                    file.end()
                    hand.end()
    for here, there, inbound in ((found[0], found[1], True), (found[1], found[0], False)):
        assert here["wrong"] == ""
        assert here["size"] == size
        assert here["received"] == there["sent"]
        check_order(marks_of(here["runs"], BY_CONFIG), file.changes, inbound)
        check_order(marks_of(here["runs"], BY_HAND), hand.changes, inbound)
    print(f"{size / MIB:.0f} MiB each way: {len(file.changes)} reloads, {len(hand.changes)} rules by hand")
    return len(file.changes), len(hand.changes)
