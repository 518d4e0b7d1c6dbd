"""`wfpstream transparent`: print, apply, undo and examine the interception of connections.

Owns the options and the words around the results. What is made and removed is the room `intercept`'s.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from wfpstream.cli._base import DONE, FAILED, InputError, JobError, command, note, print_out

if TYPE_CHECKING:
    from wfpstream.intercept import InterceptError, Interception

EXAMPLE = "wfpstream transparent print --port 15001 --redirect-port 80,443"
DEFAULT_NAME = "wfpstream"
_ACTIONS = ["print", "apply", "undo", "doctor"]


def _user(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A user by number or name."""
    if value is None or (value.isascii() and value.isdigit()):
        return None if value is None else int(value)
    import pwd

    try:
        return pwd.getpwnam(value).pw_uid
    except (KeyError, ValueError):
        raise click.BadParameter(f"there is no user {value!r} on this machine") from None


@click.command(
    cls=command("transparent", EXAMPLE),
    short_help="Lead connections to the proxy without their knowing.",
)
@click.argument("action", type=click.Choice(_ACTIONS), metavar="print|apply|undo|doctor")
@click.option(
    "--port", type=click.IntRange(1, 65535), metavar="N", help="The proxy's listener; undo needs none."
)
@click.option(
    "--redirect-port", "redirect_ports", metavar="N[,N]", multiple=True,
    help="Destination ports taken, or ranges N-N; absent: all. Repeatable.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice(["redirect", "tproxy"]), default="redirect", show_default=True,
    help="Change the destination, or keep both addresses (forwarded connections only).",
)  # fmt: skip
@click.option(
    "--scope", type=click.Choice(["local", "forward", "both"]),
    help="Connections made on this machine, routed through it, or both; absent: all that the rest can mean.",
)  # fmt: skip
@click.option(
    "--exempt-uid", metavar="U", callback=_user,
    help="A user (or number) whose connections are left alone; absent: the caller, if not root.",
)  # fmt: skip
@click.option("--only-uid", metavar="U", callback=_user, help="The only user whose connections are taken.")
@click.option("--only-cgroup", metavar="PATH", help="The only control group (version 2) taken.")
@click.option("--interface", metavar="IF", help="The only interface where forwarded connections are taken.")
@click.option(
    "--name", metavar="NAME",
    help="Of the nft table and the undo record; absent: wfpstream, and for undo all that no running proxy has.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="doctor: one JSON line per finding.")
def transparent(
    *,
    action: str,
    port: int | None,
    redirect_ports: tuple[str, ...],
    mode: Literal["redirect", "tproxy"],
    scope: Literal["local", "forward", "both"] | None,
    exempt_uid: int | None,
    only_uid: int | None,
    only_cgroup: str | None,
    interface: str | None,
    name: str | None,
    as_json: bool,
) -> int:
    """Lead connections to the proxy's listener without the programs at their ends knowing.

    `print` shows exactly what `apply` would run; `apply` runs it, after writing down what `undo` then takes back,
    also after a crash; `doctor` says what is missing for it to work, and exits with 1 if anything is.
    """
    from wfpstream.intercept import InterceptError, PlanError

    if as_json and action != "doctor":
        raise click.UsageError("--json is for doctor")
    try:
        if action == "undo":
            return _undo(name)
        if port is None:
            raise click.UsageError(f"{action} needs --port, that of the proxy's listener")
        plan = _plan(port, redirect_ports, mode, scope, exempt_uid, only_uid, only_cgroup, interface, name)
        return (
            {"print": _print, "apply": _apply}[action](plan) if action != "doctor" else _doctor(plan, as_json)
        )
    except PlanError as error:
        raise InputError([f"{line}; example: {EXAMPLE}" for line in error.lines]) from None
    except InterceptError as error:
        raise _failed(error) from error


def _plan(
    port: int,
    redirect_ports: tuple[str, ...],
    mode: Literal["redirect", "tproxy"],
    scope: Literal["local", "forward", "both"] | None,
    exempt_uid: int | None,
    only_uid: int | None,
    only_cgroup: str | None,
    interface: str | None,
    name: str | None,
) -> Interception:
    from wfpstream.intercept import Interception, parse_ports

    caller = os.getuid()
    if exempt_uid is None and caller not in (0, only_uid):
        exempt_uid = caller
    return Interception(
        port=port,
        name=DEFAULT_NAME if name is None else name,
        mode=mode,
        redirect_ports=parse_ports(redirect_ports),
        scope=scope,
        exempt_uid=exempt_uid,
        only_uid=only_uid,
        only_cgroup=only_cgroup,
        interface=interface,
    )


def _print(plan: Interception) -> int:
    from wfpstream.intercept import plan_here

    _, made = plan_here(plan, log=note)
    print_out(made.as_shell().rstrip("\n"))
    return DONE


def _apply(plan: Interception) -> int:
    from wfpstream.intercept import apply

    record = apply(plan, log=note)
    print_out(
        f"{record.name}: {record.plan.describe()}; take it back: wfpstream transparent undo --name {record.name}"
    )
    return DONE


def _undo(name: str | None) -> int:
    from wfpstream.intercept import undo

    for line in undo(name):
        print_out(line)
    return DONE


def _doctor(plan: Interception, as_json: bool) -> int:
    from wfpstream.intercept import doctor

    findings = doctor(plan)
    for finding in findings:
        if as_json:
            print_out(
                msgspec.json.encode({"ok": finding.ok, "what": finding.what, "mend": finding.mend}).decode()
            )
        else:
            print_out(f"{'ok    ' if finding.ok else 'not ok'}  {finding.what}")
            if finding.mend:
                print_out(f"        {'note' if finding.ok else 'mend'}: {finding.mend}")
    return DONE if all(finding.ok for finding in findings) else FAILED


def _failed(error: InterceptError) -> JobError:
    """What was done is told; each fault is a line, of which the last is the exception's own."""
    for line in error.done:
        print_out(line)
    for line in error.lines[:-1]:
        note(f"error: {line}")
    return JobError(error.lines[-1])
