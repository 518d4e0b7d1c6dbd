"""Owns what the scenarios of the connection layers need: scripted callouts there, and connections in the making.

`Gate` is a callout at one ALE layer, `Dial` a connection on its way from accept to flow, `Scene` a driver with
gates. No result is computed here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.scenarios.support import Script
from wfpstream.engine import Endpoints, EngineOptions
from wfpstream.fwp import ActionType, ConditionFlags, FwpValue, NtStatus
from wfpstream.fwps import (
    Callout,
    ClassifyOut,
    ClassifyOutFlags,
    FieldsAleAuthConnect,
    FieldsAleAuthRecvAccept,
    FieldsAleConnectRedirect,
    IncomingMetadataValues,
    IncomingValues,
    NetBufferList,
)
from wfpstream.testing import FlowEnds, MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
UPSTREAM = ("10.0.0.2", 80)
LISTENER = ("10.0.0.99", 8888)
"""Where our own proxy was reached."""

_FIELDS: dict[str, Any] = {
    "ale_auth_connect": FieldsAleAuthConnect,
    "ale_auth_recv_accept": FieldsAleAuthRecvAccept,
    "ale_connect_redirect": FieldsAleConnectRedirect,
}


@dataclass
class LayerCall:
    """One classify call at a layer other than the stream layer."""

    owner: Gate
    fixed: IncomingValues
    meta: IncomingMetadataValues
    layer_data: Any
    classify_context: Any
    filter: Any
    out: ClassifyOut

    def value(self, name: str) -> Any:
        """A fixed value by the name of its field, such as "IP_REMOTE_PORT"."""
        value: FwpValue = self.fixed.incoming_value[_FIELDS[self.owner.layer][name]]
        return value.value

    def notation(self) -> str:
        """Layer, destination and the flags of a repetition: `K(AUTH_CONNECT 80 REAUTHORIZE)`."""
        words = [self.owner.layer.removeprefix("ale_").upper()]
        if self.owner.layer in _FIELDS:
            flags = self.value("FLAGS")
            words.append(str(self.value("IP_REMOTE_PORT")))
            words += ["REAUTHORIZE"] if flags & ConditionFlags.IS_REAUTHORIZE else []
            words += ["REDIRECTED"] if flags & ConditionFlags.IS_CONNECTION_REDIRECTED else []
        return f"{self.owner.name}({' '.join(words)})"


LayerAnswer = Callable[[LayerCall], object]
"""Runs inside the classify and writes the answer."""


class Gate(Callout):
    """Callout K of the connection layers: writes down each call and answers by script.

    Calls past the script are permitted. `log` may be shared between gates. A fault inside an answer is kept,
    as the engine would make V-40 of it.
    """

    version = 1

    def __init__(
        self, layer: str, *answers: LayerAnswer, name: str = "K", action: str = "callout_unknown"
    ) -> None:
        super().__init__()
        self.layer = layer
        self.layers = (layer,)  # type: ignore[misc]  # one class serves every layer
        self.name = name
        self.filter_action = action
        self.log: list[str] = []
        self.calls: list[LayerCall] = []
        self.statuses: list[NtStatus] = []
        self.faults: list[BaseException] = []
        self.script = answers
        self._answers = list(answers)

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        call = LayerCall(
            self, in_fixed_values, in_meta_values, layer_data, classify_context, filter, classify_out
        )
        self.calls.append(call)
        self.log.append(call.notation())
        answer = self._answers.pop(0) if self._answers else permit
        try:
            answer(call)
        except Exception as error:
            self.faults.append(error)
            raise


def permit(call: LayerCall) -> None:
    call.out.action_type = ActionType.PERMIT


def block(call: LayerCall) -> None:
    call.out.action_type = ActionType.BLOCK


def go_on(call: LayerCall) -> None:
    call.out.action_type = ActionType.CONTINUE


class Pending:
    """Answers that pend a connection (FwpsPendOperation0), and what is needed to complete it."""

    def __init__(self) -> None:
        self.context = 0
        self.layer_data: NetBufferList | None = None

    def pend(self, call: LayerCall) -> None:
        """Pend, and return BLOCK with ABSORB as LAY-17 wants it; the status goes to `owner.statuses`."""
        status, context = call.owner.fwps.pend_operation(call.meta.completion_handle)
        call.owner.statuses.append(status)
        if status == SUCCESS:
            self.context = context
            self.layer_data = call.layer_data
        call.out.action_type = ActionType.BLOCK
        call.out.flags |= ClassifyOutFlags.ABSORB

    def pend_again_and_permit(self, call: LayerCall) -> None:
        """For a reauthorisation: the attempt is refused, the answer is PERMIT."""
        status, _ = call.owner.fwps.pend_operation(call.meta.completion_handle)
        call.owner.statuses.append(status)
        call.out.action_type = ActionType.PERMIT


class Dial:
    """One connection from accept to flow, through the engine's border as a driver takes it."""

    def __init__(
        self,
        driver: MemoryDriver,
        client: tuple[str, int] = ("10.0.0.1", 40000),
        server: tuple[str, int] = UPSTREAM,
        local: str = "client",
    ) -> None:
        self.driver = driver
        self.endpoints = Endpoints(client=client, destination=server, local=local, listener_address=LISTENER)
        self.attempt = driver.engine.connection_requested(self.endpoints)
        self.connected_to: tuple[str, int] | None = None
        self.flow: FlowEnds | None = None
        self._sent: list[bytes] = []
        self.settle()

    @property
    def verdict(self) -> str:
        return self.attempt.verdict

    @property
    def closed_as(self) -> str:
        return self.attempt.close_as

    def settle(self) -> None:
        """Let the engine come to rest; connect as soon as it permits."""
        self.driver.settle()
        if self.verdict == "permit" and self.connected_to is None:
            self.connected_to = self.attempt.upstream
            self.flow = self.driver.establish(self.attempt, self.endpoints)
            for data in self._sent:
                assert self.flow is not None
                self.flow.send(data)
            self.driver.settle()

    def advance(self, seconds: float) -> None:
        self.driver.advance(seconds)
        self.settle()

    def send(self, data: bytes) -> None:
        """The client sends before there is a flow: its bytes wait in the kernel."""
        self._sent.append(data)

    def reset_client(self) -> None:
        """The client resets before there is a flow."""
        self.attempt.gone()
        self.settle()


@dataclass
class Scene:
    """A driver with gates at the layers, then E and A, all writing into one log."""

    gates: tuple[Gate, ...]
    options: EngineOptions | None = None
    stream: Script = field(default_factory=Script)
    driver: MemoryDriver = field(init=False)
    log: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.driver = MemoryDriver(options=self.options)
        self.log = self.stream.transcript.log
        for gate in (*self.gates, Gate("ale_flow_established", go_on, go_on, name="E")):
            gate.log = self.log
            self.driver.add(gate)
        self.driver.add(self.stream)

    def close(self, *violations: str) -> None:
        """Nothing went wrong inside a callout, and exactly these violations were seen."""
        self.driver.settle()
        self.driver.close()
        assert self.stream.transcript.faults == []
        assert [gate.faults for gate in self.gates] == [[] for _ in self.gates]
        assert self.driver.violations == list(violations)
