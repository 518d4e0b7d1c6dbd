"""Classify handles and the writable layer data they give out (LAY-22..LAY-25, V-60).

Owns which handle exists, who must release it, and each copy of layer data until it is applied or discarded. It
must not know what an applied change does: `_redirect` does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ._arbitration import Arbitration
from ._constants import CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS, RIGHT_ACTION_WRITE
from ._records import ClassifyOut, ConnectRequest
from ._redirect import Redirection
from ._stream_state import PLAIN_BLOCK

if TYPE_CHECKING:
    from ._callout import CalloutEntry
    from ._core import Core
    from ._filter import Filter2

_REAUTHORIZE = int(CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS)
_WRITE = int(RIGHT_ACTION_WRITE)


class ClassifyHandle:
    """One acquired classify handle.

    Attributes:
        rights: the callout's entry rights when it was acquired (LAY-26).
        released: the callout gave it back.
        pended: FwpsPendClassify0 holds a reference (LAY-23).
        was_pended: it did at some time.
        over: the connection ended before the completion; what comes late is no fault.
        data: copies of the layer data that are neither applied nor discarded, and the version each is of.
        redirection: what the data belongs to; None at layers without writable data.
    """

    __slots__ = (
        "arbitration",
        "data",
        "entry",
        "filter",
        "over",
        "pended",
        "redirection",
        "released",
        "rights",
        "value",
        "was_pended",
    )

    def __init__(self, value: int, arbitration: Arbitration, current: tuple[Filter2, CalloutEntry]) -> None:
        self.value = value
        self.arbitration = arbitration
        self.filter, self.entry = current
        self.rights = arbitration.rights
        self.released = False
        self.pended = False
        self.was_pended = False
        self.over = False
        self.data: list[tuple[ConnectRequest, ConnectRequest]] = []
        self.redirection: Redirection | None = None

    def tell(self, rule: str, text: str, *, judged: bool = False) -> None:
        """A violation of the callout that holds it; not `judged`: in a call that is being made."""
        self.arbitration.tell(rule, text, self.filter, self.entry, judged=judged)

    @property
    def usable(self) -> bool:
        """Inside the classify that acquired it, or while it pends that one (LAY-23)."""
        return self.pended or self.arbitration.current == (self.filter, self.entry)


class ClassifyHandles:
    """The classify handles of one engine."""

    def __init__(self, core: Core, next_handle: Callable[[], int], knows: Callable[[int], bool]) -> None:
        self._core = core
        self._next_handle = next_handle
        self._knows_redirect_handle = knows
        self._handles: dict[int, ClassifyHandle] = {}
        self._of: dict[Arbitration, list[ClassifyHandle]] = {}

    def acquire(self, arbitration: Arbitration, redirection: Redirection | None) -> int:
        """A new handle for the callout that is being asked."""
        assert arbitration.current is not None
        handle = ClassifyHandle(self._next_handle(), arbitration, arbitration.current)
        handle.redirection = redirection
        self._handles[handle.value] = handle
        self._of.setdefault(arbitration, []).append(handle)
        return handle.value

    def find(self, value: int) -> ClassifyHandle | None:
        """The handle behind a number, if it is still held by somebody."""
        return self._handles.get(value)

    def release(self, value: int) -> None:
        """FwpsReleaseClassifyHandle0: exactly once for each acquire."""
        handle = self._handles.get(value)
        if handle is None or handle.released:
            self._core.violation("V-60", "classify handle released that is not held")
            return
        handle.released = True
        self._let_go(handle)

    def pend(self, handle: ClassifyHandle) -> None:
        """FwpsPendClassify0 takes a reference."""
        handle.pended = handle.was_pended = True

    def unpend(self, handle: ClassifyHandle, over: bool = False) -> None:
        """The completion drops it, or the end of the connection (`over`), for which the callout cannot help."""
        handle.pended = False
        handle.over = over
        self._discard(handle)
        self._let_go(handle)

    def _let_go(self, handle: ClassifyHandle) -> None:
        if handle.released and not handle.pended:
            self._discard(handle)
            del self._handles[handle.value]

    # -- writable data -----------------------------------------------------------------------------------

    def acquire_data(self, handle: ClassifyHandle, out: ClassifyOut) -> ConnectRequest:
        """LAY-24: a private copy; the answer is BLOCK without the write right until the callout sets its own."""
        assert handle.redirection is not None
        version = handle.redirection.current
        copy = version.copy_for(handle.filter.filter_id)
        handle.data.append((copy, version))
        out.action_type = PLAIN_BLOCK
        out.rights &= ~_WRITE
        return copy

    def apply(self, handle: ClassifyHandle, data: ConnectRequest, flags: int) -> None:
        """LAY-25, LAY-26: the copy becomes the current version."""
        if handle.over:
            return
        version = next((version for copy, version in handle.data if copy is data), None)
        redirection = handle.redirection
        if version is None or redirection is None or not handle.usable:
            handle.tell("V-60", "layer data applied that this handle has not acquired, or not any more")
            handle.data.clear()
            return
        handle.data = [pair for pair in handle.data if pair[0] is not data]
        if not handle.rights:
            handle.tell("V-60", "layer data applied without the write right")
            return
        self._restore(handle, data, version)
        if flags & _REAUTHORIZE:
            if handle.pended:
                redirection.watch(handle.filter)
            else:
                handle.tell("V-64", "REAUTHORIZE_IF_MODIFIED_BY_OTHERS in a classify that is not pended")
        told = redirection.apply(data, handle.filter, handle.entry.name, self._knows_redirect_handle)
        for filter in told:
            handle.arbitration.ask_again(filter)

    def _restore(self, handle: ClassifyHandle, data: ConnectRequest, version: ConnectRequest) -> None:
        """LAY-24: what may not be changed is as before."""
        own = version.local_address_and_port, version, handle.filter.filter_id
        if (data.local_address_and_port, data.previous_version, data.modifier_filter_id) != own:
            handle.tell("V-60", "a member of the layer data changed that is not writable")
            data.local_address_and_port, data.previous_version, data.modifier_filter_id = own

    def _discard(self, handle: ClassifyHandle) -> None:
        if handle.data:
            handle.data.clear()
            if not handle.over:
                handle.tell("V-60", "writable layer data acquired and not applied", judged=True)

    # -- ends --------------------------------------------------------------------------------------------

    def after_classify(self, arbitration: Arbitration, filter: Filter2) -> None:
        """LAY-25: what a classify that is not pended did not apply is discarded with its end."""
        for handle in self._of.get(arbitration, ()):
            if handle.filter is filter and not handle.pended:
                self._discard(handle)

    def after_layer(self, arbitration: Arbitration) -> None:
        """V-60: handles of a layer that is decided. A worker may release its own a little later.

        Where the connection ended first, the worker does not know: its time begins with its completion.
        """
        for handle in self._of.pop(arbitration, ()):
            if handle.was_pended:
                if not handle.over:
                    self._expect_release(handle)
            else:
                self._leaked(handle)

    def completed_late(self, value: int) -> None:
        """The worker of a connection that had ended is done as well."""
        handle = self._handles.get(value)
        if handle is not None:
            self._expect_release(handle)

    def _expect_release(self, handle: ClassifyHandle) -> None:
        core = self._core
        core.at(core.clock() + core.options.verify.grace, partial(self._leaked, handle))

    def stop(self) -> None:
        """The engine stops: what is held now was never released, unless its connection has ended just now."""
        for handle in list(self._handles.values()):
            if not handle.over:
                self._leaked(handle)

    def _leaked(self, handle: ClassifyHandle) -> None:
        if self._handles.pop(handle.value, None) is not None:
            handle.tell("V-60", f"{handle.entry.name} did not release a classify handle", judged=True)
