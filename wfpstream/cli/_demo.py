"""`wfpstream demo`: everything in one process, on loopback, over in a second.

Owns the option and the exit code; the performance is `_weather`'s, imported only then.
"""

from __future__ import annotations

import click

from wfpstream.cli._base import DONE, FAILED, command, note, stdout_failed


@click.command(
    cls=command("demo", "wfpstream demo"), short_help="Show an inline and an out-of-band edit, live."
)
def demo() -> int:
    """Show an inline and an out-of-band edit of a live connection, step by step.

    A server, the proxy and a client run inside this process; nothing is left behind.
    """
    from wfpstream.cli._weather import perform

    try:
        is_right = perform()
    except OSError as error:
        stdout_failed(error)
        return DONE
    if not is_right:
        note("error: the demo's bytes are not what they should be")
        return FAILED
    return DONE
