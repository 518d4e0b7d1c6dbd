"""Reading the configuration again while `run` goes on: on SIGHUP, on `ctl reload`, and with `--watch`.

Owns the order (new listeners open, policy changes in one transaction, old listeners close), what is said of it, and
that a failure at any step leaves everything as it was.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import trio

from wfpstream.cli._base import note
from wfpstream.cli._plan import RunPlan, stamp_of
from wfpstream.cli._preparing import prepare_aside
from wfpstream.cli._served import Following, Open, Served, nobody_follows
from wfpstream.config import (
    Config,
    ConfigError,
    Deployment,
    Difference,
    LoadedConfig,
    Problem,
    listener_settings,
    load_config,
)
from wfpstream.observe import safe_text
from wfpstream.transport import ListenerSpec

# How often `--watch` looks, seconds. A file is read when it has not changed between two looks: editors and
# deployment tools take their time between the first byte and the last.
LOOK_EVERY = 0.25


def listener_specs(config: Config) -> list[ListenerSpec]:
    """What the transport is to open for a configuration."""
    return [
        ListenerSpec(**listener_settings(listener, config.proxy.local)) for listener in config.proxy.listener
    ]


class Reloader:
    """Puts what the configuration file says now in the place of what it said before.

    Args:
        plan: what `run` was asked for.
        deployment, proxy: what is changed.
        opened: told the new listeners, when they are in force.
        intercepted: the listener that rules of the kernel lead to; it has to stay where it is.
        following: who else has to follow.
    """

    def __init__(
        self,
        plan: RunPlan,
        deployment: Deployment,
        proxy: Served,
        opened: Callable[[Sequence[Open]], None],
        intercepted: Open | None,
        following: Following = nobody_follows,
    ) -> None:
        self._plan = plan
        self._deployment = deployment
        self._proxy = proxy
        self._opened = opened
        self._intercepted = intercepted
        self._following = following
        self._one_at_a_time = trio.Lock()

    async def reload(self) -> Difference:
        """Read the file and put it in force; who asks here hears of failures by exceptions.

        Raises:
            ConfigError: it cannot be used, or cannot change while running; all of it is named, nothing has changed.
            OSError: an address cannot be listened on; nothing has changed.
        """
        async with self._one_at_a_time:
            loaded = await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
            pending = await prepare_aside(self._deployment, loaded, self._plan.callouts)
            specs = listener_specs(loaded.config)
            try:
                rearrangement = await self._proxy.prepare(specs)
            except RuntimeError as error:
                raise ConfigError(str(error), loaded.source) from error
            try:
                self._check_intercepted(loaded, rearrangement.listeners, specs)
                async with self._following(loaded, rearrangement.listeners) as switch:
                    if not pending.is_current:
                        # By hand, while listeners opened and others made ready: seldom, so the flows may wait.
                        pending = self._deployment.prepare(loaded, self._plan.callouts)
                    difference = pending.commit()
                    rearrangement.commit()
                    who = await switch(difference)
            except BaseException:
                rearrangement.abandon()
                raise
            self._tell(difference, who)
            self._opened(rearrangement.opened)
            return difference

    async def try_reload(self, why: str) -> None:
        """As `reload`, for those who cannot be answered: a failure is lines on stderr, and the run goes on."""
        if self._plan.config_file is None:
            note(f"{why}: there is no configuration file to read again (-c FILE)")
            return
        try:
            await self.reload()
        except ConfigError as error:
            self._complain(error.lines())
        except OSError as error:
            self._complain([(error.strerror or str(error)).lower()])
        except Exception as error:  # a defect, of ours or of a callout: the flows are not to pay for it
            self._complain([f"{type(error).__name__}: {error}"])

    def _complain(self, lines: Sequence[str]) -> None:
        for line in lines:
            note(f"error: {safe_text(line)}")
        note("not reloaded: what was in force stays in force")

    def _read(self) -> LoadedConfig:
        if self._plan.config_file is None:
            raise ConfigError("there is no configuration file to read again (-c FILE)")
        loaded = self._plan.complete(load_config(self._plan.config_file, again=True))
        if not loaded.config.proxy.listener:
            raise loaded.error([Problem(("proxy",), "no [[proxy.listener]] is left to listen on")])
        return loaded

    def _check_intercepted(
        self, loaded: LoadedConfig, listeners: Sequence[Open], specs: Sequence[ListenerSpec]
    ) -> None:
        kept = self._intercepted
        if kept is None:
            return
        spec = next((spec for one, spec in zip(listeners, specs, strict=True) if one is kept), None)
        if spec is None or spec.mode != kept.mode:
            text = f"connections are led to listener {kept.name or kept.port}: its mode and address cannot change"
            raise loaded.error([Problem(("proxy", "listener"), f"{text} while running; restart")])

    def _tell(self, difference: Difference, who: str) -> None:
        self._deployment.engine.tell("reload", changes=difference.as_data())
        if self._plan.verbosity >= 0:
            for line in difference.lines():
                note(safe_text(line))
            note(f"reloaded{who}" if difference else f"reloaded{who}: nothing has changed")

    async def watch(self, reload: Callable[[str], Awaitable[None]]) -> None:
        """A task: read the file again whenever it has changed and stays as it is for a moment."""
        path = self._plan.config_file
        if path is None:
            return
        # Who changed it while we were starting is heard as well.
        before = stamp_of(path)
        in_force = self._plan.read_at or before
        while True:
            await trio.sleep(LOOK_EVERY)
            now = stamp_of(path)
            if now is not None and now == before and now != in_force:
                in_force = now
                await reload(f"{path} has changed")
            before = now
