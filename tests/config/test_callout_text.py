"""The CALLOUT string."""

from __future__ import annotations

from pathlib import Path

import pytest

from wfpstream.config import CalloutText, ConfigError, anchor_callout, parse_callout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("monitor", CalloutText("monitor")),
        (
            "stream_edit,find=rainy,replace=sunny",
            CalloutText("stream_edit", {"find": "rainy", "replace": "sunny"}),
        ),
        ("web:monitor", CalloutText("monitor", {}, "web")),
        ("package.module:Class,n=3", CalloutText("package.module:Class", {"n": 3})),
        ("./file.py:Class", CalloutText("./file.py:Class")),
        ("/a b/file.py:Class", CalloutText("/a b/file.py:Class")),
        ("web:package.module:Class", CalloutText("package.module:Class", {}, "web")),
        ("web:./file.py:Class,a=1", CalloutText("./file.py:Class", {"a": 1}, "web")),
        ("module:Class", CalloutText("module:Class")),
        ("web-1:module:Class", CalloutText("module:Class", {}, "web-1")),
        (r"./a\,b.py:Class", CalloutText("./a,b.py:Class")),
        ("x,dry-run=true", CalloutText("x", {"dry_run": True})),
    ],
)
def test_head(text: str, expected: CalloutText) -> None:
    assert parse_callout(text) == expected


def test_a_known_listener_beats_a_module() -> None:
    assert parse_callout("Web:Class") == CalloutText("Web:Class")
    assert parse_callout("Web:Class", ["Web"]) == CalloutText("Class", {}, "Web")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0x1F", 0x1F),
        ("1_000", 1000),
        ("2.5", 2.5),
        ("true", True),
        ('"a,b"', "a,b"),
        (r'"a\"\t,b"', 'a"\t,b'),
        (r"'a\n,'", r"a\n,"),
        ("[80, 443]", [80, 443]),
        ('["a,]", [1, {x = "}"}]]', ["a,]", [1, {"x": "}"}]]),
        ("{a = 1, b = [2]}", {"a": 1, "b": [2]}),
        ("rainy", "rainy"),
        ("", ""),
        ("a=b", "a=b"),
        ("64KiB", "64KiB"),
        ("1MiB/s", "1MiB/s"),
        ("True", "True"),
        # TOML has dates and comments; an option has not.
        ("2020-01-01", "2020-01-01"),
        ("3 # three", "3 # three"),
        ("3\nx = 4", "3\nx = 4"),
        ("[80, 443", None),
        ("[x]", "[x]"),
        ('"x"y', '"x"y'),
        (r"a\nb\r\t\\\,c", "a\nb\r\t\\,c"),
        (r"\x41\x00", "A\0"),
        (r"\xc3\xa9", "é"),
        (r"\xff\xfe", b"\xff\xfe"),
        (r"é\xff", b"\xc3\xa9\xff"),
        ("\udcff", b"\xff"),
    ],
)
def test_values(raw: str, value: object) -> None:
    if value is None:  # an array that does not end is text, and its comma ends the option
        with pytest.raises(ConfigError, match=r"expected key=value, got ' 443,after=1'|got ' 443'"):
            parse_callout(f"x,key={raw},after=1")
        return
    parsed = parse_callout(f"x,key={raw},after=1")
    assert parsed.options == {"key": value, "after": 1}
    assert type(parsed.options["key"]) is type(value)


def test_a_file_gives_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a,b").write_bytes(b"\xff,\n")
    assert parse_callout(rf"x,find=@{tmp_path}/a\,b,n=1").options == {"find": b"\xff,\n", "n": 1}
    assert parse_callout(r"x,find=@a\,b", folder=tmp_path).options == {"find": b"\xff,\n"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a callout"),
        ("web:", "expected the name of a callout"),
        (",a=1", "expected the name of a callout"),
        ("x,find", "expected key=value, got 'find'"),
        ("x,find=a,b", r"got 'b' (a comma inside a value is written \,)"),
        ("x,=1", "expected key=value, got '=1'"),
        ("x,a=1,a=2", "option a is given twice"),
        (r"x,a=\d", r"unknown escape '\\d'"),
        (r"x,a=\x4", r"unknown escape '\\x'"),
        ("x,a=b\\", r"unknown escape '\\'"),
        ("x,a=@/nowhere/at/all", "cannot read '/nowhere/at/all': No such file"),
        (r"\xff", "is not text"),
    ],
)
def test_errors_say_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_callout(text)
    line = str(caught.value)
    assert message in line
    assert "example: stream_edit,find=rainy,replace=sunny" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "anchored"),
    [
        ("monitor,log=lines", "monitor,log=lines"),
        ("web:monitor", "web:monitor"),
        ("package.module:Class", "package.module:Class"),
        ("./file.py:Class", r"/a\,b/c/file.py:Class"),
        ("../file.py:Class,n=1", r"/a\,b/c/../file.py:Class,n=1"),
        ("sub/file.py:Class", r"/a\,b/c/sub/file.py:Class"),
        ("web:./file.py:Class", r"web:/a\,b/c/file.py:Class"),
        ("/file.py:Class", "/file.py:Class"),
        ("banner,text=@x.txt", r"banner,text=@/a\,b/c/x.txt"),
        (r"banner,text=@./x\,y,direction=both", r"banner,text=@/a\,b/c/x\,y,direction=both"),
        ("banner,text=@/x", "banner,text=@/x"),
        ('banner,text="a,b=@c"', 'banner,text="a,b=@c"'),
    ],
)
def test_anchored_in_a_folder(text: str, anchored: str) -> None:
    assert anchor_callout(text, Path("/a,b/c")) == anchored


def test_an_anchored_callout_reads_the_same(tmp_path: Path) -> None:
    (tmp_path / "x,y").write_bytes(b"\xff")
    text = r"web:./f.py:Class,text=@x\,y,n=[1, 2]"
    anchored = parse_callout(anchor_callout(text, tmp_path))
    assert anchored.options == parse_callout(text, folder=tmp_path).options
    assert (anchored.listener, anchored.name) == ("web", f"{tmp_path}/f.py:Class")
