"""Random histories of sessions, transactions and objects against `model.Model` (OBJ-1..OBJ-9, MGMT-1..MGMT-3,
MGMT-11, MGMT-13, MGMT-15..MGMT-17, NTF-1..NTF-7, IRQ-6).

After every step: each session sees exactly its own state; exactly the committed filters are in force; callouts and
subscribers have been told what had to be told, no more, no less, and subscribers in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.fwpm.model import KINDS, Model, Reference, State
from tests.fwpm.support import (
    ADD,
    DELETE,
    POST_COMMIT,
    SUCCESS,
    a_callout,
    a_filter,
    key,
    named,
    open_session,
    start,
)
from wfpstream import fwpm
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import NotifyType

# Two static sessions, two dynamic ones.
EVERYBODY = range(4)
DYNAMIC = {2, 3}
LIMIT = 10.0

KEYS = ("one", "two", "three", "four")
NAMES = {key(name): name for name in KEYS}

T = TypeVar("T")

SUBSCRIPTIONS: dict[str, Any] = {
    "filter": fwpm.FilterSubscription,
    "callout": fwpm.CalloutSubscription,
    "sub_layer": fwpm.SubLayerSubscription,
    "provider": fwpm.ProviderSubscription,
    "provider_context": fwpm.ProviderContextSubscription,
}


def references(**keys: str | None) -> tuple[Reference, ...]:
    """The objects named, in the order in which the engine looks for them (MGMT-4)."""
    return tuple((kind, name) for kind, name in keys.items() if name is not None)


def optional_key(name: str | None) -> Any:
    return None if name is None else key(name)


def likely(good: Iterable[T], everything: Iterable[T]) -> st.SearchStrategy[T]:
    """Mostly something that makes sense now; the rest is there for what must be refused."""
    sensible = list(good)
    return st.sampled_from([*sensible * 3, *everything])


class Sessions(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.fake, self.management = start()
        self.model = Model(len(EVERYBODY), DYNAMIC, LIMIT)
        self.told: dict[int, list[tuple[str, str, str, int]]] = {}
        self.sessions: dict[int, fwpm.Session] = {}
        # Enumerations: whose handle it is, what it has to give, and what it has given.
        self.pages: dict[int, tuple[int, list[int], list[int]]] = {}
        self.steps_since_an_end = 0
        for who in EVERYBODY:
            self.open(who)
        # Present from the start: histories without filters say little.
        for name in KEYS[:3]:
            self.add_provider(0, name)
            self.add_provider_context(0, name, None)
            self.add_sub_layer(0, name, None)
            self.add_callout(0, name, None)
        self.register("one", True)
        self.register("two", True)
        self.fake.wants_commit_notify.add(key("two"))
        self.model.wanting.add("two")
        for name in KEYS[:2]:
            self.add_filter(0, name, "one", (None, None, name), True)

    def open(self, who: int) -> None:
        flags = fwpm.SessionFlags.DYNAMIC if who in DYNAMIC else 0
        session = open_session(self.management, flags, txn_wait_timeout=LIMIT)
        self.sessions[who], self.told[who] = session, []
        for kind in KINDS:
            subscribe = getattr(session, f"{kind}_subscribe_changes")
            status, _ = subscribe(
                SUBSCRIPTIONS[kind](), lambda change, kind=kind: self.hear(who, kind, change)
            )
            assert status is SUCCESS

    def hear(self, who: int, kind: str, change: Any) -> None:
        name = NAMES[getattr(change, f"{kind}_key")]
        number = getattr(change, f"{kind}_id", 0)
        self.told[who].append((change.change_type.name, kind, name, number))

    # -- choices

    def some_actor(self, data: st.DataObject) -> int:
        """Mostly whoever can write, so that transactions get long enough to matter."""
        writer = self.model.writer
        return data.draw(likely([writer] * 3 if writer is not None else [], EVERYBODY), "who")

    def some_key(self, data: st.DataObject, who: int, kind: str) -> str:
        """Mostly of an object the session sees."""
        return data.draw(likely((one.key for one in self.model.seen_by(who).of(kind)), KEYS), kind)

    def maybe_key(self, data: st.DataObject, who: int, kind: str) -> str | None:
        return self.some_key(data, who, kind) if data.draw(st.booleans()) else None

    def new_key(self, data: st.DataObject, who: int, kind: str) -> str:
        """Mostly of no object yet."""
        taken = {one.key for one in self.model.seen_by(who).of(kind)}
        return data.draw(likely((name for name in KEYS if name not in taken), KEYS), "key")

    def contested(self) -> list[int]:
        """Filters in force that an open transaction is about to take out."""
        leaving = [one for work in self.model.work.values() for one in (*work.deleted, *work.retired)]
        return [one.number for one in leaving if one in self.model.committed.things.values()]

    def some_filter(self, data: st.DataObject, state: State) -> int:
        numbers = [*(one.number for one in state.of("filter")), *state.retiring]
        return data.draw(likely(numbers, [10**6]), "filter")

    # -- what may happen next

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        """One rule for all, since what matters needs many kinds of steps in one history, each with its weight."""
        action = data.draw(st.sampled_from(self.possible()), "step")
        getattr(self, action)(data)
        self.steps_since_an_end += 1

    def possible(self) -> list[str]:
        """Names, so that a failing history can be read; more often those of which more is needed."""
        model = self.model
        names = ["add_any_filter"] * 5 + ["add"] * 3 + ["delete"] * 3 + ["register_any"]
        names += ["remove_filter_by_id", "remove_filter_by_key"] * 2
        if len(model.work) + len(model.queue) < 3:
            names += ["begin"] * (1 if model.writer is not None else 4)
        if model.work:
            names += ["commit"] * 2 + ["abort"]
        if model.queue:
            names += ["let_time_pass"]
        if model.committed.of("filter"):
            names += ["a_callout_sets_to_work"] * 3
        if model.busy - model.committed.retiring.keys():
            names += ["retire_a_busy_filter"] * 2
        if model.busy:
            names += ["a_callout_has_finished"] * 2
        if model.committed.of("filter") or model.committed.retiring:
            names += ["force_delete"]
        if len(self.pages) < 2:
            names += ["open_enumeration"]
        if self.pages:
            names += ["turn_page"] * 2
        if self.steps_since_an_end > 6:
            names += ["close_and_open_again"]
        if self.steps_since_an_end > 20:
            names += ["stop"]
        return names

    # -- transactions

    def begin(self, data: st.DataObject) -> None:
        read_only = data.draw(st.sampled_from([False, False, False, True]), "read only")
        waiting = {one.who for one in self.model.queue}
        free = [who for who in EVERYBODY if who not in self.model.work and who not in waiting]
        who = data.draw(likely(free, EVERYBODY), "who")
        flags = fwpm.TransactionFlags.READ_ONLY if read_only else 0
        assert self.sessions[who].transaction_begin(flags) is self.model.begin(who, read_only)

    def commit(self, data: st.DataObject) -> None:
        who = data.draw(likely(self.model.work, EVERYBODY), "who")
        assert self.sessions[who].transaction_commit() is self.model.commit(who)

    def abort(self, data: st.DataObject) -> None:
        who = data.draw(likely(self.model.work, EVERYBODY), "who")
        assert self.sessions[who].transaction_abort() is self.model.abort(who)

    def let_time_pass(self, data: st.DataObject) -> None:
        seconds = data.draw(st.sampled_from([1.0, LIMIT / 2, LIMIT]), "seconds")
        self.fake.advance(seconds)
        self.model.advance(seconds)

    # -- objects

    def add(self, data: st.DataObject) -> None:
        kind = data.draw(st.sampled_from(KINDS[1:]), "kind")
        who = self.some_actor(data)
        name = self.new_key(data, who, kind)
        if kind == "provider":
            self.add_provider(who, name)
        else:
            getattr(self, f"add_{kind}")(who, name, self.maybe_key(data, who, "provider"))

    def add_any_filter(self, data: st.DataObject) -> None:
        who = self.some_actor(data)
        kinds = ("provider", "provider_context", "callout")
        accepted = data.draw(st.sampled_from([True, True, True, False]), "accepted")
        sub_layer = self.some_key(data, who, "sub_layer")
        provider, provider_context, callout = (self.maybe_key(data, who, kind) for kind in kinds)
        name = self.new_key(data, who, "filter")
        self.add_filter(who, name, sub_layer, (provider, provider_context, callout), accepted)

    def add_provider(self, who: int, name: str) -> None:
        record = fwpm.Provider(provider_key=key(name), display_data=named(name))
        status = self.sessions[who].provider_add(record)
        assert status is self.model.add(who, "provider", name, (), 0)

    def add_provider_context(self, who: int, name: str, provider: str | None) -> None:
        record = fwpm.ProviderContext(
            provider_context_key=key(name), display_data=named(name), provider_key=optional_key(provider)
        )
        status = self.sessions[who].provider_context_add(record)
        assert status is self.model.add(who, "provider_context", name, references(provider=provider), 0)

    def add_sub_layer(self, who: int, name: str, provider: str | None) -> None:
        record = fwpm.SubLayer(
            sub_layer_key=key(name), display_data=named(name), provider_key=optional_key(provider)
        )
        status = self.sessions[who].sub_layer_add(record)
        assert status is self.model.add(who, "sub_layer", name, references(provider=provider), 0)

    def add_callout(self, who: int, name: str, provider: str | None) -> None:
        record = a_callout(name, provider_key=optional_key(provider))
        status, number = self.sessions[who].callout_add(record)
        assert status is self.model.add(who, "callout", name, references(provider=provider), number)

    def add_filter(
        self,
        who: int,
        name: str,
        sub_layer: str,
        more: tuple[str | None, str | None, str | None],
        accepted: bool,
    ) -> None:
        """`more`: keys of provider, provider context and callout; `accepted`: how the callout answers."""
        provider, provider_context, callout = more
        self.fake.on_notify = lambda notify_type, filter: (
            SUCCESS if accepted or notify_type != ADD else NtStatus.STATUS_UNSUCCESSFUL
        )
        record = a_filter(
            filter_key=key(name),
            sub_layer_key=key(sub_layer),
            provider_key=optional_key(provider),
            flags=0 if provider_context is None else fwpm.FilterFlags.HAS_PROVIDER_CONTEXT,
            provider_context_key=optional_key(provider_context),
            action_type=ActionType.PERMIT if callout is None else ActionType.CALLOUT_UNKNOWN,
            callout_key=optional_key(callout),
        )
        status, number = self.sessions[who].filter_add(record)
        named_objects = references(
            sub_layer=sub_layer, provider=provider, provider_context=provider_context, callout=callout
        )
        assert status is self.model.add(who, "filter", name, named_objects, number, accepted)
        if status is NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED:
            # It was asked, and refused: no filter of which more could be said.
            assert self.fake.notified.pop()[:2] == (ADD, key(name))

    def delete(self, data: st.DataObject) -> None:
        who = self.some_actor(data)
        # A retiring filter keeps its callout, and nothing else.
        kept = ["callout"] if self.model.seen_by(who).retiring else []
        kind = data.draw(likely(kept, KINDS[1:]), "kind")
        name = self.some_key(data, who, kind)
        status = getattr(self.sessions[who], f"{kind}_delete_by_key")(key(name))
        assert status is self.model.delete(who, kind, name)

    def remove_filter_by_key(self, data: st.DataObject) -> None:
        retire = data.draw(st.booleans(), "retire")
        who = self.some_actor(data)
        name = self.some_key(data, who, "filter")
        session = self.sessions[who]
        if retire:
            status = session.filter_retire_by_key(key(name))
            assert status is self.model.retire_filter(who, lambda state: state.filter_of_key(name))
        else:
            status = session.filter_delete_by_key(key(name))
            assert status is self.model.delete_filter(who, lambda state: state.filter_of_key(name))

    def remove_filter_by_id(self, data: st.DataObject) -> None:
        retire = data.draw(st.booleans(), "retire")
        who = self.some_actor(data)
        number = self.some_filter(data, self.model.seen_by(who))
        session = self.sessions[who]
        if retire:
            status = session.filter_retire_by_id(number)
            assert status is self.model.retire_filter(who, lambda state: state.filter(number))
        else:
            status = session.filter_delete_by_id(number)
            assert status is self.model.delete_filter(who, lambda state: state.filter(number))

    # -- what happens without a session

    def register_any(self, data: st.DataObject) -> None:
        self.register(
            data.draw(st.sampled_from(KEYS)), data.draw(st.sampled_from([True, True, False]), "there")
        )

    def register(self, name: str, there: bool) -> None:
        """The code of a callout comes or goes (NTF-4: filters that are there are not announced)."""
        (self.fake.registered.add if there else self.fake.registered.discard)(key(name))
        (self.model.registered.add if there else self.model.registered.discard)(name)

    def a_callout_sets_to_work(self, data: st.DataObject) -> None:
        in_force = [one.number for one in self.model.committed.of("filter")]
        number = data.draw(likely(self.contested(), in_force))
        self.fake.busy.add(number)
        self.model.busy.add(number)

    def retire_a_busy_filter(self, data: st.DataObject) -> None:
        who = self.some_actor(data)
        number = data.draw(st.sampled_from(sorted(self.model.busy - self.model.committed.retiring.keys())))
        status = self.sessions[who].filter_retire_by_id(number)
        assert status is self.model.retire_filter(who, lambda state: state.filter(number))

    def a_callout_has_finished(self, data: st.DataObject) -> None:
        number = data.draw(likely(sorted(self.model.committed.retiring), sorted(self.model.busy)))
        if number in self.model.committed.retiring:
            self.fake.finish_draining(number)
            self.model.finish(number)
        else:
            self.fake.busy.discard(number)
            self.model.busy.discard(number)

    def force_delete(self, data: st.DataObject) -> None:
        contested = self.contested()
        number = contested[0] if contested else self.some_filter(data, self.model.committed)
        assert self.management.force_delete(number) is self.model.force_delete(number)

    def close_and_open_again(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(EVERYBODY), "who")
        session = self.sessions[who]
        assert session.engine_close() is SUCCESS
        self.model.close(who)
        assert session.filter_enum()[0] is NtStatus.STATUS_INVALID_HANDLE
        self.pages = {handle: one for handle, one in self.pages.items() if one[0] != who}
        self.open(who)
        self.steps_since_an_end = 0

    def stop(self, data: st.DataObject) -> None:
        self.management.stop()
        self.model.stop()
        self.pages.clear()
        for who, session in self.sessions.items():
            assert session.transaction_begin() is NtStatus.STATUS_FWP_SESSION_ABORTED
            self.open(who)
        self.steps_since_an_end = 0

    # -- enumerations

    def open_enumeration(self, data: st.DataObject) -> None:
        who = data.draw(likely(self.model.work, EVERYBODY), "who")
        status, handle = self.sessions[who].filter_create_enum_handle()
        assert status is SUCCESS
        seen = self.model.seen_by(who)
        self.pages[handle] = (who, sorted([*(one.number for one in seen.of("filter")), *seen.retiring]), [])

    def turn_page(self, data: st.DataObject) -> None:
        """Whatever has happened since, it gives what was there."""
        count = data.draw(st.integers(0, 3), "count")
        handle = data.draw(st.sampled_from(sorted(self.pages)))
        who, expected, given = self.pages[handle]
        status, page = self.sessions[who].filter_enum(handle, count)
        assert status is SUCCESS
        assert len(page) == min(count, len(expected) - len(given))
        given += [one.filter_id for one in page]
        if len(given) == len(expected):
            assert sorted(given) == expected
            del self.pages[handle]
            assert self.sessions[who].filter_destroy_enum_handle(handle) is SUCCESS

    # -- what holds after every step

    @invariant()
    def every_session_sees_its_own_state(self) -> None:
        for who, session in self.sessions.items():
            state = self.model.seen_by(who)
            for kind in KINDS:
                records = getattr(session, f"{kind}_enum")()[1]
                if kind == "filter":
                    assert {one.filter_id for one in records if one.retiring} == set(state.retiring)
                ours = [one for one in records if getattr(one, f"{kind}_key") in NAMES]
                seen = sorted(
                    (NAMES[getattr(one, f"{kind}_key")], getattr(one, f"{kind}_id", 0)) for one in ours
                )
                leaving = state.retiring.values() if kind == "filter" else ()
                assert seen == sorted((one.key, one.number) for one in (*state.of(kind), *leaving))

    @invariant()
    def exactly_the_committed_filters_are_in_force(self) -> None:
        committed = self.model.committed
        assert {one.filter_id for one in self.fake.installed} == {
            one.number for one in committed.of("filter")
        }
        added = {number for number, _ in self.fake.installed.added_callouts}
        assert added == {one.number for one in committed.of("callout")}
        assert set(self.fake.draining) == set(committed.retiring)

    @invariant()
    def tickets_say_how_the_waiting_ended(self) -> None:
        for who, session in self.sessions.items():
            status = None if session.ticket is None else session.ticket.status
            assert status is self.model.tickets.get(who)

    @invariant()
    def callouts_are_told_of_their_filters(self) -> None:
        names = {ADD: "ADD", DELETE: "DELETE", POST_COMMIT: "POST_COMMIT"}
        told = [
            (names[NotifyType(kind)], None if filter_key is None else NAMES[filter_key], number)
            for kind, filter_key, number in self.fake.notified
        ]
        assert Counter(told) == Counter(self.model.notified)
        self.fake.notified.clear()
        self.model.notified.clear()

    @invariant()
    def subscribers_are_told_of_what_others_committed(self) -> None:
        for who in EVERYBODY:
            assert self.told[who] == self.model.told[who], who
            self.told[who].clear()
            self.model.told[who].clear()


TestSessions = Sessions.TestCase
# Longer than usual: what matters happens between transactions.
TestSessions.settings = settings(stateful_step_count=60)
