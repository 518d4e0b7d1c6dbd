"""Calls that fail on demand: where they are made, which of them fail, and whether it is survived (INJ-1, INJ-43).

Every built-in callout does; broken ones are told with the call site and what went wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.test_engine_modes import Doubled
from tests.support.worlds import ReactorWorld, ReplayWorld, SocketWorld
from wfpstream.callouts import (
    AllowAfter,
    Banner,
    Fault,
    Framer,
    Latency,
    Monitor,
    PatternDrop,
    PendFin,
    StreamEdit,
    Throttle,
)
from wfpstream.engine import FilterEngine
from wfpstream.fwp import ActionType, FwpError, NtStatus
from wfpstream.fwpm import DisplayData, SubLayer
from wfpstream.fwps import (
    Callout,
    Callout2,
    EngineOptions,
    InjectFailed,
    InjectionType,
    OutOfBandCallout,
    StreamActionType,
    StreamFlags,
    Worker,
)
from wfpstream.testing import (
    FAILING_CALLS,
    ApiFaultReport,
    ApiFaults,
    EndState,
    Fin,
    MemoryDriver,
    MemoryWorld,
    Send,
    Wait,
    World,
    WorldOutcome,
    WorldScript,
    check_api_faults,
    explore_api_faults,
    fate_of,
)
from wfpstream.testing._api_faults._sites import DEPTH

Make = Callable[[], Callout]

NO_MEMORY = NtStatus.STATUS_INSUFFICIENT_RESOURCES
TEXT = b"one two\nthree four\nfive"
AGES = 100.0


def conversation(make: Make, size: int = 7, **options: Any) -> Callable[[], WorldScript]:
    """Both sides say TEXT in pieces, the client ends first; there is time for everything in between."""

    def make_script() -> WorldScript:
        engine_options = EngineOptions(**options)
        engine_options.verify.level = "warn"
        steps: list[Any] = []
        for start in range(0, len(TEXT), size):
            piece = TEXT[start : start + size]
            steps += [Send("client", piece), Send("server", piece)]
        steps += [Wait(1), Fin("client"), Wait(AGES), Fin("server"), Wait(AGES)]
        return WorldScript(lambda engine: engine.add_callout(make()), steps, engine_options)

    return make_script


# --- every built-in survives --------------------------------------------------------------------------------

BUILT_INS: dict[str, Make] = {
    "stream_edit": lambda: StreamEdit(find="e f", replace="-"),
    "stream_edit oob": lambda: StreamEdit(find="e f", replace="-", mode="oob"),
    "monitor": lambda: Monitor(summary=False),
    "throttle": lambda: Throttle(rate=10, burst=3),
    "latency": lambda: Latency(delay=0.5, jitter=0.3),
    "framer": Framer,
    "pattern_drop": lambda: PatternDrop(find="six"),
    "pattern_drop found": lambda: PatternDrop(find="four"),
    "allow_after": lambda: AllowAfter(bytes=6),
    "banner": lambda: Banner(text="zero ", direction="both"),
    "pend_fin": lambda: PendFin(delay=0.5, trailer=" six"),
    "fault stall": lambda: Fault(do="stall", after=5, for_=1),
    "fault truncate": lambda: Fault(do="truncate", after=5),
    "fault slice": lambda: Fault(do="slice", size=2),
    "fault slice rate": lambda: Fault(do="slice", size=2, rate=100),
    "fault corrupt": lambda: Fault(do="corrupt", after=3, size=4),
    "fault fin": lambda: Fault(do="fin", after=5, direction="to_client"),
    "fault fin at": lambda: Fault(do="fin", at=0.5, direction="to_client"),
    "fault rst": lambda: Fault(do="rst", after=5),
    "fault rst at": lambda: Fault(do="rst", at=0.5),
    "fault blackhole": lambda: Fault(do="blackhole", after=5),
    "sequential": Doubled,
}


@pytest.mark.parametrize("fin_with_data", [False, True])
@pytest.mark.parametrize("name", BUILT_INS)
def test_a_built_in_survives_every_failing_call(name: str, fin_with_data: bool) -> None:
    """No byte lost in silence, nothing stuck, no leak (V-23, V-34), nothing thrown (V-40)."""
    script = conversation(BUILT_INS[name], fin_with_data=fin_with_data)
    report = check_api_faults(script, random_runs=5)
    assert report.sites, "it makes no call at all"
    assert report.survived, report.text()


@pytest.mark.parametrize("mode", [{"inject_delivery": "queued"}, {"completion": "early"}])
@pytest.mark.parametrize("name", BUILT_INS)
def test_a_built_in_survives_at_random_in_other_modes(name: str, mode: dict[str, Any]) -> None:
    report = check_api_faults(conversation(BUILT_INS[name], 3, **mode), times=(), random_runs=10, rate=0.2)
    assert report.survived, report.text()


def test_monitoring_goes_on_uncounted_and_disturbs_nothing() -> None:
    """An inspection callout that gets no context for a flow may not stop it."""
    report = check_api_faults(conversation(lambda: Monitor(summary=False)))
    assert [site.call for site in report.sites] == ["flow_associate_context", "flow_associate_context"]
    assert {result.fate for result in report.results} == {"same"}


def test_what_is_held_is_let_go_when_there_is_memory_again() -> None:
    """A continue, a trailer, a stalled FIN, a banner: a refusal is not the end of it."""
    for make in (
        lambda: Throttle(rate=10, burst=3, direction="to_client"),
        lambda: PendFin(delay=0.5, trailer=" six"),
        lambda: Fault(do="stall", after=5, for_=1, direction="to_client"),
        lambda: Banner(text="zero "),
    ):
        once = check_api_faults(conversation(make), times=(1,))
        held = [
            result
            for result in once.results
            if result.failed[0].site.call in ("stream_continue", "stream_inject_async")
            and "_insist" in str(result.failed[0].site)
        ]
        assert held
        assert {result.fate for result in held} == {"same"}, once.text()


# --- broken ones do not --------------------------------------------------------------------------------------


class Upper(Callout):
    """Blocks everything and injects it in capitals; what it does when a call fails is `give_up`'s."""

    def classify_fn(
        self, fixed: Any, meta: Any, packet: Any, context: Any, rule: Any, flow: int, out: Any
    ) -> None:
        stream = packet.stream_data
        if stream.flags & int(StreamFlags.RECEIVE_ABORT | StreamFlags.SEND_ABORT) or not stream.data_length:
            out.action_type = ActionType.PERMIT
            return
        out.action_type = ActionType.BLOCK
        data = stream.tobytes().upper()
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
        if nbl is None:
            self.give_up(None, packet, out)
            return
        direction = stream.flags & int(StreamFlags.RECEIVE | StreamFlags.SEND)
        status = self.fwps.stream_inject_async(
            self.injection_handle, None, 0, meta.flow_handle, self.callout_id(fixed.layer_id), fixed.layer_id,
            direction, nbl, len(data), self._injected,
        )  # fmt: skip
        if not status.ok:
            self.give_up(nbl, packet, out)

    def give_up(self, nbl: Any, packet: Any, out: Any) -> None:
        if nbl is not None:
            self.fwps.free_net_buffer_list(nbl)
        packet.stream_action = StreamActionType.DROP_CONNECTION
        out.action_type = ActionType.NONE


