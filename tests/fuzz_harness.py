"""Spoil participants of a small dataset, run the command line, and judge what became of them.

By hand, for thousands of inputs::

    python tests/fuzz_harness.py --inputs 2000 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import html.parser
import io
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import fuzz_mutations
import nibabel as nib
import numpy as np
import pandas as pd
import tiny_bids as tiny
from fuzz_commands import COMMANDS
from fuzz_mutations import FAMILIES, Mutation

from bids_app import report
from bids_app.run import main
from qsmref import voxels
from qsmref.inputs import Query, discover
from qsmref.interfaces.tables import LoadLabels
from qsmref.problems import DataError
from qsmref.runs import EchoRun

#: Label of the participant that is left as it was.
CLEAN = "clean"
#: Of the map's standard deviation: what whole numbers in place of float32 may change, on average.
TOLERANCE = 0.01
#: Mutations by which somebody asks for another map.
CHOICES = ("settings", "arguments", "filters", "maps")
FLAGS = ("--sloppy", "--noise-repeats", "0", "--nprocs", "1", "--skip-bids-validation")


@dataclass(frozen=True)
class Case:
    """One mutation with its seed."""

    family: str
    mutation: Mutation
    seed: int

    @property
    def name(self) -> str:
        return f"{self.mutation.__name__}-{self.seed}"


@dataclass
class Verdict:
    """What became of one spoiled participant."""

    case: str
    family: str
    #: accepted, accepted with a warning, refused
    outcome: str
    sentence: str = ""
    #: What should not have happened; empty when all is well.
    complaints: list[str] = field(default_factory=list)


class _Tags(html.parser.HTMLParser):
    """Finds tags and attributes that came out of data."""

    def __init__(self):
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if tag == "qx" or "onqx" in names or "onerror" in names:
            self.foreign.append(self.get_starttag_text() or tag)


def foreign_tags(page: str) -> list[str]:
    """Tags of a page that a dataset has put there."""
    parser = _Tags()
    parser.feed(page)
    return parser.foreign


def draw(count: int, seed: int) -> list[Case]:
    """Cases by turns from all families, larger families more often."""
    rng = random.Random(seed)
    weights = {"images": 4, "sidecars": 3, "labels and masks": 2, "label tables": 2}
    families = [f for name in FAMILIES for f in [name] * weights.get(name, 1)]
    cases = []
    for _ in range(count):
        family = rng.choice(families)
        cases.append(Case(family, rng.choice(FAMILIES[family]), rng.randrange(10**9)))
    return cases


class Sandbox:
    """A folder with one clean participant, from which spoiled ones are copied."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.template = folder / "template"
        tiny.make_dataset(self.template / "bids", (CLEAN,), air=3.0)
        tiny.make_regions(self.template / "regions", (CLEAN,))
        self.count = 0

    def data(self, labels: Sequence[str]) -> Path:
        """A new folder with a dataset of the clean participant and copies of it."""
        self.count += 1
        root = self.folder / f"batch{self.count}" / "data"
        shutil.copytree(self.template, root)
        for label in labels:
            for kind in ("bids", "regions"):
                source = root / kind / f"sub-{CLEAN}"
                for path in source.rglob("*"):
                    if path.is_file():
                        target = root / kind / f"sub-{label}" / "anat"
                        target.mkdir(parents=True, exist_ok=True)
                        shutil.copy(path, target / path.name.replace(CLEAN, label))
        return root

    def run(self, root: Path, *flags: str) -> tuple[int, str, str]:
        """Run the command line on it in this process; exit code, and what was printed."""
        out, err = io.StringIO(), io.StringIO()
        argv = [str(root / "bids"), str(root.parent / "out"), "participant"]
        argv += ["-w", str(root.parent / "work"), "-d", f"mine={root / 'regions'}", *FLAGS, *flags]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(argv)
            except SystemExit as end:
                code = end.code
        return code, out.getvalue(), err.getvalue()

    def judge(self, cases: Sequence[Case], quick: bool = False) -> list[Verdict]:
        """Spoil a copy for each case, run all of them in one command, and judge each.

        With `quick`, cases that the checks refuse are judged by their sentence, and those whose
        arrays and numbers are the clean participant's to the bit are taken as its equals: only
        the others are run.
        """
        labels = [f"f{k:03d}" for k in range(len(cases))]
        root = self.data(labels)
        same = {}
        for label, case in zip(labels, cases, strict=True):
            same[label] = case.mutation(root, label, random.Random(case.seed))
        verdicts = []
        if quick:
            by_label = dict(zip(labels, cases, strict=True))
            settled = quick_verdicts(root, by_label, same)
            for label in settled:
                shutil.rmtree(root / "bids" / f"sub-{label}")
                shutil.rmtree(root / "regions" / f"sub-{label}")
            verdicts = list(settled.values())
            labels = [label for label in labels if label not in settled]
            cases = [by_label[label] for label in labels]
            if not labels:
                shutil.rmtree(root.parent)
                return verdicts
        before = listing(root.parent, skip=("out", "work"))
        # Folders that programs write to when they are told nothing else.
        with contextlib.chdir(root.parent):
            code, out, err = self.run(root)
        general = common_complaints(code, out, err)
        if listing(root.parent, skip=("out", "work")) != before:
            general.append("something outside OUTPUT_DIR and the work folder was changed")
        results = Results(root.parent / "out")
        if results.status.get(CLEAN, "") != "completed":
            general.append("the clean participant was not completed")
        for label, case in zip(labels, cases, strict=True):
            verdicts.append(results.verdict(label, case, same[label]))
        if general:
            who = ", ".join(case.name for case in cases)
            verdicts.append(Verdict(who, "command", "", (out + err)[-3000:], general))
        shutil.rmtree(root.parent)
        return verdicts

    def command(self, spoil: Callable[[Path, random.Random], list[str]], seed: int) -> Verdict:
        """Spoil the dataset as a whole or the command line, run it, and judge how it ended."""
        root = self.data([])
        flags = spoil(root, random.Random(seed))
        before = listing(root.parent, skip=("out", "work"))
        with contextlib.chdir(root.parent):
            code, out, err = self.run(root, *flags)
        told = common_complaints(code, out, err)
        if listing(root.parent, skip=("out", "work")) != before:
            told.append("something outside OUTPUT_DIR and the work folder was changed")
        lines = (out if out.strip() else err).strip().splitlines()
        verdict = Verdict(f"{spoil.__name__}-{seed}", spoil.__name__, "refused", lines[-1], told)
        results = Results(root.parent / "out")
        if results.status.get(CLEAN) == "completed":
            verdict.outcome = "accepted"
            clean = self.reference() / "sub-clean" / "anat"
            difference = results.difference(CLEAN, clean)
            # What was asked for on purpose may change a map; it must be finite all the same.
            if difference and (spoil.__name__ not in CHOICES or "finite" in difference):
                told.append(f"accepted: {difference}")
        shutil.rmtree(root.parent)
        return verdict

    def reference(self) -> Path:
        """Results of the clean participant alone."""
        folder = self.folder / "reference"
        if not folder.is_dir():
            root = self.data([])
            self.run(root)
            shutil.move(root.parent / "out", folder)
            shutil.rmtree(root.parent)
        return folder


