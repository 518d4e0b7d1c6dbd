"""The records a classify meets: values, metadata, io packet and answer.

Owns their shape only; who fills them is `_classify` and `_connection`. All members are plain integers
on the hot path: comparing one with an enum member works, an IntFlag operation would cost a microsecond.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from wfpstream.fwp import FwpValue

from ._stream_data import StreamData


class IncomingValues:
    """FWPS_INCOMING_VALUES0: the fixed fields, in the order of the layer's field enumeration.

    Attributes:
        layer_id: run-time layer identifier (`LayerId`).
    """

    __slots__ = ("_values", "layer_id")

    def __init__(self, layer_id: int, incoming_value: Sequence[FwpValue]) -> None:
        self.layer_id = layer_id
        self._values: tuple[FwpValue, ...] | None = tuple(incoming_value)

    @property
    def incoming_value(self) -> tuple[FwpValue, ...]:
        """One `FwpValue` per field."""
        values = self._values
        return self._make_them() if values is None else values

    @property
    def value_count(self) -> int:
        """Number of fields the profile has (FLD-8)."""
        return len(self.incoming_value)

    def _make_them(self) -> tuple[FwpValue, ...]:
        raise NotImplementedError  # those that are not there from the beginning are `LaterValues`


class LaterValues(IncomingValues):
    """Fixed fields that are made when somebody looks at them: on most connections nobody does."""

    __slots__ = ("_about", "_make")

    def __init__(self, layer_id: int, make: Callable[..., Sequence[FwpValue]], *about: Any) -> None:
        self.layer_id = layer_id
        self._values = None
        self._make = make
        self._about = about

    def _make_them(self) -> tuple[FwpValue, ...]:
        self._values = values = tuple(self._make(*self._about))
        return values


class IncomingMetadataValues:
    """FWPS_INCOMING_METADATA_VALUES0, and three extensions of ours beside it (MET-5).

    A member may be read only when its bit is set in `current_metadata_values` (MET-3). The extensions
    need no test: `upstream_address` (where the upstream leg is or will be connected), `listener`,
    `redirect_context` (LAY-26).
    """

    __slots__ = (
        "compartment_id",
        "completion_handle",
        "current_metadata_values",
        "discard_metadata",
        "flags",
        "flow_handle",
        "listener",
        "local_redirect_target_pid",
        "original_destination",
        "parent_endpoint_handle",
        "process_id",
        "process_path",
        "redirect_context",
        "redirect_records",
        "sub_process_tag",
        "system_flags",
        "token",
        "transport_endpoint_handle",
        "upstream_address",
    )

    def __init__(self, current_metadata_values: int = 0) -> None:
        self.current_metadata_values = current_metadata_values
        self.flags = 0
        self.flow_handle = 0
        self.system_flags = 0
        self.compartment_id = 0
        self.completion_handle = 0
        self.transport_endpoint_handle = 0
        self.parent_endpoint_handle = 0
        self.process_id = 0
        self.process_path: bytes | None = None
        self.token = 0
        self.sub_process_tag = 0
        self.redirect_records = 0
        self.local_redirect_target_pid = 0
        self.original_destination: tuple[str, int] | None = None
        self.discard_metadata: DiscardMetadata | None = None
        self.upstream_address: tuple[str, int] | None = None
        self.listener = ""
        self.redirect_context: object = None


class DiscardMetadata:
    """FWPS_DISCARD_METADATA0: module, reason and the filter that removed the bytes (DSC-2)."""

    __slots__ = ("discard_module", "discard_reason", "filter_id")

    def __init__(self, discard_module: int, discard_reason: int, filter_id: int) -> None:
        self.discard_module = discard_module
        self.discard_reason = discard_reason
        self.filter_id = filter_id


class ClassifyOut:
    """FWPS_CLASSIFY_OUT0: the callout's answer. Entry values: IND-8."""

    __slots__ = ("action_type", "filter_id", "flags", "out_context", "reserved", "rights")

    def __init__(self, action_type: int = 0, flags: int = 0) -> None:
        self.action_type: int = action_type
        self.out_context: int = 0
        self.filter_id: int = 0
        self.rights: int = 1
        self.flags: int = flags
        self.reserved: int = 0


class StreamCalloutIoPacket:
    """FWPS_STREAM_CALLOUT_IO_PACKET0: what is shown and what is asked for at the stream layer.

    Attributes:
        stream_data: the indicated bytes.
        missed_bytes: bytes of the original stream this stage could not see since its last classify (ARB-11).
        count_bytes_required: how many bytes NEED_MORE_DATA waits for (NMD-3).
        count_bytes_enforced: how many leading bytes the action applies to; 0 means all (ACT-7).
        stream_action: a `StreamActionType`.
    """

    __slots__ = (
        "count_bytes_enforced",
        "count_bytes_required",
        "missed_bytes",
        "stream_action",
        "stream_data",
    )

    def __init__(self, stream_data: StreamData, missed_bytes: int) -> None:
        self.stream_data = stream_data
        self.missed_bytes = missed_bytes
        self.count_bytes_required: int = 0
        self.count_bytes_enforced: int = 0
        self.stream_action: int = 0


class ConnectRequest:
    """FWPS_CONNECT_REQUEST0: the connection a CONNECT_REDIRECT callout may change (LAY-24).

    Writable: `remote_address_and_port`, `port_reservation_token`, `local_redirect_target_pid`,
    `local_redirect_handle`, `local_redirect_context`, `local_redirect_context_size`. Changes to the
    rest are ignored and reported (V-60).
    """

    __slots__ = (
        "local_address_and_port",
        "local_redirect_context",
        "local_redirect_context_size",
        "local_redirect_handle",
        "local_redirect_target_pid",
        "modifier_filter_id",
        "port_reservation_token",
        "previous_version",
        "remote_address_and_port",
    )

    def __init__(self, local: tuple[str, int], remote: tuple[str, int]) -> None:
        self.local_address_and_port = local
        self.remote_address_and_port = remote
        self.port_reservation_token = 0
        self.local_redirect_target_pid = 0
        self.local_redirect_handle = 0
        self.local_redirect_context: Any = None
        self.local_redirect_context_size = 0
        self.previous_version: ConnectRequest | None = None
        self.modifier_filter_id = 0

    def copy_for(self, filter_id: int) -> ConnectRequest:
        """A private version on top of this one (LAY-24)."""
        version = ConnectRequest(self.local_address_and_port, self.remote_address_and_port)
        version.port_reservation_token = self.port_reservation_token
        version.local_redirect_target_pid = self.local_redirect_target_pid
        version.local_redirect_handle = self.local_redirect_handle
        version.local_redirect_context = self.local_redirect_context
        version.local_redirect_context_size = self.local_redirect_context_size
        version.previous_version = self
        version.modifier_filter_id = filter_id
        return version
