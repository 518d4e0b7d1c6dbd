"""Other listeners while the proxy runs: what stays, what is opened beside it, what goes when all is well.

Owns which open socket serves which new listener, and that nothing changes before `commit` and nothing fails in it.
It must not know how connections are accepted; the proxy hands in what commits.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

from ._listener_spec import ListenerSpec
from ._listeners import Listener, explained, listening_address, open_listener
from ._networks import NumericAddress, parse_address

__all__ = ["Opened", "Rearrangement", "arrange", "open_beside", "open_shared"]


class Opened(Protocol):
    """What is open at an address: a listener, or what keeps the address for listeners of other processes."""

    spec: ListenerSpec
    host: str
    port: int

    @property
    def mode(self) -> str: ...
    def set_transparent(self, on: bool) -> None: ...
    def close(self) -> None: ...


L = TypeVar("L", bound=Opened)


class Rearrangement(Generic[L]):
    """New listeners that are open already, beside those in force. Either `commit` or `abandon` it, soon.

    Attributes:
        listeners: all that will be in force, in the order asked for; those that are new have their ports.
        opened: those of them that are new.
        leaving: those in force now that will be closed.
    """

    def __init__(
        self,
        specs: Sequence[ListenerSpec],
        listeners: Sequence[L],
        current: Sequence[L],
        made_transparent: Sequence[L],
    ) -> None:
        self.listeners = tuple(listeners)
        self.opened = tuple(listener for listener in listeners if listener not in current)
        self.leaving = tuple(listener for listener in current if listener not in listeners)
        self._specs = tuple(specs)
        self._made_transparent = tuple(made_transparent)
        self._finish: Callable[[bool], None] | None = None
        self._is_stopping: Callable[[], bool] = lambda: False

    def when_done(self, finish: Callable[[bool], None], is_stopping: Callable[[], bool]) -> None:
        """`finish` is told whether this is in force from now on."""
        self._finish = finish
        self._is_stopping = is_stopping

    def commit(self) -> None:
        """Put them in force for new connections, at once and without failing.

        An unchanged address keeps its socket, with those that wait in it. Who waits in one that goes is accepted and
        served as it would have been; its flows live on. If the proxy has begun to stop, this is `abandon`.

        Raises:
            RuntimeError: it was committed or abandoned before.
        """
        if self._is_stopping():
            self.abandon()
            return
        finish = self._take()
        if finish is None:
            raise RuntimeError("this rearrangement of the listeners is over")
        for listener, spec in zip(self.listeners, self._specs, strict=True):
            if listener.mode == "tproxy" and spec.mode != "tproxy":
                listener.set_transparent(False)
            listener.spec = spec
        finish(True)

    def abandon(self) -> None:
        """Close what was opened; all stays as it is. Nothing happens if it is over."""
        finish = self._take()
        if finish is None:
            return
        for listener in self._made_transparent:
            listener.set_transparent(False)
        finish(False)

    def _take(self) -> Callable[[bool], None] | None:
        finish, self._finish = self._finish, None
        return finish


async def arrange(
    specs: Sequence[ListenerSpec],
    current: Sequence[L],
    open_one: Callable[[ListenerSpec, Sequence[L]], Awaitable[L]],
) -> Rearrangement[L]:
    """Open what is asked for and not open yet; all or nothing.

    Args:
        specs: what is asked for.
        current: what is open.
        open_one: opens one more, told what will be closed.

    Raises:
        OSError: an address cannot be used, or a right is missing; the text names the address.
    """
    kept = await _find_open(specs, current)
    leaving = [listener for listener in current if listener not in kept.values()]
    opened: dict[int, L] = {}
    changed: list[L] = []
    try:
        for index, spec in enumerate(specs):
            if index not in kept:
                opened[index] = await open_one(spec, leaving)
        # Nothing can fail behind this, and what it needs the first one has or none of them.
        for index, listener in kept.items():
            if specs[index].mode == "tproxy" and listener.mode != "tproxy":
                with explained(specs[index]):
                    listener.set_transparent(True)
                changed.append(listener)
    except BaseException:
        for listener in opened.values():
            listener.close()
        raise
    listeners = [kept.get(index) or opened[index] for index in range(len(specs))]
    return Rearrangement(specs, listeners, current, changed)


async def _find_open(specs: Sequence[ListenerSpec], current: Sequence[L]) -> dict[int, L]:
    """Which open listener each of `specs` gets, by position; each is had once."""
    addresses = {index: await _address(spec) for index, spec in enumerate(specs) if spec.port}
    kept: dict[int, L] = {}
    for is_same in (
        lambda index, listener: _asks_the_same(specs[index], listener.spec),
        lambda index, listener: addresses.get(index) == (parse_address(listener.host), listener.port),
        lambda index, listener: _has_the_same_name(specs[index], listener.spec),
        lambda index, listener: (
            _asks_any_port(specs[index], listener.spec) and current.index(listener) == index
        ),
    ):
        for index in range(len(specs)):
            free = (listener for listener in current if listener not in kept.values())
            same = None if index in kept else next((one for one in free if is_same(index, one)), None)
            if same is not None:
                kept[index] = same
    return kept


async def _address(spec: ListenerSpec) -> tuple[NumericAddress | None, int]:
    where = await listening_address(spec)
    return parse_address(where.host), where.port


def _asks_the_same(new: ListenerSpec, old: ListenerSpec) -> bool:
    return bool(new.port) and (new.host, new.port) == (old.host, old.port)


def _has_the_same_name(new: ListenerSpec, old: ListenerSpec) -> bool:
    """The port is any free one: the one it has is as good."""
    return _asks_any_port(new, old) and bool(new.name) and new.name == old.name


def _asks_any_port(new: ListenerSpec, old: ListenerSpec) -> bool:
    return not new.port and not old.port and new.host == old.host


async def open_shared(spec: ListenerSpec, leaving: Sequence[Listener]) -> Listener:
    """Among the workers of one parent, whose sockets share every port anyway."""
    return await open_listener(spec, shared=True)


async def open_beside(spec: ListenerSpec, leaving: Sequence[Listener]) -> Listener:
    """Also where only those that leave are in the way: 127.0.0.1:80 instead of 0.0.0.0:80, or the reverse."""
    try:
        return await open_listener(spec)
    except OSError as error:
        in_the_way = [listener for listener in leaving if listener.port == spec.port]
        if error.errno != errno.EADDRINUSE or not in_the_way:
            raise
    with _shared(in_the_way):
        return await open_listener(spec, share=True)


@contextmanager
def _shared(listeners: Sequence[Listener]) -> Iterator[None]:
    """Let another listener of ours have the same port for the moment."""
    for listener in listeners:
        listener.set_shared(True)
    try:
        yield
    finally:
        for listener in listeners:
            listener.set_shared(False)
