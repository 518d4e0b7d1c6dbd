"""NTSTATUS codes against a literal table, the NT_SUCCESS traps, and `FwpError`."""

from __future__ import annotations

import copy
import pickle

import pytest

from wfpstream.fwp import FwpError, NtStatus, nt_success, status_of

STATUSES = {
    "STATUS_SUCCESS": 0x0000_0000,
    "STATUS_PENDING": 0x0000_0103,
    "STATUS_OBJECT_NAME_EXISTS": 0x4000_0000,
    "STATUS_DEVICE_BUSY": 0x8000_0011,
    "STATUS_UNSUCCESSFUL": 0xC000_0001,
    "STATUS_INVALID_HANDLE": 0xC000_0008,
    "STATUS_INVALID_PARAMETER": 0xC000_000D,
    "STATUS_INVALID_DEVICE_REQUEST": 0xC000_0010,
    "STATUS_NO_MEMORY": 0xC000_0017,
    "STATUS_ACCESS_DENIED": 0xC000_0022,
    "STATUS_BUFFER_TOO_SMALL": 0xC000_0023,
    "STATUS_INSUFFICIENT_RESOURCES": 0xC000_009A,
    "STATUS_NOT_SUPPORTED": 0xC000_00BB,
    "STATUS_CANCELLED": 0xC000_0120,
    "STATUS_LOCAL_DISCONNECT": 0xC000_013B,
    "STATUS_REMOTE_DISCONNECT": 0xC000_013C,
    "STATUS_INVALID_DEVICE_STATE": 0xC000_0184,
    "STATUS_CONNECTION_DISCONNECTED": 0xC000_020C,
    "STATUS_CONNECTION_RESET": 0xC000_020D,
    "STATUS_NOT_FOUND": 0xC000_0225,
    "STATUS_GRACEFUL_DISCONNECT": 0xC000_0237,
    "STATUS_CONNECTION_INVALID": 0xC000_023A,
    "STATUS_CONNECTION_ABORTED": 0xC000_0241,
    "STATUS_SHUTDOWN_IN_PROGRESS": 0xC000_02FE,
    "STATUS_FWP_CALLOUT_NOT_FOUND": 0xC022_0001,
    "STATUS_FWP_CONDITION_NOT_FOUND": 0xC022_0002,
    "STATUS_FWP_FILTER_NOT_FOUND": 0xC022_0003,
    "STATUS_FWP_LAYER_NOT_FOUND": 0xC022_0004,
    "STATUS_FWP_PROVIDER_NOT_FOUND": 0xC022_0005,
    "STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND": 0xC022_0006,
    "STATUS_FWP_SUBLAYER_NOT_FOUND": 0xC022_0007,
    "STATUS_FWP_NOT_FOUND": 0xC022_0008,
    "STATUS_FWP_ALREADY_EXISTS": 0xC022_0009,
    "STATUS_FWP_IN_USE": 0xC022_000A,
    "STATUS_FWP_DYNAMIC_SESSION_IN_PROGRESS": 0xC022_000B,
    "STATUS_FWP_WRONG_SESSION": 0xC022_000C,
    "STATUS_FWP_NO_TXN_IN_PROGRESS": 0xC022_000D,
    "STATUS_FWP_TXN_IN_PROGRESS": 0xC022_000E,
    "STATUS_FWP_TXN_ABORTED": 0xC022_000F,
    "STATUS_FWP_SESSION_ABORTED": 0xC022_0010,
    "STATUS_FWP_INCOMPATIBLE_TXN": 0xC022_0011,
    "STATUS_FWP_TIMEOUT": 0xC022_0012,
    "STATUS_FWP_NET_EVENTS_DISABLED": 0xC022_0013,
    "STATUS_FWP_INCOMPATIBLE_LAYER": 0xC022_0014,
    "STATUS_FWP_KM_CLIENTS_ONLY": 0xC022_0015,
    "STATUS_FWP_LIFETIME_MISMATCH": 0xC022_0016,
    "STATUS_FWP_BUILTIN_OBJECT": 0xC022_0017,
    "STATUS_FWP_TOO_MANY_CALLOUTS": 0xC022_0018,
    "STATUS_FWP_NOTIFICATION_DROPPED": 0xC022_0019,
    "STATUS_FWP_NULL_POINTER": 0xC022_001C,
    "STATUS_FWP_INVALID_ENUMERATOR": 0xC022_001D,
    "STATUS_FWP_INVALID_FLAGS": 0xC022_001E,
    "STATUS_FWP_INVALID_NET_MASK": 0xC022_001F,
    "STATUS_FWP_INVALID_RANGE": 0xC022_0020,
    "STATUS_FWP_INVALID_INTERVAL": 0xC022_0021,
    "STATUS_FWP_ZERO_LENGTH_ARRAY": 0xC022_0022,
    "STATUS_FWP_NULL_DISPLAY_NAME": 0xC022_0023,
    "STATUS_FWP_INVALID_ACTION_TYPE": 0xC022_0024,
    "STATUS_FWP_INVALID_WEIGHT": 0xC022_0025,
    "STATUS_FWP_MATCH_TYPE_MISMATCH": 0xC022_0026,
    "STATUS_FWP_TYPE_MISMATCH": 0xC022_0027,
    "STATUS_FWP_OUT_OF_BOUNDS": 0xC022_0028,
    "STATUS_FWP_RESERVED": 0xC022_0029,
    "STATUS_FWP_DUPLICATE_CONDITION": 0xC022_002A,
    "STATUS_FWP_DUPLICATE_KEYMOD": 0xC022_002B,
    "STATUS_FWP_ACTION_INCOMPATIBLE_WITH_LAYER": 0xC022_002C,
    "STATUS_FWP_ACTION_INCOMPATIBLE_WITH_SUBLAYER": 0xC022_002D,
    "STATUS_FWP_CONTEXT_INCOMPATIBLE_WITH_LAYER": 0xC022_002E,
    "STATUS_FWP_CONTEXT_INCOMPATIBLE_WITH_CALLOUT": 0xC022_002F,
    "STATUS_FWP_NEVER_MATCH": 0xC022_0033,
    "STATUS_FWP_PROVIDER_CONTEXT_MISMATCH": 0xC022_0034,
    "STATUS_FWP_INVALID_PARAMETER": 0xC022_0035,
    "STATUS_FWP_TOO_MANY_SUBLAYERS": 0xC022_0036,
    "STATUS_FWP_CALLOUT_NOTIFICATION_FAILED": 0xC022_0037,
    "STATUS_FWP_TCPIP_NOT_READY": 0xC022_0100,
    "STATUS_FWP_INJECT_HANDLE_CLOSING": 0xC022_0101,
    "STATUS_FWP_INJECT_HANDLE_STALE": 0xC022_0102,
    "STATUS_FWP_CANNOT_PEND": 0xC022_0103,
}

