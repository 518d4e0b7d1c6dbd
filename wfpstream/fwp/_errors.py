"""The one exception of the WFP vocabulary: a failing NTSTATUS with a line of explanation.

For objects that cannot be built and for comfortable calls; WFP's own functions return their status instead.
"""

from __future__ import annotations

from wfpstream.fwp._status import NtStatus


class FwpError(Exception):
    """A failure with its NTSTATUS: `status`, and `text`, one line for people (line breaks become blanks)."""

    def __init__(self, status: NtStatus, text: str = "") -> None:
        line = " ".join(text.split())
        super().__init__(status, line)
        self.status = status
        self.text = line

    def __str__(self) -> str:
        head = f"{self.status.name} (0x{self.status.value:08X})"
        return f"{head}: {self.text}" if self.text else head
