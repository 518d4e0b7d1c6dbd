"""`Lists`: a script that also keeps the form of what it was shown."""

from __future__ import annotations

from tests.scenarios.support import Answer, Call, Script


class Lists(Script):
    """A script that also notes, for each indication, the flags and the bytes of every list of its chain."""

    def __init__(self, *answers: Answer, name: str = "A", then: Answer | None = None) -> None:
        super().__init__(*answers, name=name, then=then)
        self.flags_seen: list[int] = []
        self.lists: list[list[bytes]] = []

    def decide(self, call: Call) -> Answer:
        self.flags_seen.append(call.flags)
        nbl = call.packet.stream_data.net_buffer_list_chain
        found: list[bytes] = []
        while nbl is not None:
            found.append(nbl.tobytes())
            nbl = nbl.next
        self.lists.append(found)
        return super().decide(call)
