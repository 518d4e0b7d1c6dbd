"""One script, several worlds: the same callouts over the same bytes, and the events that come of it.

Owns the scripts, the table of callouts, and a `run_...` function per world, each `(make, script) -> events`. What must
be equal then is the tests'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from io import BytesIO
from itertools import pairwise
from random import Random
from typing import Any, Literal, NamedTuple

import trio

from tests.callouts.support import memory_driver
from tests.transport.kit import Live, live, reset
from wfpstream.callouts import (
    AllowAfter,
    Banner,
    Fault,
    Framer,
    Latency,
    Monitor,
    PatternDrop,
    PendFin,
    SequentialCallout,
    Steps,
    StreamEdit,
    Throttle,
    need,
    permit,
)
from wfpstream.callouts import (
    replace as exchange,
)
from wfpstream.engine import EngineOptions, Flow, Timeouts
from wfpstream.fwps import Callout
from wfpstream.replay import ReplayOptions, replay_capture
from wfpstream.testing import FlowEnds
from wfpstream.wire import LINK_ETHERNET, pcap_header, pcap_record, tcp_frame

Event = dict[str, Any]
Make = Callable[[], list[Callout]]
Side = Literal["client", "server"]

# Virtual seconds between two steps: more than any callout here takes over one.
REST = 10.0

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


# --- scripts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One side sends data (one segment), a FIN or a reset; the next step comes when all has come to rest."""

    who: Side
    what: Literal["data", "fin", "reset"] = "data"
    data: bytes = b""


Script = tuple[Step, ...]


def says(who: Side, text: str) -> Step:
    """Data."""
    return Step(who, data=text.encode())


CLIENT_ENDS, SERVER_ENDS = Step("client", "fin"), Step("server", "fin")

SCRIPTS: dict[str, Script] = {
    "conversation": (
        says("client", "is it rainy?\nit is rai"),
        says("server", "rainy three\nhere it is a rainy rainy da"),
        says("client", "ny here\n\nthree times rainy"),
        says("server", "y, rain or shine\nbye"),
        CLIENT_ENDS,
        SERVER_ENDS,
    ),
    "half-close": (
        says("client", "tell me about three rainy days\n"),
        CLIENT_ENDS,
        says("server", "one two rainy\nthree four\nthe rest of it is rainy"),
        SERVER_ENDS,
    ),
    "one way": (says("server", "rainy\nrainy, three times\n" * 5 + "rainyrainy"), SERVER_ENDS, CLIENT_ENDS),
    "nothing": (SERVER_ENDS, CLIENT_ENDS),
    "reset": (
        says("client", "about the rainy days: three, or\nfour"),
        says("server", "it is rainy\nand then"),
        Step("server", "reset"),
    ),
}


def cut(script: Script, points: Callable[[int], Sequence[int]]) -> Script:
    """The script with its data in smaller segments: `points` says where those of some length are cut."""
    steps: list[Step] = []
    for step in script:
        if step.what == "data":
            inside = sorted({point for point in points(len(step.data)) if 0 < point < len(step.data)})
            borders = [0, *inside, len(step.data)]
            steps += [replace(step, data=step.data[a:b]) for a, b in pairwise(borders)]
        else:
            steps.append(step)
    return tuple(steps)


