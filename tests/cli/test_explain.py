"""`wfpstream explain-status` (VRF-6): name, value, NT_SUCCESS, and the rules that return it."""

from __future__ import annotations

import pytest

from tests.rules.refusals import pairs_in_the_code
from tests.rules.test_mapping import IDS
from wfpstream.cli import main
from wfpstream.fwp import RULES_OF_STATUS, NtStatus


def explained(capsys: pytest.CaptureFixture[str], status: str) -> dict[str, str]:
    assert main(["explain-status", status], standalone_mode=False) == 0
    lines = capsys.readouterr().out.replace("\n             ", " ").splitlines()
    return {line[:12].strip(): line[13:] for line in lines}


@pytest.mark.parametrize(
    "written",
    ["STATUS_FWP_NOT_FOUND", "0xC0220008", "3223453704", "-1071513592", "FWP_E_NOT_FOUND", "0x80320008"],
)
def test_vrf_6_a_status_however_it_is_written(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    """VRF-6: by name or value, signed or unsigned, or as user mode calls it."""
    told = explained(capsys, written)
    assert told["name"].startswith("STATUS_FWP_NOT_FOUND (in user mode FWP_E_NOT_FOUND, 0x80320008)")
    assert told["value"] == "0xC0220008 (-1071513592 as a signed number)"
    assert told["NT_SUCCESS"] == "no"
    assert "CTX-5" in told["returned by"].split(", ")


def test_vrf_6_the_trap_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """CTX-6, V-41: a success that is none."""
    told = explained(capsys, "STATUS_OBJECT_NAME_EXISTS")
    assert (told["NT_SUCCESS"], "not stored" in told["beware"]) == ("yes", True)


def test_a_code_of_elsewhere_has_no_rules(capsys: pytest.CaptureFixture[str]) -> None:
    told = explained(capsys, "0x80000001")
    assert (told["name"], told["NT_SUCCESS"]) == ("none that this layer uses", "no")
    assert told["returned by"] == "no call here"


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("STATUS_FWP_NOT_FUOND", "did you mean STATUS_FWP_NOT_FOUND?"),
        ("0x1C0220008", "32 bits"),
        ("\x1b[31m", "is no NTSTATUS"),
    ],
)
def test_what_is_no_status_is_refused_in_one_line(
    written: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2; nothing of it steers the terminal."""
    assert main(["explain-status", written], standalone_mode=False) == 2
    error = capsys.readouterr().err
    assert error.startswith("wfpstream: error: ")
    assert part in error
    assert error.count("\n") == 1
    assert "\x1b" not in error


def test_the_table_has_every_pair_of_the_code() -> None:
    """VRF-6: what a call is refused by is what is explained; ids exist."""
    listed = {(status.name, rule) for status, rules in RULES_OF_STATUS.items() for rule in rules}
    assert pairs_in_the_code() - listed == set()
    assert {rule for _, rule in listed} <= IDS
    assert NtStatus.STATUS_SUCCESS not in RULES_OF_STATUS
