"""Listeners and interception: what goes with which mode, and the plain values others take."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from wfpstream.config import (
    ConfigError,
    build_engine,
    listener_settings,
    parse_config,
    transparent_settings,
)
from wfpstream.transport import ListenerSpec


def errors_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        build_engine(parse_config(text, "f.toml"))
    return caught.value.lines()


def settings_of(text: str, local: str = "client") -> dict[str, Any]:
    loaded = parse_config("[[proxy.listener]]\n" + text)
    build_engine(loaded)
    return listener_settings(loaded.config.proxy.listener[0], local)


def test_settings_are_the_arguments_of_the_transport() -> None:
    names = {field.name for field in fields(ListenerSpec)}
    assert set(settings_of('upstream = "h:1"')) <= names
    assert ListenerSpec(**settings_of('upstream = "[::1]:80"')).upstream_host == "::1"


def test_a_tproxy_listener_with_everything() -> None:
    found = settings_of(
        """
        name = "t"
        mode = "tproxy"
        listen = "[::]:9000"
        keep_client_address = true
        keep_port = true
        accept_proxy = ["10.0.0.1", "fe80::/10"]
        send_proxy = "v2"
        allow_destinations = "10.0.0.0/8"
        deny_destinations = ["10.1.0.0/16", "::1"]
        nodelay = true
        """,
        local="server",
    )
    assert found == {
        "name": "t",
        "mode": "tproxy",
        "host": "::",
        "port": 9000,
        "upstream_host": "",
        "upstream_port": 0,
        "local": "server",
        "nodelay": True,
        "keep_client": True,
        "keep_port": True,
        "accept_proxy": ("10.0.0.1/32", "fe80::/10"),
        "send_proxy": 2,
        "allow": ("10.0.0.0/8",),
        "deny": ("10.1.0.0/16", "::1/128"),
    }


def test_a_listener_says_its_own_local_side() -> None:
    assert settings_of('upstream = "h:1"\nlocal = "client"', local="server")["local"] == "client"


def test_transparent_settings() -> None:
    text = """
    [transparent]
    name = "mine"
    ports = [80, "8000-8080", "443"]
    scope = "forward"
    only_uid = 33
    only_cgroup = "system.slice/web.service"
    interface = "eth0"
    """
    assert transparent_settings(parse_config(text).config) == {
        "name": "mine",
        "redirect_ports": (80, (8000, 8080), 443),
        "scope": "forward",
        "exempt_uid": None,
        "only_uid": 33,
        "only_cgroup": "system.slice/web.service",
        "interface": "eth0",
    }
    assert transparent_settings(parse_config("").config)["redirect_ports"] == ()


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (
            'upstream = "h:1"\nkeep_client_address = true\nkeep_port = true',
            [
                "f.toml:3: proxy.listener[0].keep_client_address: "
                "only mode tproxy can keep the client's address, not reverse"
            ],
        ),
        (
            'mode = "tproxy"\nkeep_port = true',
            [
                "f.toml:3: proxy.listener[0].keep_port: the client's port can be kept only with its address "
                "(keep_client_address = true)"
            ],
        ),
        (
            'mode = "redirect"\nupstream = "h:1"',
            ["f.toml:1: proxy.listener[0]: mode redirect takes no upstream"],
        ),
        (
            'upstream = "h:1"\naccept_proxy = ["10.0.0.1", "somewhere"]\nallow_destinations = []\n'
            'deny_destinations = "10.0.0.1/8"',
            [
                'f.toml:3: proxy.listener[0].accept_proxy: expected an address or a network such as "10.0.0.0/8" '
                'or "fe80::/10", got "somewhere"',
                "f.toml:4: proxy.listener[0].allow_destinations: expected at least one address or network",
                "f.toml:5: proxy.listener[0].deny_destinations: expected an address or a network such as "
                '"10.0.0.0/8" or "fe80::/10", got "10.0.0.1/8" (bits of a host are set)',
            ],
        ),
        (
            'upstream = "h:1"\nlisten = "7000"\n[[proxy.listener]]\nlisten="127.0.0.1:7000"\nupstream = "h:1"',
            ['f.toml:5: proxy.listener[1].listen: there is a listener on "127.0.0.1:7000" already'],
        ),
        (
            'upstream = "h:1"\n[transparent]\nports = [80, "90-80", 0]\nexempt_uid = 1\nonly_uid = 1\n'
            'only_cgroup = "../x"\ninterface = "a b"',
            [
                'f.toml:4: transparent.ports: expected a port from 1 to 65535 or a range "1000-2000", got 90-80',
                "f.toml:5: transparent.exempt_uid: the only user whose connections are taken cannot be the one "
                "left alone",
                "f.toml:7: transparent.only_cgroup: expected the path of a control group, such as "
                '"system.slice/web.service"',
                'f.toml:8: transparent.interface: expected the name of an interface, such as "eth0"',
            ],
        ),
        (
            'mode = "tproxy"\n[transparent]\nonly_uid = 4294967295\nonly_cgroup = "a/./b"',
            [
                "f.toml:4: transparent.only_uid: it limits connections made on this machine, and none of those are "
                "taken",
                "f.toml:4: transparent.only_uid: a user's number is at most 4294967294",
                "f.toml:5: transparent.only_cgroup: it limits connections made on this machine, and none of those "
                "are taken",
                "f.toml:5: transparent.only_cgroup: expected the path of a control group, such as "
                '"system.slice/web.service"',
            ],
        ),
        (
            'mode = "redirect"\n[transparent]\nscope = "local"\ninterface = "eth0"',
            [
                "f.toml:5: transparent.interface: it limits forwarded connections, and none of those are taken",
            ],
        ),
        (
            'mode = "tproxy"\n[transparent]\nscope = "both"\nports = []',
            [
                "f.toml:4: transparent.scope: mode tproxy takes forwarded connections only; "
                'expected "forward"',
                "f.toml:5: transparent.ports: expected at least one port",
            ],
        ),
    ],
)
def test_what_cannot_be(text: str, errors: list[str]) -> None:
    assert errors_of("[[proxy.listener]]\n" + text) == errors


@pytest.mark.parametrize(
    "text",
    [
        'mode = "redirect"\naccept_proxy = "127.0.0.0/8"\nsend_proxy = "v1"',
        'mode = "tproxy"\naccept_proxy = "::/0"\nkeep_client_address = true',
        'upstream = "h:1"\n[[proxy.listener]]\nupstream = "h:1"',
        'mode = "redirect"\n[[proxy.listener]]\nmode = "tproxy"\n[transparent]\nscope = "local"',
        'mode = "redirect"\n[transparent]\nonly_cgroup = "/system.slice/a\\\\x2db.service"\ninterface = "veth*"',
    ],
)
def test_what_can_be(text: str) -> None:
    build_engine(parse_config("[[proxy.listener]]\n" + text))
