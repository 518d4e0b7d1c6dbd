"""Temporary files by which a work unit hands over what it found: results, events, frames, and how far it is.

Owns their formats and the order inside them (by key, as written). They live in a private folder and are read by
whoever merges them; it must not know who that is, nor what events mean.
"""

from __future__ import annotations

import os
import pickle
from array import array
from collections.abc import Iterator
from io import BufferedReader, FileIO
from struct import Struct
from typing import BinaryIO

from ._order import Event, Key
from ._results import StreamResult

_BUFFER = 1 << 18
_FRAME = Struct("<QqQqI")
_POSITION = Struct("<Q")

Frame = tuple[Key, int, bytes]


class Spool:
    """The three files of one work unit; those that are not wanted are not made.

    Args:
        stem: the path they begin with.
        events, frames: whether there are any.
    """

    def __init__(self, stem: str, events: bool, frames: bool) -> None:
        self._results = _create(f"{stem}.results")
        self._events = _create(f"{stem}.events") if events else None
        self._frames = _create(f"{stem}.frames") if frames else None

    def result(self, result: StreamResult) -> None:
        """Write one; they come in order."""
        pickle.dump(result, self._results, pickle.HIGHEST_PROTOCOL)

    def event(self, key: Key, event: Event) -> None:
        """Write one."""
        assert self._events is not None
        pickle.dump((key, event), self._events, pickle.HIGHEST_PROTOCOL)

    def frame(self, key: Key, time_ns: int, frame: bytes) -> None:
        """Write one."""
        assert self._frames is not None
        self._frames.write(_FRAME.pack(*key, time_ns, len(frame)))
        self._frames.write(frame)

    def close(self) -> None:
        """Everything is in the files.

        Raises:
            OSError: it is not.
        """
        for file in (self._results, self._events, self._frames):
            if file is not None:
                file.close()


def read_results(stem: str) -> Iterator[StreamResult]:
    """The results of a work unit."""
    for result in _unpickled(f"{stem}.results"):
        assert isinstance(result, StreamResult)
        yield result


def read_events(stem: str) -> Iterator[tuple[Key, Event]]:
    """Its events."""
    for entry in _unpickled(f"{stem}.events"):
        assert isinstance(entry, tuple)
        yield entry


def read_frames(stem: str) -> Iterator[Frame]:
    """Its frames."""
    with open(f"{stem}.frames", "rb", buffering=_BUFFER) as file:
        while head := file.read(_FRAME.size):
            step, instant_ns, number, time_ns, length = _FRAME.unpack(head)
            yield (step, instant_ns, number), time_ns, file.read(length)


def remove(stem: str) -> None:
    """Delete the files of a work unit, as far as there are any."""
    for suffix in ("results", "events", "frames", "position"):
        try:
            os.unlink(f"{stem}.{suffix}")
        except FileNotFoundError:
            continue


class Position:
    """How far a work unit has read, for a progress bar in another process."""

    def __init__(self, stem: str) -> None:
        self._file = os.open(f"{stem}.position", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, position: int) -> None:
        """Say it: bytes of the capture file."""
        os.pwrite(self._file, _POSITION.pack(position), 0)

    def close(self) -> None:
        os.close(self._file)


def read_position(stem: str) -> int:
    """What the work unit said last, or 0."""
    try:
        with open(f"{stem}.position", "rb") as file:
            said = file.read()
    except OSError:
        return 0
    position: int = _POSITION.unpack(said)[0] if len(said) == _POSITION.size else 0
    return position


def first_packets(stems: list[str]) -> array[int]:
    """First packets of all streams of several work units, in order: the place in it is a stream's number."""
    found = array("Q")
    for stem in stems:
        found.extend(result.first_packet for result in read_results(stem))
    return array("Q", sorted(found))


def _create(path: str) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "wb", buffering=_BUFFER)


def _unpickled(path: str) -> Iterator[object]:
    with BufferedReader(FileIO(path), _BUFFER) as file:
        while file.peek(1):
            yield pickle.load(file)
