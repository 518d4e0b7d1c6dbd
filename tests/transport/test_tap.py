"""A tap on a live proxy hears what every leg read and wrote, and may cut what is read."""

from __future__ import annotations

import pytest

from tests.transport.kit import Probe, bounded, live, read_all, read_exactly, reset
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.testing import Chop, Moment, Recorder


def said(recorder: Recorder, leg: str, deed: str) -> bytes:
    moments = [entry for entry in recorder.entries if isinstance(entry, Moment)]
    return b"".join(one.data for one in moments if (one.leg, one.deed) == (leg, deed))


def deeds(recorder: Recorder, leg: str) -> list[str]:
    return [entry.deed for entry in recorder.entries if isinstance(entry, Moment) and entry.leg == leg]


@pytest.mark.parametrize("local", ["client", "server"])
@bounded
async def test_it_hears_both_sides_with_their_addresses(local: str) -> None:
    recorder = Recorder()
    async with live(StreamEdit(find=b"rainy", replace=b"sunny!"), local=local, tap=recorder) as run:
        recorder.attach(run.engine)
        client, server = await run.pair()
        await client.send_all(b"a rainy day")
        assert await read_exactly(server, 12) == b"a sunny! day"
        await server.send_all(b"so it is")
        assert await read_exactly(client, 8) == b"so it is"
        await client.send_eof()
        await read_all(server)
        await server.aclose()
        await run.deleted()
        places = {e.leg: (e.own, e.peer) for e in recorder.entries if isinstance(e, Moment) and e.peer}
        listener = run.proxy.listeners[0]
        assert places["client"] == ((listener.host, listener.port), client.socket.getsockname())
        assert places["upstream"][1] == run.upstream.getsockname()
    assert said(recorder, "client", "read") == b"a rainy day"
    assert said(recorder, "upstream", "wrote") == b"a sunny! day"
    assert said(recorder, "upstream", "read") == said(recorder, "client", "wrote") == b"so it is"
    assert "fin_read" in deeds(recorder, "client")
    assert "fin_wrote" in deeds(recorder, "upstream")


@bounded
async def test_it_hears_who_reset() -> None:
    recorder = Recorder()
    async with live(Probe(), tap=recorder) as run:
        client, server = await run.pair()
        reset(server)
        await read_all(client)
        await run.deleted()
    assert "reset_read" in deeds(recorder, "upstream")
    assert "reset_read" not in deeds(recorder, "client")


@bounded
async def test_what_is_read_is_indicated_in_segments_and_arrives_whole() -> None:
    data = bytes(range(256)) * 40
    probe = Probe()
    recorder = Recorder(Chop("1-100"), seed=3)
    async with live(probe, tap=recorder) as run:
        client, server = await run.pair()
        await client.send_all(data)
        assert await read_exactly(server, len(data)) == data
    assert max(len(segment) for _, segment in probe.seen) <= 100
    cuts, at = set(), 0
    for _, segment in probe.seen:
        at += len(segment)
        cuts.add(at)
    expected, at = set(), 0
    for length in Chop("1-100").cutter(3, 1, "client").cut(len(data)):
        at += length
        expected.add(at)
    assert expected <= cuts  # and the borders of the reads
