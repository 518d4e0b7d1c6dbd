"""Every state rule of the stream layer, as tables.

Owns what an answer means (section 7), which stream actions are legal where, what a policy value does and
which modes a lane can be in. It must not touch a flow: `_waterfall` looks the answer up here and acts. The
rules do not know client or upstream; direction is a key (0 SEND, 1 RECEIVE), so both sides obey the same.
"""

from __future__ import annotations

from wfpstream.fwp import ActionType, profile_at_least

from ._constants import ClassifyOutFlags, StreamActionType, StreamFlags

SEND, RECEIVE = 0, 1

# What an enforced answer does with the bytes.
PERMIT, BLOCK, CONTINUE = 1, 2, 3

# What a stage does with what reaches it.
CALL, PASS, REMOVE, PERMIT_ALL = 0, 1, 2, 3

# Modes of a lane (one stage, one direction).
IDLE, NEED_MORE, DEFERRED = 0, 1, 2

# Kinds of indication.
DATA, URGENT, FIN, ABORT = 0, 1, 2, 3

NO_MORE_DATA = int(ClassifyOutFlags.NO_MORE_DATA)
BUFFER_LIMIT_REACHED = int(ClassifyOutFlags.BUFFER_LIMIT_REACHED)
ABSORB = int(ClassifyOutFlags.ABSORB)

DIRECTION_FLAG = (int(StreamFlags.SEND), int(StreamFlags.RECEIVE))
DISCONNECT_FLAG = (int(StreamFlags.SEND_DISCONNECT), int(StreamFlags.RECEIVE_DISCONNECT))
ABORT_FLAG = (int(StreamFlags.SEND_ABORT), int(StreamFlags.RECEIVE_ABORT))
EXPEDITED_FLAG = (int(StreamFlags.SEND_EXPEDITED), int(StreamFlags.RECEIVE_EXPEDITED))
FLUSH_FLAG = (int(StreamFlags.SEND_NODELAY), int(StreamFlags.RECEIVE_PUSH))

_TERMINATING = int(ActionType.CALLOUT_TERMINATING)
_UNKNOWN = int(ActionType.CALLOUT_UNKNOWN)
INSPECTION = int(ActionType.CALLOUT_INSPECTION)
TERMINATING = _TERMINATING
PLAIN_PERMIT = int(ActionType.PERMIT)
PLAIN_BLOCK = int(ActionType.BLOCK)

Effect = tuple[int, str | None]
"""What happens to the bytes, and the violation to report."""

# ACT-1..ACT-4 (FWPS_ACTION0): filter type -> returned action type -> effect.
ACTION_EFFECT: dict[int, dict[int, Effect]] = {
    _TERMINATING: {
        int(ActionType.PERMIT): (PERMIT, None),
        int(ActionType.BLOCK): (BLOCK, None),
        int(ActionType.CONTINUE): (BLOCK, "V-6"),
        int(ActionType.NONE): (BLOCK, "V-6"),
        int(ActionType.NONE_NO_MATCH): (BLOCK, "V-6"),
    },
    _UNKNOWN: {
        int(ActionType.PERMIT): (PERMIT, None),
        int(ActionType.BLOCK): (BLOCK, None),
        int(ActionType.CONTINUE): (CONTINUE, None),
        int(ActionType.NONE): (CONTINUE, None),
        int(ActionType.NONE_NO_MATCH): (CONTINUE, None),
    },
    INSPECTION: {
        int(ActionType.PERMIT): (CONTINUE, None),
        int(ActionType.BLOCK): (CONTINUE, "V-6"),
        int(ActionType.CONTINUE): (CONTINUE, None),
        int(ActionType.NONE): (CONTINUE, None),
        int(ActionType.NONE_NO_MATCH): (CONTINUE, None),
        0: (CONTINUE, None),  # not written: an inspection callout need not answer
    },
}

# ACT-5: any other value, or none written.
OTHER_ACTION: dict[int, Effect] = {
    _TERMINATING: (BLOCK, "V-6"),
    _UNKNOWN: (CONTINUE, "V-6"),
    INSPECTION: (CONTINUE, "V-6"),
}

# ... of these, the answers that let the bytes go on and are no violation.
WHOLE_AND_SILENT: dict[int, dict[int, int]] = {
    filter_action: {
        answer: effect for answer, (effect, rule) in table.items() if effect != BLOCK and rule is None
    }
    for filter_action, table in ACTION_EFFECT.items()
}

NONE = int(StreamActionType.NONE)
NEED_MORE_DATA = int(StreamActionType.NEED_MORE_DATA)
DROP_CONNECTION = int(StreamActionType.DROP_CONNECTION)
DEFER = int(StreamActionType.DEFER)
ALLOW_CONNECTION = int(StreamActionType.ALLOW_CONNECTION)

# DRP-1: what DROP_CONNECTION does under each filter type: does it drop, and what is reported.
DROP_EFFECT: dict[int, tuple[bool, str | None]] = {
    _UNKNOWN: (True, None),
    _TERMINATING: (True, "V-4b"),
    INSPECTION: (False, "V-4"),
}

# ACT-6: action types that may stand beside a stream action without a lint.
SILENT_BESIDE_STREAM_ACTION = frozenset(
    (0, int(ActionType.NONE), int(ActionType.NONE_NO_MATCH), int(ActionType.CONTINUE))
)


def stream_action_fault(action: int, direction: int, kind: int, out_flags: int, profile: str) -> str | None:
    """ACT-13, ACT-15..19: the rule that an illegal stream action breaks, None when it is legal."""
    if action == NEED_MORE_DATA:
        if kind == URGENT:
            return "ACT-13"
        if out_flags & BUFFER_LIMIT_REACHED:
            return "V-2"
        return "V-5" if out_flags & NO_MORE_DATA else None
    if action == DEFER:
        return "V-3" if direction == SEND else None
    if action == ALLOW_CONNECTION:
        return None if profile_at_least(profile, "win7") else "ACT-13"
    return None if action in (NONE, DROP_CONNECTION) else "ACT-13"


def is_legal_on_abort(action: int) -> bool:
    """ACT-13: on an ABORT only NONE, ALLOW_CONNECTION and DROP_CONNECTION may be returned (all ignored, IND-17)."""
    return action in (NONE, ALLOW_CONNECTION, DROP_CONNECTION)


# POL-1: what a policy value makes of the item it meets. INSPECTION stages are always permitted (POL-2).
POLICY_DROP, POLICY_PERMIT, POLICY_BYPASS = "drop", "permit", "bypass"


def policy_for(value: str, filter_action: int) -> str:
    """POL-2: the configured value, or `permit` under an INSPECTION filter."""
    return POLICY_PERMIT if filter_action == INSPECTION else value


def required_bytes(mode: str, held: int, count_bytes_required: int) -> int:
    """NMD-3, NMD-4: how many bytes must be there before the stage is asked again.

    `total` counts what is held already, `additional` comes on top of it; at least one new byte in both.
    """
    if mode == "additional":
        return held + max(1, count_bytes_required)
    return max(held + 1, count_bytes_required)
