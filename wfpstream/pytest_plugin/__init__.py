"""Floor 5: the pytest plugin, which wires the rooms below into fixtures, options and reports.

Every session loads this file, so it imports nothing that a test without one of its fixtures could do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._fixtures import wfp_clock, wfp_pair, wfp_proxy, wfp_proxy_session, wfp_trace
from ._hooks import (
    pytest_addoption,
    pytest_assertrepr_compare,
    pytest_configure,
    pytest_configure_node,
    pytest_runtest_call,
    pytest_runtest_makereport,
    pytest_runtest_protocol,
    pytest_runtest_setup,
    pytest_terminal_summary,
)

if TYPE_CHECKING:
    from ._changes import AddedCallout, Change
    from ._factory import ProxyFactory
    from ._pair_factory import Clock, PairFactory
    from ._proxy import WfpProxy
    from ._records import FlowRecord
    from ._thread import ProxyClosed, ProxyHung
    from ._trace import Trace

__all__ = [
    "AddedCallout",
    "Change",
    "Clock",
    "FlowRecord",
    "PairFactory",
    "ProxyClosed",
    "ProxyFactory",
    "ProxyHung",
    "Trace",
    "WfpProxy",
    "pytest_addoption",
    "pytest_assertrepr_compare",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_runtest_call",
    "pytest_runtest_makereport",
    "pytest_runtest_protocol",
    "pytest_runtest_setup",
    "pytest_terminal_summary",
    "wfp_clock",
    "wfp_pair",
    "wfp_proxy",
    "wfp_proxy_session",
    "wfp_trace",
]

# For annotations, and to catch what is raised.
_TYPES = {
    "AddedCallout": "_changes",
    "Change": "_changes",
    "Clock": "_pair_factory",
    "FlowRecord": "_records",
    "PairFactory": "_pair_factory",
    "ProxyClosed": "_thread",
    "ProxyFactory": "_factory",
    "ProxyHung": "_thread",
    "Trace": "_trace",
    "WfpProxy": "_proxy",
}


def __getattr__(name: str) -> object:
    if name in _TYPES:
        from importlib import import_module

        return getattr(import_module(f".{_TYPES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
