"""`wfpstream transparent` against the real kernel, each test in a network namespace of its own.

What is there before and after is compared as text: every nft table, routing rule and route of both families.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.system import require
from tests.system.network import ROOT, Host, control_group, host

pytestmark = pytest.mark.system("nft", "ip", "nsenter", "unshare", "setpriv", "root")

FOREIGN = """
table inet filter {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 22 accept
	}
}
table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		tcp dport 8080 redirect to :80
	}
}
"""


@dataclass(frozen=True)
class Bench:
    """A namespace, and the command line inside it with records of its own."""

    host: Host
    folder: Path

    def wfpstream(self, *words: str, around: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "WFPSTREAM_STATE": str(self.folder / "records")}
        line = [*around, sys.executable, "-m", "wfpstream", "transparent", *words]
        return self.host.run(*line, check=False, cwd=ROOT, env=env)

    def good(self, *words: str) -> str:
        """What it prints; it must succeed."""
        done = self.wfpstream(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def bad(self, *words: str, around: tuple[str, ...] = ()) -> str:
        """Its lines on stderr; it must fail properly, and change nothing."""
        before = self.host.state()
        done = self.wfpstream(*words, around=around)
        assert done.returncode == 1, done.stdout + done.stderr
        assert all(line.startswith("wfpstream: ") for line in done.stderr.splitlines()), done.stderr
        assert self.host.state() == before
        return done.stderr

    def records(self) -> list[str]:
        folder = self.folder / "records"
        return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A namespace where others have tables, rules and routes already."""
    with host() as alone:
        alone.run("nft", "-f", "-", input=FOREIGN)
        alone.run("ip", "rule", "add", "priority", "100", "fwmark", "0x1", "lookup", "577")
        alone.run("ip", "route", "add", "local", "default", "dev", "lo", "table", "577")
        alone.run("ip", "-6", "rule", "add", "priority", "200", "from", "fd00::/8", "lookup", "main")
        yield Bench(alone, tmp_path)


KINDS = [
    ["--port", "15001"],
    ["--port", "15001", "--redirect-port", "80,443,1000-2000", "--scope", "local", "--exempt-uid", "33"],
    ["--port", "15001", "--scope", "forward", "--interface", "lan*"],
    ["--port", "15001", "--only-uid", "nobody", "--name", "for-nobody"],
    ["--port", "15001", "--mode", "tproxy"],
    [
        "--port",
        "15001",
        "--mode",
        "tproxy",
        "--redirect-port",
        "80",
        "--interface",
        "lan",
        "--name",
        "router_1",
    ],
]


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_undo_leaves_everything_textually_as_it_was(bench: Bench, kind: list[str]) -> None:
    before = bench.host.state()
    assert "take it back: wfpstream transparent undo" in bench.good("apply", *kind)
    applied = bench.host.state()
    assert applied != before
    for line in before.splitlines():
        assert line in applied, "what others have is still there"
    assert len(bench.records()) == 1
    assert "removed" in bench.good("undo")
    assert bench.host.state() == before
    assert bench.records() == []
    assert bench.good("undo") == "nothing to undo\n"


@pytest.mark.parametrize("kind", KINDS, ids=" ".join)
def test_print_is_exactly_what_apply_runs(bench: Bench, kind: list[str]) -> None:
    printed = bench.good("print", *kind)
    before = bench.host.state()
    bench.host.run("sh", "-e", input=printed)
    by_hand = bench.host.state()
    taking_back = printed.partition("# to take it back:\n")[2].replace("# ", "")
    bench.host.run("sh", "-e", input=taking_back)
    assert bench.host.state() == before, "its way back is right, too"
    bench.good("apply", *kind)
    assert bench.host.state() == by_hand


def test_a_control_group_alone(bench: Bench) -> None:
    """Both on systems with version 2 alone and on hybrid ones."""
    with control_group(f"wfpstream-apply-{os.getpid()}") as group:
        (group / "inner").mkdir()
        try:
            before = bench.host.state()
            bench.good("apply", "--port", "15001", "--only-cgroup", f"{group.name}/inner")
            rule = rf'socket cgroupv2 level 2 "(unified/)?{group.name}/inner" tcp flags'
            assert re.search(rule, bench.host.state())
            bench.good("undo")
            assert bench.host.state() == before
        finally:
            (group / "inner").rmdir()