class Passes(Upper):
    """Lets pass what it cannot edit."""

    def give_up(self, nbl: Any, packet: Any, out: Any) -> None:
        super().give_up(nbl, packet, out)
        packet.stream_action = StreamActionType.NONE
        out.action_type = ActionType.PERMIT


class Leaks(Upper):
    """Forgets the list a refused injection left it (INJ-1)."""

    def give_up(self, nbl: Any, packet: Any, out: Any) -> None:
        super().give_up(None, packet, out)


class Loses(Upper):
    """Believes that a refused injection has taken the bytes."""

    def give_up(self, nbl: Any, packet: Any, out: Any) -> None:
        if nbl is not None:
            self.fwps.free_net_buffer_list(nbl)


class Trusts(Upper):
    """Takes a list for granted."""

    def give_up(self, nbl: Any, packet: Any, out: Any) -> None:
        self.fwps.free_net_buffer_list(nbl)
        packet.stream_action = StreamActionType.DROP_CONNECTION
        out.action_type = ActionType.NONE


class Stays(Callout):
    """Defers the first bytes for a second, and thinks that a continue cannot fail."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = False

    def classify_fn(
        self, fixed: Any, meta: Any, packet: Any, context: Any, rule: Any, flow: int, out: Any
    ) -> None:
        flags = packet.stream_data.flags
        out.action_type = ActionType.PERMIT
        if flags & int(StreamFlags.RECEIVE) and packet.stream_data.data_length and not self.waited:
            self.waited = True
            packet.stream_action = StreamActionType.DEFER
            out.action_type = ActionType.NONE
            self.after(1.0, self.go_on, meta.flow_handle, fixed.layer_id, flags)

    def go_on(self, flow_id: int, layer_id: int, flags: int) -> None:
        self.fwps.stream_continue(flow_id, self.callout_id(layer_id), layer_id, flags)


def of(make: Make) -> ApiFaultReport:
    return check_api_faults(conversation(make), times=(1,))


def test_an_editor_that_drops_or_passes_survives() -> None:
    dropping, passing = of(Upper), of(Passes)
    assert dropping.survived, dropping.text()
    assert {result.fate for result in dropping.results} == {"reset"}
    assert [site.call for site in dropping.sites] == [
        "allocate_net_buffer_and_net_buffer_list",
        "stream_inject_async",
    ]
    # Some pieces in capitals, some not: whether that is right is not ours to say, so it is told.
    assert {result.fate for result in passing.failures} == {"lost"}


def test_one_piece_left_unchanged_is_a_work_left_undone() -> None:
    whole = check_api_faults(conversation(Passes, len(TEXT)), times=(None,))
    assert {result.fate for result in whole.results} == {"unchanged"}
    assert whole.survived


def test_a_list_leaked_on_the_error_path_is_told_with_its_place() -> None:
    """V-34, at the line that allocated it; the report names the call that failed."""
    report = of(Leaks)
    (leak,) = [result for result in report.failures if result.violations]
    assert leak.violations == ["V-34"]
    assert leak.failed[0].site.call == "stream_inject_async"
    assert "test_api_faults.py" in leak.where[0]
    assert "V-34" in report.text()
    assert f"  reset      {leak.site}\n" in report.text()


def test_bytes_lost_in_silence_are_told() -> None:
    report = of(Loses)
    assert {result.fate for result in report.failures} == {"lost"}
    assert len(report.failures) == 2
    assert "bytes were lost, doubled or changed" in report.text()


def test_an_exception_on_the_error_path_is_told() -> None:
    report = of(Trusts)
    (thrown,) = report.failures
    assert thrown.failed[0].site.call == "allocate_net_buffer_and_net_buffer_list"
    assert "V-40" in thrown.violations


def test_a_stream_that_stays_deferred_is_told() -> None:
    report = of(Stays)
    (stuck,) = report.failures
    assert stuck.fate == "stuck"
    assert stuck.failed[0].site.call == "stream_continue"
    assert "an end of the stream never came" in report.text()


# --- out-of-band workers --------------------------------------------------------------------------------------


class Patient(Worker):
    """Tries again until there is memory."""

    async def run(self) -> None:
        while True:
            item = await self.next()
            if item.kind not in ("data", "end"):
                return
            while True:
                try:
                    await (self.inject(item) if item.kind == "data" else self.inject_fin())
                    break
                except InjectFailed:
                    await self.sleep(0.1)
            if item.kind == "end":
                return


class PatientCallout(OutOfBandCallout):
    worker_class = Patient


def test_a_worker_may_try_again_and_nothing_is_lost() -> None:
    report = check_api_faults(conversation(PatientCallout), times=(3,))
    fates = {result.failed[0].site.call: result.fate for result in report.results}
    assert report.survived, report.text()
    assert fates == {"clone_stream_data": "reset", "stream_inject_async": "same"}


def test_a_worker_that_lets_it_out_has_its_connection_reset_and_is_not_blamed() -> None:
    """No V-40: a lack of memory is not the worker's fault, and what was pended is not missing in silence."""
    report = check_api_faults(conversation(OutOfBandCallout))
    assert report.survived, report.text()
    assert {result.fate for result in report.results} == {"reset"}
    assert {site.call for site in report.sites} == {"clone_stream_data", "stream_inject_async"}


