"""A flow: one TCP connection through the proxy, as the engine knows it.

Owns the flow's pipeline, its outputs, its contexts and the levels a driver reads (architecture, the engine's
border). Inputs go straight to the run time's parts; a flow must not know sockets or clocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._ledger import DirectionLedger, ledger_of
from ._output import Output
from ._stream_state import CALL, DEFERRED, NEED_MORE

if TYPE_CHECKING:
    from ._inputs import Inputs
    from ._lane import Lane
    from ._records import IncomingValues
    from ._stage import Stage
    from ._worker import Worker

Address = tuple[str, int]

# Phases of a flow's life.
ESTABLISHING, LIVE, ENDING, ENDED = 0, 1, 2, 3

# may_read: a level, not an edge.
YES, HELD_BACK, FULL, READ_ENDED = 0, 1, 2, 3

# abort: what the driver must do to the legs.
ABORT_NONE, ABORT_FLUSH, ABORT_NOW = 0, 1, 2

LOCAL_LEG, REMOTE_LEG = 0, 1


@dataclass(frozen=True)
class Endpoints:
    """The addresses of one accepted connection (FLD-10).

    Attributes:
        client: the client's address and port (peer of the accepted socket, or what PROXY protocol says).
        destination: what the client asked for: the original destination, or the configured upstream.
        listener_address: our own address, which is LOCAL for `local = "server"` in reverse mode.
        listener: name of the listener.
        local: which side is WFP's local host, "client" or "server".
        nodelay: the local leg sends without delay (IND-6).
        label: what events call this flow; None numbers flows from 1.
    """

    client: Address
    destination: Address
    listener_address: Address | None = None
    listener: str = ""
    local: str = "client"
    nodelay: bool = False
    label: int | None = None


class Flow:
    """One flow at the engine's border.

    A data direction is 0 (SEND: local host to remote) or 1 (RECEIVE). The driver calls the inputs and reads
    `output`, `may_read`, `abort` and `ended` after every call for this flow. Bytes given to `received` are
    borrowed until `settle_output` or the next input.
    """

    __slots__ = (
        "_inputs",
        "abort",
        "activity",
        "attempt_address",
        "born",
        "contexts",
        "discarded_unread",
        "doomed",
        "end_reason",
        "end_status",
        "endpoints",
        "established_at",
        "fin_in",
        "fin_time",
        "gone_reported",
        "id",
        "injected",
        "input_ended",
        "lanes",
        "layer_id",
        "legs_read",
        "marked",
        "needs_stages",
        "number",
        "offload_wanted",
        "offloaded",
        "ordinal",
        "out",
        "paused",
        "pended_total",
        "pended_waiting",
        "phase",
        "read",
        "redirect_context",
        "removing",
        "reset_at",
        "resetting_leg",
        "stages",
        "stored",
        "stream_values",
        "taken",
        "upstream",
        "urgent_seen",
        "workers",
    )

    def __init__(self, inputs: Inputs, flow_id: int, endpoints: Endpoints, layer_id: int, born: int) -> None:
        self._inputs = inputs
        self.id = flow_id
        self.number = flow_id if endpoints.label is None else endpoints.label
        self.ordinal = flow_id
        self.endpoints = endpoints
        self.layer_id = layer_id
        self.born = born
        self.phase = ESTABLISHING
        self.stages: list[Stage] = []
        self.lanes: tuple[list[Lane], list[Lane]] = ([], [])
        self.out = (Output(), Output())
        self.contexts: dict[tuple[int, int], int] = {}
        self.removing: set[tuple[int, int]] = set()
        self.stream_values: IncomingValues
        self.upstream: Address = endpoints.destination
        self.redirect_context: Any = None
        self.attempt_address: Address | None = None
        self.read = [0, 0]
        self.discarded_unread = [0, 0]
        self.input_ended = [False, False]
        self.fin_in = [False, False]
        self.legs_read = 0
        self.fin_time = 0.0
        self.paused = [False, False]
        self.injected = [0, 0]
        self.pended_waiting = [0, 0]
        self.pended_total = 0
        self.taken = [0, 0]
        self.stored = 0
        self.activity = 0.0
        self.established_at = 0.0
        self.abort = ABORT_NONE
        self.doomed: tuple[str, Any] | None = None
        self.resetting_leg = -1
        self.reset_at = 0.0
        self.end_reason = ""
        self.end_status: Any = None
        self.gone_reported = False
        self.needs_stages = False
        self.marked = False
        self.offload_wanted = False
        self.offloaded = False
        self.urgent_seen = False
        self.workers: dict[tuple[int, int], Worker] = {}

    # -- inputs (driver -> engine) -------------------------------------------------------------------

    def received(
        self, direction: int, view: bytes | bytearray | memoryview, urgent: bool = False, fin: bool = False
    ) -> None:
        """Bytes were read: one item (IND-3).

        Args:
            direction: 0 SEND, 1 RECEIVE.
            view: the bytes, lent until `settle_output` or the next input.
            urgent: they are the one byte at the urgent mark (IND-7).
            fin: the driver already knows that the end of stream follows; the FIN is then part of this call.
                Only `fin_lookahead` and `fin_with_data` make a difference of it (NMD-9, IND-13).
        """
        self._inputs.received(self, direction, memoryview(view), urgent, fin)

    def received_fin(self, direction: int) -> None:
        """End of stream was read in that direction (IND-13)."""
        self._inputs.received_fin(self, direction)

    def reset(self, leg: int, reason: str = "") -> None:
        """A leg was reset by its peer (IND-27): 0 the local host's, 1 the remote's."""
        self._inputs.reset(self, leg, reason)

    def unread(self, direction: int, count: int) -> None:
        """Bytes the kernel held for a deferred leg that was reset: read and discarded (IND-27, LED-3)."""
        self.read[direction] += count
        self.discarded_unread[direction] += count

    def sent(self, direction: int, count: int) -> None:
        """The receiver's socket accepted `count` bytes of `output(direction)` (CMP-4)."""
        self._inputs.sent(self, direction, count)

    def lost(self, direction: int, count: int) -> None:
        """`count` bytes that `sent` had reported were destroyed by a reset (IND-18): `discarded_out`."""
        self.out[direction].lost(count)

    def fin_sent(self, direction: int) -> None:
        """The half-close of `output(direction).fin` was performed."""
        self._inputs.fin_sent(self, direction)

    def passed(self, direction: int, count: int) -> None:
        """Offloaded bytes went by without the engine (ALW-7): read, bypassed, written."""
        self._inputs.passed(self, direction, count)

    def gone(self, reason: str = "") -> None:
        """The driver has let go of both legs. Always called, once, in a `finally`."""
        self._inputs.gone(self, reason)

    # -- state (engine -> driver) --------------------------------------------------------------------

    def output(self, direction: int) -> Output:
        """What is owed to the receiver of that direction."""
        return self.out[direction]

    def may_read(self, direction: int) -> int:
        """YES, HELD_BACK (deferred), FULL (back-pressure) or READ_ENDED: a level, not an edge."""
        if self.phase != LIVE or self.input_ended[direction]:
            return READ_ENDED
        if direction and self.is_deferred():
            return HELD_BACK
        return FULL if self._inputs.is_full(self, direction) else YES

    @property
    def ended(self) -> bool:
        """Every callback of this flow is over and its id is invalid (CTX-21)."""
        return self.phase == ENDED

    def direction_from(self, side: str) -> int:
        """Data direction of bytes read from the "client" or the "upstream" side."""
        return 0 if (side == "client") == (self.endpoints.local == "client") else 1

    def leg_of(self, side: str) -> int:
        """Leg (0 local host's, 1 remote's) of the "client" or the "upstream" side."""
        return self.direction_from(side)

    # -- for the engine's own parts ------------------------------------------------------------------

    def is_deferred(self) -> bool:
        """Some stage holds the inbound direction back (DEF-3)."""
        return any(lane.mode == DEFERRED and not lane.continued for lane in self.lanes[1])

    def direction_name(self, direction: int) -> str:
        """`to_client` or `to_upstream`: what people call a data direction."""
        outbound_is_upstream = self.endpoints.local == "client"
        return "to_upstream" if (direction == 0) == outbound_is_upstream else "to_client"

    def offset_at(self, lane: Lane) -> int:
        """Where in the original stream this lane is, bytes."""
        return lane.queue[0].offset if lane.queue else self.read[lane.direction]

    def stage_of(self, callout_id: int) -> Stage | None:
        """The highest-weight stage of a callout on this flow (INJ-10)."""
        for stage in self.stages:
            if stage.entry is not None and stage.entry.callout_id == callout_id:
                return stage
        return None

    def holds_nothing(self) -> bool:
        """Nothing held, queued, pended or uncompleted in either direction (ALW-7)."""
        return not self.pended_total and all(
            not lane.queue and not lane.outstanding and not lane.fin_pended
            for lanes in self.lanes
            for lane in lanes
        )

    def all_inactive(self) -> bool:
        """Every stage is inactive for good, or there is none (ALW-7)."""
        return all(stage.allowed or (stage.kind != CALL and stage.mid_stream) for stage in self.stages)

    def is_waiting(self, lane: Lane) -> bool:
        """The lane waits for NEED_MORE_DATA or a continue (MGMT-13)."""
        return lane.mode in (NEED_MORE, DEFERRED)

    def ledger(self, direction: int) -> DirectionLedger:
        """The byte ledger of one direction (LED-1..LED-4)."""
        return ledger_of(self, direction)
