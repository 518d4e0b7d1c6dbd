"""A second harness for the vectors, written from docs/reference/vectors.md alone, as a driver team would write one.

Owns the proof that the page says enough: it shares no code with the runner, reads plain JSON, and registers plain
structures. It must not import anything of `wfpstream.testing` but the memory driver.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import pytest

from tests.scenarios.plain_editors import PlainEditor
from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout1, Mdl, StreamActionType, StreamFlags
from wfpstream.testing import MemoryDriver

Body = dict[str, Any]

KNOWN = {
    "FwpsStreamInjectAsync0": {"data", "clone", "null", "flags"},
    "FwpsCloneStreamData0": {"as"},
    "FwpsDiscardClonedStreamData0": {"clone"},
    "FwpsStreamContinue0": set(),
    "FwpsFlowAbort0": {"flow"},
    "Note": {"text"},
}
STREAM_V4, ESTABLISHED_V4 = 20, 52
FIN_BITS = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
ABORT_BITS = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
EXPEDITED_BITS = int(StreamFlags.SEND_EXPEDITED | StreamFlags.RECEIVE_EXPEDITED)


def bytes_of(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("latin-1")
    if isinstance(value, dict):
        return bytes_of(value["repeat"]) * int(value["times"])
    return b"".join(map(bytes_of, value))


def in_quotes(data: bytes) -> str:
    return (
        "'" + "".join(chr(b) if 32 <= b <= 126 and b not in (39, 92) else f"\\x{b:02x}" for b in data) + "'"
    )


def call_line(name: str, flags: int, data: bytes, missed: int, out_flags: int) -> str:
    line = f"{name}({'R' if flags & 1 else 'S'}"
    if data or not flags & (FIN_BITS | ABORT_BITS):
        line += str(len(data))
    line += " FIN" * bool(flags & FIN_BITS) + " ABORT" * bool(flags & ABORT_BITS)
    line += " EXPEDITED" * bool(flags & EXPEDITED_BITS)
    line += f" {in_quotes(data)}" if 1 <= len(data) <= 40 else ""
    line += f" m{missed}" * bool(missed)
    return line + " +N" * bool(out_flags & 4) + " +L" * bool(out_flags & 2) + ")"


def bits(names: list[str]) -> int:
    return sum(int(StreamFlags[name]) for name in names)


def editor_of(edit: Body) -> PlainEditor:
    find, replace = bytes_of(edit["find"]), bytes_of(edit["replace"])
    return PlainEditor(edit["style"], find, replace, edit.get("asks", len(find)))


class Driver:
    """The driver that plays one case: its callouts, what they live through, and the clones they own."""

    def __init__(self, body: Body) -> None:
        options = EngineOptions()
        for name, value in body.get("options", {}).items():
            target = getattr(options, name)
            if isinstance(value, dict):
                for inner, one in value.items():
                    setattr(target, inner, one)
            else:
                setattr(options, name, value)
        options.verify.level = "warn"
        self.memory = MemoryDriver(options, body.get("local", "client"))
        self.fwps = self.memory.fwps
        self.lines: list[str] = []
        self.faults: list[str] = []
        self.answers: dict[str, deque[Body]] = defaultdict(deque)
        self.ids: dict[str, int] = {}
        self.clones: dict[str, Any] = {}
        self.deferred: dict[str, int] = {}
        self.editors = {spec["name"]: editor_of(spec["edit"]) for spec in body["callouts"] if "edit" in spec}
        self.first = body["callouts"][0]["name"]
        self.undo: list[Callable[[], object]] = []
        self.handle = self.fwps.injection_handle_create(0, 1)[1]
        for place, spec in enumerate(body["callouts"]):
            self._load(spec, 64 >> place)
        for step in body["steps"]:
            for entry in list(step.get("expect", ())) * step.get("times", 1):
                if "call" in entry:
                    self.answers[entry["call"].split("(")[0]].append(entry)
        flow = self.memory.connect()
        assert flow is not None
        self.flow = flow
        for spec in body["callouts"]:
            if "context" in spec:
                self.fwps.flow_associate_context(
                    self.flow.id, STREAM_V4, self.ids[spec["name"]], spec["context"]
                )

    def _load(self, spec: Body, weight: int) -> None:
        name, session = spec["name"], self.memory.session
        key = uuid5(NAMESPACE_OID, name)
        structure = Callout1(key, 0, self._classify_of(name), lambda *_: 0, self._delete_of(name))
        self.ids[name] = self.fwps.callout_register1(None, structure)[1]
        shown = fwpm.DisplayData(name)
        layer = fwpm.LAYER_STREAM_V4
        self.undo.append(lambda: self.fwps.callout_unregister_by_id(self.ids[name]))
        session.callout_add(fwpm.Callout(callout_key=key, display_data=shown, applicable_layer=layer))
        self.undo.append(lambda: session.callout_delete_by_key(key))
        weight = spec.get("sublayer", weight)
        sub_layer = UUID(int=weight + 1)
        session.sub_layer_add(fwpm.SubLayer(sub_layer_key=sub_layer, display_data=shown, weight=weight))
        action = ActionType[spec.get("filter", "CALLOUT_UNKNOWN")]
        self.undo.append(lambda: session.sub_layer_delete_by_key(sub_layer))
        _, filter_id = session.filter_add(
            fwpm.Filter(
                display_data=shown,
                layer_key=layer,
                sub_layer_key=sub_layer,
                action_type=action,
                callout_key=key,
            )
        )

        self.undo.append(lambda: session.filter_delete_by_id(filter_id))

    # -- callbacks -------------------------------------------------------------------------------------

    def _classify_of(self, name: str) -> Any:
        def classify(
            fixed: Any, meta: Any, packet: Any, context: Any, filter: Any, flow_context: int, out: Any
        ) -> None:
            data, flags = packet.stream_data.tobytes(), int(packet.stream_data.flags)
            self.lines.append(call_line(name, flags, data, packet.missed_bytes, out.flags))
            default: Body = {"answer": "P 0"}
            entry = self.answers[name].popleft() if self.answers[name] else default
            if name in self.editors:
                entry = self._edit(name, flags, data, out.flags)
            for operation in entry.get("do", ()):
                self.operate(operation, name, packet)
            self._answer(name, str(entry["answer"]), packet, out)

        return classify

    def _edit(self, name: str, flags: int, data: bytes, out_flags: int) -> Body:
        injected, answer = self.editors[name].decide(
            bool(flags & 1),
            data,
            fin=bool(flags & FIN_BITS),
            abort=bool(flags & ABORT_BITS),
            last=bool(out_flags & 4),
        )
        texts = [one.decode("latin-1") for one in injected]
        return {"do": [{"op": "FwpsStreamInjectAsync0", "data": text} for text in texts], "answer": answer}

    def _answer(self, name: str, answer: str, packet: Any, out: Any) -> None:
        word, _, number = answer.partition(" ")
        actions = {"P": ActionType.PERMIT, "B": ActionType.BLOCK, "C": ActionType.CONTINUE}
        stream = {
            "NMD": "NEED_MORE_DATA",
            "DEF": "DEFER",
            "DROP": "DROP_CONNECTION",
            "ALLOW": "ALLOW_CONNECTION",
        }
        if word in actions:
            out.action_type, packet.count_bytes_enforced = actions[word], int(number)
        elif word in stream:
            out.action_type, packet.stream_action = ActionType.NONE, StreamActionType[stream[word]]
            packet.count_bytes_required = int(number or 0)
            if word == "DEF":
                self.deferred[name] = int(packet.stream_data.flags)

    def _delete_of(self, name: str) -> Any:
        return lambda layer, callout, context: self.lines.append(f"flowDelete {name}")

    # -- operations ------------------------------------------------------------------------------------

    def operate(self, operation: Body, by: str | None = None, packet: Any = None) -> None:
        who = operation.get("by") or by or self.first
        status = getattr(self, operation["op"])(operation, who, packet)
        wanted = operation.get("returns", "STATUS_SUCCESS")
        if NtStatus(status).name != wanted:
            self.faults.append(f"{operation['op']}: {NtStatus(status).name} instead of {wanted}")

    def _what(self, operation: Body, packet: Any) -> tuple[Any, int, int, Any, Any]:
        """What to inject: NBL, length, flags of its own, how it is freed, and how if it is refused."""
        if "clone" in operation:
            nbl, length, own = self.clones.pop(operation["clone"])
            return (
                nbl,
                length,
                own,
                self.fwps.free_clone_net_buffer_list,
                self.fwps.discard_cloned_stream_data,
            )
        own = 0 if packet is None else int(packet.stream_data.flags) & ~FIN_BITS
        if "data" not in operation:
            return None, 0, own, None, None
        data = bytes_of(operation["data"])
        _, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, Mdl(data), 0, len(data))
        return nbl, len(data), own, self.fwps.free_net_buffer_list, self.fwps.free_net_buffer_list

    def FwpsStreamInjectAsync0(self, operation: Body, by: str, packet: Any) -> int:
        named = bits(operation["flags"]) if "flags" in operation else None
        nbl, length, own, free, give_back = self._what(operation, packet)
        flags = own if named is None else named

        def completion(context: Any, done: Any, dispatch_level: bool) -> None:
            data = done.tobytes()
            what = "FIN" if not data and flags & FIN_BITS else in_quotes(data[:41])
            what = str(len(data)) if len(data) > 40 else what
            self.lines.append(f"cmp({what}, {NtStatus(done.status).name[7:]})")
            free(done)

        status: int = self.fwps.stream_inject_async(
            self.handle, 0, 0, self.flow.id, self.ids[by], STREAM_V4, flags, nbl, length, completion, 0
        )
        if status and give_back is not None:
            give_back(nbl)
        return status

    def FwpsCloneStreamData0(self, operation: Body, by: str, packet: Any) -> int:
        status, chain = self.fwps.clone_stream_data(packet.stream_data)
        self.clones[operation["as"]] = chain, packet.stream_data.data_length, int(packet.stream_data.flags)
        return status

    def FwpsDiscardClonedStreamData0(self, operation: Body, by: str, packet: Any) -> int:
        self.fwps.discard_cloned_stream_data(self.clones.pop(operation["clone"])[0])
        return 0

    def FwpsStreamContinue0(self, operation: Body, by: str, packet: Any) -> int:
        return self.fwps.stream_continue(
            self.flow.id, self.ids[by], STREAM_V4, self.deferred.get(by, int(StreamFlags.RECEIVE))
        )

    def FwpsFlowAbort0(self, operation: Body, by: str, packet: Any) -> int:
        return self.fwps.flow_abort(operation.get("flow", self.flow.id))

    def Note(self, operation: Body, by: str, packet: Any) -> int:
        self.lines.append(f"note {operation['text']}")
        return 0

    # -- steps -----------------------------------------------------------------------------------------

    def play(self, step: Body) -> None:
        flow = self.flow
        if "send" in step:
            flow.send(bytes_of(step["send"]), urgent=step.get("urgent", False))
        elif "receive" in step:
            flow.receive(bytes_of(step["receive"]), urgent=step.get("urgent", False))
        elif "fin" in step:
            (flow.send_fin if step["fin"] == "local" else flow.receive_fin)()
        elif "reset" in step:
            flow.reset(step["reset"])
        elif "window" in step:
            getattr(flow, step["window"]).window = step["size"]
        elif "wait" in step:
            self.memory.advance(step["wait"])
        for operation in step.get("do", ()):
            self.operate(operation)
        self.memory.settle()

    def unload(self) -> None:
        """The flow ends; what was added goes, first in last out; then the engine stops and says what is left."""
        self.fwps.flow_abort(self.flow.id)
        self.memory.settle()
        for undo in reversed(self.undo):
            undo()
        self.fwps.injection_handle_destroy(self.handle)
        self.memory.close()


# --- playing a case ---------------------------------------------------------------------------------------


def expected_line(entry: Body) -> str:
    if "flowDelete" in entry:
        return f"flowDelete {entry['flowDelete']}"
    return str(entry.get("call") or entry.get("completion") or f"note {entry['note']}")


def seen_by(peer: Any) -> Body:
    urgent = [[at, byte.decode("latin-1")] for at, byte in peer.urgent]
    return {"data": bytes(peer.data), "fin": peer.fin, "reset": peer.reset, "urgent": urgent}


def check_ends(driver: Driver, wanted: Body, where: str, resetting: set[str]) -> list[str]:
    """What both hosts have seen, so far as the vector says."""
    problems = []
    for side in ("remote", "local"):
        seen = seen_by(getattr(driver.flow, side))
        for name, value in (wanted.get(side) or {}).items():
            due = bytes_of(value) if name == "data" else value
            if seen[name] != due and not (name != "data" and side in resetting):
                problems.append(f"{where}: {side} {name} is {seen[name]!r}")
    return problems


def play(body: Body) -> list[str]:
    """Play one case; what is different."""
    driver = Driver(body)
    problems: list[str] = []
    resetting = {step["reset"] for step in body["steps"] if "reset" in step}
    for number, step in enumerate(body["steps"], start=1):
        for _ in range(step.get("times", 1)):
            driver.lines.clear()
            driver.play(step)
            if "expect" in step and driver.lines != [expected_line(entry) for entry in step["expect"]]:
                problems.append(f"step {number}: {driver.lines}")
        problems += check_ends(driver, step, f"step {number}", resetting)
    nothing = {"data": "", "fin": False, "reset": False}
    end = {side: nothing | body.get("end", {}).get(side, {}) for side in ("remote", "local")}
    problems += check_ends(driver, end, "the end", resetting)
    driver.unload()
    if driver.memory.violations != body.get("violations", []):
        problems.append(f"violations {driver.memory.violations}")
    return problems + driver.faults


def operations_of(body: Body) -> Iterator[Body]:
    for step in body["steps"]:
        yield from step.get("do", ())
        for entry in step.get("expect", ()):
            yield from entry.get("do", ())


def is_known(operation: Body) -> bool:
    """The operation and its members are among those of the page's table; flags are named."""
    members = KNOWN.get(operation["op"])
    named = all(isinstance(flag, str) for flag in operation.get("flags", ()))
    return members is not None and named and operation.keys() <= members | {"op", "by", "returns"}


