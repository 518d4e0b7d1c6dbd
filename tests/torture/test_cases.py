"""Each case can succeed and can fail: nothing is wrong with a straight wire, and each convicts some relay."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
import trio

from tests.torture.kit import HOLDS_UP, SMALL, held_port
from tests.torture.relays import Manners, relaying
from wfpstream.torture import (
    CaseResult,
    Profile,
    TortureError,
    Verdict,
    choose_cases,
    list_cases,
    torture,
)

# Where the fault is a silence, waiting longer finds nothing more.
IMPATIENT = replace(SMALL, patience=5.0)
NAMES = [name for name, _ in list_cases()]
BASES = sorted({name.partition("_by_")[0] for name in NAMES})


@pytest.fixture
def upstream() -> Iterator[tuple[str, int]]:
    """A port for the suite to listen on."""
    with held_port() as address:
        yield address


def through(
    manners: Manners, upstream: tuple[str, int], *only: str, profile: Profile = SMALL
) -> list[CaseResult]:
    """What the suite says about a relay of these manners."""

    async def tried() -> list[CaseResult]:
        with trio.fail_after(100):
            async with relaying(manners, upstream) as relay:
                return await torture(relay, upstream, profile=profile, only=only)

    return trio.run(tried)


def doubled(offset: int, piece: bytes) -> bytes:
    """Byte 50 comes twice: past the label."""
    at = 50 - offset
    return piece[:at] + piece[at : at + 1] + piece[at:] if 0 <= at < len(piece) else piece


def flipped(offset: int, piece: bytes) -> bytes:
    """Byte 70,000 is another one: past what a case sends at first."""
    at = 70_000 - offset
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :] if 0 <= at < len(piece) else piece


def test_a_straight_wire_keeps_everything(upstream: tuple[str, int]) -> None:
    """The relay may be no relay at all: what the suite demands, TCP gives."""
    results = trio.run(lambda: torture(upstream, upstream, profile=HOLDS_UP))
    assert [one.name for one in results] == NAMES
    assert faults(results) == []


def faults(results: list[CaseResult]) -> list[tuple[str, object]]:
    """All findings but that of a slow round trip, which is the machine's doing."""
    return [(one.name, one.findings) for one in results if one.findings and one.name != "round_trips"]


FAULTS = [
    ("plain", Manners(spoil=doubled), {Verdict.LOST}),
    ("half_close", Manners(on_fin="close"), {Verdict.LOST}),
    ("fin_with_data_owed", Manners(on_fin="close"), {Verdict.LOST}),
    ("fin_with_data_owed", Manners(spoil=flipped), {Verdict.LOST}),
    ("close_with_data_owed", Manners(spoil=flipped), {Verdict.LOST}),
    ("write_after_close", Manners(on_reset="swallow"), {Verdict.DISTORTED}),
    ("simultaneous_close", Manners(on_fin="reset"), {Verdict.DISTORTED}),
    ("idle", Manners(idle=1.0), {Verdict.LOST}),
    ("reset_when_idle", Manners(on_reset="fin"), {Verdict.DISTORTED}),
    ("reset_when_idle", Manners(on_reset="swallow"), {Verdict.DISTORTED}),
    ("reset_after_data", Manners(on_reset="fin"), {Verdict.DISTORTED}),
    ("reset_with_data_owed", Manners(on_reset="fin"), {Verdict.DISTORTED}),
    ("reset_in_bulk", Manners(on_reset="fin"), {Verdict.DISTORTED, Verdict.LOST}),
    ("reset_after_own_fin", Manners(), {Verdict.DISTORTED}),
    ("reset_after_other_fin", Manners(on_reset="fin"), {Verdict.DISTORTED}),
    ("single_bytes", Manners(spoil=doubled), {Verdict.LOST}),
    ("round_trips", Manners(hold=0.03), {Verdict.NOTED}),
    ("slow_reader", Manners(spoil=flipped), {Verdict.LOST}),
    ("stopped_reader", Manners(spoil=flipped), {Verdict.LOST}),
    ("stopped_reader", Manners(greedy=True), {Verdict.NOTED}),
    ("urgent_data", Manners(inline=False), {Verdict.LOST}),
    ("urgent_data", Manners(inline=True), {Verdict.DISTORTED}),
    ("bulk_both_ways", Manners(spoil=flipped), {Verdict.LOST}),
    ("late_accept", Manners(on_fin="close"), {Verdict.LOST}),
    ("refused", Manners(on_refused="fin"), {Verdict.DISTORTED}),
    ("refused", Manners(sulks=True), {Verdict.DISTORTED}),
    ("short_connections", Manners(every=5), {Verdict.LOST}),
]