def quick_verdicts(root: Path, cases: dict[str, Case], same: dict[str, bool]) -> dict[str, Verdict]:
    """Verdicts of the cases that need not be run: refused, or the clean participant's equals."""
    with contextlib.chdir(root.parent):
        runs, problems = discover(root / "bids", Query(derivatives={"mine": root / "regions"}))
    clean = received(next(run for run in runs if run.subject == CLEAN))
    settled = {}
    for label, case in cases.items():
        mine = [run for run in runs if run.subject == label]
        sentences = [p.sentence for p in problems if p.subject == label]
        verdict = Verdict(case.name, case.family, "refused")
        if len(mine) == 1 and not sentences:
            try:
                if received(mine[0]) != clean:
                    continue
                verdict.outcome = "accepted"
            except DataError as error:
                sentences = [str(error)]
        elif not sentences:
            verdict.complaints.append(f"{len(mine)} runs and no problem")
        if sentences:
            verdict.sentence = sentences[0]
            verdict.complaints += about_sentence(sentences[0], same[label])
        settled[label] = verdict
    return settled


def received(run: EchoRun) -> list:
    """All that the steps get to know of a run; DataError where they would refuse it."""
    magnitude = voxels.read_magnitude(run.magnitude_files)
    scale = run.phase_scale
    arrays = [magnitude, voxels.read_phase(run.phase_files, scale.low, scale.high, False)]
    arrays += [voxels.read_mask(run.mask.path)] if run.mask else []
    known = [run.echo_times, run.imaging_frequency, scale, run.grid.affine.tobytes()]
    known.append([w.replace(run.subject, CLEAN) for w in run.warnings])
    with tempfile.TemporaryDirectory() as folder:
        for regions in run.regions:
            labels = LoadLabels(labels=str(regions.image.path), names=str(regions.table))
            checked = labels.run(cwd=folder).outputs
            arrays.append(voxels.read(checked.labels))
            known.append(Path(checked.names).read_text(encoding="utf-8"))
    return known + [(a.shape, a.dtype.str, a.tobytes()) for a in arrays]


