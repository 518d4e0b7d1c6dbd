"""Lines of several processes in one place: whole, in order for each, whoever reads slowly or is killed."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from pathlib import Path

import trio

from wfpstream.observe import JsonLines, LineMerger, open_event_pipe

TIMEOUT = 30.0


def line(who: int, number: int, length: int) -> bytes:
    return f"{who} {number} ".encode() + b"x" * length + b"\n"


async def write_all(writing: int, data: bytes, piece: int) -> None:
    """In small pieces, as another process would, and close."""
    os.set_blocking(writing, False)
    view = memoryview(data)
    while view:
        await trio.lowlevel.wait_writable(writing)
        try:
            view = view[os.write(writing, view[:piece]) :]
        except BlockingIOError:
            continue
    trio.lowlevel.notify_closing(writing)
    os.close(writing)


async def merged(merger: LineMerger, *parts: bytes, piece: int = 777) -> None:
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery:
            for part in parts:
                reading, writing = open_event_pipe()
                nursery.start_soon(merger.merge, reading)
                nursery.start_soon(write_all, writing, part, piece)


def check(data: bytes, parts: list[list[bytes]]) -> None:
    """Every line whole and once; those of one writer in their order."""
    lines = data.splitlines(keepends=True)
    assert sorted(lines) == sorted(one for part in parts for one in part)
    for who, part in enumerate(parts):
        assert [one for one in lines if one.startswith(f"{who} ".encode())] == part


def some_parts() -> list[list[bytes]]:
    return [[line(who, number, number * 13 % 9000) for number in range(300)] for who in range(3)]


def test_into_a_file(tmp_path: Path) -> None:
    parts = some_parts()
    with (tmp_path / "lines").open("wb") as file:
        merger = LineMerger(file.fileno(), owned=False, on_failure=print)
        assert merger.waits
        trio.run(merged, merger, *map(b"".join, parts))
        merger.close()
    check((tmp_path / "lines").read_bytes(), parts)


def test_into_a_pipe_whose_reader_is_slow() -> None:
    parts = some_parts()
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    got = bytearray()

    async def read_slowly() -> None:
        while True:
            await trio.lowlevel.wait_readable(out)
            data = os.read(out, 1000)
            if not data:
                return
            got.extend(data)

    async def run() -> None:
        merger = LineMerger(into, owned=True, on_failure=print)
        assert not merger.waits
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            await merged(merger, *map(b"".join, parts))
            merger.close()

    trio.run(run)
    os.close(out)
    check(bytes(got), parts)


def test_half_a_line_of_who_was_killed_is_left_out(tmp_path: Path) -> None:
    with (tmp_path / "lines").open("wb") as file:
        merger = LineMerger(file.fileno(), owned=False, on_failure=print)
        trio.run(merged, merger, b"0 whole\n0 hal", b"1 whole\n")
    assert sorted((tmp_path / "lines").read_bytes().splitlines()) == [b"0 whole", b"1 whole"]


def test_when_nobody_reads_any_more_it_is_said_once_and_nothing_waits() -> None:
    out, into = os.pipe()
    os.close(out)
    said: list[str] = []
    merger = LineMerger(into, owned=True, on_failure=said.append)
    trio.run(merged, merger, *map(b"".join, some_parts()))
    merger.close()
    assert said == ["events cannot be written: Broken pipe"]


def test_a_reader_that_never_reads_stops_the_reading_and_the_sinks_count_what_is_lost() -> None:
    """What is in the way is bounded: a chunk in hand, the pipes, and the sink's own backlog."""
    out, into = os.pipe()

    async def run() -> int:
        merger = LineMerger(into, owned=True, on_failure=print)
        reading, writing = open_event_pipe()
        sink = JsonLines(writing, worker=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(merger.merge, reading)
            for number in range(2000):
                sink({"event": "x", "flow": 1, "seq": number, "t": 0.0, "pad": "y" * 10_000})
                await trio.lowlevel.checkpoint()
            lost = sink.lost
            nursery.cancel_scope.cancel()
        sink._backlog.clear()
        sink.close()
        merger.close()
        return lost

    assert trio.run(run) > 0
    waiting = struct.unpack("i", fcntl.ioctl(out, termios.FIONREAD, bytes(4)))[0]
    assert os.read(out, waiting).startswith(b'{"event":"x","flow":1,"seq":0,')
    os.close(out)


def test_a_worker_is_named_in_its_lines() -> None:
    out, into = os.pipe()
    JsonLines(into, worker=3)({"event": "x", "flow": 1, "seq": 1, "t": 0.0})
    assert b'"worker":3,' in os.read(out, 1000)
    os.close(into)
    os.close(out)
