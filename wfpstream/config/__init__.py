"""Floor 4: configuration: the TOML file, CALLOUT and SPEC strings, and turning them into an engine's objects.

It imports no transport and no sink: what listens, and who is told, the command line wires.
"""

from __future__ import annotations

from wfpstream.config._addresses import format_address, parse_address, parse_mode
from wfpstream.config._build import build_engine
from wfpstream.config._callout_text import CalloutText, anchor_callout, parse_callout
from wfpstream.config._deploy import Deployment, Pending, deploy
from wfpstream.config._difference import Change, Difference
from wfpstream.config._errors import ConfigError, Problem
from wfpstream.config._load import LoadedConfig, decode_config, load_config, parse_config
from wfpstream.config._model import Config, Listener, config_schema
from wfpstream.config._policy_text import (
    PolicyText,
    filter_ids_text,
    policy_text,
    read_filter_ids,
    read_policy_text,
)
from wfpstream.config._settings import (
    divided,
    engine_options,
    listener_settings,
    replay_settings,
    transparent_settings,
)

__all__ = [
    "CalloutText",
    "Change",
    "Config",
    "ConfigError",
    "Deployment",
    "Difference",
    "Listener",
    "LoadedConfig",
    "Pending",
    "PolicyText",
    "Problem",
    "anchor_callout",
    "build_engine",
    "config_schema",
    "decode_config",
    "deploy",
    "divided",
    "engine_options",
    "filter_ids_text",
    "format_address",
    "listener_settings",
    "load_config",
    "parse_address",
    "parse_callout",
    "parse_config",
    "parse_mode",
    "policy_text",
    "read_filter_ids",
    "read_policy_text",
    "replay_settings",
    "transparent_settings",
]
