"""NET_BUFFER_LIST, NET_BUFFER and MDL: the shape in which a callout meets bytes.

Owns the chain structures and the Ndis helpers that walk them (CLN-12, CLN-13). It must not know who
owns a list or when it may be freed: that is `_ownership`. Bytes are immutable memoryviews.
"""

from __future__ import annotations

from collections.abc import Iterator

from wfpstream.fwp import NtStatus


class Mdl:
    """One contiguous piece of memory (MDL).

    Args:
        data: the bytes; shared, never copied here.
    """

    __slots__ = ("data", "next", "retreated")

    def __init__(self, data: bytes | bytearray | memoryview, next: Mdl | None = None) -> None:
        self.data = memoryview(data)
        self.next = next
        self.retreated = False  # made by a retreat; an advance past it frees it

    @property
    def byte_count(self) -> int:
        """Length in bytes (MmGetMdlByteCount)."""
        return len(self.data)


class NetBuffer:
    """One NET_BUFFER: a chain of MDLs and the part of it that is data.

    `data_offset` counts from the start of the MDL chain, `data_length` from there, both in bytes.
    """

    __slots__ = ("data_length", "data_offset", "mdl_chain", "next")

    def __init__(self, mdl_chain: Mdl | None, data_offset: int, data_length: int) -> None:
        self.mdl_chain = mdl_chain
        self.data_offset = data_offset
        self.data_length = data_length
        self.next: NetBuffer | None = None

    @property
    def current_mdl(self) -> Mdl | None:
        """The MDL in which the data begins (NET_BUFFER_CURRENT_MDL)."""
        return locate(self.mdl_chain, self.data_offset)[0]

    @property
    def current_mdl_offset(self) -> int:
        """Where in `current_mdl` the data begins, bytes."""
        return locate(self.mdl_chain, self.data_offset)[1]

    def pieces(self) -> Iterator[memoryview]:
        """The data as contiguous views, in order."""
        yield from views_from(self.mdl_chain, self.data_offset, self.data_length)


def locate(mdl: Mdl | None, offset: int) -> tuple[Mdl | None, int]:
    """The MDL that holds byte `offset` of a chain, and the offset inside it."""
    while mdl is not None and offset >= len(mdl.data) and mdl.next is not None:
        offset -= len(mdl.data)
        mdl = mdl.next
    return mdl, offset


def views_from(mdl: Mdl | None, offset: int, length: int) -> Iterator[memoryview]:
    """`length` bytes of an MDL chain from `offset` on, as contiguous views."""
    mdl, offset = locate(mdl, offset)
    while mdl is not None and length > 0:
        piece = mdl.data[offset : offset + length]
        if len(piece):
            yield piece
        length -= len(piece)
        offset = 0
        mdl = mdl.next


class NetBufferList:
    """One NET_BUFFER_LIST. `status` holds the result when a completion hands it back (CMP-3)."""

    __slots__ = ("_record", "context", "first_net_buffer", "next", "parent", "status")

    def __init__(self, first_net_buffer: NetBuffer | None = None) -> None:
        self.next: NetBufferList | None = None
        self.first_net_buffer = first_net_buffer
        self.status: int = NtStatus.STATUS_SUCCESS
        self.context: object = None
        self.parent: NetBufferList | None = None
        self._record: object = None

    @property
    def data_length(self) -> int:
        """Bytes of data in all NET_BUFFERs of this list."""
        return sum(nb.data_length for nb in self.net_buffers())

    def net_buffers(self) -> Iterator[NetBuffer]:
        """The NET_BUFFER chain."""
        net_buffer = self.first_net_buffer
        while net_buffer is not None:
            yield net_buffer
            net_buffer = net_buffer.next

    def pieces(self) -> Iterator[memoryview]:
        """The data as contiguous views, in order."""
        for net_buffer in self.net_buffers():
            yield from net_buffer.pieces()

    def tobytes(self) -> bytes:
        """The data, copied."""
        return b"".join(self.pieces())

    def __repr__(self) -> str:
        return f"<NetBufferList of {self.data_length} bytes>"


def chain_of(first: NetBufferList | None) -> Iterator[NetBufferList]:
    """The lists of a chain, first to last; safe against the callee clearing `next`."""
    while first is not None:
        following = first.next
        yield first
        first = following


def list_over(view: bytes | bytearray | memoryview, mdls: int = 1) -> NetBufferList:
    """A list with one NET_BUFFER, its bytes spread over `mdls` MDLs: the form of every indication (CLN-12)."""
    content = memoryview(view)
    size = -(-len(content) // mdls) or 1
    chain: Mdl | None = None
    for start in range((max(0, len(content) - 1) // size) * size, -1, -size):
        chain = Mdl(content[start : start + size], chain)
    return NetBufferList(NetBuffer(chain, 0, len(content)))


def ndis_get_data_buffer(
    net_buffer: NetBuffer,
    bytes_needed: int,
    storage: bytearray | None = None,
    align_multiple: int = 1,
    align_offset: int = 0,
) -> memoryview | bytearray | None:
    """NdisGetDataBuffer: the first `bytes_needed` bytes of a NET_BUFFER, contiguous.

    Returns a view into the MDL when the bytes are contiguous there, else `storage` after copying them
    into it, else None (not contiguous and no storage, or more than `data_length` bytes asked for).
    Alignment is accepted and has no meaning here. Source: NdisGetDataBuffer, CLN-12.
    """
    if bytes_needed > net_buffer.data_length:
        return None
    pieces = list(views_from(net_buffer.mdl_chain, net_buffer.data_offset, bytes_needed))
    if len(pieces) == 1:
        return pieces[0]
    if storage is None or len(storage) < bytes_needed:
        return None
    storage[:bytes_needed] = b"".join(pieces)
    return storage


def ndis_retreat_net_buffer_data_start(
    net_buffer: NetBuffer, data_offset_delta: int, data_back_fill: int = 0, allocate: bool = True
) -> NtStatus:
    """NdisRetreatNetBufferDataStart: move the data start back by `data_offset_delta` bytes.

    Uses the space before the data; where that is too small a new MDL is put in front if `allocate`,
    else STATUS_INSUFFICIENT_RESOURCES. Must be undone before the buffer is given back (CLN-13).
    """
    missing = data_offset_delta - net_buffer.data_offset
    if missing > 0:
        if not allocate:
            return NtStatus.STATUS_INSUFFICIENT_RESOURCES
        room = bytes(missing + data_back_fill)
        net_buffer.mdl_chain = Mdl(room, net_buffer.mdl_chain)
        net_buffer.mdl_chain.retreated = True
        net_buffer.data_offset += len(room)
    net_buffer.data_offset -= data_offset_delta
    net_buffer.data_length += data_offset_delta
    return NtStatus.STATUS_SUCCESS


def ndis_advance_net_buffer_data_start(net_buffer: NetBuffer, data_offset_delta: int) -> None:
    """NdisAdvanceNetBufferDataStart: move the data start forward by `data_offset_delta` bytes.

    An MDL that a retreat had put in front goes when the data starts behind it.
    """
    delta = min(data_offset_delta, net_buffer.data_length)
    net_buffer.data_offset += delta
    net_buffer.data_length -= delta
    first = net_buffer.mdl_chain
    while first is not None and first.retreated and net_buffer.data_offset >= len(first.data):
        net_buffer.data_offset -= len(first.data)
        net_buffer.mdl_chain = first = first.next
