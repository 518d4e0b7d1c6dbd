"""Dockerfile, compose example, Kubernetes manifests and systemd units, performed: images built, containers run.

No container engine is needed: the images' root folders are made by debootstrap and the Dockerfile's own steps, and
containers are commands in namespaces with exactly the rights their files give them. Everything here shares the
images, so it is one file (tests are spread over processes by file).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.support.system import require
from tests.system.compose import Project
from tests.system.debian import build_settings, make_root
from tests.system.dockerfile import Builder, Image, copy_root
from tests.system.kubernetes import Pod, read_manifests
from tests.system.machine import Machine, booted
from tests.system.network import Host
from tests.system.pod import (
    PATIENCE,
    Container,
    Networks,
    Running,
    Volumes,
    inside,
    networks,
    run_to_its_end,
    started,
    wait_for,
)
from tests.system.sandbox import Mount, Sandbox
from tests.system.units import Unit, read_unit

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
READY = "/run/wfpstream/ready.json"

pytestmark = [
    pytest.mark.system("root", "debootstrap", "unshare", "nsenter", "setpriv", "ip", "curl", "nft"),
    # Building the images, in the first test that asks for them, counts too.
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Image]]:
    """The Dockerfile's stages, built; each under its stage's name, and the last also under the image's names.

    `WFPSTREAM_DEBIAN_ROOT` names a folder that debootstrap made earlier, for those who run this often.
    """
    folder = tmp_path_factory.mktemp("images")
    try:
        earlier = os.environ.get("WFPSTREAM_DEBIAN_ROOT")
        debian = folder / "debian"
        if earlier:
            subprocess.run(["cp", "-a", earlier, str(debian)], check=True)
        else:
            make_root(debian)
        environment, mounts = build_settings()
        bases = {"debian:bookworm-slim": debian}
        (folder / "stages").mkdir()
        builder = Builder(ROOT, bases, folder / "stages", environment, mounts)
        builder.build((ROOT / "Dockerfile").read_text(encoding="utf-8"))
        proxy, intercept = builder.stages["proxy"], builder.stages["intercept"]
        # Another image with a Python would do as well: what the examples run in it needs nothing else.
        python = Image(proxy.root)
        yield {
            "wfpstream": proxy,
            "wfpstream-intercept": intercept,
            "python": python,
            "python:3-slim": python,
        }
    finally:
        # A few hundred megabytes each; pytest would keep them for three sessions.
        shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test's containers run."""

    networks: Networks
    folder: Path
    volumes: Volumes
    hosts: Mount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with networks() as made:
        (tmp_path / "volumes").mkdir()
        # Sandboxed users must be able to come by.
        tmp_path.chmod(0o755)
        hosts = made.hosts(tmp_path, weather=made.outside_address, wfpstream=made.pod_address)
        yield Place(made, tmp_path, Volumes(tmp_path / "volumes"), hosts)


def fetch(network: Host, address: str) -> str:
    """What curl gets, from within a network."""
    return network.run(require("curl"), "-sS", "--max-time", "20", address).stdout


# --- Dockerfile -----------------------------------------------------------------------------------


def test_the_demo_runs_as_the_images_user(images: dict[str, Image]) -> None:
    image = images["wfpstream"]
    assert image.user == "10001:10001"
    output = run_to_its_end(Container("demo", image.sandbox(), ["wfpstream", "demo"], []))
    assert "sunny" in output


def test_the_image_keeps_no_caches_and_no_tools_to_build_with(images: dict[str, Image]) -> None:
    for name in ("wfpstream", "wfpstream-intercept"):
        root = images[name].root
        assert not list((root / "var/lib/apt/lists").glob("*_Packages*"))
        assert not list((root / "root").glob(".cache/*"))
        assert not (root / "src").exists()
        assert not list((root / "opt/wfpstream/lib").glob("python3*/site-packages/pip"))


def test_the_image_has_no_right_to_change_itself(images: dict[str, Image]) -> None:
    """Nothing of the environment belongs to the user that callouts run as."""
    root = images["wfpstream"].root / "opt/wfpstream"
    assert [path for path in root.rglob("*") if path.lstat().st_uid != 0] == []


