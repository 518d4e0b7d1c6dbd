"""What an engine's work has left behind when it was stopped."""

from __future__ import annotations

from wfpstream.engine import Endpoints, FilterEngine, left_behind
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOut, LayerId
from wfpstream.testing import MemoryDriver


class WithContext(Callout):
    """Has a context on every flow."""

    layers = ("stream", "ale_flow_established")

    def classify_fn(
        self,
        in_fixed_values: object,
        in_meta_values: object,
        layer_data: object,
        classify_context: object,
        filter: object,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Associate at the layer where flows begin."""
        flow = getattr(in_meta_values, "flow_handle", 0)
        if layer_data is None:
            self.fwps.flow_associate_context(flow, LayerId.STREAM_V4, self.callout_id(LayerId.STREAM_V4), 7)
        classify_out.action_type = int(ActionType.PERMIT)


def test_after_an_orderly_end_there_is_nothing() -> None:
    driver = MemoryDriver()
    driver.add(WithContext())
    with driver:
        ends = driver.connect()
        assert ends is not None
        ends.send(b"x")
        assert ends.flow.contexts
    assert left_behind(driver.engine) == []


def test_a_flow_that_its_driver_never_let_go_is_named_with_its_contexts() -> None:
    """The driver owes every flow a `gone`; without it nothing of it can be given back."""
    engine = FilterEngine(lambda: 0.0)
    engine.add_callout(WithContext())
    attempt = engine.connection_requested(Endpoints(("10.0.0.1", 40000), ("10.0.0.2", 80)))
    assert engine.flow_established(attempt) is not None
    assert left_behind(engine) == [
        "flow 1 (of client 10.0.0.1:40000) did not end",
        "context 7 of WithContext at stream_v4 on flow 1",
    ]