def test_a_worker_that_has_left_passes_on_or_resets() -> None:
    class Leaves(Worker):
        async def run(self) -> None:
            await self.next()

    class LeavingCallout(OutOfBandCallout):
        worker_class = Leaves

    report = check_api_faults(conversation(LeavingCallout))
    assert report.survived, report.text()


# --- plans ----------------------------------------------------------------------------------------------------


def faulty(plan: ApiFaults) -> MemoryDriver:
    driver = MemoryDriver()
    plan.install(driver.engine)
    return driver


def test_every_failing_call_fails_as_its_kind_does_and_has_no_effect() -> None:
    driver = faulty(ApiFaults.random(1.0))
    for name in sorted(FAILING_CALLS - {"stream_inject_async", "engine_open"}):
        owner: Any = driver.fwps if hasattr(driver.fwps, name) else None
        if owner is not None:
            answer = getattr(owner, name)()
            status = answer[0] if isinstance(answer, tuple) else answer
            assert not status.ok, name
            refused = driver.events[-1]
            assert (refused["event"], refused["call"], refused["status"]) == ("refused", name, status.name)
    assert driver.engine.management.engine_open() == (NO_MEMORY, None)
    assert not driver.violations


def test_management_calls_of_a_driver_fail_in_the_sessions_it_opens() -> None:
    def opened(plan: ApiFaults) -> Any:
        status, session = faulty(plan).engine.management.engine_open()
        assert status.ok
        return session

    only = ApiFaults.random(1.0, calls=["sub_layer_add", "filter_add", "transaction_begin"])
    session = opened(only)
    assert session.sub_layer_add(SubLayer(display_data=DisplayData("mine"))) is NO_MEMORY
    assert session.filter_add(object()) == (NO_MEMORY, 0)
    assert session.transaction_begin() is NO_MEMORY
    assert session.transaction_abort() is NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS
    assert [failed.site.call for failed in only.failed] == [
        "sub_layer_add",
        "filter_add",
        "transaction_begin",
    ]