def test_the_images_command_is_healthy_when_it_listens_and_ends_well(
    images: dict[str, Image], place: Place
) -> None:
    image = images["wfpstream"]
    config = place.folder / "wfpstream.toml"
    config.write_text(
        '[[proxy.listener]]\nlisten = "0.0.0.0:8888"\nupstream = "weather:8080"\n'
        '[[rule]]\ncallout = "stream_edit,find=rainy,replace=sunny"\n',
        encoding="utf-8",
    )
    sandbox = replace(
        image.sandbox(),
        network=place.networks.pod.name,
        mounts=(place.hosts, Mount(config, "/etc/wfpstream/wfpstream.toml")),
    )
    container = Container("wfpstream", sandbox, [*image.entrypoint, *image.command], image.healthcheck)
    assert READY in image.healthcheck
    with weather(images, place), started(container) as running:
        # Without a volume the ready file is the container's own, so it is looked for in there.
        inside = ["nsenter", "--target", str(running.first_pid), "--mount", "--root", *image.healthcheck]
        wait_for(lambda: subprocess.run(inside, check=False).returncode == 0)
        assert "sunny" in fetch(place.networks.outside, f"http://{place.networks.pod_address}:8888/")
        assert running.stop() == 0, running.output()
        assert not (image.root / READY[1:]).exists()


def weather(images: dict[str, Image], place: Place) -> AbstractContextManager[dict[str, Running]]:
    """The examples' server, outside."""
    manifests = read_manifests(DEPLOY / "kubernetes/weather.yaml")
    server = Pod(manifests, "weather", images, place.networks.outside, place.volumes, place.hosts)
    return server.running()


# --- compose --------------------------------------------------------------------------------------


def test_compose_leads_the_apps_connections_through_the_proxy(images: dict[str, Image], place: Place) -> None:
    file = DEPLOY / "compose/compose.yaml"
    project = Project(file, images, place.networks, place.volumes, place.hosts)
    with project.up() as running:
        assert running["app"].read_line() == "It is sunny today.\n"
        assert running["wfpstream"].container.succeeds(["wfpstream", "ctl", "stats"])
        address = "http://weather:8080/"
        assert_only_the_proxys_user_is_left_alone(running["app"].container, address)
        assert "rainy" in fetch(place.networks.outside, f"http://{place.networks.outside_address}:8080/")
        assert running["wfpstream"].stop() == 0, running["wfpstream"].output()


def assert_only_the_proxys_user_is_left_alone(app: Container, address: str) -> None:
    """Any other user's connections are edited, root's too."""
    ask = f"import urllib.request; print(urllib.request.urlopen({address!r}).read().decode())"
    for uid, weather in ((0, "sunny"), (1000, "sunny"), (10001, "rainy")):
        sandbox = replace(app.sandbox, uid=uid, gid=uid)
        assert weather in run_to_its_end(Container(f"user {uid}", sandbox, ["python3", "-c", ask], []))


# --- Kubernetes -----------------------------------------------------------------------------------


def test_kubernetes_sidecar_intercepts_and_follows_its_config_map(
    images: dict[str, Image], place: Place
) -> None:
    manifests = read_manifests(DEPLOY / "kubernetes/sidecar.yaml")
    pod = Pod(manifests, "visitor", images, place.networks.pod, place.volumes, place.hosts)
    with weather(images, place), pod.running() as running:
        assert running["app"].read_line() == "It is sunny today.\n"
        assert_only_the_proxys_user_is_left_alone(running["app"].container, "http://weather:8080/")
        assert running["wfpstream"].container.succeeds(["wfpstream", "ctl", "stats"])
        before = manifests["ConfigMap", "visitor-wfpstream"]["data"]["wfpstream.toml"]
        pod.config_map("visitor-wfpstream", {"wfpstream.toml": before.replace("sunny", "windy")})
        wait_for(
            lambda: "windy" in fetch(place.networks.pod, f"http://{place.networks.outside_address}:8080/")
        )
        # The app first, then the sidecar: the kubelet's order.
        running["app"].send(signal.SIGKILL)
        assert running["wfpstream"].stop() == 0, running["wfpstream"].output()


