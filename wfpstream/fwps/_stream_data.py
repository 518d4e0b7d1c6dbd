"""FWPS_STREAM_DATA0: the bytes of one indication, and copying from it.

Owns the structure, its offsets and FwpsCopyStreamDataToBuffer0's walk (CPY-1, CPY-2). The chain of an
indication is built only when a callout looks at it. It must not know flows, stages or ownership.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ._net_buffer import Mdl, NetBuffer, NetBufferList, chain_of, list_over, views_from

Segment = tuple[memoryview, object]
"""A view and the provenance of its bytes (QPI-1), as the pipeline keeps them."""


class Pieces(list[Segment]):
    """Segments, each of which may have come in several pieces: those are looked at only if somebody asks.

    Args:
        split: makes a segment of each piece.
    """

    __slots__ = ("split",)

    def __init__(self, segments: list[Segment], split: Callable[[], list[Segment]]) -> None:
        super().__init__(segments)
        self.split = split


class StreamDataOffset:
    """FWPS_STREAM_DATA_OFFSET0: where the first byte lies. The last two members are reserved (V-49)."""

    __slots__ = (
        "mdl",
        "mdl_offset",
        "net_buffer",
        "net_buffer_list",
        "net_buffer_offset",
        "stream_data_offset",
    )

    def __init__(
        self,
        net_buffer_list: NetBufferList | None = None,
        net_buffer: NetBuffer | None = None,
        mdl: Mdl | None = None,
        mdl_offset: int = 0,
    ) -> None:
        self.net_buffer_list = net_buffer_list
        self.net_buffer = net_buffer
        self.mdl = mdl
        self.mdl_offset = mdl_offset
        self.net_buffer_offset = 0
        self.stream_data_offset = 0


class StreamData:
    """FWPS_STREAM_DATA0.

    A callout may build one of its own over a chain it has referenced or cloned (CPY-2, REF-1). What
    the engine indicates is lent: `view()` and the chain are valid only inside the classify, unless
    every list was referenced; with verification off a kept view sees later bytes, perhaps another
    connection's (IND-22).
    """

    __slots__ = (
        "_chain",
        "_offset",
        "_pieces",
        "_report_use",  # set when it expires
        "_segments",
        "_view",
        "data_length",
        "flags",
        "lane",
        "mdls",
    )
    _report_use: Callable[[StreamData], None]

    def __init__(
        self,
        flags: int = 0,
        data_offset: StreamDataOffset | None = None,
        data_length: int = 0,
        net_buffer_list_chain: NetBufferList | None = None,
    ) -> None:
        self.flags = flags
        self.data_length = data_length
        self._offset = data_offset
        self._chain = net_buffer_list_chain
        self._segments: list[Segment] | None = None
        # What `_segments` would say, while nobody has asked: all the bytes in one view, or how to make them.
        self._view: memoryview | None = None
        self._pieces: Pieces | None = None
        self.lane: object = None
        self.mdls = 1  # into how many MDLs an indicated list is split (CLN-12)

    @property
    def net_buffer_list_chain(self) -> NetBufferList | None:
        """One list per merged item, in order (NMD-5); a FIN or ABORT has one empty list (CLN-4)."""
        if self._chain is None:
            segments = self.segments()
            if segments is not None:
                self._chain = self._build_chain(segments)
        return self._chain

    @net_buffer_list_chain.setter
    def net_buffer_list_chain(self, chain: NetBufferList | None) -> None:
        self._chain = chain

    @property
    def data_offset(self) -> StreamDataOffset:
        """The place of the first byte (IND-2)."""
        if self._offset is None:
            self._offset = self._offset_of_first()
        return self._offset

    @data_offset.setter
    def data_offset(self, offset: StreamDataOffset) -> None:
        self._offset = offset

    def pieces(self) -> Iterator[memoryview]:
        """The data as contiguous views, in order, at most `data_length` bytes."""
        segments = self._pieces if self._pieces is not None else self.segments()
        if segments is not None and self._chain is None:
            for view, _ in segments:
                yield view
            return
        yield from self._walk(self.data_length)

    def view(self) -> memoryview:
        """The data as one contiguous view; copies only when there are several pieces."""
        if self._view is not None:
            return self._view
        segments = self._segments
        if segments is not None and len(segments) == 1:
            return segments[0][0]
        return memoryview(b"".join(self.pieces()))

    def tobytes(self) -> bytes:
        """The data, copied: safe to keep."""
        if self._view is not None and self._chain is None:
            return bytes(self._view)
        segments = self._segments
        if segments is not None and len(segments) == 1 and self._chain is None:
            return bytes(segments[0][0])
        return b"".join(self.pieces())

    def copy_to(self, buffer: bytearray | memoryview, bytes_to_copy: int) -> int:
        """Copy min(bytes_to_copy, data_length, end of chain) bytes; returns how many (CPY-1, CPY-2)."""
        target = memoryview(buffer)
        done = 0
        limit = min(bytes_to_copy, self.data_length)
        for piece in self.pieces():
            take = min(len(piece), limit - done)
            target[done : done + take] = piece[:take]
            done += take
            if done == limit:
                break
        return done

    def segments(self) -> list[Segment] | None:
        """The pipeline's own pieces while the indication lasts, else None."""
        if self._segments is None:
            if self._pieces is not None:
                self._segments = self._pieces.split()
            elif self._view is not None:
                self._segments = [(self._view, ())]
        return self._segments

    @property
    def is_indicated(self) -> bool:
        """It is the engine's, and the indication lasts."""
        return self._view is not None or self._segments is not None or self._pieces is not None

    def invalidate(self, keep_chain: bool) -> None:
        """End of the classify (IND-22): the views go back unless the chain was referenced (REF-1)."""
        self._segments = self._view = self._pieces = None
        if not keep_chain:
            self._chain = None
            self._offset = None

    def expire(self, report_use: Callable[[StreamData], None]) -> None:
        """From now on whoever reads it is reported (V-27)."""
        self._report_use = report_use
        self.__class__ = ExpiredData

    def __len__(self) -> int:
        return self.data_length

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<StreamData flags={self.flags:#x} of {self.data_length} bytes>"

    def _build_chain(self, segments: list[Segment]) -> NetBufferList:
        first: NetBufferList | None = None
        last: NetBufferList | None = None
        for view, provenance in segments or [(memoryview(b""), ())]:
            nbl = list_over(view, self.mdls)
            nbl._record = IndicatedRecord(self.lane, provenance, len(view))
            if last is None:
                first = nbl
            else:
                last.next = nbl
            last = nbl
        assert first is not None
        return first

    def _offset_of_first(self) -> StreamDataOffset:
        nbl = self.net_buffer_list_chain
        net_buffer = nbl.first_net_buffer if nbl is not None else None
        mdl = net_buffer.current_mdl if net_buffer is not None else None
        mdl_offset = net_buffer.current_mdl_offset if net_buffer is not None else 0
        return StreamDataOffset(nbl, net_buffer, mdl, mdl_offset)

    def _walk(self, length: int) -> Iterator[memoryview]:
        for _, piece in self.walk_lists(length):
            yield piece

    def walk_lists(self, length: int) -> Iterator[tuple[NetBufferList, memoryview]]:
        """`length` bytes from the offset members on, across MDL, NET_BUFFER and list borders."""
        offset = self.data_offset
        if offset.net_buffer_list is None:
            return
        for nbl in chain_of(offset.net_buffer_list):
            first_list = nbl is offset.net_buffer_list
            started = not first_list or offset.net_buffer is None
            for net_buffer in nbl.net_buffers():
                if not started and net_buffer is not offset.net_buffer:
                    continue
                for piece in self._pieces_of(net_buffer, offset if not started else None):
                    taken = piece[:length]
                    length -= len(taken)
                    yield nbl, taken
                    if length <= 0:
                        return
                started = True

    @staticmethod
    def _pieces_of(net_buffer: NetBuffer, start: StreamDataOffset | None) -> Iterator[memoryview]:
        if start is None or start.mdl is None:
            return net_buffer.pieces()
        before = 0
        mdl = net_buffer.mdl_chain
        while mdl is not None and mdl is not start.mdl:
            before += len(mdl.data)
            mdl = mdl.next
        begin = before + start.mdl_offset
        end = net_buffer.data_offset + net_buffer.data_length
        return views_from(net_buffer.mdl_chain, begin, max(0, end - begin))


class IndicatedData(StreamData):
    """What the engine indicates: nothing but the flags and the views until somebody walks the chain."""

    __slots__ = ()

    def __init__(
        self, flags: int, data_length: int, segments: list[Segment] | None, lane: object, mdls: int
    ) -> None:
        self.flags = flags
        self.data_length = data_length
        self._offset = None
        self._chain = None
        self._view = self._pieces = None
        if type(segments) is Pieces:
            self._segments = None
            self._pieces = segments
            if len(segments) == 1:
                self._view = segments[0][0]
        else:
            self._segments = segments
        self.lane = lane
        self.mdls = mdls


class ExpiredData(IndicatedData):
    """What was indicated, when the verifier is on and its classify is over: whoever reads it is found out (V-27).

    An indicated structure becomes one; nothing is in the way of those that are read in time.
    """

    __slots__ = ()

    def pieces(self) -> Iterator[memoryview]:
        """As of any other, if its lists are referenced; else nothing, and a violation."""
        self._report_use(self)
        return super().pieces()


class IndicatedRecord:
    """What the engine remembers of a list it indicated: its lane, its provenance, its references."""

    __slots__ = ("lane", "length", "provenance", "reference", "references", "valid")

    def __init__(self, lane: object, provenance: object, length: int = 0) -> None:
        self.length = length
        self.lane = lane
        self.provenance = provenance
        self.references = 0
        self.reference: object = None  # the ownership record while references are held
        self.valid = True
