"""`wfpstream ctl`: ask a running proxy, and tell it what to do, over its control socket.

Owns what the command line says of it. Nothing of the proxy is loaded: asking is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from wfpstream.cli._base import Command, InputError, JobError, command, print_out

F = TypeVar("F", bound=Callable[..., Any])

_TIMEOUT = 30.0
# Reading configurations and callouts, resolving names: a proxy may take its time.
_CHANGE_TIMEOUT = 120.0


class _Group(click.Group):
    example = "wfpstream ctl flows"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """From looking to changing, not by letters."""
        return list(self.commands)


@click.group(cls=_Group, short_help="Ask and steer a running proxy.", no_args_is_help=False)
@click.option(
    "--socket", "socket_path", metavar="PATH", help="The control socket of the proxy that is meant."
)
@click.pass_context
def ctl(ctx: click.Context, socket_path: str | None) -> None:
    """Ask a running proxy, and steer it, over its control socket.

    Without --socket it is the only one that runs for this user.
    """
    ctx.obj = socket_path


_LONGEST_NAME = 20


class _FlowName(click.ParamType[int | str]):
    """`7`, and with workers `2.7`: flow 7 of worker 2."""

    name = "flow"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """A number, or the text."""
        worker, point, flow = value.partition(".")
        if len(value) > _LONGEST_NAME or not worker.isdecimal() or (point and not flow.isdecimal()):
            self.fail(f"expected a flow such as 7, or 2.7 with workers, got {value!r}", param, ctx)
        return value if point else int(value)


_FLOW = _FlowName()


def _options(fn: F) -> F:
    fn = click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")(fn)
    return click.option(
        "--socket", "socket_path", metavar="PATH", help="The control socket of the proxy that is meant."
    )(fn)


def _sub(name: str, example: str, short_help: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A command of the group, with the options that all of them have."""
    kind: type[Command] = command(f"ctl-{name}", f"wfpstream ctl {example}")

    def made(fn: Callable[..., Any]) -> click.Command:
        return ctl.command(name, cls=kind, short_help=short_help)(_options(fn))

    return made


def ask_proxy(
    socket_path: str | None, name: str, arguments: dict[str, Any] | None = None, timeout: float = _TIMEOUT
) -> Any:
    """Ask the proxy at `socket_path`, or the one of the group's option, or the only one there is.

    Raises:
        JobError: it cannot be had.
        InputError: it was asked for wrongly.
    """
    from wfpstream.control import ControlError, ask, find_socket

    ctx = click.get_current_context(silent=True)
    path = socket_path or (ctx.obj if ctx is not None else None)
    try:
        return ask(Path(path) if path else find_socket(), name, arguments, timeout)
    except ControlError as error:
        if error.code == "usage":
            raise InputError(error.lines) from error
        raise JobError("; ".join(error.lines)) from error


def print_json(*results: Any) -> None:
    """One line of JSON for each."""
    import msgspec

    if results:
        print_out("\n".join(msgspec.json.encode(result).decode() for result in results))


def _print(result: Any, as_json: bool, lines: Callable[[Any], Iterable[str]]) -> None:
    if as_json:
        print_json(result)
    else:
        from wfpstream.observe import safe_text

        # Who answers may be another user's process, if root asks.
        print_out("\n".join(map(safe_text, lines(result))))


@_sub("flows", "flows --json", "List the flows that live.")
def flows(socket_path: str | None, as_json: bool) -> None:
    """List the flows that live: addresses, age, bytes, what they wait for. With --json a line for each."""
    from wfpstream.cli._ctl_show import flow_lines

    found = ask_proxy(socket_path, "flows")
    if as_json:
        print_json(*found)
    else:
        print_out("\n".join(flow_lines(found)))


@_sub("show", "show 7", "Show one flow in depth.")
@click.argument("flow", type=_FLOW)
def show(flow: int | str, socket_path: str | None, as_json: bool) -> None:
    """Show one flow in depth: every stage with its counters, the ledgers, the contexts."""
    from wfpstream.cli._ctl_show import one_flow_lines

    _print(ask_proxy(socket_path, "show", {"flow": flow}), as_json, one_flow_lines)


@_sub("stats", "stats --json", "Show the proxy's counts.")
def stats(socket_path: str | None, as_json: bool) -> None:
    """Show the proxy's counts: connections, flows, bytes stored, policies used, violations."""
    from wfpstream.cli._ctl_show import stats_lines

    _print(ask_proxy(socket_path, "stats"), as_json, stats_lines)


@_sub("filters", "filters", "Show the filters in force.")
def filters(socket_path: str | None, as_json: bool) -> None:
    """Show the filters in force, in the order of asking, with their ids; the same as `wfpstream show`."""
    show_in_force(socket_path, as_json)


def show_in_force(socket_path: str | None, as_json: bool) -> None:
    """Print what is in force in a running proxy."""
    from wfpstream.cli._describe import as_text

    _print(ask_proxy(socket_path, "filters"), as_json, lambda found: as_text(found).splitlines())


