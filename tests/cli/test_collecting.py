"""The garbage collector's settings while a proxy runs, and after it."""

from __future__ import annotations

import gc

import pytest

from wfpstream.cli._collecting import collecting_seldom


def test_the_collector_is_as_before_when_the_proxy_has_ended() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with pytest.raises(OSError, match="x"), collecting_seldom():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > frozen
        raise OSError("x")
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() <= frozen


def test_what_was_there_is_not_looked_at() -> None:
    old: list[object] = []
    old.append(old)
    with collecting_seldom():
        new: list[object] = []
        new.append(new)
        looked_at = {id(entry) for entry in gc.get_objects()}
        assert id(new) in looked_at
        assert id(old) not in looked_at
