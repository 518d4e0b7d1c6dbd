"""asyncio tests: reports over HTTP, and a network that breaks."""

from __future__ import annotations

import asyncio

import pytest
from conftest import REPORT
from station import NoReportError, fetch

pytestmark = pytest.mark.asyncio
# For what has to succeed, on a machine that has other things to do as well.
PATIENCE = 30


async def test_a_report_that_is_cut_off_is_asked_for_again(wfp_proxy, web):
    proxy = wfp_proxy(web, callouts=["fault,do=truncate,after=1KiB,nth=1,direction=to_client"])
    assert await fetch(proxy.url("http://{}"), "oslo", timeout=PATIENCE) == REPORT
    first = await proxy.wait_flow_async(1, state="closed", timeout=PATIENCE)
    assert first.received == 1024
    assert len(proxy.flows) == 2


async def test_a_slow_server_is_not_waited_for(wfp_proxy, web):
    proxy = wfp_proxy(web)
    with (
        proxy.fault("latency,delay=2s,direction=to_client"),
        pytest.raises(NoReportError, match=r"within 0\.1 s"),
    ):
        await fetch(proxy.url("http://{}"), "cairo", timeout=0.1)
    assert await fetch(proxy.url("http://{}"), "cairo", timeout=PATIENCE) == REPORT


async def test_ten_reports_at_once_through_a_narrow_line(wfp_proxy, web):
    proxy = wfp_proxy(web, callouts=["throttle,rate=64KiB/s,burst=2KiB,direction=to_client"])
    cities = [f"city-{number}" for number in range(10)]
    reports = await asyncio.gather(
        *(fetch(proxy.url("http://{}"), city, timeout=PATIENCE) for city in cities)
    )
    assert reports == [REPORT] * 10
    await proxy.wait_flow_async(10, state="closed", timeout=PATIENCE)
