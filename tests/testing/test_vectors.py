"""The vectors' runner: a vector that is wrong fails, and says where; what it prints is what the format describes.

Owns the reading and running of vectors. What the shipped ones say is for tests/scenarios.
"""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfpstream.fwps import StreamFlags
from wfpstream.testing import (
    EndState,
    MemoryWorld,
    VectorCase,
    WorldOutcome,
    can_run,
    run_case,
    vector,
    vectors,
    vectors_schema,
)
from wfpstream.testing._vectors._compare import compare
from wfpstream.testing._vectors._files import parse_vector
from wfpstream.testing._vectors._scene import Scene
from wfpstream.testing._vectors._text import call_text, completion_text, decode_bytes, parse_answer, quoted

SEND, RECEIVE = int(StreamFlags.SEND), int(StreamFlags.RECEIVE)
SEND_FIN = SEND | int(StreamFlags.SEND_DISCONNECT)

Body = dict[str, Any]


def problems_of(body: Body) -> list[str]:
    """What running a case finds."""
    case = VectorCase("case", body.get("case", "made up"), ("memory",), frozenset(), body)
    return run_case(case, MemoryWorld())


def made(*steps: Body, **members: Any) -> Body:
    """A case of one callout."""
    return {"case": "made up", "callouts": [{"name": "A"}], "steps": list(steps), **members}


def passing() -> Body:
    """A case that passes: one edit, a FIN, a context."""
    inject = {"op": "FwpsStreamInjectAsync0", "data": "X"}
    return made(
        {
            "send": "ab",
            "expect": [
                {"call": "A(S2 'ab')", "answer": "P 1", "sees": {"streamFlags": ["SEND"], "missedBytes": 0}},
                {"call": "A(S1 'b')", "do": [inject], "answer": "B 0"},
                {"completion": "cmp('X', SUCCESS)"},
            ],
            "remote": {"data": "aX", "fin": False},
        },
        {"fin": "local", "expect": [{"call": "A(S FIN +N)", "answer": "P 0"}], "violations": []},
        {"receive": "r", "expect": [{"call": "A(R1 'r')", "answer": "B 9"}], "violations": ["V-8"]},
        {"fin": "remote", "expect": [{"call": "A(R FIN +N)", "answer": "P 0"}, {"flowDelete": "A"}]},
        callouts=[{"name": "A", "context": 5}],
        end={"remote": {"data": "aX", "fin": True}, "local": {"fin": True}, "flow": "fin"},
        violations=["V-8"],
    )


def test_the_case_of_these_tests_passes() -> None:
    assert problems_of(passing()) == []


def first(body: Body) -> list[Body]:
    expected: list[Body] = body["steps"][0]["expect"]
    return expected


