"""README and docs/: every example runs, every link leads somewhere, generated pages say what the code says.

A page's Python blocks run one after the other in one namespace, like a reader who follows the page; a block that
begins with `# file: NAME` is also written to that file, where later blocks find it; if that is `test_*.py` or
`conftest.py`, pytest runs it instead. Of console blocks, our own
commands are run where that is harmless, and read as far as an engine where it is not. Where they replay captures,
there is a small one: `traffic.pcap`, a request for the weather and its answer.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from docs._generate import DOCS, PAGES
from docs._generate.names import find_faults, read_groups
from tests.cli.in_memory import running_in_memory
from tests.pytest_plugin.inner import QUIET
from tests.replay.kit import Capture, close
from wfpstream.cli import _proxy as cli_proxy
from wfpstream.cli import _workers as cli_workers
from wfpstream.cli import main
from wfpstream.cli._plan import RunPlan
from wfpstream.config import build_engine, load_config, parse_config

ROOT = DOCS.parent
README = ROOT / "README.md"
READERS_PAGES = [README, *sorted(path for path in DOCS.rglob("*.md") if "_generate" not in path.parts)]
NAMES = [str(path.relative_to(ROOT)) for path in READERS_PAGES]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILE = re.compile(r"(?:#|//) file: (\S+)\n")
_LANGUAGES = {"python", "toml", "console", "json", "sh", "text", "c"}
# Commands beside ours that a console block may have; they are not run.
_FOREIGN = {"make", "curl", "printf", "nc", "python3", "tcpdump", "pip"}
_FOREIGN |= {"install", "docker", "kubectl", "systemctl", "pytest", "python"}
_HARMLESS = {"check", "show", "callouts", "ctl", "replay", "transparent", "explain-status", "verify"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, text and line."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        found = _FILE.match(self.text)
        return found[1] if found else None

    @property
    def is_for_pytest(self) -> bool:
        """A file of tests, or of their fixtures."""
        return self.file is not None and (self.file.startswith("test_") or self.file == "conftest.py")


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(found[1], found[2], text.count("\n", 0, found.start()) + 1) for found in _BLOCK.finditer(text)
    ]


def need_what_it_needs(page: str) -> None:
    """Skip a page whose examples want an extra that is not installed."""
    if page.endswith("find_patterns.md"):
        pytest.importorskip("hyperscan", reason="hyperscan, of extra `match`, is not installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page's files are written, and its commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("traffic.pcap", "2026-05.pcap.gz", "captures/monday.pcap"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(weather().pcap())
    return tmp_path


def weather() -> Capture:
    """A capture: a request, and an answer whose words a segment border cuts."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"GET /today HTTP/1.1\r\nHost: weather\r\n\r\n", push=True)
    server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nIt is rai")
    server.send(b"ny today.\n", push=True)
    client.ack()
    close(client, server)
    return capture


def write_files(blocks: list[Block], folder: Path) -> None:
    for block in blocks:
        if block.file is not None:
            (folder / block.file).write_text(block.text, encoding="utf-8")
            os.chmod(folder / block.file, 0o644)


# --- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", NAMES)
def test_languages_are_known(page: str) -> None:
    """A block in a language that nothing here checks would rot."""
    assert {block.language for block in blocks_of(page)} <= _LANGUAGES


@pytest.mark.parametrize("page", NAMES)
def test_python(page: str, folder: Path) -> None:
    need_what_it_needs(page)
    blocks = blocks_of(page)
    write_files(blocks, folder)
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in blocks:
        if block.language == "python" and not block.is_for_pytest:
            source = "\n" * block.line + block.text
            exec(compile(source, str(ROOT / page), "exec"), namespace)


@pytest.mark.parametrize("page", [name for name in NAMES if any(b.is_for_pytest for b in blocks_of(name))])
def test_tests(page: str, pytester: pytest.Pytester) -> None:
    """The tests of a page pass, with snapshots that were written by a run before."""
    blocks = blocks_of(page)
    write_files(blocks, pytester.path)
    if any("assert_snapshot" in block.text for block in blocks if block.is_for_pytest):
        assert pytester.runpytest_inprocess("--wfp-update-snapshots", *QUIET).ret == 0
    result = pytester.runpytest_inprocess(*QUIET)
    assert result.ret == 0
    assert "passed" in result.parseoutcomes()


@pytest.mark.parametrize("page", NAMES)
def test_toml(page: str, folder: Path) -> None:
    blocks = blocks_of(page)
    write_files(blocks, folder)
    for block in blocks:
        if block.language == "toml":
            build_engine(parse_config(block.text, str(folder / "example.toml")))


