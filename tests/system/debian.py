"""A Debian root folder, made by debootstrap from where this machine's packages come from.

Owns where packages come from, Debian's and Python's: read from the machine's own settings (apt's sources and
proxies, pip's configuration, the environment), never written down here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.system import missing, require
from tests.system.sandbox import Mount

SUITE = "bookworm"

_PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# What programs read to find the certificates they trust.
_CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Where files of this machine are seen while an image is built; a folder of its own, in memory, not in the image.
_MACHINE = "/dev/machine"


def make_root(folder: Path) -> None:
    """A minimal Debian in `folder`."""
    debootstrap = require("debootstrap")
    # As in the images that Debian makes: what is thrown away afterwards need not be safe on the disk.
    (folder / "etc/dpkg/dpkg.cfg.d").mkdir(parents=True)
    (folder / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n", encoding="utf-8")
    command = [debootstrap, "--variant=minbase", SUITE, str(folder), find_mirror()]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    proxies = [line for line in _apt_settings() if re.match(r"Acquire::https?::Proxy", line)]
    # Nor are packages kept.
    keep_none = 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };'
    (folder / "etc/apt/apt.conf.d/99machine").write_text(
        "\n".join([*proxies, keep_none, ""]), encoding="utf-8"
    )
    shutil.rmtree(folder / "var/cache/apt/archives")
    (folder / "var/cache/apt/archives/partial").mkdir(parents=True)


def _apt_settings() -> list[str]:
    return subprocess.run(
        [require("apt-config"), "dump"], capture_output=True, text=True, check=True
    ).stdout.splitlines()


def find_mirror(folder: Path = Path("/etc/apt")) -> str:
    """The archive that apt uses for Debian itself: the suite's own one, else that of any suite."""
    # Names alone: those with a hyphen are updates to them.
    sources = [(uri, suite) for uri, suite in read_sources(folder) if re.fullmatch(r"[a-z]+", suite)]
    if not sources:
        missing("apt's sources name no Debian archive")
    return next((uri for uri, suite in sources if suite == SUITE), sources[0][0])


def read_sources(folder: Path) -> Iterator[tuple[str, str]]:
    """Each (address, suite) with the component main, in both of apt's formats."""
    one_line = re.compile(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+.*\bmain\b", re.MULTILINE)
    for path in [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if path.suffix != ".sources":
            yield from one_line.findall(text)
            continue
        for paragraph in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", paragraph, re.MULTILINE))
            if "deb" in fields.get("Types", "").split() and "main" in fields.get("Components", "").split():
                yield from (
                    (uri, suite)
                    for uri in fields.get("URIs", "").split()
                    for suite in fields.get("Suites", "").split()
                )


def build_settings() -> tuple[dict[str, str], tuple[Mount, ...]]:
    """Environment and mounts with which pip and apt inside reach what they reach on this machine."""
    environment = pip_settings()
    for name in (*_PROXIES, *map(str.upper, _PROXIES), *_CERTIFICATES):
        if value := os.environ.get(name):
            environment[name] = value
    mounts = {}
    for name, value in environment.items():
        words = value.split()
        for index, word in enumerate(words):
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # An index in a folder refers to files beside it.
                seen = path.parent if word.startswith("file://") else path
                # Not at its own place: installing ca-certificates writes the file that the image has there.
                mounts[seen] = Mount(seen.resolve(), f"{_MACHINE}{seen}")
                words[index] = word.replace(str(path), f"{_MACHINE}{path}")
        environment[name] = " ".join(words)
    return environment, tuple(mounts.values())


def pip_settings() -> dict[str, str]:
    """pip's settings of this machine, whatever file or variable they come from, as variables."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings: dict[str, str] = {}
    for section, name, value in re.findall(r"^([^.\n]+)\.+([\w-]+)='(.*)'$", listed, re.MULTILINE):
        # A variable beats what a command's own section says, and that the section for all.
        if section == ":env:" or name not in settings:
            settings[name] = value.replace("\\n", " ")
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
