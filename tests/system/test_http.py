"""curl against nginx through `wfpstream run`: keep-alive, a chunked download with an edit, an upload."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import refusing_port
from tests.support.system import require
from tests.system.kit import nginx, proxy

pytestmark = [pytest.mark.system("curl", "nginx"), pytest.mark.timeout(600)]

MIB = 1 << 20
DOWNLOAD = 200 * MIB


def curl(*arguments: str) -> bytes:
    """What curl prints; it must succeed."""
    return subprocess.run(
        [require("curl"), "--silent", "--show-error", "--fail", *arguments],
        capture_output=True,
        check=True,
        timeout=500,
    ).stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder nginx serves."""
    (tmp_path / "www").mkdir()
    return tmp_path


def test_keep_alive_requests_are_the_same_as_without_the_proxy(site: Path) -> None:
    for number in range(20):
        (site / "www" / f"{number}.txt").write_bytes(f"page {number} is rainy\n".encode() * number)
    names = [f"{number}.txt" for number in range(20)]
    with nginx(site, "keepalive_requests 1000;") as port:
        direct = curl(*[f"http://127.0.0.1:{port}/{name}" for name in names])
        with proxy(("127.0.0.1", port), site, "monitor") as running:
            through = curl(*[f"http://{running.host}:{running.port}/{name}" for name in names])
        assert through == direct
        opened = [e for e in running.events() if e["event"] == "flow_established"]
        assert len(opened) == 1, "curl kept its connection"


def write_download(path: Path) -> str:
    """200 MiB in which a pattern stands in every 4 KiB; the digest after the edit.

    The pattern is never cut by a chunk's border (chunks are whole pages); the network cuts where it likes.
    """
    line = b"It is rainy today, and what follows is filler: ".ljust(4095, b"x") + b"\n"
    digest = hashlib.sha256()
    written = 0
    with path.open("wb") as file:
        while written < DOWNLOAD:
            file.write(line)
            digest.update(line.replace(b"rainy", b"sunny"))
            written += len(line)
    return digest.hexdigest()


@pytest.mark.parametrize("mode", ["inline", "oob"])
def test_chunked_download_of_200_mib_with_an_edit(site: Path, mode: str) -> None:
    expected = write_download(site / "www" / "big")
    # An SSI page is made on the fly, so nginx must use chunks: its length is not known beforehand.
    (site / "www" / "page.shtml").write_text('<!--#include file="/big" -->')
    with nginx(site, "ssi on; ssi_types *;") as port:
        edit = f"stream_edit,find=rainy,replace=sunny,mode={mode},direction=to_client"
        with proxy(("127.0.0.1", port), site, edit, events=False) as running:
            headers = site / "headers"
            url = f"http://{running.host}:{running.port}/page.shtml"
            with (site / "body").open("wb") as body:
                subprocess.run(
                    [require("curl"), "-sSf", "-D", str(headers), url], stdout=body, check=True, timeout=500
                )
            assert b"chunked" in headers.read_bytes()
    with (site / "body").open("rb") as body:
        assert hashlib.file_digest(body, "sha256").hexdigest() == expected


def test_upload_arrives_whole(site: Path) -> None:
    content = bytes(range(256)) * 4096 * 8
    (site / "upload").write_bytes(content)
    with (
        nginx(site, "location / { dav_methods PUT; }") as port,
        proxy(("127.0.0.1", port), site, "monitor") as running,
    ):
        curl("-T", str(site / "upload"), f"http://{running.host}:{running.port}/arrived")
    assert (site / "www" / "arrived").read_bytes() == content


def test_a_refused_upstream_ends_the_client_at_once(site: Path) -> None:
    with refusing_port() as port, proxy(("127.0.0.1", port), site) as running:
        answer = subprocess.run(
            [require("curl"), "-sS", f"http://{running.host}:{running.port}/"],
            capture_output=True,
            check=False,
            timeout=100,
        )
        # Reset while it connects, empty reply, reset while it writes or reads.
        assert answer.returncode in (7, 52, 55, 56), answer.stderr
    assert [e["event"] for e in running.events()] == ["connect_failed"]
