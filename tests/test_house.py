"""The rules of the house, read from the source: floors, names, closed public lists, size.

A room imports only lower floors and itself; rooms on one floor are strangers. Floors 0-3 do no I/O and read
no clock. The checker works on any folder, so the second half of this file tries it on small made-up packages.
"""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import wfpstream
from tests.support.system import require

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "wfpstream"
TREE = ROOT / PACKAGE

# `__init__` is the package's own: it re-exports floors 0-3 and must stay as light as they are.
# `__main__` starts the command line, so it stands above it.
FLOORS: dict[str, float] = {
    "fwp": 0, "wire": 0,
    "fwps": 1,
    "fwpm": 2, "callouts": 2,
    "engine": 3,
    "__init__": 3.5,
    "transport": 4, "intercept": 4, "control": 4, "config": 4, "observe": 4, "replay": 4, "testing": 4, "torture": 4,
    "cli": 5, "pytest_plugin": 5,
    "__main__": 6,
}  # fmt: skip
IO_FLOOR = 4
BANNED_BELOW_IO = frozenset({"trio", "socket", "select", "selectors", "scapy", "time", "asyncio"})
ASYNCIO_ROOMS = frozenset({"pytest_plugin", "testing"})
SCAPY_ROOMS = frozenset({"replay"})
MAX_LINES = 700
# The parts of a statement that can hold a bound name; a comprehension's names stay inside it.
BINDING_PARTS = (ast.Tuple, ast.List, ast.Starred, ast.withitem, ast.ExceptHandler, ast.match_case)


# --- reading a package ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Module:
    """One source file: its path inside the package, its room and its tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The folder below the package, or the file's own name at its top."""
        return self.path.parts[0].removesuffix(".py")

    @property
    def package(self) -> list[str]:
        """The dotted name, in parts, from which this file's relative imports count."""
        return [PACKAGE, *self.path.parent.parts]


@dataclass(frozen=True, slots=True)
class Import:
    """One imported dotted name, made absolute."""

    line: int
    name: str
    typing_only: bool

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        """For an import from our own package: the room it comes from."""
        second = self.name.split(".")[1:2]
        return second[0] if second and second[0] in FLOORS else "__init__"


def read_package(folder: Path) -> Iterator[Module]:
    """Every module below `folder`, in a fixed order."""
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        yield Module(path.relative_to(folder), text, ast.parse(text, str(path)))


def is_type_checking(test: ast.expr) -> bool:
    """Whether an `if` asks `TYPE_CHECKING`, plain or through its module."""
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", None)
    return name == "TYPE_CHECKING"


class ImportCollector(ast.NodeVisitor):
    """Collects imports wherever they stand: at the top, in functions, under TYPE_CHECKING, by importlib."""

    def __init__(self, module: Module) -> None:
        self.found: list[Import] = []
        self._package = module.package
        self._typing_only = False

    def visit_If(self, node: ast.If) -> None:
        if not is_type_checking(node.test):
            self.generic_visit(node)
            return
        before, self._typing_only = self._typing_only, True
        for statement in node.body:
            self.visit(statement)
        self._typing_only = before
        for statement in node.orelse:
            self.visit(statement)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = self._absolute(node.level, node.module or "")
        for alias in node.names:
            self._add(node.lineno, f"{base}.{alias.name}")

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        first = node.args[0] if node.args else None
        if (
            called in ("import_module", "__import__")
            and isinstance(first, ast.Constant)
            and isinstance(first.value, str)
        ):
            name = first.value.lstrip(".")
            self._add(node.lineno, self._absolute(len(first.value) - len(name), name))
        self.generic_visit(node)

    def _absolute(self, level: int, name: str) -> str:
        if level == 0:
            return name
        return ".".join([*self._package[: len(self._package) - level + 1], *filter(None, [name])])

    def _add(self, line: int, name: str) -> None:
        self.found.append(Import(line, name, self._typing_only))


def imports_of(module: Module) -> list[Import]:
    """Everything `module` imports."""
    collector = ImportCollector(module)
    collector.visit(module.tree)
    return collector.found


# --- the rules ------------------------------------------------------------------------------------


def check_floors(modules: Iterable[Module]) -> Iterator[str]:
    """A room imports only lower floors and itself; typing imports count."""
    for module in modules:
        if module.room not in FLOORS:
            yield f"{module.path}: {module.room} has no floor"
            continue
        for found in imports_of(module):
            if found.top != PACKAGE or found.room == module.room:
                continue
            here, there = FLOORS[module.room], FLOORS[found.room]
            if there >= here:
                way = "sideways" if there == here else "upward"
                yield f"{module.path}:{found.line}: {way} import of {found.name}"


