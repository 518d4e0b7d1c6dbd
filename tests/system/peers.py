"""Peers that run in processes of their own: `python -m tests.system.peers ROLE ...`.

Each server prints its port; each client prints one JSON line with what it found.
"""

from __future__ import annotations

import hashlib
import json
import resource
import socket
import sys
from functools import partial

import trio

CHUNK = 1 << 16


def raise_descriptor_limit() -> None:
    """Thousands of connections need as many descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def source(size: int) -> None:
    """Accept one connection and send `size` bytes as fast as it takes them."""
    block = bytes(range(256)) * (CHUNK // 256)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        connection, _ = listener.accept()
        with connection:
            sent = 0
            while sent < size:
                part = block[: size - sent]
                connection.sendall(part)
                sent += len(part)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(CHUNK):
                pass


def slow_sink(port: int, work: int) -> None:
    """Read everything, digesting each piece `work` times: slower than any sender."""
    digest = hashlib.sha256()
    size = 0
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(CHUNK):
            size += len(data)
            digest.update(data)
            for _ in range(work):
                hashlib.sha256(data).digest()
    print(json.dumps({"size": size, "sha256": digest.hexdigest()}), flush=True)


async def _echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def echo() -> None:
    """Echo every connection; half-close after its FIN."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=4096)
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(_echo, listeners)


async def crowd(port: int, count: int) -> None:
    """Open `count` connections, then use them all at once; what comes back must be edited, and nothing else."""
    wrong: list[int] = []
    connected = 0
    everybody = trio.Event()

    async def one(number: int) -> None:
        nonlocal connected
        text = b"".join(b"flow %d line %d is rainy;" % (number, line) for line in range(40))
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        connected += 1
        if connected == count:
            everybody.set()
        await everybody.wait()
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(send, stream, text)
            received = b"".join([data async for data in stream])
        if received != text.replace(b"rainy", b"sunny"):
            wrong.append(number)

    async def send(stream: trio.SocketStream, text: bytes) -> None:
        for start in range(0, len(text), 97):
            await stream.send_all(text[start : start + 97])
        await stream.send_eof()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
    print(json.dumps({"count": count, "wrong": wrong}), flush=True)


if __name__ == "__main__":
    raise_descriptor_limit()
    role, numbers = sys.argv[1], [int(value) for value in sys.argv[2:]]
    if role == "source":
        source(*numbers)
    elif role == "slow_sink":
        slow_sink(*numbers)
    elif role == "echo":
        trio.run(echo)
    else:
        trio.run(partial(crowd, *numbers))