WRONG: dict[str, tuple[Callable[[Body], object], str]] = {
    "a call too many": (
        lambda b: first(b).insert(2, {"call": "A(S1 'c')"}),
        "line 3 is A: cmp('X', SUCCESS)",
    ),
    "a call too few": (lambda b: b["steps"][3]["expect"].pop(0), "step 4: line 1 is A(R FIN +N)"),
    "no completion expected": (lambda b: first(b).pop(2), "line 3 is A: cmp('X', SUCCESS), expected nothing"),
    "another payload": (lambda b: first(b)[0].update(call="A(S2 'aB')"), "line 1 is A(S2 'ab')"),
    "another member": (lambda b: first(b)[0]["sees"].update(missedBytes=1), "missedBytes is 0, expected 1"),
    "another flag": (lambda b: first(b)[0]["sees"].update(streamFlags=["RECEIVE"]), "streamFlags is"),
    "another context": (lambda b: b["steps"][3]["expect"][1].update(context=6), "context is 5, expected 6"),
    "another status": (
        lambda b: first(b)[1]["do"][0].update(returns="STATUS_PENDING"),
        "STATUS_SUCCESS instead",
    ),
    "no such operation": (lambda b: first(b)[1]["do"].append({"op": "FwpsNothing0"}), "KeyError"),
    "output after a step": (
        lambda b: b["steps"][0]["remote"].update(data="a"),
        "after step 1: remote: data is",
    ),
    "FIN after a step": (
        lambda b: b["steps"][0]["remote"].update(fin=True),
        "after step 1: remote: fin is False",
    ),
    "output at the end": (
        lambda b: b["end"].pop("remote"),
        "at the end: remote: data is b'aX', expected b''",
    ),
    "a reset at the end": (
        lambda b: b["end"]["local"].update(reset=True),
        "local: reset is False, expected True",
    ),
    "how the flow ends": (lambda b: b["end"].update(flow="drop"), "the flow ended by fin, expected drop"),
    "ledger": (lambda b: b["end"].update(ledger={"to_upstream": {"read": 3}}), "read is 2, expected 3"),
    "a violation of a step": (lambda b: b["steps"][2].update(violations=[]), "step 3: violations ['V-8']"),
    "a violation at all": (lambda b: b.update(violations=[]), "violations ['V-8'], expected []"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_expectation_is_reported(wrong: str) -> None:
    body = passing()
    change, words = WRONG[wrong]
    change(body)
    found = problems_of(body)
    assert any(words in problem for problem in found), found


def without_one_line(body: Body) -> Body:
    changed = copy.deepcopy(body)
    step = next(step for step in changed["steps"] if step.get("expect"))
    step["expect"].pop()
    return changed


SMALL = [case for one in vectors() for case in one.cases if len(case.body["steps"]) <= 20]
TOLD = [case for case in SMALL if any(step.get("expect") for step in case.body["steps"])]


@pytest.mark.parametrize("case", TOLD[::6], ids=lambda case: case.id)
def test_every_expected_line_counts(case: VectorCase) -> None:
    assert problems_of(case.body) == []
    assert problems_of(without_one_line(case.body)) != []


@pytest.mark.parametrize("case", SMALL[::6], ids=lambda case: case.id)
def test_every_byte_of_the_output_counts(case: VectorCase) -> None:
    end = case.body.get("end", {})
    seen = end.get("remote") or {}
    changed = case.body | {"end": end | {"remote": seen | {"data": [seen.get("data", ""), "?"]}}}
    assert problems_of(changed) != []


def test_an_injection_is_completed_at_the_latest_when_the_engine_stops() -> None:
    """CMP-9; what is left would be reported."""
    inject = {"op": "FwpsStreamInjectAsync0", "data": "X"}
    call = {"call": "A(S1 'a')", "do": [inject], "answer": "B 0"}
    body = made({"window": "remote", "size": 0}, {"send": "a", "expect": [call]})
    assert problems_of(body) == []


def test_an_injection_that_never_completes_is_reported() -> None:
    scene = Scene(open_injections={("A", 1): 2})
    outcome = WorldOutcome(EndState(), EndState(), [{"event": "flow_deleted", "reason": "stop"}])
    assert compare(scene, [], outcome, {}, "memory") == ["2 NBL(s) of an accepted injection never completed"]


def test_calls_the_script_does_not_know_get_the_default() -> None:
    body = made({"send": "abc"}, callouts=[{"name": "A", "default": {"answer": "B 1"}}], end={})
    assert problems_of(body) == []
    assert problems_of(body | {"callouts": [{"name": "A"}]}) != []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (made({"send": "a", "receive": "b"}), ValueError),
        (made({"expect": []}), ValueError),
        (made({"send": "a", "expect": [{"call": "B(S1 'a')", "answer": "P 0"}]}), KeyError),
        (made({"send": "a", "expect": [{"of": "A"}]}), ValueError),
        (made({"send": 7}), ValueError),
        (made({"fin": "middle"}), KeyError),
        (made({"send": "a"}, options={"need_less_mode": "x"}), AttributeError),
        (
            made({"send": "a"}, callouts=[{"name": "A", "edit": {"style": "Q", "find": "", "replace": ""}}]),
            KeyError,
        ),
    ],
    ids=[
        "two stimuli",
        "none",
        "unknown callout",
        "no entry",
        "no bytes",
        "no side",
        "no option",
        "no style",
    ],
)
def test_a_vector_that_is_not_sound_is_refused(body: Body, error: type[Exception]) -> None:
    with pytest.raises(error):
        problems_of(body)


# --- cuts -------------------------------------------------------------------------------------------------


def test_at_any_cuts_the_failing_one_is_named() -> None:
    """A callout that puts an x in place of each segment: right in one piece, wrong in several."""
    default = {"do": [{"op": "FwpsStreamInjectAsync0", "data": "x"}], "answer": "B 0"}
    body = made({"send": "ab"}, end={"remote": {"data": "x"}}, callouts=[{"name": "A", "default": default}])
    assert problems_of(body) == []
    found = problems_of(body | {"cuts": "any"})
    assert found[0] == "case made up byte by byte: at the end: remote: data is b'xx', expected b'x'"
    assert not any(" in one piece" in problem for problem in found)


def test_listed_cuts() -> None:
    body = made({"send": "abcd"}, cuts=[[1], [2, 3]], end={"remote": {"data": "abcd"}})
    assert problems_of(body) == []
    problems = problems_of(body | {"end": {}})
    assert [problem.split(":")[0] for problem in problems] == [
        "case made up cut at [1]",
        "case made up cut at [2, 3]",
    ]


def test_a_step_may_be_repeated() -> None:
    step = {"send": "a", "times": 3, "expect": [{"call": "A(S1 'a')", "answer": "P 0"}]}
    assert problems_of(made(step, end={"remote": {"data": "aaa"}})) == []
    assert problems_of(made(step | {"times": 2}, end={"remote": {"data": "aaa"}})) != []


