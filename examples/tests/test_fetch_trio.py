"""trio tests: resets, changed bytes, half-closed connections."""

from __future__ import annotations

import pytest
import trio
from conftest import REPORT
from station import NoReportError, fetch

pytestmark = pytest.mark.trio
# For what has to succeed, on a machine that has other things to do as well.
PATIENCE = 30


async def test_a_reset_in_the_middle_is_survived_once_but_not_always(wfp_proxy, web):
    proxy = wfp_proxy(web, callouts=["fault,do=rst,after=600,nth=1,direction=to_client"])
    assert await fetch(proxy.url("http://{}"), "oslo", timeout=PATIENCE) == REPORT
    with proxy.fault("fault,do=rst,after=600,direction=to_client"), pytest.raises(NoReportError):
        await fetch(proxy.url("http://{}"), "oslo", timeout=PATIENCE)


async def test_changed_bytes_arrive_as_they_are(wfp_proxy, web):
    proxy = wfp_proxy(web, callouts=["stream_edit,find=sunny,replace=rainy,direction=to_client"])
    assert await fetch(proxy.url("http://{}"), "cairo", timeout=PATIENCE) == REPORT.replace("sunny", "rainy")


async def test_answers_come_also_after_the_client_has_said_its_last_word(wfp_proxy, redis_server):
    proxy = wfp_proxy(redis_server, callouts=["latency,delay=50ms"])
    stream = await trio.open_tcp_stream(proxy.host, proxy.port)
    async with stream:
        await stream.send_all(b"PING\r\n" * 3)
        await stream.send_eof()
        answer = b"".join([piece async for piece in stream])
    assert answer == b"+PONG\r\n" * 3
    flow = await proxy.wait_flow_async(state="closed", timeout=PATIENCE)
    assert flow.ended == "fin"
    assert (flow.sent, flow.received) == (18, 21)
