"""The torture suite against HAProxy, nginx and socat: what docs/reference/torture.md says of them holds.

Each has the configuration of that page. Cases whose outcome depends on luck with a relay are left out for it.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.support.system import missing, require
from tests.system.kit import server
from tests.torture.kit import SMALL, held_port
from wfpstream.torture import list_cases, torture

pytestmark = pytest.mark.system
# The pause is longer than socat waits for the second direction unless told otherwise.
PROFILE = replace(SMALL, pause=1.5, patience=3.0)
NAMES = [name for name, _ in list_cases()]
RESETS = (
    "reset_when_idle",
    "reset_after_data",
    "reset_with_data_owed",
    "reset_after_own_fin",
    "reset_after_other_fin",
)
LUCK = ("refused", "reset_in_bulk")
Command = Callable[[Path, int, int], list[str]]


def haproxy(folder: Path, port: int, upstream: int) -> list[str]:
    """HAProxy in TCP mode, with its timeouts and nothing else."""
    config = folder / "haproxy.cfg"
    config.write_text(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1m\n  timeout server 1m\n"
        f"listen torture\n  bind 127.0.0.1:{port}\n  server upstream 127.0.0.1:{upstream}\n"
    )
    return [require("haproxy"), "-f", str(config)]


def nginx(folder: Path, port: int, upstream: int, options: str = "") -> list[str]:
    """nginx's stream module."""
    program = require("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if not module.exists():
        missing("nginx's stream module is not installed")
    config = folder / "nginx.conf"
    config.write_text(
        f"load_module {module};\ndaemon off; worker_processes 1; user {getpass.getuser()};\n"
        f"pid {folder}/nginx.pid; error_log {folder}/error.log;\nevents {{ worker_connections 1024; }}\n"
        f"stream {{ server {{ listen 127.0.0.1:{port}; proxy_pass 127.0.0.1:{upstream}; {options} }} }}\n"
    )
    return [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]


def nginx_half(folder: Path, port: int, upstream: int) -> list[str]:
    """The same, told to half-close."""
    return nginx(folder, port, upstream, "proxy_half_close on;")


def socat(folder: Path, port: int, upstream: int, *options: str) -> list[str]:
    """socat, a process for each connection."""
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork,backlog=128"
    return [require("socat"), *options, listen, f"TCP:127.0.0.1:{upstream}"]


def socat_patient(folder: Path, port: int, upstream: int) -> list[str]:
    """The same, told to wait a day for the second direction."""
    return socat(folder, port, upstream, "-t", "86400")


def names(*bases: str) -> set[str]:
    return {name for name in NAMES if name.partition("_by_")[0] in bases}


FINDINGS: list[tuple[Command, set[str], set[str]]] = [
    (
        haproxy,
        names(*RESETS, "urgent_data", "refused")
        - {"reset_when_idle_by_client", "reset_after_data_by_client"},
        names("reset_in_bulk"),
    ),
    (
        nginx,
        names(*RESETS, "urgent_data", "plain", "half_close", "fin_with_data_owed", "late_accept")
        | {"short_connections"},
        names(*LUCK, "bulk_both_ways", "simultaneous_close"),
    ),
    (nginx_half, names(*RESETS, "urgent_data"), names(*LUCK)),
    (
        socat,
        names(*RESETS, "urgent_data", "half_close", "late_accept"),
        names(*LUCK, "short_connections", "fin_with_data_owed", "bulk_both_ways", "simultaneous_close"),
    ),
    (socat_patient, names(*RESETS, "urgent_data"), names(*LUCK)),
]


@pytest.mark.parametrize(("relay", "faulty", "luck"), FINDINGS, ids=[one.__name__ for one, _, _ in FINDINGS])
def test_findings(relay: Command, faulty: set[str], luck: set[str], tmp_path: Path) -> None:
    with held_port() as upstream, server(lambda port: relay(tmp_path, port, upstream[1])) as port:
        results = trio.run(
            lambda: torture(
                ("127.0.0.1", port),
                upstream,
                profile=PROFILE,
                only=[name for name in NAMES if name not in luck],
            )
        )
    found = {one.name for one in results if one.verdict.is_fault}
    assert found == faulty, [one for one in results if (one.name in found) != (one.name in faulty)]
