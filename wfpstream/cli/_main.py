"""The tree of commands, and the one place where exceptions become lines and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from wfpstream import __version__
from wfpstream.cli._base import DONE, FAILED, INTERRUPTED, InputError, JobError, give_up_stdout, note, report
from wfpstream.cli._callouts import callouts
from wfpstream.cli._check import check
from wfpstream.cli._ctl import ctl
from wfpstream.cli._demo import demo
from wfpstream.cli._explain import explain_status
from wfpstream.cli._replay import replay
from wfpstream.cli._run import run
from wfpstream.cli._show import show
from wfpstream.cli._torture import torture
from wfpstream.cli._transparent import transparent
from wfpstream.cli._verify import verify

HELP_WIDTH = 100


class Main(click.Group):
    """The whole command line. Exit codes: 0 done, 1 the job failed, 2 usage, configuration, input."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run it; exits the process, or returns the exit code if not `standalone_mode`."""
        code = self._run(args, complete_var, extra)
        if standalone_mode:
            sys.exit(code)
        return code

    def _run(self, args: Sequence[str] | None, complete_var: str | None, extra: dict[str, Any]) -> int:
        try:
            result = super().main(args, "wfpstream", complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            return report(error)
        except (KeyboardInterrupt, click.Abort):
            return INTERRUPTED
        except Exception as error:
            return _failed(error)
        return result if isinstance(result, int) else DONE


@click.group(
    cls=Main,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """The Windows Filtering Platform's TCP stream layer, in user space on Linux."""


for _command in (demo, run, replay, check, show, callouts, verify, transparent, ctl, torture, explain_status):
    main.add_command(_command)


def _failed(error: Exception) -> int:
    # Not imported here: whoever asks for help need not load it, and without it the error is another one.
    kind = getattr(sys.modules.get("wfpstream.config"), "ConfigError", None)
    if kind is not None and isinstance(error, kind):
        return report(InputError(kind.lines(error)))
    if isinstance(error, OSError):
        _let_stdout_go()
        where = f": {error.filename}" if error.filename else ""
        return report(JobError(f"{(error.strerror or str(error)).lower()}{where}"))
    return _defect(error)


def _let_stdout_go() -> None:
    """What click itself could not print is not tried once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        give_up_stdout()


def _defect(error: Exception) -> int:
    """Something of ours is wrong: still one line, for scripts that read it."""
    if os.environ.get("WFPSTREAM_DEBUG"):
        traceback.print_exc()
    what = " ".join(f"{type(error).__name__}: {error}".split())
    note(f"error: this is a defect of wfpstream: {what} (WFPSTREAM_DEBUG=1 prints where)")
    return FAILED
