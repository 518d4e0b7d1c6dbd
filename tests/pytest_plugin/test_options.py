"""The marker and the options of the command line: what they do, and what cannot be said."""

from __future__ import annotations

import pytest

from tests.pytest_plugin.inner import QUIET, run, text_of

SHOW = """
    def test_it(wfp_pair, request):
        from wfpstream.pytest_plugin._options import settings_of
        wfp_pair()
        settings = settings_of(request.node)
        print("settings:", settings.seed, settings.chop, settings.verify, settings.leaks)
"""


def settings(pytester: pytest.Pytester, *arguments: str, marks: str = "") -> str:
    source = SHOW.replace("    def test_it", f"{marks}\n    def test_it") if marks else SHOW
    result = run(pytester, source, "-s", *arguments)
    result.assert_outcomes(passed=1)
    [line] = [line for line in text_of(result).splitlines() if "settings: " in line]
    return line.partition("settings: ")[2].rstrip(".")


def test_defaults(pytester: pytest.Pytester) -> None:
    assert settings(pytester) == "0 off warn True"


def test_the_command_line(pytester: pytest.Pytester) -> None:
    arguments = ("--wfp-seed=5", "--wfp-chop=1-7", "--wfp-verify=strict")
    assert settings(pytester, *arguments) == "5 1-7 strict True"


def test_the_marker_has_the_last_word_and_the_closest_one_the_very_last(pytester: pytest.Pytester) -> None:
    marks = (
        "    @pytest.mark.wfpstream(seed=2, chop=3, leaks=False)\n    @pytest.mark.wfpstream(verify='off')"
    )
    assert settings(pytester, "--wfp-seed=5", "--wfp-verify=strict", marks=marks) == "2 3 off False"
    run(
        pytester,
        """
        pytestmark = pytest.mark.wfpstream(seed=1, chop="4")

        @pytest.mark.wfpstream(seed=2)
        def test_it(wfp_pair, request):
            from wfpstream.pytest_plugin._options import settings_of
            assert settings_of(request.node)[:2] == (2, type(settings_of(request.node).chop)("4"))
        """,
    ).assert_outcomes(passed=1)