def test_kubernetes_proxy_ends_gracefully(images: dict[str, Image], place: Place) -> None:
    """SIGTERM: not ready at once, no new connection, and a transfer that is under way still finishes."""
    manifests = read_manifests(DEPLOY / "kubernetes/proxy.yaml")
    pod = Pod(manifests, "wfpstream", images, place.networks.pod, place.volumes, place.hosts)
    (entry,) = pod.spec["containers"]
    probe = entry["readinessProbe"]["exec"]["command"]
    with inside(place.networks.outside):
        server = socket.create_server((place.networks.outside_address, 8080))
    with server, pod.running() as running:
        proxy = running["wfpstream"]
        assert proxy.container.succeeds(probe)
        assert proxy.container.succeeds(["wfpstream", "ctl", "stats"])
        there = (place.networks.pod_address, entry["ports"][0]["containerPort"])
        with inside(place.networks.outside):
            client = socket.create_connection(there, PATIENCE)
        upstream, _ = server.accept()
        with client, upstream:
            client.settimeout(PATIENCE)
            upstream.sendall(b"It is rai")
            assert client.recv(6, socket.MSG_WAITALL) == b"It is "
            hook = entry["lifecycle"]["preStop"]["exec"]["command"]
            assert proxy.container.succeeds([hook[0], "0"]), "the image has what preStop needs"
            proxy.send(signal.SIGTERM)
            wait_for(lambda: not proxy.container.succeeds(probe))
            with inside(place.networks.outside), pytest.raises(ConnectionRefusedError):
                socket.create_connection(there, PATIENCE)
            upstream.sendall(b"ny today." * 100_000)
            upstream.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(1 << 16), b""))
            assert received == b"sunny today." + b"ny today." * 99_999
        assert proxy.wait() == 0, proxy.output()


# --- systemd --------------------------------------------------------------------------------------

_DYNAMIC_UID = 61234


def unit_container(unit: Unit, setting: str, place: Place, image: Image, config: str) -> Container:
    """What a command of the unit is: the image's files, the unit's rights."""
    file = place.folder / "wfpstream.toml"
    file.write_text(config, encoding="utf-8")
    runtime = place.volumes.empty("runtime", mode=0o755, uid=_DYNAMIC_UID, gid=_DYNAMIC_UID)
    start = Sandbox(
        image.root,
        network=place.networks.pod.name,
        mounts=(place.hosts, Mount(file, "/etc/wfpstream/wfpstream.toml")),
    )
    return Container(unit.name, unit.sandbox(start, _DYNAMIC_UID, runtime), unit.command(setting), [])


def is_started(unit: Unit, main: Container) -> bool:
    """Whether ExecStartPost says so; in there process 1 is always alive, as $MAINPID must be."""
    sandbox = replace(main.sandbox, environment={**main.sandbox.environment, "MAINPID": "1"})
    return replace(main, sandbox=sandbox).succeeds(unit.command("ExecStartPost"))


def test_systemd_service_needs_no_right_and_reloads(images: dict[str, Image], place: Place) -> None:
    unit = read_unit(DEPLOY / "systemd/wfpstream.service")
    config = '[[proxy.listener]]\nlisten = "0.0.0.0:8888"\nupstream = "weather:8080"\n'
    main = unit_container(unit, "ExecStart", place, images["wfpstream"], config)
    assert main.sandbox.capabilities == ()
    with weather(images, place), started(main) as running:
        assert is_started(unit, main)
        address = f"http://{place.networks.pod_address}:8888/"
        assert "rainy" in fetch(place.networks.outside, address)
        reload = replace(main, argv=unit.command("ExecReload"))
        edit = '[[rule]]\ncallout = "stream_edit,find=rainy,replace=sunny"\n'
        (place.folder / "wfpstream.toml").write_text(config + edit, encoding="utf-8")
        run_to_its_end(reload)
        assert "sunny" in fetch(place.networks.outside, address)
        (place.folder / "wfpstream.toml").write_text("[[rulez", encoding="utf-8")
        assert not reload.succeeds(reload.argv)
        assert "sunny" in fetch(place.networks.outside, address)
        assert running.stop() == 0, running.output()


