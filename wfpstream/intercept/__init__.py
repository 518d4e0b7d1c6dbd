"""Floor 4: transparent interception: nft tables, routes, the undo record, and what is missing for it to work.

Talks to the kernel's tools only. The proxy that the connections are led to is the transport's.
"""

from __future__ import annotations

from wfpstream.intercept._apply import apply, plan_here, stop_taking, undo
from wfpstream.intercept._doctor import doctor
from wfpstream.intercept._errors import InterceptError, PlanError
from wfpstream.intercept._finding import Finding
from wfpstream.intercept._machine import Machine, may_change_network
from wfpstream.intercept._plan import DEFAULT_MARK, Interception, find_overlap, parse_ports
from wfpstream.intercept._record import Owner, Record
from wfpstream.intercept._rules import Numbers, RoutePart, RulePart, Script, TablePart, script
from wfpstream.intercept._tools import Outcome, SystemTools, Tools

__all__ = [
    "DEFAULT_MARK",
    "Finding",
    "InterceptError",
    "Interception",
    "Machine",
    "Numbers",
    "Outcome",
    "Owner",
    "PlanError",
    "Record",
    "RoutePart",
    "RulePart",
    "Script",
    "SystemTools",
    "TablePart",
    "Tools",
    "apply",
    "doctor",
    "find_overlap",
    "may_change_network",
    "parse_ports",
    "plan_here",
    "script",
    "stop_taking",
    "undo",
]
