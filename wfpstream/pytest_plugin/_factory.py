"""`wfp_proxy` and `wfp_proxy_session`: what these fixtures give to a test, and what they check at the end.

Owns which proxies there are, that all are closed, and what is complained of then. What a report says is `_report`'s.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from wfpstream.testing import Recorder

from ._leaks import connections_of, leaked_by, open_sockets
from ._options import settings_of
from ._proxy import WfpProxy
from ._report import new_violations
from ._setting import read_setting
from ._watched import watch, watched_by

if TYPE_CHECKING:
    from wfpstream.fwps import Callout

    from ._options import Settings
    from ._records import FlowRecord

__all__ = ["ProxyFactory"]


class ProxyFactory:
    """Starts proxies: `proxy = wfp_proxy(("127.0.0.1", 6379), callouts=["latency,delay=50ms"])`.

    Attributes:
        proxies: those that were started, in order.
    """

    def __init__(self, owner: pytest.Item | pytest.Config) -> None:
        """
        Args:
            owner: the test the proxies are for; the configuration if they live as long as the session.
        """
        self.proxies: list[WfpProxy] = []
        self._owner = owner
        self._recorders: dict[WfpProxy, Recorder] = {}
        self._called = "wfp_proxy" if isinstance(owner, pytest.Item) else "wfp_proxy_session"

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
                `grace=1.0`, seconds for live connections to end at the close; `events_data="off"`, `"preview"` or
                `"full"`; `send_proxy=0`, 1 or 2, the version of a PROXY header; and the sections `limits`,
                `timeouts`, `policy`, `engine` and `verify` of the configuration, as dictionaries.

        Raises:
            TypeError, ValueError, LookupError: it cannot be done as asked; the text says what can.
            OSError: it cannot listen there.
        """
        settings = settings_of(self._owner)
        recorder = Recorder(settings.chop, settings.seed, clock=time.monotonic)
        verify = options.get("verify")
        if verify is None or isinstance(verify, Mapping):
            options["verify"] = {"level": settings.verify, **(verify or {})}
        setting = read_setting(upstream, callouts, settings.seed, options)
        setting.sinks, setting.tap = (recorder,), recorder
        proxy = WfpProxy(setting)
        self.proxies.append(proxy)
        self._recorders[proxy] = recorder
        watch(self._owner, "proxy", recorder)
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
            was_closed = proxy.is_closed
            proxy.close()
            complaints += self._complaints(proxy, was_closed)
        if complaints:
            pytest.fail("\n".join(complaints), pytrace=False)

    def _complaints(self, proxy: WfpProxy, was_closed: bool) -> list[str]:
        if proxy.hung is not None:
            return [proxy.hung]
        if proxy.crash is not None:
            error = proxy.crash
            return [f"{proxy!r} has crashed, which is a defect of wfpstream: {type(error).__name__}: {error}"]
        recorder, settings = self._recorders[proxy], settings_of(self._owner)
        listeners = [] if was_closed else [proxy.address]  # else the port may be somebody else's by now
        lines = open_sockets(connections_of(recorder), listeners)
        if isinstance(self._owner, pytest.Item) and not was_closed:  # who closes it means its connections too
            lines += [_left_open(flow) for flow in proxy.left_open]
        lines += leaked_by(proxy.engine, recorder)
        found = [f"{proxy!r} was left with: {line}" for line in lines] if settings.leaks else []
        return found + ([] if found else self._violations(recorder, settings))

    def _violations(self, recorder: Recorder, settings: Settings) -> list[str]:
        """Under strict, what happened after the test's body was looked at."""
        if settings.verify != "strict" or not isinstance(self._owner, pytest.Item):
            return []
        return [
            line
            for one in watched_by(self._owner)
            if one.recorder is recorder
            for line in new_violations(one)
        ]


def _left_open(flow: FlowRecord) -> str:
    return (
        f"a connection of {flow.client[0]}:{flow.client[1]} that lived still when the test ended: close it in the "
        "test, or say @pytest.mark.wfpstream(leaks=False)"
    )
