"""A small reader of systemd units, and the rights that one gives its processes.

Owns the format and what the settings of ours mean for a sandbox. What systemd thinks of them is systemd-analyze's
to say.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.system.sandbox import Mount, Sandbox


@dataclass(frozen=True, slots=True)
class Unit:
    """A service unit: `[Service]`'s settings in order, each with all that was said of it."""

    name: str
    service: Mapping[str, list[str]]

    def one(self, setting: str) -> str:
        """A setting that is said once."""
        (value,) = self.service[setting]
        return value

    def command(self, setting: str) -> list[str]:
        """The command of ExecStart and its like."""
        words = shlex.split(self.one(setting))
        assert words[0].startswith("/"), f"{setting}: no prefixes here"
        return words

    def sandbox(self, start: Sandbox, uid: int, runtime: Path) -> Sandbox:
        """`start` with the user, rights and folders of the unit's processes."""
        assert self.one("DynamicUser") == self.one("NoNewPrivileges") == "yes"
        assert self.one("ProtectSystem") == "strict"
        assert self.one("CapabilityBoundingSet") == self.one("AmbientCapabilities")
        folder = f"/run/{self.one('RuntimeDirectory')}"
        capabilities = self.one("AmbientCapabilities").lower().split()
        return replace(
            start,
            uid=uid,
            gid=uid,
            capabilities=tuple(capability.removeprefix("cap_") for capability in capabilities),
            read_only=True,
            mounts=(*start.mounts, Mount(runtime, folder, writable=True)),
            environment={"PATH": "/usr/local/bin:/usr/bin:/bin", "RUNTIME_DIRECTORY": folder},
        )


def read_unit(path: Path) -> Unit:
    """The service unit in a file."""
    service: dict[str, list[str]] = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            name, _, value = line.partition("=")
            service.setdefault(name, []).append(value)
    return Unit(path.name, service)
