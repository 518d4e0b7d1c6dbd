"""Several captures and several processes: the same results, events and frames, in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.replay.kit import Capture, close
from tests.replay.support_jobs import (
    LATENCY,
    THROTTLE,
    DeadlyRecipe,
    FaultyRecipe,
    Heard,
    Recipe,
    crowd,
    replay,
)
from wfpstream.engine import FilterEngine
from wfpstream.replay import (
    DirectionResult,
    StreamResult,
    WorkerProcesses,
    replay_capture,
    replay_captures,
)
from wfpstream.replay._waiting import Waiting


def left_in(folder: Path) -> list[str]:
    """Temporary folders of a replay."""
    return [path.name for path in folder.iterdir() if path.name.startswith("wfpstream-replay-")]


def conversation(port: int, words: bytes) -> Capture:
    """A capture of one connection on which the client says `words`."""
    capture = Capture()
    client, server = capture.opened(port)
    client.send(words)
    server.ack()
    close(client, server)
    return capture


# --- one order ------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32),
    parts=st.integers(2, 5),
    recipe=st.sampled_from([Recipe(), LATENCY, THROTTLE]),
    idle=st.sampled_from([0, 0.02]),
)
def test_a_divided_capture_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, seed: int, parts: int, recipe: Recipe, idle: float
) -> None:
    folder = tmp_path_factory.mktemp("divided")
    path = crowd(seed).write(folder / "crowd.pcap")
    alone = replay([path], recipe, folder=folder, idle=idle)
    with ThreadPoolExecutor(2) as executor:
        divided = replay([path], recipe, folder=folder, jobs=parts, executor=executor, idle=idle)
    assert divided.results == alone.results
    assert [result.stream for result in alone.results] == list(range(len(alone.results)))
    assert divided.events == alone.events
    assert divided.files == alone.files
    assert divided.summaries == alone.summaries
    assert left_in(folder) == []


def test_files_and_parts_in_processes_give_the_same(tmp_path: Path) -> None:
    paths = [crowd(seed, turns=60).write(tmp_path / f"{seed}.pcap") for seed in range(3)]
    alone = replay(paths, LATENCY, folder=tmp_path)
    with_processes = replay(paths, LATENCY, folder=tmp_path, jobs=6)
    assert with_processes == alone
    assert {event["capture"] for event, _ in alone.events} == {str(path) for path in paths}
    assert [event["seq"] for event, _ in alone.events] == list(range(1, len(alone.events) + 1))
    assert left_in(tmp_path) == []


def test_it_is_what_replay_capture_says(tmp_path: Path) -> None:
    path = crowd(7).write(tmp_path / "crowd.pcap")
    heard = replay([path], LATENCY, folder=tmp_path)
    events: list[object] = []
    alone = replay_capture(path, engine=LATENCY, events=events.append, output=tmp_path / "alone.pcapng")
    assert heard.results == alone.streams
    assert len(heard.events) == len(events)
    assert heard.files[0] == (tmp_path / "alone.pcapng").read_bytes()


def test_callouts_that_look_at_all_streams_keep_them_together(tmp_path: Path) -> None:
    path = crowd(3).write(tmp_path / "crowd.pcap")
    third = Recipe((("fault", {"do": "rst", "after": 1, "nth": 3}),))
    heard: list[list[StreamResult]] = [[], []]
    for results, jobs in zip(heard, (1, 3), strict=True):
        replay_captures(
            [path, path], third, jobs=jobs, take_result=results.append, divisible=False, min_sharded=1
        )
    assert heard[0] == heard[1]
    assert [result.ended for result in heard[0]].count("abort") == 2


@pytest.mark.parametrize(
    ("name", "settings", "independent"),
    [
        ("monitor", {}, True),
        ("latency", {"delay": 1}, True),
        ("latency", {"delay": 1, "jitter": 0.5}, False),
        ("fault", {"do": "rst", "after": 1}, True),
        ("fault", {"do": "rst", "after": 1, "nth": 3}, False),
        ("fault", {"do": "rst", "after": 1, "every": 3}, False),
        ("fault", {"do": "rst", "after": 1, "probability": 0.5}, False),
        ("fault", {"do": "corrupt", "after": 1}, False),
    ],
)
def test_callouts_say_whether_flows_depend_on_each_other(
    name: str, settings: dict[str, object], independent: bool
) -> None:
    recipe = Recipe((("monitor", {}), (name, settings)))
    assert recipe(lambda: 0.0).flows_are_independent is independent


# --- as early as the order allows -----------------------------------------------------------------


def result_of(number: int) -> StreamResult:
    nothing = DirectionResult()
    ends = ("10.0.0.1", 1), ("10.0.0.2", 2)
    return StreamResult("x", number, *ends, False, "fin", nothing, nothing, number + 1, 0.0, 0.0)


@given(st.permutations(range(30)), st.integers(0, 5))
def test_results_come_as_soon_as_it_is_their_turn(order: list[int], in_memory: int) -> None:
    taken: list[StreamResult] = []
    waiting = Waiting(taken.append, follows=True, in_memory=in_memory)
    for done, number in enumerate(order, start=1):
        waiting.add(result_of(number))
        so_far = set(order[:done])
        turn = next(n for n in range(31) if n not in so_far)
        assert taken == [result_of(n) for n in range(turn)]
    waiting.finish()
    assert len(taken) == 30


@given(st.sets(st.integers(0, 1000)), st.integers(0, 5), st.randoms())
def test_numbers_with_holes_wait_for_the_end(numbers: set[int], in_memory: int, rng: object) -> None:
    taken: list[int] = []
    waiting = Waiting(lambda result: taken.append(result.stream), follows=False, in_memory=in_memory)
    for number in numbers:
        waiting.add(result_of(number))
    assert taken == []
    waiting.finish()
    assert taken == sorted(numbers)


def test_a_stream_that_is_over_is_told_while_others_go_on(tmp_path: Path) -> None:
    capture = conversation(40_000, b"short")
    client, _ = capture.opened(40_001)
    for _ in range(20_000):
        client.send(b"long")
    path = capture.write(tmp_path / "x.pcap")
    told: list[tuple[str, int]] = []
    replay_captures(
        [path],
        Recipe(),
        take_result=lambda result: told.append(("result", result.stream)),
        progress=lambda position: told.append(("progress", position)),
    )
    kinds = [kind for kind, _ in told]
    # The first stream's port could be used again; until then it may have late segments.
    assert kinds.index("progress") < kinds.index("result")
    assert told[-1] == ("result", 1)


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_cannot_be_read_is_named_and_the_rest_replayed(tmp_path: Path, jobs: int) -> None:
    good = conversation(40_000, b"hello").write(tmp_path / "good.pcap")
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(good.read_bytes()[:-1])
    wrong = tmp_path / "wrong.pcap"
    wrong.write_bytes(b"this is no capture at all")
    heard = replay([wrong, good, tmp_path / "missing.pcap", cut], folder=tmp_path, jobs=jobs)
    assert [summary.unreadable for summary in heard.summaries] == [True, False, True, False]
    assert [len(summary.problems) for summary in heard.summaries] == [1, 0, 1, 1]
    assert heard.problems[0].startswith(f"{wrong}: ")
    assert heard.problems[2].startswith(f"{cut}: packet 8: ")
    assert [result.capture for result in heard.results] == [str(good), str(cut)]
    assert sorted(heard.files) == [1, 3]


def test_a_worker_that_dies_is_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    words = [b"live", b"die", b"love", b"dive"]
    paths = [
        conversation(40_000 + index, word).write(tmp_path / f"{index}.pcap")
        for index, word in enumerate(words)
    ]
    heard = replay(paths, DeadlyRecipe(), folder=tmp_path, jobs=2)
    assert heard.problems == [f"{paths[1]}: its worker process was killed by SIGKILL"]
    assert [summary.failed for summary in heard.summaries] == [False, True, False, False]
    assert [result.capture for result in heard.results] == [str(paths[index]) for index in (0, 2, 3)]
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_fault_of_the_replay_is_one_line(tmp_path: Path, jobs: int) -> None:
    paths = [conversation(40_000, b"x").write(tmp_path / f"{index}.pcap") for index in range(2)]
    heard = replay(paths, FaultyRecipe(), folder=tmp_path, jobs=jobs)
    assert heard.problems == [f"{path}: packet 1: RuntimeError: no engine" for path in paths]
    assert all(summary.failed for summary in heard.summaries)


def test_what_cannot_be_pickled_is_one_line(tmp_path: Path) -> None:
    paths = [conversation(40_000, b"x").write(tmp_path / f"{index}.pcap") for index in range(2)]
    recipe = Recipe()

    def local(clock: Callable[[], float]) -> FilterEngine:
        return recipe(clock)

    heard = replay(paths, local, folder=tmp_path, jobs=2)
    assert len(heard.problems) == 2
    assert all("pickle" in problem for problem in heard.problems)


@pytest.mark.parametrize("jobs", [1, 2])
def test_who_takes_results_may_stop_it_all(tmp_path: Path, jobs: int) -> None:
    def stop(result: StreamResult) -> None:
        raise KeyboardInterrupt

    paths = [conversation(40_000, b"x").write(tmp_path / f"{index}.pcap") for index in range(3)]
    with pytest.raises(KeyboardInterrupt):
        replay_captures(paths, Recipe(), take_result=stop, jobs=jobs, spool=tmp_path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_output_that_cannot_be_written_is_that_captures_fault(tmp_path: Path, jobs: int) -> None:
    paths = [crowd(index).write(tmp_path / f"{index}.pcap") for index in range(2)]
    results: list[StreamResult] = []

    class Full:
        def __enter__(self) -> object:
            raise OSError(28, "No space left on device")

        def __exit__(self, *args: object) -> None:
            raise AssertionError("was never entered")

    summaries = replay_captures(
        paths,
        Recipe(),
        take_result=results.append,
        jobs=jobs,
        open_output=lambda index: Full(),  # type: ignore[arg-type, return-value]
    )
    assert [summary.problems for summary in summaries] == [
        [f"{path}: its output cannot be written: no space left on device"] for path in paths
    ]
    assert {result.capture for result in results} == {str(path) for path in paths}


def test_progress_reaches_the_size_of_the_captures(tmp_path: Path) -> None:
    capture = Capture()
    client, _ = capture.opened()
    for _ in range(10_000):
        client.send(b"x" * 100)
    path = capture.write(tmp_path / "x.pcap")
    size = path.stat().st_size
    seen: list[int] = []
    replay_captures([path, path], Recipe(), take_result=lambda result: None, progress=seen.append)
    assert seen == sorted(seen)
    assert size < seen[-1] <= 2 * size


# --- the executor ---------------------------------------------------------------------------------


def test_worker_processes_are_an_executor() -> None:
    with WorkerProcesses(2) as executor:
        assert list(executor.map(abs, [-1, 2, -3])) == [1, 2, 3]
        assert executor.submit(os.getpid).result() != os.getpid()
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result()


def test_heard_knows_a_difference(tmp_path: Path) -> None:
    """What the tests above compare is compared."""
    path = crowd(1).write(tmp_path / "x.pcap")
    one, other = (replay([path], recipe, folder=tmp_path) for recipe in (Recipe(), LATENCY))
    assert one.events != other.events
    assert one.files != other.files
    assert one.results != other.results
    assert one != replace(one, summaries=[])
    assert isinstance(one, Heard)
