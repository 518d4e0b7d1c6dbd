"""Tables of management objects: entries, who names whom, lifetimes, and copy-on-write forks.

Owns storage and the questions about it. Must not know the rules of a call (which status when), nor the run
time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from wfpstream.fwpm._layers import Layer
from wfpstream.fwpm._types import Callout, Filter, Provider, ProviderContext, SubLayer
from wfpstream.fwps._filter import Filter2

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Entry(Generic[RecordT]):
    """A stored object; compared by identity, so a reference is simply the entry it names.

    `order` is the place in the order of adding (MGMT-8); `owner` the dynamic session it dies with, None for a
    static or built-in object (OBJ-3); `names` the entries this one refers to (OBJ-4, OBJ-5).
    """

    key: UUID
    record: RecordT
    order: int
    owner: object | None = None
    builtin: bool = False
    names: tuple[Entry[Any], ...] = ()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CalloutEntry(Entry[Callout]):
    """An added callout: the run-time id it shares with its registration (OBJ-8), and its layer."""

    callout_id: int
    layer: Layer


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FilterEntry(Entry[Filter]):
    """A filter: the object the run time uses, and whether its callout was told of it (NTF-1, NTF-7)."""

    run_time: Filter2
    announced: bool = False
    sub_layer_order: int = 0


EntryT = TypeVar("EntryT", bound=Entry[Any])


class Table(Generic[EntryT]):
    """Objects of one type by key. A fork shares its storage until either side is written to."""

    __slots__ = ("_entries", "_named", "_shared")

    def __init__(self, entries: dict[UUID, EntryT] | None = None, *, shared: bool = False) -> None:
        self._entries: dict[UUID, EntryT] = {} if entries is None else entries
        self._shared = shared
        # How often each entry of another table is named here; counted when somebody asks, and from then on kept.
        self._named: Counter[Entry[Any]] | None = None

    def fork(self) -> Table[EntryT]:
        self._shared = True
        return Table(self._entries, shared=True)

    def same_storage(self, other: Table[EntryT]) -> bool:
        """Neither was written to since one was forked from the other: they hold the same objects."""
        return self._entries is other._entries

    def get(self, key: UUID | None) -> EntryT | None:
        return None if key is None else self._entries.get(key)

    def __iter__(self) -> Iterator[EntryT]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def names(self, target: Entry[Any]) -> bool:
        """One of the objects here names it."""
        if self._named is None:
            self._named = Counter(named for entry in self for named in entry.names)
        return self._named[target] > 0

    def put(self, entry: EntryT) -> None:
        self.remove(self._entries.get(entry.key, entry))
        self._own()
        self._entries[entry.key] = entry
        if self._named is not None:
            self._named.update(entry.names)

    def remove(self, entry: EntryT) -> None:
        """Removes this very entry; without effect when it is not (or no longer) here."""
        if self._entries.get(entry.key) is entry:
            self._own()
            del self._entries[entry.key]
            if self._named is not None:
                self._named.subtract(entry.names)

    def _own(self) -> None:
        if self._shared:
            self._entries = dict(self._entries)
            self._shared = False


@dataclass(slots=True)
class Tables:
    """All objects at one moment: what is committed, or what an open transaction sees."""

    providers: Table[Entry[Provider]]
    provider_contexts: Table[Entry[ProviderContext]]
    sub_layers: Table[Entry[SubLayer]]
    callouts: Table[CalloutEntry]
    filters: Table[FilterEntry]
    # By filterId: a retiring filter is out of force and has given up its key (MGMT-16).
    retiring: dict[int, FilterEntry]

    @classmethod
    def empty(cls) -> Tables:
        return cls(Table(), Table(), Table(), Table(), Table(), {})

    def fork(self) -> Tables:
        """A copy whose changes this one does not see, and the other way round (MGMT-2)."""
        return Tables(
            self.providers.fork(),
            self.provider_contexts.fork(),
            self.sub_layers.fork(),
            self.callouts.fork(),
            self.filters.fork(),
            dict(self.retiring),
        )

    def filter_by_id(self, filter_id: int) -> FilterEntry | None:
        """The filter with that filterId, a retiring one too."""
        found = next((entry for entry in self.filters if entry.run_time.filter_id == filter_id), None)
        return found or self.retiring.get(filter_id)

    def filter_by_key(self, key: UUID | None) -> FilterEntry | None:
        """The filter with that key; where no other has taken it, the latest one that retires."""
        leaving = (entry for entry in reversed(self.retiring.values()) if entry.key == key)
        return self.filters.get(key) or next(leaving, None)

    def in_use(self, target: Entry[Any]) -> bool:
        """Some object names this one (OBJ-5).

        A retiring filter needs its callout; of the other objects it has copies.
        """
        if isinstance(target, CalloutEntry) and any(target in e.names for e in self.retiring.values()):
            return True
        return any(table.names(target) for table in self.by_type())

    def all_filters(self) -> list[FilterEntry]:
        """The filters in force, and those on their way out."""
        return [*self.filters, *self.retiring.values()]

    def discard_filter(self, entry: FilterEntry) -> None:
        """Removes this very filter, in force or retiring."""
        self.filters.remove(entry)
        self.retiring.pop(entry.run_time.filter_id, None)

    def discard_owned_by(self, owner: object) -> None:
        """Removes every object of a dynamic session; nothing that stays can name one of them (OBJ-4)."""
        self._discard(lambda entry: entry.owner is owner)

    def discard_all(self) -> None:
        """Removes every object but the built-in ones."""
        self._discard(lambda entry: not entry.builtin)

    def _discard(self, chosen: Callable[[Entry[Any]], bool]) -> None:
        for table in self.by_type():
            for entry in [entry for entry in table if chosen(entry)]:
                table.remove(entry)
        for one in [one for one in self.retiring.values() if chosen(one)]:
            del self.retiring[one.run_time.filter_id]

    def by_type(self) -> tuple[Table[Any], ...]:
        """Every table; one whose objects name others before the tables of those they name."""
        return (self.filters, self.callouts, self.sub_layers, self.provider_contexts, self.providers)


def outlives(owner: object | None, target: Entry[Any]) -> bool:
    """OBJ-4: an object of `owner` may name `target`, which lasts at least as long."""
    return target.owner is None or target.owner is owner