# --- crashes --------------------------------------------------------------------------------------

_KILLED = """
import os, signal, sys
from wfpstream.intercept import Interception, Machine, SystemTools, apply

class Cut(SystemTools):
    calls = 0
    def run(self, program, arguments, text=""):
        changes = arguments[0] not in ("-j", "-t")
        if changes and Cut.calls == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        Cut.calls += changes
        return super().run(program, arguments, text)

apply(Interception(15001, mode=sys.argv[2]), owner=os.getpid(), machine=Machine(Cut()))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
@pytest.mark.parametrize("step", range(6))
def test_kill_9_between_steps_and_undo(bench: Bench, mode: str, step: int) -> None:
    before = bench.host.state()
    env = {**os.environ, "WFPSTREAM_STATE": str(bench.folder / "records")}
    done = bench.host.python(_KILLED, str(step), mode, check=False, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if step > 0:
        assert bench.host.state() != before
    assert len(bench.records()) == 1
    bench.good("undo")
    assert bench.host.state() == before
    assert bench.records() == []


def test_a_proxy_that_comes_back_after_kill_9_clears_up_first(bench: Bench) -> None:
    before = bench.host.state()
    env = {**os.environ, "WFPSTREAM_STATE": str(bench.folder / "records")}
    bench.host.python(_KILLED, "99", "tproxy", check=False, env=env)
    assert bench.host.state() != before
    assert "undoing what is left of a proxy" in bench.wfpstream("apply", "--port", "15001").stderr
    bench.good("undo")
    assert bench.host.state() == before


def test_undo_goes_on_when_somebody_removed_parts(bench: Bench) -> None:
    before = bench.host.state()
    bench.good("apply", "--port", "15001", "--mode", "tproxy")
    bench.host.run("nft", "delete", "table", "inet", "wfpstream")
    bench.host.run("ip", "-6", "rule", "del", "fwmark", "0x578")
    lines = bench.good("undo").splitlines()
    assert sum("gone already" in line for line in lines) == 2
    assert sum("removed" in line for line in lines) == 3
    assert bench.host.state() == before


def test_undo_does_not_touch_a_table_of_our_name_that_is_not_ours(bench: Bench) -> None:
    bench.good("apply", "--port", "15001")
    bench.host.run("nft", "delete", "table", "inet", "wfpstream")
    bench.host.run("nft", "add", "table", "inet", "wfpstream")
    before = bench.host.state()
    assert "is not the one we made: left alone" in bench.good("undo")
    assert bench.host.state() == before


# --- what goes wrong ------------------------------------------------------------------------------


def test_a_table_that_is_there_already(bench: Bench) -> None:
    bench.host.run("nft", "add", "table", "inet", "wfpstream")
    line = bench.bad("apply", "--port", "15001")
    assert "there is an nft table inet wfpstream already, made by somebody else" in line
    assert bench.records() == []


def test_two_instances(bench: Bench) -> None:
    before = bench.host.state()
    bench.good("apply", "--port", "15001", "--redirect-port", "80")
    line = bench.bad("apply", "--port", "15001", "--redirect-port", "81")
    assert "wfpstream is there already, applied by `wfpstream transparent apply`" in line
    line = bench.bad("apply", "--port", "15002", "--name", "second")
    assert "second and wfpstream would both take connections made on this machine" in line
    one = bench.host.state()
    bench.good("apply", "--port", "15002", "--redirect-port", "81", "--name", "second")
    bench.good("undo", "--name", "second")
    assert bench.host.state() == one
    bench.good("undo")
    assert bench.host.state() == before


def test_another_namespace_has_instances_of_its_own(bench: Bench) -> None:
    """The records lie in one folder, and `undo` in one namespace leaves the other's alone."""
    before = bench.host.state()
    bench.good("apply", "--port", "15001")
    with host("other") as other:
        there = Bench(other, bench.folder)
        empty = other.state()
        assert there.good("undo") == "nothing to undo\n"
        there.good("apply", "--port", "15001")
        assert len(bench.records()) == 2
        bench.good("undo")
        assert bench.host.state() == before
        assert "wfpstream" in other.state()
        there.good("undo")
        assert other.state() == empty


