"""What a stage does beside answering: injections, continues, contexts (sections 9, 14 and 17).

Owns the flow's state that service calls are checked against, and their statuses. It must not know the engine,
nor how items move.
"""

from __future__ import annotations

from . import script
from .parts import CONTINUED, DEFERRED, Buffer, Receiver, Stage, Unit
from .script import RECEIVE, SEND, Call, Deed, Settings, StageScript

SUCCESS = "STATUS_SUCCESS"
NOT_FOUND = "STATUS_FWP_NOT_FOUND"
DISCONNECTED = "STATUS_CONNECTION_DISCONNECTED"
BAD_STATE = "STATUS_INVALID_DEVICE_STATE"
EXISTS = "STATUS_OBJECT_NAME_EXISTS"
UNSUCCESSFUL = "STATUS_UNSUCCESSFUL"
PENDING = "STATUS_PENDING"


class Deeds:
    """One flow, as far as its callouts' calls can see and change it."""

    def __init__(self, stages: list[StageScript], settings: Settings) -> None:
        self.settings = settings
        self.stages = [Stage(s) for s in stages]
        self.receivers = (Receiver(), Receiver())  # of SEND: the remote peer; of RECEIVE: the local one
        self.calls: tuple[list[Call], list[Call]] = ([], [])
        self.read = [0, 0]
        self.unread = [0, 0]  # read and discarded before the first stage (IND-27)
        self.state = "live"  # live, doomed, flushing, ended
        self.dropped = False
        self.crossed = False  # a stage injected from inside a classify of the other direction
        self._outbox: tuple[list[tuple[str, bytes]], list[tuple[str, bytes]]] = ([], [])
        self._fin_read = [False, False]
        self._arrivals: tuple[list[tuple[int, list[Unit]]], list[tuple[int, list[Unit]]]] = ([], [])
        self._running: int | None = None
        self._delayed: list[list[Unit]] | None = None  # what a running classify injected

    def _perform(
        self, place: int, direction: int, deed: Deed, inside: tuple[int, str, tuple[bytes, ...]] | None
    ) -> str:
        """One deed; `inside`: direction, kind and buffers of the indication in whose classify it happens."""
        stage = self.stages[place]
        match deed:
            case script.Inject(pieces, other, fin):
                return self._inject(place, direction ^ other, pieces, "fin" if fin else "data")
            case script.PassThrough() if inside:
                return self._inject(place, inside[0], inside[2], inside[1])
            case script.Keep() if inside:
                stage.kept.append(inside)
            case script.InjectKept() if stage.kept:
                where, kind, pieces = stage.kept.pop(0)
                return self._inject(place, where, pieces, kind)
            case script.DiscardKept() if stage.kept:
                stage.kept.pop(0)
            case script.Continue():
                return BAD_STATE if inside else self._continue(place)
            case script.Associate():
                return self._associate(place)
            case script.Remove():
                return self._remove(place, inside is not None)
        return ""

    def _inject(self, place: int, direction: int, pieces: tuple[bytes, ...], kind: str) -> str:
        """Section 14; `kind` "fin": with DISCONNECT, "urgent": with EXPEDITED."""
        stage = self.stages[place]
        lane = stage.lanes[direction]
        if self.state != "live" or not stage.active:
            return NOT_FOUND
        if lane.closed:
            return DISCONNECTED
        buffers = [Buffer(data, len(data)) for data in pieces]
        sublayer = stage.script.sublayer
        units = [
            Unit("byte", value, buffer, piece=buffer, skip=sublayer, urgent=kind == "urgent")
            for buffer in buffers
            for value in buffer.data
        ]
        lane.outstanding += buffers
        lane.injected += len(units)
        arrivals = [units] if units else []
        if kind == "fin":
            lane.closed = True
            fin = Unit("fin", buffer=buffers[-1] if buffers and not units else None, skip=sublayer)
            if fin.buffer is not None:
                fin.buffer.left = 1
            arrivals.append([fin])
        if self._delayed is not None and direction == self._running:
            self._delayed += arrivals
        else:
            self.crossed |= self._delayed is not None
            self._arrivals[direction].extend((place + 1, what) for what in arrivals)
        return SUCCESS

    def _continue(self, place: int) -> str:
        """DEF-5, DEF-8."""
        if self.state != "live":
            return NOT_FOUND
        lane = self.stages[place].lanes[RECEIVE]
        if lane.mode != DEFERRED:
            return BAD_STATE
        lane.mode = CONTINUED
        self._arrivals[RECEIVE].append((place, []))
        return SUCCESS

    def _associate(self, place: int) -> str:
        """CTX-1 to CTX-6, CTX-13."""
        stage = self.stages[place]
        if self.state != "live":
            return NOT_FOUND
        if stage.context:
            return EXISTS
        stage.context = script.context_of(place)
        return SUCCESS

    def _remove(self, place: int, inside: bool) -> str:
        """CTX-9 to CTX-13."""
        stage = self.stages[place]
        if not stage.context or stage.removing:
            return UNSUCCESSFUL
        stage.removing = True
        if inside:
            return PENDING
        self._finish_removal(place)
        return SUCCESS

    def _finish_removal(self, place: int) -> None:
        """CTX-11, CTX-19: the context goes; a conditional stage with it."""
        stage = self.stages[place]
        if not stage.removing:
            return
        self._delete_context(stage)
        for direction in (SEND, RECEIVE):
            self._arrivals[direction].append((place, []))

    def _delete_context(self, stage: Stage) -> None:
        if stage.context:
            stage.deleted.append(stage.context)
        stage.context, stage.removing = 0, False