def is_plain(body: Body) -> bool:
    """Whether this harness knows all that the case needs."""
    simple = {"name", "filter", "sublayer", "context", "edit"}
    beyond = {"filters", "setup", "connect"} & body.keys()
    callouts = bool(body["callouts"]) and all(spec.keys() <= simple for spec in body["callouts"])
    return not beyond and callouts and all(map(is_known, operations_of(body)))


def bytewise(body: Body) -> Body:
    """One of the ways in which a case with `cuts` may be cut."""
    steps = []
    for step in body["steps"]:
        kind = next(iter(step))
        pieces = list(bytes_of(step[kind]).decode("latin-1")) if kind in ("send", "receive") else [step[kind]]
        steps += [step | {kind: piece} for piece in pieces]
    return body | {"steps": steps}


def plain_cases() -> list[Any]:
    found = []
    folder = files("wfpstream.testing").joinpath("vectors")
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        vector = json.loads(path.read_text(encoding="utf-8"))
        found += [
            pytest.param(body, id=f"{vector['id']} {body['case']}")
            for body in vector["cases"]
            if is_plain(body)
        ]
    return found


CASES = plain_cases()


@pytest.mark.parametrize("body", CASES)
def test_a_harness_that_knows_only_the_page_plays(body: Body) -> None:
    assert play(body) == []
    if "cuts" in body:
        assert play(bytewise(body)) == []


def test_it_plays_most_of_the_stream_layer() -> None:
    assert len(CASES) > 90
