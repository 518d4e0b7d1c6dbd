"""What is left of an engine's work when it has been stopped and its driver has let go: the leak check of tests.

Owns what counts as left behind. It only reads. It must not know who asks, nor how flows are driven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfpstream.fwps import LayerId

if TYPE_CHECKING:
    from ._filter_engine import FilterEngine

# The violations that say of themselves that something was not given back: clones, references and lists (V-23, V-34,
# V-35), contexts (V-41), callouts and handles (V-39).
LEAK_RULES = frozenset(("V-23", "V-34", "V-35", "V-39", "V-41"))


def left_behind(engine: FilterEngine) -> list[str]:
    """Flows and contexts that outlived a stopped engine, a line each; empty if there is nothing.

    Ask when the driver has given its last turn and reported every flow `gone`. What violations say of buffers, handles
    and callouts (`LEAK_RULES`) is in the event log. Workers end with their flow.
    """
    lines = []
    for flow in engine.flows:
        ends = f"{flow.endpoints.client[0]}:{flow.endpoints.client[1]}"
        lines.append(f"flow {flow.number} (of client {ends}) did not end")
        names = {
            stage.filter.callout_id: stage.entry.name for stage in flow.stages if stage.entry is not None
        }
        for (layer, callout), context in sorted(flow.contexts.items()):
            owner = names.get(callout, f"callout {callout}")
            lines.append(
                f"context {context} of {owner} at {LayerId(layer).name.lower()} on flow {flow.number}"
            )
    return lines
