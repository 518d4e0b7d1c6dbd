"""The fixtures, as thin as they can be: what they give is made elsewhere, and loaded when a test asks for it.

Owns their names, scopes and what `pytest --fixtures` says of them. It must import nothing but pytest at its top.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ._factory import ProxyFactory
    from ._pair_factory import Clock, PairFactory
    from ._trace import Trace

__all__ = ["wfp_clock", "wfp_pair", "wfp_proxy", "wfp_proxy_session", "wfp_trace"]


@pytest.fixture
def wfp_proxy(request: pytest.FixtureRequest) -> Iterator[ProxyFactory]:
    """Starts TCP proxies whose faults and edits a test controls: `wfp_proxy(upstream, callouts=[...], **options)`."""
    from ._factory import ProxyFactory

    factory = ProxyFactory(request.node)
    yield factory
    factory.finish()


@pytest.fixture(scope="session")
def wfp_proxy_session(request: pytest.FixtureRequest) -> Iterator[ProxyFactory]:
    """As `wfp_proxy`, for proxies that live as long as the session; `wfp_proxy_session.reset()` between tests."""
    from ._factory import ProxyFactory

    factory = ProxyFactory(request.config)
    yield factory
    factory.finish()


@pytest.fixture
def wfp_pair(request: pytest.FixtureRequest) -> Iterator[PairFactory]:
    """Makes connections in memory, with callouts between their ends: `wfp_pair(callouts=[...], **options)`."""
    from ._pair_factory import PairFactory

    factory = PairFactory(request.node)
    yield factory
    factory.finish()


@pytest.fixture
def wfp_clock(request: pytest.FixtureRequest) -> Iterator[Clock]:
    """The virtual time of this test's pairs: `wfp_clock.advance(0.3)`. Not for wfp_proxy, whose time is real."""
    from ._pair_factory import clock_of, end_clock

    yield clock_of(request.node)
    end_clock(request.node)


@pytest.fixture
def wfp_trace(request: pytest.FixtureRequest) -> Iterator[Trace]:
    """What the test's streams did: to look at, to compare with text or a snapshot, and to script (playbooks)."""
    from ._trace import Trace

    trace = Trace(request.node)
    yield trace
    trace.finish()
