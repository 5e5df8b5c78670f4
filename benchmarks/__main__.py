"""Measure, print Markdown tables, and keep them in benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from . import accuracy, cohorts, memory, registered, speed, stability, voids
from .chains import CHAINS, ORACLES
from .heads import HEADS, Sources
from .report import ROOT, environment, write

#: Name of a section -> (title, function).
SECTIONS = {
    "accuracy": (accuracy.TITLE, accuracy.run),
    "rim": ("Rim", accuracy.run_rim),
    "voids": (voids.TITLE, voids.run),
    "stability": (stability.TITLE, stability.run),
    "speed": ("Speed", speed.run),
    "convergence": ("Convergence", speed.run_convergence),
    "scaling": ("Scaling", speed.run_scaling),
    "memory": (memory.TITLE, memory.run),
    "registered": (registered.TITLE, registered.run),
    "size": (cohorts.TITLE_SIZE, cohorts.run_size),
    "null": (cohorts.TITLE_NULL, cohorts.run_null),
}


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    sources: Sources
    heads: tuple[str, ...]
    chains: tuple[str, ...]
    threads: int
    repeats: int
    largest: int
    textbook: bool
    participants: int = 10_000
    tables: int = 1000
    seeds: tuple[int, ...] = (5,)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        return tuple(sorted({1, self.threads}))

    def heads_of(self, names) -> list[str]:
        """Those of a section's heads that were asked for; all when nothing was."""
        return [n for n in names if not self.heads or n in self.heads]

    def wants(self, chain: str) -> bool:
        return not self.chains or chain in self.chains

    def say(self, text: str) -> None:
        print(text, end="\n\n", flush=True)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "sections", nargs="*", help=f"all by default; of {', '.join(SECTIONS)}", metavar="SECTION"
    )
    environ = os.environ
    parser.add_argument(
        "--heads", type=Path, default=environ.get("QSMREF_BENCH_HEADS"),
        help="folder in which make_head.py was run (QSMREF_BENCH_HEADS)",
    )  # fmt: skip
    parser.add_argument(
        "--forward-python", type=Path, default=environ.get("QSMREF_BENCH_FORWARD"),
        help="Python of an environment with qsm-forward, to make heads that are missing "
        "(QSMREF_BENCH_FORWARD)",
    )  # fmt: skip
    parser.add_argument(
        "--shared", type=Path, default=environ.get("QSMREF_BENCH_SHARED", ROOT.parent / "shared"),
        help="folder with data/ and bench/ (QSMREF_BENCH_SHARED; ../shared)",
    )  # fmt: skip
    parser.add_argument(
        "--cache", type=Path,
        default=environ.get("QSMREF_BENCH_CACHE", ROOT / "benchmarks" / "cache"),
        help="folder for heads that are made here, 2 GB in all (QSMREF_BENCH_CACHE)",
    )  # fmt: skip
    parser.add_argument("--only-heads", nargs="+", choices=HEADS, default=(), metavar="HEAD")
    parser.add_argument(
        "--chains", nargs="+", choices=[*CHAINS, *ORACLES], default=(), metavar="CHAIN"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of what is timed; medians count")
    parser.add_argument("--largest", type=int, default=384, help="side of the largest cube")
    parser.add_argument(
        "--no-textbook", dest="textbook", action="store_false", help="it takes minutes"
    )
    parser.add_argument("--participants", type=int, default=10_000, help="of the largest cohort")
    parser.add_argument(
        "--tables", type=int, default=1000, help="cohorts without a difference, a seed"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=(5,), metavar="SEED",
        help="of the cohorts of the sections registered and null; each gives all of --tables",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "RESULTS.md")
    return parser


def main(arguments: list[str] | None = None) -> int:
    parser = _build_parser()
    given = parser.parse_args(arguments)
    unknown = [s for s in given.sections if s not in SECTIONS]
    if unknown:
        parser.error(f"there is no section {unknown[0]}; there are {', '.join(SECTIONS)}")
    options = Options(
        Sources(given.cache, given.heads, given.forward_python, given.shared),
        tuple(given.only_heads),
        tuple(given.chains),
        given.threads,
        given.repeats,
        given.largest,
        given.textbook,
        given.participants,
        given.tables,
        tuple(given.seeds),
    )
    for name in given.sections or SECTIONS:
        title, section = SECTIONS[name]
        text = section(options)
        text = f"{environment(options.threads)}\n\n{text}"
        options.say(f"## {title}\n\n{text}")
        write(given.output, title, text)
    print(f"Kept in {given.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
