"""What the kubelet does with our manifests' pods, in network namespaces.

Owns what the keys of a pod mean as far as ours have them; one that is not known here is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.system.dockerfile import Image, numbers_of
from tests.system.network import Host
from tests.system.pod import Container, Running, Volumes, accepts, run_to_its_end, started, wait_for
from tests.system.sandbox import Mount

CONTAINER_KEYS = frozenset({
    "name", "image", "command", "args", "ports", "startupProbe", "readinessProbe", "lifecycle", "resources",
    "securityContext", "volumeMounts", "restartPolicy",
})  # fmt: skip
POD_KEYS = frozenset({
    "automountServiceAccountToken", "terminationGracePeriodSeconds", "securityContext", "initContainers",
    "containers", "volumes",
})  # fmt: skip


def read_manifests(file: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a file by kind and name."""
    objects = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    found = {(entry["kind"], entry["metadata"]["name"]): entry for entry in objects}
    assert len(found) == len(objects)
    return found


def pod_of(deployment: Mapping[str, Any]) -> dict[str, Any]:
    """The pod that a Deployment makes."""
    spec = deployment["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


class Pod:
    """The pod of a Deployment: its containers, and what they share.

    Args:
        manifests: those of its file; its ConfigMaps are among them.
        deployment: the Deployment's name.
        images: by the names that its containers use, without a version.
        network: the network it has.
        volumes: where its volumes are kept.
        hosts: the file that stands for the cluster's name server.
    """

    def __init__(
        self,
        manifests: Mapping[tuple[str, str], dict[str, Any]],
        deployment: str,
        images: Mapping[str, Image],
        network: Host,
        volumes: Volumes,
        hosts: Mount,
    ) -> None:
        self.spec = pod_of(manifests["Deployment", deployment])
        assert set(self.spec) <= POD_KEYS, set(self.spec) - POD_KEYS
        self._manifests = manifests
        self._images = images
        self._network = network
        self._volumes = volumes
        self._hosts = hosts

    def container(self, entry: Mapping[str, Any]) -> Container:
        """What one entry of `containers` or `initContainers` starts."""
        assert set(entry) <= CONTAINER_KEYS, set(entry) - CONTAINER_KEYS
        image = self._images[entry["image"].partition(":")[0]]
        rights = {**self.spec.get("securityContext", {}), **entry["securityContext"]}
        of_image, _ = numbers_of(image.user, image.root)
        uid = rights.get("runAsUser", of_image)
        assert uid != 0 or not rights.get("runAsNonRoot"), "refused: it would run as root"
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"]["drop"] == ["ALL"]
        sandbox = replace(
            image.sandbox(),
            uid=uid,
            gid=rights.get("runAsGroup", 0),
            capabilities=tuple(name.lower() for name in rights["capabilities"].get("add", ())),
            network=self._network.name,
            read_only=rights["readOnlyRootFilesystem"],
            mounts=(self._hosts, *self._mounts(entry)),
        )
        argv = [*entry.get("command", image.entrypoint)]
        argv += entry.get("args", [] if "command" in entry else image.command)
        return Container(entry["name"], sandbox, argv, [])

    def _mounts(self, entry: Mapping[str, Any]) -> Iterator[Mount]:
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", ())}
        for mount in entry.get("volumeMounts", ()):
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                yield Mount(self.config_map(volume["configMap"]["name"]), mount["mountPath"])
            else:
                assert "emptyDir" in volume
                # Everybody may write there: that is how the kubelet makes them.
                group = self.spec.get("securityContext", {}).get("fsGroup", 0)
                folder = self._volumes.empty(volume["name"], mode=0o777, gid=group)
                yield Mount(folder, mount["mountPath"], writable=not mount.get("readOnly", False))

    def config_map(self, name: str, data: Mapping[str, str] | None = None) -> Path:
        """The folder of a ConfigMap; with `data`, after a change to that."""
        folder = self._volumes.path(name)
        if data is None and folder.exists():
            return folder
        return self._volumes.config_map(name, data or self._manifests["ConfigMap", name]["data"])

    @contextmanager
    def running(self) -> Iterator[dict[str, Running]]:
        """The containers that go on, once all have started; the others have ended well."""
        running: dict[str, Running] = {}
        with ExitStack() as stack:
            for entry in self.spec.get("initContainers", ()):
                if entry.get("restartPolicy") != "Always":
                    run_to_its_end(self.container(entry))
                    continue
                running[entry["name"]] = stack.enter_context(started(self.container(entry)))
                running[entry["name"]].wait_until(entry["startupProbe"]["exec"]["command"])
            for entry in self.spec["containers"]:
                running[entry["name"]] = stack.enter_context(started(self.container(entry)))
                self._wait_until_ready(entry, running[entry["name"]])
            yield running

    def _wait_until_ready(self, entry: Mapping[str, Any], running: Running) -> None:
        probe = entry.get("readinessProbe", {})
        if "exec" in probe:
            running.wait_until(probe["exec"]["command"])
        elif "tcpSocket" in probe:
            ports = {port["name"]: port["containerPort"] for port in entry["ports"]}
            wait_for(lambda: accepts(self._network, ports[probe["tcpSocket"]["port"]]))
