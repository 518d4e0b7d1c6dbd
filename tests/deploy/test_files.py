"""What is in deploy/, read: every file is what its format asks for, and they agree with each other.

That they work is tests/system/test_deployment.py's to show.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.system import find_program, missing, require
from tests.system.compose import SERVICE_KEYS, seconds
from tests.system.dockerfile import is_ignored, read_dockerfile
from tests.system.kubernetes import pod_of, read_manifests
from tests.system.units import read_unit
from wfpstream.cli import main
from wfpstream.config import build_engine, load_config, parse_config

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROXY_UID = 10001


def named(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in paths]


# --- Dockerfile -----------------------------------------------------------------------------------


def test_the_image_gets_the_package_and_nothing_beside_it() -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for wanted in (
        "wfpstream/__init__.py",
        "wfpstream/config/config.schema.json",
        "pyproject.toml",
        "README.md",
    ):
        assert not is_ignored(Path(wanted), patterns), wanted
    for unwanted in (
        ".git/config",
        ".venv/bin/python",
        "tests/test_house.py",
        "wfpstream/cli/__pycache__/a.pyc",
    ):
        assert is_ignored(Path(unwanted), patterns), unwanted


def test_the_image_is_debians_and_its_user_has_a_number() -> None:
    """Kubernetes' runAsNonRoot cannot look up a name."""
    instructions = read_dockerfile((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    bases = [step.rest.split() for step in instructions if step.word == "FROM"]
    stages = {words[2] for words in bases}
    assert {words[0] for words in bases} - stages == {"debian:bookworm-slim"}
    assert [step.rest for step in instructions if step.word == "USER"] == [f"{PROXY_UID}:{PROXY_UID}"]
    assert bases[-1][2] == "proxy", "what is built unless a target is named"


def test_dockerfile_reader_joins_lines_and_skips_comments() -> None:
    text = '# a\nFROM x AS y\nRUN one \\\n# between\n    && two\n\nCMD ["a", "b c"]\nCOPY --from=y /a /b\n'
    steps = read_dockerfile(text)
    assert [(step.word, step.line) for step in steps] == [("FROM", 2), ("RUN", 3), ("CMD", 7), ("COPY", 8)]
    assert steps[1].command() == ["/bin/sh", "-c", "one     && two"]
    assert steps[2].command() == ["a", "b c"]
    assert (steps[3].options, steps[3].arguments) == ({"from": "y"}, "/a /b")


# --- compose --------------------------------------------------------------------------------------


@pytest.fixture
def services() -> dict[str, dict[str, Any]]:
    text = (DEPLOY / "compose/compose.yaml").read_text(encoding="utf-8")
    loaded = yaml.safe_load(text)
    assert set(loaded) == {"services"}
    found = loaded["services"]
    assert isinstance(found, dict)
    return found


def test_compose_has_known_keys_only(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        for dependency, said in service.get("depends_on", {}).items():
            assert dependency in services
            assert said["condition"].startswith("service_")
        for volume in service.get("volumes", ()):
            assert (DEPLOY / "compose" / volume.split(":")[0]).exists(), volume


def test_compose_gives_rights_to_what_ends_only(services: dict[str, dict[str, Any]]) -> None:
    assert [name for name, service in services.items() if "cap_add" in service] == ["intercept"]
    assert services["intercept"]["cap_add"] == ["NET_ADMIN"]
    assert services["app"]["depends_on"]["intercept"]["condition"] == "service_completed_successfully"
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name


def test_compose_waits_longer_than_the_grace(services: dict[str, dict[str, Any]]) -> None:
    assert seconds(services["wfpstream"]["stop_grace_period"]) > 5


def test_compose_is_what_docker_takes_it_for() -> None:
    """Docker's own reader, where it is installed; it needs no engine for this."""
    docker = require_compose()
    command = [*docker, "--file", str(DEPLOY / "compose/compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) >= {"wfpstream", "intercept", "app"}


def require_compose() -> list[str]:
    docker = find_program("docker")
    if docker is not None:
        version = subprocess.run([docker, "compose", "version"], capture_output=True, check=False)
        if version.returncode == 0:
            return [docker, "compose"]
    pytest.skip("docker compose is not installed")


# --- Kubernetes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", named(MANIFESTS))
def test_manifests_fit_kubernetes_own_schema(path: Path) -> None:
    try:
        import kubernetes_validate
    except ImportError:
        missing("kubernetes-validate is not installed (it comes with the extra `dev`)")
    for entry in read_manifests(path).values():
        kubernetes_validate.validate(entry, kubernetes_validate.latest_version(), strict=True)


def containers_of(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each container of the file's Deployments, with its pod."""
    for (kind, _), entry in read_manifests(path).items():
        if kind == "Deployment":
            pod = pod_of(entry)
            for container in [*pod.get("initContainers", ()), *pod["containers"]]:
                yield container, pod


@pytest.mark.parametrize("path", named(MANIFESTS))
def test_containers_have_no_right_but_one_that_ends(path: Path) -> None:
    for container, pod in containers_of(path):
        rights = {**pod.get("securityContext", {}), **container["securityContext"]}
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}
        assert rights["capabilities"]["drop"] == ["ALL"]
        if container["name"] == "intercept":
            assert rights["capabilities"]["add"] == ["NET_ADMIN"]
            assert "restartPolicy" not in container
        else:
            assert "add" not in rights["capabilities"]
            assert rights["runAsNonRoot"] is True
            assert rights["readOnlyRootFilesystem"] is True
        assert {"requests", "limits"} <= set(container["resources"])


@pytest.mark.parametrize("path", named(MANIFESTS))
def test_manifests_agree_with_themselves(path: Path) -> None:
    """Selectors find their pods, volumes and ports are there, ConfigMaps too."""
    manifests = read_manifests(path)
    labels = [
        entry["spec"]["template"]["metadata"]["labels"]
        for (kind, _), entry in manifests.items()
        if kind == "Deployment"
    ]
    for (kind, _), entry in manifests.items():
        if kind == "Service":
            assert entry["spec"]["selector"] in labels
        elif kind in ("Deployment", "PodDisruptionBudget"):
            assert entry["spec"]["selector"]["matchLabels"] in labels
    for container, pod in containers_of(path):
        volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            volume = volumes[mount["name"]]
            assert "emptyDir" in volume or ("ConfigMap", volume["configMap"]["name"]) in manifests
    ports = {port["name"] for container, _ in containers_of(path) for port in container.get("ports", ())}
    targets = [
        port["targetPort"]
        for (kind, _), entry in manifests.items()
        if kind == "Service"
        for port in entry["spec"]["ports"]
    ]
    assert set(targets) <= ports


@pytest.mark.parametrize("path", named(MANIFESTS))
def test_pods_are_given_longer_than_the_grace(path: Path) -> None:
    """preStop counts too."""
    for container, pod in containers_of(path):
        if "run" in container.get("args", ()):
            (grace,) = [int(word[8:]) for word in container["args"] if word.startswith("--grace=")]
            hook = (
                container.get("lifecycle", {})
                .get("preStop", {})
                .get("exec", {})
                .get("command", ["sleep", "0"])
            )
            assert pod["terminationGracePeriodSeconds"] > grace + int(hook[1])


# --- configurations and commands ------------------------------------------------------------------


def configurations() -> Iterator[Any]:
    """Each configuration of the examples."""
    for path in sorted(DEPLOY.rglob("*.toml")):
        yield pytest.param(path.read_text(encoding="utf-8"), id=str(path.relative_to(DEPLOY)))
    for path in MANIFESTS:
        for (kind, name), entry in read_manifests(path).items():
            if kind == "ConfigMap" and "wfpstream.toml" in entry["data"]:
                yield pytest.param(entry["data"]["wfpstream.toml"], id=name)


@pytest.mark.parametrize("text", list(configurations()))
def test_configurations_can_be_used(text: str, tmp_path: Path) -> None:
    build_engine(parse_config(text, str(tmp_path / "wfpstream.toml")))


def interceptions() -> Iterator[Any]:
    """The commands that set up interception, with the port of the listener they lead to."""
    services = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text(encoding="utf-8"))["services"]
    config = load_config(DEPLOY / "compose/wfpstream.toml").config
    yield pytest.param(services["intercept"]["command"], config.proxy.listener[0].listen, id="compose")
    path = DEPLOY / "kubernetes/sidecar.yaml"
    (args,) = [container["args"] for container, _ in containers_of(path) if container["name"] == "intercept"]
    text = read_manifests(path)["ConfigMap", "visitor-wfpstream"]["data"]["wfpstream.toml"]
    yield pytest.param(args, parse_config(text).config.proxy.listener[0].listen, id="kubernetes")


@pytest.mark.parametrize(("args", "listen"), list(interceptions()))
def test_interception_leads_to_the_listener_and_spares_the_proxy(
    args: list[str], listen: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert args[:2] == ["transparent", "apply"]
    assert not main.main(["transparent", "print", *args[2:]], standalone_mode=False)
    printed = capfd.readouterr().out
    assert f"redirect to {listen.rpartition(']')[2]}" in printed
    assert f"meta skuid {PROXY_UID} accept" in printed


# --- systemd --------------------------------------------------------------------------------------


@pytest.mark.system("systemd-analyze")
@pytest.mark.parametrize("path", named(UNITS))
def test_units_are_what_systemd_takes_them_for(path: Path, tmp_path: Path) -> None:
    """Its own verifier; the program is taken to be where the unit says."""
    program = tmp_path / "wfpstream"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    copy = tmp_path / path.name
    copy.write_text(path.read_text(encoding="utf-8").replace("/opt/wfpstream/bin/wfpstream", str(program)))
    command = [require("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.system("systemd-analyze")
@pytest.mark.parametrize("path", named(UNITS))
def test_units_have_few_rights_in_systemds_eyes(path: Path) -> None:
    """0 is a service that can do nothing, 100 one that may do all; an ordinary one has 96."""
    limit = 20 if "transparent" in path.name else 15
    command = [require("systemd-analyze"), "security", "--offline=true", f"--threshold={limit}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", named(UNITS))
def test_units_wait_longer_than_the_grace(path: Path) -> None:
    unit = read_unit(path)
    words = unit.command("ExecStart")
    assert int(unit.one("TimeoutStopSec")) > int(words[words.index("--grace") + 1])


def test_units_differ_in_what_interception_needs() -> None:
    """So that what is tightened in one is tightened in the other."""
    plain, transparent = (
        read_unit(DEPLOY / f"systemd/{name}.service").service
        for name in ("wfpstream", "wfpstream-transparent")
    )
    differing = {name for name in {*plain, *transparent} if plain.get(name) != transparent.get(name)}
    assert differing == {
        "ExecStart",
        "ExecStopPost",
        "AmbientCapabilities",
        "CapabilityBoundingSet",
        "PrivateUsers",
        "ProcSubset",
        "RestrictAddressFamilies",
    }


def test_nothing_names_where_packages_come_from() -> None:
    """Hosts of package archives are the machine's business."""
    files = [ROOT / "Dockerfile", *(path for path in DEPLOY.rglob("*") if path.is_file())]
    for path in files:
        assert not re.search(r"https?://(?!weather\b|127\.|localhost)", path.read_text(encoding="utf-8")), (
            path
        )
