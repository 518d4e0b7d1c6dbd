"""`wfp_proxy` and `wfp_proxy_session`: what these fixtures give to a test, and what they check at the end.

Owns which proxies there are and that all are closed. What looks on (recorder, report, leak check) comes in at three
seams at the end of this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from ._proxy import WfpProxy
from ._setting import read_setting

if TYPE_CHECKING:
    from wfpstream.fwps import Callout

__all__ = ["ProxyFactory"]


class ProxyFactory:
    """Starts proxies: `proxy = wfp_proxy(("127.0.0.1", 6379), callouts=["latency,delay=50ms"])`.

    Attributes:
        proxies: those that were started, in order.
    """

    def __init__(self, node: pytest.Item | None) -> None:
        self.proxies: list[WfpProxy] = []
        self._node = node
        self._called = "wfp_proxy" if node is not None else "wfp_proxy_session"

    def __call__(
        self,
        upstream: tuple[str, int] | str,
        callouts: Sequence[str | Callout] = (),
        **options: Any,
    ) -> WfpProxy:
        """Start a proxy, and return it when it listens; within milliseconds, also under an event loop.

        It listens on a port that the system chooses and that is never given away while it lives. It is closed with
        the fixture, or before by `close()` or at the end of a `with`.

        Args:
            upstream: (host, port) of the server; it need not be there yet.
            callouts: CALLOUT strings or callout objects, asked in this order. Objects run on the proxy's thread.
            options: `local="client"` or `"server"`; `host="127.0.0.1"`, where to listen; `name="proxy"`, the
                listener's; `timeout=10`, seconds after which a callout that does not return fails the test, 0: never;
                `grace=0.2`, seconds for live connections to end at the close; `events_data="off"`, `"preview"` or
                `"full"`; `send_proxy=0`, 1 or 2, the version of a PROXY header; and the sections `limits`,
                `timeouts`, `policy`, `engine` and `verify` of the configuration, as dictionaries.

        Raises:
            TypeError, ValueError, LookupError: it cannot be done as asked; the text says what can.
            OSError: it cannot listen there.
        """
        observed = _observe(self._node)
        setting = read_setting(upstream, callouts, observed.seed, {"verify": observed.verify, **options})
        if observed.recorder is not None:
            setting.sinks, setting.tap = (observed.recorder,), observed.recorder
        proxy = WfpProxy(setting)
        self.proxies.append(proxy)
        _watch(self._node, proxy, observed)
        return proxy

    def __getattr__(self, name: str) -> Any:
        if hasattr(WfpProxy, name) or name in ("host", "port", "upstream"):
            raise AttributeError(
                f"this fixture starts proxies and is none: proxy = {self._called}((host, port)), then proxy.{name}"
            )
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def reset(self) -> None:
        """Bring every proxy back to how it was when it was started: what a session's proxies need between tests.

        Changes are taken back, connections are reset, flows and events are forgotten.
        """
        for proxy in self.proxies:
            if not proxy.is_closed:
                proxy.restore()

    def finish(self) -> None:
        """Close all, and fail if something is to complain of."""
        complaints: list[str] = []
        for proxy in reversed(self.proxies):
            proxy.close()
            complaints += _complaints(proxy)
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)


def _complaints(proxy: WfpProxy) -> list[str]:
    if proxy.hung is not None:
        return [proxy.hung]
    if proxy.crash is not None:
        error = proxy.crash
        return [f"{proxy!r} has crashed, which is a defect of wfpstream: {type(error).__name__}: {error}"]
    return _left_behind(proxy)


# -- seams


class _Observed(NamedTuple):
    """How a proxy is looked at."""

    seed: int
    verify: str
    recorder: Any


def _observe(node: pytest.Item | None) -> _Observed:
    """What the marker and the options of the command line ask for."""
    return _Observed(0, "warn", None)


def _watch(node: pytest.Item | None, proxy: WfpProxy, observed: _Observed) -> None:
    """The proxy runs: whoever reports about the test wants to know."""


def _left_behind(proxy: WfpProxy) -> list[str]:
    """What a proxy that was closed has left behind."""
    return []
