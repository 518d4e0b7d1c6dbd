"""What a configuration asks for, as records: what people declared, and the objects that follow from it.

Owns their keys (UUIDv5 of kind and name) and when two of them are the same. It makes nothing and checks nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import msgspec

from wfpstream.config._errors import KeyPath
from wfpstream.config._model import Callout as CalloutTable
from wfpstream.config._model import Filter, Rule, SubLayer
from wfpstream.config._weights import Band
from wfpstream.fwp import EMPTY, ActionType, FwpValue
from wfpstream.fwpm import FilterCondition, Layer
from wfpstream.fwps import Callout

_NAMESPACE = UUID("4d1f2c56-6f0b-5b0e-8d52-3c1f9a7be0c4")

_LONG = 256


def key_of(*parts: str) -> UUID:
    """The key of an object: the same in every run, as long as its kind and name are."""
    return uuid5(_NAMESPACE, "/".join(parts))


def fingerprint(value: object) -> str:
    """A text that two values share only if they are the same, types included (`1`, `1.0` and `true` differ)."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, Mapping):
        items = sorted((str(key), fingerprint(one)) for key, one in value.items())
        return "{" + ",".join(f"{key!r}:{one}" for key, one in items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(fingerprint(one) for one in value) + "]"
    if isinstance(value, bytes) and len(value) > _LONG:
        return f"bytes:{hashlib.sha256(value).hexdigest()}"
    return repr(value)


@dataclass(frozen=True, slots=True)
class Declared:
    """One table of the file, one `--callout`, or one thing added by hand.

    Args:
        kind: `rule` (a `--callout` is one), `filter`, `sublayer` or `callout`.
        ident: what tells it from the others of its kind, in this and in later versions of the file.
        name: for people.
        table: what was said.
        path: where.
    """

    kind: str
    ident: str
    name: str
    table: Rule | Filter | SubLayer | CalloutTable
    path: KeyPath

    @property
    def id(self) -> str:
        """Unique among everything declared."""
        return f"{self.kind}/{self.ident}"


@dataclass(frozen=True, slots=True)
class Added:
    """A table that was added by hand, and stays when the file is read again.

    Args:
        kind: `rule`, `filter`, `sublayer` or `callout`.
        ident: as in `Declared`; empty for a new one.
        table: what was said.
        folder: what relative names in it start from.
        gone: keys of its filters that were deleted by hand.
    """

    kind: str
    ident: str
    table: Rule | Filter | SubLayer | CalloutTable
    folder: Path
    gone: frozenset[UUID] = frozenset()

    @property
    def id(self) -> str:
        """That of what it declares."""
        return f"{self.kind}/{self.ident}"

    @property
    def label(self) -> str:
        """What it is, for messages: `rule "monitor"`."""
        table = self.table
        name = table.callout if isinstance(table, Rule) and not table.name else table.name
        return f"{self.kind} {json.dumps(name, ensure_ascii=False)}"


@dataclass(frozen=True, slots=True)
class CalloutSpec:
    """What makes a callout object what it is.

    Args:
        use: its class, files with their folder.
        options: `fingerprint` of its options.
        code: digest of its file, if it is one.
        said: the class as it was written; `raw`: the options as they were. For people.
    """

    use: str
    options: str
    code: str
    said: str = field(compare=False)
    raw: Mapping[str, Any] = field(compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class PlannedCallout:
    """A callout object. One that is unchanged is the same record, so records are compared by identity.

    Args:
        owner: id of what declares it.
        name: for people and events.
        spec: what makes it what it is.
        object: the object.
        path: where it is declared.
    """

    owner: str
    name: str
    spec: CalloutSpec
    object: Callout
    path: KeyPath


@dataclass(frozen=True, slots=True)
class PlannedSubLayer:
    """A sublayer. `band` is where its weight is found; a `[[sublayer]]` has none and says its own."""

    key: UUID
    name: str
    owner: str
    path: KeyPath = field(compare=False)
    weight: int = 0
    band: Band | None = None


@dataclass(frozen=True, slots=True)
class PlannedFilter:
    """A filter at one layer. `options_said` is the fingerprint of `options`."""

    key: UUID
    name: str
    owner: str
    layer: Layer
    sub_layer: UUID
    action: ActionType
    path: KeyPath = field(compare=False)
    callout: PlannedCallout | None = None
    conditions: tuple[FilterCondition, ...] = ()
    weight: FwpValue = EMPTY
    options: object | None = field(default=None, compare=False)
    options_said: str = ""
    flags: int = 0


@dataclass(slots=True)
class Plan:
    """Everything, each in the order of the file: callouts by their owner's id, the others by key."""

    declared: dict[str, Declared] = field(default_factory=dict)
    callouts: dict[str, PlannedCallout] = field(default_factory=dict)
    sub_layers: dict[UUID, PlannedSubLayer] = field(default_factory=dict)
    filters: dict[UUID, PlannedFilter] = field(default_factory=dict)

    def copy(self) -> Plan:
        """A plan that can be changed without changing this one."""
        return Plan(dict(self.declared), dict(self.callouts), dict(self.sub_layers), dict(self.filters))
