"""From a configuration to an engine with its objects, for whoever only wants to look at it or to run it as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wfpstream.config._callout_text import CalloutText
from wfpstream.config._deploy import deploy
from wfpstream.config._load import LoadedConfig
from wfpstream.engine import FilterEngine


def _stopped() -> float:
    return 0.0


def build_engine(
    loaded: LoadedConfig,
    callouts: Sequence[CalloutText] = (),
    clock: Callable[[], float] = _stopped,
) -> FilterEngine:
    """Make an engine as a configuration wants it.

    Args:
        loaded: the configuration.
        callouts: callouts of the command line, each in its own sublayer, asked before the file's rules.
        clock: monotonic seconds; without one time stands still, which is enough to look at the engine.

    Raises:
        ConfigError: something in it cannot be used; every such thing is named, and nothing was left behind.
    """
    return deploy(loaded, callouts, clock).engine
