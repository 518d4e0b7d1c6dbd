"""wfp_trace, as a test has it: lines, comparisons, playbooks, snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.pytest_plugin.inner import run, text_of

if TYPE_CHECKING:
    from wfpstream.pytest_plugin import PairFactory, Trace

EDIT = """
def test_it(wfp_pair, wfp_trace):
    pair = wfp_pair(["stream_edit,find=rainy,replace={replace}"])
    pair.client.send(b"a rai")
    pair.client.send(b"ny day")
    wfp_trace.assert_snapshot()
"""
SNAPSHOT = """\
# What wfp_trace saw; written by --wfp-update-snapshots.
[decisions]
>> client b'a rai'
<< stream_edit to_upstream b'a rai' permit 2
<< stream_edit to_upstream b'rai' need_more
<< server b'a '
>> client b'ny day'
<< stream_edit to_upstream inject 5
<< stream_edit to_upstream b'rainy day' block 5
<< stream_edit to_upstream b' day' permit
<< server b'sunny day'
[canonical]
flow 1
  to_upstream, open
    stage 0, stream_edit
      0+2 permitted
      2+5 blocked
      7+4 permitted
      puts in 2+5
      FIN none
  to_client, open
    stage 0, stream_edit
      FIN none
"""


def snapshots(pytester: pytest.Pytester) -> list[Path]:
    return sorted(pytester.path.glob("__wfp_snapshots__/*/*.trace"))


# -- lines and comparisons ---------------------------------------------------------------------------------------


def test_it_shows_what_happened(wfp_pair: PairFactory, wfp_trace: Trace) -> None:
    wfp_pair(["banner,text=hi"]).client.send(b"x")
    assert str(wfp_trace).splitlines() == wfp_trace.lines
    assert ">> client b'x'" in wfp_trace.lines
    assert "<< client b'hi'" in wfp_trace.lines
    assert wfp_trace != "something else"


def test_it_compares_with_text_and_dots(wfp_pair: PairFactory, wfp_trace: Trace) -> None:
    wfp_pair().client.send(b"x")
    assert (
        wfp_trace
        == """
        >> client b"x"
        << server b'x'
        """
    )
    assert wfp_trace == ">> client b'x'\n<< ..."
    assert wfp_trace.diff(">> client b'x'\n<< ...") == ""


def test_several_pairs_stand_under_headings(wfp_pair: PairFactory, wfp_trace: Trace) -> None:
    for _ in range(2):
        wfp_pair().client.send(b"x")
    assert wfp_trace.lines[0] == "== pair 1"
    assert wfp_trace.lines[3] == "== pair 2"
    assert wfp_trace.canonical.startswith("== pair 1\nflow 1\n")


def test_a_comparison_that_fails_shows_the_first_difference(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wfp_pair, wfp_trace):
            wfp_pair().client.send(b"x")
            assert wfp_trace == ">> client b'x'\\n<< server b'y'"
        """,
    )
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "the trace is another one" in text
    assert "expected -> << server b'y'" in text
    assert "happened => << server b'x'" in text


# -- playbooks ---------------------------------------------------------------------------------------------------


def test_a_playbook_drives_the_only_pair(wfp_pair: PairFactory, wfp_trace: Trace) -> None:
    wfp_pair(["pattern_drop,find=bad"])
    wfp_trace.play(
        """
        >> client b'good '
        << ...
        >> client b'bad'
        << ...
        << ended drop
        << client reset
        << server reset
        """
    )


@pytest.mark.wfpstream(chop="1-2")
def test_a_playbook_says_its_own_segments(wfp_pair: PairFactory, wfp_trace: Trace) -> None:
    wfp_pair(["monitor,log=none"])
    book = wfp_trace.playbook() >> "client b'abc'" << "monitor to_upstream b'abc' continue" << "server b'abc'"
    book.play()


