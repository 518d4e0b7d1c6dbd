"""What a test does to a running proxy and takes back: added callouts, stalls, being down.

Owns that each is in force when it is made and is taken back once, and the callout that stalls. It must not know how
the proxy's thread is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from wfpstream.callouts import Fault
from wfpstream.fwps import Callout, ClassifyOut, StreamCalloutIoPacket, StreamData

__all__ = ["AddedCallout", "Change", "Stall"]


class Change:
    """Something that was done to the proxy. It is in force already; `with` or `remove()` takes it back.

    Attributes:
        is_active: it is in force.
    """

    def __init__(self, what: str, take_back: Callable[[], object]) -> None:
        self.is_active = True
        self._what = what
        self._take_back = take_back

    def remove(self) -> None:
        """Take it back; the second time nothing happens. Returns within milliseconds."""
        if self.is_active:
            self.is_active = False
            self._take_back()

    def __enter__(self) -> Self:
        """Nothing is done here: it is in force already.

        Raises:
            RuntimeError: it has been taken back, and does not come again.
        """
        if not self.is_active:
            raise RuntimeError(
                f"{self!r}: it was taken back, and a `with` does not bring it again: make a new one"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<{self._what}{'' if self.is_active else ', taken back'}>"


class AddedCallout(Change):
    """A callout that was added; taking it back drains it: what it holds goes on its way, nothing is lost or closed.

    Attributes:
        callout: the object.
        name: what events and `WfpProxy.callout` call it.
    """

    def __init__(self, callout: Callout, name: str, take_back: Callable[[], object]) -> None:
        super().__init__(f"callout {name}", take_back)
        self.callout = callout
        self.name = name


class Stall(Fault):
    """Holds a direction from its next byte or FIN on, until it drains. Nothing is lost, and nobody is told."""

    name = "stall"

    def __init__(self, direction: Any) -> None:
        super().__init__("stall", direction=direction)

    def pends(
        self, lane: Any, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Hold it, whatever it is: `fault` waits for a first byte and lets a lone FIN pass."""
        lane.struck = True
        return super().pends(lane, stream, packet, answer)
