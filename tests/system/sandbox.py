"""Commands in a root folder with the rights of a container: its user, its capabilities, its network, its mounts.

Owns the isolation only. Mounts live in a mount namespace that dies with the command, so nothing is left mounted
after a crash; the command is process 1 of a process namespace, as it is in a container, so everything it started
dies with it. Made with `unshare`, `chroot` and `setpriv` of util-linux: no container engine is needed.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.system import require

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine, seen in the sandbox at `target`."""

    source: Path
    target: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What a command may see and do.

    Attributes:
        root: the folder that is `/`.
        capabilities: lower-case names without `cap_`; the upper bound, and what an ordinary user gets at once.
            None keeps all of them: for building images.
        network: the name of a network namespace; None is this machine's network.
        read_only: `/` cannot be written; mounts can, where they say so.
        environment: all of it; nothing of ours is inherited.
    """

    root: Path
    uid: int = 0
    gid: int = 0
    capabilities: tuple[str, ...] | None = ()
    network: str | None = None
    read_only: bool = False
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"

    def with_rights_of_a_builder(self) -> Sandbox:
        """The same with every capability, as RUN steps have it."""
        return replace(self, capabilities=None)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The argument list that runs `argv` in the sandbox. Its process has one child: process 1 in there."""
        enter = [] if self.network is None else [require("ip"), "netns", "exec", self.network]
        separate = [require("unshare"), "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
        return [*enter, *separate, "/bin/sh", "-euc", self._script(argv)]

    def _script(self, argv: Sequence[str]) -> str:
        root = shlex.quote(str(self.root))
        # Through a bind mount of its own, so that it can be made read-only here and stay writable elsewhere.
        lines = [
            f"mount --bind {root} {root}",
            f"mount -t proc -o nosuid,nodev,noexec proc {root}/proc",
            f"mount -t tmpfs -o nosuid,mode=755 tmpfs {root}/dev",
            *(f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}" for name in _DEVICES),
        ]
        for mount in self.mounts:
            lines += self._mount(mount)
        if self.capabilities is not None:
            # Containers without privilege cannot write there.
            lines += [
                f"mount --bind {root}/proc/sys {root}/proc/sys",
                f"mount -o remount,bind,ro {root}/proc/sys",
            ]
        if self.read_only:
            lines.append(f"mount -o remount,bind,ro {root}")
        enter = ["exec", "chroot", str(self.root), "env", "-i", f"--chdir={self.folder}"]
        lines.append(shlex.join([*enter, *self._environment(), *self._rights(), *argv]))
        return "\n".join(lines)

    def _mount(self, mount: Mount) -> list[str]:
        source, target = shlex.quote(str(mount.source)), shlex.quote(f"{self.root}{mount.target}")
        make = (
            f"mkdir -p {target}"
            if mount.source.is_dir()
            else f"mkdir -p $(dirname {target}); [ -e {target} ] || : > {target}"
        )
        lines = [make, f"mount --bind {source} {target}"]
        return lines if mount.writable else [*lines, f"mount -o remount,bind,ro {target}"]

    def _environment(self) -> list[str]:
        return [f"{name}={value}" for name, value in self.environment.items()]

    def _rights(self) -> list[str]:
        """`setpriv` with what is left of root's rights; run inside, so the image's own."""
        if self.capabilities is None:
            return []
        bound = ",".join(["-all", *(f"+{name}" for name in self.capabilities)])
        words = ["/usr/bin/setpriv", f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        # A change of user clears what `unshare --kill-child` asked for, so it is asked for again.
        words += ["--pdeathsig=KILL", "--no-new-privs", f"--bounding-set={bound}", f"--inh-caps={bound}"]
        return [*words, f"--ambient-caps={bound}"] if self.uid else words