def test_systemd_start_fails_when_the_proxy_is_gone(images: dict[str, Image], place: Place) -> None:
    """The wait for the ready file ends with the process that would have written it."""
    unit = read_unit(DEPLOY / "systemd/wfpstream.service")
    waiting = unit_container(unit, "ExecStartPost", place, images["wfpstream"], "")
    sandbox = replace(waiting.sandbox, environment={**waiting.sandbox.environment, "MAINPID": "99999"})
    assert not replace(waiting, sandbox=sandbox).succeeds(waiting.argv)


INTERCEPTING = """
[[proxy.listener]]
name = "intercepted"
mode = "redirect"
listen = "[::]:15001"
[transparent]
ports = [8080]
scope = "local"
[[rule]]
callout = "stream_edit,find=rainy,replace=sunny"
"""


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_systemd_transparent_service_needs_one_right_and_leaves_nothing(
    images: dict[str, Image], place: Place, how: str
) -> None:
    unit = read_unit(DEPLOY / "systemd/wfpstream-transparent.service")
    image = images["wfpstream-intercept"]
    main = unit_container(unit, "ExecStart", place, image, INTERCEPTING)
    assert main.sandbox.capabilities == ("net_admin",)
    network, address = place.networks.pod, f"http://{place.networks.outside_address}:8080/"
    before = network.state()
    with weather(images, place):
        with started(main) as running:
            assert is_started(unit, main)
            assert "sunny" in fetch(network, address)
            if how == "stopped":
                assert running.stop() == 0, running.output()
                assert network.state() == before
            else:
                running.send(signal.SIGKILL)
                running.wait()
                assert network.state() != before
        run_to_its_end(unit_container(unit, "ExecStopPost", place, image, INTERCEPTING))
        assert network.state() == before
        assert "rainy" in fetch(network, address)


