"""A bench for ports: a memory driver with sample drivers loaded, one flow, and what is checked at the end.

Expectations stay in the tests. On the way out the flow is reset if it still lives, the drivers are unloaded as
they do it themselves, and then: every context freed, the ledgers balanced, nothing leaked, and exactly the
violations the test names.
"""

from __future__ import annotations

from types import TracebackType

from tests.ports.oob_edit import OobEdit
from tests.ports.sample_driver import Machine, SampleDriver
from tests.ports.stream_edit import StreamEdit
from tests.ports.tape import Tape
from wfpstream.engine import EngineOptions
from wfpstream.testing import FlowEnds, MemoryDriver

LOCAL_PORT = 8888
"""The sample's default: flows with this local port are edited."""


def verifying() -> EngineOptions:
    """The memory driver's own default, to change something in."""
    options = EngineOptions()
    options.verify.level = "warn"
    return options


class PortBench:
    """Loads drivers with `machine(name)`, then `connect`s one flow."""

    def __init__(
        self,
        *,
        violations: list[str] | None = None,
        options: EngineOptions | None = None,
        inbound: bool = False,
    ) -> None:
        self.violations = violations or []
        self.tape = Tape()
        self.driver = MemoryDriver(options=options, local="server" if inbound else "client")
        self.inbound = inbound
        self.drivers: list[SampleDriver] = []
        self._flow: FlowEnds | None = None

    def machine(self, name: str) -> Machine:
        """Where a driver is loaded that the transcript calls `name`."""
        return Machine(
            self.tape.tap(self.driver.fwps, name),
            self.driver.engine.management,
            self.driver.run_until,
            self.tape.assertion,
        )

    def load(self, driver: SampleDriver) -> None:
        """Run its DriverEntry."""
        driver.driver_entry()
        self.drivers.append(driver)

    def connect(self) -> FlowEnds:
        """A flow whose local port is the sample's."""
        if self.inbound:
            return self.connect_to(("10.0.0.1", 50000), ("10.0.0.2", LOCAL_PORT))
        return self.connect_to(("10.0.0.1", LOCAL_PORT), ("10.0.0.2", 80))

    def connect_to(self, client: tuple[str, int], server: tuple[str, int]) -> FlowEnds:
        """A flow between two given addresses."""
        flow = self.driver.connect(client=client, server=server)
        assert flow is not None
        self._flow = flow
        return flow

    @property
    def flow(self) -> FlowEnds:
        assert self._flow is not None
        return self._flow

    @property
    def calls(self) -> list[str]:
        return self.tape.calls

    @property
    def completions(self) -> list[str]:
        return self.tape.completions

    def send(self, *pieces: bytes) -> None:
        """Local host to remote, one indication per piece."""
        for piece in pieces:
            self.flow.send(piece)
            self.driver.settle()

    def receive(self, *pieces: bytes) -> None:
        """Remote to local host, one indication per piece."""
        for piece in pieces:
            self.flow.receive(piece)
            self.driver.settle()

    def send_fin(self) -> None:
        self.flow.send_fin()
        self.driver.settle()

    def receive_fin(self) -> None:
        self.flow.receive_fin()
        self.driver.settle()

    def reset(self, leg: str) -> None:
        self.flow.reset(leg)
        self.driver.settle()

    @property
    def to_remote(self) -> tuple[bytes, bool]:
        """Bytes and FIN that reached the remote end."""
        return bytes(self.flow.remote.data), self.flow.remote.fin

    @property
    def to_local(self) -> tuple[bytes, bool]:
        """Bytes and FIN that reached the local host."""
        return bytes(self.flow.local.data), self.flow.local.fin

    @property
    def resets(self) -> tuple[bool, bool]:
        """Whether the local and the remote leg were reset."""
        return self.flow.local.reset, self.flow.remote.reset

    def has_ended(self) -> bool:
        """Every callback of the flow is over."""
        return self.flow.ended

    def check_ledger(self) -> None:
        """LED-4, both directions."""
        for direction in (0, 1):
            led = self.flow.ledger(direction)
            came = led.read + led.injected
            lost = led.blocked_original + led.blocked_injected + led.held + led.queued + led.discarded
            assert came - lost == led.written + led.unsent + led.discarded_out

    def __enter__(self) -> PortBench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        self.driver.settle()
        self.check_ledger()
        if not self.flow.ended:
            self.reset("remote")
        for driver in self.drivers:
            if not driver.unloading:
                driver.unload()
        self.driver.settle()
        self.check_ledger()
        for driver in self.drivers:
            if isinstance(driver, StreamEdit):
                assert driver.contexts_alive == 0
            if isinstance(driver, OobEdit):
                assert not driver.work_items
        self.driver.close()
        assert self.driver.violations == self.violations