def about_sentence(sentence: str, same: bool) -> list[str]:
    """What is wrong with the sentence that refuses an input."""
    told = []
    if re.search(r"unexpected|[a-z]Error\b|crash|Traceback", sentence):
        told.append("the sentence is that of a program")
    if len(sentence) > 700 or not sentence.strip():
        told.append("this is no sentence")
    if same:
        told.append("refused, and nothing is wrong with it")
    return told


def listing(folder: Path, skip: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """All files below a folder, with size and time."""
    found = {}
    for place, folders, files in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [f for f in folders if f not in skip]
        for name in files:
            stat = os.lstat(os.path.join(place, name))
            found[os.path.join(place, name)] = (stat.st_size, stat.st_mtime_ns)
    return found


def common_complaints(code: int, out: str, err: str) -> list[str]:
    """What is wrong with how a command ended."""
    complaints = []
    last = out.strip().splitlines()[-1] if out.strip() else ""
    if "Traceback" in out + err:
        complaints.append("a traceback")
    if re.search("unexpected [A-Z]|crash-", out + err) or code == 70:
        complaints.append("an error in the program")
    if code != 2 and not re.fullmatch(rf"qsmref: .*Exit status {int(code)}", last):
        complaints.append(f"the last line is {last!r}, the code {code}")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", out + err):
        complaints.append("control characters on the terminal")
    return complaints


class Results:
    """Folder of results of a command."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.status, self.warnings, self.reasons = {}, {}, {}
        path = folder / "logs" / "participant-status.tsv"
        if path.is_file():
            table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str, quoting=3)
            for row in table.to_dict("records"):
                label = row["participant_id"].removeprefix("sub-")
                known = self.status.get(label)
                self.status[label] = row["status"] if known in (None, "completed") else known
                self.warnings[label] = row["warnings"].replace(label, CLEAN)
                self.reasons[label] = row["reason"]

    def verdict(self, label: str, case: Case, same: bool) -> Verdict:
        """Judge one participant."""
        status, reason = self.status.get(label), self.reasons.get(label, "")
        outcome = {"completed": "accepted"}.get(status, "refused")
        verdict = Verdict(case.name, case.family, outcome, reason)
        told = verdict.complaints
        page = self.folder / f"sub-{label}.html"
        if page.is_file():
            told += foreign_tags(page.read_text(encoding="utf-8"))
        if status is None:
            told.append("there is no status")
        elif outcome == "refused":
            told += about_sentence(reason, same)
        else:
            difference = self.difference(label, rounded=same)
            warned = self.warnings[label] != self.warnings[CLEAN]
            verdict.sentence = self.warnings[label] if warned else ""
            if warned:
                verdict.outcome = "accepted with a warning"
            if difference and (same or not warned):
                told.append(f"accepted: {difference}")
        return verdict

    def difference(self, label: str, clean: Path | None = None, rounded: bool = False) -> str:
        """What of the results differs from the clean participant's; empty for nothing.

        Data that were rounded may be unwrapped otherwise in a few voxels: not a hundredth of them.
        """
        anat = self.folder / f"sub-{label}" / "anat"
        maps = list(anat.glob("*_desc-unreferenced_Chimap.nii.gz"))
        if len(maps) != 1:
            return f"{len(maps)} maps"
        clean = clean or self.folder / f"sub-{CLEAN}" / "anat"
        mine, theirs = (
            np.asarray(nib.load(path).dataobj)
            for path in (maps[0], clean / f"sub-{CLEAN}_desc-unreferenced_Chimap.nii.gz")
        )
        if mine.shape != theirs.shape:
            return f"shape {mine.shape}"
        if not np.isfinite(mine).all():
            return "the map is not finite"
        apart = np.abs(mine - theirs) / theirs.std()
        if rounded and np.percentile(apart, 99) <= 5 * TOLERANCE:
            return self._table_difference(anat, clean)
        if np.sqrt(np.mean(apart**2)) > TOLERANCE or apart.max() > 1:
            return f"the map differs by {apart.max():.3g} SD"
        return self._table_difference(anat, clean)

    def _table_difference(self, mine: Path, clean: Path) -> str:
        tables = []
        for folder in (mine, clean):
            path = next(folder.glob("*_desc-roi_Chimap.tsv"), None)
            if path is None:
                return "there is no table of regions"
            table = pd.read_csv(path, sep="\t", quoting=3)
            tables.append(table[table["index"].notna()].set_index("index")["mean"])
        shared = tables[1].index.intersection(tables[0].index)
        apart = (tables[0][shared] - tables[1][shared]).abs().max()
        missing = tables[1].index.difference(tables[0].index)
        if len(missing):
            return f"the regions {list(missing)} are not there"
        return f"a region differs by {apart:.3g} ppb" if apart > 1 else ""


def run_many(
    count: int, seed: int, batch: int, folder: Path, verbose: bool, quick: bool = False
) -> Counter:
    """Judge `count` cases; print what is wrong, and the figures."""
    sandbox = Sandbox(folder)
    # Every tenth input is one of the command.
    commands = count // 10
    cases = draw(count - commands, seed)
    figures: Counter = Counter()
    begin = time.monotonic()
    rng = random.Random(seed)
    for start in range(0, len(cases), batch):
        verdicts = sandbox.judge(cases[start : start + batch], quick)
        share = commands * min(start + batch, len(cases)) // len(cases)
        share -= commands * start // len(cases)
        for _ in range(share):
            verdicts.append(sandbox.command(rng.choice(COMMANDS), rng.randrange(10**9)))
        for verdict in verdicts:
            if verdict.outcome:
                figures[verdict.family, verdict.outcome] += 1
            if verdict.complaints:
                figures["all", "complaints"] += 1
            if verdict.complaints or verbose:
                told = "; ".join(verdict.complaints)
                print(f"{verdict.case} [{verdict.outcome}] {told}\n    {verdict.sentence[:3000]}")
        done = min(start + batch, len(cases)) + commands * (start + batch) // len(cases)
        print(f"# {done} of {count}, {time.monotonic() - begin:.0f} s", flush=True)
    for (family, outcome), number in sorted(figures.items()):
        print(f"{family:20s} {outcome:25s} {number}")
    return figures


def again(names: Sequence[str], folder: Path) -> bool:
    """Judge cases by their names; whether anything is wrong."""
    cases = []
    for name in names:
        mutation, _, seed = name.rpartition("-")
        cases.append(Case("again", getattr(fuzz_mutations, mutation), int(seed)))
    verdicts = Sandbox(folder).judge(cases, quick=True)
    for v in verdicts:
        print(f"{v.case} [{v.outcome}] {'; '.join(v.complaints)}\n    {v.sentence}")
    return any(v.complaints for v in verdicts)


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch", type=int, default=20, help="participants a command")
    parser.add_argument(
        "--folder", type=Path, help="where the data are written (default: a new one)"
    )
    parser.add_argument("--verbose", action="store_true", help="print every sentence")
    parser.add_argument(
        "--again",
        nargs="+",
        metavar="CASE",
        help="only these cases, named as in the output",
    )
    parser.add_argument(
        "--without-pictures", action="store_true", help="pages without figures, for speed"
    )
    parser.add_argument(
        "--quick", action="store_true", help="run what differs from the clean participant only"
    )
    options = parser.parse_args()
    if options.without_pictures:
        report.run_figures = lambda *_: ([], {})
    folder = options.folder or Path(tempfile.mkdtemp(prefix="qsmref-fuzz-"))
    if options.again:
        return int(again(options.again, folder))
    figures = run_many(
        options.inputs, options.seed, options.batch, folder, options.verbose, options.quick
    )
    return int(bool(figures["all", "complaints"]))


if __name__ == "__main__":
    sys.exit(_main())
