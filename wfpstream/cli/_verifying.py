"""`wfpstream verify`, running: the callout and its samples, the check, the report and the exit code.

Owns where samples come from: text options of the callout, and captures, which the replay room reads. What is checked is
the testing room's.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

import click

from wfpstream.callouts import (
    OptionError,
    UnknownCalloutError,
    as_bytes,
    create_callout,
    describe_callout,
    find_callout,
    parse_size,
)
from wfpstream.cli._base import DONE, FAILED, InputError, JobError, note, print_out
from wfpstream.config import CalloutText, parse_callout
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import Callout, StreamFlags
from wfpstream.observe import safe_text
from wfpstream.testing import CheckReport, HypothesisMissing, Said, Sample, examine_callout

_FIN = int(StreamFlags.RECEIVE_DISCONNECT | StreamFlags.SEND_DISCONNECT)
_UNUSED = int(
    StreamFlags.RECEIVE_ABORT
    | StreamFlags.SEND_ABORT
    | StreamFlags.RECEIVE_EXPEDITED
    | StreamFlags.SEND_EXPEDITED
)


@dataclass(frozen=True, slots=True)
class CheckPlan:
    """What the command line says.

    Attributes:
        callout_text: the CALLOUT string.
        captures: files whose streams are samples.
        limit: bytes taken of each of their directions, as text.
        streams: how many streams are taken of each.
        words: what the callout looks for.
        how: arguments of `examine_callout`.
        quiet: no report.
    """

    callout_text: str
    captures: tuple[str, ...]
    limit: str
    streams: int
    words: tuple[str, ...]
    how: Mapping[str, Any]
    quiet: bool


def run_check(plan: CheckPlan) -> int:
    """Check, report; the exit code.

    Raises:
        ConfigError, InputError: the callout, a capture or an option cannot be used.
        JobError: hypothesis is not there.
    """
    said = parse_callout(plan.callout_text)
    if said.listener:
        raise click.UsageError(f"a check has no listeners; leave {said.listener + ':'!r} out")
    _make(said)
    words = [*_words_of(said), *(as_bytes(word) for word in plan.words)]
    samples = list(_captured(plan))
    report = _examined(said, samples, words, plan.how)
    if not plan.quiet:
        for line in report.lines():
            print_out(safe_text(line))
    return DONE if report.passed else FAILED


def _examined(
    said: CalloutText, samples: Sequence[Sample], words: Sequence[bytes], how: Mapping[str, Any]
) -> CheckReport:
    printed = io.StringIO()  # what callouts print, hundreds of times over
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            return examine_callout(lambda: _make(said), samples, words=words, **how)
    except HypothesisMissing as error:
        raise JobError(str(error)) from None
    except ValueError as error:
        if how["case"] is not None:
            raise click.UsageError(f"--case: {error}") from None
        raise


def _make(said: CalloutText) -> Callout:
    try:
        return create_callout(said.name, said.options)
    except (UnknownCalloutError, OptionError) as error:
        raise InputError([str(error)]) from error
    except (Exception, SystemExit) as error:  # whatever a class does when an object of it is made
        raise InputError([f"{said.name}: {type(error).__name__}: {error}"]) from error


def _words_of(said: CalloutText) -> Iterator[bytes]:
    """The values of its text options: what it looks for is among them."""
    options = describe_callout(said.name, find_callout(said.name)).options
    for option in options:
        value = said.options.get(option.name)
        if option.type == "text" and isinstance(value, str | bytes) and value:
            yield as_bytes(value)


# -- captures ---------------------------------------------------------------------------------------------------------


def _captured(plan: CheckPlan) -> Iterator[Sample]:
    if not plan.captures:
        return
    try:
        limit = parse_size(plan.limit)
    except ValueError as error:
        raise click.UsageError(f"--limit: {error}") from None
    for capture in plan.captures:
        conversations = _conversations(capture, limit)
        for number, said in enumerate(conversations[: plan.streams]):
            yield Sample(tuple(said), f"{capture} stream {number}")
        left_out = len(conversations) - plan.streams
        if left_out > 0 and not plan.quiet:
            note(f"{capture}: {left_out} more streams with data are not used (--streams)")
        if not conversations:
            raise InputError([f"{capture}: there is no TCP stream with data in it"])


def _conversations(capture: str, limit: int) -> list[list[Said]]:
    """What both sides say, of each stream in which somebody says something."""
    from wfpstream.replay import CaptureError, replay_capture

    listener = _Listener(limit)
    try:
        replay_capture(capture, [listener], verify="off")
    except (CaptureError, OSError) as error:
        text = str(error)
        raise InputError([text if capture in text else f"{capture}: {text}"]) from None
    return [said for said in listener.flows.values() if any(turn.data for turn in said)]


class _Listener(Callout):
    """Writes down what is said, up to `limit` bytes a direction."""

    name = "listener"
    filter_action = "callout_inspection"
    flags = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)

    def __init__(self, limit: int) -> None:
        self.flows: dict[int, list[Said]] = {}
        self._limit = limit
        self._taken: dict[tuple[int, str], int] = {}

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        """Look on."""
        classify_out.action_type = int(ActionType.CONTINUE)
        stream = layer_data.stream_data
        if stream.flags & _UNUSED:
            return
        flow = in_meta_values.flow_handle
        inbound = self.direction_of(flow, stream.flags) == "to_client"
        by = "server" if inbound else "client"
        said = self.flows.setdefault(flow, [])
        taken = self._taken.get((flow, by), 0)
        data = stream.tobytes()[: self._limit - taken]
        self._taken[flow, by] = taken + len(data)
        if data:
            said.append(Said("server" if inbound else "client", data))
        if stream.flags & _FIN:
            said.append(Said("server" if inbound else "client", end=True))
