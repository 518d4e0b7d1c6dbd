"""MGMT-10, ARB-1, MGMT-12 with many filters: whoever is found by a connection's values matches, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, ClassVar

import pytest

from tests.fwps.support_connection import Door, Pender, complete, request, world
from wfpstream import fwpm
from wfpstream.config import decode_config, deploy
from wfpstream.fwp import ActionType, MatchType, uint16
from wfpstream.fwps import Callout, _filter_set
from wfpstream.testing import MemoryDriver

SEEDS = 12
NEVER, ALWAYS = 1 << 30, -1
PORTS = (25, 80, 443, 8000)
SERVERS = ("10.0.0.2", "10.0.0.3", "192.0.2.7", "2001:db8::7")
CLIENTS = ("10.0.0.1", "10.9.9.9", "2001:db8::1")
LAYERS = ("ale_auth_connect", "ale_flow_established", "stream")


class Noting(Callout):
    """Notes who asks it, and answers at layers that can what its filter is called."""

    layers = LAYERS
    asked: ClassVar[list[str]] = []

    def classify_fn(self, *args: Any) -> None:
        """Go on, or decide."""
        filter, out = args[4], args[6]
        self.asked.append(filter.name)
        decides = "deciding" in filter.name and out.rights
        out.action_type = int(ActionType.PERMIT if decides else ActionType.CONTINUE)


def random_value(dice: Random, field: str) -> object:
    if field.endswith("port"):
        return dice.choice([dice.choice(PORTS), dice.choice(PORTS), "20-100", "1000-60000"])
    return dice.choice(["10.0.0.0/8", "2001:db8::/32", *SERVERS, *CLIENTS])


def random_conditions(dice: Random) -> Iterator[dict[str, object]]:
    """Alternatives stand together; most conditions ask for one value."""
    for field in ("ip_remote_port", "ip_remote_address", "ip_local_address"):
        for _ in range(dice.choice([0, 1, 1, 2])):
            value = random_value(dice, field)
            exact = isinstance(value, int) or str(value) in (*SERVERS, *CLIENTS)
            match = dice.choice(["equal", "equal", "not_equal"]) if exact else "range"
            if "/" in str(value):
                match = "equal"
            yield {"field": field, "value": value, "match": match}


def random_policy(seed: int) -> dict[str, Any]:
    dice = Random(seed)
    names = ("high", "middle", "low")
    filters = []
    for number in range(dice.choice([20, 60, 150])):
        layer = dice.choice(LAYERS)
        actions = ["callout_unknown"] if layer != LAYERS[0] else ["permit", "block", "callout_unknown"]
        weights = [1] if len(actions) == 1 else [5, 3, 20]
        action = dice.choices(actions, weights)[0]
        one = {
            "name": f"{number}{dice.choice(['', ' deciding'])}",
            "layer": layer,
            "action": action,
            "sublayer": dice.choice(names),
            "condition": list(random_conditions(dice)),
        }
        filters.append(one | ({"callout": "noting"} if action == "callout_unknown" else {}))
    return {
        "sublayer": [{"name": name, "weight": weight} for weight, name in enumerate(names, 0x9000)],
        "callout": [{"name": "noting", "use": f"{__name__}:Noting"}],
        "filter": filters,
    }


def seen_by(seed: int, indexed_from: int, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What becomes of connections, and who was asked: of a policy, then of another one in its place under the flows."""
    monkeypatch.setattr(_filter_set, "_FEW", indexed_from)
    policy, later = random_policy(seed), random_policy(seed + 1_000_000)
    deployment = deploy(decode_config(policy))
    driver = MemoryDriver(engine=deployment.engine)
    Noting.asked.clear()
    seen: list[object] = []
    flows = []
    for server in SERVERS:
        for port in (*PORTS, 9):
            client = CLIENTS[-1] if ":" in server else CLIENTS[port % 2]
            ends = driver.connect((client, 40000), (server, port))
            seen.append((server, port, ends is not None))
            flows.append(ends)
            if ends is not None:
                ends.send(b"w")
    deployment.prepare(decode_config({**later, "callout": policy["callout"]})).commit()
    for ends in flows:
        if ends is not None:
            ends.send(b"x")
            seen.append(bytes(ends.remote.data))
    return [*seen, *Noting.asked]


def test_the_policies_are_worth_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are permitted and blocked, and many filters are asked."""
    seen = [one for seed in range(SEEDS) for one in seen_by(seed, NEVER, monkeypatch)]
    passed = [one[2] for one in seen if isinstance(one, tuple)]
    asked = [one for one in seen if isinstance(one, str)]
    assert 0.5 < sum(passed) / len(passed) < 0.95
    assert len(asked) > 20 * SEEDS


@pytest.mark.parametrize("seed", range(SEEDS))
def test_who_is_asked_with_and_without_an_index(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_one_by_one = seen_by(seed, NEVER, monkeypatch)
    assert seen_by(seed, ALWAYS, monkeypatch) == asked_one_by_one
    assert seen_by(seed, 16, monkeypatch) == asked_one_by_one


def block_port(driver: MemoryDriver, port: int) -> None:
    condition = fwpm.FilterCondition(fwpm.CONDITION_KEYS["ip_remote_port"], MatchType.EQUAL, uint16(port))
    one = fwpm.Filter(
        display_data=fwpm.DisplayData(f"port {port}"),
        layer_key=fwpm.LAYER_ALE_AUTH_CONNECT_V4,
        sub_layer_key=fwpm.SUBLAYER_UNIVERSAL,
        action_type=ActionType.BLOCK,
        conditions=[condition],
    )
    assert driver.session.filter_add(one)[0].ok


def test_lay_19_filters_that_came_while_it_was_pended_are_found_by_value_too() -> None:
    pender = Pender()
    driver, log = world(Door(("ale_auth_connect",), pender, name="K"))
    for port in range(100, 150):
        block_port(driver, port)
    attempt = request(driver, server=("10.0.0.2", 80))
    assert attempt.verdict == "pended"
    for port in (90, 80):
        block_port(driver, port)
    complete(driver, pender.contexts[0])
    assert [asked.reauthorizing for asked in log] == [False, True]
    assert attempt.verdict == "block"