def test_the_calls_that_put_a_callout_in_place_are_the_engines_own() -> None:
    """They have no call site, and do not fail."""
    plan = ApiFaults.random(1.0)
    driver = faulty(plan)
    driver.add(Upper())
    assert plan.seen == {}


def test_an_injection_that_is_refused_anyway_has_no_failure_of_its_own() -> None:
    """INJ-20 before INJ-43: what is wrong with a call is told first."""
    plan = ApiFaults.random(1.0)
    driver = faulty(plan)
    refused = driver.fwps.stream_inject_async(1, None, 0, 1, 1, 20, 1, None, 0, None)
    assert refused is NtStatus.STATUS_FWP_NULL_POINTER
    assert plan.seen == {}


def test_statuses_can_be_chosen() -> None:
    not_ready = NtStatus.STATUS_FWP_TCPIP_NOT_READY
    plan = ApiFaults.random(1.0, statuses={"injection_handle_create": not_ready})
    driver = faulty(plan)
    assert driver.fwps.injection_handle_create(0, InjectionType.STREAM) == (not_ready, 0)
    busy = driver.fwps.callout_unregister_by_id(1)
    assert busy is NtStatus.STATUS_DEVICE_BUSY


def test_unknown_calls_and_success_are_no_failures() -> None:
    with pytest.raises(ValueError, match="'inject_stream' is no call that can fail"):
        ApiFaults(calls=["inject_stream"])
    with pytest.raises(ValueError, match="flow_abort cannot fail with STATUS_SUCCESS"):
        ApiFaults(statuses={"flow_abort": NtStatus.STATUS_SUCCESS})
    with pytest.raises(ValueError, match=r"rate=1\.5: expected 0 to 1"):
        ApiFaults.random(1.5)


def test_without_a_plan_nothing_is_in_the_way_of_a_call() -> None:
    """What a judge puts in front of the calls is gone with it."""
    driver = MemoryDriver()
    plain = set(vars(driver.fwps)) | set(vars(driver.fwps.injector))
    plan = ApiFaults()
    plan.install(driver.engine)
    assert set(vars(driver.fwps)) | set(vars(driver.fwps.injector)) != plain
    plan.remove()
    assert set(vars(driver.fwps)) | set(vars(driver.fwps.injector)) == plain
    assert not FAILING_CALLS & plain


def test_a_plan_is_for_one_engine() -> None:
    plan = ApiFaults()
    plan.install(MemoryDriver().engine)
    with pytest.raises(RuntimeError, match="a plan of failing calls is for one engine"):
        plan.install(MemoryDriver().engine)


# --- call sites -----------------------------------------------------------------------------------------------


def create(driver: MemoryDriver) -> NtStatus:
    return driver.fwps.injection_handle_create(0, InjectionType.STREAM)[0]


def deep(driver: MemoryDriver, depth: int) -> NtStatus:
    return create(driver) if not depth else deep(driver, depth - 1)


def test_a_call_site_is_the_line_and_the_way_to_it() -> None:
    plan = ApiFaults()
    driver = faulty(plan)
    for _ in range(3):
        create(driver)
    create(driver)
    loop, after = plan.seen
    assert (plan.seen[loop], plan.seen[after]) == (3, 1)
    assert loop.place == after.place
    assert loop.stack[1] != after.stack[1]
    assert str(loop).startswith("injection_handle_create at test_api_faults.py:")
    assert " < test_api_faults.py:" in str(loop)


