"""Random histories of sessions, transactions and objects against `model.Model` (OBJ-1..OBJ-9, MGMT-1..MGMT-3,
MGMT-11, MGMT-13, MGMT-15..MGMT-17, NTF-1..NTF-5, NTF-7, IRQ-6).

After every step: each session sees exactly its own state; exactly the committed filters are in force; callouts and
subscribers have been told what had to be told, no more, no less, and subscribers in order.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fwpm.model import KINDS, Model, Reference, Thing
from tests.fwpm.support import ADD, SUCCESS, a_callout, a_filter, key, named, open_session, start
from wfpstream import fwpm
from wfpstream.fwp import ActionType, NtStatus

# Two static sessions, two dynamic ones.
EVERYBODY = range(4)
DYNAMIC = {2, 3}
LIMIT = 10.0
SESSIONS = st.sampled_from(EVERYBODY)
# Who makes a call: in half of the cases whoever can write, so that transactions get long enough to matter.
ACTORS = st.sampled_from([*EVERYBODY, *[None] * len(EVERYBODY)])

KEYS = ("one", "two", "three")
NAMES = {key(name): name for name in KEYS}
SOME_KEY = st.sampled_from(KEYS)
MAYBE_KEY = st.none() | SOME_KEY

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


class Sessions(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.fake, self.management = start()
        self.model = Model(len(EVERYBODY), DYNAMIC, LIMIT)
        self.told: dict[int, list[tuple[str, str, str, int]]] = {}
        self.sessions: dict[int, fwpm.Session] = {}
        # Enumerations: whose handle it is, what it has to give, and what it has given.
        self.pages: dict[int, tuple[int, list[int], list[int]]] = {}
        for who in EVERYBODY:
            self.open(who)
        # Present from the start: histories without filters say little.
        for name in KEYS:
            self.add_provider(0, name)
            self.add_provider_context(0, name, None)
            self.add_sub_layer(0, name, None)
            self.add_callout(0, name, None)
        self.register("one", True)

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

    def actor(self, who: int | None) -> int:
        if who is not None:
            return who
        return 0 if self.model.writer is None else self.model.writer

    # -- transactions

    @rule(who=SESSIONS, read_only=st.booleans())
    def begin(self, who: int, read_only: bool) -> None:
        flags = fwpm.TransactionFlags.READ_ONLY if read_only else 0
        assert self.sessions[who].transaction_begin(flags) is self.model.begin(who, read_only)

    @rule(who=SESSIONS)
    def commit(self, who: int) -> None:
        assert self.sessions[who].transaction_commit() is self.model.commit(who)

    @rule(who=SESSIONS)
    def abort(self, who: int) -> None:
        assert self.sessions[who].transaction_abort() is self.model.abort(who)

    @rule(seconds=st.sampled_from([1.0, LIMIT / 2, LIMIT]))
    @precondition(lambda self: self.model.queue)
    def let_time_pass(self, seconds: float) -> None:
        self.fake.advance(seconds)
        self.model.advance(seconds)

    # -- objects

    @rule(who=ACTORS, name=SOME_KEY)
    def add_provider(self, who: int | None, name: str) -> None:
        who = self.actor(who)
        record = fwpm.Provider(provider_key=key(name), display_data=named(name))
        status = self.sessions[who].provider_add(record)
        assert status is self.model.add(who, "provider", name, (), 0)

    @rule(who=ACTORS, name=SOME_KEY, provider=MAYBE_KEY)
    def add_provider_context(self, who: int | None, name: str, provider: str | None) -> None:
        who = self.actor(who)
        record = fwpm.ProviderContext(
            provider_context_key=key(name), display_data=named(name), provider_key=optional_key(provider)
        )
        status = self.sessions[who].provider_context_add(record)
        assert status is self.model.add(who, "provider_context", name, references(provider=provider), 0)

    @rule(who=ACTORS, name=SOME_KEY, provider=MAYBE_KEY)
    def add_sub_layer(self, who: int | None, name: str, provider: str | None) -> None:
        who = self.actor(who)
        record = fwpm.SubLayer(
            sub_layer_key=key(name), display_data=named(name), provider_key=optional_key(provider)
        )
        status = self.sessions[who].sub_layer_add(record)
        assert status is self.model.add(who, "sub_layer", name, references(provider=provider), 0)

    @rule(who=ACTORS, name=SOME_KEY, provider=MAYBE_KEY)
    def add_callout(self, who: int | None, name: str, provider: str | None) -> None:
        who = self.actor(who)
        record = a_callout(name, provider_key=optional_key(provider))
        status, number = self.sessions[who].callout_add(record)
        assert status is self.model.add(who, "callout", name, references(provider=provider), number)

    @rule(
        who=ACTORS,
        name=SOME_KEY,
        sub_layer=SOME_KEY,
        provider=MAYBE_KEY,
        provider_context=MAYBE_KEY,
        callout=MAYBE_KEY,
        accepted=st.sampled_from([True, True, True, False]),
    )
    def add_filter(
        self,
        who: int | None,
        name: str,
        sub_layer: str,
        provider: str | None,
        provider_context: str | None,
        callout: str | None,
        accepted: bool,
    ) -> None:
        who = self.actor(who)
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

    @rule(who=ACTORS, kind=st.sampled_from(KINDS[1:]), name=SOME_KEY)
    def delete(self, who: int | None, kind: str, name: str) -> None:
        who = self.actor(who)
        status = getattr(self.sessions[who], f"{kind}_delete_by_key")(key(name))
        assert status is self.model.delete(who, kind, name)

    @rule(who=ACTORS, name=SOME_KEY, retire=st.booleans())
    def remove_filter_by_key(self, who: int | None, name: str, retire: bool) -> None:
        who = self.actor(who)

        def find(state: Any) -> Thing | None:
            found: Thing | None = state.filter_of_key(name)
            return found

        session = self.sessions[who]
        if retire:
            assert session.filter_retire_by_key(key(name)) is self.model.retire_filter(who, find)
        else:
            assert session.filter_delete_by_key(key(name)) is self.model.delete_filter(who, find)

    @rule(who=ACTORS, data=st.data(), retire=st.booleans())
    def remove_filter_by_id(self, who: int | None, data: st.DataObject, retire: bool) -> None:
        who = self.actor(who)
        seen = self.model.seen_by(who)
        number = data.draw(
            st.sampled_from([*(one.number for one in seen.of("filter")), *seen.retiring, 10**6])
        )
        session = self.sessions[who]
        if retire:
            status = session.filter_retire_by_id(number)
            assert status is self.model.retire_filter(who, lambda state: state.filter(number))
        else:
            status = session.filter_delete_by_id(number)
            assert status is self.model.delete_filter(who, lambda state: state.filter(number))

    # -- what happens without a session

    @rule(name=SOME_KEY, there=st.sampled_from([True, True, False]))
    def register(self, name: str, there: bool) -> None:
        """The code of a callout comes or goes (NTF-4: filters that are there are not announced)."""
        (self.fake.registered.add if there else self.fake.registered.discard)(key(name))
        (self.model.registered.add if there else self.model.registered.discard)(name)

    @rule(data=st.data())
    @precondition(lambda self: self.model.committed.of("filter"))
    def a_callout_sets_to_work(self, data: st.DataObject) -> None:
        filters = [one.number for one in self.model.committed.of("filter")]
        number = data.draw(st.sampled_from(filters))
        self.fake.busy.add(number)
        self.model.busy.add(number)

    @rule(who=ACTORS, data=st.data())
    @precondition(lambda self: self.model.busy - self.model.committed.retiring.keys())
    def retire_a_busy_filter(self, who: int | None, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.busy - self.model.committed.retiring.keys())))
        status = self.sessions[self.actor(who)].filter_retire_by_id(number)
        assert status is self.model.retire_filter(self.actor(who), lambda state: state.filter(number))

    @rule(data=st.data())
    @precondition(lambda self: self.model.busy)
    def a_callout_has_finished(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.busy)))
        if number in self.model.committed.retiring:
            self.fake.finish_draining(number)
            self.model.finish(number)
        else:
            self.fake.busy.discard(number)
            self.model.busy.discard(number)

    @rule(data=st.data())
    @precondition(lambda self: self.model.committed.of("filter") or self.model.committed.retiring)
    def force_delete(self, data: st.DataObject) -> None:
        committed = self.model.committed
        numbers = [*(one.number for one in committed.of("filter")), *committed.retiring, 10**6]
        number = data.draw(st.sampled_from(numbers))
        assert self.management.force_delete(number) is self.model.force_delete(number)

    @rule(who=SESSIONS)
    def close_and_open_again(self, who: int) -> None:
        session = self.sessions[who]
        assert session.engine_close() is SUCCESS
        self.model.close(who)
        assert session.filter_enum()[0] is NtStatus.STATUS_INVALID_HANDLE
        self.pages = {handle: one for handle, one in self.pages.items() if one[0] != who}
        self.open(who)

    @rule()
    @precondition(lambda self: len(self.model.committed.things) > 15)
    def stop(self) -> None:
        self.management.stop()
        self.model.stop()
        self.pages.clear()
        for who, session in self.sessions.items():
            assert session.transaction_begin() is NtStatus.STATUS_FWP_SESSION_ABORTED
            self.open(who)

    # -- enumerations

    @rule(who=SESSIONS)
    def open_enumeration(self, who: int) -> None:
        status, handle = self.sessions[who].filter_create_enum_handle()
        assert status is SUCCESS
        seen = self.model.seen_by(who)
        self.pages[handle] = (who, sorted([*(one.number for one in seen.of("filter")), *seen.retiring]), [])

    @rule(data=st.data(), count=st.integers(0, 3))
    @precondition(lambda self: self.pages)
    def turn_page(self, data: st.DataObject, count: int) -> None:
        """Whatever has happened since, it gives what was there."""
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
        told = [
            ("ADD" if kind == ADD else "DELETE", None if filter_key is None else NAMES[filter_key], number)
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
