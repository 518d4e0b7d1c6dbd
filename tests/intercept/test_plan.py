"""What can be asked for, what cannot, and which two cannot live together."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.intercept import DEFAULT_MARK, Interception, PlanError, find_overlap, parse_ports


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ({}, "both"),
        ({"mode": "tproxy"}, "forward"),
        ({"only_uid": 7}, "local"),
        ({"only_cgroup": "a.slice"}, "local"),
        ({"interface": "eth0"}, "forward"),
        ({"interface": "eth0", "only_uid": 7}, "both"),
        ({"scope": "local"}, "local"),
    ],
)
def test_without_a_scope_all_is_taken_that_the_rest_can_mean(options: dict[str, Any], scope: str) -> None:
    assert Interception(1, **options).scope == scope


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0}, "the listener's port is a number from 1 to 65535, not 0"),
        ({"port": True}, "the listener's port is a number"),
        ({"name": "../x"}, "the name '../x' is not usable"),
        ({"name": "9"}, "a letter first"),
        ({"name": "x" * 33}, "up to 32 letters"),
        ({"name": "x\n"}, "is not usable"),
        ({"mode": "nat"}, "the mode is redirect or tproxy"),
        ({"scope": "all"}, "the scope is local, forward or both"),
        ({"redirect_ports": (0,)}, "a redirected port is a number"),
        ({"redirect_ports": ((90, 80),)}, "the port range 90-80 ends before it begins"),
        ({"redirect_ports": ((90, 80, 70),)}, "a port range has two ends"),
        ({"redirect_ports": (65536,)}, "a redirected port is a number"),
        ({"only_uid": -1}, "only_uid is a number"),
        ({"exempt_uid": 1 << 32}, "exempt_uid is a number"),
        ({"mark": 0}, "the mark is a number"),
        ({"families": ()}, "the families are"),
        ({"families": ("ipx",)}, "the families are"),
        ({"interface": 'eth0" accept'}, "is not the name of an interface"),
        ({"interface": "a" * 16}, "is not the name of an interface"),
        ({"only_cgroup": 'a" accept comment "'}, "is not the path of a control group"),
        ({"only_cgroup": "a/../../b"}, "is not the path of a control group"),
        ({"only_cgroup": "/"}, "is not the path of a control group"),
        ({"only_cgroup": "a\nb"}, "is not the path of a control group"),
        ({"mode": "tproxy", "scope": "local"}, "tproxy takes forwarded connections only"),
        ({"mode": "tproxy", "scope": "both"}, "tproxy takes forwarded connections only"),
        ({"mode": "tproxy", "only_uid": 7}, "only_uid limits connections made on this machine"),
        ({"scope": "forward", "only_cgroup": "a"}, "only_cgroup limits connections made on this machine"),
        ({"scope": "local", "interface": "eth0"}, "interface limits forwarded connections"),
        ({"only_uid": 7, "exempt_uid": 7}, "nothing is left"),
    ],
)
def test_what_makes_no_sense_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        Interception(**{"port": 15001, **options})
    assert message in str(caught.value)
    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].isprintable()


def test_a_control_group_is_named_from_the_root_of_the_hierarchy() -> None:
    for path in ("/sys/fs/cgroup/a.slice/b", "a.slice/b", "/a.slice/b/"):
        assert Interception(1, only_cgroup=path).only_cgroup == "a.slice/b"


@pytest.mark.parametrize(
    ("value", "ports"),
    [
        (None, ()),
        (80, (80,)),
        ("80", (80,)),
        ("80,443", (80, 443)),
        ("1000-2000", ((1000, 2000),)),
        (["80", 443, "1-2, 7"], (80, 443, (1, 2), 7)),
        ("80-80", (80,)),
    ],
)
def test_ports_as_people_write_them(value: object, ports: tuple[object, ...]) -> None:
    assert parse_ports(value) == ports


@pytest.mark.parametrize("value", ["", "http", "80;443", "80-", "1-2-3", "8 0", 1.5, True, {"a": 1}, "٣"])
def test_other_ports_are_refused(value: object) -> None:
    with pytest.raises(PlanError, match="expected a port or a range"):
        parse_ports(value)


PORTS = st.lists(
    st.integers(1, 65535)
    | st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(lambda p: tuple(sorted(p))),
    max_size=8,
)


def covered(ports: Any) -> set[int]:
    return {n for p in ports for n in (range(p[0], p[1] + 1) if isinstance(p, tuple) else [p])}


@given(PORTS)
def test_ports_are_merged_without_loss(ports: Any) -> None:
    """nft refuses a set that names a port twice."""
    merged = Interception(1, redirect_ports=tuple(ports)).redirect_ports
    assert covered(merged) == covered(ports)
    bounds = [p if isinstance(p, tuple) else (p, p) for p in merged]
    assert all(high < low for (_, high), (low, _) in pairwise(bounds))


@given(PORTS, PORTS)
def test_overlap_of_ports_is_the_overlap_of_what_they_cover(one: Any, other: Any) -> None:
    first = Interception(1, name="a", redirect_ports=tuple(one))
    second = Interception(2, name="b", redirect_ports=tuple(other))
    meets = not one or not other or bool(covered(one) & covered(other))
    assert (find_overlap(first, second) is not None) == meets
    assert (find_overlap(second, first) is not None) == meets


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ({}, {}, "connections made on this machine"),
        ({"scope": "local"}, {"scope": "forward"}, None),
        ({"scope": "local"}, {"mode": "tproxy"}, None),
        ({"scope": "forward"}, {"mode": "tproxy"}, "forwarded connections"),
        ({"only_uid": 1}, {"only_uid": 2}, None),
        ({"only_uid": 1}, {"only_uid": 1}, "connections made on this machine"),
        ({"only_uid": 1}, {"only_cgroup": "a"}, "connections made on this machine"),
        ({"interface": "eth0"}, {"interface": "eth1"}, None),
        ({"interface": "eth*"}, {"interface": "eth1"}, "forwarded connections"),
        ({"interface": "eth1"}, {"interface": "eth*"}, "forwarded connections"),
        ({"interface": "eth*"}, {"interface": "wlan*"}, None),
        ({"families": ("ipv4",)}, {"families": ("ipv6",)}, None),
    ],
)
def test_two_that_would_take_the_same_are_found(
    one: dict[str, Any], other: dict[str, Any], shared: str | None
) -> None:
    assert find_overlap(Interception(1, **one), Interception(2, **other)) == shared
    assert find_overlap(Interception(2, **other), Interception(1, **one)) == shared


def test_marks_stay_out_of_the_bits_that_others_use() -> None:
    plan = Interception(1)
    assert {plan.mark, plan.route_mark} == {DEFAULT_MARK, DEFAULT_MARK + 1}
    assert plan.route_mark < 0x1000
