"""`wfpstream explain-status`: what an NTSTATUS is, whether it counts as success, and which rules return it (VRF-6)."""

from __future__ import annotations

import difflib
import textwrap

import click

from wfpstream.cli._base import InputError, command, print_out
from wfpstream.fwp import RULES_OF_STATUS, NtStatus, nt_success

_MASK = 0xFFFF_FFFF
_FWP_FACILITY, _FWP_E_FACILITY = 0xC022_0000, 0x8032_0000  # NTSTATUS, and the HRESULT of the same name
_KNOWN = {status.value: status for status in NtStatus}
_TRAPS = {
    NtStatus.STATUS_OBJECT_NAME_EXISTS: "compare with STATUS_SUCCESS: the new context was not stored",
    NtStatus.STATUS_PENDING: "compare with STATUS_SUCCESS: the call has not finished",
    NtStatus.STATUS_DEVICE_BUSY: "a warning is no success",
}


@click.command(
    "explain-status",
    cls=command("explain-status", "wfpstream explain-status STATUS_OBJECT_NAME_EXISTS"),
    short_help="What an NTSTATUS says, and which rules return it.",
    context_settings={"ignore_unknown_options": True},  # a negative number is one
)
@click.argument("status", metavar="NAME|VALUE")
def explain_status(status: str) -> None:
    """Print an NTSTATUS' name, value, whether NT_SUCCESS holds, and the rules by which a call returns it here."""
    value = _value_of(status)
    lines = [
        ("name", _name_of(value)),
        ("value", f"0x{value:08X} ({value - (value >> 31 << 32)} as a signed number)"),
    ]
    lines.append(("NT_SUCCESS", "yes" if nt_success(value) else "no"))
    known = _KNOWN.get(value)
    if known is not None and known in _TRAPS:
        lines.append(("beware", _TRAPS[known]))
    lines.append(("returned by", _rules_of(known)))
    print_out("\n".join(_line(*line) for line in lines))


def _line(head: str, text: str) -> str:
    return textwrap.fill(text, 100, initial_indent=f"{head:<12} ", subsequent_indent=" " * 13)


def _name_of(value: int) -> str:
    if value not in _KNOWN:
        return "none that this layer uses"
    name = _KNOWN[value].name
    if value & 0xFFFF_0000 == _FWP_FACILITY:
        user_mode = name.replace("STATUS_FWP_", "FWP_E_")
        return f"{name} (in user mode {user_mode}, 0x{_FWP_E_FACILITY | value & 0xFFFF:08X})"
    return name


def _rules_of(status: NtStatus | None) -> str:
    if status is NtStatus.STATUS_SUCCESS:
        return "every call that did what it was asked to"
    rules = RULES_OF_STATUS.get(status, ()) if status is not None else ()
    return ", ".join(rules) if rules else "no call here"


def _value_of(text: str) -> int:
    """Unsigned, of a name or a number however it is written. Raises InputError."""
    name = text.strip().upper()
    if name.startswith("FWP_E_"):
        name = f"STATUS_FWP_{name.removeprefix('FWP_E_')}"
    if name in NtStatus.__members__:
        return NtStatus[name].value
    try:
        value = int(name, 0)
    except ValueError:
        near = difflib.get_close_matches(name, NtStatus.__members__, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError([f"{text!r} is no NTSTATUS{hint}"]) from None
    if not -(1 << 31) <= value <= _MASK:
        raise InputError([f"{text!r} is no NTSTATUS: it has 32 bits"])
    value &= _MASK
    if value & 0xFFFF_0000 == _FWP_E_FACILITY:
        value = _FWP_FACILITY | value & 0xFFFF
    return value
