"""Asking a control socket: one question, one answer, with plain sockets and a time limit.

Owns the asker's end and what can go wrong there, each in one line.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ._peer import is_trusted, path_problem, peer_of
from ._protocol import DENIED, TIMEOUT, UNREACHABLE, ControlError, read_answer, request_line

TIMEOUT_DEFAULT = 30.0
MAX_ANSWER = 1 << 28
_CHUNK = 1 << 18


def ask(
    path: str | os.PathLike[str],
    command: str,
    arguments: dict[str, Any] | None = None,
    timeout: float = TIMEOUT_DEFAULT,
) -> Any:
    """Ask the wfpstream that listens at `path`, and wait for its answer.

    Args:
        path: its control socket.
        command: what is wanted.
        arguments: with what, as JSON has it.
        timeout: seconds for all of it.

    Returns:
        The result, plain data.

    Raises:
        ControlError: nobody listens there, or no answer came, or the answer was an error; one line, or the lines
            of the answer.
    """
    where = Path(path)
    line = request_line(command, arguments or {})
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        _connect(sock, where, timeout)
        try:
            answer = _exchange(sock, line, deadline)
        except TimeoutError:
            raise ControlError(f"no answer from {where} within {timeout:g} s", TIMEOUT) from None
        except OSError as error:
            raise ControlError(f"the connection to {where} broke: {_reason(error)}", UNREACHABLE) from error
    if answer is None:
        raise ControlError(f"the wfpstream at {where} ended before it answered", UNREACHABLE)
    found = read_answer(answer)
    if not found.ok:
        raise ControlError(found.error, found.code)
    return found.result


def _connect(sock: socket.socket, path: Path, timeout: float) -> None:
    problem = path_problem(path)
    if problem is not None:
        raise ControlError(f"no such control socket: {str(path)!r}: {problem}", UNREACHABLE)
    # A full backlog makes a blocking connect wait, and it obeys this limit; a non-blocking one just fails.
    limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1_000_000))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    try:
        sock.connect(os.fspath(path))
        uid = peer_of(sock).uid
    except OSError as error:
        raise ControlError(_connect_problem(path, error, timeout), UNREACHABLE) from error
    # What is there need not be a wfpstream, nor ours. Root may ask anybody's.
    if os.geteuid() != 0 and not is_trusted(uid):
        raise ControlError(f"who listens at {path} is another user (uid {uid})", DENIED)


def _connect_problem(path: Path, error: OSError, timeout: float) -> str:
    if error.errno == errno.ENOENT:
        return f"no such control socket: {path}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied: {path} (its owner and root may use it)"
    if error.errno == errno.ECONNREFUSED:
        if not path.is_socket():
            return f"{path} is no socket"
        return f"nobody listens at {path}: its wfpstream is gone"
    if error.errno == errno.EAGAIN:
        return f"too many wait at {path}: not let in within {timeout:g} s"
    return f"cannot use {path}: {_reason(error)}"


def _exchange(sock: socket.socket, line: bytes, deadline: float) -> bytes | None:
    """The line that answers; None for an end without one.

    Raises:
        OSError: TimeoutError, or what the system says.
    """
    try:
        _allow(sock, deadline)
        sock.sendall(line)
    except (BrokenPipeError, ConnectionResetError):
        pass  # turned away: it said why before it closed
    answer = bytearray()
    while True:
        _allow(sock, deadline)
        try:
            data = sock.recv(_CHUNK)
        except ConnectionResetError:
            return None
        answer += data
        end = data.find(b"\n")
        if end >= 0:
            return bytes(answer[: len(answer) - len(data) + end])
        if not data:
            return None
        if len(answer) > MAX_ANSWER:
            raise OSError(errno.EMSGSIZE, "an answer without end")


def _allow(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
