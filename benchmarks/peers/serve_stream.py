"""wfpstream's stream driver with the measured callout: `python serve_stream.py PORT UPSTREAM_PORT`.

The command line has no option for it: between two sockets it takes the reactor.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import trio

from wfpstream.config import build_engine, parse_config
from wfpstream.transport import ListenerSpec, serve_proxy

RULES = '[[rule]]\ncallout = "monitor,summary=false,digest=false"\n'


async def main(port: int, upstream_port: int) -> None:
    """Serve until killed."""
    engine = build_engine(parse_config(RULES, "rules"), clock=time.monotonic)
    spec = ListenerSpec(upstream_host="127.0.0.1", upstream_port=upstream_port, host="127.0.0.1", port=port)
    serve: Callable[..., Any] = serve_proxy
    await serve(engine, [spec], driver="stream")


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]))
