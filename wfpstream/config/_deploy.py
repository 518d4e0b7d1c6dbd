"""A configuration in force: deployed, read again, added to by hand, one transaction each.

Owns what is in force and what was added by hand. Opening listeners is not its business: it only says how they differ.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from wfpstream.config._callout_text import CalloutText
from wfpstream.config._comparing import LIVE_SECTIONS, difference_of, fixed_problems, object_changes
from wfpstream.config._difference import Difference
from wfpstream.config._errors import ConfigError, KeyPath, Problem
from wfpstream.config._load import LoadedConfig, decode_config, parse_config
from wfpstream.config._making import MakeObject, right_here
from wfpstream.config._matching import Invalid
from wfpstream.config._plan import extend_plan, make_plan
from wfpstream.config._planned import Added, Plan, PlannedFilter
from wfpstream.config._settings import engine_options
from wfpstream.config._steps import Steps, steps_between
from wfpstream.config._transaction import Busy, Objects, Refused
from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus

# Callout objects that were registered in vain are not used again.
_SPENT = -1
_BY_HAND = ("sublayer", "callout", "rule", "filter")


def _stopped() -> float:
    return 0.0


def deploy(
    loaded: LoadedConfig,
    callouts: Sequence[CalloutText] = (),
    clock: Callable[[], float] = _stopped,
    *,
    added: Sequence[Added] = (),
    deleted: Iterable[UUID] = (),
    filter_ids: Mapping[UUID, int] | None = None,
) -> Deployment:
    """Make an engine as a configuration wants it, and keep what is needed to change it.

    Args:
        loaded: the configuration.
        callouts: callouts of the command line, each in its own sublayer, asked before the file's rules.
        clock: monotonic seconds; without one time stands still, which is enough to look at the engine.
        added, deleted: `Deployment.by_hand` of another one, to be in force here, too.
        filter_ids: `Deployment.filter_ids` of that one: a filter has its id here, too.

    Raises:
        ConfigError: something in it cannot be used; every such thing is named, and nothing was left behind.
    """
    deployment = Deployment(FilterEngine(clock, engine_options(loaded.config)), loaded, added)
    deployment.engine.management.wish_filter_ids(filter_ids or {})
    deployment.prepare(loaded, callouts).commit()
    for key in deleted:
        filter_id = deployment.filter_ids.get(key)
        if filter_id is not None:
            deployment.delete_filter(filter_id, drain=False)
    return deployment


class Pending:
    """A configuration that was read and checked, and is not in force yet. Dropping it costs nothing.

    Attributes:
        loaded: the configuration.
        difference: what `commit` would change.
    """

    def __init__(
        self,
        deployment: Deployment,
        loaded: LoadedConfig,
        plan: Plan,
        steps: Steps,
        difference: Difference,
        version: int,
    ) -> None:
        self.loaded = loaded
        self.difference = difference
        self._deployment = deployment
        self._plan = plan
        self._steps = steps
        self._version = version

    @property
    def is_current(self) -> bool:
        """The policy is still the one that it was prepared for."""
        return self._deployment.version == self._version

    def commit(self) -> Difference:
        """Put it in force, in one transaction; flows that live go over to it at a byte boundary (MGMT-11).

        Returns:
            What has changed.

        Raises:
            ConfigError: management refused it, or the policy was changed since it was prepared; nothing has changed.
        """
        if not self.is_current:
            raise ConfigError(
                "the policy was changed meanwhile; nothing was done, try again", self.loaded.source
            )
        try:
            self._deployment.install(self._plan, self._steps)
        except Invalid as error:
            if not isinstance(error, Busy):
                self._version = _SPENT
            raise self.loaded.error(list(error.problems)) from error
        self._deployment.adopt(self.loaded)
        self._deployment.forget_deleted()
        return self.difference


class Deployment:
    """An engine, and the configuration that is in force there.

    Attributes:
        engine: the engine. Objects that others add to it are left alone.
        loaded: the configuration in force.
        version: counts the changes.
    """

    def __init__(self, engine: FilterEngine, loaded: LoadedConfig, added: Sequence[Added] = ()) -> None:
        self.engine = engine
        self.loaded = loaded
        self.version = 0
        self._live = Plan()
        self._objects = Objects(engine)
        self._added: list[Added] = list(added)
        # Filters of the file that were deleted by hand since it was read.
        self._deleted: set[UUID] = set()

    # -- the file

    def prepare(self, loaded: LoadedConfig, callouts: Sequence[CalloutText] = ()) -> Pending:
        """Read a configuration that is to take the place of the one in force; nothing is changed yet.

        What is unchanged will stay, with its ids, stages and callout objects. What was added by hand stays as well.

        Args:
            loaded: the configuration.
            callouts: those of the command line, as for `deploy`.

        Raises:
            ConfigError: something in it cannot be used, or cannot change while the engine runs; all of it is named.
        """
        return self.preparing(loaded, callouts, right_here)()

    def preparing(
        self, loaded: LoadedConfig, callouts: Sequence[CalloutText], make: MakeObject
    ) -> Callable[[], Pending]:
        """The same for one that takes time: what is returned does it, in another thread if you like.

        It goes by what is in force now. If that has changed by the time it is done, `Pending.is_current` is false.

        Args:
            loaded, callouts: as for `prepare`.
            make: called with what makes a callout object. Such objects are to be made where they will be used.
        """
        self._forget(self._objects.deleted_by_others())
        live, ages = self._live, dict(self._objects.ages)
        before, profile = self.loaded.config, self.engine.options.profile
        version, added = self.version, tuple(self._added)

        def prepare() -> Pending:
            problems = fixed_problems(before, loaded.config)
            try:
                plan = make_plan(loaded, callouts, added, live, make)
            except ConfigError as error:
                problems += error.problems
            if problems:
                raise loaded.error(problems)
            steps = steps_between(live, plan, ages, profile)
            difference = difference_of(before, loaded.config, live, plan, steps)
            return Pending(self, loaded, plan, steps, difference, version)

        return prepare

    def adopt(self, loaded: LoadedConfig) -> None:
        """The configuration whose objects were installed: its settings take effect."""
        wanted = engine_options(loaded.config)
        for section in LIVE_SECTIONS:
            table = getattr(loaded.config, section)
            live, new = getattr(self.engine.options, section), getattr(wanted, section)
            for key in table.__struct_fields__:
                setattr(live, key, getattr(new, key))
        self.engine.settings_changed()
        self.loaded = loaded

    # -- by hand

    def add_rule(self, callout_text: str, when: Mapping[str, object], name: str | None = None) -> Difference:
        """Add a rule, asked before those of the file and after those added by hand before it.

        Args:
            callout_text: a CALLOUT string, or the name of a `[[callout]]`.
            when: as in a `[[rule]]`.
            name: a name for people; a rule or filter of the same name must not be there.

        Raises:
            ConfigError: it cannot be used; nothing has changed.
        """
        rule = {"callout": callout_text, "when": dict(when), **({"name": name} if name is not None else {})}
        return self._add(decode_config({"rule": [rule]}))

    def add_fragment(self, toml_text: str) -> Difference:
        """Add what a piece of configuration says: `[[rule]]`, `[[sublayer]]`, `[[callout]]`, `[[filter]]`.

        It may name sublayers and callouts that are there already. It stays when the file is read again.

        Raises:
            ConfigError: it cannot be used, or names something in the same way as another; nothing has changed.
        """
        fragment = parse_config(toml_text)
        refused = [
            Problem((key,), "cannot be added while running; rule, sublayer, callout and filter can")
            for key in tomllib.loads(toml_text)
            if key not in _BY_HAND
        ]
        if refused:
            raise fragment.error(refused)
        return self._add(fragment)

    def delete_filter(self, filter_id: int, drain: bool) -> NtStatus:
        """Delete one filter; the sublayer and callout of a rule go with its last one.

        So do a sublayer and a callout that were added by hand and that no other filter uses. What the file still has
        comes back when it is read again.

        Args:
            filter_id: the filter, also one that others have added.
            drain: a busy one finishes what it holds (MGMT-16); if not, it is refused.

        Returns:
            STATUS_SUCCESS; STATUS_FWP_FILTER_NOT_FOUND; STATUS_FWP_IN_USE while its callout is at work (MGMT-13);
            STATUS_FWP_TIMEOUT while another session has a transaction open.
        """
        keys = {known: key for key, known in self._objects.filter_ids.items()}
        if filter_id not in keys:
            return self._objects.delete_foreign(filter_id, drain=drain)
        plan = self._live.copy()
        one = plan.filters.pop(keys[filter_id])
        gone = self._owners_without(one, plan)
        for owner in gone:
            del plan.declared[owner]
            plan.callouts.pop(owner, None)
        plan.sub_layers = {key: s for key, s in plan.sub_layers.items() if s.owner not in gone}
        try:
            self.install(plan, self._steps_to(plan), drain=drain)
        except Refused as error:
            return error.status
        if one.owner not in {added.id for added in self._added}:
            self._deleted.add(one.key)
        self._added = [
            replace(added, gone=added.gone | {one.key}) if added.id == one.owner else added
            for added in self._added
            if added.id not in gone
        ]
        return NtStatus.STATUS_SUCCESS

    @property
    def by_hand(self) -> tuple[tuple[Added, ...], frozenset[UUID]]:
        """What was added by hand and is in force, and the keys of the file's filters that were deleted by hand."""
        return tuple(self._added), frozenset(self._deleted)

    def forget_deleted(self) -> None:
        """The file was read again: what it has is back."""
        self._deleted.clear()

    @property
    def filter_ids(self) -> Mapping[UUID, int]:
        """The ids of the filters in force, by key."""
        return self._objects.filter_ids

    def _owners_without(self, one: PlannedFilter, rest: Plan) -> set[str]:
        """What goes with a filter: its rule if it was the last one, and what was added by hand only for it."""
        gone: set[str] = set()
        if all(other.owner != one.owner for other in rest.filters.values()):
            gone.add(one.owner)
        by_hand = {added.id for added in self._added}
        sub_layer = rest.sub_layers.get(one.sub_layer)
        if sub_layer is not None and all(f.sub_layer != one.sub_layer for f in rest.filters.values()):
            gone |= by_hand & {sub_layer.owner}
        if one.callout is not None and all(f.callout is not one.callout for f in rest.filters.values()):
            gone |= by_hand & {one.callout.owner}
        return gone

    def _add(self, fragment: LoadedConfig) -> Difference:
        tables: list[tuple[Added, KeyPath]] = [
            (Added(kind, "", table, self.loaded.folder), (kind, index))
            for kind in _BY_HAND
            for index, table in enumerate(getattr(fragment.config, kind))
        ]
        if not tables:
            raise ConfigError("there is nothing in it to add")
        there = replace(self.loaded, source="", text=fragment.text)
        plan, added = extend_plan(there, self._live, tables)
        steps = self._steps_to(plan)
        difference = Difference(tuple(object_changes(self._live, plan, steps)))
        try:
            self.install(plan, steps)
        except Invalid as error:
            raise there.error(list(error.problems)) from error
        self._added += added
        return difference

    # -- both

    def _forget(self, keys: set[UUID]) -> None:
        """Filters and sublayers that others have deleted are not in force, whatever was noted."""
        if keys:
            live = self._live = self._live.copy()
            live.filters = {key: one for key, one in live.filters.items() if key not in keys}
            live.sub_layers = {key: one for key, one in live.sub_layers.items() if key not in keys}

    def _steps_to(self, plan: Plan) -> Steps:
        return steps_between(self._live, plan, self._objects.ages, self.engine.options.profile)

    def install(self, plan: Plan, steps: Steps, *, drain: bool = True) -> None:
        """Carry out what `Pending` or one of the calls above has decided.

        Raises:
            Invalid: management refused something; nothing has changed.
        """
        if steps:
            self._objects.change(steps, drain=drain)
        self._live = plan
        self.version += 1
