"""Peak memory and processor use of a command with all processes that it starts.

``python tests/peak.py COMMAND ...`` runs it and prints one line. Memory is the proportional set
size: pages that processes share count once.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil


class Peak(NamedTuple):
    """What a command took."""

    code: int
    #: GB, of the whole tree of processes.
    memory: float
    #: Processor seconds by seconds, in the busiest stretch of two seconds.
    cores: float
    seconds: float


def measure(command: list[str], interval: float = 0.1) -> Peak:
    """Run a command and watch it."""
    begin = time.monotonic()
    process = subprocess.Popen(command)
    root = psutil.Process(process.pid)
    memory, cores, used = 0.0, 0.0, []
    while process.poll() is None:
        try:
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        memory = max(memory, sum(map(_pss, tree)))
        used.append((time.monotonic(), sum(map(_cpu, tree))))
        earlier = next((u for u in used if used[-1][0] - u[0] <= 2.0), used[-1])
        if used[-1][0] - earlier[0] > 1.5:
            cores = max(cores, (used[-1][1] - earlier[1]) / (used[-1][0] - earlier[0]))
        time.sleep(interval)
    return Peak(process.wait(), memory / 1e9, cores, time.monotonic() - begin)


def _pss(process: psutil.Process) -> float:
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024.0 * int(line.split()[1])
    except OSError:
        pass
    return 0.0


def _cpu(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system


if __name__ == "__main__":
    found = measure(sys.argv[1:])
    print(
        f"peak {found.memory:.2f} GB, {found.cores:.2f} cores, {found.seconds:.1f} s, "
        f"exit status {found.code}"
    )
    sys.exit(found.code)
