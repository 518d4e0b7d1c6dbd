"""stream_edit: the same edited stream for every way to cut it, inline and out of band."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, check_every_cut, memory_driver, relay, streams, watched
from wfpstream.callouts import StreamEdit
from wfpstream.fwps import EngineOptions

Mode = Literal["inline", "whole", "oob"]
every_mode = pytest.mark.parametrize("mode", ["inline", "whole", "oob"])
both_ways = pytest.mark.parametrize("inbound", [False, True])


@every_mode
@both_ways
@pytest.mark.parametrize(
    ("find", "replace", "before", "after"),
    [
        ("cloudy", "sunny", "AB cloudy CD", "AB sunny CD"),
        ("cloudy", "sunny", "cloudycloudy", "sunnysunny"),
        ("cloudy", "sunny", "xx clo", "xx clo"),
        ("cloudy", "sunny", "AB clear cloudcloudy", "AB clear cloudsunny"),
        ("cloudy", "partly cloudy", "cloudy cloudy", "partly cloudy partly cloudy"),
        ("--", "", "a----b--", "ab"),
        ("aba", "x", "ababababa", "xbxba"),
        ("aab", "ab", "aaabaab", "aabab"),
        ("a", "aa", "aaa", "aaaaaa"),
        ("cloudy", "sunny", "nothing here", "nothing here"),
        ("cloudy", "sunny", "", ""),
    ],
)
def test_every_cut_gives_the_same_text(
    mode: Mode, inbound: bool, find: str, replace: str, before: str, after: str
) -> None:
    check_every_cut(
        lambda: StreamEdit(find=find, replace=replace, mode=mode),
        before.encode(),
        after.encode(),
        inbound=inbound,
    )


@every_mode
@given(
    find=st.text("ab", min_size=1, max_size=4),
    replace=st.text("abx", max_size=4),
    pieces=streams("abc"),
    count=st.none() | st.integers(0, 3),
)
def test_the_edit_is_what_replacing_in_the_whole_text_gives(
    mode: Mode, find: str, replace: str, pieces: list[bytes], count: int | None
) -> None:
    outcome = relay(StreamEdit(find=find, replace=replace, mode=mode, count=count), pieces)
    whole = b"".join(pieces)
    assert outcome.data == whole.replace(find.encode(), replace.encode(), -1 if count is None else count)
    assert outcome.fin
    assert outcome.violations == []


@every_mode
def test_only_a_tail_that_may_begin_a_match_waits(mode: Mode) -> None:
    driver = memory_driver(StreamEdit(find="cloudy", replace="sunny", mode=mode))
    flow = driver.connect()
    assert flow is not None
    for sent, arrived in [
        (b"GET cl", b"GET "),
        (b"ear", b"GET clear"),
        (b" c", b"GET clear "),
        (b"c", b"GET clear c"),
        (b"loudy", b"GET clear csunny"),
    ]:
        flow.send(sent)
        driver.settle()
        assert flow.remote.data == arrived
    driver.close()


@every_mode
def test_count_limits_the_replacements_of_each_direction(mode: Mode) -> None:
    driver = memory_driver(StreamEdit(find="x", replace="y", mode=mode, count=2))
    flow = driver.connect()
    assert flow is not None
    for piece in (b"xx", b"xa"):
        flow.send(piece)
        flow.receive(piece)
        driver.settle()
    assert flow.remote.data == flow.local.data == b"yyxa"
    driver.close()


@every_mode
@pytest.mark.parametrize("local", ["client", "server"])
@pytest.mark.parametrize(
    ("direction", "to_upstream", "to_client"),
    [("both", b"new", b"new"), ("to_client", b"old", b"new"), ("to_upstream", b"new", b"old")],
)
def test_direction_is_meant_as_people_mean_it(
    mode: Mode,
    local: str,
    direction: Literal["both", "to_client", "to_upstream"],
    to_upstream: bytes,
    to_client: bytes,
) -> None:
    driver = memory_driver(StreamEdit(find="old", replace="new", mode=mode, direction=direction), local=local)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"old")
    flow.receive(b"old")
    driver.settle()
    client_to_upstream, upstream_to_client = (
        (flow.remote.data, flow.local.data) if local == "client" else (flow.local.data, flow.remote.data)
    )
    assert [bytes(client_to_upstream), bytes(upstream_to_client)] == [to_upstream, to_client]
    driver.close()


@every_mode
def test_inbound_is_what_arrives_at_the_local_host(mode: Mode) -> None:
    edit = StreamEdit(find="old", replace="new", mode=mode, direction="inbound")
    assert relay(edit, [b"old"], inbound=True, local="server").data == b"new"


def test_the_callout_below_sees_the_edited_text() -> None:
    chain = [
        StreamEdit(find="rainy", replace="cloudy", mode="oob"),
        StreamEdit(find="cloudy", replace="sunny"),
    ]
    for pieces in all_cuts(b"it is rainy today"):
        assert relay(chain, pieces).data == b"it is sunny today"
        chain = [
            StreamEdit(find="rainy", replace="cloudy", mode="oob"),
            StreamEdit(find="cloudy", replace="sunny"),
        ]


def test_an_urgent_byte_passes_as_it_is_while_a_tail_waits() -> None:
    driver = memory_driver(StreamEdit(find="cloudy", replace="sunny"))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"clo")
    flow.send(b"!", urgent=True)
    flow.send(b"udy cloudy")
    flow.send_fin()
    driver.settle()
    assert [byte for _, byte in flow.remote.urgent] == [b"!"]
    assert flow.remote.data.replace(b"!", b"") == b"sunny sunny"
    driver.close()
    assert driver.violations == []


def test_a_piece_full_of_matches_is_searched_once_and_asked_about_twice_a_match() -> None:
    class Counted(StreamEdit):
        asked = 0
        searched = 0

        def classify_fn(self, *args: Any) -> None:
            self.asked += 1
            super().classify_fn(*args)

        def search(self, data: bytes, replaced: int) -> tuple[list[int], int]:
            self.searched += len(data)
            return super().search(data, replaced)

    data = b"a-" * 4_096
    edit = Counted(find="-", replace="+")
    assert relay(edit, [data]).data == data.replace(b"-", b"+")
    assert edit.asked == 2 * 4_096 + 1  # the FIN too
    assert edit.searched == len(data)


def test_whole_a_piece_full_of_matches_takes_one_decision() -> None:
    class Counted(StreamEdit):
        asked = 0

        def classify_fn(self, *args: Any) -> None:
            self.asked += 1
            super().classify_fn(*args)

    data = b"a-" * 65_536 + b"end of it -"
    edit = Counted(find="-e", replace="+++", mode="whole")
    assert relay(edit, [data[:-1], data[-1:]]).data == data.replace(b"-e", b"+++")
    # The piece, its last byte with the FIN in sight and without, and the FIN.
    assert edit.asked <= 5


@every_mode
@given(pieces=streams("ab-"), replace=st.text("-x", max_size=3))
def test_unwatched_the_same_text_comes_out(mode: Mode, pieces: list[bytes], replace: str) -> None:
    edit = StreamEdit(find="-a", replace=replace, mode=mode)
    outcome = relay(edit, pieces, options=EngineOptions())
    assert outcome.data == b"".join(pieces).replace(b"-a", replace.encode())
    assert outcome.fin


@pytest.mark.parametrize("mode", ["inline", "whole"])
def test_unwatched_every_injection_is_complete_once_its_bytes_are_taken(
    mode: Literal["inline", "whole"],
) -> None:
    driver = memory_driver(StreamEdit(find="-", replace="++", mode=mode), options=EngineOptions())
    flow = driver.connect()
    assert flow is not None
    flow.remote.window = 3
    flow.send(b"a-b-c")
    driver.settle()
    assert flow.remote.data == b"a++"
    assert flow.flow.injected[0] == (2 if mode == "inline" else 7)
    flow.remote.window = None
    driver.settle()
    assert flow.remote.data == b"a++b++c"
    assert flow.flow.injected[0] == 0
    flow.send_fin()
    flow.receive_fin()
    driver.settle()
    assert flow.ended
    driver.close()


@every_mode
def test_a_match_at_the_end_keeps_an_end_that_is_shown_with_it(mode: Mode) -> None:
    for pieces in all_cuts(b"so cloudy"):
        edit = StreamEdit(find="cloudy", replace="sunny", mode=mode)
        outcome = relay(edit, pieces, options=watched(fin_with_data=True))
        assert (outcome.data, outcome.fin) == (b"so sunny", True)
        assert outcome.violations == []


def test_an_edit_that_makes_much_more_of_it_loses_nothing() -> None:
    data = b"a" * 20_000
    outcome = relay(StreamEdit(find="a", replace=b"b" * 1_000, mode="oob"), [data])
    assert outcome.data == b"b" * 20_000_000
    assert outcome.violations == []


def test_inline_an_injection_that_finds_no_room_drops_the_connection() -> None:
    options = watched()
    options.limits.injected = 1_000
    outcome = relay(StreamEdit(find="a", replace=b"b" * 1_000), [b"a" * 5], fin=False, options=options)
    assert outcome.reset
    assert b"a" not in outcome.data


@every_mode
def test_draining_lets_everything_pass_unedited_and_loses_nothing(mode: Mode) -> None:
    edit = StreamEdit(find="cloudy", replace="sunny", mode=mode)
    driver = memory_driver(edit)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"cloudy clo")
    driver.settle()
    edit.drain()
    driver.settle()
    flow.send(b"udy cloudy")
    flow.send_fin()
    driver.settle()
    assert flow.remote.data == b"sunny cloudy cloudy"
    assert flow.remote.fin
    driver.close()


def test_a_reset_in_the_middle_of_a_match_leaves_nothing_behind() -> None:
    driver = memory_driver(StreamEdit(find="cloudy", replace="sunny"))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"clou")
    driver.settle()
    flow.reset("local")
    driver.settle()
    assert flow.remote.data == b""
    driver.close()
    assert driver.violations == []


@pytest.mark.parametrize(
    ("options", "says"), [({"find": ""}, "at least one byte"), ({"find": "a", "count": -1}, "count")]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StreamEdit(replace="b", **options)  # type: ignore[arg-type]
