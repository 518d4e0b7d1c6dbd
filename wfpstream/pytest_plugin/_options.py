"""What the command line and the marker ask of the plugin's fixtures.

Owns their names, defaults and precedence: the marker of the test, then the command line, then the default. It must not
know fixtures or reports, and imports nothing heavy at its top: every session loads it.
"""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from wfpstream.testing import Chop

__all__ = ["MARKER", "Settings", "add_options", "arguments_of", "configure", "settings_of", "tell_worker"]

MARKER = "wfpstream"
LEVELS = ("off", "warn", "strict")
_MARKER_LINE = (
    "wfpstream(seed=0, chop='off', verify='warn', leaks=True): how wfp_pair and wfp_proxy run this test: seed of what "
    "is left to chance, segmentation ('random', 'N' or 'A-B' bytes), contract verification ('off', 'warn' or "
    "'strict'), leak check at its end"
)
_MARKER_KEYS = ("seed", "chop", "verify", "leaks")
_MOST = 2**63
_TOLD = "wfp_seed"


class Settings(NamedTuple):
    """What holds for one test.

    Attributes:
        seed: of chops and of built-in callouts that make random choices.
        chop: how what the ends send is cut.
        verify: "off", "warn" or "strict".
        leaks: whether what is left behind fails the test.
        artifacts: where a failed test leaves its files; None: nowhere.
    """

    seed: int
    chop: Chop
    verify: str
    leaks: bool
    artifacts: Path | None


def add_options(parser: pytest.Parser) -> None:
    """The plugin's options of the command line."""
    group = parser.getgroup("wfpstream", "TCP streams under test (wfpstream)")
    group.addoption(
        "--wfp-seed",
        type=_seed,
        default=0,
        metavar="N|random",
        help="seed of what wfp_pair and wfp_proxy leave to chance (default: 0)",
    )
    group.addoption(
        "--wfp-chop",
        type=_chop,
        default=None,  # a text would be checked, for which a good part of the package is loaded
        metavar="CHOP",
        help="cut what the ends send into segments: off, random, N or A-B bytes (default: off)",
    )
    group.addoption(
        "--wfp-verify",
        choices=LEVELS,
        default="warn",
        help="contract verification of callouts: warn shows violations, strict fails the test (default: warn)",
    )
    group.addoption(
        "--wfp-artifacts",
        type=Path,
        default=None,
        metavar="DIR",
        help="where failed tests leave their events, a capture of both sides, and the trace",
    )
    group.addoption(
        "--wfp-update-snapshots",
        action="store_true",
        default=False,
        help="write the snapshots of wfp_trace instead of comparing with them",
    )


def configure(config: pytest.Config) -> None:
    """Declare the marker, and decide on a random seed; xdist's workers have the one of their controller."""
    config.addinivalue_line("markers", _MARKER_LINE)
    told = getattr(config, "workerinput", {}).get(_TOLD)
    if told is not None:
        config.option.wfp_seed = told
    elif config.option.wfp_seed == "random":
        config.option.wfp_seed = secrets.randbelow(2**31)


def tell_worker(config: pytest.Config, workerinput: dict[str, Any]) -> None:
    """What a worker process of xdist must not decide for itself."""
    workerinput[_TOLD] = config.option.wfp_seed


def settings_of(owner: pytest.Item | pytest.Config) -> Settings:
    """What the command line and the markers of a test ask for; of a configuration: the command line alone.

    Raises:
        pytest.UsageError: a marker has an argument that cannot be used.
    """
    from wfpstream.testing import Chop

    config = owner.config if isinstance(owner, pytest.Item) else owner
    option = config.option
    said: dict[str, Any] = {
        "seed": option.wfp_seed,
        "chop": option.wfp_chop or "off",
        "verify": option.wfp_verify,
        "leaks": True,
    }
    if isinstance(owner, pytest.Item):
        for mark in reversed(list(owner.iter_markers(MARKER))):  # the closest one has the last word
            said |= _checked(mark, owner)
    return Settings(
        seed=said["seed"],
        chop=Chop(str(said["chop"])),
        verify=said["verify"],
        leaks=said["leaks"],
        # From where pytest was started: the test may be somewhere else by now.
        artifacts=option.wfp_artifacts and config.invocation_params.dir / option.wfp_artifacts,
    )


def arguments_of(settings: Settings) -> list[str]:
    """The options that make another run like this one."""
    return [
        f"--wfp-seed={settings.seed}",
        f"--wfp-chop={settings.chop}",
        f"--wfp-verify={settings.verify}",
    ]


def _checked(mark: pytest.Mark, node: pytest.Item) -> dict[str, Any]:
    if mark.args:
        raise _wrong(node, f"arguments are named, such as seed=1, not {mark.args[0]!r}")
    for key, value in mark.kwargs.items():
        if key not in _MARKER_KEYS:
            raise _wrong(node, f"no argument {key!r}; there are {', '.join(_MARKER_KEYS)}")
        _check_value(key, value, node)
    return dict(mark.kwargs)


def _check_value(key: str, value: Any, node: pytest.Item) -> None:
    from wfpstream.testing import Chop

    if key == "seed" and (not isinstance(value, int) or isinstance(value, bool)):
        raise _wrong(node, f"seed is a whole number, not {value!r}")
    if key == "verify" and value not in LEVELS:
        raise _wrong(node, f"verify is one of {', '.join(LEVELS)}, not {value!r}")
    if key == "leaks" and not isinstance(value, bool):
        raise _wrong(node, f"leaks is True or False, not {value!r}")
    if key == "chop":
        try:
            Chop(str(value))
        except ValueError as error:
            raise _wrong(node, str(error)) from None


def _wrong(node: pytest.Item, text: str) -> pytest.UsageError:
    return pytest.UsageError(f"{node.nodeid}: mark.{MARKER}: {text}")


def _seed(text: str) -> int | str:
    if text == "random":
        return text
    try:
        seed = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a seed is a whole number or 'random', not {text!r}") from None
    if not -_MOST <= seed < _MOST:
        raise argparse.ArgumentTypeError(f"a seed has at most 64 bits, not {text!r}")
    return seed


def _chop(text: str) -> str:
    from wfpstream.testing import Chop

    try:
        return str(Chop(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
