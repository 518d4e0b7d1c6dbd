"""The one look at a plain frame: where it answers, it found what the walk finds."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire.captures import files, frames
from tests.wire.frames import ethernet, ipv4, ipv6, tcp
from tests.wire.test_walk_fuzz import changed, changes, sample
from wfpstream.wire import LINK_ETHERNET, LINK_RAW, Segment, plain_tcp, walk


def agrees(link_type: int, frame: bytes) -> bool:
    """Whether `plain_tcp` answered; then it must have said what `walk` says."""
    plain = plain_tcp(link_type, frame)
    if plain is None:
        return False
    found = walk(link_type, frame)
    assert isinstance(found, Segment)
    ports = found.source_port.to_bytes(2, "big") + found.destination_port.to_bytes(2, "big")
    key = found.source + found.destination + ports
    said = (key, found.sequence, found.acknowledgement, found.flags, bytes(found.payload))
    assert plain == said
    assert not found.missing
    return True


PLAIN_V4, PLAIN_V6 = ethernet(ipv4(tcp())), ethernet(ipv6(tcp()), 0x86DD)


@pytest.mark.parametrize("frame", [PLAIN_V4, PLAIN_V6], ids=["v4", "v6"])
def test_plain_frames(frame: bytes) -> None:
    """It answers for whole frames of both families, trailer or not, and for no other link."""
    assert agrees(LINK_ETHERNET, frame)
    assert agrees(LINK_ETHERNET, frame + b"trailer")
    assert not any(agrees(LINK_ETHERNET, frame[:size]) for size in range(len(frame)))
    assert not agrees(LINK_RAW, frame)


@given(sample, changes, st.integers(0, 300) | st.none())
@example((LINK_ETHERNET, PLAIN_V4), [(47, 0x38)], None)  # urgent
@example((LINK_ETHERNET, PLAIN_V4), [(46, 0x40)], None)  # a data offset below 5
@example((LINK_ETHERNET, PLAIN_V4), [(20, 0x20)], None)  # more fragments
@example((LINK_ETHERNET, PLAIN_V6), [(18, 0), (19, 0)], None)  # a jumbo's length
def test_frames_with_bytes_changed(
    taken: tuple[int, bytes], where: list[tuple[int, int]], size: int | None
) -> None:
    """Whatever is in a frame, it never says anything else than the walk."""
    agrees(taken[0], changed(taken[1], where)[:size])


def test_real_frames() -> None:
    """Every frame of the captures beside the repository; it answers for most of them."""
    found = files()
    if not found:
        pytest.skip("there is no folder ../shared/captures beside the repository")
    everything = [frame for path in found for frame in frames(path)]
    answered = sum(agrees(link_type, frame) for link_type, frame in everything)
    assert answered > len(everything) // 2
