"""What a filter would be if it were added: its effective weight, without a session.

Owns nothing; it only asks the same questions as `filter_add`.
"""

from __future__ import annotations

from collections.abc import Sequence

from wfpstream.fwp import FwpError, FwpValue
from wfpstream.fwpm._conditions import resolve_condition
from wfpstream.fwpm._layers import Layer
from wfpstream.fwpm._types import FilterCondition
from wfpstream.fwpm._weights import effective_weight


def preview_weight(
    layer: Layer, weight: FwpValue, conditions: Sequence[FilterCondition], profile: str
) -> int:
    """The UINT64 by which `filter_add` would sort a filter in its sublayer (MGMT-6, MGMT-7).

    Raises:
        FwpError: a condition would be refused (MGMT-9).
    """
    resolved = []
    for condition in conditions:
        status, one = resolve_condition(layer, condition, profile)
        if one is None:
            raise FwpError(status, f"condition at {layer.name}")
        resolved.append(one)
    return effective_weight(weight, resolved)
