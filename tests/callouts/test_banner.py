"""banner: first, once, and also to a peer that waits to be spoken to."""

from __future__ import annotations

import pytest

from tests.callouts.support import check_every_cut, memory_driver, relay
from wfpstream.callouts import Banner


def test_it_is_said_before_either_side_has_said_a_byte() -> None:
    driver = memory_driver(Banner(text="220 ready\r\n"))
    flow = driver.connect()
    assert flow is not None
    driver.settle()
    assert flow.local.data == b"220 ready\r\n"
    assert flow.remote.data == b""
    assert driver.violations == []
    driver.close()


def test_it_comes_before_everything_else_for_every_cut() -> None:
    check_every_cut(lambda: Banner(text="hi "), b"there", b"hi there", inbound=True)
    check_every_cut(lambda: Banner(text="hi "), b"", b"hi ", inbound=True)


def test_a_byte_that_is_faster_than_the_banner_still_comes_behind_it() -> None:
    driver = memory_driver(Banner(text="hi "))
    flow = driver.connect()
    assert flow is not None
    flow.receive(b"there")
    flow.receive_fin()
    driver.settle()
    assert flow.local.data == b"hi there"
    assert flow.local.fin
    driver.close()


@pytest.mark.parametrize("local", ["client", "server"])
def test_it_is_said_to_whom_it_is_meant(local: str) -> None:
    driver = memory_driver(Banner(text="C"), Banner(text="U", direction="to_upstream"), local=local)
    flow = driver.connect()
    assert flow is not None
    driver.settle()
    client, upstream = (flow.local, flow.remote) if local == "client" else (flow.remote, flow.local)
    assert [bytes(client.data), bytes(upstream.data)] == [b"C", b"U"]
    driver.close()


def test_it_can_be_said_both_ways() -> None:
    driver = memory_driver(Banner(text="hello", direction="both"))
    flow = driver.connect()
    assert flow is not None
    driver.settle()
    assert flow.local.data == flow.remote.data == b"hello"
    driver.close()


def test_each_connection_gets_its_own() -> None:
    driver = memory_driver(Banner(text="hello"))
    flows = [driver.connect() for _ in range(3)]
    driver.settle()
    assert [flow.local.data for flow in flows if flow is not None] == [b"hello"] * 3
    driver.close()


def test_a_connection_that_was_already_running_is_left_alone() -> None:
    driver = memory_driver()
    flow = driver.connect()
    assert flow is not None
    flow.receive(b"one ")
    driver.settle()
    driver.add(Banner(text="late "))
    flow.receive(b"two")
    driver.settle()
    assert flow.local.data == b"one two"
    driver.close()


def test_a_connection_reset_at_once_leaves_nothing_behind() -> None:
    driver = memory_driver(Banner(text="hello"))
    flow = driver.connect()
    assert flow is not None
    flow.reset("remote")
    driver.settle()
    driver.close()
    assert driver.violations == []


def test_the_callout_below_sees_it() -> None:
    driver = memory_driver(Banner(text="upper"), Banner(text="lower "))
    flow = driver.connect()
    assert flow is not None
    driver.settle()
    assert flow.local.data == b"lower upper"
    driver.close()


def test_after_draining_nothing_is_said() -> None:
    banner = Banner(text="hello ")
    banner.drain()
    assert relay(banner, [b"x"], inbound=True).data == b"x"


def test_silence_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        Banner(text="")
