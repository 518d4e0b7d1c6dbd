"""Fixtures of different worlds in one test: virtual time over real sockets is refused, with words that help.

Owns the refusal. It must not know the fixtures' own doings.
"""

from __future__ import annotations

import pytest

__all__ = ["refuse_mixed_worlds"]

_LIVE = ("wfp_proxy", "wfp_proxy_session")


def refuse_mixed_worlds(item: pytest.Item, *also: str) -> None:
    """Fail a test that uses, or is about to use (`also`), fixtures that do not go together."""
    names = {*getattr(item, "fixturenames", ()), *also}
    live = [name for name in _LIVE if name in names]
    if "wfp_clock" in names and live:
        pytest.fail(
            f"wfp_clock rules the virtual time of wfp_pair; {live[0]} works over real sockets, whose time is the "
            "machine's. Test what depends on time with wfp_pair and wfp_clock; with "
            f"{live[0]} wait for what is to happen (wait_flow, wait_event, idle), and make delays short by the "
            "options of the callouts.",
            pytrace=False,
        )