def test_a_recursion_has_an_end() -> None:
    plan = ApiFaults()
    driver = faulty(plan)
    for depth in (2 * DEPTH, 3 * DEPTH):
        deep(driver, depth)
    assert len(plan.seen) == 1


def test_the_nth_call_fails_and_so_many_in_a_row() -> None:
    def run(plan: ApiFaults) -> list[bool]:
        driver = faulty(plan)
        return [create(driver).ok for _ in range(5)]

    def fails(nth: int, times: int | None) -> list[bool] | None:
        return explore_api_faults(run, nth=nth, times=times).runs[0].outcome

    assert fails(2, 1) == [True, False, True, True, True]
    assert fails(2, 3) == [True, False, False, False, True]
    assert fails(3, None) == [True, True, False, False, False]


def test_places_of_helpers_of_ours_are_those_of_their_callers() -> None:
    """The comfort layer and workers make calls for a callout: the site is the callout's line."""
    plan = ApiFaults()

    class Says(Callout):
        def classify_fn(
            self, fixed: Any, meta: Any, packet: Any, context: Any, rule: Any, flow: int, out: Any
        ) -> None:
            out.action_type = ActionType.PERMIT
            if packet.stream_data.data_length:
                self.inject(meta.flow_handle, fixed.layer_id, int(StreamFlags.SEND), b"hm")

    driver = faulty(plan)
    driver.add(Says())
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a")
    assert [site.call for site in plan.seen] == [
        "allocate_net_buffer_and_net_buffer_list",
        "stream_inject_async",
    ]
    assert all("test_api_faults.py" in site.place and len(site.stack) == 1 for site in plan.seen)


@given(seed=st.integers(0, 2**32), rate=st.floats(0, 1), size=st.integers(1, len(TEXT)))
def test_random_failures_are_the_same_in_every_run(seed: int, rate: float, size: int) -> None:
    """And whichever they are, the editor survives them."""
    script = conversation(BUILT_INS["stream_edit oob"], size)
    first = check_api_faults(script, times=(), random_runs=1, rate=rate, seed=seed)
    second = check_api_faults(script, times=(), random_runs=1, rate=rate, seed=seed)
    assert first.results == second.results
    assert first.survived, first.text()


# --- exploring ------------------------------------------------------------------------------------------------


def two_steps(plan: ApiFaults) -> str:
    """The second place is reached only when the first fails, the third when both do."""
    driver = faulty(plan)
    if create(driver).ok:
        return "first"
    if create(driver).ok:
        return "second"
    driver.fwps.redirect_handle_create(None)
    raise LookupError("neither")


def test_places_that_only_error_paths_reach_are_found_and_tried() -> None:
    """With what leads to them failing too."""
    found = explore_api_faults(two_steps)
    assert found.baseline == "first"
    calls = [[site.call for site in run.sites] for run in found.runs]
    create_call, redirect_call = "injection_handle_create", "redirect_handle_create"
    assert calls == [[create_call], [create_call] * 2, [create_call, create_call, redirect_call]]
    assert [run.outcome for run in found.runs] == ["second", None, None]
    assert [str(run.error) for run in found.runs] == ["None", "neither", "neither"]
    assert found.complete


def test_a_limit_of_runs_is_told() -> None:
    found = explore_api_faults(two_steps, limit=1)
    assert len(found.runs) == 1
    assert not found.complete
    report = check_api_faults(conversation(BUILT_INS["banner"]), limit=2)
    assert not report.survived
    assert "not every call site was tried" in report.text()


def test_what_a_run_raises_is_kept_with_its_site() -> None:
    def run(plan: ApiFaults) -> None:
        if not create(faulty(plan)).ok:
            raise LookupError("no handle")

    found = explore_api_faults(run)
    (one,) = found.runs
    assert str(one.error) == "no handle"
    assert one.outcome is None


def test_a_run_that_fails_by_itself_gets_out() -> None:
    def run(plan: ApiFaults) -> None:
        raise LookupError("always")

    with pytest.raises(LookupError):
        explore_api_faults(run)


# --- a driver that starts -------------------------------------------------------------------------------------


