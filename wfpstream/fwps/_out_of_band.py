"""`OutOfBandCallout`: clone and block everything, and leave the work to a coroutine (section 13).

Owns the callout side only; stepping the workers is `_worker`'s.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ._comfort import Callout
from ._flow import Flow
from ._worker import Worker, WorkerHost


class OutOfBandCallout(Callout):
    """A callout that clones and blocks, and leaves the work to `worker_class` (section 13).

    Every data and FIN indication of a direction it `wants` is cloned and blocked; urgent bytes are permitted.
    """

    worker_class: ClassVar[type[Worker]] = Worker

    def wants(self, flow_handle: int, inbound: bool) -> bool:
        """Does this callout work on that direction of that flow? Asked once per flow and direction."""
        return True

    def make_worker(self, host: WorkerHost, flow: Flow, direction: int) -> Worker:
        """The worker of one flow and direction."""
        return self.worker_class(host, self, flow, direction)

    def drain(self) -> None:
        """MGMT-16: every worker releases what it has and becomes transparent."""
        self.fwps.workers.drain(self)

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        """Clone, block, hand to the worker."""
        self.fwps.workers.classify(self, in_meta_values.flow_handle, layer_data, filter, classify_out)
