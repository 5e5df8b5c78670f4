"""A command is killed, starved and lied to; the next one must end with the bytes of a clean run.

``python tests/faults.py FOLDER`` tries every file operation of a small run as a place to die, every
file of its work folder as one to be damaged, full disks and little memory, and prints a table.
``--quick`` tries some of each. It is a program of its own, since it forks: a process that has
started threads must not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import tiny_bids as tiny

#: Events by which Python tells that it changes the file system.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
#: What is not the same after two runs, and need not be: digests with the times of files.
VOLATILE = (".report", ".lock")
#: When a page was written, as it says itself.
DATE = re.compile(rb"Written [0-9-]+ [0-9:]+ UTC")
FLAGS = ["--background", "v-sharp", "--inversion", "tkd", "--skip-bids-validation"]


class Outcome(NamedTuple):
    """What became of one fault."""

    fault: str
    first: str
    again: int
    problems: list[str]


class Laboratory:
    """Runs the command in a forked child, in a folder of its own.

    Parameters
    ----------
    folder : Path
        For everything.
    flags : sequence of str
        Of the command.
    """

    def __init__(self, folder: Path, flags: list[str]):
        self.folder = folder
        tiny.make_dataset(folder / "data" / "bids")
        regions = tiny.make_regions(folder / "data" / "regions")
        self.argv = [str(folder / "data" / "bids"), "out", "participant", "-w", "work"]
        self.argv += ["-d", f"mine={regions}", "--nprocs", "1", *flags]
        self.events: list[str] = []
        events = folder / "events.txt"
        code = self.run(folder / "clean", lambda: _count(folder / "clean", events))
        if code:
            raise SystemExit((folder / "clean" / "log.txt").read_text())
        self.events = events.read_text().splitlines()
        self.expected = contents(folder / "clean" / "out")

    def run(self, place: Path, arm: Callable[[], None] = lambda: None) -> int:
        """Exit code of the command; that of a process killed by a signal is negative."""
        place.mkdir(exist_ok=True)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                os.chdir(place)
                log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(log, 1)
                os.dup2(log, 2)
                from bids_app.run import main

                arm()
                code = main(self.argv)
                sys.stdout.flush()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def attempt(self, fault: str, arm: Callable[[], None]) -> Outcome:
        """Run under a fault, then without it, and compare."""
        place = self.folder / "attempt"
        shutil.rmtree(place, ignore_errors=True)
        code = self.run(place, arm)
        lines = (place / "log.txt").read_text().strip().splitlines()
        first = f"signal {-code}" if code < 0 else (lines or [""])[-1]
        problems = [f"visible and not whole: {name}" for name in self._half(place / "out")]
        if any("Traceback" in line for line in lines):
            problems.append("a traceback on the terminal")
        return self._again(place, fault, first, problems)

    def damage(self, fault: str, change: Callable[[Path], None]) -> Outcome:
        """Damage the work folder of a finished run, remove the results, and run again."""
        place = self.folder / "attempt"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.folder / "clean", place, symlinks=True)
        shutil.rmtree(place / "out")
        change(place / "work")
        return self._again(place, fault, "-", [])

    def _again(self, place: Path, fault: str, first: str, problems: list[str]) -> Outcome:
        again = self.run(place)
        found = contents(place / "out")
        for name in sorted(found.keys() | self.expected.keys()):
            if found.get(name) != self.expected.get(name) and "crash-" not in name:
                problems.append(f"differs: {name}")
        return Outcome(fault, first, again, problems)

    def _half(self, out: Path) -> list[str]:
        # Tables of all participants grow while it runs; they are whole when they can be read.
        growing = ("logs/status", "logs/participant-status")
        return [
            name
            for name, content in contents(out).items()
            if "/.tmp-" not in f"/{name}"
            and "crash-" not in name
            and not name.startswith(growing)
            and not name.endswith(".html")
            and self.expected.get(name) != content
        ]


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of all files that should be the same each time, by name."""
    return {
        path.relative_to(folder).as_posix(): DATE.sub(b"", path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(VOLATILE)
    }


def _changes(place: Path) -> Callable[[str, tuple], str | None]:
    """Tells of an audit event which change below `place` it announces."""
    roots = (str(place / "work"), str(place / "out"))

    def change(event: str, arguments: tuple) -> str | None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_RDWR) or not isinstance(path, str | Path):
                return None
        elif event in CHANGES:
            path = arguments[0]
        else:
            return None
        path = os.path.abspath(os.fsdecode(path))
        return f"{event} {path}" if path.startswith(roots) else None

    return change


