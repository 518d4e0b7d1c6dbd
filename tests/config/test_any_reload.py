"""Any configuration after any other: in force is what the file says, what is unchanged stays, no byte is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.deployed import LISTENER, TAGGED, callouts, deployed, filters, loaded, meaning, world
from wfpstream.config import Deployment, Difference
from wfpstream.fwpm import LAYERS
from wfpstream.testing import FlowEnds

NAMES = ["a", "b", "c"]
names = st.sampled_from(NAMES)
tags = st.sampled_from(["x", "y"])
ports = st.lists(st.sampled_from([80, 81]), max_size=1)
inline = st.builds(lambda tag: f"{TAGGED},tag={tag}", tags)


@dataclass(frozen=True)
class File:
    """A configuration, as its tables."""

    sub_layers: dict[str, int]
    callouts: dict[str, str]
    rules: tuple[tuple[str, str, tuple[int, ...]], ...]
    filters: tuple[tuple[str, str, str, str | None, str, tuple[int, ...], int | None], ...]
    limit: int = 5

    def text(self) -> str:
        parts = [LISTENER]
        parts += [
            f"[[sublayer]]\nname = '{name}'\nweight = {weight}" for name, weight in self.sub_layers.items()
        ]
        parts += [
            f"[[callout]]\nname = '{name}'\nuse = '{TAGGED}'\noptions = {{ tag = '{tag}' }}"
            for name, tag in self.callouts.items()
        ]
        for name, callout, when in self.rules:
            parts.append(f"[[rule]]\ncallout = '{callout}'")
            parts += [f"name = '{name}'"] if name else []
            parts += [f"when = {{ remote_port = {list(when)} }}"] if when else []
        for name, layer, action, named, sub_layer, when, weight in self.filters:
            parts.append(f"[[filter]]\nname = '{name}'\nlayer = '{layer}'\nsublayer = '{sub_layer}'")
            parts.append(f"action = '{action}'" + (f"\ncallout = '{named}'" if named else ""))
            parts += [f"weight = {weight}"] if weight is not None else []
            parts += [f"[[filter.condition]]\nfield = 'ip_remote_port'\nvalue = {port}" for port in when]
        parts.append(f"[limits]\nflows = {self.limit}")
        return "\n".join(parts)


@st.composite
def files(draw: st.DrawFn) -> File:
    sub_layers = draw(st.dictionaries(names, st.sampled_from([1, 2, 0x9000]), min_size=1))
    callouts = draw(st.dictionaries(names, tags, min_size=1))
    some_callout = inline | st.sampled_from(sorted(callouts))
    rules = draw(
        st.lists(st.tuples(st.sampled_from(["", *NAMES]), some_callout, ports.map(tuple)), max_size=4)
    )
    found = []
    for name in draw(st.lists(names, max_size=4)):
        layer = draw(st.sampled_from(["stream", "stream_v4", "ale_auth_connect"]))
        action = (
            "callout_unknown" if layer != "ale_auth_connect" else draw(st.sampled_from(["permit", "block"]))
        )
        named = draw(st.sampled_from(sorted(callouts))) if layer != "ale_auth_connect" else None
        # Nothing here blocks what the flows below do.
        when = draw(ports.map(tuple)) if action != "block" else draw(st.sampled_from([(25,), (25, 26)]))
        weight = draw(st.sampled_from([None, 3]))
        found.append((name, layer, action, named, draw(st.sampled_from(sorted(sub_layers))), when, weight))
    return File(sub_layers, callouts, tuple(rules), tuple(found), draw(st.integers(5, 6)))


@dataclass
class Talk:
    """A flow, and what was sent on it."""

    flow: FlowEnds
    sent: bytearray = field(default_factory=bytearray)

    def say(self, data: bytes) -> None:
        self.flow.send(data)
        self.sent += data


def known(deployment: Deployment) -> dict[tuple[str, str, Any], tuple[int, Any]]:
    """filterId and callout key by filter, layer and conditions."""
    return {
        (one.display_data.name, LAYERS[one.layer_key].name, one.filter_key): (one.filter_id, one.callout_key)
        for one in filters(deployment.engine)
    }


def mentioned(difference: Difference) -> set[str]:
    return {change.name for change in difference.changes}


@settings(max_examples=60, deadline=None, report_multiple_bugs=False)
@given(st.lists(st.tuples(files(), st.binary(max_size=5)), min_size=2, max_size=6))
def test_any_file_after_any_other(steps: list[tuple[File, bytes]]) -> None:
    first, _ = steps[0]
    deployment = deployed(first.text())
    driver = world(deployment)
    talks: list[Talk] = []
    for previous, (file, data) in zip([first, *(file for file, _ in steps)], steps, strict=False):
        flow = driver.connect(server=("10.0.0.2", 80))
        assert flow is not None
        talks.append(Talk(flow))
        for talk in talks:
            talk.say(data)
        before = known(deployment)
        pending = deployment.prepare(loaded(file.text()))
        difference = pending.commit()
        assert bool(difference) == bool(difference.lines())
        assert meaning(deployment.engine) == meaning(deployed(file.text()).engine)
        assert deployment.engine.options.limits.flows == file.limit
        if file == previous:
            assert not difference
        told = mentioned(difference)
        kept = {key: value for key, value in before.items() if key[0] not in told}
        if not told & {*file.callouts, *file.sub_layers}:
            assert known(deployment).items() >= kept.items()
        for talk in talks:
            talk.say(data)
    for talk in talks:
        talk.flow.send_fin()
        driver.settle()
        assert bytes(talk.flow.remote.data) == bytes(talk.sent)
        assert talk.flow.remote.fin
    assert callouts(deployment.engine) == callouts(deployed(steps[-1][0].text()).engine)
    assert not [event for event in driver.events if event["event"] == "ledger_fault"]
