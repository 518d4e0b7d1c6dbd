"""A changed callout on flows that live: effective at a byte boundary, nothing lost, doubled or passed unseen."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.deployed import connected, deployed, reload, world

WORDS = ["sunny", "cloudy", "snowy", "windy"]


def text(word: str, mode: str, when: str = "") -> str:
    callout = f"stream_edit,find=rainy,replace={word},mode={mode}"
    return f"[[rule]]\nname = 'weather'\ncallout = '{callout}'\n{when}"


def check(data: bytes, arrived: bytes, words: int, missed: int) -> None:
    """Occurrences were replaced, by an old word first and by a newer one later; all else is as it was.

    `missed`: how many may be as they were. What a worker has pended when its filter retires it releases (MGMT-16),
    the beginning of an occurrence too; a callout that waits for more data is given it.
    """
    found = re.findall("|".join(WORDS).encode(), arrived)
    assert arrived.count(b"rainy") <= missed
    assert re.sub("|".join(WORDS).encode(), b"rainy", arrived) == data
    order = [WORDS.index(word.decode()) for word in found]
    assert order == sorted(order)
    assert max(order, default=0) < words


PIECES = st.lists(
    st.sampled_from([b"rainy", b"rain", b"r", b"ainy", b" ", b"y today "]), min_size=1, max_size=30
)


@settings(max_examples=80, deadline=None, report_multiple_bugs=False)
@given(
    PIECES.map(b"".join),
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.sets(st.integers(0, 40), max_size=3),
    st.sampled_from(["inline", "oob"]),
    st.booleans(),
)
def test_cut_anywhere_and_reloaded_anywhere(
    data: bytes, cuts: list[int], reloads: set[int], mode: str, settles: bool
) -> None:
    deployment = deployed(text(WORDS[0], mode))
    driver = world(deployment)
    flow = connected(driver)
    generation = at = count = 0
    while at < len(data):
        if count in reloads:
            generation += 1
            reload(deployment, text(WORDS[generation], mode))
            if settles:
                driver.settle()
        size = cuts[count % len(cuts)]
        flow.send(data[at : at + size])
        flow.receive(data[at : at + size])
        at, count = at + size, count + 1
    flow.send_fin()
    flow.receive_fin()
    driver.settle()
    assert flow.ended
    for peer in (flow.local, flow.remote):
        check(data, bytes(peer.data), generation + 1, generation if mode == "oob" else 0)
        assert peer.fin
    assert not driver.violations
    assert not [event for event in driver.events if event["event"] == "ledger_fault"]
    assert len(deployment.engine.fwps.callouts.registered()) == 2


@pytest.mark.parametrize("mode", ["inline", "oob"])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_new_word_is_used_from_the_reload_on(mode: str, size: int) -> None:
    """Idle when it is reloaded: not a byte later than that."""
    deployment = deployed(text(WORDS[0], mode))
    driver = world(deployment)
    flow = connected(driver)
    for word in WORDS:
        reload(deployment, text(word, mode))
        data = b"it is rainy. "
        for at in range(0, len(data), size):
            flow.send(data[at : at + size])
        driver.settle()
    assert bytes(flow.remote.data) == b"".join(b"it is %s. " % word.encode() for word in WORDS)


@pytest.mark.parametrize("mode", ["inline", "oob"])
def test_a_rule_whose_filter_is_replaced_goes_on_editing(mode: str) -> None:
    """The same object under a new filter: its stage takes over where the old one stops."""
    deployment = deployed(text(WORDS[0], mode))
    driver = world(deployment)
    flow = connected(driver, server=("10.0.0.2", 80))
    for port in (80, 443, 80):
        flow.send(b"it is rai" if mode == "inline" else b"it is ")
        reload(deployment, text(WORDS[0], mode, f"when = {{ remote_port = [80, {port}] }}"))
        flow.send(b"ny, rainy. " if mode == "inline" else b"rainy, rainy. ")
    flow.send_fin()
    driver.settle()
    assert bytes(flow.remote.data) == b"it is sunny, sunny. " * 3
    assert flow.remote.fin
    assert not driver.violations