@pytest.fixture(scope="module")
def machine(images: dict[str, Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine where wfpstream and systemd are installed, and a server that knows the weather."""
    folder = tmp_path_factory.mktemp("machine")
    root = folder / "root"
    try:
        copy_root(images["wfpstream-intercept"].root, root)
        environment, mounts = build_settings()
        install = "apt-get update && apt-get install --yes --no-install-recommends systemd"
        builder = Sandbox(
            root,
            capabilities=None,
            mounts=mounts,
            environment={
                **images["wfpstream"].environment,
                **environment,
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )
        run_to_its_end(Container("install systemd", builder, ["/bin/sh", "-c", install], []), 600)
        for unit in (DEPLOY / "systemd").glob("*.service"):
            shutil.copy(unit, root / "etc/systemd/system")
        shutil.copytree(DEPLOY / "compose/site", root / "srv/site")
        (root / "etc/wfpstream").mkdir(exist_ok=True)
        with booted(root, folder / "log") as machine:
            server = ["python3", "-m", "http.server", "--directory", "/srv/site", "8080"]
            machine.must("systemd-run", "--quiet", "--unit=weather", *server)
            wait_for(lambda: "rainy" in machine.fetch(8080))
            yield machine
    finally:
        shutil.rmtree(folder)


REVERSE = """
[[proxy.listener]]
listen = "127.0.0.1:8888"
upstream = "127.0.0.1:8080"
[[rule]]
callout = "stream_edit,find=rainy,replace=sunny"
"""


def test_the_real_systemd_runs_the_service(machine: Machine) -> None:
    """With all its sandboxing: system call filter, user namespace, private folders."""
    machine.configure(REVERSE)
    machine.must("systemctl", "start", "wfpstream")
    assert "sunny" in machine.fetch(8888)
    status = machine.must("sh", "-c", "cat /proc/$(systemctl show -P MainPID wfpstream)/status")
    rights = dict(line.split(":\t", 1) for line in status.splitlines())
    assert int(rights["CapPrm"], 16) == int(rights["CapBnd"], 16) == 0
    assert (rights["Seccomp"], rights["NoNewPrivs"]) == ("2", "1")
    assert "listening: 127.0.0.1:8888" in machine.must("/opt/wfpstream/bin/wfpstream", "ctl", "stats")
    machine.configure(REVERSE.replace("sunny", "windy"))
    machine.must("systemctl", "reload", "wfpstream")
    assert "windy" in machine.fetch(8888)
    machine.configure("[[rulez")
    assert machine.run("systemctl", "reload", "wfpstream").returncode != 0
    assert "windy" in machine.fetch(8888)
    machine.must("systemctl", "stop", "wfpstream")
    assert machine.must("systemctl", "show", "-P", "Result", "wfpstream") == "success\n"


_DROP_IN = "/etc/systemd/system/wfpstream.service.d"


@pytest.fixture
def with_workers(machine: Machine) -> Iterator[Machine]:
    """The service has a drop-in that adds `--workers 2`."""
    command = shlex.join(
        [*read_unit(DEPLOY / "systemd/wfpstream.service").command("ExecStart"), "--workers", "2"]
    )
    text = f"[Service]\nExecStart=\nExecStart={command}\n"
    write = f'mkdir -p {_DROP_IN} && printf %s "$1" > {_DROP_IN}/workers.conf && systemctl daemon-reload'
    machine.must("sh", "-c", write, "sh", text)
    try:
        yield machine
    finally:
        machine.must("sh", "-c", f"rm -r {_DROP_IN} && systemctl daemon-reload")


def test_the_real_systemd_runs_workers(with_workers: Machine) -> None:
    """Started means that all listen; the sandbox lets one be killed and started again; a stop ends all in order."""
    machine = with_workers
    ctl = ("/opt/wfpstream/bin/wfpstream", "ctl")

    def pids() -> list[str]:
        return re.findall(r"worker \d+: pid (\d+)", machine.run(*ctl, "stats").stdout)

    machine.configure(REVERSE)
    machine.must("systemctl", "start", "wfpstream")
    assert "sunny" in machine.fetch(8888)
    first = pids()
    assert len(first) == 2
    machine.must("sh", "-c", f"kill -9 {first[0]}")
    wait_for(lambda: len(set(pids()) - {first[0]}) == 2)
    machine.configure(REVERSE.replace("sunny", "windy"))
    machine.must("systemctl", "reload", "wfpstream")
    assert all("windy" in machine.fetch(8888) for _ in range(8))
    machine.must("systemctl", "stop", "wfpstream")
    told = machine.run("journalctl", "--no-pager", "-o", "cat", "-u", "wfpstream").stdout
    assert machine.must("systemctl", "show", "-P", "Result", "wfpstream") == "success\n", told
    assert "was killed by signal 9 (SIGKILL)" in told
    assert "did not end in time" not in told


def test_the_real_systemd_runs_the_transparent_service(machine: Machine) -> None:
    """It intercepts, comes again after a crash, and takes its rules back in the end."""
    machine.configure(INTERCEPTING)
    machine.must("systemctl", "start", "wfpstream-transparent")
    assert "sunny" in machine.fetch(8080)
    machine.must("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "wfpstream-transparent")
    wait_for(lambda: machine.must("systemctl", "show", "-P", "NRestarts", "wfpstream-transparent") == "1\n")
    wait_for(lambda: machine.run("systemctl", "is-active", "wfpstream-transparent").stdout == "active\n")
    assert "sunny" in machine.fetch(8080)
    machine.must("systemctl", "stop", "wfpstream-transparent")
    told = machine.run("journalctl", "--no-pager", "-o", "cat", "-u", "wfpstream-transparent").stdout
    result = machine.must("systemctl", "show", "-P", "Result", "wfpstream-transparent")
    assert result == "success\n", told
    assert machine.must("nft", "list", "ruleset") == ""
    assert "rainy" in machine.fetch(8080)