# --- the ideal editors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["N", "K"])
@settings(max_examples=60)
@given(data=st.data())
def test_editors_replace_at_any_cuts(style: str, data: st.DataObject) -> None:
    find = data.draw(st.text("ab", min_size=1, max_size=4))
    pieces = data.draw(st.lists(st.text("ab", min_size=1, max_size=6), min_size=1, max_size=6))
    edit = {"style": style, "find": find, "replace": "-"}
    body = made(
        *[{"receive": piece} for piece in pieces],
        {"fin": "remote"},
        callouts=[{"name": "A", "edit": edit}],
        end={"local": {"data": "".join(pieces).replace(find, "-"), "fin": True}},
    )
    assert problems_of(body) == []


# --- what is written --------------------------------------------------------------------------------------


@given(data=st.binary(max_size=40))
def test_payloads_are_printable_and_exact(data: bytes) -> None:
    text = quoted(data)
    assert text.isascii()
    assert text.isprintable()
    assert ast.literal_eval("b" + text) == data


@given(data=st.binary(max_size=100))
def test_bytes_come_through_json(data: bytes) -> None:
    text = json.dumps([data.decode("latin-1"), {"repeat": "ab", "times": 2}])
    assert decode_bytes(json.loads(text)) == data + b"abab"


@pytest.mark.parametrize("value", [None, 7, {"repeat": "a"}, ["a", 1]])
def test_what_is_no_bytes(value: object) -> None:
    with pytest.raises(ValueError, match="no bytes"):
        decode_bytes(value)


def test_notation_of_calls_and_completions() -> None:
    assert call_text("A", SEND, b"hello", 3, 0) == "A(S5 'hello' m3)"
    assert call_text("A", SEND_FIN, b"", 0, 4) == "A(S FIN +N)"
    assert call_text("B", RECEIVE, b"x" * 41, 0, 2) == "B(R41 +L)"
    assert call_text("A", SEND | int(StreamFlags.SEND_EXPEDITED), b"'", 0, 0) == r"A(S1 EXPEDITED '\x27')"
    assert call_text("A", RECEIVE | int(StreamFlags.RECEIVE_ABORT), b"", 0, 4) == "A(R ABORT +N)"
    assert completion_text(SEND, b"x", 0) == "cmp('x', SUCCESS)"
    assert completion_text(SEND_FIN, b"", 0) == "cmp(FIN, SUCCESS)"
    assert completion_text(SEND, b"x" * 41, 0) == "cmp(41, SUCCESS)"


@pytest.mark.parametrize("text", ["", "P", "P x", "Q 3", "DEF 1", "NMD"])
def test_what_is_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match=r"answer|invalid literal"):
        parse_answer(text)


# --- files ------------------------------------------------------------------------------------------------


def test_a_vector_is_found_by_its_id() -> None:
    assert vector("SC-9b").cases[0].id == "SC-9b P 2^32-1"
    with pytest.raises(KeyError):
        vector("nothing")


def test_vectors_come_in_the_order_of_the_catalogue() -> None:
    ids = [one.id for one in vectors()]
    assert ids[:3] == ["SC-1", "SC-2", "SC-3"]
    assert ids.index("SC-9b") == ids.index("SC-9") + 1 == ids.index("SC-10") - 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", ValueError),
        ('{"format": 2, "id": "SC-1", "title": "", "cases": []}', ValueError),
        ('{"format": 1, "id": "SC-1", "cases": []}', KeyError),
    ],
)
def test_a_file_that_is_no_vector(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_vector(text)


def test_a_world_that_lacks_something_cannot_play_a_case() -> None:
    class Poor(MemoryWorld):
        capabilities = frozenset(("reset",))

    class Elsewhere(MemoryWorld):
        name = "stream"

    half_close = vector("SC-10").cases[0]
    assert can_run(half_close, MemoryWorld())
    assert not can_run(half_close, Poor())
    memory_only = vector("SC-42").cases[0]
    assert can_run(memory_only, MemoryWorld())
    assert not can_run(memory_only, Elsewhere())


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(stepz=[]),
        lambda body: body["steps"][0].update(receive="both"),
        lambda body: first(body)[0].update(answer="PERMIT"),
        lambda body: first(body)[1]["do"][0].pop("op"),
        lambda body: body.update(cuts="any"),
        lambda body: body["end"].update(flow="gone"),
        lambda body: body["steps"][0].update(send="\u0100"),
    ],
    ids=[
        "unknown member",
        "two stimuli",
        "no answer",
        "no operation",
        "cuts of a script",
        "no end",
        "no byte",
    ],
)
def test_the_schema_refuses(change: Callable[[Body], object]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    body = passing()
    validator = jsonschema.Draft202012Validator(vectors_schema())
    whole = {"format": 1, "id": "SC-1", "title": "made up", "rules": [], "cases": [body]}
    assert validator.is_valid(whole)
    change(body)
    assert not validator.is_valid(whole)
