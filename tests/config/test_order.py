"""Filters of equal weight after any reload: the verdicts are those of the file, whatever was there before."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.deployed import deployed, filters, ids, reload
from wfpstream.engine import Endpoints, FilterEngine

PORTS = [80, 81, 82, 443]
CLIENTS = ["10.0.0.1", "10.0.1.1", "192.0.2.1"]


@dataclass(frozen=True)
class Rule:
    """A plain filter, and what it says of ports and clients."""

    name: str
    action: str
    ports: tuple[int | str, ...]
    clients: tuple[str, ...]
    weight: int | None

    def text(self) -> str:
        parts = [f"[[filter]]\nname = '{self.name}'\nlayer = 'ale_auth_connect_v4'\naction = '{self.action}'"]
        parts += [f"weight = {self.weight}"] if self.weight is not None else []
        for field, values in (("ip_remote_port", self.ports), ("ip_local_address", self.clients)):
            for value in values:
                is_range = isinstance(value, str) and "-" in value
                parts.append(f"[[filter.condition]]\nfield = '{field}'\nvalue = {value!r}")
                parts += ["match = 'range'"] if is_range else []
        return "\n".join(parts)


some_ports = st.lists(st.sampled_from([*PORTS, "80-81", "81-443"]), max_size=2).map(tuple)
some_clients = st.lists(st.sampled_from([*CLIENTS, "10.0.0.0/24", "10.0.0.0/8"]), max_size=2).map(tuple)
names, actions = st.sampled_from("abcd"), st.sampled_from(["permit", "block"])
# Many of one weight that some flows meet together, and some of any kind.
alike = st.lists(st.sampled_from([80, 81]), min_size=1, max_size=2).map(tuple)
files = st.lists(
    st.builds(Rule, names, actions, alike, st.just(()), st.none())
    | st.builds(Rule, names, actions, some_ports, some_clients, st.sampled_from([None, 3])),
    max_size=5,
).map(tuple)


def text(file: tuple[Rule, ...]) -> str:
    return "\n".join(rule.text() for rule in file)


def verdicts(engine: FilterEngine) -> list[str]:
    return [
        engine.connection_requested(
            Endpoints(client=(client, 40000), destination=("127.0.0.1", port))
        ).verdict
        for client in CLIENTS
        for port in PORTS
    ]


@settings(max_examples=150, deadline=None, report_multiple_bugs=False)
@given(st.lists(files, min_size=2, max_size=5))
def test_verdicts_are_those_of_the_file(steps: list[tuple[Rule, ...]]) -> None:
    """MGMT-8: at equal weight what was added first is asked first; a file's order is that of a first start."""
    deployment = deployed(text(steps[0]))
    for file in steps[1:]:
        reload(deployment, text(file))
        assert verdicts(deployment.engine) == verdicts(deployed(text(file)).engine)


@settings(max_examples=60, deadline=None, report_multiple_bugs=False)
@given(files, st.integers(0, 4))
def test_what_no_flow_meets_together_is_left_alone(file: tuple[Rule, ...], at: int) -> None:
    """A new filter for a port that no other names replaces none of them."""
    named = [Rule(r.name, r.action, r.ports or (443,), r.clients, r.weight) for r in file]
    new = Rule("new", "block", (7,), (), None)
    deployment = deployed(text(tuple(named)))
    before = ids(deployment.engine)
    reload(deployment, text((*named[:at], new, *named[at:])))
    assert ids(deployment.engine).items() >= before.items()
    assert len(filters(deployment.engine)) == len(named) + 1
