"""What is missing, and how to mend it: one thing broken at a time."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.intercept.kernel import Kernel, machine, write
from wfpstream.intercept import Finding, Interception, Machine, apply, doctor

REDIRECT = Interception(15001, scope="local")
TPROXY = Interception(15001, mode="tproxy")
_ROW = "   0: {address}:{port:04X} 0000 0A 0:0 0:0 0 {uid} 0 {inode} 1\n"
ANY4, LOOP4 = "00000000", "0100007F"
ANY6 = "0" * 32


def listening(here: Machine, port: int, address: str = ANY4, uid: int = 0, inode: int = 77) -> None:
    """A listener in /proc/net/tcp, or tcp6 by the length of its address."""
    row = _ROW.format(address=address, port=port, uid=uid, inode=inode)
    row = row.replace("0000 0A", f"{'0' * len(address)}:0000 0A", 1)
    write(here.proc / f"net/{'tcp' if len(address) == 8 else 'tcp6'}", "header\n" + row)


def setting(here: Machine, name: str, value: str) -> None:
    write(here.proc / "sys" / name, value + "\n")


def only_on_loopback(here: Machine) -> None:
    listening(here, 15001, LOOP4)
    listening(here, 15002, ANY6)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def here(tmp_path: Path, kernel: Kernel) -> Machine:
    """A machine where nothing is missing."""
    found = machine(tmp_path, kernel)
    listening(found, 15001, ANY4)
    listening(found, 15001, ANY6)
    setting(found, "net/ipv4/ip_forward", "1")
    setting(found, "net/ipv6/conf/all/forwarding", "1")
    for name in ("all", "default", "eth0"):
        setting(found, f"net/ipv4/conf/{name}/src_valid_mark", "0")
        setting(found, f"net/ipv4/conf/{name}/rp_filter", "0")
    setting(found, "net/netfilter/nf_conntrack_count", "10")
    setting(found, "net/netfilter/nf_conntrack_max", "1000")
    return found


def faults(plan: Interception, here: Machine) -> list[Finding]:
    return [finding for finding in doctor(plan, here) if not finding.ok]


@pytest.mark.parametrize("plan", [REDIRECT, TPROXY, Interception(15001)])
def test_where_nothing_is_missing_all_is_well(here: Machine, plan: Interception) -> None:
    apply(plan, machine=here)
    findings = doctor(plan, here)
    assert [finding for finding in findings if not finding.ok] == []
    assert len(findings) > 5


Break = Callable[[Machine, Kernel], object]


@pytest.mark.parametrize(
    ("plan", "harm", "what", "mend"),
    [
        (REDIRECT, lambda m, k: k.lacking.add("nft"), "nft is not installed", "apt-get install nftables"),
        (REDIRECT, lambda m, k: k.lacking.add("ip"), "ip is not installed", "apt-get install iproute2"),
        (REDIRECT, lambda m, k: k.refused.add("redirect"), "the kernel refuses nf_nat", "modprobe nf_nat"),
        (
            TPROXY,
            lambda m, k: k.refused.add("tproxy ip"),
            "the kernel refuses nft_tproxy",
            "modprobe nft_tproxy",
        ),
        (
            TPROXY,
            lambda m, k: k.refused.add("socket "),
            "the kernel refuses nft_socket",
            "modprobe nft_socket",
        ),
        (REDIRECT, lambda m, k: k.tables.clear(), "nothing is intercepted", "transparent apply --port 15001"),
        (REDIRECT, lambda m, k: k.tables.update(wfpstream="x"), "made by somebody else", "another --name"),
        (TPROXY, lambda m, k: k.loopback.clear(), "the loopback interface is down", "ip link set lo up"),
        (TPROXY, lambda m, k: k.rules.pop(0), "the ipv4 rule 100", "undo --name wfpstream"),
        (TPROXY, lambda m, k: k.routes.pop(1), "the ipv6 route in table 577", "undo --name wfpstream"),
        (
            TPROXY,
            lambda m, k: setting(m, "net/ipv4/conf/eth0/src_valid_mark", "1"),
            "src_valid_mark is on for eth0",
            "sysctl -w net.ipv4.conf.eth0.src_valid_mark=0",
        ),
        (
            TPROXY,
            lambda m, k: setting(m, "net/ipv4/ip_forward", "0"),
            "IPv4 forwarding is off",
            "sysctl -w net.ipv4.ip_forward=1",
        ),
        (
            TPROXY,
            lambda m, k: setting(m, "net/ipv6/conf/all/forwarding", "0"),
            "IPv6 forwarding is off",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
        ),
        (
            TPROXY,
            lambda m, k: only_on_loopback(m),
            "forwarded connections do not reach it",
            "listen on 0.0.0.0",
        ),
        (
            REDIRECT,
            lambda m, k: setting(m, "net/netfilter/nf_conntrack_count", "950"),
            "connection tracking holds 950 of 1000",
            "nf_conntrack_max",
        ),
    ],
)
def test_one_thing_missing_is_found_and_can_be_mended(
    here: Machine, kernel: Kernel, plan: Interception, harm: Break, what: str, mend: str
) -> None:
    apply(plan, machine=here)
    harm(here, kernel)
    found = faults(plan, here)
    assert any(what in one.what and mend in one.mend for one in found), found


def test_nobody_listening_is_found_for_each_family(here: Machine) -> None:
    apply(REDIRECT, machine=here)
    listening(here, 15002, ANY4)
    listening(here, 15002, ANY6)
    assert [one.what for one in faults(REDIRECT, here)] == [
        "nothing listens on port 15001 for IPv4",
        "nothing listens on port 15001 for IPv6",
    ]
    listening(here, 15001, ANY6)
    assert faults(REDIRECT, here) == [], "a wildcard of IPv6 takes both"


def test_missing_rights_are_found(tmp_path: Path) -> None:
    found = faults(REDIRECT, machine(tmp_path, Kernel(), rights=False))
    assert any("needs root, or CAP_NET_ADMIN" in one.what for one in found)


def test_forwarding_is_a_note_where_nobody_asked_for_it(here: Machine) -> None:
    plan = Interception(15001)
    apply(plan, machine=here)
    setting(here, "net/ipv4/ip_forward", "0")
    assert faults(plan, here) == []
    assert any("IPv4 forwarding is off" in one.what and one.mend for one in doctor(plan, here))


@pytest.mark.parametrize(
    ("plan", "accept"), [(REDIRECT, "TCP to port 15001"), (TPROXY, "TCP with mark 0x578")]
)
def test_a_firewall_that_drops_is_a_note(
    here: Machine, kernel: Kernel, plan: Interception, accept: str
) -> None:
    """Its rules may or may not let the connections in: only people can tell."""
    apply(plan, machine=here)
    chain: dict[str, object] = {
        "family": "inet",
        "table": "filter",
        "name": "input",
        "hook": "input",
        "policy": "drop",
    }
    kernel.chains += [chain, chain | {"hook": "forward", "name": "forward"}, chain | {"policy": "accept"}]
    notes = [one for one in doctor(plan, here) if "drops what it does not know" in one.what]
    assert [(one.ok, one.what) for one in notes] == [
        (True, "chain inet filter input drops what it does not know")
    ]
    assert accept in notes[0].mend


def test_another_rule_before_ours_is_found(here: Machine, kernel: Kernel) -> None:
    class Policy(Kernel):
        """A machine whose rule 50 leads everything elsewhere."""

    apply(TPROXY, machine=here)
    original = kernel.run

    def with_policy(program: str, arguments: list[str], text: str = "") -> object:
        done = original(program, arguments, text)
        if arguments[:2] == ["-j", "-N"] and "rule" in arguments:
            return replace(done, out=done.out.replace("[", '[{"priority": 50, "table": "7"}, ', 1))
        return done

    kernel.run = with_policy  # type: ignore[method-assign, assignment]
    found = faults(TPROXY, here)
    assert any("routing rules [50] come before the ipv4 rule 100" in one.what for one in found)


def test_a_proxy_that_may_not_mark_and_is_not_exempt_is_found(here: Machine) -> None:
    """Its own connections would be taken again, for ever."""
    listening(here, 15001, ANY4, uid=1000, inode=4711)
    listening(here, 15002, ANY6)
    write(here.proc / "123/status", "CapEff:\t0000000000000000\n")
    (here.proc / "123/fd").mkdir()
    (here.proc / "123/fd/5").symlink_to("socket:[4711]")
    plan = replace(REDIRECT, families=("ipv4",))
    apply(plan, machine=here)
    (found,) = faults(plan, here)
    assert "user 1000) may not mark its connections" in found.what
    assert "--exempt-uid 1000" in found.mend
    assert faults(replace(plan, exempt_uid=1000), here) == []
    write(here.proc / "123/status", "CapEff:\t0000000000001000\n")
    assert faults(plan, here) == [], "CAP_NET_ADMIN lets it mark"


def test_a_leftover_of_a_dead_proxy_is_found(here: Machine) -> None:
    apply(replace(REDIRECT, name="old", redirect_ports=(81,)), owner=os.getpid(), machine=here)
    apply(replace(REDIRECT, redirect_ports=(80,)), machine=here)
    assert faults(REDIRECT, here) == []
    assert here.state is not None
    (file,) = here.state.glob("old.*")
    file.write_text(file.read_text().replace('"start":', '"start":1'))
    (found,) = faults(REDIRECT, here)
    assert "old is a leftover" in found.what
    assert found.mend == "wfpstream transparent undo --name old"


def test_an_apply_for_another_port_is_found(here: Machine) -> None:
    apply(REDIRECT, machine=here)
    listening(here, 15002, ANY6)
    assert any(
        "was applied for redirect to port 15001" in one.what
        for one in faults(replace(REDIRECT, port=15002), here)
    )


def test_a_family_that_is_off_is_not_missed(tmp_path: Path, kernel: Kernel, here: Machine) -> None:
    setting(here, "net/ipv6/conf/all/disable_ipv6", "1")
    listening(here, 15002, ANY6)
    apply(TPROXY, machine=here)
    assert faults(TPROXY, here) == []
    assert any(one.what == "IPv6 is off: its connections are not taken" for one in doctor(TPROXY, here))


def test_what_cannot_be_examined_is_a_finding(here: Machine, kernel: Kernel) -> None:
    """A garbled record must not end the examination."""
    apply(REDIRECT, machine=here)
    assert here.state is not None
    (file,) = here.state.iterdir()
    file.write_text("rubbish\x1b")
    found = faults(REDIRECT, here)
    assert any("is refused" in one.what for one in found)
    assert all(one.what.isprintable() and one.mend.isprintable() for one in found)


def test_a_listener_of_this_machine_is_seen() -> None:
    """The real /proc: a listening socket of ours, of both families."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock:
            try:
                sock.bind((host, 0))
            except OSError:
                continue
            sock.listen()
            port = sock.getsockname()[1]
            plan = Interception(port, scope="local", families=("ipv4" if "." in host else "ipv6",))
            assert any(
                one.ok and f"port {port} listens" in one.what and one.what.endswith(host)
                for one in doctor(plan)
            )


def test_a_table_whose_record_lies_elsewhere_is_no_fault(here: Machine) -> None:
    """A sidecar: its init container applied, and took its file system with it."""
    apply(REDIRECT, machine=here)
    assert here.state is not None
    (file,) = here.state.iterdir()
    file.unlink()
    assert faults(REDIRECT, here) == []
    assert any("without an undo record here" in one.what for one in doctor(REDIRECT, here))
