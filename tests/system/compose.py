"""`docker compose up` for our example, in network namespaces: services in the order their conditions ask for.

Owns what the keys of compose.yaml mean; one that is not known here is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.system.dockerfile import Image, numbers_of
from tests.system.network import Host
from tests.system.pod import Container, Networks, Running, Volumes, run_to_its_end, started
from tests.system.sandbox import Mount

SERVICE_KEYS = frozenset({
    "build", "image", "entrypoint", "command", "user", "network_mode", "depends_on", "healthcheck", "init",
    "volumes", "tmpfs", "read_only", "cap_drop", "cap_add", "security_opt", "restart", "stop_grace_period",
})  # fmt: skip


class Project:
    """A compose file and what its services would be.

    Args:
        file: the compose file; paths in it count from its folder.
        images: by the names that its services use.
        networks: services that share the network of another are in `pod`, others `outside`.
        volumes: where their tmpfs are kept.
        hosts: the file that stands for the engine's name server.
    """

    def __init__(
        self, file: Path, images: Mapping[str, Image], networks: Networks, volumes: Volumes, hosts: Mount
    ) -> None:
        self._folder = file.parent
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._hosts = hosts
        self.services: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))[
            "services"
        ]

    def container(self, name: str) -> Container:
        """What a service starts."""
        service = self.services[name]
        assert set(service) <= SERVICE_KEYS, set(service) - SERVICE_KEYS
        image = self._images[service["image"]]
        uid, gid = numbers_of(service.get("user", image.user), image.root)
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        sandbox = replace(
            image.sandbox(),
            uid=uid,
            gid=gid,
            capabilities=tuple(capability.lower() for capability in service.get("cap_add", ())),
            network=self._network_of(name).name,
            read_only=service.get("read_only", False),
            mounts=(self._hosts, *self._mounts(name)),
        )
        entrypoint = service.get("entrypoint", image.entrypoint)
        # An entry point of the service's own takes the place of the image's command too.
        command = service.get("command", [] if "entrypoint" in service else image.command)
        return Container(name, sandbox, [*entrypoint, *command], image.healthcheck)

    def _network_of(self, name: str) -> Host:
        is_shared = any(f"service:{name}" == other.get("network_mode") for other in self.services.values())
        shares = "network_mode" in self.services[name]
        return self._networks.pod if is_shared or shares else self._networks.outside

    def _mounts(self, name: str) -> Iterator[Mount]:
        service = self.services[name]
        for volume in service.get("volumes", ()):
            source, target, access = volume.split(":")
            assert access == "ro"
            yield Mount((self._folder / source).resolve(), target)
        for entry in service.get("tmpfs", ()):
            target, _, options = entry.partition(":")
            said = dict(option.split("=") for option in options.split(",") if option)
            folder = self._volumes.empty(
                f"{name}{target.replace('/', '-')}",
                mode=int(said.get("mode", "1777"), 8),
                uid=int(said.get("uid", 0)),
                gid=int(said.get("gid", 0)),
            )
            yield Mount(folder, target, writable=True)

    def order(self) -> list[str]:
        """The services, each after those it depends on."""
        ordered: list[str] = []
        while len(ordered) < len(self.services):
            ready = [
                name
                for name, service in self.services.items()
                if name not in ordered and set(service.get("depends_on", ())) <= set(ordered)
            ]
            assert ready, "services wait for each other"
            ordered += ready
        return ordered

    def conditions_on(self, name: str) -> set[str]:
        """What others wait for, of this service."""
        return {
            service["depends_on"][name]["condition"]
            for service in self.services.values()
            if name in service.get("depends_on", {})
        }

    @contextmanager
    def up(self) -> Iterator[dict[str, Running]]:
        """All services, up to the last; those that are to complete have."""
        running: dict[str, Running] = {}
        with ExitStack() as stack:
            for name in self.order():
                container = self.container(name)
                conditions = self.conditions_on(name)
                if "service_completed_successfully" in conditions:
                    run_to_its_end(container)
                    continue
                running[name] = stack.enter_context(started(container))
                if "service_healthy" in conditions:
                    running[name].wait_until(container.healthcheck)
            yield running


def seconds(text: str) -> float:
    """A compose duration such as `15s`."""
    found = re.fullmatch(r"(\d+)s", text)
    assert found is not None
    return float(found[1])