def check_externals(modules: Iterable[Module]) -> Iterator[str]:
    """No I/O and no clock below floor 4; scapy in replay only; asyncio nearly nowhere."""
    for module in modules:
        for found in imports_of(module):
            if not found.typing_only and is_forbidden(found.top, module.room):
                yield f"{module.path}:{found.line}: {module.room} must not import {found.top}"


def is_forbidden(top: str, room: str) -> bool:
    """Whether `room` must not import the outside module `top`."""
    if top == "asyncio":
        return room not in ASYNCIO_ROOMS
    if top == "scapy":
        return room not in SCAPY_ROOMS
    return top in BANNED_BELOW_IO and FLOORS.get(room, 0) < IO_FLOOR


def check_names(modules: Iterable[Module]) -> Iterator[str]:
    """Modules are underscore-named, but for the package's two entrances and the callouts."""
    for module in modules:
        *folders, file = module.path.parts
        stem = file.removesuffix(".py")
        at_top = not folders
        is_callout = folders == ["callouts"]
        if not (stem.startswith("_") or is_callout or (at_top and stem == "pytest_plugin")):
            yield f"{module.path}: the name of a module starts with an underscore"
        if any(not folder.startswith("_") for folder in folders[1:]):
            yield f"{module.path}: the name of a folder inside a room starts with an underscore"


def check_public_names(modules: Iterable[Module]) -> Iterator[str]:
    """Each room's `__init__` binds exactly what its literal `__all__` says."""
    modules = list(modules)
    rooms = {module.path.parts[0] for module in modules if len(module.path.parts) > 1}
    inits = {module.path.parts[0]: module for module in modules if is_room_init(module)}
    for room in sorted(rooms - inits.keys()):
        yield f"{room}: has no __init__.py"
    for module in inits.values():
        submodules = {other.path.stem for other in modules if other.path.parent == module.path.parent}
        yield from check_all(module, submodules)


def is_room_init(module: Module) -> bool:
    """Whether this is the `__init__` of a room, or of the package itself."""
    return module.path.name == "__init__.py" and len(module.path.parts) <= 2


def check_all(module: Module, submodules: set[str]) -> Iterator[str]:
    """Compare one `__all__` with the names bound beside it."""
    names = literal_all(module.tree)
    if names is None:
        yield f"{module.path}: __all__ is not one literal list of strings"
        return
    bound = set(bound_names(module.tree.body))
    if len(names) != len(set(names)):
        yield f"{module.path}: __all__ names something twice"
    if "*" in bound:
        yield f"{module.path}: import * leaves the public names open"
    if "__getattr__" not in bound:
        for name in sorted(set(names) - bound - submodules):
            yield f"{module.path}: {name} is in __all__ and does not exist"
    for name in sorted(bound - set(names) - {"*", "TYPE_CHECKING"}):
        if not name.startswith("_"):
            yield f"{module.path}: {name} is public and not in __all__"


def literal_all(tree: ast.Module) -> list[str] | None:
    """The value of `__all__`, or None unless it is assigned once, as a literal."""
    values = []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                values.append(None if isinstance(node, ast.AugAssign) else node.value)
    if len(values) != 1 or not isinstance(values[0], ast.List | ast.Tuple):
        return None
    items = [item.value for item in values[0].elts if isinstance(item, ast.Constant)]
    names = [item for item in items if isinstance(item, str)]
    return names if len(names) == len(values[0].elts) else None


def bound_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names a module's top level binds when it runs."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module != "__future__":
                yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            yield from bound_names(node.orelse)
        else:
            yield from bound_in_statement(node)