def _count(place: Path, record: Path) -> None:
    change = _changes(place)
    stream = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hook(event: str, arguments: tuple) -> None:
        if told := change(event, arguments):
            os.write(stream, (told + "\n").encode())

    sys.addaudithook(hook)


def kill_at(place: Path, number: int) -> Callable[[], None]:
    """Arm the process to be killed at a change of the file system, just before it happens."""

    def arm() -> None:
        change, seen = _changes(place), [0]

        def hook(event: str, arguments: tuple) -> None:
            if change(event, arguments):
                seen[0] += 1
                if seen[0] > number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return arm


def limit(kind: int, value: int) -> Callable[[], None]:
    """Arm the process with a limit of the kernel."""
    return lambda: resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def memory_in_use() -> int:
    """Address space of this process, bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def shorten(path: Path) -> None:
    """Leave half of a file."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 0x10
        path.write_bytes(content)


def cached(work: Path) -> list[Path]:
    """Files of the work folder by which a later run is served."""
    return sorted(p for p in (work / "qsmref_wf").rglob("*") if p.is_file() and p.suffix != ".lock")


def kills(lab: Laboratory, every: int) -> Iterator[Outcome]:
    """Deaths at each `every`-th change of the file system."""
    place = lab.folder / "attempt"
    for number in range(0, len(lab.events), every):
        what, _, path = lab.events[number].partition(" ")
        name = Path(path).relative_to(lab.folder / "clean")
        yield lab.attempt(f"SIGKILL before {what} {name}", kill_at(place, number))


def damages(lab: Laboratory, every: int) -> Iterator[Outcome]:
    """Damage to each `every`-th file, by all means in turn."""
    work = lab.folder / "clean" / "work"
    means = [("cut in half", shorten), ("one byte flipped", flip), ("lost", Path.unlink)]
    names = [path.relative_to(work) for path in cached(work)]
    for i, name in enumerate(names[::every]):
        words, change = means[i % len(means)]
        yield lab.damage(f"{name} {words}", lambda root, n=name, c=change: c(root / n))

    def everything(root: Path) -> None:
        for path in cached(root):
            flip(path)

    yield lab.damage("one byte flipped in every file", everything)


def limits(lab: Laboratory, sizes: list[int], spare: list[int]) -> Iterator[Outcome]:
    """Files that may not grow, and memory that ends."""
    for size in sizes:
        fault = f"no file larger than {size} bytes"
        yield lab.attempt(fault, limit(resource.RLIMIT_FSIZE, size))
    for megabytes in spare:
        value = memory_in_use() + megabytes * 2**20
        yield lab.attempt(f"{megabytes} MB of memory left", limit(resource.RLIMIT_AS, value))


def main() -> int:
    """Try all faults, print a table, and return the number of those that did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try one in N")
    parser.add_argument("flags", nargs="*", help="of qsmref, after --; default: a quick chain")
    given = parser.parse_args()
    # Loaded once, so that a child starts in no time. Nothing here starts a thread.
    import bids_app.graph
    import bids_app.report
    import bids_app.workfolder  # noqa: F401

    lab = Laboratory(given.folder.absolute(), given.flags or FLAGS)
    every = max(1, len(lab.events) // 4) if given.quick else given.every
    files = len(cached(lab.folder / "clean" / "work"))
    faults = [
        kills(lab, every),
        damages(lab, files if given.quick else given.every),
        limits(
            lab,
            [20_000] if given.quick else [500, 20_000, 60_000],
            [] if given.quick else [5, 40, 150],
        ),
    ]
    harm = done = 0
    for outcomes in faults:
        for outcome in outcomes:
            done += 1
            bad = bool(outcome.problems) or outcome.again != 0
            harm += bad
            words = "; ".join(outcome.problems) or "same bytes"
            print(f"{outcome.fault} | {outcome.first} | {outcome.again} | {words}", flush=True)
    print(f"{done} faults, {harm} did harm; {len(lab.events)} changes of the file system a run")
    with contextlib.suppress(OSError):
        shutil.rmtree(lab.folder / "attempt")
    return int(harm > 0)


if __name__ == "__main__":
    sys.exit(main())
