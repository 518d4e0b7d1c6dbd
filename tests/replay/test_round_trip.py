"""What replay writes: the same streams to replay itself and to tshark, which finds nothing to complain about."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.replay.kit import Capture, close, engine_with
from tests.replay.support_captures import SHARED, shared_capture, shared_captures
from tests.support.system import require
from wfpstream.callouts.banner import Banner
from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.fwps import Callout
from wfpstream.replay import (
    CaptureError,
    CaptureFile,
    ReplayOptions,
    ReplayResult,
    StreamResult,
    open_capture,
    replay_capture,
)

CAPTURES = shared_captures()
_NONE = pytest.param("", {}, marks=pytest.mark.skip(reason=f"{SHARED} is not there"), id="no captures")
each_capture = pytest.mark.parametrize(
    ("kind", "capture"),
    [pytest.param(kind, capture, id=capture["file"]) for kind, capture in CAPTURES] or [_NONE],
)


def written(
    path: Path, capture: Any, callouts: Sequence[Callout] = (), **options: Any
) -> tuple[ReplayResult, ReplayResult]:
    """Replay a capture into `path`, and `path` again: both results."""
    keeping = ReplayOptions(keep_data=True, **options)
    first = replay_capture(capture, callouts, options=keeping, output=path)
    return first, replay_capture(path, options=keeping)


def identity(stream: StreamResult, side: str) -> list[Any]:
    """What a round trip must keep: who, and the bytes that left (`out`) or came in (`in`)."""
    both = (stream.client_to_server, stream.server_to_client)
    sums = [(getattr(one, f"bytes_{side}"), getattr(one, f"sha256_{side}")) for one in both]
    return [stream.client, stream.server, *sums]


def assert_same(first: ReplayResult, again: ReplayResult) -> None:
    """Stream by stream; one that never reached the engine has at most its SYN in the output."""
    assert [identity(stream, "out") for stream in first.streams] == [
        identity(stream, "in") for stream in again.streams
    ]
    for before, after in zip(first.streams, again.streams, strict=True):
        assert not after.midstream
        for one, other in (
            (before.client_to_server, after.client_to_server),
            (before.server_to_client, after.server_to_client),
        ):
            assert other.missing == other.retransmitted == other.late == other.out_of_window == 0
            if before.ended == "fin":
                assert (other.fin, other.rst) == (True, False)
            assert other.rst <= (one.rst or before.ended == "drop")


# --- by replay itself ---------------------------------------------------------------------------------


@each_capture
@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
def test_replayed_again(tmp_path: Path, kind: str, capture: dict[str, Any], suffix: str) -> None:
    """The output of a replay without callouts gives the same streams, free of every oddity."""
    source = shared_capture(kind, capture["file"])
    assert_same(*written(tmp_path / f"out.{suffix}", source))


def test_the_output_replaces_only_when_whole(tmp_path: Path) -> None:
    """A source that cannot be read leaves what was there."""
    out = tmp_path / "out.pcap"
    out.write_bytes(b"precious")
    with pytest.raises(CaptureError):
        replay_capture(io.BytesIO(b"no capture"), output=out)
    assert out.read_bytes() == b"precious"
    assert [path.name for path in tmp_path.iterdir()] == ["out.pcap"]


# --- by tshark ----------------------------------------------------------------------------------------

COMPLAINTS = "tcp.analysis.flags || tcp.checksum.status==0 || ip.checksum.status==0 || _ws.malformed"
CHECKS = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
# What the bytes mean is the captured programs' business.
AS_DATA = ["-d", "tcp.port==0-65535,data"]


def tshark(path: Path, *arguments: str) -> str:
    run = subprocess.run(
        [require("tshark"), "-n", *CHECKS, *AS_DATA, "-r", str(path), *arguments],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return run.stdout


def moved(frame: bytes, by: int) -> bytes:
    """The frame between other hosts: both addresses change such that every checksum stays right."""
    at = 26 if frame[12:14] == b"\x08\x00" else 22
    size = 4 if at == 26 else 16
    ports = at + 2 * size
    ends = [frame[at : at + size], frame[at + size : ports]]
    is_first = (ends[0], frame[ports : ports + 2]) < (ends[1], frame[ports + 2 : ports + 4])
    for index, delta in enumerate((by, -by) if is_first else (-by, by)):
        low = (int.from_bytes(ends[index][-2:], "big") + delta) % 0xFFFF
        ends[index] = ends[index][:-2] + low.to_bytes(2, "big")
    return b"".join((frame[:at], *ends, frame[ports:]))


class Seen:
    """What tshark makes of many outputs, put into one file because it takes long to start.

    Attributes:
        complaints: lines about frames that it finds something wrong with; `reuses`: only that ports are used again.
    """

    def __init__(self, folder: Path, outputs: dict[str, tuple[Path, ReplayResult]]) -> None:
        path = folder / "all.pcapng"
        with path.open("wb") as stream:
            file = CaptureFile(stream, "pcapng")
            for number, (output, _) in enumerate(outputs.values()):
                for time_ns, _, frame in open_capture(output):
                    file.write(time_ns, moved(frame, 257 * number))
            file.close()
        counts = [len(result.streams) for _, result in outputs.values()]
        shown = tshark(path, "-Y", COMPLAINTS, *follow(sum(counts))).splitlines()
        lines = [line for line in shown if re.match(r" *\d+ +[\d.]+ ", line)]
        self.reuses = [line for line in lines if "Port numbers reused" in line]
        self.complaints = [line for line in lines if line not in self.reuses]
        streams = followed(shown, sum(counts))
        self.streams = {
            name: [next(streams) for _ in range(n)] for name, n in zip(outputs, counts, strict=True)
        }


def follow(streams: int) -> list[str]:
    return [part for number in range(streams) for part in ("-z", f"follow,tcp,raw,{number}")]


def followed(lines: list[str], streams: int) -> Iterator[tuple[bytes, bytes]]:
    """What both sides of each stream sent, the sender of the SYN first."""
    found = [(bytearray(), bytearray()) for _ in range(streams)]
    current = found[0]
    for line in lines:
        if line.startswith("Filter: tcp.stream eq "):
            current = found[int(line.rpartition(" ")[2])]
        elif re.fullmatch(r"\t?[0-9a-f]+", line):
            current[line.startswith("\t")].extend(bytes.fromhex(line))
    return ((bytes(client), bytes(server)) for client, server in found)


def left(result: ReplayResult) -> list[tuple[bytes | None, bytes | None]]:
    """What left the engine, by stream."""
    return [(stream.client_to_server.data_out, stream.server_to_client.data_out) for stream in result.streams]


def assert_tshark_agrees(folder: Path, outputs: dict[str, tuple[Path, ReplayResult]]) -> None:
    """No complaint but that ports are used again where they are, and follow gives what left the engine."""
    seen = Seen(folder, outputs)
    assert seen.complaints == []
    again = 0
    for name, (_, result) in outputs.items():
        assert seen.streams[name] == left(result), name
        again += len(result.streams) - len({(stream.client, stream.server) for stream in result.streams})
    assert len(seen.reuses) == again


@pytest.mark.system("tshark")
def test_tshark_agrees(tmp_path: Path) -> None:
    """On every shared capture, replayed without callouts."""
    outputs = {}
    for kind, capture in CAPTURES:
        name = f"{kind}-{capture['file']}"
        path = (tmp_path / name).with_suffix(".pcap")
        source = shared_capture(kind, capture["file"])
        outputs[name] = path, replay_capture(source, options=ReplayOptions(keep_data=True), output=path)
    if not outputs:
        pytest.skip(f"{SHARED} is not there")
    assert_tshark_agrees(tmp_path, outputs)


def odd_captures() -> Iterator[tuple[str, Capture]]:
    """Ends and beginnings that the shared captures may lack."""
    for name in ("refused", "open", "given up", "blocked", "reused", "urgent", "wrap"):
        capture = Capture()
        client, server = capture.connection(client_isn=0xFFFF_FFF0 if name == "wrap" else 7)
        client.syn()
        if name == "refused":
            server.segment(20, at=-1 - server.isn)
        if name == "given up":
            client.rst(at=0)
        if name not in ("refused", "given up"):
            server.syn_ack()
            client.ack()
            client.send(b"question" * 400)
            server.segment(56 if name == "urgent" else 24, b"answer!", urgent=7 if name == "urgent" else 0)
            server.send(b"more")
        if name == "reused":
            close(client, server)
            client, server = capture.opened(client_isn=1 << 20)
            client.send(b"second")
            client, server = capture.opened(client_isn=1 << 21)
            client.send(b"third")
            server.rst()
        yield name, capture


@pytest.mark.system("tshark")
def test_tshark_agrees_on_oddities(tmp_path: Path) -> None:
    outputs = {}
    for name, capture in odd_captures():
        path = tmp_path / f"{name}.pcap"
        outputs[name] = path, capture.replay(output=path)
    assert_tshark_agrees(tmp_path, outputs)


@pytest.mark.system("tshark")
def test_tshark_agrees_on_a_refused_client_that_insists(tmp_path: Path) -> None:
    """The try that is answered has a number of its own, so that it is no repetition: one more stream."""
    capture = Capture()
    client, server = capture.connection()
    for _ in range(2):
        client.syn()
        server.segment(20, at=-1 - server.isn)
    client.syn()
    server.syn_ack()
    client.send(b"question")
    path = tmp_path / "out.pcap"
    capture.replay(output=path)
    again = replay_capture(path, options=ReplayOptions(keep_data=True))
    assert [stream.ended for stream in again.streams] == ["refused", "open"]
    seen = Seen(tmp_path, {"": (path, again)})
    assert seen.complaints == []
    assert seen.streams[""] == [(b"", b""), (b"question", b"")]


@pytest.mark.system("tshark")
def test_tshark_agrees_on_a_drop(tmp_path: Path) -> None:
    """A connection that a callout's failure ends has a reset, and its bytes up to there."""

    class Broken(Monitor):
        def classify_fn(self, *call: Any) -> None:
            raise RuntimeError("broken")

    capture = Capture()
    client, server = capture.opened()
    client.send(b"x" * 5_000)
    server.send(b"y")
    broken = Broken(summary=False)
    broken.filter_action = "callout_unknown"
    path = tmp_path / "out.pcap"
    result = capture.replay(engine=engine_with(broken, on_callout_error="drop"), output=path)
    assert result.streams[0].ended == "drop"
    assert_tshark_agrees(tmp_path, {"drop": (path, result)})


