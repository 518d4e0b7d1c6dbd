"""A policy in force as one text, and back: what one process hands to another that is to have the same.

Owns that form: JSON, with the text of the file, what was added and deleted by hand, and the ids of the filters. What
the command line says is not in it: the other process has the same command line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from wfpstream.config._callout_text import CalloutText
from wfpstream.config._deploy import Deployment, deploy
from wfpstream.config._load import LoadedConfig, parse_config
from wfpstream.config._model import Callout, Filter, Rule, SubLayer
from wfpstream.config._planned import Added

_TABLES: dict[str, type[Rule | Filter | SubLayer | Callout]] = {
    "rule": Rule,
    "filter": Filter,
    "sublayer": SubLayer,
    "callout": Callout,
}


@dataclass(frozen=True)
class PolicyText:
    """What `policy_text` says.

    Attributes:
        loaded: the configuration, without what the command line adds to it.
        added, deleted: what was added and deleted by hand.
        filter_ids: by key.
    """

    loaded: LoadedConfig
    added: tuple[Added, ...]
    deleted: tuple[UUID, ...]
    filter_ids: dict[UUID, int]

    def deploy(
        self,
        complete: Callable[[LoadedConfig], LoadedConfig],
        callouts: Sequence[CalloutText],
        clock: Callable[[], float],
    ) -> Deployment:
        """The same policy in this process.

        Args:
            complete: adds what the command line says.
            callouts: those of the command line.
            clock: monotonic seconds.

        Raises:
            ConfigError: it cannot be used here.
        """
        return deploy(
            complete(self.loaded),
            callouts,
            clock,
            added=self.added,
            deleted=self.deleted,
            filter_ids=self.filter_ids,
        )


def policy_text(deployment: Deployment) -> str:
    """The policy that a deployment has in force."""
    added, deleted = deployment.by_hand
    loaded = deployment.loaded
    # Not msgspec's: TOML has numbers that are infinite, or larger than 64 bits.
    return json.dumps(
        {
            "text": loaded.text,
            "source": loaded.source,
            "added": [_as_data(one) for one in added],
            "deleted": sorted(map(str, deleted)),
            "filter_ids": filter_ids_text(deployment),
        }
    )


def filter_ids_text(deployment: Deployment) -> dict[str, int]:
    """The ids of the filters in force, as JSON has them."""
    return {str(key): number for key, number in deployment.filter_ids.items()}


def read_policy_text(text: str) -> PolicyText:
    """Read what `policy_text` made.

    Raises:
        ConfigError: the text of the file cannot be used.
    """
    raw = json.loads(text)
    return PolicyText(
        parse_config(raw["text"], raw["source"]),
        tuple(_as_added(one) for one in raw["added"]),
        tuple(map(UUID, raw["deleted"])),
        read_filter_ids(raw["filter_ids"]),
    )


def read_filter_ids(raw: dict[str, int]) -> dict[UUID, int]:
    """What `filter_ids_text` made."""
    return {UUID(key): number for key, number in raw.items()}


def _as_data(added: Added) -> dict[str, Any]:
    return {
        "kind": added.kind,
        "ident": added.ident,
        "table": msgspec.to_builtins(added.table),
        "folder": str(added.folder),
        "gone": sorted(map(str, added.gone)),
    }


def _as_added(raw: dict[str, Any]) -> Added:
    return Added(
        raw["kind"],
        raw["ident"],
        msgspec.convert(raw["table"], _TABLES[raw["kind"]]),
        Path(raw["folder"]),
        frozenset(map(UUID, raw["gone"])),
    )
