"""Where a violation happened: the code behind whatever a callout's function is wrapped in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.minimal import place
from wfpstream.callouts import SequentialCallout, Steps, need
from wfpstream.fwps import IncomingValues, OutOfBandCallout, Worker
from wfpstream.fwps._violations import where_defined, where_in_callout, where_raised


def plain(*call: Any) -> None:
    """What is looked for."""


def decorated(function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def wrapper(*call: Any) -> None:
        function(*call)

    return wrapper


class Called:
    def __call__(self, *call: Any) -> None:
        """A callable object."""

    def method(self, *call: Any) -> None:
        """A bound method."""


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (plain, place(plain)),
        (functools.partial(plain, 1), place(plain)),
        (decorated(plain), place(plain)),
        (functools.partial(decorated(functools.partial(plain)), 1), place(plain)),
        (Called().method, place(Called.method)),
        (Called(), place(Called.__call__)),
        (print, None),
        (None, None),
    ],
)
def test_the_code_behind_a_function(function: Any, expected: str | None) -> None:
    assert where_defined(function) == expected


class Steps2(SequentialCallout):
    def parse(self, direction: str) -> Steps:
        while True:
            yield need(1)


class Own(Worker):
    async def run(self) -> None:
        """Nothing."""


class OutOfBand(OutOfBandCallout):
    worker_class = Own

    def wants(self, flow_handle: int, inbound: bool) -> bool:
        return True


@pytest.mark.parametrize(("callout", "method"), [(Steps2(), Steps2.parse), (OutOfBand(), OutOfBand.wants)])
def test_a_base_class_of_ours_is_not_the_callout(callout: Any, method: Callable[..., object]) -> None:
    """classifyFn is the base's; the first function of its author's is named."""
    assert where_defined(callout.classify_fn, callout) == place(method)


def test_no_callout_on_the_stack_is_no_place() -> None:
    """From here the innermost frame that is none of ours is this one."""
    here = where_in_callout()
    assert here is not None
    assert here.startswith(__file__)


def test_an_exception_has_the_line_of_the_callout_it_came_through() -> None:
    """Not that of ours in which it was raised."""

    def careless() -> None:
        IncomingValues(0, None)  # type: ignore[arg-type]

    with pytest.raises(TypeError) as caught:
        careless()
    line = careless.__code__.co_firstlineno + 1
    assert where_raised(caught.value) == f"{__file__}:{line}"
