"""Callouts as the run time knows them: the plain structures, and the table of what is registered.

Owns keys, run-time ids and registration (section 2). It must not know flows, nor the comfortable class above.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from types import CodeType
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID, uuid5

from wfpstream.fwp import CalloutFlags

from ._constants import LAYERS_BY_NAME, LayerId
from ._net_buffer import NetBufferList

ClassifyFn = Callable[..., None]
NotifyFn = Callable[..., int]
FlowDeleteFn = Callable[[int, int, int], None]
CompletionFn = Callable[[Any, NetBufferList, bool], None]

NOT_INDICATED = frozenset(("ale_endpoint_closure",))  # LAY-1, LAY-9: optional, and not there
NAMESPACE = UUID("5b2c3d8e-4f0a-5e61-9a77-0d6c1e2f3a4b")

_CONDITIONAL = int(CalloutFlags.CONDITIONAL_ON_FLOW)
_MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


class Callout0:
    """FWPS_CALLOUT0 (Vista): classify_fn without classifyContext (CFN-11).

    Args:
        callout_key: identifies the callout (GUID).
        flags: `CalloutFlags` bits.
        classify_fn: classifyFn0, called with (in_fixed_values, in_meta_values, layer_data, filter,
            flow_context, classify_out).
        notify_fn: notifyFn(notify_type, filter_key, filter) -> NTSTATUS.
        flow_delete_fn: flowDeleteFn(layer_id, callout_id, flow_context), may be None.
    """

    __slots__ = ("callout_key", "classify_fn", "flags", "flow_delete_fn", "notify_fn")

    version: ClassVar[int] = 0

    def __init__(
        self,
        callout_key: UUID,
        flags: int,
        classify_fn: ClassifyFn | None,
        notify_fn: NotifyFn | None,
        flow_delete_fn: FlowDeleteFn | None = None,
    ) -> None:
        self.callout_key = callout_key
        self.flags = flags
        self.classify_fn = classify_fn
        self.notify_fn = notify_fn
        self.flow_delete_fn = flow_delete_fn


class Callout1(Callout0):
    """FWPS_CALLOUT1 (Windows 7): classify_fn has `classify_context` after `layer_data` (CFN-12)."""

    __slots__ = ()
    version: ClassVar[int] = 1


class Callout2(Callout0):
    """FWPS_CALLOUT2 (Windows 8): as version 1, `layer_data` optional."""

    __slots__ = ()
    version: ClassVar[int] = 2


class CalloutEntry:
    """One key of the callout table: shared by registration and addition (OBJ-8, OBJ-9)."""

    __slots__ = (
        "callout_id",
        "classify_code",
        "classify_fn",
        "conditional_on_flow",
        "contexts",
        "flags",
        "flow_delete_fn",
        "key",
        "last_filter",
        "mid_stream_allowed",
        "name",
        "notify_fn",
        "owner",
        "pended",
        "registered",
        "registered_at",
        "version",
    )

    def __init__(self, key: UUID, callout_id: int) -> None:
        self.key = key
        self.callout_id = callout_id
        self.name = str(key)
        self.owner: ComfortableCallout | None
        self.contexts = 0
        self.pended = 0
        self.registered_at = 0
        self.clear()

    def clear(self) -> None:
        """Not registered (any more)."""
        self.registered = False
        self.owner = None
        self.last_filter: Any = None  # the one notifyFn accepted last
        self.version = 2
        self.flags = 0
        self.classify_fn: ClassifyFn | None = None
        self.classify_code: CodeType | None = None
        self.notify_fn: NotifyFn | None = None
        self.flow_delete_fn: FlowDeleteFn | None = None
        self.conditional_on_flow = False
        self.mid_stream_allowed = False

    def register(self, structure: Callout0, tick: int) -> None:
        """Take over the code of a registered structure."""
        self.registered = True
        self.registered_at = tick
        self.version = structure.version
        self.flags = structure.flags
        self.classify_fn = structure.classify_fn
        function = getattr(structure.classify_fn, "__func__", structure.classify_fn)
        self.classify_code = getattr(function, "__code__", None)
        self.notify_fn = structure.notify_fn
        self.flow_delete_fn = structure.flow_delete_fn
        self.conditional_on_flow = bool(structure.flags & _CONDITIONAL)
        self.mid_stream_allowed = bool(structure.flags & _MID_STREAM)


# WFP Error Codes.
MAX_REGISTERED: Final = 100_000


class CalloutTable:
    """Every key that is known, its run-time id, and what is registered under it."""

    def __init__(self) -> None:
        self._by_key: dict[UUID, CalloutEntry] = {}
        self._by_id: dict[int, CalloutEntry] = {}
        self._last_id = 0

    def entry(self, key: UUID) -> CalloutEntry:
        """The entry of a key; its id is assigned on first use and never reused (OBJ-9)."""
        entry = self._by_key.get(key)
        if entry is None:
            self._last_id += 1
            entry = CalloutEntry(key, self._last_id)
            self._by_key[key] = entry
            self._by_id[entry.callout_id] = entry
        return entry

    def forget(self, key: UUID) -> None:
        """Drop a key that is not registered, not added and named by no filter; its id is not given again (OBJ-9)."""
        entry = self._by_key.get(key)
        if entry is not None and not entry.registered and not entry.contexts:
            del self._by_key[key]
            del self._by_id[entry.callout_id]

    def find(self, key: UUID | None) -> CalloutEntry | None:
        return self._by_key.get(key) if key is not None else None

    def find_id(self, callout_id: int) -> CalloutEntry | None:
        return self._by_id.get(callout_id)

    def registered_id(self, callout_id: int) -> CalloutEntry | None:
        """The entry of a registered callout, else None."""
        entry = self._by_id.get(callout_id)
        return entry if entry is not None and entry.registered else None

    def registered(self) -> list[CalloutEntry]:
        # A copy first: who adds a callout elsewhere asks from another thread.
        return [entry for entry in list(self._by_key.values()) if entry.registered]

    @property
    def full(self) -> bool:
        """As many callouts are registered as WFP allows."""
        # Keys are remembered for ever, so this many of them need not all be registered.
        return len(self._by_key) >= MAX_REGISTERED and len(self.registered()) >= MAX_REGISTERED


class ComfortableCallout(Protocol):
    """What registration needs of a `Callout`, so that the run time need not know the class above it."""

    name: str
    fwps: Any
    injection_handle: int
    version: int
    flags: int
    breaks_by_design: Collection[str]
    _ids: dict[int, int] | None

    @property
    def layers(self) -> Sequence[str]: ...
    @property
    def classify_fn(self) -> ClassifyFn: ...
    @property
    def notify_fn(self) -> NotifyFn: ...
    @property
    def flow_delete_fn(self) -> FlowDeleteFn: ...
    @property
    def drains(self) -> bool: ...
    def drain(self) -> None: ...
    def callout_id(self, layer_id: int) -> int: ...
    def on_registered(self) -> None: ...


_STRUCTURES: dict[int, type[Callout0]] = {0: Callout0, 1: Callout1, 2: Callout2, 3: Callout2}  # CFN-15


def layers_of(callout: ComfortableCallout) -> list[tuple[str, LayerId]]:
    """(layer name without suffix, run-time layer) for every layer and family a callout serves.

    Raises ValueError naming an unknown layer.
    """
    result = []
    for name in callout.layers:
        base, family = (name[:-3], name[-2:]) if name.endswith(("_v4", "_v6")) else (name, "")
        if base not in LAYERS_BY_NAME or base in NOT_INDICATED:
            known = ", ".join(sorted(LAYERS_BY_NAME.keys() - NOT_INDICATED))
            raise ValueError(f"unknown layer {name!r}; known: {known}")
        v4, v6 = LAYERS_BY_NAME[base]
        result += [(base, layer) for layer, wanted in ((v4, "v6"), (v6, "v4")) if family != wanted]
    return result


def callout_key(name: str, layer: LayerId) -> UUID:
    """REG-9: UUIDv5 of callout name, layer and family."""
    return uuid5(NAMESPACE, f"{name}/{layer.name}")


def structure_for(callout: ComfortableCallout, layer_name: str, key: UUID) -> Callout0:
    """The plain structure under which a comfortable callout is registered for one layer."""
    classify = getattr(callout, f"classify_{layer_name}", None) or callout.classify_fn
    return _STRUCTURES[callout.version](
        key, int(callout.flags), classify, callout.notify_fn, callout.flow_delete_fn
    )
