"""Floor 5: the pytest plugin, which wires the rooms below into fixtures, options and reports.

Every session loads this file, so it imports nothing that a test without one of its fixtures could do without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._fixtures import wfp_proxy, wfp_proxy_session

if TYPE_CHECKING:
    from ._changes import AddedCallout, Change
    from ._factory import ProxyFactory
    from ._proxy import WfpProxy
    from ._records import FlowRecord
    from ._thread import ProxyClosed, ProxyHung

__all__ = [
    "AddedCallout",
    "Change",
    "FlowRecord",
    "ProxyClosed",
    "ProxyFactory",
    "ProxyHung",
    "WfpProxy",
    "wfp_proxy",
    "wfp_proxy_session",
]

# For annotations, and to catch what is raised.
_TYPES = {
    "AddedCallout": "_changes",
    "Change": "_changes",
    "FlowRecord": "_records",
    "ProxyClosed": "_thread",
    "ProxyFactory": "_factory",
    "ProxyHung": "_thread",
    "WfpProxy": "_proxy",
}


def __getattr__(name: str) -> object:
    if name in _TYPES:
        from importlib import import_module

        return getattr(import_module(f".{_TYPES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
