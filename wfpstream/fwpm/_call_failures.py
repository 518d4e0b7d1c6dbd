"""Management calls that fail on demand: those a driver makes when it starts.

Owns the list of them and the putting of a judge in front of every session opened from then on. It must not know who
judges. Deleting, closing and aborting give something back, and reading takes nothing: they do not fail.
"""

from __future__ import annotations

from functools import wraps
from types import MethodType
from typing import Any, Final

from wfpstream.fwp import NtStatus
from wfpstream.fwpm._management import Management
from wfpstream.fwpm._session import Session
from wfpstream.fwps import Judge

_OPEN: Final = "engine_open"
_RULE: Final = "API-FAULT"

# Whether an id comes with the status.
_WITH_ID: Final[dict[str, bool]] = {
    "transaction_begin": False,
    "transaction_commit": False,
    "provider_add": False,
    "sub_layer_add": False,
    "provider_context_add": False,
    "callout_add": True,
    "filter_add": True,
    "filter_subscribe_changes": True,
    "callout_subscribe_changes": True,
    "sub_layer_subscribe_changes": True,
    "provider_subscribe_changes": True,
    "provider_context_subscribe_changes": True,
}

FAILING_CALLS: Final = frozenset((_OPEN, *_WITH_ID))


def put_judge(management: Management, judge: Judge) -> None:
    """Have `judge` asked before each call of `FAILING_CALLS`, in sessions that are opened from now on.

    A call that fails has no effect; a transaction whose commit failed is still open.
    """

    @wraps(Management.engine_open)
    def engine_open(self: Management, *args: Any, **keywords: Any) -> tuple[NtStatus, Session | None]:
        status = judge(_OPEN)
        if status is not None:
            self.refused(_OPEN, status, _RULE)
            return status, None
        answer, session = Management.engine_open(self, *args, **keywords)
        if session is not None:
            _judge_session(session, management, judge)
        return answer, session

    vars(management)[_OPEN] = MethodType(engine_open, management)


def take_judge(management: Management) -> None:
    """Sessions opened from now on are not judged."""
    vars(management).pop(_OPEN, None)


def _judge_session(session: Session, management: Management, judge: Judge) -> None:
    for name in _WITH_ID:
        vars(session)[name] = MethodType(_judged(name, management, judge), session)


def _judged(name: str, management: Management, judge: Judge) -> Any:
    call = getattr(Session, name)

    @wraps(call)
    def judged(self: Session, *args: Any, **keywords: Any) -> Any:
        status = judge(name)
        if status is None:
            return call(self, *args, **keywords)
        management.refused(name, status, _RULE)
        return (status, 0) if _WITH_ID[name] else status

    return judged