def thirds(script: Script) -> Script:
    """Each segment in three."""
    return cut(script, lambda length: [length // 3, 2 * length // 3])


def bytewise(script: Script) -> Script:
    """A byte at a time."""
    return cut(script, range)


def some_cuts(script: Script) -> Iterator[Script]:
    """A byte at a time, and cut at places that are always the same."""
    yield bytewise(script)
    for seed in range(2):
        dice = Random(seed)
        yield cut(script, partial(_some_places, dice))


def _some_places(dice: Random, length: int) -> list[int]:
    return [dice.randrange(length) for _ in range(dice.randint(1, 5))]


# --- callouts ---------------------------------------------------------------------------------------------


class Doubled(SequentialCallout):
    """Says every other byte twice."""

    def parse(self, direction: str) -> Steps:
        while pair := (yield need(2)):
            yield permit(len(pair) - 1)
            yield exchange(1, pair[-1:] * 2)


@dataclass(frozen=True, slots=True)
class Case:
    """Callouts, in the order in which they are asked.

    Attributes:
        make: makes them anew for each run.
        ordered: what they do does not depend on how much time passes, so that with equal borders the events of one
            direction are the same everywhere.
    """

    make: Make
    ordered: bool = True


# Each of them does the same to a stream wherever it is cut.
CASES: dict[str, Case] = {
    "nothing": Case(lambda: []),
    "stream_edit": Case(lambda: [StreamEdit(find="rainy", replace="dry")]),
    "stream_edit count": Case(lambda: [StreamEdit(find="ra", replace="", count=1, direction="to_client")]),
    "stream_edit oob": Case(lambda: [StreamEdit(find="rainy", replace="sunny!", mode="oob")]),
    "monitor": Case(lambda: [Monitor(summary=False)]),
    "pattern_drop": Case(lambda: [PatternDrop(find="three")]),
    "pattern_drop to_client": Case(lambda: [PatternDrop(find="three", direction="to_client")]),
    "framer": Case(lambda: [Framer()]),
    "framer length": Case(lambda: [Framer(by="length", size=1, limit=200)]),
    "framer each": Case(lambda: [Framer(each=True)]),
    "banner": Case(lambda: [Banner(text="hello\n")]),
    "banner both": Case(lambda: [Banner(text="hello\n", direction="both")]),
    "pend_fin": Case(lambda: [PendFin(delay=0.01, trailer="bye\n")]),
    "pend_fin to_client": Case(lambda: [PendFin(direction="to_client")]),
    "allow_after": Case(lambda: [AllowAfter(bytes=7)]),
    "allow_after to_client": Case(lambda: [AllowAfter(bytes=12, direction="to_client")]),
    "throttle": Case(lambda: [Throttle(rate=4000, burst=7)], ordered=False),
    "throttle to_client": Case(lambda: [Throttle(rate=4000, burst=7, direction="to_client")], ordered=False),
    "latency": Case(lambda: [Latency(delay=0.003, jitter=0.002)]),
    "fault truncate": Case(lambda: [Fault(do="truncate", after=5)]),
    "fault corrupt": Case(lambda: [Fault(do="corrupt", after=5, size=8)]),
    "fault stall": Case(lambda: [Fault(do="stall", after=5, for_=0.01)]),
    "fault slice": Case(lambda: [Fault(do="slice", after=5, size=2)]),
    "fault fin": Case(lambda: [Fault(do="fin", after=5, direction="to_client")]),
    "fault rst": Case(lambda: [Fault(do="rst", after=5)]),
    "fault blackhole": Case(lambda: [Fault(do="blackhole", after=5)]),
    "sequential": Case(lambda: [Doubled()]),
    "framer, then edit, then monitor": Case(
        lambda: [Framer(), StreamEdit(find="rainy", replace="dry"), Monitor(summary=False)]
    ),
    "edit, then edit, then framer": Case(
        lambda: [
            StreamEdit(find="rain", replace="thunder"),
            StreamEdit(find="under", replace="ooo", direction="to_client"),
            Framer(),
        ]
    ),
    "monitor, then edit oob": Case(
        lambda: [Monitor(summary=False), StreamEdit(find="rainy", replace="dry", mode="oob")]
    ),
    "edit oob, then monitor": Case(
        lambda: [StreamEdit(find="rainy", replace="dry", mode="oob"), Monitor(summary=False)]
    ),
    "allow_after, then edit": Case(lambda: [AllowAfter(bytes=7), StreamEdit(find="rainy", replace="dry")]),
    "banner, then pattern_drop": Case(lambda: [Banner(text="one\n"), PatternDrop(find="three")]),
}


# --- worlds -----------------------------------------------------------------------------------------------


class Progress(NamedTuple):
    """How far a connection has come."""

    at_client: int
    client_end: str
    at_server: int
    server_end: str
    read: tuple[int, int]
    asked: int
    over: bool


def _asked(events: Sequence[Event]) -> int:
    return sum(event["event"] == "classify" for event in events)


def _is_over(events: Sequence[Event]) -> bool:
    return any(event["event"] == "flow_deleted" for event in events)


def run_memory(make: Make, script: Script) -> list[Event]:
    """In memory."""
    return _in_memory(make, script)[0]


@cache
def _in_memory(make: Make, script: Script) -> tuple[list[Event], list[Progress]]:
    """The events, and how far it had come before the first step and after each."""
    driver = memory_driver(*make())
    flow = driver.connect()
    assert flow is not None
    driver.advance(REST)
    progress = [_progress(flow, driver.events)]
    for step in script:
        if _is_over(driver.events):
            break
        _perform(flow, step)
        driver.advance(REST)
        progress.append(_progress(flow, driver.events))
    driver.close()
    return list(driver.events), progress


def _perform(flow: FlowEnds, step: Step) -> None:
    by_client = step.who == "client"
    if step.what == "data":
        (flow.send if by_client else flow.receive)(step.data)
    elif step.what == "fin":
        (flow.send_fin if by_client else flow.receive_fin)()
    else:
        flow.reset("local" if by_client else "remote")


def _progress(flow: FlowEnds, events: Sequence[Event]) -> Progress:
    ends = [(len(end.data), "reset" if end.reset else "fin" * end.fin) for end in (flow.local, flow.remote)]
    read = (flow.ledger(0).read, flow.ledger(1).read)
    return Progress(*ends[0], *ends[1], read, _asked(events), _is_over(events))


def run_proxy(make: Make, script: Script) -> list[Event]:
    """Through a real proxy; segments of one side may arrive as one."""
    return _through_proxy(make, script, one_at_a_time=False)


def run_proxy_piece_by_piece(make: Make, script: Script) -> list[Event]:
    """Through a real proxy, one segment in flight at a time: the borders are those of the script."""
    return _through_proxy(make, script, one_at_a_time=True)


def _through_proxy(make: Make, script: Script, *, one_at_a_time: bool) -> list[Event]:
    """Waits where memory came to rest: for a change of sides, for ends, or after every step."""
    _, progress = _in_memory(make, script)

    async def main() -> list[Event]:
        with trio.fail_after(100):
            return await _converse(make(), script, progress, one_at_a_time)

    return trio.run(main)


async def _converse(
    callouts: list[Callout], script: Script, progress: list[Progress], one_at_a_time: bool
) -> list[Event]:
    # What a callout has ended early is reset in the end, as in memory, where time passes by itself.
    options = EngineOptions(timeouts=Timeouts(reset_flush=3.0))
    async with live(*callouts, options=options, quiet=False) as run, trio.open_nursery() as nursery:
        client, server = await run.pair()
        watch = Watch(run, run.flow)
        nursery.start_soon(watch.read, client, "client")
        nursery.start_soon(watch.read, server, "server")
        await watch.until(progress[0], one_at_a_time)
        for place, step in enumerate(script[: len(progress) - 1]):
            stream = client if step.who == "client" else server
            try:
                await _say(stream, step)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break  # the callouts have ended it meanwhile
            following = script[place + 1 :][:1]
            goes_on = [s.what == "data" and s.who == step.who for s in following] == [True]
            if one_at_a_time or not goes_on:
                await watch.until(progress[place + 1], one_at_a_time)
        if progress[-1].over:
            await run.deleted()
        nursery.cancel_scope.cancel()
    return run.events.all


async def _say(stream: trio.SocketStream, step: Step) -> None:
    if step.what == "data":
        await stream.send_all(step.data)
    elif step.what == "fin":
        await stream.send_eof()
    else:
        reset(stream)


class Watch:
    """Reads both ends, and waits until they have what they had in memory."""

    def __init__(self, run: Live, flow: Flow) -> None:
        self._run = run
        self._flow = flow
        self._got = {"client": 0, "server": 0}
        self._ends = {"client": "", "server": ""}

    async def read(self, stream: trio.SocketStream, who: Side) -> None:
        """Until the end."""
        try:
            while data := await stream.receive_some():
                self._got[who] += len(data)
            self._ends[who] = "fin"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._ends[who] = "reset"

    async def until(self, progress: Progress, every_answer: bool) -> None:
        """Wait for it, busily: sockets tell nobody else what they have."""
        while not self._is_there(progress, every_answer):
            await trio.lowlevel.checkpoint()

    def _is_there(self, progress: Progress, every_answer: bool) -> bool:
        events = self._run.events.all
        if progress.over:
            return _is_over(events)
        if _is_over(events):
            return True
        ends = (("client", progress.client_end), ("server", progress.server_end))
        return (
            self._got["client"] >= progress.at_client
            and self._got["server"] >= progress.at_server
            and all(self._ends[who] or not end for who, end in ends)
            and all(self._flow.ledger(direction).read >= progress.read[direction] for direction in (0, 1))
            and (not every_answer or _asked(events) >= progress.asked)
        )


def run_replay(make: Make, script: Script) -> list[Event]:
    """Replayed from a capture; small segments of one side are indicated as one."""
    return _replayed(make, script, ReplayOptions())


def run_replay_piece_by_piece(make: Make, script: Script) -> list[Event]:
    """Replayed from a capture; the borders are those of the script."""
    return _replayed(make, script, ReplayOptions(coalesce=False))


def _replayed(make: Make, script: Script, options: ReplayOptions) -> list[Event]:
    events: list[Event] = []
    result = replay_capture(BytesIO(capture_of(script)), make(), options=options, events=events.append)
    assert result.problems == []
    return events


def capture_of(script: Script) -> bytes:
    """A pcap of the script: a handshake, then its steps, each acknowledged, `REST` apart."""
    wire = Wire()
    wire.frame("client", SYN)
    wire.frame("server", SYN | ACK)
    wire.frame("client", ACK)
    for step in script:
        wire.now += REST
        if step.what == "reset":
            wire.frame(step.who, RST | ACK)
            break
        wire.frame(step.who, ACK | (FIN if step.what == "fin" else PSH), step.data)
        wire.frame("server" if step.who == "client" else "client", ACK)
    return bytes(wire.file)


class Wire:
    """A capture being written."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self.file = bytearray(pcap_header(LINK_ETHERNET))
        self._next = {"client": 1_000, "server": 4_294_967_290}  # that of the server wraps

    def frame(self, who: Side, flags: int, data: bytes = b"") -> None:
        """One segment, a microsecond after the one before."""
        ports = (40_000, 80) if who == "client" else (80, 40_000)
        hosts = (bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)))
        source, destination = hosts if who == "client" else hosts[::-1]
        own, other = self._next[who], self._next["server" if who == "client" else "client"]
        frame = tcp_frame(source, destination, *ports, own, other if flags & ACK else 0, flags, data)
        self.now += 1e-6
        self.file += pcap_record(round(self.now * 1e9), frame)
        self._next[who] = (own + len(data) + bool(flags & (SYN | FIN))) % (1 << 32)
