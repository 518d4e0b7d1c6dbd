"""`python -m benchmarks.reader`: our loop over a capture's records against scapy's raw readers, in one run.

Owns the figures in the docstring of `wfpstream.replay._reader`: CPU time per record, rounds interleaved, medians,
the time to open included on both sides, and what loading scapy costs a process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import captures
from wfpstream.replay import open_capture
from wfpstream.wire import LINK_ETHERNET, pcapng_header, pcapng_record

ROUNDS = 7
SMALL_PACKETS, FULL_SEGMENTS = 200_000, 60_000
_LOADING = "import time; t = time.process_time(); import scapy.utils; print(time.process_time() - t)"


def write_pcapng(source: Path, target: Path) -> None:
    """The same packets in the other format."""
    with target.open("wb") as file, open_capture(source) as reader:
        file.write(pcapng_header(LINK_ETHERNET))
        for time_ns, _, frame in reader:
            file.write(pcapng_record(time_ns, frame))


def rate(reader: Callable[[str], Iterable[object]], path: Path) -> float:
    """Records per second of CPU time."""
    count, began = 0, time.process_time()
    for _ in reader(str(path)):
        count += 1
    return count / (time.process_time() - began)


def main() -> None:
    """Print a line per capture."""
    from scapy.utils import RawPcapNgReader, RawPcapReader

    loading = [
        float(subprocess.run([sys.executable, "-c", _LOADING], capture_output=True, check=True).stdout)
        for _ in range(ROUNDS)
    ]
    print(f"loading scapy.utils: {statistics.median(loading):.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        for name, frames in (
            ("64 bytes", captures.exchange(SMALL_PACKETS)),
            ("full", captures.bulk(FULL_SEGMENTS)),
        ):
            pcap, pcapng = Path(folder) / f"{name}.pcap", Path(folder) / f"{name}.pcapng"
            with pcap.open("wb") as file:
                captures.write(file, frames)
            write_pcapng(pcap, pcapng)
            for path, scapys in ((pcap, RawPcapReader), (pcapng, RawPcapNgReader)):
                rounds = [(rate(open_capture, path), rate(scapys, path)) for _ in range(ROUNDS)]
                ours, theirs = (statistics.median(one) for one in zip(*rounds, strict=True))
                print(
                    f"{path.name:16} ours {ours:9,.0f}/s  scapy {theirs:9,.0f}/s  {ours / theirs:.1f} times"
                )


if __name__ == "__main__":
    main()