def test_a_random_seed_is_chosen_once_for_a_session_and_told_by_failures(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        @pytest.mark.parametrize("n", [1, 2])
        def test_it(wfp_pair, n):
            wfp_pair()
            raise ValueError
        """,
        "--wfp-seed=random",
    )
    result.assert_outcomes(failed=2)
    told = {word for word in text_of(result).split() if word.startswith("--wfp-seed=")}
    assert len(told) == 1
    assert int(told.pop().partition("=")[2]) >= 0


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--wfp-seed=x", "a seed is a whole number or 'random', not 'x'"),
        ("--wfp-seed=99999999999999999999", "a seed has at most 64 bits"),
        (
            "--wfp-chop=0",
            "a chop is off, random, a length in bytes such as 1, or a range such as 1-7; not '0'",
        ),
        ("--wfp-verify=much", "invalid choice: 'much'"),
    ],
)
def test_an_option_that_says_nothing_is_refused(pytester: pytest.Pytester, argument: str, words: str) -> None:
    result = run(pytester, SHOW, argument)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in text_of(result)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("3", "arguments are named, such as seed=1, not 3"),
        ("sead=3", "no argument 'sead'; there are seed, chop, verify, leaks"),
        ("seed='x'", "seed is a whole number, not 'x'"),
        ("seed=True", "seed is a whole number, not True"),
        ("chop='5-1'", "a chop is off, random"),
        ("verify='loud'", "verify is one of off, warn, strict, not 'loud'"),
        ("leaks=3", "leaks is True or False, not 3"),
    ],
)
def test_a_marker_that_says_nothing_is_refused_before_the_test(
    pytester: pytest.Pytester, arguments: str, words: str
) -> None:
    source = f"""
    @pytest.mark.wfpstream({arguments})
    def test_it(wfp_pair): raise SystemExit("it ran")
    """
    result = run(pytester, source)
    result.assert_outcomes(errors=1)
    assert f"test_inner.py::test_it: mark.wfpstream: {words}" in text_of(result)
    assert "it ran" not in text_of(result)


def test_the_marker_is_declared(pytester: pytest.Pytester) -> None:
    source = "@pytest.mark.wfpstream(seed=1)\ndef test_it(wfp_pair): wfp_pair()"
    run(pytester, source, "--strict-markers").assert_outcomes(passed=1)
    assert "@pytest.mark.wfpstream(seed=0, chop='off'" in text_of(
        pytester.runpytest_inprocess("--markers", *QUIET)
    )
    assert "--wfp-artifacts" in text_of(pytester.runpytest_inprocess("--help", *QUIET))


# -- verify ------------------------------------------------------------------------------------------------------

BREAKING = """
def test_it(wfp_pair):
    pair = wfp_pair([Breaking()])
    pair.client.send(b"abc")
    assert pair.server.receive() == b"abc"
"""
LIVE = """
import socket

def test_it(wfp_proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = wfp_proxy(server.getsockname(), [Breaking()])
        with socket.create_connection(proxy.address) as client:
            served, _ = server.accept()
            with served:
                client.sendall(b"abc")
                assert served.recv(3, socket.MSG_WAITALL) == b"abc"
        proxy.wait_flow(state="closed")
"""
WHAT = "V-8 Breaking (filter 1) to_upstream at byte 0 of flow 1"


@pytest.mark.parametrize(("source", "label"), [(BREAKING, "pair 1"), (LIVE, "proxy 1")])
def test_under_warn_a_violation_is_shown_and_the_test_passes(
    pytester: pytest.Pytester, source: str, label: str
) -> None:
    """VRF-1: rule id, callout, place in its code, what the rule says and where it is documented."""
    result = run(pytester, source)
    result.assert_outcomes(passed=1)
    text = text_of(result)
    assert "wfpstream: 1 passed with violations of the callout contract" in text
    [line] = [line for line in text.splitlines() if WHAT in line]
    assert f"{label}: " in line
    assert "test_inner.py:" in line
    assert "countBytesEnforced is at most the length of the data indicated" in line
    assert "FWPS_STREAM_CALLOUT_IO_PACKET0" in line


@pytest.mark.parametrize(("source", "label"), [(BREAKING, "pair 1"), (LIVE, "proxy 1")])
def test_under_strict_a_violation_fails_the_test(pytester: pytest.Pytester, source: str, label: str) -> None:
    policy = '[Breaking()], policy={"on_callout_error": "permit"}'
    result = run(pytester, source.replace("[Breaking()]", policy), "--wfp-verify=strict")
    result.assert_outcomes(failed=1)
    assert f"{label}: {WHAT}" in text_of(result)
    assert "a callout broke its contract:" in text_of(result)


def test_a_test_that_failed_is_not_among_those_that_passed_with_violations(pytester: pytest.Pytester) -> None:
    result = run(pytester, BREAKING + "    assert False\n")
    result.assert_outcomes(failed=1)
    assert WHAT in text_of(result)
    assert "passed with violations" not in text_of(result)


def test_switched_off_nothing_is_said(pytester: pytest.Pytester) -> None:
    """ACT-7: what cannot be obeyed is reported all the same where the engine must decide; V-20 and others are not."""
    result = run(pytester, LIVE.replace("Breaking", "Leaking"), "--wfp-verify=off")
    result.assert_outcomes(passed=1)
    assert "wfpstream" not in text_of(result).partition("collected")[2]


def test_a_session_without_our_fixtures_says_and_loads_nothing(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import sys

        def test_it():
            assert not [name for name in sys.modules if name.startswith(("trio", "scapy", "wfpstream.fwp"))]
        """
    )
    result = pytester.runpytest_subprocess("-p", "wfpstream.pytest_plugin")
    result.assert_outcomes(passed=1)
    assert "wfpstream:" not in text_of(result)


@pytest.mark.parametrize("style", ["asyncio", "trio"])
def test_strict_holds_for_async_tests_too(pytester: pytest.Pytester, style: str) -> None:
    source = f"""
    @pytest.mark.{style}
    @pytest.mark.wfpstream(verify="strict")
    async def test_it(wfp_pair):
        wfp_pair([Breaking()], policy={{"on_callout_error": "permit"}}).client.send(b"abc")
    """
    result = run(pytester, source)
    result.assert_outcomes(failed=1)
    assert WHAT in text_of(result)


def test_a_chop_holds_for_live_proxies_too(pytester: pytest.Pytester) -> None:
    source = LIVE.replace("[Breaking()]", '["monitor,log=none"]') + (
        '        cuts = [event["len"] for event in proxy.events if event["event"] == "indicate"]\n'
        "        assert cuts[:3] == [1, 1, 1]\n"
    )
    run(pytester, source, "--wfp-chop=1").assert_outcomes(passed=1)
    run(pytester, source).assert_outcomes(failed=1)


ABSORBING = """
from wfpstream.fwps import ClassifyOutFlags

class Absorbing(Callout):
    "ABSORB means nothing at a stream layer: V-36, a lint."
    def classify_fn(self, fixed, meta, layer_data, context, filter, flow_context, out):
        out.flags |= int(ClassifyOutFlags.ABSORB)
        out.action_type = int(ActionType.PERMIT)

def test_it(wfp_pair):
    pair = wfp_pair([Absorbing()])
    pair.client.send(b"abc")
    assert pair.violations == ["V-36"]
"""


@pytest.mark.parametrize("level", ["warn", "strict"])
def test_lints_are_hints_and_say_nothing_of_a_test_that_passes(pytester: pytest.Pytester, level: str) -> None:
    """V-36; V-24 and V-42 go by the clock, and would come and go with the machine's load (VRF-3)."""
    result = run(pytester, ABSORBING, f"--wfp-verify={level}")
    result.assert_outcomes(passed=1)
    assert "violations" not in text_of(result)
