"""Faults of commands with several processes: what ``faults.py`` cannot try in one.

``python tests/faults_parallel.py FOLDER`` kills the command alone, and its workers, at each step,
and starts the same command again at once. It prints a table; the bytes must be those of a clean
run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import tiny_bids as tiny
from faults import FLAGS, Outcome, contents


class Laboratory:
    """Runs the command with two workers, in a folder of its own."""

    def __init__(self, folder: Path, flags: list[str]):
        self.folder = folder
        tiny.make_dataset(folder / "data" / "bids")
        regions = tiny.make_regions(folder / "data" / "regions")
        self.argv = [sys.executable, "-m", "bids_app.run", str(folder / "data" / "bids"), "out"]
        self.argv += ["participant", "-w", "work", "-d", f"mine={regions}", "--nprocs", "2", *flags]
        code, lines = self.run(folder / "clean")
        if code:
            raise SystemExit("\n".join(lines))
        self.expected = contents(folder / "clean" / "out")
        told = [line.partition("sub-01: ")[2] for line in lines if line.startswith("[")]
        self.steps = [step for step in told if step != "completed"]

    def start(self, place: Path) -> subprocess.Popen:
        """Start the command in a folder; its output goes to a file there."""
        place.mkdir(exist_ok=True)
        with open(place / "log.txt", "w") as log:
            return subprocess.Popen(self.argv, cwd=place, stdout=log, stderr=log)

    def run(self, place: Path) -> tuple[int, list[str]]:
        """Exit code and lines of the command."""
        code = self.start(place).wait()
        return code, (place / "log.txt").read_text().splitlines()

    def compare(self, place: Path, fault: str, first: str) -> Outcome:
        """Run again, and compare with the clean run."""
        again, _ = self.run(place)
        found = contents(place / "out")
        names = sorted(found.keys() | self.expected.keys())
        differ = [n for n in names if found.get(n) != self.expected.get(n) and "crash-" not in n]
        return Outcome(fault, first, again, [f"differs: {n}" for n in differ])

    def fresh(self) -> Path:
        """An empty folder."""
        place = self.folder / "attempt"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        return place

    def at_step(self, step: str, act: Callable[[subprocess.Popen], None]) -> tuple[Path, int]:
        """Do something when a step is told; return the folder and the exit code."""
        place = self.fresh()
        process = self.start(place)
        while process.poll() is None:
            if f"sub-01: {step}\n" in (place / "log.txt").read_text():
                act(process)
                break
            time.sleep(0.01)
        return place, process.wait()


def kill(process: subprocess.Popen) -> None:
    """Kill the command alone; its workers have to notice."""
    process.kill()


def kill_worker(process: subprocess.Popen) -> None:
    """Kill the worker that is busy, as the kernel does when memory ends."""
    family = psutil.Process(process.pid).children(recursive=True)
    # Workers are the leaves: the server of forks stands between them and the command.
    workers = [p for p in family if p.ppid() != process.pid]
    if workers:
        busiest = max(workers, key=lambda p: sum(p.cpu_times()[:2]))
        os.kill(busiest.pid, signal.SIGKILL)


def deaths(lab: Laboratory) -> Iterator[Outcome]:
    """The command, and then its workers, die at each step."""
    for step in lab.steps:
        place, code = lab.at_step(step, kill)
        yield lab.compare(place, f"command killed in {step}", f"signal {-code}")
    for step in lab.steps:
        place, code = lab.at_step(step, kill_worker)
        last = (place / "log.txt").read_text().strip().splitlines()[-1]
        yield lab.compare(place, f"worker killed in {step}", last)


def main() -> int:
    """Try all, print a table, and tell whether one did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("flags", nargs="*", help="of qsmref, after --; default: a quick chain")
    given = parser.parse_args()
    lab = Laboratory(given.folder.absolute(), given.flags or FLAGS)
    harm = done = 0
    for outcome in deaths(lab):
        done += 1
        bad = bool(outcome.problems) or outcome.again != 0
        harm += bad
        words = "; ".join(outcome.problems) or "same bytes"
        print(f"{outcome.fault} | {outcome.first} | {outcome.again} | {words}", flush=True)
    print(f"{done} faults, {harm} did harm")
    return int(harm > 0)


if __name__ == "__main__":
    sys.exit(main())