def is_silence(base: str, manners: Manners) -> bool:
    """Whether the fault is that something never comes."""
    never = manners.on_reset == "swallow" or manners.sulks or manners.every
    return bool(never) or base == "reset_after_own_fin"


@pytest.mark.parametrize(("base", "manners", "verdicts"), FAULTS)
def test_a_fault_is_found(
    base: str, manners: Manners, verdicts: set[Verdict], upstream: tuple[str, int]
) -> None:
    profile = IMPATIENT if is_silence(base, manners) else SMALL
    if base == "idle":
        profile = replace(profile, pause=2.0)
    results = through(manners, upstream, base, profile=profile)
    # A relay that closes while the other side sends resets whether it means to or not: then there was no fault.
    while base == "reset_in_bulk" and not all(one.findings for one in results):
        results = through(manners, upstream, base, profile=profile)
    assert results
    for one in results:
        assert one.verdict in verdicts, one
        assert one.findings


def test_every_case_has_a_relay_it_convicts() -> None:
    assert sorted({base for base, _, _ in FAULTS}) == BASES


def test_a_simple_relay_that_does_its_best(upstream: tuple[str, int]) -> None:
    """The suite convicts it only of what takes more than reading, writing and passing ends on."""
    hard = {"urgent_data", "reset_after_own_fin", "reset_with_data_owed", "reset_in_bulk"}
    results = through(Manners(), upstream, *(name for name in BASES if name not in hard), profile=HOLDS_UP)
    assert faults(results) == []


def test_only_one_case_and_both_its_sides(upstream: tuple[str, int]) -> None:
    results = through(Manners(), upstream, "half_close_by_server", "single_bytes")
    assert [one.name for one in results] == [
        "half_close_by_server",
        "single_bytes_by_client",
        "single_bytes_by_server",
    ]


def test_a_case_that_does_not_exist() -> None:
    with pytest.raises(TortureError, match="no case 'nope'"):
        choose_cases(["nope"])


def test_nobody_listens(upstream: tuple[str, int]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        relay = held.getsockname()
        with pytest.raises(TortureError, match="the relay took no connection: connection refused"):
            trio.run(lambda: torture(relay, upstream, profile=IMPATIENT))


def test_the_upstreams_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()
        said = f"cannot listen as the upstream on 127.0.0.1 port {taken[1]}: address already in use"
        with pytest.raises(TortureError, match=said):
            trio.run(lambda: torture(taken, taken, profile=IMPATIENT))


def test_a_relay_to_somewhere_else(upstream: tuple[str, int]) -> None:
    """Connections that never arrive are told from connections that arrive maimed."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        relay = elsewhere.getsockname()
        profile = replace(IMPATIENT, patience=0.3)
        (result,) = trio.run(lambda: torture(relay, upstream, profile=profile, only=["plain"]))
    assert result.verdict is Verdict.FAILED
    assert result.findings[0].text == "nothing arrived at the upstream within 0.3 s"


def test_strangers_at_the_upstream_do_no_harm(upstream: tuple[str, int]) -> None:
    """A health check, and somebody who talks: neither is taken for a connection of ours."""

    strangers: list[socket.socket] = []

    def visit(_result: CaseResult) -> None:
        for _ in range(3):
            strangers.append(socket.create_connection(upstream))
            strangers[-1].sendall(b"GET / HTTP/1.0\r\n\r\n")
        strangers.append(socket.create_connection(upstream))

    async def tried() -> list[CaseResult]:
        async with relaying(Manners(), upstream) as relay:
            return await torture(relay, upstream, profile=SMALL, only=["plain", "idle"], on_result=visit)

    try:
        assert [one.verdict for one in trio.run(tried)] == [Verdict.KEPT, Verdict.KEPT]
    finally:
        for stranger in strangers:
            stranger.close()
