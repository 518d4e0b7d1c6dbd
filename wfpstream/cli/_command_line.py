"""What the command line of `run` adds to a configuration: kept as it was written, for every time one is read.

Owns how the two are joined. Workers get it from their parent, in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from wfpstream.config import CalloutText, LoadedConfig


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What was written.

    Args:
        modes: of `--mode`, in order.
        callouts: of `--callout`, in order.
        local, level: of `--local` and `--verify`, None where not said.
    """

    modes: tuple[str, ...] = ()
    callouts: tuple[str, ...] = ()
    local: Literal["client", "server"] | None = None
    level: Literal["off", "warn", "strict"] | None = None

    def complete(self, loaded: LoadedConfig) -> LoadedConfig:
        """The configuration with what is added to it (listeners) or said better (the rest).

        Raises:
            ConfigError: a mode cannot be read.
        """
        import msgspec

        from wfpstream.config import parse_mode

        config = loaded.config
        listeners = [parse_mode(mode) for mode in self.modes]
        proxy = msgspec.structs.replace(config.proxy, listener=[*config.proxy.listener, *listeners])
        if self.local is not None:
            # Said for the whole run, so it also beats what a listener of the file says for itself.
            own = [msgspec.structs.replace(listener, local=None) for listener in proxy.listener]
            proxy = msgspec.structs.replace(proxy, local=self.local, listener=own)
        verify = config.verify
        if self.level is not None:
            verify = msgspec.structs.replace(verify, level=self.level)
        return replace(loaded, config=msgspec.structs.replace(config, proxy=proxy, verify=verify))

    def read_callouts(self, loaded: LoadedConfig) -> tuple[CalloutText, ...]:
        """The callouts, with the listeners there are in `loaded`, which is complete.

        Raises:
            ConfigError: one cannot be read.
        """
        from wfpstream.config import parse_callout

        names = [listener.name for listener in loaded.config.proxy.listener if listener.name]
        return tuple(parse_callout(text, names) for text in self.callouts)

    def as_data(self) -> dict[str, Any]:
        """Plain data, for `from_data` in another process."""
        return {
            "modes": self.modes,
            "callouts": self.callouts,
            "local": self.local,
            "level": self.level,
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> CommandLine:
        """What `as_data` made."""
        return cls(tuple(data["modes"]), tuple(data["callouts"]), data["local"], data["level"])
