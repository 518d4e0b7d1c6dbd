"""The fixtures, as thin as they can be: what they give is made elsewhere, and loaded when a test asks for it.

Owns their names, scopes and what `pytest --fixtures` says of them. It must import nothing but pytest at its top.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ._factory import ProxyFactory

__all__ = ["wfp_proxy", "wfp_proxy_session"]


@pytest.fixture
def wfp_proxy(request: pytest.FixtureRequest) -> Iterator[ProxyFactory]:
    """Starts TCP proxies whose faults and edits a test controls: `wfp_proxy(upstream, callouts=[...], **options)`."""
    from ._factory import ProxyFactory

    factory = ProxyFactory(request.node)
    yield factory
    factory.finish()


@pytest.fixture(scope="session")
def wfp_proxy_session() -> Iterator[ProxyFactory]:
    """As `wfp_proxy`, for proxies that live as long as the session; `wfp_proxy_session.reset()` between tests."""
    from ._factory import ProxyFactory

    factory = ProxyFactory(None)
    yield factory
    factory.finish()
