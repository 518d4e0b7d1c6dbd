"""A callout that stops the proxy while others wait in the backlog: they are served when it has returned."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from tests.transport.kit import bounded, live, read_exactly
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout


class Nesting(Callout):
    """Permits everything at every layer, acts once at the first bytes, and notes how deep it is in itself."""

    layers = ("ale_auth_connect", "ale_flow_established", "stream")

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act
        self.calls = self.depth = self.deepest = 0

    def classify_fn(self, *args: Any) -> None:
        """PERMIT."""
        self.calls += 1
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        args[-1].action_type = int(ActionType.PERMIT)
        if getattr(getattr(args[2], "stream_data", None), "data_length", 0):
            act, self.act = self.act, lambda: None
            act()
        self.depth -= 1


@bounded
async def test_who_waits_in_the_backlog_is_not_asked_about_inside_another_call() -> None:
    async with live() as run:
        waiting: list[socket.socket] = []

        def stop() -> None:
            listener = run.proxy.listeners[0]
            waiting.extend(socket.create_connection((listener.host, listener.port)) for _ in range(3))
            run.proxy.request_stop(60.0)

        callout = Nesting(stop)
        run.engine.add_callout(callout)
        client, server = await run.pair()
        await client.send_all(b"stop")
        assert await read_exactly(server, 4) == b"stop"
        for sock in waiting:
            sock.sendall(b"and us")
            late = await run.accept()
            assert await read_exactly(late, 6) == b"and us"
            await late.aclose()
            sock.close()
        await client.aclose()
        await server.aclose()
        await run.deleted(4)
        assert callout.deepest == 1
        assert callout.calls >= 2 * 4