def start(engine: FilterEngine, *, tidy: bool) -> None:
    """A handle and a callout; `tidy` gives back the first when the second is refused."""
    fwps = engine.fwps
    status, handle = fwps.injection_handle_create(0, InjectionType.STREAM)
    if not status.ok:
        raise FwpError(status, "no handle")
    permit = Callout2(uuid4(), 0, lambda *_: None, lambda *_: 0)
    status, callout_id = fwps.callout_register2(None, permit)
    if not status.ok:
        if tidy:
            fwps.injection_handle_destroy(handle)
        raise FwpError(status, "not registered")
    fwps.callout_unregister_by_id(callout_id)
    fwps.injection_handle_destroy(handle)


@pytest.mark.parametrize("tidy", [True, False])
def test_a_driver_may_refuse_to_start_and_must_leave_nothing_behind(tidy: bool) -> None:
    """V-39: a handle left open by a start that failed."""

    def make_script() -> WorldScript:
        options = EngineOptions()
        options.verify.level = "warn"
        steps = (Send("client", b"hi"), Fin("client"), Fin("server"))
        return WorldScript(lambda engine: start(engine, tidy=tidy), steps, options)

    report = check_api_faults(make_script, calls=["injection_handle_create", "callout_register2"])
    assert [bool(result.start_failed) for result in report.results] == [True] * 4
    assert report.survived is tidy
    assert [result.violations for result in report.failures] == ([] if tidy else [["V-39"], ["V-39"]])
    assert tidy or "the start failed: FwpError" in report.text()


# --- fates ----------------------------------------------------------------------------------------------------


def ended(client: EndState, server: EndState) -> WorldOutcome:
    return WorldOutcome(client, server, [])


USUAL = ended(EndState(b"answer", fin=True), EndState(b"QUESTION", fin=True))


@pytest.mark.parametrize(
    ("client", "server", "fate"),
    [
        (EndState(b"answer", fin=True), EndState(b"QUESTION", fin=True), "same"),
        (EndState(b"ans", reset=True), EndState(b"", reset=True), "reset"),
        (EndState(b"answer", fin=True, reset=True), EndState(b"QUEST", reset=True), "reset"),
        (EndState(b"answer", fin=True), EndState(b"QUEST", reset=True), "reset"),
        (EndState(b"ansr", reset=True), EndState(b"", reset=True), "lost"),
        (EndState(b"answer", fin=True), EndState(b"question", fin=True), "unchanged"),
        (EndState(b"answer", fin=True), EndState(b"QUESTI", fin=True), "lost"),
        (EndState(b"answer", fin=True), EndState(b"QUESTION"), "stuck"),
        (EndState(b"answer", fin=True), EndState(b"QUES"), "stuck"),
        (EndState(b"answer", fin=True), EndState(b"QUIZ"), "lost"),
        (EndState(b"answeranswer", fin=True), EndState(b"QUESTION", fin=True), "lost"),
    ],
)
def test_what_became_of_a_connection(client: EndState, server: EndState, fate: str) -> None:
    assert fate_of(USUAL, ended(client, server), (b"question", b"answer")) == fate


def test_without_what_was_sent_unchanged_bytes_count_as_lost() -> None:
    unchanged = ended(USUAL.client, EndState(b"question", fin=True))
    assert fate_of(USUAL, unchanged) == "lost"


def test_a_reset_that_comes_later_lets_more_through() -> None:
    usual = ended(EndState(b"an", reset=True), EndState(b"", reset=True))
    later = ended(EndState(b"answ", reset=True), EndState(b"", reset=True))
    assert fate_of(usual, later) == "reset"
    assert fate_of(usual, ended(EndState(b"oh", reset=True), EndState(b"", reset=True))) == "lost"


# --- other worlds ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "world", [ReactorWorld(), SocketWorld(), ReplayWorld()], ids=lambda world: type(world).__name__
)
def test_the_same_failures_are_survived_in_every_world(world: World) -> None:
    """A plan judges the calls of a live proxy and of a replay as it does in memory."""

    def make_script() -> WorldScript:
        edit = StreamEdit(find="e f", replace="-", mode="oob")
        steps = (Send("client", TEXT[:9]), Send("client", TEXT[9:]), Fin("client"), Fin("server"))
        options = EngineOptions()
        options.verify.level = "warn"
        return WorldScript(lambda engine: engine.add_callout(edit), steps, options)

    here, in_memory = (check_api_faults(make_script, place, times=(1,)) for place in (world, MemoryWorld()))
    assert here.survived, here.text()
    assert here.sites == in_memory.sites
    assert [result.fate for result in here.results] == [result.fate for result in in_memory.results]
