"""What a finding is, and what is examined. Judges nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wfpstream.intercept._plan import Family, Interception
from wfpstream.intercept._tools import Tools

SHOWN: dict[Family, str] = {"ipv4": "IPv4", "ipv6": "IPv6"}
ANY: dict[Family, str] = {"ipv4": "0.0.0.0", "ipv6": "[::]"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        ok: whether it is as it must be.
        what: what was found, one line.
        mend: how to mend it, or, if it is ok, what to keep in mind; may be empty.
    """

    ok: bool
    what: str
    mend: str = ""


@dataclass(frozen=True)
class Case:
    """What is examined, and with what."""

    plan: Interception
    tools: Tools
    folder: Path
    proc: Path
