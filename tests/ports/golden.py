"""Golden transcripts: a conformance vector played on a port instead of on scripted answers.

Owns the way from a vector's case to the tape's lines, and playing its steps on a bench. The port decides for itself
what it answers; that the tape then says what the vector says is the test. Nothing here computes what is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.ports.bench import PortBench
from tests.ports.tape import short, shown, side_of
from wfpstream.fwp import NtStatus
from wfpstream.fwps import StreamFlags
from wfpstream.testing import VectorCase, vector
from wfpstream.testing._vectors._text import decode_bytes

Json = dict[str, Any]


def golden_case(vector_id: str, name: str) -> VectorCase:
    """One case of a vector. Raises StopIteration: there is none of that name."""
    return next(case for case in vector(vector_id).cases if case.name == name)


def golden_ids(*numbers: int) -> list[Any]:
    """(vector id, case name) of every case of these scenarios."""
    return [(f"SC-{n}", case.name) for n in numbers for case in vector(f"SC-{n}").cases]


# -- the lines of a case -------------------------------------------------------------------------------------


class Golden:
    """What the tape must say of a case: calls and completions, apart as the tape tells them."""

    def __init__(self, case: VectorCase) -> None:
        self._clones: dict[str, str] = {}
        lines = [line for step in case.body["steps"] for line in self._step(step)]
        self.calls = [line for line in lines if not line.startswith("cmp(")]
        self.completions = [line for line in lines if line.startswith("cmp(")]

    def _step(self, step: Json) -> Iterator[str]:
        for operation in step.get("do", ()):
            yield from self._operation(operation, "")
        for entry in step.get("expect", ()):
            if "call" in entry:
                yield self._call(entry)
            elif "completion" in entry:
                yield entry["completion"]
            elif "flowDelete" in entry:
                yield f"flowDelete({entry['flowDelete']})"

    def _call(self, entry: Json) -> str:
        side = entry["call"].partition("(")[2][:1]
        inside = [text for one in entry.get("do", ()) for text in self._operation(one, side, entry["call"])]
        return f"{entry['call']} -> {', '.join([*inside, entry['answer']])}"

    def _operation(self, operation: Json, indicated: str, call: str = "") -> Iterator[str]:
        name, returns = operation["op"], operation.get("returns", "STATUS_SUCCESS")
        refused = "" if returns == "STATUS_SUCCESS" else f" = {short(NtStatus[returns])}"
        if name == "FwpsCloneStreamData0":
            self._clones[operation["as"]] = call
            yield "clone"
        elif name == "FwpsStreamInjectAsync0":
            yield self._injection(operation, indicated) + refused
            if refused and "clone" in operation:
                yield "discard"  # a refused clone chain stays the caller's, who lets it go (INJ-1)
        elif name == "FwpsDiscardClonedStreamData0":
            yield "discard"
        elif name == "FwpsStreamContinue0":
            yield "continue" + refused
        elif name == "Note":
            yield operation["text"]

    def _injection(self, operation: Json, indicated: str) -> str:
        source = self._clones.get(operation.get("clone", ""), "")
        if "flags" in operation:
            side = side_of(sum(StreamFlags[name] for name in operation["flags"]))
        else:
            side = source.partition("(")[2][:1] or indicated
        what = shown(decode_bytes(operation["data"])) if "data" in operation else _payload(source)
        return f"inj({'' if side == indicated else f'{side}, '}{what})"


def _payload(call: str) -> str:
    """What an injection of a clone of this call shows: its bytes, or how many they are."""
    words = call.partition("(")[2].rstrip(")")
    if "FIN" in words.split():
        return "FIN"
    _, quote, text = words.partition("'")
    length = words.split()[0][1:]
    return f"'{text.rpartition(quote)[0]}'" if quote else length or "''"


# -- playing it --------------------------------------------------------------------------------------------


def play(bench: PortBench, case: VectorCase, worker: Callable[[Json], object]) -> None:
    """The steps of a case on the bench's port; where the vector operates, `worker` has the port do its part.

    Compares what both ends have seen where the vector says it, and at the end calls, completions and the ledger.
    """
    golden = Golden(case)
    for step in case.body["steps"]:
        _perform(bench, step, worker)
        _compare_ends(bench, step)
    assert bench.calls == golden.calls
    assert bench.completions == golden.completions
    end = case.body["end"]
    for side in ("remote", "local"):
        assert _seen(bench, side) == {"data": b"", "fin": False, "reset": False} | _wanted(end.get(side, {}))
    for direction, members in end.get("ledger", {}).items():
        ledger = bench.flow.ledger(("to_upstream", "to_client").index(direction))
        assert {name: getattr(ledger, name) for name in members} == members


def _perform(bench: PortBench, step: Json, worker: Callable[[Json], object]) -> None:
    match step:
        case {"send": data}:
            bench.send(decode_bytes(data))
        case {"receive": data}:
            bench.receive(decode_bytes(data))
        case {"fin": who}:
            (bench.send_fin if who == "local" else bench.receive_fin)()
        case {"reset": who}:
            bench.reset(who)
        case {"wait": seconds}:
            bench.driver.advance(seconds)
        case {"connect": _}:
            bench.connect()
        case _:
            worker(step)


def _compare_ends(bench: PortBench, step: Json) -> None:
    for side in ("remote", "local"):
        wanted = _wanted(step.get(side, {}))
        seen = _seen(bench, side)
        assert {name: seen[name] for name in wanted} == wanted


def _wanted(members: Json) -> Json:
    return {name: decode_bytes(due) if name == "data" else due for name, due in members.items()}


def _seen(bench: PortBench, side: str) -> Json:
    peer = bench.flow.remote if side == "remote" else bench.flow.local
    return {"data": bytes(peer.data), "fin": peer.fin, "reset": peer.reset}
