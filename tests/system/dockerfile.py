"""A small reader of Dockerfiles, and what performs their steps in folders instead of images.

Owns the instructions our Dockerfile uses, no more: one it does not know is an error, so that none is passed over.
Every stage ends as an `Image`: a folder with a root file system, and what the other instructions said. Steps run
by chroot in namespaces of their own (`sandbox`), so nothing stays mounted whatever happens.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from tests.system.sandbox import Mount, Sandbox

_START_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its word, the rest as written (lines joined), and its line."""

    word: str
    rest: str
    line: int

    @property
    def options(self) -> dict[str, str]:
        """The `--name=value` in front."""
        found = re.match(r"((?:--[a-z-]+=\S+\s+)*)", self.rest)
        assert found is not None
        return dict(part[2:].split("=", 1) for part in found[1].split())

    @property
    def arguments(self) -> str:
        """What follows the options."""
        return re.sub(r"^(?:--[a-z-]+=\S+\s+)*", "", self.rest)

    def command(self) -> list[str]:
        """The command of RUN, CMD, ENTRYPOINT: a JSON list, or a line for the shell."""
        if self.arguments.startswith("["):
            words = json.loads(self.arguments)
            assert all(isinstance(word, str) for word in words)
            return list(words)
        return ["/bin/sh", "-c", self.arguments]