# --- editing ------------------------------------------------------------------------------------------


def web(chance: Random, pattern: bytes) -> Capture:
    """An HTTP capture whose answer has the pattern on many segment borders; disorder, repetitions, overlaps."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"GET /weather HTTP/1.1\r\nHost: example\r\n\r\n", push=True)
    body = b"".join(pattern + bytes(chance.choices(b"abc \n", k=chance.randrange(40))) for _ in range(300))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    cuts = sorted({chance.randrange(len(answer)) for _ in range(400)} | {0, len(answer)})
    parts = list(pairwise(cuts))
    for index in range(0, len(parts), 7):
        group = parts[index : index + 7]
        chance.shuffle(group)
        for low, high in group + group[: chance.randrange(3)]:
            start = max(0, low - chance.randrange(5))
            server.send(answer[start:high], at=start)
        client.ack()
    server.fin()
    client.fin()
    return capture


def assert_edited(result: ReplayResult, find: bytes, replace: bytes, times: int) -> None:
    """Wherever the pattern was, its replacement left; of what left, tshark is asked elsewhere."""
    before = [(one.client_to_server.data_in, one.server_to_client.data_in) for one in result.streams]
    assert sum(data.count(find) for both in before for data in both if data) >= times
    assert left(result) == [tuple((data or b"").replace(find, replace) for data in both) for both in before]
    assert not any(find in data for both in left(result) for data in both if data)


@pytest.mark.system("tshark")
def test_stream_edit_in_the_eyes_of_tshark(tmp_path: Path) -> None:
    """Inline and out of band, of an awkward capture and of real ones: the replacement is everywhere."""
    outputs: dict[str, tuple[Path, ReplayResult]] = {}
    modes: tuple[Any, Any] = ("inline", "oob")
    for mode in modes:
        for coalesce in (True, False):
            name = f"made-{mode}-{coalesce}"
            path = tmp_path / f"{name}.pcap"
            edit = StreamEdit(find="rainy", replace="sunshine", mode=mode)
            result = web(Random(5), b"rainy").replay(edit, output=path, coalesce=coalesce)
            assert result.streams[0].server_to_client.retransmitted > 0
            assert result.streams[0].ended == "fin"
            assert_edited(result, b"rainy", b"sunshine", 300)
            outputs[name] = path, result
        for capture in ("http-vlan-ooo-rtx.pcap", "http-range-ooo-fastrtx.pcap", "websocket.pcap"):
            for replace in ("", "HTTP/2.0", "HyperText/1.1 "):
                name = f"{capture}-{mode}-{len(replace)}"
                path = tmp_path / f"{name}.pcapng"
                edit = StreamEdit(find="HTTP/1.1", replace=replace, mode=mode)
                options = ReplayOptions(keep_data=True)
                result = replay_capture(shared_capture("real", capture), [edit], options=options, output=path)
                assert_edited(result, b"HTTP/1.1", replace.encode(), 2)
                outputs[name] = path, result
    assert_tshark_agrees(tmp_path, outputs)


@pytest.mark.parametrize("seed", range(5))
def test_stream_edit_without_tshark(tmp_path: Path, seed: int) -> None:
    """The same by replay alone, so that it is tried everywhere."""
    capture = web(Random(seed), b"rainy")
    path = tmp_path / "out.pcap"
    first = capture.replay(StreamEdit(find="rainy", replace="sunshine"), output=path)
    again = replay_capture(path, options=ReplayOptions(keep_data=True))
    assert_same(first, again)
    down = first.streams[0].server_to_client
    assert down.data_in is not None
    assert again.streams[0].server_to_client.data_in == down.data_in.replace(b"rainy", b"sunshine")
    assert hashlib.sha256(again.streams[0].server_to_client.data_in).hexdigest() == down.sha256_out


def test_what_is_injected_is_written(tmp_path: Path) -> None:
    capture = Capture()
    client, server = capture.opened()
    server.send(b"hello")
    close(client, server)
    first, again = written(tmp_path / "out.pcap", io.BytesIO(capture.pcap()), [Banner(text="220 ready ")])
    assert again.streams[0].server_to_client.data_in == b"220 ready hello"
    assert first.streams[0].server_to_client.injected == 10