@_sub("reload", "reload", "Put the configuration file in force.")
def reload(socket_path: str | None, as_json: bool) -> None:
    """Read the configuration file again and put it in force, all of it or nothing; prints the difference."""
    _change(socket_path, as_json, "reload", {})


@_sub("add-filter", "add-filter stream_edit,find=rainy,replace=sunny --when remote_port=80", "Add a rule.")
@click.argument("callout", required=False)
@click.option(
    "--when", "conditions", metavar="KEY=VALUE", multiple=True,
    help="Only flows with it: listener, remote_address, remote_port, local_address, local_port, direction. "
    "Repeatable; the same key again is an alternative.",
)  # fmt: skip
@click.option("--name", help="What the rule is called.")
@click.option(
    "--file", "file", metavar="FILE|-", help="A piece of configuration in TOML instead of a CALLOUT."
)
def add_filter(
    callout: str | None,
    conditions: tuple[str, ...],
    name: str | None,
    file: str | None,
    socket_path: str | None,
    as_json: bool,
) -> None:
    """Add a rule, for new and for live flows: a CALLOUT, or what FILE says; prints the difference.

    It stays in force beside the configuration file, also after a reload. Relative names of files in a CALLOUT start
    from the current folder, those in FILE from the folder of the proxy's configuration.
    """
    if (callout is None) == (file is None):
        raise click.UsageError("give a CALLOUT or --file FILE")
    if file is not None and (conditions or name is not None):
        raise click.UsageError("--when and --name go with a CALLOUT; a FILE says it itself")
    if file is not None:
        arguments: dict[str, Any] = {"toml": _read(file)}
    else:
        from wfpstream.config import anchor_callout

        # The proxy has another current folder than who asks it.
        text = anchor_callout(callout or "", Path.cwd())
        arguments = {"callout": text, "when": _when(conditions), "name": name}
    _change(socket_path, as_json, "add-filter", arguments)


@_sub("delete-filter", "delete-filter 12 --drain", "Delete a filter.")
@click.argument("filter_id", metavar="ID", type=int)
@click.option(
    "--drain", is_flag=True, help="If it is busy: give it no new flow, and delete it when it is idle."
)
def delete_filter(filter_id: int, drain: bool, socket_path: str | None, as_json: bool) -> None:
    """Delete the filter ID of `wfpstream ctl filters`. One that holds bytes of a flow is in use."""
    arguments = {"filter": filter_id, "drain": drain}
    answer = ask_proxy(socket_path, "delete-filter", arguments, _CHANGE_TIMEOUT)
    said = "goes as soon as it is idle" if answer["state"] == "draining" else "deleted"
    _print(answer, as_json, lambda _: [f"filter {filter_id}: {said}"])


@_sub("abort", "abort 7", "Reset both ends of a flow.")
@click.argument("flow", type=_FLOW)
def abort(flow: int | str, socket_path: str | None, as_json: bool) -> None:
    """Reset both ends of a flow now (FwpsFlowAbort)."""
    _print(ask_proxy(socket_path, "abort", {"flow": flow}), as_json, lambda _: [f"flow {flow}: aborted"])


def _grace(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from wfpstream.callouts import parse_time

    try:
        return None if value is None else parse_time(value)
    except ValueError:
        raise click.BadParameter(f'expected seconds, or a time such as "250ms", got {value!r}') from None


@_sub("drain", "drain --grace 60", "Accept nothing more, and exit when the flows have ended.")
@click.option(
    "--grace",
    metavar="SECONDS",
    callback=_grace,
    help="How long flows may take; default: as `run --grace` says.",
)
def drain(grace: float | None, socket_path: str | None, as_json: bool) -> None:
    """Accept nothing more, let the flows end, and exit; with --grace, what is left then is aborted."""
    answer = ask_proxy(socket_path, "drain", {"grace": grace})
    _print(answer, as_json, lambda _: [f"draining, {answer['connections']} connections"])


def _change(socket_path: str | None, as_json: bool, name: str, arguments: dict[str, Any]) -> None:
    from wfpstream.cli._ctl_show import change_lines

    _print(ask_proxy(socket_path, name, arguments, _CHANGE_TIMEOUT), as_json, change_lines)


def _when(conditions: Iterable[str]) -> dict[str, Any]:
    """`KEY=VALUE` as a rule's `when` has it: a value is written as an option of a CALLOUT is."""
    from wfpstream.config import parse_callout

    found: dict[str, Any] = {}
    for condition in conditions:
        key, equals, raw = condition.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--when {condition}: expected KEY=VALUE, such as remote_port=80")
        ((key, value),) = parse_callout(f"when,{key}={raw}").options.items()
        if isinstance(value, bytes):
            raise click.UsageError(f"--when {condition}: expected text or a number")
        if key in found:
            before = found[key] if isinstance(found[key], list) else [found[key]]
            value = [*before, *(value if isinstance(value, list) else [value])]
        found[key] = value
    return found


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode()
    except OSError as error:
        raise InputError([f"cannot read {file}: {(error.strerror or str(error)).lower()}"]) from error
    except ValueError as error:
        raise InputError([f"{file}: expected UTF-8 text"]) from error