@pytest.mark.parametrize("program", ["nft", "ip"])
def test_a_missing_program(bench: Bench, program: str) -> None:
    """Hidden behind a file that cannot be run, in a mount namespace of its own."""
    hide = "for f in /usr/sbin /sbin /usr/bin /bin; do [ -e $f/$0 ] && mount --bind /dev/null $f/$0; done; "
    around = (require("unshare"), "--mount", "sh", "-c", hide + 'exec "$@"', program)
    line = bench.bad("apply", "--port", "15001", "--mode", "tproxy", around=around)
    assert f"{program} is not installed" in line
    assert bench.records() == []
    findings = bench.wfpstream("doctor", "--port", "15001", around=around)
    assert findings.returncode == 1
    assert f"not ok  {program} is not installed" in findings.stdout


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_root_without_the_capability(bench: Bench, mode: str) -> None:
    around = (require("setpriv"), "--bounding-set", "-net_admin")
    line = bench.bad("apply", "--port", "15001", "--mode", mode, around=around)
    assert line == (
        "wfpstream: error: changing nft tables and routes needs root, or CAP_NET_ADMIN as an ambient capability\n"
    )
    assert bench.records() == []


def test_an_ordinary_user(bench: Bench) -> None:
    """Before anything else is looked at; `print` works for everybody, and exempts who asks."""
    code = (
        "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "from wfpstream.cli import main\nmain(sys.argv[1:])"
    )
    # Modules are loaded first: the tests' interpreter may lie where only root can read.
    load = "import encodings.ascii, encodings.idna, pwd, wfpstream.intercept, wfpstream.cli, msgspec, grp\n"
    before = bench.host.state()
    done = bench.host.python(load + code, "transparent", "apply", "--port", "1", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs root, or CAP_NET_ADMIN" in done.stderr
    assert bench.host.state() == before
    done = bench.host.python(load + code, "transparent", "print", "--port", "1")
    assert "meta skuid 65534 accept" in done.stdout


def test_an_ordinary_user_with_the_ambient_capability(bench: Bench) -> None:
    """As a service manager starts a proxy that is not root: `nft` and `ip` inherit the right."""
    records = bench.folder / "records"
    records.mkdir(mode=0o700)
    os.chown(records, 65534, 65534)
    code = (
        "import os, subprocess, sys\n"
        "from wfpstream.intercept import Interception, apply, undo\n"
        "apply(Interception(15001, mode='tproxy'))\n"
        "print(os.geteuid(), subprocess.run(['nft', 'list', 'tables'], capture_output=True, text=True).stdout)\n"
        "print(undo())"
    )
    around = (
        require("setpriv"), "--reuid", "65534", "--regid", "65534", "--clear-groups",
        "--inh-caps", "+net_admin,+dac_read_search", "--ambient-caps", "+net_admin,+dac_read_search",
    )  # fmt: skip
    _reachable(bench.folder)
    before = bench.host.state()
    env = {**os.environ, "WFPSTREAM_STATE": str(records)}
    done = bench.host.run(*around, sys.executable, "-c", code, cwd=ROOT, env=env)
    assert done.stdout.startswith("65534 ")
    assert "table inet wfpstream" in done.stdout
    assert bench.host.state() == before


def _reachable(folder: Path) -> None:
    """The folders of pytest are its user's alone; that user's rights are not what is tested."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/tmp") and len(path.parts) > 2:
            path.chmod(path.stat().st_mode | 0o011)


def test_ipv6_off(bench: Bench) -> None:
    bench.host.run("ip", "-6", "rule", "del", "priority", "200")
    bench.host.set(net__ipv6__conf__all__disable_ipv6=1)
    before = bench.host.state()
    for mode in ("redirect", "tproxy"):
        done = bench.wfpstream("apply", "--port", "15001", "--mode", mode)
        assert done.returncode == 0, done.stderr
        assert done.stderr == "wfpstream: IPv6 is off here: only IPv4 connections are taken\n"
        assert "fwmark 0x578" not in bench.host.run("ip", "-6", "rule").stdout
        bench.good("undo")
        assert bench.host.state() == before


def test_the_loopback_down_is_told_and_nothing_is_left(bench: Bench) -> None:
    bench.host.run("ip", "link", "set", "lo", "down")
    line = bench.bad("apply", "--port", "15001", "--mode", "tproxy")
    assert re.search(r"cannot add the ipv[46] route in table \d+", line)
    assert bench.records() == []


def test_a_name_that_nft_does_not_take(bench: Bench) -> None:
    line = bench.bad("apply", "--port", "15001", "--mode", "tproxy", "--name", "tcp")
    assert "cannot add the nft table inet tcp: nft says:" in line
    assert bench.records() == []


# --- doctor ---------------------------------------------------------------------------------------

_LISTENER = """
import socket, sys
for family, host, level, option in ((socket.AF_INET, '0.0.0.0', 0, 19), (socket.AF_INET6, '::', 41, 75)):
    sock = socket.socket(family)
    if family == socket.AF_INET6: sock.setsockopt(41, socket.IPV6_V6ONLY, 1)
    if 'transparent' in sys.argv: sock.setsockopt(level, option, 1)
    sock.bind((host, 15001)); sock.listen(); globals()[host] = sock
print('listening', flush=True)
sys.stdin.read()
"""


def faults(bench: Bench, *words: str) -> dict[str, str]:
    """What doctor finds wrong, and how to mend each."""
    done = bench.wfpstream("doctor", "--port", "15001", "--json", *words)
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = {finding["what"]: finding["mend"] for finding in findings if not finding["ok"]}
    assert done.returncode == (1 if wrong else 0)
    return wrong


def forwarding(bench: Bench, value: int) -> None:
    bench.host.set(net__ipv4__ip_forward=value, net__ipv6__conf__all__forwarding=value)


def test_doctor_follows_the_mending(bench: Bench) -> None:
    """From nothing to a working tproxy, each fault mended as doctor says it can be."""
    tproxy = ("--mode", "tproxy")
    forwarding(bench, 0)
    bench.host.run("ip", "rule", "del", "priority", "100")
    bench.host.run("ip", "route", "flush", "table", "577")
    found = faults(bench, *tproxy)
    assert len(found) == 5, found
    for what, mend in found.items():
        if "forwarding is off" in what:
            bench.host.run(*mend.replace("-w", "-qw").split())
        elif "nothing is intercepted" in what:
            bench.good(*mend.split()[2:])
    assert set(faults(bench, *tproxy)) == {
        "nothing listens on port 15001 for IPv4",
        "nothing listens on port 15001 for IPv6",
    }
    with bench.host.started(sys.executable, "-c", _LISTENER, stdin=subprocess.PIPE) as plain:
        assert plain.stdout is not None
        assert plain.stdout.readline() == "listening\n"
        (what,) = faults(bench, *tproxy)
        assert "the listener on port 15001 is not transparent" in what
    with bench.host.started(sys.executable, "-c", _LISTENER, "transparent", stdin=subprocess.PIPE) as good:
        assert good.stdout is not None
        assert good.stdout.readline() == "listening\n"
        assert faults(bench, *tproxy) == {}
        bench.host.set(net__ipv4__conf__all__src_valid_mark=1)
        assert "sysctl -w net.ipv4.conf.all.src_valid_mark=0" in faults(bench, *tproxy).values()
        bench.host.set(net__ipv4__conf__all__src_valid_mark=0)
        bench.host.run("ip", "-6", "route", "del", "local", "default", "dev", "lo", "table", "577")
        assert [what for what in faults(bench, *tproxy) if "the ipv6 route in table 577" in what]
        assert "gone already" in bench.good("undo")


def test_doctor_of_a_redirect(bench: Bench) -> None:
    bench.good("apply", "--port", "15001", "--redirect-port", "80")
    with bench.host.started(sys.executable, "-c", _LISTENER, stdin=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        assert faults(bench, "--redirect-port", "80") == {}
        bench.good("undo")
        assert [*faults(bench)] == ["nothing is intercepted: there is no nft table inet wfpstream"]


def test_doctor_finds_a_listener_that_would_loop(bench: Bench) -> None:
    bench.good("apply", "--port", "15001", "--scope", "local")
    around = (require("setpriv"), "--reuid", "33", "--regid", "33", "--clear-groups", "--inh-caps", "-all")
    # An interpreter that ordinary users may run; the tests' own may lie where only root can read.
    with bench.host.started(*around, "/usr/bin/python3", "-c", _LISTENER, stdin=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "listening\n"
        (mend,) = faults(bench, "--scope", "local").values()
        assert "apply with --exempt-uid 33" in mend
        assert faults(bench, "--scope", "local", "--exempt-uid", "33") == {}
