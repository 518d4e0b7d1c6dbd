"""What `wfpstream ctl` shows to people, from the plain data that came over the control socket.

Owns the form. The data came from another process: whatever is text in it is escaped.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wfpstream.cli._tables import Size, address_text, table_lines, time_text
from wfpstream.observe import safe_text

_SIDES = ("to_upstream", "to_client")
_FLOW_COLUMNS = (
    "flow", "listener", "client", "server", "age", "sent", "answered", "held", "unsent", "waits", "callouts",
)  # fmt: skip
_LANE_COLUMNS = (
    "stage", "filter", "callout", "direction", "in", "permitted", "blocked", "injected", "held", "pended",
    "uncompleted", "waits",
)  # fmt: skip


def flow_lines(flows: list[dict[str, Any]]) -> Iterator[str]:
    """A row per flow, and how many there are."""
    if not flows:
        yield "no flows"
        return
    yield from table_lines(_FLOW_COLUMNS, [_flow_row(flow) for flow in flows], sys.stdout)
    yield f"{len(flows):,} {'flow' if len(flows) == 1 else 'flows'}"


def _flow_row(flow: dict[str, Any]) -> list[object]:
    up, down = (flow[side] for side in _SIDES)
    return [
        _name(flow),
        flow["listener"],
        address_text(flow["client"]),
        address_text(flow["server"]),
        time_text(flow["age"]),
        Size(up["read"]),
        Size(down["read"]),
        Size(up["held"] + down["held"]),
        Size(up["unsent"] + down["unsent"]),
        _waits(flow),
        ", ".join(flow["callouts"]),
    ]


def _name(flow: dict[str, Any]) -> object:
    """With workers flow 7 of worker 2 is 2.7."""
    return f"{flow['worker']}.{flow['id']}" if "worker" in flow else flow["id"]


def _waits(flow: dict[str, Any]) -> str:
    """What is not as usual."""
    said = [f"{side} {flow[side]['state']}" for side in _SIDES if flow[side]["state"] != "reading"]
    if flow["state"] != "live":
        said.insert(0, flow["state"])
    if flow["offloaded"]:
        said.append("offloaded")
    return ", ".join(said)


def one_flow_lines(flow: dict[str, Any]) -> Iterator[str]:
    """A flow in depth."""
    state = _waits(flow)
    listener = _text(flow["listener"])
    yield f"flow {_text(_name(flow))}{f' of listener {listener}' if listener else ''}"
    yield f"  {_address(flow['client'])} to {_address(flow['server'])}{_meant(flow)}"
    yield f"  local {_address(flow['local'])}, remote {_address(flow['remote'])}, {_text(flow['layer'])}"
    yield f"  {time_text(flow['age'])} old, quiet for {time_text(flow['idle'])}{f'; {state}' if state else ''}"
    for side in _SIDES:
        ledger = dict(flow["ledger"][side])
        faults = ledger.pop("faults")
        moved = {name: count for name, count in ledger.items() if count or name in ("read", "written")}
        yield f"  {side}: {_counted(moved)}"
        yield from (f"    does not add up: {_text(fault)}" for fault in faults)
    if flow["stages"]:
        rows = [_lane_row(stage, side) for stage in flow["stages"] for side in _SIDES]
        yield from table_lines(_LANE_COLUMNS, rows, sys.stdout)
    else:
        yield "  no filter matches it: a plain relay"
    for context in flow["contexts"]:
        owner = _text(context["callout"] or context["callout_id"])
        yield f"  context {context['context']:#x} of {owner} at {_text(context['layer'])}"


def _meant(flow: dict[str, Any]) -> str:
    meant = flow["destination"]
    return "" if meant == flow["server"] else f" (asked for {_address(meant)})"


def _lane_row(stage: dict[str, Any], side: str) -> list[object]:
    lane = stage[side]
    said = []
    if lane["mode"] == "needs_more":
        said.append(f"needs {lane['required']:,} bytes")
    elif lane["mode"] != "idle":
        said.append(lane["mode"])
    if lane["fin_pended"]:
        said.append("holds the end")
    if lane["missed"]:
        said.append(f"missed {lane['missed']:,}")
    said += [name for name in ("allowed", "draining", "retired", "mid_stream") if stage[name]]
    if stage["role"] != "asked":
        said.append(stage["role"])
    return [
        stage["index"],
        stage["filter"],
        stage["callout"] or stage["action"],
        side,
        lane["in"],
        lane["permitted"],
        lane["blocked"],
        lane["injected"],
        lane["held"] + lane["queued"],
        lane["pended"],
        lane["uncompleted"],
        ", ".join(said),
    ]


def stats_lines(stats: dict[str, Any]) -> Iterator[str]:
    """The proxy's counts."""
    yield f"wfpstream {_text(stats['version'])}, pid {stats['pid']}, up {time_text(stats['uptime'])}"
    for one in stats["listeners"]:
        name = f"{_text(one['name'])}: " if one["name"] else ""
        yield f"  listening: {name}{_address((one['host'], one['port']))} ({_text(one['mode'])})"
    names = ("flows", "connections", "accepted", "refused", "stored")
    yield f"  {_counted({name: stats[name] for name in names})}"
    for name in ("rejected", "counters", "violations"):
        if stats[name]:
            yield f"  {name}: {_counted(stats[name])}"
    for one in stats.get("workers", ()):
        up = "starting" if one["uptime"] is None else f"up {time_text(one['uptime'])}"
        counts = _counted({name: one[name] for name in ("connections", "accepted")})
        yield f"  worker {_text(one['worker'])}: pid {_text(one['pid'])}, {up}, {counts}"
    if stats.get("workers_gone"):
        gone, lost = stats["workers_gone"], stats["connections_reset"]
        yield f"  workers that ended unasked: {gone:,}; connections reset by that: {lost:,}"


def change_lines(result: dict[str, Any]) -> Iterable[str]:
    """What a change of policy changed."""
    return [_text(line) for line in result["lines"]] or ["nothing changed"]


def _counted(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{_text(name)} {count:,}" for name, count in counts.items())


def _address(address: Any) -> str:
    return _text(address_text(address))


def _text(text: object) -> str:
    return safe_text(str(text))