SUCCESSES = {"STATUS_SUCCESS", "STATUS_PENDING", "STATUS_OBJECT_NAME_EXISTS"}


def signed(value: int) -> int:
    """The 32-bit `value` as C's NTSTATUS (a signed long) prints it."""
    return int.from_bytes(value.to_bytes(4, "little"), "little", signed=True)


def test_members_are_those_of_ntstatus() -> None:
    """NTSTATUS: every name and value of the section, and nothing else."""
    assert {name: member.value for name, member in NtStatus.__members__.items()} == STATUSES


def test_drop_noicmp_is_not_guessed() -> None:
    """NTSTATUS: STATUS_FWP_DROP_NOICMP has no known value, so it has no member."""
    assert "STATUS_FWP_DROP_NOICMP" not in NtStatus.__members__


@pytest.mark.parametrize("name", STATUSES)
def test_ok_is_nt_success(name: str) -> None:
    """NTSTATUS, column NT_SUCCESS: exactly three codes are successes."""
    assert NtStatus[name].ok is (name in SUCCESSES)


def test_pending_is_a_success() -> None:
    """NT_SUCCESS trap one (CTX-6): PENDING does not look like success, and is."""
    assert NtStatus.STATUS_PENDING.ok


def test_object_name_exists_is_a_success() -> None:
    """NT_SUCCESS trap two (V-41): an informational code is a success, though nothing was done."""
    assert NtStatus.STATUS_OBJECT_NAME_EXISTS.ok


def test_warning_is_no_success() -> None:
    """NT_SUCCESS: DEVICE_BUSY is a warning, not an error, and still no success."""
    assert not NtStatus.STATUS_DEVICE_BUSY.ok


@pytest.mark.parametrize(
    ("value", "success"),
    [
        (0, True),
        (0x0000_0001, True),
        (0x3FFF_FFFF, True),
        (0x7FFF_FFFF, True),
        (0x8000_0000, False),
        (0xFFFF_FFFF, False),
        (-1, False),
        (-0x8000_0000, False),
        (signed(0xC022_0035), False),
    ],
)
def test_nt_success_of_any_code(value: int, success: bool) -> None:
    """NT_SUCCESS also judges codes nobody listed, written signed or unsigned."""
    assert nt_success(value) is success


@pytest.mark.parametrize(("name", "value"), STATUSES.items())
def test_status_of_takes_both_spellings(name: str, value: int) -> None:
    """NTSTATUS: unsigned, and signed as in C."""
    assert status_of(value) is NtStatus[name]
    assert status_of(signed(value)) is NtStatus[name]


@pytest.mark.parametrize("value", [1, 0xC022_001A, 0xC022_FFFF, -1, 0x1_0000_0000, -0x1_0000_0000])
def test_status_of_unknown_code(value: int) -> None:
    """NTSTATUS: an unlisted code, or one beyond 32 bits, is an error and not a guess."""
    with pytest.raises(ValueError, match="not an NTSTATUS known here"):
        status_of(value)


def test_two_invalid_parameters() -> None:
    """NTSTATUS, note: flow contexts and stream injection report different codes of nearly the same name."""
    pair = (NtStatus.STATUS_INVALID_PARAMETER, NtStatus.STATUS_FWP_INVALID_PARAMETER)
    assert [int(code) for code in pair] == [0xC000_000D, 0xC022_0035]


def test_error_says_status_and_text() -> None:
    """`FwpError` carries the status and shows name, number and text."""
    error = FwpError(NtStatus.STATUS_FWP_IN_USE, "filter 7 has a pended flow")
    assert error.status is NtStatus.STATUS_FWP_IN_USE
    assert error.text == "filter 7 has a pended flow"
    assert str(error) == "STATUS_FWP_IN_USE (0xC022000A): filter 7 has a pended flow"


def test_error_without_text() -> None:
    """`FwpError`: the status alone is enough."""
    assert str(FwpError(NtStatus.STATUS_FWP_NOT_FOUND)) == "STATUS_FWP_NOT_FOUND (0xC0220008)"


def test_error_is_one_line() -> None:
    """`FwpError`: log lines stay lines, whatever the text was."""
    error = FwpError(NtStatus.STATUS_UNSUCCESSFUL, "  first\r\n\tsecond\n")
    assert str(error) == "STATUS_UNSUCCESSFUL (0xC0000001): first second"


def test_error_survives_copy_and_pickle() -> None:
    """`FwpError`: tests in worker processes send exceptions to each other."""
    error = FwpError(NtStatus.STATUS_FWP_TIMEOUT, "waited 15 s")
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (twin.status, twin.text, str(twin)) == (error.status, error.text, str(error))
