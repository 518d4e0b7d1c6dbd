"""Callout objects: the one a table has already, as long as nothing about it has changed, or a new one.

Owns the loading of their classes, and their names. It must not know what refers to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, count
from pathlib import Path

from wfpstream.callouts import OptionError, UnknownCalloutError, code_digest, create_callout
from wfpstream.config._errors import Problem
from wfpstream.config._matching import Invalid
from wfpstream.config._planned import CalloutSpec, Declared, Plan, PlannedCallout, fingerprint
from wfpstream.fwps import Callout

# Calls what makes an object, where objects are to be made.
MakeObject = Callable[[Callable[[], Callout]], Callout]


def right_here(make: Callable[[], Callout]) -> Callout:
    """Make it where we are."""
    return make()


class CalloutMaker:
    """Makes the callout objects of one plan.

    Args:
        live: what is in force, with its objects.
        names: those that are taken.
        make: calls what makes an object.
    """

    def __init__(self, live: Plan, names: set[str], make: MakeObject = right_here) -> None:
        self._live = live
        self._names = names
        self._make = make
        self._digests: dict[str, str] = {}

    def make(
        self, declared: Declared, use: str, options: Mapping[str, object], folder: Path
    ) -> PlannedCallout:
        """The callout object of a table.

        Raises:
            Invalid: its class cannot be loaded, or refuses the options.
        """
        found = _in_folder(use, folder)
        if found not in self._digests:
            self._digests[found] = code_digest(found)
        try:
            said = fingerprint(options)
        except RecursionError:
            raise Invalid([Problem(declared.path, f"{use}: an option is nested too deeply")]) from None
        spec = CalloutSpec(found, said, self._digests[found], use, dict(options))
        live = self._live.callouts.get(declared.id)
        if live is not None and live.spec == spec:
            return live
        made = self._create(declared, use, found, options)
        name = live.name if live is not None else self._name_for(declared, use)
        self._names.add(name)
        return PlannedCallout(declared.id, name, spec, made, declared.path)

    def _name_for(self, declared: Declared, use: str) -> str:
        """A `[[callout]]` has a name; another one is called what it is, in a way that no other is."""
        if declared.kind == "callout":
            return declared.name
        wish = use.rpartition("/")[2]
        numbered = (f"{wish}#{number}" for number in count(2))
        return next(name for name in chain([wish], numbered) if name not in self._names)

    def _create(self, declared: Declared, use: str, found: str, options: Mapping[str, object]) -> Callout:
        try:
            return self._make(partial(create_callout, found, options))
        except (UnknownCalloutError, OptionError) as error:
            raise Invalid([Problem(declared.path, str(error))]) from error
        except (Exception, SystemExit) as error:  # whatever a class does when an object of it is made
            text = f"{use}: {type(error).__name__}: {error}".rstrip(": ")
            raise Invalid([Problem(declared.path, text)]) from error


def _in_folder(use: str, folder: Path) -> str:
    """A file's name, relative to the folder of the configuration."""
    place, colon, member = use.rpartition(":")
    if colon and ("/" in place or place.endswith(".py")):
        return f"{folder / place}:{member}"
    return use
