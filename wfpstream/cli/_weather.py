"""The demo's performance: a weather server, a client, and two listeners of a proxy between them.

One edits inline, the other out of band. Owns the story and how events are told; every byte and every event is
real. The server sends its next piece when the one before was shown to the callout, so that the story is the
same each time.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO, cast

import trio
from rich.console import Console
from rich.text import Text

from wfpstream.config import build_engine, parse_config
from wfpstream.engine import FilterEngine
from wfpstream.observe import safe_bytes, safe_text
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy

PIECES = (b"It is rai", b"ny today, rainy, ", b"and rai", b"ny tomorrow.\n")
EXPECTED = b"It is sunny today, sunny, and sunny tomorrow.\n"
REQUEST = b"How is the weather?\n"
_DEADLINE = 20.0
_WIDTH = 100

CONFIG = """
[[rule]]
callout = "stream_edit,find=rainy,replace=sunny,mode=inline,direction=to_client"
when = { listener = "inline" }

[[rule]]
callout = "stream_edit,find=rainy,replace=sunny,mode=oob,direction=to_client"
when = { listener = "oob" }
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One listener, one way of editing, and how it is introduced."""

    listener: str
    title: str
    story: str


SCENES = (
    Scene(
        "inline",
        "Inline: decided inside classify",
        "The callout is shown each segment and answers at once: permit so many bytes, block so many, inject "
        "others in their place. Where a word may be cut in two by a segment border, it asks for more data.",
    ),
    Scene(
        "oob",
        "Out of band: cloned, blocked, edited later",
        "The callout clones every segment and blocks it, the FIN too. A worker edits the clones in its own "
        "time and injects the result, and at the end the FIN.",
    ),
)


def perform(file: TextIO | None = None) -> bool:
    """Perform all scenes; whether every byte is what it should be.

    Args:
        file: where to tell the story; absent: stdout.

    Raises:
        OSError: it could not be told to the end.
    """
    output = _Output(file or sys.stdout)
    console = Console(file=cast(TextIO, output), highlight=False)
    is_right = trio.run(_Performance(console).run)
    if output.error is not None:
        raise output.error
    return is_right


class _Output:
    """A text file that never raises: a sink must not, and rich would end the process."""

    def __init__(self, file: TextIO) -> None:
        self.error: OSError | None = None
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """Write, unless that failed before."""
        try:
            return len(text) if self.error else self._file.write(text)
        except OSError as error:
            self.error = error
            return 0

    def flush(self) -> None:
        """Flush, unless something failed before."""
        try:
            if not self.error:
                self._file.flush()
        except OSError as error:
            self.error = error


class _Performance:
    def __init__(self, console: Console) -> None:
        self._teller = Teller(console)
        self._engine: FilterEngine = build_engine(parse_config(CONFIG), clock=time.monotonic)
        self._engine.add_sink(self._teller)

    async def run(self) -> bool:
        with trio.fail_after(_DEADLINE):
            async with trio.open_nursery() as nursery:
                listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
                upstream: tuple[str, int] = listeners[0].socket.getsockname()
                nursery.start_soon(trio.serve_listeners, self._answer, listeners)
                specs = [
                    ListenerSpec(name=scene.listener, upstream_host=upstream[0], upstream_port=upstream[1])
                    for scene in SCENES
                ]

                async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
                    await serve_proxy(self._engine, specs, task_status=task_status)

                proxy: Proxy = await nursery.start(serve)
                results = [
                    await self._play(number, scene, proxy) for number, scene in enumerate(SCENES, start=1)
                ]
                await proxy.stop()
                nursery.cancel_scope.cancel()
        return all(results)

    async def _play(self, number: int, scene: Scene, proxy: Proxy) -> bool:
        address = next(one for one in proxy.listeners if one.name == scene.listener)
        self._teller.begin(number, scene)
        client = await trio.open_tcp_stream(address.host, address.port)
        await client.send_all(REQUEST)
        await client.send_eof()
        received = b"".join([chunk async for chunk in client])
        await client.aclose()
        await proxy.wait_connections()
        return self._teller.end(received)

    async def _answer(self, stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass
        sent = 0
        for piece in PIECES:
            self._teller.tell("server", f"sends {safe_bytes(piece)}", "bold")
            await stream.send_all(piece)
            sent += len(piece)
            await self._teller.wait_shown(sent)
        self._teller.tell("server", "sends FIN", "bold")
        await stream.aclose()


class Teller:
    """A sink that tells what happens to the bytes on their way to the client.

    Args:
        console: where to tell it.
    """

    wants_data = "full"

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = 0.0
        self._shown = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._ledger: Mapping[str, Any] = {}

    def begin(self, number: int, scene: Scene) -> None:
        """The heading of a scene."""
        self._began = time.monotonic()
        self._shown = 0
        self._ledger = {}
        self._console.print(Text(f"\n{number}. {scene.title}", "bold cyan"))
        for line in textwrap.wrap(scene.story, min(_WIDTH, self._console.width) - 3):
            self._console.print(Text(f"   {line}", "dim"))

    def tell(self, who: str, what: str, style: str = "") -> None:
        """One line of the story."""
        line = Text(f"{(time.monotonic() - self._began) * 1000:7.1f} ms  ", "dim")
        line.append(f"{who:12} ", "cyan")
        line.append(safe_text(what), style)
        self._console.print(line, soft_wrap=True)

    async def wait_shown(self, count: int) -> None:
        """Until the callout was shown `count` bytes of the server's answer."""
        while self._shown < count:
            await self._changed.park()

    def __call__(self, event: dict[str, Any]) -> None:
        """Tell one event, if the story is about it."""
        name = event["event"]
        if name == "flow_deleted":
            self._ledger = event["ledger"]
        teller = getattr(self, f"_on_{name}", None)
        if teller is not None and event.get("dir", "to_client") == "to_client":
            teller(event)

    def end(self, received: bytes) -> bool:
        """The result of a scene; whether it is right."""
        is_right = received == EXPECTED
        self.tell("client", f"receives {safe_bytes(received)}", "bold green" if is_right else "bold red")
        balanced = [self._balance(direction) for direction in ("to_upstream", "to_client")]
        return is_right and all(balanced)

    def _balance(self, direction: str) -> bool:
        """LED-4: every byte that came in, or was put in, went somewhere."""
        counts = self._ledger.get(direction)
        if counts is None:
            self.tell("ledger", f"{direction}: none", "bold red")
            return False
        entered = (
            counts["read"] - counts["blocked_original"] + counts["injected"] - counts["blocked_injected"]
        )
        entered -= counts["held"] + counts["queued"] + counts["discarded"]
        left = counts["written"] + counts["unsent"] + counts["discarded_out"]
        is_even = bool(entered == left)
        sums = f"read {counts['read']} - blocked {counts['blocked_original']} + injected {counts['injected']}"
        verdict = "balanced" if is_even else "NOT balanced"
        text = f"{direction}: {sums} = written {counts['written']}  {verdict}"
        self.tell("ledger", text, "green" if is_even else "bold red")
        return is_even

    def _on_indicate(self, event: dict[str, Any]) -> None:
        what = f"{_bytes(event)} at {event['offset']}"
        if event["len"]:
            what += f": {safe_bytes(event['data'])}"
        self.tell("indicate", what)
        self._shown = max(self._shown, event["offset"] + event["len"])
        self._changed.unpark_all()

    def _on_classify(self, event: dict[str, Any]) -> None:
        if event["stream_action"] != "NONE":
            more = f", {event['required']} bytes" if event["required"] else ""
            self.tell("  answer", f"{event['stream_action']}{more}", "yellow")
            return
        style = "red" if event["action"] == "BLOCK" else "green"
        decided = _bytes({**event, "len": event["enforced"] or event["len"]})
        self.tell("  answer", f"{event['action']} {decided}", style)

    def _on_inject(self, event: dict[str, Any]) -> None:
        self.tell("inject", f"{_bytes(event)}: {event['status']}", "magenta")

    def _on_inject_complete(self, event: dict[str, Any]) -> None:
        self.tell("completed", f"{_bytes(event)}: {event['status']}", "magenta")

    def _on_flow_deleted(self, event: dict[str, Any]) -> None:
        self.tell("flow deleted", f"reason {event['reason']}")


def _bytes(event: Mapping[str, Any]) -> str:
    """How many bytes an event is about; without any it is about the end of the stream."""
    return f"{event['len']} bytes" if event["len"] else "the FIN"
