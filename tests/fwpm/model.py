"""A model of management that is plain to see through: dictionaries that are copied, and nothing else.

Owns what each call must answer, what each session must see, and what callouts and subscribers must be told. It knows
nothing of how the engine stores, compares or compiles objects: sharing no code with it is the point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from wfpstream.fwp import NtStatus

S = NtStatus
SUCCESS = S.STATUS_SUCCESS

# Those that name others before those they name.
KINDS = ("filter", "callout", "sub_layer", "provider_context", "provider")
MISSING = {
    "filter": S.STATUS_FWP_FILTER_NOT_FOUND,
    "callout": S.STATUS_FWP_CALLOUT_NOT_FOUND,
    "sub_layer": S.STATUS_FWP_SUBLAYER_NOT_FOUND,
    "provider_context": S.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND,
    "provider": S.STATUS_FWP_PROVIDER_NOT_FOUND,
}

Reference = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Thing:
    """An object: its kind and key, the session it dies with (None: static), and the objects it names."""

    kind: str
    key: str
    owner: int | None
    names: tuple[Reference, ...] = ()
    number: int = 0
    announced: bool = False

    @property
    def callout(self) -> str | None:
        return next((key for kind, key in self.names if kind == "callout"), None)


@dataclass
class State:
    """All objects at one moment, in the order of adding; retiring filters have given up their keys."""

    things: dict[Reference, Thing] = field(default_factory=dict)
    retiring: dict[int, Thing] = field(default_factory=dict)

    def copy(self) -> State:
        return State(dict(self.things), dict(self.retiring))

    def of(self, kind: str) -> list[Thing]:
        return [one for one in self.things.values() if one.kind == kind]

    def filter(self, number: int) -> Thing | None:
        found = next((one for one in self.of("filter") if one.number == number), None)
        return found or self.retiring.get(number)

    def filter_of_key(self, key: str) -> Thing | None:
        leaving = [one for one in self.retiring.values() if one.key == key]
        return self.things.get(("filter", key)) or (leaving[-1] if leaving else None)

    def in_use(self, thing: Thing) -> bool:
        """A retiring filter needs nothing any more but its callout."""
        reference = (thing.kind, thing.key)
        holders = [*self.things.values(), *(self.retiring.values() if thing.kind == "callout" else ())]
        return any(reference in one.names for one in holders)

    def remove(self, thing: Thing) -> None:
        if self.things.get((thing.kind, thing.key)) is thing:
            del self.things[thing.kind, thing.key]
        if self.retiring.get(thing.number) is thing:
            del self.retiring[thing.number]


@dataclass
class Work:
    """A transaction: a copy of its own, and what was done to it."""

    state: State
    read_only: bool = False
    added: list[Thing] = field(default_factory=list)
    deleted: list[Thing] = field(default_factory=list)
    retired: list[Thing] = field(default_factory=list)


@dataclass
class Waiting:
    """A begin that waits for the lock."""

    who: int
    until: float


class Model:
    """Sessions by number; `dynamic` says which of them take their objects with them."""

    def __init__(self, sessions: int, dynamic: set[int], limit: float) -> None:
        self.dynamic = dynamic
        self.limit = limit
        self.now = 0.0
        self.committed = State()
        self.work: dict[int, Work] = {}
        self.writer: int | None = None
        self.queue: list[Waiting] = []
        # The answer to the latest begin of each session that had to wait.
        self.tickets: dict[int, NtStatus] = {}
        self.registered: set[str] = set()
        # Callouts that ask for ADD_FILTER_POST_COMMIT.
        self.wanting: set[str] = set()
        self.busy: set[int] = set()
        # What has to be told since somebody looked: (type, filter key, filterId), and (type, kind, key, number).
        self.notified: list[tuple[str, str | None, int]] = []
        self.told: dict[int, list[tuple[str, str, str, int]]] = {who: [] for who in range(sessions)}

    def seen_by(self, who: int) -> State:
        return self.work[who].state if who in self.work else self.committed

    # -- transactions

    def begin(self, who: int, read_only: bool) -> NtStatus:
        if who in self.work or any(one.who == who for one in self.queue):
            return S.STATUS_FWP_TXN_IN_PROGRESS
        if read_only:
            self.work[who] = Work(self.committed.copy(), read_only=True)
        elif self.writer is None:
            self._give_lock(who)
        else:
            self.queue.append(Waiting(who, self.now + self.limit))
            self.tickets[who] = S.STATUS_PENDING
            return S.STATUS_PENDING
        return SUCCESS

    def commit(self, who: int) -> NtStatus:
        if who not in self.work:
            return S.STATUS_FWP_NO_TXN_IN_PROGRESS
        work = self.work[who]
        if any(one.number in self.busy for one in work.deleted):
            return S.STATUS_FWP_IN_USE
        del self.work[who]
        if not work.read_only:
            self._put_in_force(who, work)
            self._notify_post_commit(work)
            self._pass_lock_on()
        return SUCCESS

    def abort(self, who: int) -> NtStatus:
        if who not in self.work:
            return S.STATUS_FWP_NO_TXN_IN_PROGRESS
        work = self.work.pop(who)
        self._notify_deleted([one for one in work.added if one.announced])
        if not work.read_only:
            self._pass_lock_on()
        return SUCCESS

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for one in [one for one in self.queue if one.until <= self.now]:
            self._stop_waiting(one, S.STATUS_FWP_TIMEOUT)

    def _give_lock(self, who: int) -> None:
        self.writer = who
        self.work[who] = Work(self.committed.copy())

    def _pass_lock_on(self) -> None:
        self.writer = None
        if self.queue:
            first = self.queue[0]
            self._stop_waiting(first, SUCCESS)
            self._give_lock(first.who)

    def _stop_waiting(self, one: Waiting, status: NtStatus) -> None:
        self.queue.remove(one)
        self.tickets[one.who] = status

    # -- objects

    def add(
        self, who: int, kind: str, key: str, names: tuple[Reference, ...], number: int, accepted: bool = True
    ) -> NtStatus:
        """`number`: what the engine made of it; `accepted`: how a registered callout answers."""

        def change(work: Work) -> NtStatus:
            for reference in names:
                target = work.state.things.get(reference)
                if target is None:
                    return MISSING[reference[0]]
                if target.owner is not None and target.owner != owner:
                    return S.STATUS_FWP_LIFETIME_MISMATCH
            if (kind, key) in work.state.things:
                return S.STATUS_FWP_ALREADY_EXISTS
            announced = kind == "filter" and dict(names).get("callout") in self.registered
            if announced and not accepted:
                return S.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED
            thing = Thing(kind, key, owner, names, number, announced)
            if announced:
                self.notified.append(("ADD", key, number))
            work.state.things[kind, key] = thing
            work.added += [thing] if kind == "filter" else []
            return SUCCESS

        owner = who if who in self.dynamic else None
        return self._write(who, change)

    def delete(self, who: int, kind: str, key: str) -> NtStatus:
        def change(work: Work) -> NtStatus:
            thing = work.state.things.get((kind, key))
            if thing is None:
                return MISSING[kind]
            if work.state.in_use(thing):
                return S.STATUS_FWP_IN_USE
            work.state.remove(thing)
            return SUCCESS

        return self._write(who, change)

    def delete_filter(self, who: int, find: Callable[[State], Thing | None]) -> NtStatus:
        def change(work: Work) -> NtStatus:
            thing = find(work.state)
            if thing is None:
                return S.STATUS_FWP_FILTER_NOT_FOUND
            if thing.number in self.busy or thing.number in work.state.retiring:
                return S.STATUS_FWP_IN_USE
            work.state.remove(thing)
            work.deleted.append(thing)
            return SUCCESS

        return self._write(who, change)

    def retire_filter(self, who: int, find: Callable[[State], Thing | None]) -> NtStatus:
        def change(work: Work) -> NtStatus:
            thing = find(work.state)
            if thing is None:
                return S.STATUS_FWP_FILTER_NOT_FOUND
            if thing.number in work.state.retiring:
                return SUCCESS
            work.state.remove(thing)
            if thing in work.added:
                work.deleted.append(thing)
            else:
                work.state.retiring[thing.number] = thing
                work.retired.append(thing)
            return SUCCESS

        return self._write(who, change)

    def _write(self, who: int, change: Callable[[Work], NtStatus]) -> NtStatus:
        own = self.work.get(who)
        if own is not None and own.read_only:
            return S.STATUS_FWP_INCOMPATIBLE_TXN
        if own is None and self.writer is not None:
            return S.STATUS_FWP_TIMEOUT
        work = own or Work(self.committed.copy())
        status = change(work)
        if own is None and status is SUCCESS:
            self._put_in_force(who, work)
        return status

    def _put_in_force(self, author: int, work: Work) -> None:
        before, self.committed = self.committed, work.state
        gone = [one for one in work.retired if one.number not in self.busy]
        for one in gone:
            self.committed.remove(one)
        self._tell(before, author)
        self._notify_deleted([*work.deleted, *gone])

    # -- what happens without a session

    def finish(self, number: int) -> None:
        """The last flow has let go of a retiring filter."""
        thing = self.committed.retiring[number]
        self.busy.discard(number)
        self._remove_everywhere([thing])

    def force_delete(self, number: int) -> NtStatus:
        thing = self.committed.filter(number)
        if thing is None:
            return S.STATUS_FWP_FILTER_NOT_FOUND
        self._remove_everywhere([thing])
        return SUCCESS

    def close(self, who: int) -> None:
        """The end of a session, whatever the cause."""
        self.told[who] = []
        for one in [one for one in self.queue if one.who == who]:
            self._stop_waiting(one, S.STATUS_FWP_SESSION_ABORTED)
        self.abort(who)
        if who in self.dynamic:
            everything = [*self.committed.things.values(), *self.committed.retiring.values()]
            self._remove_everywhere([one for one in everything if one.owner == who], deaf=who)
        self.tickets.pop(who, None)

    def stop(self) -> None:
        for who in self.told:
            self.close(who)
        self._remove_everywhere([*self.committed.things.values(), *self.committed.retiring.values()])
        self.told = {who: [] for who in self.told}

    def _remove_everywhere(self, things: list[Thing], deaf: int | None = None) -> None:
        """From what is in force, and from the work of whoever writes, so that no commit brings them back."""
        before, self.committed = self.committed, self.committed.copy()
        states = [self.committed]
        if self.writer is not None:
            work = self.work[self.writer]
            states.append(work.state)
            work.deleted = [one for one in work.deleted if one not in things]
            work.retired = [one for one in work.retired if one not in things]
        for thing in things:
            for state in states:
                state.remove(thing)
            self.busy.discard(thing.number)
        self._tell(before, None, deaf)
        self._notify_deleted([one for one in things if one.kind == "filter"])

    # -- what is told

    def _notify_deleted(self, filters: list[Thing]) -> None:
        for one in filters:
            if one.callout in self.registered:
                self.notified.append(("DELETE", None, one.number))

    def _notify_post_commit(self, work: Work) -> None:
        """NTF-6: only what was announced, is there, and belongs to a callout that asked for it."""
        for one in work.added:
            there = self.committed.things.get((one.kind, one.key)) is one
            if there and one.announced and one.callout in self.wanting & self.registered:
                self.notified.append(("POST_COMMIT", one.key, one.number))

    def _tell(self, before: State, author: int | None, deaf: int | None = None) -> None:
        """Everybody but the author hears of the differences: what went, then what came."""
        after = self.committed
        left = {*after.things.values(), *after.retiring.values()}
        gone = [one for one in before.retiring.values() if one not in left]
        for kind in KINDS:
            gone += [one for one in before.of(kind) if one not in left]
        come = [one for one in after.things.values() if one not in before.things.values()]
        changes = [("DELETE", one) for one in gone] + [("ADD", one) for one in come]
        for who, told in self.told.items():
            if who not in (author, deaf):
                told += [(what, one.kind, one.key, one.number) for what, one in changes]