def read_dockerfile(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile; comments go, also between continued lines."""
    instructions = []
    joined, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (line.strip() or joined):
            continue
        start = number if not joined else start
        joined += line.rstrip()
        if joined.endswith("\\"):
            joined = joined[:-1]
            continue
        word, _, rest = joined.strip().partition(" ")
        instructions.append(Instruction(word.upper(), rest.strip(), start))
        joined = ""
    assert not joined, "the last line is continued"
    return instructions


@dataclass(slots=True)
class Image:
    """A root file system in a folder, and how a container of it would be started."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _START_PATH})
    user: str = "0:0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)

    def sandbox(self) -> Sandbox:
        """A container of this image, with no capability and no network of its own."""
        uid, gid = numbers_of(self.user, self.root)
        return Sandbox(
            root=self.root, uid=uid, gid=gid, environment=dict(self.environment), folder=self.folder
        )


def numbers_of(user: str, root: Path) -> tuple[int, int]:
    """The numbers of `USER`: `10001:10001`, `10001`, or a name of the image's own /etc/passwd."""
    name, _, group = user.partition(":")
    for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines():
        fields = line.split(":")
        if name in (fields[0], fields[2]):
            return int(fields[2]), int(group or fields[3])
    return int(name), int(group or 0)


class Builder:
    """Performs the steps of a Dockerfile, one folder for each stage that changes files.

    Args:
        context: the folder that COPY takes from, with its `.dockerignore`.
        bases: root folders by the name of the image they stand for; they are not changed.
        folder: where the stages' root folders are made.
        build_environment: for RUN steps only, such as where packages come from.
        build_mounts: the same, such as certificates.
    """

    def __init__(
        self,
        context: Path,
        bases: Mapping[str, Path],
        folder: Path,
        build_environment: Mapping[str, str] | None = None,
        build_mounts: tuple[Mount, ...] = (),
    ) -> None:
        self._context = context
        self._bases = bases
        self._folder = folder
        self._build_environment = dict(build_environment or {})
        self._build_mounts = build_mounts
        self._image = Image(Path())
        self._is_own_root = False
        self.stages: dict[str, Image] = {}
        self._steps: dict[str, Callable[[Instruction], None]] = {
            "FROM": self._from,
            "RUN": self._run,
            "COPY": self._copy,
            "ENV": self._env,
            "USER": self._user,
            "WORKDIR": self._workdir,
            "HEALTHCHECK": self._healthcheck,
            "ENTRYPOINT": self._entrypoint,
            "CMD": self._cmd,
        }

    def build(self, text: str) -> Image:
        """The image of the last stage; all of them are in `stages`."""
        for instruction in read_dockerfile(text):
            step = self._steps.get(instruction.word)
            assert step is not None, f"line {instruction.line}: {instruction.word} is not understood here"
            step(instruction)
        return self._image

    def _from(self, instruction: Instruction) -> None:
        words = instruction.rest.split()
        assert [word.upper() for word in words[1:2]] == ["AS"], f"line {instruction.line}: FROM IMAGE AS NAME"
        earlier = self.stages.get(words[0])
        if earlier is None:
            self._image = Image(self._bases[words[0]])
        else:
            self._image = replace(earlier, environment=dict(earlier.environment))
        self._is_own_root = False
        self._name = words[2]
        self.stages[words[2]] = self._image

    def _own_root(self) -> Path:
        """This stage's own root folder: a copy of what it is made from, once it changes something."""
        if not self._is_own_root:
            root = self._folder / self._name
            copy_root(self._image.root, root)
            self._image.root = root
            self._is_own_root = True
        return self._image.root

    def _run(self, instruction: Instruction) -> None:
        self._own_root()
        sandbox = self._image.sandbox().with_rights_of_a_builder()
        sandbox = replace(
            sandbox,
            environment={**self._image.environment, "HOME": "/root", **self._build_environment},
            mounts=self._build_mounts,
        )
        done = subprocess.run(
            sandbox.command(instruction.command()), check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, f"line {instruction.line}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    def _copy(self, instruction: Instruction) -> None:
        *sources, target = instruction.arguments.split()
        root = self._own_root()
        stage = instruction.options.get("from")
        there = root / str(Path(self._image.folder, target)).lstrip("/")
        for source in sources:
            if stage is not None:
                _copy_tree(self.stages[stage].root / source.lstrip("/"), there)
                continue
            for path in files_of_context(self._context, source):
                place = there / path.relative_to(Path(source))
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._context / path, place)

    def _env(self, instruction: Instruction) -> None:
        for word in shlex.split(instruction.rest):
            name, _, value = word.partition("=")
            expanded = re.sub(
                r"\$\{?(\w+)\}?", lambda found: self._image.environment.get(found[1], ""), value
            )
            self._image.environment[name] = expanded

    def _user(self, instruction: Instruction) -> None:
        self._image.user = instruction.rest

    def _workdir(self, instruction: Instruction) -> None:
        self._image.folder = str(Path(self._image.folder, instruction.rest))
        (self._own_root() / self._image.folder.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _healthcheck(self, instruction: Instruction) -> None:
        word, _, rest = instruction.arguments.partition(" ")
        assert word == "CMD", f"line {instruction.line}: HEALTHCHECK CMD"
        self._image.healthcheck = Instruction("CMD", rest.strip(), instruction.line).command()

    def _entrypoint(self, instruction: Instruction) -> None:
        self._image.entrypoint, self._image.command = instruction.command(), []

    def _cmd(self, instruction: Instruction) -> None:
        self._image.command = instruction.command()


def copy_root(source: Path, target: Path) -> None:
    """A copy of a root folder that shares its programs' files, so that it costs little to make and to remove.

    What is installed is replaced as a whole, never written over; only data and settings are, and have copies of
    their own.
    """
    subprocess.run(["cp", "-a", "--link", str(source), str(target)], check=True)
    for folder in ("etc", "var"):
        shutil.rmtree(target / folder)
        subprocess.run(["cp", "-a", str(source / folder), str(target / folder)], check=True)


def _copy_tree(source: Path, target: Path) -> None:
    """As COPY does it: of a folder, what it holds."""
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/." if source.is_dir() else str(source), f"{target}/"], check=True)


def files_of_context(context: Path, source: str) -> Iterator[Path]:
    """The files below `source` that `.dockerignore` leaves in, relative to the context."""
    patterns = (context / ".dockerignore").read_text(encoding="utf-8").split()
    wanted = {Path(pattern[1:]).parts[0] for pattern in patterns if pattern.startswith("!")}
    for top in sorted((context / source).iterdir()):
        first = top.relative_to(context)
        if is_ignored(first, patterns) and first.parts[0] not in wanted:
            continue  # .git and .venv hold tens of thousands of files, none of them asked for
        for path in [top, *sorted(top.rglob("*"))]:
            relative = path.relative_to(context)
            if path.is_file() and not is_ignored(relative, patterns):
                yield relative


def is_ignored(path: Path, patterns: list[str]) -> bool:
    """Whether `.dockerignore` leaves the path out: the last pattern that fits it, or a folder above it, decides."""
    ignored = False
    candidates = [path, *path.parents][:-1]
    for pattern in patterns:
        plain = pattern.removeprefix("!")
        anywhere = plain.removeprefix("**/")
        for candidate in candidates:
            text = candidate.name if anywhere != plain else str(candidate)
            if fnmatch(text, anywhere):
                ignored = not pattern.startswith("!")
    return ignored
