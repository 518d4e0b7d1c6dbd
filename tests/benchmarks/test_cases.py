"""Which cases and peers a run has, and how much each is given to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers._cases import CASES, choose_cases
from benchmarks.peers._programs import PEERS, choose_peers
from benchmarks.peers._rounds import amounts, figures_of
from benchmarks.peers._targets import TARGETS

KNOWN = {case.name: case for case in CASES}


def test_names_are_chosen_by_their_beginnings_in_the_order_of_the_run() -> None:
    assert [case.name for case in choose_cases("connect,bulk-1")] == [
        "bulk-1-to-client", "bulk-1-to-upstream", "connect",
    ]  # fmt: skip
    assert choose_cases(None) == list(CASES)
    assert choose_cases("ping-pong-1") == [KNOWN["ping-pong-1"]]


def test_a_word_that_begins_no_case_is_told() -> None:
    with pytest.raises(ValueError, match="'bluk' begins no case; there are bulk-1-to-client, "):
        choose_cases("bulk,bluk")


def test_a_name_that_is_no_peer_is_told() -> None:
    with pytest.raises(ValueError, match="'envoi' is no peer"):
        choose_peers("wfpstream,envoi", {})


def test_another_tree_is_measured_beside_ours_and_nobody_elses() -> None:
    chosen = choose_peers("wfpstream,envoy", {"old": Path("/some/tree")})
    assert [peer.name for peer in chosen] == ["wfpstream", "old:wfpstream", "envoy"]
    assert chosen[1].environment == {"PYTHONPATH": "/some/tree"}


def test_every_case_names_peers_that_exist_and_every_target_a_case_with_its_peers() -> None:
    names = {peer.name for peer in PEERS}
    for case in CASES:
        assert set(case.peers) <= names, case.name
    for target in TARGETS:
        assert {target.ours, *target.rivals} <= set(KNOWN[target.case].peers), target


def test_slow_peers_get_a_share() -> None:
    peers = {peer.name: peer for peer in PEERS}
    bulk = KNOWN["bulk-8-to-upstream"]
    assert amounts(bulk, peers["envoy"]) == {"connections": 8, "bytes": 150_000_000, "to_upstream": 1}
    assert amounts(bulk, peers["mitmproxy"])["bytes"] == 7_500_000
    assert amounts(KNOWN["idle"], peers["socat"]) == {"connections": 500}
    assert amounts(KNOWN["ping-pong-1"], peers["mitmproxy"])["seconds"] == 1.5


def test_figures_are_per_unit() -> None:
    bulk = figures_of(KNOWN["bulk-1-to-client"], {"bytes": 500_000_000, "seconds": 2.0}, 0.25)
    assert bulk == {"cpu": 0.5, "wall": 2.0}
    latency = {"p50_us": 1.0, "p99_us": 2.0}
    trips = figures_of(KNOWN["ping-pong-32"], {"messages": 1000, "seconds": 0.5, **latency}, 0.02)
    assert trips == {"cpu": pytest.approx(20.0), "wall": 2000.0, **latency}
    made = figures_of(KNOWN["connect"], {"connections": 500, "seconds": 0.5, **latency}, 0.05)
    assert made == {"cpu": pytest.approx(1.0), "wall": 1000.0, **latency}
    idle = figures_of(KNOWN["idle"], {"connections": 100, "seconds": 0.0}, 1_024_000)
    assert idle == {"cpu": 10.0, "wall": 100}