def bound_in_statement(node: ast.AST) -> Iterator[str]:
    """The names an assignment binds, or the statements a compound one holds."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from bound_names([child])
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, BINDING_PARTS):
            yield from bound_in_statement(child)


def check_docstrings(modules: Iterable[Module]) -> Iterator[str]:
    """Each module says what it owns."""
    for module in modules:
        if not ast.get_docstring(module.tree):
            yield f"{module.path}: has no docstring"


def check_length(modules: Iterable[Module]) -> Iterator[str]:
    """No file is too long to read in one sitting."""
    for module in modules:
        lines = len(module.text.splitlines())
        if lines > MAX_LINES:
            yield f"{module.path}: {lines} lines, the limit is {MAX_LINES}"


Rule = Callable[[Iterable[Module]], Iterator[str]]
RULES: list[Rule] = [
    check_floors,
    check_externals,
    check_names,
    check_public_names,
    check_docstrings,
    check_length,
]


# --- our own package ------------------------------------------------------------------------------


def existing_rooms() -> list[str]:
    """The rooms that are there, as names to import."""
    return sorted(path.parent.name for path in TREE.glob("*/__init__.py"))


@pytest.mark.parametrize("rule", RULES)
def test_package_keeps(rule: Rule) -> None:
    broken = list(rule(read_package(TREE)))
    assert not broken, "\n".join(["", *broken])


@pytest.mark.parametrize("room", existing_rooms())
def test_public_names_exist(room: str) -> None:
    module = importlib.import_module(f"{PACKAGE}.{room}")
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing


def loaded_after(*names: str) -> set[str]:
    """The modules a fresh interpreter has loaded after importing `names`."""
    lines = [f"import {name}" for name in names]
    code = "\n".join([*lines, "import json, sys", "print(json.dumps(sorted(sys.modules)))"])
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_import_is_light() -> None:
    assert not {"trio", "scapy"} & loaded_after(PACKAGE)


def test_lower_floors_are_light() -> None:
    rooms = [f"{PACKAGE}.{room}" for room in existing_rooms() if FLOORS.get(room, IO_FLOOR) < IO_FLOOR]
    assert not {"trio", "scapy"} & loaded_after(PACKAGE, *rooms)


def test_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == wfpstream.__version__


def test_public_callout_files_are_entry_points() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = project["entry-points"]["wfpstream.callouts"]
    files = {path.stem for path in (TREE / "callouts").glob("[!_]*.py")}
    assert files <= targets.keys()
    for name in files:
        module, _, attribute = targets[name].partition(":")
        assert module == f"{PACKAGE}.callouts.{name}"
        assert hasattr(importlib.import_module(module), attribute)


# --- the checker, on made-up packages -------------------------------------------------------------

CLEAN = {
    "__init__.py": '"""Doc."""\nfrom wfpstream.engine import Engine\n__all__ = ["Engine", "__version__"]\n'
    '__version__ = "0"\n',
    "__main__.py": '"""Doc."""\nfrom wfpstream.cli import main\nmain()\n',
    "fwp/__init__.py": '"""Doc."""\nfrom ._types import Action\n__all__ = ["Action"]\n',
    "fwp/_types.py": '"""Doc."""\nimport enum\nclass Action(enum.Enum): ...\n',
    "callouts/__init__.py": '"""Doc."""\n__all__ = []\n',
    "callouts/banner.py": '"""Doc."""\nfrom typing import TYPE_CHECKING\nfrom ..fwp import Action\n'
    "if TYPE_CHECKING:\n    import trio\n",
    "engine/__init__.py": '"""Doc."""\nfrom ._engine import Engine\n__all__ = ["Engine"]\n',
    "engine/_engine.py": '"""Doc."""\nfrom wfpstream import fwp\nclass Engine: ...\n',
    "replay/__init__.py": '"""Doc."""\n__all__ = ("read",)\ndef read() -> None:\n    import scapy.utils\n',
    "testing/__init__.py": '"""Doc."""\nimport asyncio as _asyncio\n__all__: list[str] = []\n',
    "cli/__init__.py": '"""Doc."""\nfrom wfpstream import __version__ as _v\n'
    'from wfpstream import replay as _r\n__all__ = ["main"]\ndef main() -> None: ...\n',
    "pytest_plugin.py": '"""Doc."""\nimport time\nfrom wfpstream.testing import x\n',
}


def broken_in(folder: Path, files: dict[str, str]) -> list[str]:
    """Write the clean package with `files` changed, and return what every rule says."""
    for name, text in (CLEAN | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [line for rule in RULES for line in rule(read_package(folder))]


def test_checker_is_quiet_about_a_clean_package(tmp_path: Path) -> None:
    assert broken_in(tmp_path, {}) == []


DOC = '"""Doc."""\n'
TYPING = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("fwp/_a.py", "import wfpstream.engine", "fwp/_a.py:2: upward import of wfpstream.engine"),
        ("fwp/_a.py", "from ..engine import Engine", "fwp/_a.py:2: upward import of wfpstream.engine.Engine"),
        ("fwp/_a.py", "from .. import engine", "fwp/_a.py:2: upward import of wfpstream.engine"),
        ("fwp/_a.py", "from wfpstream import Engine", "fwp/_a.py:2: upward import of wfpstream.Engine"),
        ("fwp/_a.py", "from wfpstream import wire", "fwp/_a.py:2: sideways import of wfpstream.wire"),
        ("fwp/_b/_c.py", "from ...wire import x", "fwp/_b/_c.py:2: sideways import of wfpstream.wire.x"),
        ("cli/_a.py", "import wfpstream.pytest_plugin", "cli/_a.py:2: sideways import of"),
        ("fwp/_a.py", "def f():\n    import wfpstream.wire", "fwp/_a.py:3: sideways import of"),
        ("fwp/_a.py", TYPING + "import wfpstream.wire", "fwp/_a.py:4: sideways import of"),
        ("fwp/_a.py", "import_module('wfpstream.wire')", "fwp/_a.py:2: sideways import of"),
        ("fwp/_a.py", "importlib.import_module('..wire', __package__)", "fwp/_a.py:2: sideways import of"),
        ("__init__.py", "from .transport import x\n__all__ = ['x']", "__init__.py:2: upward import of"),
        ("_spare.py", "", "_spare.py: _spare has no floor"),
        ("attic/__init__.py", "__all__ = []", "attic/__init__.py: attic has no floor"),
        ("engine/_a.py", "import trio", "engine/_a.py:2: engine must not import trio"),
        ("engine/_a.py", "from trio.lowlevel import checkpoint", "engine must not import trio"),
        ("engine/_a.py", "def f():\n    from time import monotonic", "_a.py:3: engine must not import time"),
        ("fwp/_a.py", "import socket as s", "fwp/_a.py:2: fwp must not import socket"),
        ("fwp/_a.py", "import select", "fwp/_a.py:2: fwp must not import select"),
        ("__init__.py", "import time as _t\n__all__ = []", "__init__ must not import time"),
        ("fwp/_a.py", TYPING + "pass\nelse:\n    import trio", "fwp must not import trio"),
        ("transport/_a.py", "import asyncio", "transport must not import asyncio"),
        ("cli/_a.py", "import scapy.all", "cli must not import scapy"),
        ("fwp/types.py", "", "fwp/types.py: the name of a module starts with an underscore"),
        ("fwp/pytest_plugin.py", "", "fwp/pytest_plugin.py: the name of a module"),
        ("callouts/inner/_a.py", "", "callouts/inner/_a.py: the name of a folder"),
        ("fwp/__init__.py", "", "fwp/__init__.py: __all__ is not one literal"),
        ("fwp/__init__.py", "__all__ = []\n__all__ += ['x']", "fwp/__init__.py: __all__ is not one literal"),
        ("fwp/__init__.py", "__all__ = [x]", "fwp/__init__.py: __all__ is not one literal"),
        ("fwp/__init__.py", "__all__ = ['x', 'x']\nx = 1", "fwp/__init__.py: __all__ names something twice"),
        ("fwp/__init__.py", "__all__ = ['gone']", "gone is in __all__ and does not exist"),
        ("fwp/__init__.py", "__all__ = []\nimport enum", "enum is public and not in __all__"),
        ("fwp/__init__.py", "__all__ = []\nx: int = 1", "x is public and not in __all__"),
        ("fwp/__init__.py", "__all__ = []\ntry:\n    x = 1\nfinally: ...", "x is public and not in"),
        ("fwp/__init__.py", "__all__ = []\nfrom ._types import *", "import * leaves the public names open"),
        ("wire/_a.py", "", "wire: has no __init__.py"),
        ("fwp/_a.py", "x = 1\n" * MAX_LINES, f"fwp/_a.py: {MAX_LINES + 1} lines"),
    ],
)
def test_checker_finds(tmp_path: Path, file: str, text: str, message: str) -> None:
    broken = broken_in(tmp_path, {file: DOC + text})
    assert [line for line in broken if message in line], broken


def test_checker_finds_a_missing_docstring(tmp_path: Path) -> None:
    assert broken_in(tmp_path, {"fwp/_a.py": "x = 1\n"}) == ["fwp/_a.py: has no docstring"]


def test_checker_sees_only_names_bound_at_the_top(tmp_path: Path) -> None:
    inside = "if True:\n    def _f():\n        x = 1\n_y = [z for z in ()]\n__all__ = []\n"
    assert broken_in(tmp_path, {"wire/__init__.py": DOC + inside}) == []


def test_checker_allows_a_lazy_name(tmp_path: Path) -> None:
    lazy = "__all__ = ['late']\ndef __getattr__(name): ...\n"
    assert broken_in(tmp_path, {"fwp/__init__.py": DOC + lazy}) == []


# --- programs outside Python ----------------------------------------------------------------------


def test_a_missing_program_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WFPSTREAM_SYSTEM", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        require("no-such-program")


def test_a_missing_promised_program_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WFPSTREAM_SYSTEM", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program")


def test_a_program_is_found() -> None:
    assert Path(require("sh")).name == "sh"
