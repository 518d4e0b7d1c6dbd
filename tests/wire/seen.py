"""What a test may ask of any answer of the walk: a plain value to compare, and the promises each one keeps."""

from __future__ import annotations

from wfpstream.wire import (
    SKIP_MALFORMED,
    SKIP_NOT_IP,
    SKIP_NOT_TCP,
    SKIP_TUNNEL,
    SKIP_UNKNOWN_LINK,
    Fragment,
    Segment,
    Skip,
    Walked,
)

KINDS = {SKIP_NOT_IP, SKIP_NOT_TCP, SKIP_TUNNEL, SKIP_MALFORMED, SKIP_UNKNOWN_LINK}


def values(found: Walked) -> tuple[object, ...]:
    """All that `found` says, as values that compare."""
    if isinstance(found, Segment):
        return (
            *(found.version, found.source, found.destination, found.source_port, found.destination_port),
            *(found.sequence, found.acknowledgement, found.flags, found.window, found.urgent),
            *(bytes(found.payload), found.missing, found.checksum_ok()),
        )
    if isinstance(found, Fragment):
        return (
            *(found.version, found.source, found.destination, found.identification, found.protocol),
            *(found.offset, found.more, bytes(found.payload), found.missing, found.header),
        )
    return (found.kind, found.text)


def check_promises(found: Walked, frame: bytes) -> None:
    """What holds for every answer, whatever was in the frame."""
    assert "\n" not in repr(found)
    if isinstance(found, Skip):
        assert found.kind in KINDS
        assert found.text
        return
    assert len(found.source) == len(found.destination) == {4: 4, 6: 16}[found.version]
    assert isinstance(found.source, bytes)
    assert isinstance(found.destination, bytes)
    assert isinstance(found.payload, memoryview)
    assert bytes(found.payload) in frame
    assert found.missing >= 0
    if isinstance(found, Segment):
        assert 0 <= found.source_port <= 0xFFFF
        assert 0 <= found.destination_port <= 0xFFFF
        assert 0 <= found.flags <= 0xFF
        assert isinstance(found.checksum_ok(), bool)
        return
    assert found.payload
    assert found.offset % 8 == 0
    assert found.offset + len(found.payload) + found.missing <= 65_535
    assert found.more or found.offset
    assert found.header[0] >> 4 == found.version
