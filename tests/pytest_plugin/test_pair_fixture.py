"""wfp_pair and wfp_clock, as a test has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.pytest_plugin.inner import run, text_of
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.testing import ConnectionBlocked, WouldBlock

if TYPE_CHECKING:
    from wfpstream.pytest_plugin import Clock, PairFactory


def test_a_pair_has_the_callouts_that_its_strings_and_objects_say(wfp_pair: PairFactory) -> None:
    pair = wfp_pair(["stream_edit,find=rainy,replace=sunny", StreamEdit(find=b"day", replace=b"night")])
    pair.client.send(b"a rainy day!")
    assert pair.server.receive() == b"a sunny night!"


def test_an_object_at_work_in_another_pair_is_refused_in_words(wfp_pair: PairFactory) -> None:
    """What it injects into the first one's connection would come out of the second one's."""
    edit = StreamEdit(find=b"day", replace=b"night")
    first = wfp_pair([edit, edit])  # twice in the same one is fine
    with pytest.raises(ValueError, match="this StreamEdit is at work in another engine"):
        wfp_pair([edit])
    second = wfp_pair()
    with pytest.raises(ValueError, match=r"give each engine .* an object of its own"):
        second.add_callout(edit)
    first.client.send(b"day")
    assert first.server.receive() == b"night"
    first.close()
    second.add_callout(edit)  # nobody has it any more


def test_faults_are_given_as_strings_too(wfp_pair: PairFactory, wfp_clock: Clock) -> None:
    pair = wfp_pair()
    with pair.fault("latency,delay=300ms"):
        pair.client.send(b"late")
        wfp_clock.advance(0.2)
        assert pair.server.waiting == 0
        wfp_clock.advance(0.1)
        assert pair.server.receive() == b"late"
    pair.client.send(b"soon")
    assert pair.server.receive() == b"soon"


def test_one_clock_rules_all_pairs_also_those_made_later(wfp_pair: PairFactory, wfp_clock: Clock) -> None:
    first = wfp_pair(["latency,delay=1s"])
    first.client.send(b"x")
    wfp_clock.advance(0.5)
    second = wfp_pair(["latency,delay=1s"])
    assert second.now == wfp_clock.now == 0.5
    second.client.send(b"y")
    assert wfp_clock.advance_until(lambda: second.server.waiting > 0)
    assert wfp_clock.now == pytest.approx(1.5)
    assert first.server.receive() == b"x"
    assert not wfp_clock.advance_until(lambda: False, limit=2)
    assert wfp_clock.now == first.now == second.now == pytest.approx(3.5)


def test_a_pair_that_lets_time_pass_by_itself_takes_the_clock_along(
    wfp_pair: PairFactory, wfp_clock: Clock
) -> None:
    pair = wfp_pair(["latency,delay=1s"])
    pair.client.send(b"x")
    assert pair.server.receive(wait=5) == b"x"
    assert wfp_clock.now == pytest.approx(1)


def test_a_clock_does_not_go_back(wfp_clock: Clock) -> None:
    with pytest.raises(ValueError, match="time does not go back"):
        wfp_clock.advance(-1)


def test_options_are_sections_of_the_configuration(wfp_pair: PairFactory) -> None:
    pair = wfp_pair(
        ["framer,by=line"], limits={"need_more_data": "8"}, policy={"on_limit": "permit"}, window=4
    )
    assert pair.driver.engine.options.limits.need_more_data == 8
    assert pair.server.window == 4


def test_addresses_and_the_listener_are_what_callouts_see(wfp_pair: PairFactory) -> None:
    pair = wfp_pair(client=("192.0.2.7", 5), server=("192.0.2.9", 443), listener="web")
    established = pair.events[0]
    assert (established["client"], established["server"]) == (["192.0.2.7", 5], ["192.0.2.9", 443])
    assert established["listener"] == "web"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "text"),
    [
        (["no_such"], {}, LookupError, "no_such"),
        (["latency,delay=never"], {}, ValueError, "delay"),
        ("monitor", {}, TypeError, r"write wfp_pair\(\['monitor'\]\)"),
        ([3], {}, TypeError, "a CALLOUT string or a Callout object"),
        ([], {"speed": 3}, TypeError, "speed"),
        ([], {"limits": {"unset": 3}}, ValueError, "unset"),
    ],
)
def test_what_cannot_be_is_said_at_once(
    wfp_pair: PairFactory, arguments: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        wfp_pair(arguments, **options)


@pytest.mark.wfpstream(chop="1", seed=4)
def test_a_chop_cuts_what_the_ends_send(wfp_pair: PairFactory) -> None:
    pair = wfp_pair(["monitor,log=none"])
    pair.client.send(b"abc")
    assert [event["len"] for event in pair.events if event["event"] == "indicate"] == [1, 1, 1]
    assert pair.server.receive() == b"abc"


@pytest.mark.wfpstream(seed=11)
def test_a_seed_is_for_callouts_that_were_not_given_one(wfp_pair: PairFactory) -> None:
    def delay(callout: str) -> float:
        pair = wfp_pair([callout])
        pair.client.send(b"x")
        before = pair.now
        assert pair.advance_until(lambda: pair.server.waiting > 0)
        return pair.now - before

    told = delay("latency,delay=1s,jitter=500ms")
    assert told == pytest.approx(delay("latency,delay=1s,jitter=500ms,seed=11"))
    assert told != pytest.approx(delay("latency,delay=1s,jitter=500ms,seed=5"))


def test_nothing_arrived_is_an_error_that_names_the_callout(wfp_pair: PairFactory) -> None:
    pair = wfp_pair(["framer,by=line"])
    pair.client.send(b"half")
    with pytest.raises(WouldBlock, match="framer holds 4 bytes"):
        pair.server.receive()


def test_a_refused_connection_is_refused(wfp_pair: PairFactory) -> None:
    from tests.testing.test_pair import Refuse

    with pytest.raises(ConnectionBlocked):
        wfp_pair([Refuse()])


# -- tests that use them wrongly ---------------------------------------------------------------------------------


@pytest.mark.parametrize("live", ["wfp_proxy", "wfp_proxy_session"])
def test_virtual_time_over_real_sockets_is_refused_with_what_to_do(
    pytester: pytest.Pytester, live: str
) -> None:
    result = run(pytester, f"def test_it({live}, wfp_clock): raise SystemExit('it ran')")
    result.assert_outcomes(errors=1)
    assert "wfp_clock rules the virtual time of wfp_pair" in text_of(result)
    assert f"with {live} wait for what is to happen (wait_flow, wait_event, idle)" in text_of(result)
    assert "it ran" not in text_of(result)


def test_a_test_that_forgets_to_close_its_pair_is_no_problem(pytester: pytest.Pytester) -> None:
    run(
        pytester,
        """
        def test_it(wfp_pair):
            wfp_pair().client.send(b"and never again")
        """,
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize("style", ["asyncio", "trio", "anyio"])
def test_pairs_work_inside_any_event_loop(pytester: pytest.Pytester, style: str) -> None:
    run(
        pytester,
        f"""
        @pytest.mark.{style}
        async def test_it(wfp_pair, wfp_clock):
            pair = wfp_pair(["latency,delay=1s"])
            pair.client.send(b"x")
            wfp_clock.advance(1)
            assert pair.server.receive() == b"x"
        """,
    ).assert_outcomes(passed=2 if style == "anyio" else 1)
