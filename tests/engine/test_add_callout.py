"""`FilterEngine.add_callout`: an object works in one engine, and what cannot be added leaves nothing behind."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from wfpstream.callouts import StreamEdit
from wfpstream.engine import FilterEngine
from wfpstream.fwp import FwpError, NtStatus
from wfpstream.fwps import Callout, LayerId, NotifyType
from wfpstream.fwps import Filter2 as Filter
from wfpstream.testing import MemoryDriver, make_pair

REFUSED = r"this StreamEdit is at work in another engine: give each engine .* an object of its own"


def edit() -> StreamEdit:
    return StreamEdit(find="rainy", replace="sunny")


def works(driver: MemoryDriver) -> None:
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a rainy day!")
    flow.send_fin()
    assert bytes(flow.remote.data) == b"a sunny day!"


class Particular(Callout):
    """Wants no filter at one of its layers.

    Args:
        answer: what it says there, or raises.
    """

    layers = ("ale_flow_established", "stream_v4")

    def __init__(self, answer: int | Exception) -> None:
        self.answer: int | Exception = answer

    def classify_fn(self, *_: Any) -> None:
        pass

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Filter) -> int:
        if notify_type == NotifyType.ADD_FILTER and filter.layer_id == LayerId.STREAM_V4:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer
        return 0


# -- one object, two engines


def test_an_object_at_work_in_another_engine_is_refused() -> None:
    """What it injects into the first one's flows would come out of the second one's."""
    callout, first, second = edit(), MemoryDriver(), MemoryDriver()
    first.add(callout)
    with pytest.raises(ValueError, match=REFUSED):
        second.add(callout)
    with pytest.raises(ValueError, match=REFUSED):
        FilterEngine(lambda: 0.0).add_callout(callout)
    with pytest.raises(ValueError, match=REFUSED):
        make_pair([callout])
    works(first)
    first.close()
    second.close()


def test_in_the_same_engine_it_may_be_added_again() -> None:
    callout, driver = edit(), MemoryDriver()
    driver.add(callout)
    driver.add(callout)
    works(driver)
    driver.close()


@pytest.mark.parametrize("how", ["stop", "remove", "retire"])
def test_whom_the_other_engine_let_go_may_be_added(how: str) -> None:
    callout, first, second = edit(), MemoryDriver(), MemoryDriver()
    added = first.add(callout)
    if how == "stop":
        first.close()
    elif how == "remove":
        assert added.remove().ok
    else:
        added.retire()
        first.settle()
    second.add(callout)
    second.close()


def test_a_pair_that_is_refused_keeps_nothing() -> None:
    """The ones that were added before the refused one are free again."""
    taken, free, driver = edit(), edit(), MemoryDriver()
    driver.add(taken)
    with pytest.raises(ValueError, match=REFUSED):
        make_pair([free, taken])
    driver.add(free)
    works(driver)
    driver.close()


# -- what is refused


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (KeyError("no"), r"KeyError out of notifyFn: 'no' \(.*test_add_callout\.py:\d+\)$"),
        (ValueError(), r"ValueError out of notifyFn \(.*test_add_callout\.py:\d+\)$"),
        (int(NtStatus.STATUS_UNSUCCESSFUL), r"notifyFn of Particular answered STATUS_UNSUCCESSFUL$"),
        (0xC000_BEEF, r"notifyFn of Particular answered 0xc000beef$"),
    ],
)
def test_who_adds_a_callout_hears_what_its_notify_fn_said(answer: int | Exception, said: str) -> None:
    """NTF-2, V-40. Without a sink there is nobody else who would tell."""
    engine = FilterEngine(lambda: 0.0)
    with pytest.raises(FwpError, match=r": STATUS_FWP_CALLOUT_NOTIFICATION_FAILED: " + said) as caught:
        engine.add_callout(Particular(answer))
    assert caught.value.status is NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED
    assert engine.violations == ({"V-40": 1} if isinstance(answer, Exception) else {})


@pytest.mark.parametrize("answer", [KeyError("no"), 0xC000_0001])
def test_what_was_refused_leaves_nothing_behind(answer: int | Exception) -> None:
    """Neither the filters that were accepted, nor the sublayer, nor the registration."""
    driver, callout = MemoryDriver(), Particular(answer)
    session = driver.engine.session
    before = session.filter_enum()[1], session.sub_layer_enum()[1], session.callout_enum()[1]
    with pytest.raises(FwpError):
        driver.add(callout)
    assert (session.filter_enum()[1], session.sub_layer_enum()[1], session.callout_enum()[1]) == before
    assert driver.engine.fwps.callouts.registered() == []
    callout.answer = 0
    added = driver.add(callout)
    assert len(added.filter_ids) == 3
    driver.close()
    other = MemoryDriver()
    other.add(callout)
    other.close()


def test_an_unknown_layer_leaves_nothing_behind() -> None:
    class Nowhere(Callout):
        layers = ("stream", "cloud")

    driver = MemoryDriver()
    with pytest.raises(ValueError, match="unknown layer 'cloud'"):
        driver.add(Nowhere())
    assert driver.engine.fwps.callouts.registered() == []
    driver.close()
    assert driver.violations == []
