"""Options: units, kinds of values, and errors that say what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from wfpstream.callouts import (
    OptionError,
    Rate,
    Size,
    Text,
    Time,
    as_bytes,
    convert_options,
    parse_rate,
    parse_size,
    parse_time,
)
from wfpstream.callouts._options import options_of


class Sample:
    """A sample.

    Args:
        find: what to look for,
            over two lines.
        for_: how long.
    """

    def __init__(
        self,
        find: Text,
        size: Size = "1KiB",
        for_: Time = 0.5,
        rate: Rate | None = None,
        count: int | None = None,
        mode: Literal["inline", "oob"] = "inline",
        on: bool = False,
        word: str = "x",
        ports: Sequence[int] = (),
        share: float = 1.0,
        thing: object = None,
        raw: Any = None,
    ) -> None:
        """Do nothing."""


def convert(**raw: object) -> dict[str, Any]:
    return convert_options("sample", Sample, {"find": "x", **raw})


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("64KiB", 65536), ("64 kB", 64000), ("1.5MiB", 1572864), ("2K", 2000), (17, 17)],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("1.5s", 1.5), ("2m", 120), ("3", 3), (0.1, 0.1), ("10us", 1e-5)]
)
def test_times(text: object, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("1MiB/s", 1048576), ("64kB/s", 64000), ("600/m", 10), ("1200", 1200), (9.5, 9.5), ("2KiBps", 2048)],
)
def test_rates(text: object, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("parse", [parse_size, parse_time, parse_rate])
@pytest.mark.parametrize(
    "wrong", ["", "fast", "-1", -1, True, None, float("nan"), float("inf"), "1 parsec", [1], b"1"]
)
def test_units_refuse_what_is_no_amount(parse: Any, wrong: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the option's business
        parse(wrong)


def test_text_becomes_bytes_by_utf_8_and_bytes_stay() -> None:
    assert as_bytes("grün") == "grün".encode()
    assert as_bytes(b"\xff\x00") == b"\xff\x00"


def test_options_take_numbers_and_their_texts_alike() -> None:
    assert convert(size="2KiB")["size"] == convert(size=2048)["size"] == 2048
    assert convert(rate="1kB/s")["rate"] == 1000.0
    assert convert(count="7")["count"] == convert(count=7)["count"] == 7
    assert convert(share="0.25")["share"] == convert(share=0.25)["share"] == 0.25


def test_a_keyword_of_python_is_an_option_without_its_underscore() -> None:
    assert convert(**{"for": "2s"})["for_"] == 2.0


def test_a_single_value_is_a_list_of_one() -> None:
    assert convert(ports=[80, "443"])["ports"] == [80, 443]
    assert convert(ports=80)["ports"] == [80]


def test_truth_values_are_words_or_booleans() -> None:
    assert convert(on=True)["on"] is True
    assert convert(on="no")["on"] is False


def test_options_without_a_known_annotation_take_anything() -> None:
    assert convert(thing=[1], raw={"a": 1}) == {"find": b"x", "thing": [1], "raw": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("find", 80, 'text (a number needs quotes: "80")'),
        ("size", "big", "a size such as 512, 64KiB or 1.5MiB"),
        ("for", "soon", "a time such as 250ms, 1.5s or 2m"),
        ("rate", "fast", "a rate such as 1MiB/s, 64kB/s or 1200 (bytes per second)"),
        ("count", 1.5, "a whole number"),
        ("mode", "outline", "one of inline, oob"),
        ("on", 1, "true or false"),
        ("word", 1, 'text (a number needs quotes: "80")'),
        ("ports", [80, "x"], "a list; each a whole number"),
    ],
)
def test_an_error_names_option_value_and_what_was_expected(name: str, value: object, expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        convert_options("sample", Sample, {"find": "x", name: value})
    assert str(caught.value) == f"sample: option {name}={value!r}: expected {expected}"


def test_an_unknown_option_is_an_error_with_a_hint() -> None:
    with pytest.raises(
        OptionError, match=r"^sample: no option fnid; did you mean find\?; options: find, size, for"
    ):
        convert_options("sample", Sample, {"fnid": "x"})


def test_a_missing_option_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"^sample: option find is missing; options: find, size"):
        convert_options("sample", Sample, {})


def test_a_class_without_options_says_so() -> None:
    class Plain:
        pass

    assert options_of(Plain) == []
    with pytest.raises(OptionError, match="it takes no options"):
        convert_options("plain", Plain, {"x": 1})


def test_options_are_listed_with_type_default_and_text() -> None:
    options = {option.name: option for option in options_of(Sample)}
    assert list(options)[:3] == ["find", "size", "for"]
    assert options["find"].required
    assert options["find"].type == "text"
    assert options["find"].doc == "what to look for, over two lines."
    assert (options["size"].type, options["size"].default) == ("size", "1KiB")
    assert (options["for"].type, options["for"].default, options["for"].parameter) == ("time", 0.5, "for_")
    assert options["mode"].type == "inline|oob"
    assert options["ports"].type == "list of int"
    assert (options["count"].required, options["count"].default) == (False, None)
