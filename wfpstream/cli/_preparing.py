"""Another configuration made ready in a thread: 5,000 filters take half a second, and the flows are served meanwhile.

Owns what happens where, and what to do if the policy changes meanwhile. What is made ready is `config`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio

from wfpstream.config import CalloutText, Deployment, LoadedConfig, Pending

# Somebody who changes the policy by hand without a pause does not keep a reload from ending: then the flows wait.
_TRIES = 3


async def prepare_aside(
    deployment: Deployment, loaded: LoadedConfig, callouts: Sequence[CalloutText]
) -> Pending:
    """As `Deployment.prepare`; callout objects are made on the loop's thread, where they are called.

    Raises:
        ConfigError: as there.
    """
    for _ in range(_TRIES):
        prepare = deployment.preparing(loaded, callouts, trio.from_thread.run_sync)
        pending = await trio.to_thread.run_sync(prepare, abandon_on_cancel=True)
        if pending.is_current:
            return pending
    return deployment.prepare(loaded, callouts)
