"""Calls that fail on demand: which ones can, how each tells it, and the one place where a judge is asked.

Owns the list of calls that can fail, of the run time and of management, and the putting of a judge in front of
them. It must not know who judges, nor by what plan. Without a judge nothing is in the way of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from wfpstream.fwp import NtStatus

if TYPE_CHECKING:
    from ._injection import InjectCall, Injector
    from ._services import RunTime

# Asked with the name of a call that is about to be made: the status it must fail with, None to let it be made.
Judge = Callable[[str], NtStatus | None]

INJECT: Final = "stream_inject_async"

# Every Fwps* call that has a status to fail with, and whether an out parameter comes with it, and which one. What
# gives something back (free, discard, destroy, dereference, release, complete) cannot fail.
_WITHOUT: Final = object()
_OUT: Final[dict[str, object]] = {
    INJECT: _WITHOUT,
    "stream_continue": _WITHOUT,
    "flow_abort": _WITHOUT,
    "flow_associate_context": _WITHOUT,
    "flow_remove_context": _WITHOUT,
    "clone_stream_data": None,
    "allocate_net_buffer_and_net_buffer_list": None,
    "allocate_clone_net_buffer_list": None,
    "allocate_deep_clone_net_buffer_list": None,
    "callout_register0": 0,
    "callout_register1": 0,
    "callout_register2": 0,
    "callout_register3": 0,
    "callout_unregister_by_id": _WITHOUT,
    "callout_unregister_by_key": _WITHOUT,
    "injection_handle_create": 0,
    "redirect_handle_create": 0,
    "pend_operation": 0,
    "acquire_classify_handle": 0,
    "pend_classify": _WITHOUT,
    "acquire_writable_layer_data_pointer": None,
}

FAILING_CALLS: Final = frozenset(_OUT)

# The rule a failure goes by: section 14.1 names resource failures of an injection, no rule those of other calls.
_RULE_OF_INJECT: Final = "INJ-43"
_RULE: Final = "API-FAULT"


def put_judge(run_time: RunTime, judge: Judge) -> None:
    """Have `judge` asked before each call of this run time that can fail; the last one put is the one asked.

    A call that fails has no effect and does not look at its arguments; an injection is judged only when it is in
    order, so that its caller keeps the lists as after any refusal (INJ-1).
    """
    kind = type(run_time)
    for name in FAILING_CALLS - {INJECT}:
        vars(run_time)[name] = MethodType(_judged(getattr(kind, name), name, judge), run_time)
    injector = run_time.injector

    def inject(self: Injector, flow_id: int, call: InjectCall) -> NtStatus:
        refused = self.check(flow_id, call)
        if refused is not None:
            return refused
        status = judge(INJECT)
        if status is not None:
            return self.refuse(call, _RULE_OF_INJECT, status, flow_id)
        return self.carry_out(call)

    vars(injector)["inject"] = MethodType(inject, injector)
    run_time.quick_injection.judged = True


def take_judge(run_time: RunTime) -> None:
    """Nobody is asked any more."""
    for name in FAILING_CALLS - {INJECT}:
        vars(run_time).pop(name, None)
    vars(run_time.injector).pop("inject", None)
    run_time.quick_injection.judged = False


def _judged(call: Callable[..., Any], name: str, judge: Judge) -> Callable[..., Any]:
    out = _OUT[name]

    @wraps(call)
    def judged(self: RunTime, *args: Any, **keywords: Any) -> Any:
        status = judge(name)
        if status is None:
            return call(self, *args, **keywords)
        self.core.refused(name, status, _RULE)
        return status if out is _WITHOUT else (status, out)

    return judged
