"""What a failed test leaves: events, a capture of both sides, the trace, and a command line that reproduces it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.pytest_plugin.inner import LEAKING, QUIET, run, text_of
from tests.pytest_plugin.test_options import BREAKING
from wfpstream.observe import events_schema
from wfpstream.replay import replay_capture

PAIR = """
def test_it(wfp_pair):
    pair = wfp_pair(["stream_edit,find=rainy,replace=sunny!"])
    pair.client.send(b"a rainy day")
    assert pair.server.receive() == b"a rainy day"
"""
LIVE = """
import socket

def test_it(wfp_proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = wfp_proxy(server.getsockname(), ["stream_edit,find=rainy,replace=sunny!"])
        with socket.create_connection(proxy.address) as client:
            served, _ = server.accept()
            with served:
                client.sendall(b"a rainy day")
                assert served.recv(12, socket.MSG_WAITALL) == b"a sunny! day"
        proxy.wait_flow(state="closed")
        assert False
"""


def artifacts(pytester: pytest.Pytester, folder: str = "kept") -> dict[str, Path]:
    return {path.name: path for path in (pytester.path / folder).glob("*/*")}


@pytest.mark.parametrize(("source", "name"), [(PAIR, "pair-1"), (LIVE, "proxy-1")])
def test_a_failed_test_leaves_events_a_capture_the_trace_and_how_to_run_it_again(
    pytester: pytest.Pytester, source: str, name: str
) -> None:
    result = run(pytester, source, "--wfp-artifacts=kept", "--wfp-seed=3")
    result.assert_outcomes(failed=1)
    files = artifacts(pytester)
    assert set(files) == {"reproduce.txt", f"{name}.events.jsonl", f"{name}.pcapng", f"{name}.trace.txt"}
    for path in files.values():
        assert str(path) in text_of(result)
    _check_events(files[f"{name}.events.jsonl"])
    _check_capture(files[f"{name}.pcapng"])
    assert "<< server b'a sunny! day'" in files[f"{name}.trace.txt"].read_text()
    command = files["reproduce.txt"].read_text().strip()
    assert command == (
        "python -m pytest test_inner.py::test_it --wfp-seed=3 --wfp-chop=off --wfp-verify=warn"
    )
    assert f"run it again: {command}" in text_of(result)


def _check_events(path: Path) -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        jsonschema.validate(event, events_schema())
    assert events[0]["event"] == "flow_established"
    assert events[0]["ts"] > "2020"
    assert "indicate" in {event["event"] for event in events}


def _check_capture(path: Path) -> None:
    client, upstream = replay_capture(str(path)).streams
    assert client.client_to_server.bytes_in == len(b"a rainy day")
    assert upstream.client_to_server.bytes_in == len(b"a sunny! day")
    assert client.began > 1_577_836_800  # wall time: after 2020


def test_nothing_is_left_by_a_test_that_passes(pytester: pytest.Pytester) -> None:
    run(
        pytester, "def test_it(wfp_pair): wfp_pair().client.send(b'x')", "--wfp-artifacts=kept"
    ).assert_outcomes(passed=1)
    assert not (pytester.path / "kept").exists()


def test_a_failure_shows_the_end_of_the_trace_and_where_more_could_be_kept(pytester: pytest.Pytester) -> None:
    source = """
    def test_it(wfp_pair):
        pair = wfp_pair()
        for n in range(60):
            pair.client.send(b"%d" % n)
        raise ValueError
    """
    result = run(pytester, source)
    text = text_of(result)
    assert "--wfp-artifacts=DIR keeps the events" in text
    assert "pair 1, the last 40 lines:" in text
    assert "<< server b'59'" in text
    assert "<< server b'39'" not in text


def test_the_command_line_says_what_holds_for_the_test_and_really_fails_the_same_way(
    pytester: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.parametrize("text", ["it's; `x` $HOME"])
    class TestInner:
        @pytest.mark.wfpstream(chop="random")
        def test_it(self, wfp_pair, text):
            pair = wfp_pair(["monitor,log=none"])
            pair.client.send(bytes(100))
            raise ValueError([event["len"] for event in pair.events if event["event"] == "indicate"])
    """
    first = run(pytester, source, "--wfp-seed=12")
    first.assert_outcomes(failed=1)
    [line] = [line for line in text_of(first).splitlines() if line.startswith("run it again: ")]
    python, dash, module, *arguments = shlex.split(line.removeprefix("run it again: "))
    assert (python, dash, module) == ("python", "-m", "pytest")
    assert "--wfp-seed=12" in arguments
    assert "--wfp-chop=random" in arguments
    again = pytester.runpytest_inprocess(*arguments, *QUIET)
    again.assert_outcomes(failed=1)
    cuts = {
        line for result in (first, again) for line in text_of(result).splitlines() if "ValueError: [" in line
    }
    assert len({line.partition("ValueError")[2] for line in cuts if line.startswith("E")}) == 1


def test_the_path_is_the_one_from_where_pytest_was_started(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(**{"below/test_deep": "def test_it(wfp_pair): wfp_pair(); raise ValueError"})
    pytester.makefile(".toml", pyproject="[tool.pytest.ini_options]\n")
    monkeypatch.chdir(pytester.path / "below")
    text = text_of(pytester.runpytest_inprocess("test_deep.py", "-p", "no:cacheprovider", *QUIET))
    assert "run it again: python -m pytest test_deep.py::test_it " in text


def test_the_folder_is_the_one_from_there_too_wherever_the_test_has_gone(pytester: pytest.Pytester) -> None:
    source = """
    def test_it(wfp_pair, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        wfp_pair()
        raise ValueError
    """
    run(pytester, source, "--wfp-artifacts=kept").assert_outcomes(failed=1)
    assert "pair-1.pcapng" in artifacts(pytester)


def test_a_folder_that_cannot_be_written_is_said_and_hides_nothing(pytester: pytest.Pytester) -> None:
    (pytester.path / "kept").write_text("a file")
    result = run(pytester, PAIR, "--wfp-artifacts=kept")
    result.assert_outcomes(failed=1)
    assert "--wfp-artifacts: nothing could be written: " in text_of(result)
    assert "b'a sunny! day' == b'a rainy day'" in text_of(result)


def test_a_failure_in_the_setup_of_another_fixture_and_in_a_teardown_leave_them_too(
    pytester: pytest.Pytester,
) -> None:
    source = """
    @pytest.fixture
    def broken(wfp_pair):
        wfp_pair().client.send(b"x")
        raise ValueError

    def test_setup(broken): pass

    def test_teardown(wfp_pair):
        wfp_pair([Leaking()]).client.send(b"x")
    """
    run(pytester, source, "--wfp-artifacts=kept").assert_outcomes(passed=1, errors=2)
    assert len(list((pytester.path / "kept").glob("*/pair-1.pcapng"))) == 2


def test_a_test_that_runs_again_begins_anew(pytester: pytest.Pytester) -> None:
    """As plugins that repeat failed tests do it: the same item once more."""
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            runtestprotocol(item, nextitem=None, log=False)
            item._initrequest()
        """
    )
    source = """
    def test_it(wfp_pair, wfp_clock, wfp_trace):
        assert wfp_clock.now == 0
        wfp_pair().client.send(b"x")
        wfp_clock.advance(3)
        assert wfp_trace.lines == []
    """
    result = run(pytester, source, "--wfp-artifacts=kept")
    result.assert_outcomes(failed=1)
    assert "Left contains 2 more items, first extra item: \">> client b'x'\"" in text_of(result)
    assert [name for name in artifacts(pytester) if name.endswith(".pcapng")] == ["pair-1.pcapng"]


def test_what_was_recorded_is_let_go_with_the_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import gc
        from wfpstream.testing import Recorder

        def recorders():
            gc.collect()
            return {id(one) for one in gc.get_objects() if isinstance(one, Recorder)}

        def pytest_sessionstart():
            global before  # of other tests, whose failures hold on to them
            before = recorders()

        def pytest_sessionfinish():
            print("recorders:", len(recorders() - before))
        """
    )
    source = """
    import pytest

    @pytest.mark.parametrize("n", range(3))
    def test_it(wfp_pair, wfp_proxy, n):
        wfp_pair(["monitor,log=none"]).client.send(b"x")
        wfp_proxy(("127.0.0.1", 1))
    """
    assert "recorders: 0" in text_of(run(pytester, source, "-s"))


def test_two_proxies_and_a_pair_have_files_of_their_own(pytester: pytest.Pytester) -> None:
    source = """
    def test_it(wfp_proxy, wfp_pair):
        wfp_pair(), wfp_proxy(("127.0.0.1", 1)), wfp_proxy(("127.0.0.1", 1))
        raise ValueError
    """
    run(pytester, source, "--wfp-artifacts=kept").assert_outcomes(failed=1)
    names = {name for name in artifacts(pytester) if name.endswith(".pcapng")}
    assert names == {"pair-1.pcapng", "proxy-1.pcapng", "proxy-2.pcapng"}


def test_of_a_session_proxy_a_test_leaves_what_is_its_own(pytester: pytest.Pytester) -> None:
    source = """
    import socket

    @pytest.fixture(scope="session")
    def proxy(wfp_proxy_session):
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield wfp_proxy_session(server.getsockname()), server

    @pytest.mark.parametrize("word", [b"first", b"second"])
    def test_it(wfp_proxy_session, proxy, word):
        started, server = proxy
        seen = len(started.flows)
        with socket.create_connection(started.address) as client:
            served, _ = server.accept()
            with served:
                client.sendall(word)
                assert served.recv(10) == word
        started.wait_flow(seen + 1, state="closed")
        assert word != b"second"
    """
    run(pytester, source, "--wfp-artifacts=kept").assert_outcomes(passed=1, failed=1)
    trace = artifacts(pytester)["session-proxy-1.trace.txt"].read_text()
    assert "b'second'" in trace
    assert "b'first'" not in trace


def test_workers_of_xdist_have_one_seed_leave_files_and_tell_of_violations(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xdist")
    # Workers start with every plugin there is, which takes its time: here only with what is needed.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        test_inner=LEAKING
        + PAIR
        + PAIR.replace("test_it", "test_two")
        + BREAKING.replace("test_it", "test_three")
    )
    result = pytester.runpytest_subprocess(
        *("-p", "xdist", "-p", "wfpstream.pytest_plugin"),
        *("-n2", "--wfp-artifacts=kept", "--wfp-seed=random"),
    )
    result.assert_outcomes(failed=2, passed=1)
    assert len(list((pytester.path / "kept").glob("*/reproduce.txt"))) == 2
    seeds = {word for word in text_of(result).split() if word.startswith("--wfp-seed=")}
    assert len(seeds) == 1
    assert "wfpstream: 1 passed with violations of the callout contract" in text_of(result)


@pytest.mark.system("tshark")
def test_tshark_finds_nothing_wrong_with_the_capture(pytester: pytest.Pytester) -> None:
    run(pytester, LIVE, "--wfp-artifacts=kept").assert_outcomes(failed=1)
    path = artifacts(pytester)["proxy-1.pcapng"]
    shown = pytester.run(
        "tshark", "-r", str(path), "-T", "fields", "-e", "frame.interface_name", "-e", "tcp.analysis.flags"
    )
    assert {line.split("\t")[0] for line in shown.outlines} == {"client", "upstream"}
    assert not [line for line in shown.outlines if line.split("\t")[1:] not in ([], [""])]
