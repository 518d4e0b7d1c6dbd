"""TLS with openssl, redis with pipelining, an ssh session and scp through `wfpstream run`."""

from __future__ import annotations

import getpass
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.support.system import require, require_root
from tests.system.kit import proxy, server

pytestmark = pytest.mark.system("openssl")

THROTTLED = "latency,delay=1ms"


def run(command: list[str], data: bytes = b"", timeout: float = 110) -> bytes:
    """Standard output of a command that must succeed."""
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=timeout).stdout


@pytest.mark.parametrize("callout", ["monitor", THROTTLED])
def test_tls_with_openssl(tmp_path: Path, callout: str) -> None:
    openssl = require("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    run(
        [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            str(key),
            "-out",
            str(certificate),
            "-days",
            "2",
        ]
    )
    page = b"0123456789abcdef" * 65536
    (tmp_path / "page").write_bytes(page)

    def command(port: int) -> list[str]:
        return [
            openssl,
            "s_server",
            "-accept",
            f"127.0.0.1:{port}",
            "-key",
            str(key),
            "-cert",
            str(certificate),
            "-WWW",
            "-quiet",
        ]

    os.chdir(tmp_path)
    with server(command) as port, proxy(("127.0.0.1", port), tmp_path, callout) as running:
        for version in ("-tls1_2", "-tls1_3"):
            answer = run(
                [
                    openssl,
                    "s_client",
                    "-connect",
                    f"{running.host}:{running.port}",
                    "-quiet",
                    version,
                    "-verify_quiet",
                    "-CAfile",
                    str(certificate),
                    "-verify_return_error",
                    "-servername",
                    "localhost",
                ],
                b"GET /page HTTP/1.0\r\n\r\n",
            )
            assert answer.partition(b"\r\n\r\n")[2] == page


@pytest.mark.system("redis-server", "redis-cli")
def test_redis_with_pipelining(tmp_path: Path) -> None:
    program, client = require("redis-server"), require("redis-cli")

    def command(port: int) -> list[str]:
        return [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]

    commands = b"".join(
        b"*3\r\n$3\r\nSET\r\n$%d\r\nk%d\r\n$%d\r\n%s\r\n" % (len(b"k%d" % n), n, n % 400, b"v" * (n % 400))
        for n in range(20_000)
    )
    with server(command) as port, proxy(("127.0.0.1", port), tmp_path, "monitor") as running:
        through = [client, "-h", running.host, "-p", str(running.port)]
        assert b"errors: 0, replies: 20000" in run([*through, "--pipe"], commands)
        direct = [client, "-h", "127.0.0.1", "-p", str(port)]
        script = b"DBSIZE\nGET k399\nGET k1\nINCR n\nLRANGE none 0 -1\n"
        first = run(direct, script)
        run(direct, b"DEL n\n")
        assert run(through, script) == first


@pytest.mark.system("ssh", "sshd", "scp", "ssh-keygen")
def test_ssh_session_and_scp(tmp_path: Path) -> None:
    require_root()
    keygen, sshd = require("ssh-keygen"), require("sshd")
    host_key, user_key = tmp_path / "host", tmp_path / "user"
    for key in (host_key, user_key):
        run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)])
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    Path("/run/sshd").mkdir(exist_ok=True)
    tmp_path.chmod(0o700)

    def command(port: int) -> list[str]:
        options = {
            "Port": port,
            "ListenAddress": "127.0.0.1",
            "HostKey": host_key,
            "PidFile": tmp_path / "pid",
            "AuthorizedKeysFile": tmp_path / "authorized",
            "StrictModes": "no",
            "UsePAM": "no",
            "PermitRootLogin": "yes",
            "PasswordAuthentication": "no",
            "Subsystem": "sftp internal-sftp",
        }
        return [sshd, "-D", "-f", "/dev/null", *(f"-o{name}={value}" for name, value in options.items())]

    content = os.urandom(8 << 20)
    (tmp_path / "file").write_bytes(content)
    with server(command) as port, proxy(("127.0.0.1", port), tmp_path, "monitor") as running:
        common = [
            "-i",
            str(user_key),
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
            "-o",
            "BatchMode=yes",
        ]
        me = f"{getpass.getuser()}@{running.host}"
        answer = run(["ssh", *common, "-p", str(running.port), me, "sha256sum"], content)
        assert answer.split()[0].decode() == hashlib.sha256(content).hexdigest()
        run(["scp", *common, "-P", str(running.port), str(tmp_path / "file"), f"{me}:{tmp_path}/copy"])
    assert (tmp_path / "copy").read_bytes() == content
