"""A machine of its own, as far as systemd can tell: its process 1 in namespaces, in a root folder.

Owns the start and end of it. No kernel of its own, so units' sandboxes are made by the real systemd with the real
kernel: system call filters, mount and user namespaces, capabilities.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.system import require
from tests.system.pod import PATIENCE, wait_for

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_CGROUPS = Path("/sys/fs/cgroup")


class Machine:
    """systemd running in a root folder."""

    def __init__(self, process: subprocess.Popen[bytes], root: Path) -> None:
        self.process = process
        self._root = root

    def configure(self, text: str) -> None:
        """Write wfpstream's configuration."""
        (self._root / "etc/wfpstream/wfpstream.toml").write_text(text, encoding="utf-8")

    def fetch(self, port: int) -> str:
        """What this machine's curl gets from a port of that one; empty if nothing."""
        command = [require("nsenter"), "--target", str(self.first_pid), "--net", require("curl"), "-sS"]
        command += ["--max-time", "20", f"http://127.0.0.1:{port}/"]
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout

    @property
    def first_pid(self) -> int:
        """The number that its process 1 has out here; 0 before there is one."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        return int(children[0]) if children else 0

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command in there, as root."""
        enter = [require("nsenter"), "--target", str(self.first_pid), "--all", "env", "-i"]
        return subprocess.run(
            [*enter, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *argv],
            check=False,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )

    def must(self, *argv: str) -> str:
        """The same; it must succeed. Returns what it printed."""
        done = self.run(*argv)
        assert done.returncode == 0, f"{shlex.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    @property
    def is_up(self) -> bool:
        """Whether systemd has started what it starts."""
        assert self.process.poll() is None, "systemd ended"
        return self.first_pid != 0 and self.run("systemctl", "is-system-running").stdout in (
            "running\n",
            "degraded\n",
        )


@contextmanager
def booted(root: Path, log: Path) -> Iterator[Machine]:
    """systemd, up; the test skips where this machine lets nobody start one."""
    group = _new_group()
    with open(log, "wb") as output:
        # In its control group before the namespace is made: that group is the root of what it sees.
        begin = f"echo $$ > {group}/cgroup.procs; exec " + shlex.join(
            [
                *(require("unshare"), "--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup"),
                *("--fork", "--kill-child", "--propagation=private", "/bin/sh", "-euc", _script(root)),
            ]
        )
        process = subprocess.Popen(
            ["/bin/sh", "-euc", begin], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    machine = Machine(process, root)
    try:
        wait_for(lambda: machine.is_up)
        machine.must("ip", "link", "set", "lo", "up")
        yield machine
    finally:
        process.kill()
        process.wait(PATIENCE)
        _remove_group(group)


def _new_group() -> Path:
    parent = _CGROUPS / "systemd" if (_CGROUPS / "systemd").is_dir() else _CGROUPS
    group = parent / f"wfpstream-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    return group


def _remove_group(group: Path) -> None:
    """With those that systemd made in it; the last processes may still be going."""
    folders = sorted([path for path in group.rglob("*") if path.is_dir()], reverse=True)

    def is_gone() -> bool:
        for folder in [*folders, group]:
            with suppress(OSError):
                folder.rmdir()
        return not group.exists()

    wait_for(is_gone)


def _script(root: Path) -> str:
    there = shlex.quote(str(root))
    lines = [
        f"mount --bind {there} {there}; cd {there}",
        "mount -t proc proc proc; mount -t sysfs sysfs sys",
        "mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=755 tmpfs dev",
        *(f"touch dev/{name}; mount --bind /dev/{name} dev/{name}" for name in _DEVICES),
        "mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts",
        "ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd; mount -t tmpfs tmpfs dev/shm",
        _control_groups(),
        # What holds for the kernel as a whole is not for the machine in here to change.
        "mount --bind proc/sys proc/sys; mount -o remount,bind,ro proc/sys; mount -o remount,ro sys",
        # Not chroot: in one, nobody may make user namespaces.
        "mkdir -p mnt; pivot_root . mnt; cd /; umount -l /mnt",
        "exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=console",
    ]
    return "\n".join(lines)


def _control_groups() -> str:
    """As this machine has them: version 2, or systemd's own hierarchy of version 1 and version 2 beside it."""
    if not (_CGROUPS / "systemd").is_dir():
        return "mount -t cgroup2 cgroup2 sys/fs/cgroup"
    return (
        "mount -t tmpfs tmpfs sys/fs/cgroup; mkdir sys/fs/cgroup/systemd sys/fs/cgroup/unified; "
        "mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd; "
        "mount -t cgroup2 cgroup2 sys/fs/cgroup/unified"
    )
