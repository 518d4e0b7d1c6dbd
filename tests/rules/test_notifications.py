"""notifyFn beside what management tests of it (NTF-8, NTF-9): unknown types, and no call inside a call.

Owns the callout's side of a notification; when one is sent is tested with management.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.scenarios.support import Script
from tests.scenarios.support_api import ManagedBench, Plane, key
from wfpstream import fwpm
from wfpstream.callouts import BUILT_IN, create_callout, describe_callout
from wfpstream.config import parse_callout
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout, Filter2

SUCCESS = NtStatus.STATUS_SUCCESS


def a_filter() -> Filter2:
    return Filter2(filter_id=1, layer_id=20, action_type=int(ActionType.CALLOUT_UNKNOWN))


@pytest.mark.parametrize("notify_type", [3, 4, 0x7FFFFFFF])
def test_ntf_8_the_base_class_ignores_unknown_notify_types(notify_type: int) -> None:
    """NTF-8: returns STATUS_SUCCESS for a type it does not know."""
    assert Callout().notify_fn(notify_type, UUID(int=1), a_filter()) == SUCCESS
    assert Callout().notify_fn(notify_type, None, a_filter()) == SUCCESS


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_ntf_8_so_do_the_callouts_that_come_with_us(name: str) -> None:
    """NTF-8: every built-in callout."""
    entry = parse_callout(describe_callout(name).example)
    callout = create_callout(entry.name, entry.options)
    assert callout.notify_fn(99, UUID(int=1), a_filter()) == SUCCESS


class Nosy(Script):
    """Tries to change the policy from inside its notifyFn."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = self.deepest = 0
        self.statuses: list[NtStatus] = []
        self.plane: Plane | None = None

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Any) -> NtStatus:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        if self.plane is not None:
            more = fwpm.Filter(
                display_data=fwpm.DisplayData("more"),
                layer_key=fwpm.LAYER_STREAM_V4,
                action_type=ActionType.CALLOUT_UNKNOWN,
                callout_key=key("A"),
            )
            self.statuses.append(self.plane.session.filter_add(more)[0])
        self.depth -= 1
        return SUCCESS


def test_ntf_9_notify_is_never_entered_while_it_runs() -> None:
    """NTF-9: a filter added from inside it, which would notify again, is refused (IRQ-3, V-33)."""
    a = Nosy()

    def add(plane: Plane) -> None:
        plane.register(a)
        a.plane = plane
        assert plane.own_sub_layer(a)[0] == SUCCESS
        a.plane = None

    with ManagedBench(a, add=add, violations=["V-33"]) as bench:
        assert a.statuses == [NtStatus.STATUS_INVALID_DEVICE_STATE]
        assert a.deepest == 1
        bench.send(b"x")
        assert bench.log == ["A(S1 'x')"]
        assert bench.to_remote == (b"x", False)
