"""Replay against the tools people use to put captured streams in order, on the same captures in one run.

Owns the commands and the table. Every tool is a process of its own, its CPU time (user and system) is what the system
charged for it, start-up included. scapy is given the first packets only, and charged per packet without its start-up:
the rest would take minutes.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks import captures

BULK_SEGMENTS = 240_000
SMALL_PACKETS = 420_000
SCAPY_PACKETS = 6_000
STREAMS = 8
MIB = 1024 * 1024
PIPED_MIB: tuple[int, ...] = (64, 256, 1024)

_SCAPY = f"""
import sys, time
from scapy.all import sniff
from scapy.sessions import TCPSession
began = time.process_time(), time.perf_counter()
sniff(offline=sys.argv[1], session=TCPSession, store=False, count={SCAPY_PACKETS})
print(time.process_time() - began[0], time.perf_counter() - began[1])
"""
_REPLAY = [sys.executable, "-m", "wfpstream", "replay", "--callout", "monitor,summary=false", "--json"]


def commands(capture: str, folder: str, packets: int) -> dict[str, tuple[list[str], int]]:
    """Name -> (command, packets it reads), of the tools that are there."""
    follow = [word for number in range(STREAMS) for word in ("-z", f"follow,tcp,raw,{number}")]
    return {
        "wfpstream, monitor": ([*_REPLAY, capture], packets),
        "wfpstream, --verify off": ([*_REPLAY, "--verify", "off", capture], packets),
        "scapy TCPSession": ([sys.executable, "-c", _SCAPY, capture], SCAPY_PACKETS),
        "tshark follow": (["tshark", "-n", "-r", capture, "-q", *follow], packets),
        "tcpflow": (["tcpflow", "-r", capture, "-o", folder], packets),
    }


def run(command: list[str], stdin: int | None = None) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and peak memory (KiB) of one command; scapy's says itself what it took."""
    if _SCAPY in command:
        cpu, wall = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        return float(cpu), float(wall), 0
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=True
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed with {process.returncode}: {' '.join(command)}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss


def measure(rounds: int) -> dict[str, Any]:
    """Packets per second by tool and capture, medians of interleaved rounds, and memory by size of the capture."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = {
            f"bulk: {captures.FULL}-byte segments": captures.bulk(BULK_SEGMENTS, STREAMS),
            f"small: {captures.SMALL}-byte messages, ACKs": captures.exchange(SMALL_PACKETS, STREAMS),
            f"small: {captures.SMALL}-byte messages only": captures.exchange(
                SMALL_PACKETS, STREAMS, acks=False
            ),
        }
        for number, (kind, frames) in enumerate(kinds.items()):
            path = Path(folder) / f"{number}.pcap"
            with path.open("wb") as file:
                packets = captures.write(file, frames)
            figures[kind] = _compare(kind, str(path), packets, rounds)
            path.unlink()
    figures["memory"] = _memory()
    return figures


def _compare(kind: str, capture: str, packets: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(capture, folder, packets)
        missing = [name for name, (command, _) in todo.items() if shutil.which(command[0]) is None]
        samples: dict[str, list[tuple[float, float, int]]] = {n: [] for n in todo if n not in missing}
        for _ in range(rounds):
            for name, taken in samples.items():
                taken.append(run(todo[name][0]))
    print(f"{kind}: {packets} packets" + (f" (not here: {', '.join(missing)})" if missing else ""))
    print(f"  {'':26}{'CPU us/packet':>15}{'packets/CPU s':>15}{'packets/s':>12}{'MiB':>7}{'x ours':>9}")
    rows: dict[str, Any] = {}
    for name, taken in samples.items():
        count = todo[name][1]
        cpu, wall = (statistics.median(sample[at] for sample in taken) for at in (0, 1))
        peak = max(sample[2] for sample in taken) // 1024
        rows[name] = {"cpu_us": cpu / count * 1e6, "per_cpu_second": count / cpu, "per_second": count / wall}
        ratio = rows[name]["cpu_us"] / rows["wfpstream, monitor"]["cpu_us"]
        print(
            f"  {name:26}{cpu / count * 1e6:15.2f}{count / cpu:15.0f}{count / wall:12.0f}{peak:7}{ratio:9.2f}"
        )
        rows[name] |= {"peak_mib": peak, "times_ours": ratio}
    return rows


def _memory() -> dict[str, Any]:
    """Peak memory while a capture of so many MiB comes in by a pipe."""
    print("peak memory, capture of full segments by a pipe")
    peaks = {}
    for size in PIPED_MIB:
        reading, writing = os.pipe()
        segments = size * MIB // (captures.FULL + 54 + 16)
        feeder = threading.Thread(target=_feed, args=(writing, segments))
        feeder.start()
        try:
            peaks[f"{size} MiB"] = run([*_REPLAY, "-"], reading)[2] // 1024
        finally:
            os.close(reading)
            feeder.join()
        print(f"  {size:5} MiB {peaks[f'{size} MiB']:8} MiB")
    return peaks


def _feed(descriptor: int, segments: int) -> None:
    with os.fdopen(descriptor, "wb", buffering=MIB) as file:
        _write(file, segments)


def _write(file: BinaryIO, segments: int) -> None:
    try:
        captures.write(file, captures.bulk(segments, STREAMS))
    except BrokenPipeError:
        print("  the reader left early")
