"""Trouble that comes late: in the middle of a splice, or at the very end of a flow."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from tests.transport.kit import Probe, bounded, live, read_all
from tests.transport.test_offload import MIB, Allowing, Ears, hub_of, noise, offloaded_pair, relay_exactly
from wfpstream.engine import Flow
from wfpstream.transport import _offload


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.ENOBUFS])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
@bounded
async def test_a_kernel_without_memory_for_a_splice_costs_no_byte(number: int, after: int) -> None:
    """Into the pipe or out of it: what is in there is written as usual, and splicing tried again later."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with live(Allowing()) as run:
            client, server = await offloaded_pair(run)
            calls, splice = 0, os.splice

            def short(*args: Any, **kwargs: Any) -> int:
                nonlocal calls
                calls += 1
                if calls > after:
                    raise OSError(number, os.strerror(number))
                return splice(*args, **kwargs)

            monkeypatch.setattr(os, "splice", short)
            monkeypatch.setattr(_offload, "TRY_AGAIN", 1000.0)
            await relay_exactly(client, server, noise(7, 3 * MIB))
            assert calls == after + 1
            assert not run.flow.is_offloaded
            assert hub_of(run).pipes.lent == 0
            await client.aclose()
            await server.aclose()
            assert (await run.deleted())["reason"] == "fin"


@bounded
async def test_a_defect_at_the_very_end_of_a_flow_is_told_and_its_connection_is_over() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with live(Probe(), quiet=False) as run:
            client, server = await run.pair()
            gone = Flow.gone

            def spoilt(flow: Flow, reason: str = "") -> None:
                gone(flow, reason)
                raise RuntimeError("defect")

            monkeypatch.setattr(Flow, "gone", spoilt)
            await client.aclose()
            assert await read_all(server) == (b"", "fin")
            await server.aclose()
            await run.deleted()
            await run.proxy.wait_connections()
            assert run.lines == ["listener web: RuntimeError: defect"]


class Spoilt(Ears):
    """A tap that cannot hear."""

    def joined(self, flow: int, leg: str, own: object, peer: object) -> None:
        """A defect."""
        raise RuntimeError("defect")


@bounded
async def test_a_defect_at_the_very_beginning_of_a_flow_is_told_and_its_connection_is_over() -> None:
    async with live(Probe(), tap=Spoilt(), quiet=False) as run:
        client = await run.client()
        assert await read_all(client) == (b"", "reset")
        assert await read_all(await run.accept()) == (b"", "reset")
        await run.proxy.wait_connections()
        assert run.lines == ["listener web: RuntimeError: defect"]
        assert (await run.deleted())["reason"] == "abort"