def test_a_playbook_that_fails_shows_arrows_and_nothing_of_our_own_code(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wfp_pair, wfp_trace):
            wfp_pair()
            wfp_trace.play(">> client b'x'\\n<< server b'y'")
        """,
    )
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "the playbook went another way:" in text
    assert "expected -> << server b'y'" in text
    assert "happened => << server b'x'" in text
    assert "_playbook.py" not in text


def test_a_playbook_that_was_written_and_not_played_fails_the_test(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def test_it(wfp_pair, wfp_trace):
            wfp_trace.playbook(wfp_pair()) >> "client b'x'" << "server b'never'"
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    assert "1 playbook(s) of wfp_trace were written and never played" in text_of(result)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("wfp_trace.play('')", "this test has made none: begin with pair = wfp_pair([...])"),
        ("wfp_pair(); wfp_pair(); wfp_trace.play('')", "this test has 2 pairs: say which one"),
    ],
)
def test_a_playbook_needs_to_know_its_pair(pytester: pytest.Pytester, body: str, words: str) -> None:
    result = run(pytester, f"def test_it(wfp_pair, wfp_trace): {body}")
    result.assert_outcomes(failed=1)
    assert words in text_of(result)


# -- snapshots ---------------------------------------------------------------------------------------------------


def test_a_snapshot_is_written_when_asked_for_compared_afterwards_and_readable(
    pytester: pytest.Pytester,
) -> None:
    source = EDIT.format(replace="sunny")
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert "run the test once with --wfp-update-snapshots" in text_of(result)
    assert snapshots(pytester) == []
    run(pytester, source, "--wfp-update-snapshots").assert_outcomes(passed=1)
    [path] = snapshots(pytester)
    assert path.parts[-3:] == ("__wfp_snapshots__", "test_inner", "test_it.trace")
    assert path.read_text() == SNAPSHOT
    run(pytester, source).assert_outcomes(passed=1)


def test_a_snapshot_that_differs_shows_where_and_stays(pytester: pytest.Pytester) -> None:
    run(pytester, EDIT.format(replace="sunny"), "--wfp-update-snapshots").assert_outcomes(passed=1)
    result = run(pytester, EDIT.format(replace="bright"))
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "snapshot -> << stream_edit to_upstream inject 5" in text
    assert "happened => << stream_edit to_upstream inject 6" in text
    assert "--wfp-update-snapshots makes it the new snapshot" in text
    assert snapshots(pytester)[0].read_text() == SNAPSHOT


def test_a_snapshot_that_is_the_same_is_not_written_again(pytester: pytest.Pytester) -> None:
    run(pytester, EDIT.format(replace="sunny"), "--wfp-update-snapshots")
    [path] = snapshots(pytester)
    before = path.stat().st_mtime_ns
    run(pytester, EDIT.format(replace="sunny"), "--wfp-update-snapshots")
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize("chop", ["1", "random", "2-3"])
def test_under_a_chop_the_canonical_log_is_what_counts(pytester: pytest.Pytester, chop: str) -> None:
    """IND-26."""
    run(pytester, EDIT.format(replace="sunny"), "--wfp-update-snapshots").assert_outcomes(passed=1)
    run(pytester, EDIT.format(replace="sunny"), f"--wfp-chop={chop}").assert_outcomes(passed=1)
    run(pytester, EDIT.format(replace="bright"), f"--wfp-chop={chop}").assert_outcomes(failed=1)


def test_a_live_proxy_has_the_canonical_log_of_the_pair(pytester: pytest.Pytester) -> None:
    """IND-26: the same callouts over the same bytes, in memory and over sockets."""
    result = run(
        pytester,
        """
        import socket

        CALLOUTS = ["stream_edit,find=rainy,replace=sunny", "pattern_drop,find=never"]

        def test_it(wfp_pair, wfp_trace):
            pair = wfp_pair(CALLOUTS)
            pair.client.send(b"a rainy day")
            pair.client.close_write()
            pair.server.close_write()
            in_memory.append(wfp_trace.canonical)

        in_memory = []

        def test_live(wfp_proxy, wfp_trace):
            with socket.create_server(("127.0.0.1", 0)) as server:
                proxy = wfp_proxy(server.getsockname(), CALLOUTS)
                with socket.create_connection(proxy.address) as client:
                    served, _ = server.accept()
                    client.sendall(b"a rai")
                    client.sendall(b"ny day")
                    client.shutdown(socket.SHUT_WR)
                    received = b""
                    while data := served.recv(100):
                        received += data
                    served.close()
                    assert client.recv(1) == b""
                proxy.wait_flow(state="closed")
                assert received == b"a sunny day"
                assert [wfp_trace.canonical] == in_memory
                wfp_trace.assert_snapshot("live")
        """,
        "--wfp-update-snapshots",
    )
    result.assert_outcomes(passed=2)
    [path] = snapshots(pytester)
    assert path.name == "test_live--live.trace"
    assert "[decisions]" not in path.read_text()


def test_parameters_that_are_no_file_names_have_snapshots_of_their_own(pytester: pytest.Pytester) -> None:
    source = """
    @pytest.mark.parametrize("text", ["a/b", "a:b", "\\x00", "ä" * 300, ""])
    def test_it(wfp_pair, wfp_trace, text):
        wfp_pair().client.send(text.encode() or b"nothing")
        wfp_trace.assert_snapshot()
    """
    run(pytester, source, "--wfp-update-snapshots").assert_outcomes(passed=5)
    assert len(snapshots(pytester)) == 5
    run(pytester, source).assert_outcomes(passed=5)


def test_a_snapshot_that_cannot_be_read_is_said_in_one_line(pytester: pytest.Pytester) -> None:
    source = EDIT.format(replace="sunny")
    run(pytester, source, "--wfp-update-snapshots")
    [path] = snapshots(pytester)
    path.write_bytes(b"[decisions]\n\xff\xfe")
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert "cannot be used: 'utf-8' codec" in text_of(result)
    path.write_bytes(b"")
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert "[canonical] is missing; --wfp-update-snapshots writes it anew" in text_of(result)
