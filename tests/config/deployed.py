"""Kit: what stands in an engine, and a deployment with flows of the memory driver."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from typing import Any, ClassVar
from uuid import UUID
from weakref import WeakKeyDictionary

from wfpstream.callouts import SequentialCallout, Steps, need, permit
from wfpstream.config import (
    CalloutText,
    ConfigError,
    Deployment,
    Difference,
    LoadedConfig,
    deploy,
    parse_config,
)
from wfpstream.engine import FilterEngine
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwpm import LAYERS, Filter
from wfpstream.fwps import Callout, Filter2, LayerId
from wfpstream.testing import FlowEnds, MemoryDriver

LISTENER = '[[proxy.listener]]\nname = "web"\nlisten = "127.0.0.1:7000"\nupstream = "127.0.0.1:80"\n'
SECOND = LISTENER.replace("web", "mail").replace("7000", "7001")

SUNNY = "stream_edit,find=rainy,replace=sunny"
LONG = """
[[sublayer]]
name = "edit"
weight = 0x9000
[[callout]]
name = "sunny"
use = "stream_edit"
options = { find = "rainy", replace = "sunny" }
[[filter]]
name = "edit"
layer = "stream"
sublayer = "edit"
action = "callout_unknown"
callout = "sunny"
[[filter]]
name = "block"
layer = "ale_auth_connect"
action = "block"
[[filter.condition]]
field = "ip_remote_port"
value = 25
"""


def rules(*texts: str, extra: str = "") -> str:
    return LISTENER + "\n".join(f"[[rule]]\n{text}" for text in texts) + "\n" + extra


def rule(callout: str, name: str = "", when: str = "") -> str:
    said = [f"callout = '{callout}'"]
    said += [f"name = '{name}'"] if name else []
    said += [f"when = {when}"] if when else []
    return "\n".join(said)


def loaded(text: str) -> LoadedConfig:
    return parse_config(textwrap.dedent(text), "f.toml")


class Clock:
    """The clock of an engine; that of its driver, once there is one."""

    driver: MemoryDriver | None = None

    def __call__(self) -> float:
        return self.driver.now if self.driver is not None else 0.0


_CLOCKS: WeakKeyDictionary[FilterEngine, Clock] = WeakKeyDictionary()


def deployed(text: str | LoadedConfig, callouts: Sequence[CalloutText] = ()) -> Deployment:
    clock = Clock()
    deployment = deploy(loaded(text) if isinstance(text, str) else text, callouts, clock)
    _CLOCKS[deployment.engine] = clock
    return deployment


def reload(deployment: Deployment, text: str, callouts: Sequence[CalloutText] = ()) -> Difference:
    return deployment.prepare(loaded(text), callouts).commit()


def lines(deployment: Deployment, text: str) -> list[str]:
    """The difference, as told before and after it is made."""
    pending = deployment.prepare(loaded(text))
    told = pending.difference.lines()
    assert pending.commit().lines() == told
    return told


def refused(deployment: Deployment, text: str) -> list[str]:
    """The errors of a configuration that changes nothing."""
    before = everything(deployment.engine)
    try:
        deployment.prepare(loaded(text)).commit()
    except ConfigError as error:
        assert everything(deployment.engine) == before
        return error.lines()
    raise AssertionError("it was accepted")


def world(deployment: Deployment) -> MemoryDriver:
    """The deployment's engine with a memory driver; the verifier reports."""
    deployment.engine.options.verify.level = "warn"
    driver = MemoryDriver(engine=deployment.engine, options=deployment.engine.options)
    _CLOCKS[deployment.engine].driver = driver
    return driver


def connected(driver: MemoryDriver, **keys: Any) -> FlowEnds:
    flow = driver.connect(**keys)
    assert flow is not None
    return flow


# --- what stands in an engine


def filters(engine: FilterEngine, layer: str | None = None) -> list[Filter]:
    """The filters in force."""
    key = next((key for key, one in LAYERS.items() if one.name == layer), None)
    status, found = engine.session.filter_enum(key)
    assert status.ok
    return [one for one in found if not one.retiring]


def ids(engine: FilterEngine) -> dict[str, int]:
    """filterId by name and layer."""
    return {
        f"{one.display_data.name} at {LAYERS[one.layer_key].name}": one.filter_id for one in filters(engine)
    }


