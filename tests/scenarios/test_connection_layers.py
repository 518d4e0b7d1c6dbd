"""The ALE connection layers: authorise, pend, redirect (SC-140..150).

K is the callout at the layer under test, E one at FLOW_ESTABLISHED and A one at the stream layer; they share
one log, so that the order of the layers is visible.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import Call, P, Script
from tests.scenarios.support_api import Plane, events
from tests.scenarios.support_connections import (
    ESTABLISHED,
    LISTENER,
    UPSTREAM,
    Dial,
    Gate,
    LayerAnswer,
    LayerCall,
    PendedRedirect,
    Pending,
    Redirect,
    Scene,
    assert_blocked,
    assert_works,
    block,
    finish,
    go_on,
    permit,
    redirect_scene,
)
from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, DataType, FwpValue, MatchType, NtStatus, V4AddrMask
from wfpstream.fwps import (
    CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS,
    RIGHT_ACTION_WRITE,
    ConnectionRedirectState,
    FieldsStream,
)

SUCCESS = NtStatus.STATUS_SUCCESS
CANNOT_PEND = NtStatus.STATUS_FWP_CANNOT_PEND

# --- authorisation --------------------------------------------------------------------------------


@pytest.mark.parametrize("closed_as", ["rst", "fin"])
def test_sc_140_auth_connect_blocks(closed_as: str) -> None:
    options = EngineOptions()
    options.policy.on_block = closed_as
    scene = Scene((Gate("ale_auth_connect", block),), options)
    dial = Dial(scene.driver)
    assert scene.log == ["K(AUTH_CONNECT 80)"]
    assert_blocked(scene, dial, "ale_auth_connect", closed_as)
    scene.close()


def test_sc_141_auth_recv_accept_by_address() -> None:
    accepts = Gate("ale_auth_recv_accept")
    connects = Gate("ale_auth_connect", block)
    scene = Scene((accepts, connects))
    plane = Plane(scene.driver)
    network = FwpValue(DataType.V4_ADDR_MASK, V4AddrMask(0x0A000000, 0xFF000000))
    status, _ = plane.filter(
        "ten",
        layer_key=fwpm.LAYER_ALE_AUTH_RECV_ACCEPT_V4,
        sub_layer_key=plane.sub_layer("light", 1),
        action_type=ActionType.BLOCK,
        conditions=(fwpm.FilterCondition(fwpm.CONDITION_IP_REMOTE_ADDRESS, MatchType.EQUAL, network),),
    )
    assert status == SUCCESS
    inside = Dial(scene.driver, client=("10.1.2.3", 40000), local="server")
    assert scene.log == ["K(AUTH_RECV_ACCEPT 40000)"]
    assert_blocked(scene, inside, "ale_auth_recv_accept")
    scene.log.clear()
    outside = Dial(scene.driver, client=("192.0.2.7", 40001), local="server")
    assert scene.log == ["K(AUTH_RECV_ACCEPT 40001)", ESTABLISHED]
    assert_works(outside)
    assert connects.calls == []
    scene.close()


def test_sc_142_light_block_overrides_heavy_permit() -> None:
    heavy, light = Gate("ale_auth_connect", permit, name="K1"), Gate("ale_auth_connect", block, name="K2")
    scene = Scene((heavy, light))
    dial = Dial(scene.driver)
    assert scene.log == ["K1(AUTH_CONNECT 80)", "K2(AUTH_CONNECT 80)"]
    assert_blocked(scene, dial, "ale_auth_connect")
    scene.close()


def test_sc_142_light_permit_does_not_override_a_plain_block() -> None:
    rights: list[int] = []

    def note_and_permit(call: LayerCall) -> None:
        rights.append(call.out.rights & RIGHT_ACTION_WRITE)
        permit(call)

    scene = Scene((Gate("ale_auth_connect", note_and_permit, name="K2"),))
    plane = Plane(scene.driver)
    status, _ = plane.filter(
        "block all",
        layer_key=fwpm.LAYER_ALE_AUTH_CONNECT_V4,
        sub_layer_key=plane.sub_layer("heavy", 0xFFFF),
        action_type=ActionType.BLOCK,
    )
    assert status == SUCCESS
    dial = Dial(scene.driver)
    assert scene.log == ["K2(AUTH_CONNECT 80)"]
    assert rights == [0]
    assert_blocked(scene, dial, "ale_auth_connect")
    scene.close()


# --- pended connections ---------------------------------------------------------------------------


def test_sc_143_pended_connect_is_authorised_again() -> None:
    pending = Pending()
    gate = Gate("ale_auth_connect", pending.pend, permit)
    scene = Scene((gate,))
    dial = Dial(scene.driver)
    assert gate.statuses == [SUCCESS]
    assert dial.verdict == "pended"
    dial.send(b"hi")
    dial.advance(0.1)
    assert scene.log == ["K(AUTH_CONNECT 80)"]
    assert (dial.verdict, dial.connected_to) == ("pended", None)
    scene.driver.fwps.complete_operation(pending.context, None)
    dial.settle()
    assert dial.verdict == "permit"
    assert dial.connected_to == UPSTREAM
    assert scene.log == [
        "K(AUTH_CONNECT 80)",
        "K(AUTH_CONNECT 80 REAUTHORIZE)",
        ESTABLISHED,
        "A(S2 'hi')",
    ]
    assert dial.flow is not None
    assert dial.flow.remote.data == b"hi"
    assert dial.flow.local.data == b""
    scene.close()


def test_sc_143_reauthorisation_cannot_pend() -> None:
    pending = Pending()
    gate = Gate("ale_auth_connect", pending.pend, pending.pend_again_and_permit)
    scene = Scene((gate,))
    dial = Dial(scene.driver)
    scene.driver.fwps.complete_operation(pending.context, None)
    dial.settle()
    assert gate.statuses == [SUCCESS, CANNOT_PEND]
    assert scene.log == ["K(AUTH_CONNECT 80)", "K(AUTH_CONNECT 80 REAUTHORIZE)", ESTABLISHED]
    assert_works(dial)
    scene.close("V-61")


@pytest.mark.parametrize("with_list", [True, False])
def test_sc_144_pended_accept(with_list: bool) -> None:
    pending = Pending()

    def pend_and_reference(call: LayerCall) -> None:
        call.owner.fwps.reference_net_buffer_list(call.layer_data)
        pending.pend(call)

    gate = Gate("ale_auth_recv_accept", pend_and_reference)
    scene = Scene((gate,))
    dial = Dial(scene.driver, local="server")
    assert gate.statuses == [SUCCESS]
    assert dial.verdict == "pended"
    fwps = scene.driver.fwps
    assert pending.layer_data is not None
    fwps.complete_operation(pending.context, pending.layer_data if with_list else None)
    fwps.dereference_net_buffer_list(pending.layer_data)
    dial.settle()
    if with_list:
        assert scene.log == ["K(AUTH_RECV_ACCEPT 40000)", ESTABLISHED]
        assert_works(dial)
    else:
        assert scene.log == ["K(AUTH_RECV_ACCEPT 40000)"]
        assert_blocked(scene, dial, "ale_auth_recv_accept")
    scene.close()


def test_sc_145_pended_and_never_completed() -> None:
    pending = Pending()
    scene = Scene((Gate("ale_auth_connect", pending.pend),))
    dial = Dial(scene.driver)
    dial.advance(29.9)
    assert dial.verdict == "pended"
    dial.advance(0.2)
    assert_blocked(scene, dial, "ale_auth_connect")
    scene.driver.fwps.complete_operation(pending.context, None)
    dial.settle()
    assert dial.verdict == "block"
    assert scene.log == ["K(AUTH_CONNECT 80)"]
    scene.close("V-59")


def test_sc_145_pended_and_the_client_resets() -> None:
    pending = Pending()
    scene = Scene((Gate("ale_auth_connect", pending.pend),))
    dial = Dial(scene.driver)
    dial.reset_client()
    scene.driver.fwps.complete_operation(pending.context, None)
    dial.settle()
    dial.advance(60.0)
    assert dial.connected_to is None
    assert dial.flow is None
    assert scene.log == ["K(AUTH_CONNECT 80)"]
    scene.close()


def test_sc_145_flow_established_cannot_pend() -> None:
    statuses: list[NtStatus] = []

    def try_to_pend(call: LayerCall) -> None:
        status, _ = call.owner.fwps.pend_operation(1)
        statuses.append(status)
        go_on(call)

    gate = Gate("ale_flow_established", try_to_pend)
    scene = Scene((gate,))
    dial = Dial(scene.driver)
    assert statuses == [CANNOT_PEND]
    assert scene.log == ["K(FLOW_ESTABLISHED)", ESTABLISHED]
    assert_works(dial)
    scene.close()


# --- redirection ----------------------------------------------------------------------------------


def test_sc_146_connect_redirected_inline() -> None:
    redirect = Redirect(("10.0.0.2", 8081))
    seen: list[tuple[int, Any]] = []

    def note(call: Call) -> None:
        port = call.fixed.incoming_value[FieldsStream.IP_REMOTE_PORT].value
        seen.append((port, call.meta.upstream_address))

    scene, (_, watcher) = redirect_scene(redirect, stream=Script(then=P(0, note)))
    dial = Dial(scene.driver)
    assert scene.log == ["K(CONNECT_REDIRECT 80)", "C(AUTH_CONNECT 8081 REDIRECTED)", ESTABLISHED]
    assert redirect.states == [ConnectionRedirectState.NOT_REDIRECTED]
    assert watcher.calls[0].meta.original_destination == UPSTREAM
    assert_works(dial, ("10.0.0.2", 8081))
    assert seen == [(80, ("10.0.0.2", 8081)), (80, ("10.0.0.2", 8081))]
    finish(scene)


@pytest.mark.parametrize(
    ("redirect", "connected_to"),
    [
        pytest.param(Redirect(("10.0.0.2", 8081), apply=False), UPSTREAM, id="without apply"),
        pytest.param(Redirect(("10.0.0.2", 8081), release=False), ("10.0.0.2", 8081), id="without release"),
        pytest.param(
            Redirect(("10.0.0.2", 8081), local_address=("10.9.9.9", 9)),
            ("10.0.0.2", 8081),
            id="local address",
        ),
    ],
)
def test_sc_147_redirect_done_wrong(redirect: Redirect, connected_to: tuple[str, int]) -> None:
    scene, _ = redirect_scene(redirect)
    dial = Dial(scene.driver)
    port = connected_to[1]
    flags = " REDIRECTED" if port == 8081 else ""
    assert scene.log == ["K(CONNECT_REDIRECT 80)", f"C(AUTH_CONNECT {port}{flags})", ESTABLISHED]
    assert_works(dial, connected_to)
    finish(scene, "V-60")


def test_sc_148_connect_redirected_by_a_worker() -> None:
    pended = PendedRedirect(Redirect(("10.0.0.2", 8081)))
    scene, (gate, *_) = redirect_scene(pended.pend, permit)
    _, pended.redirect.redirect_handle = scene.driver.fwps.redirect_handle_create(fwpm.ZERO_KEY, 0)
    dial = Dial(scene.driver)
    assert dial.verdict == "pended"
    dial.advance(0.1)
    assert scene.log == ["K(CONNECT_REDIRECT 80)"]
    pended.work(gate)
    dial.settle()
    assert scene.log == [
        "K(CONNECT_REDIRECT 80)",
        "L(CONNECT_REDIRECT 80 REAUTHORIZE)",
        "C(AUTH_CONNECT 8081 REDIRECTED)",
        ESTABLISHED,
    ]
    assert_works(dial, ("10.0.0.2", 8081))
    scene.driver.fwps.redirect_handle_destroy(pended.redirect.redirect_handle)
    finish(scene)


def test_sc_149_light_callout_leaves_the_redirect() -> None:
    found: list[Any] = []

    def look(call: LayerCall) -> None:
        found.append(call.layer_data)
        permit(call)

    scene, (heavy, *_) = redirect_scene(Redirect(("10.0.0.2", 8081)), look)
    dial = Dial(scene.driver)
    assert scene.log == [
        "K(CONNECT_REDIRECT 80)",
        "L(CONNECT_REDIRECT 80)",
        "C(AUTH_CONNECT 8081 REDIRECTED)",
        ESTABLISHED,
    ]
    assert found[0].remote_address_and_port == ("10.0.0.2", 8081)
    assert found[0].modifier_filter_id == heavy.calls[0].filter.filter_id
    assert found[0].previous_version.remote_address_and_port == UPSTREAM
    assert found[0].previous_version.previous_version is None
    assert_works(dial, ("10.0.0.2", 8081))
    finish(scene)


def test_sc_149_light_callout_replaces_the_redirect() -> None:
    light = Redirect(("10.0.0.2", 8082))
    scene, (heavy, *_) = redirect_scene(Redirect(("10.0.0.2", 8081)), light)
    dial = Dial(scene.driver)
    assert light.states == [ConnectionRedirectState.REDIRECTED_BY_OTHER]
    assert light.previous[0].remote_address_and_port == ("10.0.0.2", 8081)
    assert light.previous[0].modifier_filter_id == heavy.calls[0].filter.filter_id
    assert scene.log == [
        "K(CONNECT_REDIRECT 80)",
        "L(CONNECT_REDIRECT 80)",
        "C(AUTH_CONNECT 8082 REDIRECTED)",
        ESTABLISHED,
    ]
    assert_works(dial, ("10.0.0.2", 8082))
    finish(scene)


def test_sc_149_heavy_callout_asked_to_hear_of_changes() -> None:
    flag = CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS
    pended = PendedRedirect(Redirect(("10.0.0.2", 8081), apply_flags=flag))
    scene, (heavy, *_) = redirect_scene(pended.pend, Redirect(("10.0.0.2", 8082)))
    _, pended.redirect.redirect_handle = scene.driver.fwps.redirect_handle_create(fwpm.ZERO_KEY, 0)
    dial = Dial(scene.driver)
    pended.work(heavy)
    dial.settle()
    assert scene.log == [
        "K(CONNECT_REDIRECT 80)",
        "L(CONNECT_REDIRECT 80 REAUTHORIZE)",
        "K(CONNECT_REDIRECT 80 REAUTHORIZE)",
        "C(AUTH_CONNECT 8082 REDIRECTED)",
        ESTABLISHED,
    ]
    assert_works(dial, ("10.0.0.2", 8082))
    scene.driver.fwps.redirect_handle_destroy(pended.redirect.redirect_handle)
    finish(scene)


def test_sc_149_heavy_callout_cleared_the_write_right() -> None:
    light = Redirect(("10.0.0.2", 8082))
    scene, _ = redirect_scene(Redirect(("10.0.0.2", 8081), write_right=False), light)
    dial = Dial(scene.driver)
    assert scene.log == [
        "K(CONNECT_REDIRECT 80)",
        "L(CONNECT_REDIRECT 80)",
        "C(AUTH_CONNECT 8081 REDIRECTED)",
        ESTABLISHED,
    ]
    assert_works(dial, ("10.0.0.2", 8081))
    finish(scene, "V-60")


def looping_scene(*answers: Redirect | LayerAnswer) -> Scene:
    """K answers one pass after the other; what redirects shares one handle."""
    scene = Scene((Gate("ale_connect_redirect", *answers),))
    status, handle = scene.driver.fwps.redirect_handle_create(fwpm.ZERO_KEY, 0)
    assert status == SUCCESS
    for answer in answers:
        if isinstance(answer, Redirect):
            answer.redirect_handle = handle
    return scene


def dial_again(scene: Scene, dial: Dial, port: int) -> Dial:
    """The upstream leg of a redirected connection arrives at our own listener, from `port`."""
    own = (LISTENER[0], port)
    dial.attempt.connected_from(own)
    return Dial(scene.driver, client=own)


def test_sc_150_second_pass_of_a_redirect_to_our_own_listener() -> None:
    unaware = Redirect(LISTENER, ask_state=False, target_pid=4711)
    states: list[int] = []

    def look(call: LayerCall) -> None:
        state, _ = call.owner.fwps.query_connection_redirect_state(
            call.meta.redirect_records, unaware.redirect_handle
        )
        states.append(state)
        permit(call)

    scene = looping_scene(unaware, look)
    first = Dial(scene.driver)
    assert first.connected_to == LISTENER
    second = dial_again(scene, first, 50001)
    assert states == [ConnectionRedirectState.REDIRECTED_BY_SELF]
    assert scene.log == ["K(CONNECT_REDIRECT 80)", ESTABLISHED, "K(CONNECT_REDIRECT 80)", ESTABLISHED]
    assert_works(second)
    scene.driver.fwps.redirect_handle_destroy(unaware.redirect_handle)
    scene.close("V-63")


def test_sc_150_loop_is_broken_at_the_eighth_redirect() -> None:
    redirect = Redirect(LISTENER, target_pid=4711)
    scene = looping_scene(*[redirect] * 9)
    dial = Dial(scene.driver)
    for hop in range(1, 8):
        assert (dial.verdict, dial.connected_to) == ("permit", LISTENER)
        dial = dial_again(scene, dial, 50000 + hop)
    assert (dial.verdict, dial.connected_to, dial.flow) == ("block", None, None)
    assert scene.log == ["K(CONNECT_REDIRECT 80)", ESTABLISHED] * 7 + ["K(CONNECT_REDIRECT 80)"]
    (event,) = events(scene.driver, "flow_blocked")
    assert event["layer"].lower().startswith("ale_connect_redirect")
    assert redirect.states == [
        ConnectionRedirectState.NOT_REDIRECTED,
        *[ConnectionRedirectState.REDIRECTED_BY_SELF] * 7,
    ]
    scene.driver.fwps.redirect_handle_destroy(redirect.redirect_handle)
    scene.close(*["V-63"] * 7)
