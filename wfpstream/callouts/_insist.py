"""Calls between two indications that must not fail: made again a little later, and given up by a reset.

Owns when a refusal is worth another try. It must not know what is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from wfpstream.fwp import NtStatus
from wfpstream.fwps import Callout

# Seconds until the next try, and how many there are: after a second without memory nobody waits for more.
_PAUSE = 0.05
_TRIES = 20

# The flow, or this direction of it, is over, or the callout has left: there is nothing to insist on.
ENDED = frozenset(
    (
        NtStatus.STATUS_FWP_NOT_FOUND,
        NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND,
        NtStatus.STATUS_CONNECTION_DISCONNECTED,
        NtStatus.STATUS_INVALID_DEVICE_STATE,
    )
)


def insist(callout: Callout, flow_id: int, call: Callable[[], NtStatus], tries: int = _TRIES) -> None:
    """Make a call on a flow, from a timer or a completion, until it is not refused for want of memory.

    What is held for it would be held for ever: at last the connection is reset, and that is insisted on.
    """
    status = call()
    if status.ok or status in ENDED:
        return
    if not tries:
        call = partial(callout.fwps.flow_abort, flow_id)
    callout.after(_PAUSE, insist, callout, flow_id, call, tries - 1)