def callout_ids(engine: FilterEngine) -> dict[str, int]:
    """calloutId by name and layer."""
    _, found = engine.session.callout_enum()
    return {
        f"{one.display_data.name} at {LAYERS[one.applicable_layer].name}": one.callout_id for one in found
    }


def everything(engine: FilterEngine) -> list[Any]:
    """All that management and the run time know of objects, ids and weights included."""
    session = engine.session
    registered = [(entry.key, entry.owner) for entry in engine.fwps.callouts.registered()]
    return [
        session.sub_layer_enum(),
        session.callout_enum(),
        filters(engine),
        registered,
        [number for number, handle in engine.fwps.injector.handles.items() if not handle.destroyed],
        repr(engine.options),
    ]


def callouts(engine: FilterEngine) -> list[Any]:
    """The callout objects, and the code registered, without ids and the numbers of names."""
    _, found = engine.session.callout_enum()
    names = {one.callout_key: _plain(one.display_data.name) for one in found}
    registered = engine.fwps.callouts.registered()
    return [
        sorted((names[one.callout_key], LAYERS[one.applicable_layer].name) for one in found),
        sorted((names.get(entry.key, "?"), _state(entry.owner)) for entry in registered),
    ]


def meaning(engine: FilterEngine) -> list[Any]:
    """What is asked, in which order, without ids, the weights of rules and the numbers of names."""
    _, sub_layers = engine.session.sub_layer_enum()
    _, objects = engine.session.callout_enum()
    names = {one.callout_key: _plain(one.display_data.name) for one in objects}
    owners = {entry.key: entry.owner for entry in engine.fwps.callouts.registered()}
    found: list[Any] = [
        (one.display_data.name, one.weight if one.weight < 0xA000 else "a rule's") for one in sub_layers
    ]
    for layer in LAYERS.values():
        asked = [
            (
                layer.name,
                next(s.display_data.name for s in sub_layers if s.sub_layer_key == one.sub_layer_key),
                one.display_data.name,
                one.effective_weight,
                one.action_type,
                one.flags,
                tuple(one.conditions),
                names[one.callout_key] if one.callout_key else None,
                _state(owners[one.callout_key]) if one.callout_key else None,
                one.provider_object,
            )
            for one in filters(engine, layer.name)
        ]
        found.append(Counter(asked))
        found.append({pair for pair in combinations(asked, 2) if not _commute(*pair)})
    return found


def _commute(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Their order does not matter: they do the same, or no flow meets both (by the ports that they name)."""
    if one[:2] != other[:2]:
        return False
    ports = [{condition.condition_value.value for condition in each[6]} for each in (one, other)]
    return (one[7] is other[7] is None and one[4] == other[4]) or (all(ports) and not ports[0] & ports[1])


def _plain(name: str) -> str:
    return re.sub(r"#\d+$", "", name)


def _state(owner: Any) -> str:
    """What a callout object was made of."""
    return f"{type(owner).__name__} {getattr(owner, 'tag', None)!r}"


class Tagged(SequentialCallout):
    """Passes all, after looking at two bytes at a time: a stage of it is busy half of the time.

    Args:
        tag: what tells objects apart.
    """

    def __init__(self, tag: str = "") -> None:
        super().__init__("both")
        self.tag = tag

    def parse(self, direction: str) -> Steps:
        while data := (yield need(2)):
            yield permit(min(2, len(data)))


TAGGED = f"{__name__}:Tagged"


class Awkward(Callout):
    """Fails where it is told to.

    Args:
        at: init, registered, notify, or nothing.
    """

    def __init__(self, at: str = "") -> None:
        if at == "init":
            raise OSError("no way")
        self.at = at

    def on_registered(self) -> None:
        if self.at == "registered":
            raise RuntimeError("not now")

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Filter2) -> int:
        refuses = self.at == "notify" and filter_key is not None and filter.layer_id == LayerId.STREAM_V6
        return NtStatus.STATUS_UNSUCCESSFUL if refuses else NtStatus.STATUS_SUCCESS


AWKWARD = f"{__name__}:Awkward"


class Slow(Callout):
    """Takes a second for every indication, by `clock`."""

    clock: ClassVar[list[float]] = [0.0]

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Filter2,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        self.clock[0] += 1.0
        classify_out.action_type = int(ActionType.PERMIT)


SLOW = f"{__name__}:Slow"
