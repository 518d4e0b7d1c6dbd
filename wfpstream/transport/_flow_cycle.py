"""The cycle of one flow over two sides: input, write, settle; whether it is over, and why. It waits for nothing.

Owns what both live drivers do alike between two inputs (architecture, the engine's border). How a flow is started,
timed and left is `_flow_driver`'s (a task per flow) and `_socket_flow`'s (none). It must not know sockets or trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from wfpstream.engine import ABORT_NONE, ABORT_NOW

from ._sides import Side

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine, Flow

    from ._hub import Hub

__all__ = ["FlowCycle", "no_limit_if_off"]

# A completion may inject, which is written and completes: after so many rounds others get their turn.
ROUNDS = 8

S = TypeVar("S", bound=Side)


class FlowCycle(Generic[S]):
    """What goes on between an established flow and its two sides.

    Attributes:
        sides: by data direction: the first one's input is direction 0.
        over: the flow is not driven any more.
    """

    __slots__ = ("engine", "error", "flow", "graceful", "hub", "over", "reason", "sides")

    def __init__(self, hub: Hub, flow: Flow, client: S, upstream: S) -> None:
        self.hub = hub
        self.engine: FilterEngine = hub.engine
        self.flow = flow
        client_index = flow.direction_from("client")
        self.sides: tuple[S, S] = (upstream, client) if client_index else (client, upstream)
        self.over = False
        # Whoever takes the flow down from outside stops it; everything else says its own reason.
        self.reason = "stop"
        self.graceful = False
        self.error: BaseException | None = None

    def serve(self) -> None:
        """After any call into the engine: write what the legs take, settle, wake what may go on.

        Waits for nothing, so the bytes an input lent are not needed any more when it returns.
        """
        if self.over:
            return
        flow, (first, second) = self.flow, self.sides
        for _ in range(ROUNDS):
            told = (first.lost or second.lost) and self._tell_resets()
            abort = flow.abort
            if abort == ABORT_NOW:
                break
            moved = not first.lost and first.push()
            if not second.lost and second.push():
                moved = True
            # A reset that was told has left its outcome, which these have written.
            if not moved and (abort or not told):
                break
        else:
            self.hub.again(self)
        self.engine.settle_output(flow)
        self._judge()

    def serve_safely(self) -> None:
        """`serve` from outside this flow's own calls: a defect ends this flow only."""
        try:
            self.serve()
        except Exception as error:
            self.fail(error)

    def has_input(self) -> bool:
        """Whether a leg that may be read has something to read."""
        return not self.over and any(side.has_input() for side in self.sides)

    def fail(self, error: BaseException) -> None:
        """End the flow with an error, which is told to whoever started it."""
        if self.error is None:
            self.error = error
        self.end("abort")

    def touch(self) -> None:
        """Bytes moved."""
        raise NotImplementedError

    def end(self, reason: str) -> None:
        """The flow is over."""
        raise NotImplementedError

    def flush(self) -> None:
        """Owed bytes are written first, but a peer that takes none holds nobody up for ever (IND-18)."""
        raise NotImplementedError

    def fin_was_read(self, side: Side) -> None:
        """A stream that cannot half-close has closed for good."""
        if not side.capabilities.half_close:
            self.sides[side.out].full_close_seen()

    def _tell_resets(self) -> bool:
        told = False
        for side in self.sides:
            if side.lost and side.reader_done and self.flow.abort == ABORT_NONE:
                side.flow.reset(side.index, side.reset_reason)
                self.reason = side.reset_reason
                told = True
        return told

    def _judge(self) -> None:
        """Whether the flow is over; if not, who may go on."""
        flow = self.flow
        abort = flow.abort
        if abort == ABORT_NONE:
            self._go_on()
        elif abort == ABORT_NOW or not (self._owes(self.sides[0]) or self._owes(self.sides[1])):
            self.end("abort" if self.reason == "stop" else self.reason)
        else:
            self.flush()

    def _owes(self, side: S) -> bool:
        return not side.lost and self.flow.output(side.out).length > 0

    def _go_on(self) -> None:
        first, second = self.sides
        if first.fin_sent and second.fin_sent:
            self.graceful = True
            self.end("fin")
            return
        if first.parked:
            first.wake()
        if second.parked:
            second.wake()


def no_limit_if_off(seconds: float) -> float:
    """A configured time, where 0 means off, as a limit."""
    return seconds or float("inf")
