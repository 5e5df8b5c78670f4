"""Disks that run full: the command says so in a sentence, and goes on when there is room.

``python tests/faults_disk.py FOLDER`` mounts small disks in memory (for which it must be root) for
the work folder and the results, for each of them alone, and for both together; then it makes
room, gives the same command again, and compares with the bytes of a clean run. It prints a table.
With ``--workers`` the command has two of them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faults
import faults_parallel
from faults import FLAGS, Outcome, contents

Laboratory = faults.Laboratory | faults_parallel.Laboratory

#: Parts of what a clean run takes, by the folders that lie on the disk.
SHARES = {
    "work and results": (0.004, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97),
    "work": (0.01, 0.2, 0.5, 0.8, 0.97),
    "results": (0.02, 0.1, 0.3, 0.5, 0.7, 0.9),
}
#: Codes of the command that a full disk may end in: cannot be created, or input and output.
CODES = (73, 74)
#: Tables of all participants grow while a command runs.
_GROWING = ("logs/status", "logs/participant-status")


def kilobytes(folder: Path) -> int:
    """Blocks that the files of a folder take in memory, kB."""
    paths = [folder, *folder.rglob("*")]
    return sum(4 * -(-path.lstat().st_size // 4096) + 1 for path in paths if not path.is_dir())


@contextlib.contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """A disk of that many kB, mounted on a folder as long as the block takes."""
    place.mkdir(parents=True, exist_ok=True)
    options = f"size={size}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        # Lazily: helpers of a command that has ended may live a moment longer.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def run(lab: Laboratory, place: Path) -> tuple[int, list[str]]:
    """Exit code and lines of the command."""
    log = lab.folder / "log.txt"
    log.touch()
    place.mkdir(exist_ok=True)
    # Outside of the disk, which may have no room for it.
    (place / "log.txt").unlink(missing_ok=True)
    (place / "log.txt").symlink_to(log)
    code = lab.run(place)
    return code if isinstance(code, int) else code[0], log.read_text().splitlines()


def try_disk(lab: Laboratory, what: str, size: int) -> Outcome:
    """Run on a disk that is too small, make room, and run again."""
    place = lab.folder / "attempt"
    shutil.rmtree(place, ignore_errors=True)
    mounted = {"work and results": place, "work": place / "work", "results": place / "out"}[what]
    with disk(mounted, size):
        code, lines = run(lab, place)
        problems = judge(lab, place, code, lines)
        subprocess.run(["mount", "-o", "remount,size=64m", str(mounted)], check=True)
        again, _ = run(lab, place)
        problems += differences(contents(place / "out"), lab.expected)
        outcome = Outcome(f"disk of {size} kB for {what}", f"{lines[-1]} ({code})", again, problems)
    return outcome


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Files that are not those of a clean run."""
    names = sorted(found.keys() | expected.keys())
    return [
        f"differs: {name}"
        for name in names
        if found.get(name) != expected.get(name) and "crash-" not in name
    ]


def judge(lab: Laboratory, place: Path, code: int, lines: list[str]) -> list[str]:
    """What is wrong with how a command ended on a full disk."""
    if code == 0:
        # There was room enough.
        return []
    problems = [line for line in lines if "Traceback" in line]
    if code not in CODES:
        problems.append(f"the code is {code}")
    if not lines or not lines[-1].startswith("qsmref: ") or str(code) not in lines[-1]:
        problems.append("the last line is not that of the command")
    if not any("the disk is full" in line or "cannot be written" in line for line in lines):
        problems.append("no sentence tells that the disk is full")
    for name, content in contents(place / "out").items():
        temporary = "/.tmp-" in f"/{name}" or "crash-" in name or name.startswith(_GROWING)
        if not temporary and not name.endswith(".html") and lab.expected.get(name) != content:
            problems.append(f"visible and not whole: {name}")
    return problems


def main() -> int:
    """Try all, print a table, and tell whether one did harm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("flags", nargs="*", help="of qsmref, after --; default: a quick chain")
    parser.add_argument("--workers", action="store_true", help="a command with two workers")
    given = parser.parse_args()
    if os.geteuid() != 0:
        print("only root may mount a disk", file=sys.stderr)
        return 77
    if not given.workers:
        # Loaded once, so that a child starts in no time. Nothing here starts a thread.
        import bids_app.graph
        import bids_app.report
        import bids_app.workfolder  # noqa: F401
    kind = faults_parallel.Laboratory if given.workers else faults.Laboratory
    lab = kind(given.folder.absolute(), given.flags or FLAGS)
    sizes = {name: kilobytes(lab.folder / "clean" / name) for name in ("work", "out")}
    whole = {
        "work and results": sum(sizes.values()),
        "work": sizes["work"],
        "results": sizes["out"],
    }
    print(f"a clean run takes {sizes['work']} kB for work and {sizes['out']} kB for results")
    harm = done = 0
    for what, shares in SHARES.items():
        for share in shares[:: 3 if given.workers else 1]:
            outcome = try_disk(lab, what, max(8, int(share * whole[what])))
            done += 1
            bad = bool(outcome.problems) or outcome.again != 0
            harm += bad
            words = "; ".join(outcome.problems) or "same bytes"
            print(f"{outcome.fault} | {outcome.first} | {outcome.again} | {words}", flush=True)
    print(f"{done} disks, {harm} did harm")
    return int(harm > 0)


if __name__ == "__main__":
    sys.exit(main())