@pytest.mark.parametrize("page", NAMES)
def test_console(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    need_what_it_needs(page)
    blocks = blocks_of(page)
    write_files(blocks, folder)
    if not (folder / "wfpstream.toml").exists():
        (folder / "wfpstream.toml").write_text(
            '[[proxy.listener]]\nupstream = "127.0.0.1:8080"\n', encoding="utf-8"
        )
    monkeypatch.setattr(cli_proxy, "run_proxy", started)
    monkeypatch.setattr(cli_workers, "run_workers", started)
    with asked_proxy(folder, monkeypatch):
        for command, expected in commands_of(blocks):
            code = run_command(command)
            printed = capfd.readouterr()
            assert code == 0, f"{command}: {printed.err}"
            if expected:
                assert printed.out == expected, command


@contextmanager
def asked_proxy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The proxy that `wfpstream ctl` finds: it has the page's `wfpstream.toml`, and two connections."""
    with running_in_memory(folder / "wfpstream.toml", folder / "control", monkeypatch) as proxy:
        proxy.connect(("127.0.0.1", 40001)).send(b"GET / HTTP/1.1\nHost")
        answered = proxy.connect(("127.0.0.1", 40002))
        answered.receive(b"It is rainy today.\n")
        answered.receive_fin()
        yield


def started(plan: RunPlan) -> int:
    """`run` up to the point where it would open sockets."""
    build_engine(plan.loaded, plan.callouts)
    return 0


def commands_of(blocks: list[Block]) -> Iterator[tuple[str, str]]:
    """Each command of the console and sh blocks, and what it is said to print."""
    for block in blocks:
        if block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                yield command, output
        elif block.language == "sh":
            joined = block.text.replace("\\\n", " ")
            yield from ((line, "") for line in joined.splitlines() if "bin/wfpstream" in line)


def run_command(command: str) -> int:
    words = shlex.split(command)
    name = Path(words[0]).name
    if name == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[1] in targets
    if name != "wfpstream":
        assert name in _FOREIGN, f"{command}: neither ours nor known"
        return 0
    assert words[1] in _HARMLESS | {"run", "demo", "torture"} or words[1].startswith("--"), command
    if words[1] == "demo":
        return 0  # tests/cli performs it
    if words[1] == "torture" and "--list" not in words:
        return 0  # tests/torture and tests/system perform it
    if words[1] == "verify":
        words += ["--effort", "5"]  # tests/cli and tests/testing go further
    code = main.main(words[1:], standalone_mode=False)
    return int(code or 0)


def test_a_wrong_command_is_noticed(folder: Path) -> None:
    assert run_command("wfpstream run --mode reverse:nowhere") != 0
    assert run_command("wfpstream check missing.toml") != 0


# --- links ----------------------------------------------------------------------------------------


def anchors_of(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    plain = _BLOCK.sub("", text)
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NAMES)
def test_links(page: str) -> None:
    path = ROOT / page
    text = path.read_text(encoding="utf-8")
    for link in _LINK.findall(_BLOCK.sub("", text)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors_of(target.read_text(encoding="utf-8")), f"{page}: no heading for {link}"


def test_every_page_can_be_reached() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text("utf-8"))}
    assert {path for path in READERS_PAGES if path != index} <= linked


# --- pages that follow from the code --------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_up_to_date(name: str) -> None:
    written = (DOCS / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run: python -m docs._generate"


def test_names_are_those_of_the_code() -> None:
    """Each of our names resolves; each enumeration is named in full; what is missing says why."""
    assert list(find_faults(read_groups())) == []


def test_a_name_is_listed_once() -> None:
    groups = read_groups()
    titles = [group.title for group in groups]
    assert len(titles) == len(set(titles))
    for group in groups:
        wfp = [name.wfp for name in group.names]
        assert len(wfp) == len(set(wfp)), group.title


def test_a_name_that_is_gone_is_noticed(tmp_path: Path) -> None:
    source = tmp_path / "names.toml"
    source.write_text(
        '[[group]]\ntitle = "t"\nours = "fwps.StreamFlags"\nprefix = "FWPS_STREAM_FLAG_"\ncomplete = true\n'
        '[group.names]\nGONE = ""\nSEND = { state = "planned" }\nRECEIVE = { state = "none" }\n',
        encoding="utf-8",
    )
    faults = list(find_faults(read_groups(source)))
    assert "FWPS_STREAM_FLAG_GONE: there is no fwps.StreamFlags.GONE" in faults
    assert any(
        fault.startswith("FWPS_STREAM_FLAG_SEND: fwps.StreamFlags.SEND exists now") for fault in faults
    )
    assert "FWPS_STREAM_FLAG_RECEIVE: not emulated, and no reason is given" in faults
    assert "fwps.StreamFlags.RECEIVE_PUSH: not in names.toml" in faults


def test_the_example_files_are_configurations() -> None:
    for path in sorted((ROOT / "configs").glob("*.toml")):
        build_engine(load_config(path))
