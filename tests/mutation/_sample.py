"""Choose a random sample of cosmic-ray's changes, and report what became of it. Run by cosmic-ray's own Python.

Annotations are never evaluated in this project, so changing them changes nothing: they are left out.
"""

from __future__ import annotations

import ast
import random
import re
import sys
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

# The last line of a session that came to an end.
_ENDED = re.compile(r"\b\d+ (failed|passed|errors?)\b.* in [\d.]+s")


@cache
def annotation_spans(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where a file's annotations begin and end: (line, column) each."""
    spans = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(part, ast.expr):
                end = (part.end_lineno or part.lineno, part.end_col_offset or part.col_offset)
                spans.append(((part.lineno, part.col_offset), end))
    return spans


def in_annotation(mutation: Any) -> bool:
    """Whether a change lies in an annotation."""
    place = tuple(mutation.start_pos)
    return any(start <= place < end for start, end in annotation_spans(Path(mutation.module_path)))


def choose(database: Any, count: int, seed: int) -> None:
    """Leave `count` changes to be tried, as many from each file as the others."""
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    items = sorted(database.work_items, key=lambda item: item.job_id)
    items.sort(key=lambda item: (str(item.mutations[0].module_path), item.mutations[0].start_pos))
    files: dict[str, list[Any]] = {}
    for item in items:
        if not in_annotation(item.mutations[0]):
            files.setdefault(str(item.mutations[0].module_path), []).append(item)
    dice = random.Random(seed)
    kept = set()
    for name, members in files.items():
        chosen = dice.sample(members, min(len(members), count // len(files)))
        print(f"{name}: {len(chosen)} of {len(members)} changes")
        kept |= {item.job_id for item in chosen}
    skipped = [item.job_id for item in items if item.job_id not in kept]
    database.set_multiple_results(skipped, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def again(database: Any) -> None:
    """What no test noticed yet is tried once more."""
    from cosmic_ray.work_db import WorkResultStorage
    from cosmic_ray.work_item import TestOutcome

    with database._session_maker.begin() as session:
        results = session.query(WorkResultStorage).filter_by(test_outcome=TestOutcome.SURVIVED)
        print(f"{results.delete()} changes go through the wider tests")


def report(database: Any) -> None:
    """Each change that no test noticed, and the score per file."""
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome

    mutations = {item.job_id: item.mutations[0] for item in database.work_items}
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    slow = 0
    open_ones = set(mutations)
    for job, result in database.results:
        open_ones.discard(job)
        if result.worker_outcome == WorkerOutcome.SKIPPED:
            continue
        name = str(mutations[job].module_path)
        tried[name] += 1
        if result.test_outcome != TestOutcome.SURVIVED:
            slow += not _ENDED.search(result.output or "")
        if result.test_outcome == TestOutcome.SURVIVED:
            survived[name] += 1
            print(f"\nsurvived: {mutations[job].operator_name}\n{result.diff}")
    for name, count in sorted(tried.items()):
        print(f"{name}: {count - survived[name]} of {count} noticed")
    total, alive = sum(tried.values()), sum(survived.values())
    hung = f", {slow} of them as the tests did not end" if slow else ""
    print(f"{total - alive} of {total} changes noticed ({100 * (total - alive) / max(total, 1):.0f} %){hung}")
    if open_ones:
        print(f"{len(open_ones)} more were not tried to the end: the time was up")


if __name__ == "__main__":
    from cosmic_ray.work_db import WorkDB, use_db

    with use_db(sys.argv[2], WorkDB.Mode.open) as opened:
        if sys.argv[1] == "choose":
            choose(opened, int(sys.argv[3]), int(sys.argv[4]))
        elif sys.argv[1] == "again":
            again(opened)
        else:
            report(opened)
