"""What one direction owes its receiver: the runs behind the last stage, and the FIN after them.

Owns the unsent bytes and LED-3's `written`, `unsent` and `discarded_out`. It must not know the driver:
`batch` says what to write next, `sent` is told what was taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ._patchwork import Patchwork
from ._run import EXPEDITED, NO_RUNS, Run

MAX_PIECES = 1000  # fewer than IOV_MAX (1024): all the pieces of an edited item in one sendmsg
MAX_BATCH = 1 << 20
SMALL = 4096  # bytes; larger pieces are not copied once more to lie beside others

# Takes so many bytes off a patchwork, which may be all there are: how many of them had been injected.
PiecesGone = Callable[[Patchwork, int, bool], int]


class Output:
    """The tail end of a pipeline, in bytes.

    Attributes:
        length: bytes owed and not yet taken by the receiver's socket.
        fin_run: the FIN behind them, once it has left the last stage.
        patches: what is owed behind all `runs`, if the item before was decided piece by piece (`_pieces`).
        push: somebody asked that these bytes be not held for coalescing (INJ-7).
    """

    __slots__ = (
        "discarded_i",
        "discarded_o",
        "fin_done",
        "fin_run",
        "fresh",
        "length",
        "patches",
        "push",
        "runs",
        "written_i",
        "written_o",
    )

    def __init__(self) -> None:
        self.runs = NO_RUNS
        self.length = 0
        self.fresh = 0
        self.patches: Patchwork | None = None
        self.fin_run: Run | None = None
        self.fin_done = False
        self.push = False
        self.written_o = self.written_i = 0
        self.discarded_o = self.discarded_i = 0

    @property
    def fin(self) -> bool:
        """The half-close is to be performed as soon as `length` is 0."""
        return self.fin_run is not None and not self.fin_done

    def append(self, run: Run) -> None:
        """Take what left the last stage; an urgent mark covers only the last byte (IND-7)."""
        if run.fin:
            self.fin_run = run
            return
        if run.flags & EXPEDITED and run.length > 1:
            self.put(run.split(run.length - 1))
        self.put(run)

    def put(self, run: Run) -> None:
        """Bytes, all of them urgent or none."""
        if self.patches is not None:
            self._stitch(self.patches)
        elif self.runs is NO_RUNS:
            self.runs = deque()
        self.runs.append(run)
        self.length += run.length
        self.fresh += 1

    def put_first(self, run: Run) -> None:
        """Bytes that are nobody's but ours, before all others."""
        if self.runs is NO_RUNS:
            self.runs = deque()
        self.runs.appendleft(run)
        self.length += run.length

    def piecewise(self) -> Patchwork:
        """Where pieces go that come behind all that is owed; whoever puts them there counts them here and there."""
        if self.patches is None:
            self.patches = Patchwork()
        return self.patches

    def _stitch(self, patches: Patchwork) -> None:
        """They are runs like others from now on."""
        if self.runs is NO_RUNS:
            self.runs = deque()
        self.runs.extend(patches.runs())
        self.fresh += patches.fresh
        self.patches = None

    def rest(self) -> None:
        """Nothing is owed: give the room for it back."""
        if not self.runs:
            self.runs = NO_RUNS

    def batch(self) -> tuple[list[memoryview], bool]:
        """The next bytes to write, in order, and whether they are one urgent byte (to be sent MSG_OOB)."""
        runs, patches = self.runs, self.patches
        if patches is not None and not runs:
            return patches.first(MAX_PIECES), False
        if len(runs) == 1:  # the usual case, and the same answer as below
            run = runs[0]
            return [run.view], bool(run.flags & EXPEDITED)
        views: list[memoryview] = []
        size = 0
        for run in runs:
            if run.flags & EXPEDITED:
                if not views:
                    return [run.view], True
                break
            views.append(run.view)
            size += run.length
            if len(views) >= MAX_PIECES or size >= MAX_BATCH:
                break
        return views, False

    def sent(self, count: int, gone: Callable[[Run, int], None], pieces_gone: PiecesGone) -> None:
        """`count` bytes were accepted by the socket; `gone` and `pieces_gone` hear of the injected ones (CMP-4)."""
        runs = self.runs
        while count > 0:
            if not runs:
                self._sent_pieces(count, pieces_gone)
                return
            run = runs[0]
            taken = run.length if run.length < count else count
            count -= taken
            self.length -= taken
            if run.owner is None:
                self.written_o += taken
            else:
                self.written_i += taken
            if taken == run.length:
                runs.popleft()
            else:
                run.view = run.view[taken:]
                run.length -= taken
                if run.owner is None:
                    run.offset += taken
            if run.owner is not None:
                gone(run, taken)

    def _sent_pieces(self, count: int, pieces_gone: PiecesGone) -> None:
        patches = self.patches
        assert patches is not None
        is_all = count == self.length
        if is_all:
            self.patches = None
        self.length -= count
        injected = pieces_gone(patches, count, is_all)
        self.written_i += injected
        self.written_o += count - injected

    def discard(self) -> int:
        """Give up what is owed (IND-18, DRP-4): `discarded_out`. Returns the number of bytes."""
        given_up = self.length
        if self.patches is not None:
            self._stitch(self.patches)
        for run in self.runs:
            self.count_discarded(run)
        self.runs.clear()
        self.length = 0
        return given_up

    def count_discarded(self, run: Run) -> None:
        """LED-3 `discarded_out`."""
        if run.owner is None:
            self.discarded_o += run.length
        else:
            self.discarded_i += run.length

    def lost(self, count: int) -> None:
        """Bytes that `send` had accepted and a reset destroyed: written becomes `discarded_out` (LED-3)."""
        taken = min(count, self.written_o)
        self.written_o -= taken
        self.discarded_o += taken
        rest = min(count - taken, self.written_i)
        self.written_i -= rest
        self.discarded_i += rest

    def keep(self) -> None:
        """Copy what lies in the driver's buffer: only runs put in since the last time can. Small ones lie together."""
        if self.patches is not None:
            self.patches.keep()
        runs = self.runs
        late = [runs.pop() for _ in range(min(self.fresh, len(runs)))]
        self.fresh = 0
        while late:
            run = late.pop()
            if run.length > SMALL or not runs or not runs[-1].absorb(run):
                run.keep()
                runs.append(run)
        if runs:
            runs[0].trim()
