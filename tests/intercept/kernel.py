"""A small kernel in memory: tables, routing rules and routes, changed by the arguments that `nft` and `ip` get.

It knows only what interception uses, and answers as the real programs do, errors included; `tests/system` holds the
same behaviour against the real ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wfpstream.intercept import InterceptError, Machine, Outcome

ALL_CAPABILITIES = "000001ffffffffff"
OURS = "made by wfpstream transparent"


class Killed(BaseException):
    """What a test raises where the process is to be cut short."""


@dataclass
class Kernel:
    """The programs and the state behind them.

    Attributes:
        tables: comment of each `inet` table by name.
        rules: (flag, priority, mark, table); routes: (flag, table).
        calls: every changing call so far.
        fail_at: the number of the changing call that fails, from 0; None: none does.
        fail_with: an exception to raise there instead of a failing exit code.
        fails_after: whether that exception comes after the change was made.
        lacking: programs that are not there.
        refused: words of rules that the kernel has no module for.
        chains: base chains of others, as `nft -j` has them.
        loopback: the flags of lo.
        emptied: tables whose rules were removed.
        is_dead: after `Killed` whoever asked can ask nothing more, not even to clean up.
    """

    tables: dict[str, str] = field(default_factory=dict)
    rules: list[tuple[str, int, int, int]] = field(default_factory=list)
    routes: list[tuple[str, int]] = field(default_factory=list)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    fail_at: int | None = None
    fail_with: BaseException | None = None
    fails_after: bool = False
    lacking: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)
    is_dead: bool = False
    chains: list[dict[str, object]] = field(default_factory=list)
    loopback: list[str] = field(default_factory=lambda: ["UP"])

    def state(self) -> tuple[object, ...]:
        """Everything there is, to compare."""
        return dict(self.tables), sorted(self.rules), sorted(self.routes)

    def find(self, program: str) -> str | None:
        return None if program in self.lacking else f"/usr/sbin/{program}"

    def run(self, program: str, arguments: Sequence[str], text: str = "") -> Outcome:
        if self.is_dead:
            raise Killed
        if program in self.lacking:
            raise InterceptError(f"{program} is not installed")
        words = list(arguments)
        if program == "nft" and words[0] in ("-j", "-t", "--check"):
            return self._nft_read(words, text)
        if program == "ip" and words[0] == "-j":
            return self._ip_read(words)
        if program == "ss":
            return Outcome(1)
        number = len(self.calls)
        self.calls.append((program, *words))
        if number != self.fail_at:
            return self.change(program, words, text)
        if self.fail_with is None:
            return Outcome(2, "", "RTNETLINK answers: Operation not supported\n")
        if self.fails_after:
            self.change(program, words, text)
        self.is_dead = isinstance(self.fail_with, Killed)
        raise self.fail_with

    def _nft_read(self, words: list[str], text: str) -> Outcome:
        if words[0] == "--check":
            bad = [name for name in self.refused if name in text]
            return Outcome(1, "", "Error: Could not process rule: No such file\n") if bad else Outcome(0)
        if words[-1] == "chains":
            return Outcome(0, json.dumps({"nftables": [{"chain": chain} for chain in self.chains]}))
        if words[0] == "-j":
            entries = [{"table": {"family": "inet", "name": name, "handle": 1}} for name in self.tables]
            return Outcome(0, json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *entries]}))
        name = words[-1]
        return Outcome(0, f'table inet {name} {{\n\tcomment "{self.tables[name]}"\n}}\n')

    def _ip_read(self, words: list[str]) -> Outcome:
        if "link" in words:
            return Outcome(0, json.dumps([{"ifname": "lo", "flags": ["LOOPBACK", *self.loopback]}]))
        flag, what = words[2], words[3]
        if what == "rule":
            shown: list[dict[str, object]] = [{"priority": 0, "src": "all", "table": "255"}]
            shown += [
                {"priority": priority, "src": "all", "fwmark": hex(mark), "table": str(table)}
                for own, priority, mark, table in self.rules
                if own == flag
            ]
            return Outcome(0, json.dumps([*shown, {"priority": 32766, "src": "all", "table": "254"}]))
        table = int(words[-1])
        if (flag, table) not in self.routes:
            return Outcome(2, "[", "Error: ipv4: FIB table does not exist.\nDump terminated\n")
        return Outcome(0, json.dumps([{"type": "2", "dst": "default", "dev": "lo"}]))

    def change(self, program: str, words: list[str], text: str) -> Outcome:
        """What the program does when nothing fails."""
        if program == "nft":
            return self._nft_change(words, text)
        flag, what, verb = words[:3]
        entry = self._entry(flag, what, words[3:])
        store: list[tuple[int | str, ...]] = self.rules if what == "rule" else self.routes  # type: ignore[assignment]
        if (verb == "add") == (entry in store):
            why = "File exists" if verb == "add" else "No such file or directory"
            return Outcome(2, "", f"RTNETLINK answers: {why}\n")
        if verb == "add":
            store.append(entry)
        else:
            store.remove(entry)
        return Outcome(0)

    @staticmethod
    def _entry(flag: str, what: str, words: list[str]) -> tuple[int | str, ...]:
        if what == "route":
            assert words[:4] == ["local", "default", "dev", "lo"]
            return flag, int(words[5])
        values = dict(zip(words[::2], words[1::2], strict=True))
        return flag, int(values["priority"]), int(values["fwmark"], 16), int(values["lookup"])

    def _nft_change(self, words: list[str], text: str) -> Outcome:
        if words[:3] == ["delete", "table", "inet"]:
            return Outcome(0) if self.tables.pop(words[3], None) else Outcome(1, "", "Error: No such file\n")
        if text.startswith("flush table inet "):
            self.emptied.add(text.split()[3])
            return Outcome(0)
        found = re.match(r'create table inet (\S+) \{ comment "([^"]*)"; \}\n', text)
        assert words == ["-f", "-"]
        assert found is not None
        if found[1] in self.tables:
            return Outcome(1, "", "/dev/stdin:1:1-2: Error: Could not process rule: File exists\n")
        self.tables[found[1]] = found[2]
        return Outcome(0)


def machine(folder: Path, kernel: Kernel, *, ipv6: bool = True, rights: bool = True) -> Machine:
    """A machine with this kernel, its records and its /proc below `folder`."""
    proc = folder / "proc"
    write(proc / "self/status", "".join(f"{kind}:\t{ALL_CAPABILITIES if rights else 0}\n" for kind in _KINDS))
    write(proc / "net/if_inet6", "")
    write(proc / "sys/net/ipv6/conf/all/disable_ipv6", "0" if ipv6 else "1")
    return Machine(kernel, proc, folder / "state" / "intercept")


_KINDS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def write(path: Path, text: str) -> None:
    """A file, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
