"""pend_fin: the end of the stream comes later, behind a trailer."""

from __future__ import annotations

import pytest

from tests.callouts.support import check_every_cut, memory_driver, relay, watched
from wfpstream.callouts import PendFin, StreamEdit


@pytest.mark.parametrize("inbound", [False, True])
def test_the_trailer_comes_behind_the_last_byte_for_every_cut(inbound: bool) -> None:
    check_every_cut(lambda: PendFin(delay=1, trailer="!"), b"hello", b"hello!", inbound=inbound)
    check_every_cut(lambda: PendFin(trailer="!"), b"", b"!", inbound=inbound)
    check_every_cut(lambda: PendFin(delay="10ms"), b"hello", b"hello", inbound=inbound)


def test_data_does_not_wait_and_the_fin_does() -> None:
    driver = memory_driver(PendFin(delay=2.0, trailer="bye"))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"data ")
    flow.send_fin()
    driver.advance(1.9)
    assert [flow.remote.data, flow.remote.fin] == [b"data ", False]
    driver.advance(0.1)
    assert [flow.remote.data, flow.remote.fin] == [b"data bye", True]
    driver.close()


def test_the_other_direction_goes_on_meanwhile() -> None:
    driver = memory_driver(PendFin(delay=2.0, trailer="bye"))
    flow = driver.connect()
    assert flow is not None
    flow.send_fin()
    flow.receive(b"answer")
    driver.settle()
    assert flow.local.data == b"answer"
    flow.receive_fin()
    driver.advance(2.0)
    assert flow.local.fin
    assert flow.remote.fin
    assert flow.ended
    assert driver.violations == []
    driver.close()


def test_only_the_chosen_direction_waits() -> None:
    driver = memory_driver(PendFin(delay=2.0, direction="to_client"))
    flow = driver.connect()
    assert flow is not None
    flow.send_fin()
    flow.receive_fin()
    driver.settle()
    assert flow.remote.fin
    assert not flow.local.fin
    driver.close()


def test_draining_releases_the_fin_with_its_trailer_at_once() -> None:
    callout = PendFin(delay=1000, trailer="bye")
    driver = memory_driver(callout)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"data ")
    flow.send_fin()
    driver.settle()
    callout.drain()
    driver.settle()
    assert flow.remote.data == b"data bye"
    assert flow.remote.fin
    flow.receive_fin()
    driver.settle()
    assert flow.local.fin
    driver.close()


def test_a_reset_while_the_fin_is_held_leaves_nothing_behind() -> None:
    driver = memory_driver(PendFin(delay=1.0, trailer="bye"))
    flow = driver.connect()
    assert flow is not None
    flow.send_fin()
    driver.settle()
    flow.reset("remote")
    driver.advance(2.0)
    assert flow.remote.data == b""
    driver.close()
    assert driver.violations == []


def test_a_fin_that_is_shown_with_the_last_bytes_is_held_and_they_are_not() -> None:
    outcome = relay(PendFin(delay=1, trailer="!"), [b"ab", b"cd"], options=watched(fin_with_data=True))
    assert outcome.data == b"abcd!"
    assert outcome.fin
    assert outcome.seconds == pytest.approx(1.0)


def test_the_callout_below_edits_the_trailer() -> None:
    chain = [PendFin(delay=1, trailer="dy"), StreamEdit(find="cloudy", replace="sunny")]
    assert relay(chain, [b"clou"]).data == b"sunny"
