"""`wfpstream verify`: exit codes, the report, samples from captures, and what it refuses."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.replay.kit import Capture, close
from wfpstream.cli import main

BROKEN = '''
"""An editor that looks for its word in each segment alone."""

from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, StreamFlags

SEND_OR_RECEIVE = StreamFlags.SEND | StreamFlags.RECEIVE


class Shouting(Callout):
    """Makes `yes` of `no`, where it is in one piece."""

    def __init__(self, word: bytes = b"no") -> None:
        self.word = word

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        data = packet.stream_data
        out.action_type = ActionType.PERMIT
        if self.word in data.tobytes():
            print("found it")
            out.action_type = ActionType.BLOCK
            answer = data.tobytes().replace(self.word, b"yes")
            self.inject(meta.flow_handle, fixed.layer_id, data.flags & SEND_OR_RECEIVE, answer)
'''


@pytest.fixture
def editor(tmp_path: Path) -> str:
    (tmp_path / "editor.py").write_text(BROKEN)
    return f"{tmp_path / 'editor.py'}:Shouting"


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["verify", "--effort", "80", *arguments])


def test_a_built_in_passes() -> None:
    result = verify("stream_edit,find=rainy,replace=sunny")
    assert result.exit_code == 0
    assert re.fullmatch(r"stream_edit: passed \(\d+ runs, \d+ API call sites made to fail\)\n", result.output)


def test_a_broken_callout_fails_with_the_smallest_case(editor: str) -> None:
    result = verify(f"{editor},word=rainy")
    assert result.exit_code == 1
    assert result.output.startswith("Shouting: ")
    assert "<- cut at byte" in result.output
    assert "found it" not in result.output

    (case, *_) = re.findall(r"case='(.*)'$", result.output, re.MULTILINE)
    again = CliRunner().invoke(main, shlex.split(f"verify {editor},word=rainy --case {shlex.quote(case)}"))
    assert again.exit_code == 1
    assert "this way" in again.output


def test_words_may_be_named(editor: str) -> None:
    """Without one there is nothing in the samples that this editor looks for."""
    assert verify(editor, "--no-api-failures").exit_code == 0
    assert verify(editor, "--no-api-failures", "--word", "no").exit_code == 1


def test_quiet_is_quiet(editor: str) -> None:
    result = verify(editor, "-q", "--word", "no")
    assert (result.exit_code, result.output) == (1, "")


def capture_of(folder: Path, *words: bytes) -> str:
    """A stream for each word."""
    capture = Capture()
    for number, word in enumerate(words):
        client, server = capture.opened(port=40_000 + number)
        client.send(b"is it " + word)
        server.send(b"oh " + word)
        close(client, server)
    return str(capture.write(folder / "talk.pcap"))


def test_a_capture_gives_samples(editor: str, tmp_path: Path) -> None:
    capture = capture_of(tmp_path, b"no")
    result = verify(editor, "--capture", capture)
    assert result.exit_code == 1
    assert f"{capture} stream 0; " in result.output
    assert " sends b'o'  <- cut at byte " in result.output


def test_only_so_much_of_a_capture_is_taken(editor: str, tmp_path: Path) -> None:
    capture = capture_of(tmp_path, b"maybe", b"no")
    assert verify(editor, "--no-api-failures", "--capture", capture, "--limit", "4").exit_code == 0
    result = verify(editor, "--no-api-failures", "--capture", capture, "--streams", "1")
    assert result.exit_code == 0
    assert "1 more streams with data are not used (--streams)" in result.output


def test_what_a_callout_breaks_on_purpose_is_told() -> None:
    result = verify("fault,do=blackhole,after=3")
    assert result.exit_code == 0
    assert "note: it breaks on purpose: V-52" in result.output


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nothing"], "no callout 'nothing'; there are "),
        (["stream_edit"], "stream_edit: option find is missing"),
        (["stream_edit,find"], "expected key=value"),
        (["web:monitor"], "a check has no listeners; leave 'web:' out"),
        (["monitor", "--case", "x"], "--case: 'x' is no case of this check"),
        (["monitor", "--capture", "/no/such.pcap"], "/no/such.pcap"),
        (["monitor", "--capture", __file__, "--limit", "much"], "--limit: "),
        (["monitor", "--capture", __file__], "test_verify.py"),
        (["monitor", "--effort", "0"], "Invalid value for '--effort'"),
        (["monitor", "--depends-on", "weather"], "Invalid value for '--depends-on'"),
        ([], "Missing argument 'CALLOUT'"),
    ],
)
def test_what_cannot_be_used_is_one_line(arguments: list[str], line: str) -> None:
    result = verify(*arguments)
    assert result.exit_code == 2
    assert result.output.count("\n") == 1
    assert result.output.startswith("wfpstream: error: ")
    assert line in result.output


def test_a_class_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from wfpstream.fwps import Callout\n\n\nclass Odd(Callout):\n"
        "    def __init__(self) -> None:\n        raise LookupError('\\x1b[31mno')\n"
    )
    result = verify(f"{tmp_path / 'odd.py'}:Odd")
    assert result.exit_code == 2
    assert "LookupError" in result.output
    assert "\x1b" not in result.output


def test_an_empty_capture_is_no_sample(tmp_path: Path) -> None:
    result = verify("monitor", "--capture", capture_of(tmp_path))
    assert result.exit_code == 2
    assert "there is no TCP stream with data in it" in result.output


def test_without_hypothesis_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    result = verify("monitor")
    assert result.exit_code == 1
    assert (
        result.output
        == "wfpstream: error: checking a callout needs hypothesis: pip install 'wfpstream[test]'\n"
    )
