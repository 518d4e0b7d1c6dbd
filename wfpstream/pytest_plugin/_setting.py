"""What a test asks a proxy to be, read and checked before anything is started.

Owns the arguments of `wfp_proxy(...)`, their defaults, and the words for what cannot be. It must not know threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wfpstream.callouts import parse_time
from wfpstream.config import parse_address
from wfpstream.transport import ListenerSpec

from ._callouts import ENGINE_SECTIONS, engine_options, made_callouts
from ._records import DataMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from wfpstream.engine import EngineOptions, Tap
    from wfpstream.fwps import Callout

    from ._callouts import MadeCallout

__all__ = ["LISTENER", "Setting", "read_setting"]

LISTENER = "proxy"
Side = Literal["client", "server"]
_OWN = ("events_data", "grace", "host", "local", "name", "send_proxy", "timeout")


@dataclass
class Setting:
    """What one proxy is to be.

    Attributes:
        upstream: where it connects to.
        listener: where it listens.
        callouts: in the order in which they are asked.
        options: the engine's.
        seed: for callouts that make random choices and were not given one.
        timeout: seconds after which a callout that does not return counts as hung; 0: never.
        grace: seconds that live connections have to end by themselves when the proxy is closed.
        events_data: how much payload the kept events carry.
        sinks, tap: who else looks on.
    """

    upstream: tuple[str, int]
    listener: ListenerSpec
    callouts: Sequence[MadeCallout]
    options: EngineOptions
    seed: int
    timeout: float
    grace: float
    events_data: DataMode
    sinks: Sequence[Callable[[dict[str, Any]], None]] = ()
    tap: Tap | None = None


def read_setting(
    upstream: tuple[str, int] | str, callouts: Sequence[str | Callout], seed: int, options: dict[str, Any]
) -> Setting:
    """Read the arguments of `wfp_proxy(...)`.

    Raises:
        TypeError: an option that there is not, or an argument of another kind.
        ValueError, LookupError: a value that cannot be used.
    """
    unknown = sorted(set(options) - {*_OWN, *ENGINE_SECTIONS})
    if unknown:
        raise TypeError(
            f"wfp_proxy has no option {unknown[0]!r}; there are {', '.join(_OWN)}, "
            f"and sections of the configuration: {', '.join(ENGINE_SECTIONS)}"
        )
    given = dict(options)
    host, port = _address(upstream)
    name = given.pop("name", LISTENER)
    timeout, grace = _time(given, "timeout", 10.0), _time(given, "grace", 1.0)
    events_data = given.pop("events_data", "off")
    if events_data not in ("off", "preview", "full"):
        raise ValueError(f"events_data is 'off', 'preview' or 'full', not {events_data!r}")
    listener = ListenerSpec(
        name=name,
        host=given.pop("host", "127.0.0.1"),
        upstream_host=host,
        upstream_port=port,
        local=given.pop("local", "client"),
        send_proxy=given.pop("send_proxy", 0),
    )
    return Setting(
        upstream=(host, port),
        listener=listener,
        callouts=made_callouts(callouts, seed, [name]),
        options=engine_options(**given),
        seed=seed,
        timeout=timeout,
        grace=grace,
        events_data=events_data,
    )


def _address(upstream: object) -> tuple[str, int]:
    """(host, port), also of "HOST:PORT" and of what `getsockname` says of an IPv6 socket."""
    if isinstance(upstream, str):
        host, port = parse_address(upstream, default_host="127.0.0.1")
    elif (
        isinstance(upstream, Sequence)
        and len(upstream) in (2, 4)
        and isinstance(upstream[0], str)
        and isinstance(upstream[1], int)
    ):
        host, port = upstream[0], upstream[1]
    else:
        raise TypeError(f"upstream is (host, port), for example ('127.0.0.1', 6379), not {upstream!r}")
    if not host or not 0 < port < 65536:
        raise ValueError(f"upstream {upstream!r}: expected a host and a port from 1 to 65535")
    return host, port


def _time(given: dict[str, Any], name: str, default: float) -> float:
    value = given.pop(name, default)
    try:
        return parse_time(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r}: expected seconds, or a time such as 250ms ({error})") from None
