"""Runs the experiments of docs/phantom-study.md and writes the tables and figures it shows.

python docs/phantom_study.py RESULTS [NAME ...]     run (what is done is not done again), then write
python docs/phantom_study.py RESULTS --write        write only

With QSMREF_LABEL_HEAD=FOLDER (head_dseg.nii.gz, head_dseg.tsv, head_desc-brain_mask.nii.gz) the
experiment on a segmented head is among them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

#: Voxels of 2 x 2 x 4 mm: an eighth of the work.
COARSE = "--matrix 128 128 37 --voxel-size 2 2 4"
#: And a sixteenth.
SMALL = "--matrix 84 84 37 --voxel-size 3 3 4"
TRIO = "none+single-step pdf+medi pdf+tv"
EXPERIMENTS = {
    "full": "",
    "chains": f"{COARSE} --methods none+single-step pdf+medi pdf+single-step none+medi "
    "pdf:stopping=medi,tolerance=0.1+medi",
    "masks": f"{SMALL} --conditions 2 --slabs 76 80 84 88 92 96 100 104 108 112 116 120 "
    "--erosions 0 2 4 6 8 10 --methods none+single-step pdf+tv",
    "iterations": f"{SMALL} --conditions 2 --methods none+single-step "
    + " ".join(f"none+single-step:iterations={n}" for n in (20, 40, 120, 300)),
    "convergence": f"{SMALL} --conditions 2 --methods "
    + " ".join(
        f"pdf:tolerance={x},max_iterations={n}+tv"
        for x, n in ((0.1, 300), (0.01, 300), (0.001, 300), (0.0001, 300))
    ),
    "scanner": f"{SMALL} --conditions 2 3 --signal echoes --snr 100 --texture 0.1 --shim 2 "
    f"--supersample 2 --mask-from magnitude --methods {TRIO}",
    "noise": f"{SMALL} --conditions 2 --snr 50 --methods {TRIO}",
    "methods": f"{SMALL} --conditions 2 3 --methods none+single-step all",
    "thesis": "--preset thesis",
}
LABEL_HEAD = os.environ.get("QSMREF_LABEL_HEAD")
PAGE = Path(__file__).parent / "_static" / "study"


def run(results: Path, names: list[str]) -> None:
    """Run experiments, the cheap ones first."""
    for name in names:
        words = EXPERIMENTS[name].split()
        command = [sys.executable, "-m", "qsmref.phantom.cli", "study", str(results / name), *words]
        print(name, *words, flush=True)
        subprocess.run(command, check=True)


def stability(results: Path, name: str) -> pd.DataFrame:
    """SD and bias of the neighbours of an experiment: one row a chain and condition."""
    table = pd.read_csv(results / name / "table1.tsv", sep="\t", dtype={"condition": str})
    rows = []
    for (chain, condition), part in table.groupby(["chain", "condition"], sort=False):
        cells = part.set_index(["row", "sweep"])
        row = {"chain": chain, "condition": condition}
        for sweep, words in (("slab", "slabs"), ("mask", "erosions")):
            row[f"CN alone, {words}"] = f"{cells.loc[('CN', sweep), 'sd']:.2f}"
            for pair in ("CN-GP", "CN-PU", "CN-CSF_P", "CN-W_brain"):
                cell = cells.loc[(pair, sweep)]
                text = f"{cell['sd']:.2f}"
                if pair in ("CN-GP", "CN-PU"):
                    text += f" ({cell['bias']:+.2f})"
                row[f"{pair}, {words}"] = text
        rows.append(row)
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def table_one(results: Path, name: str) -> str:
    """Table 1 without its title, its headings two levels lower."""
    text = (results / name / "table1.md").read_text(encoding="utf-8")
    text = text.partition("\n\n")[2].partition("\n\n")[2]
    return (
        text.replace("## ", "**")
        .replace("slabs\n", "slabs**\n")
        .replace("erosions\n", "erosions**\n")
    )


def write(results: Path) -> None:
    """Copy the figures and write the tables that the page includes."""
    PAGE.mkdir(parents=True, exist_ok=True)
    for name in EXPERIMENTS:
        if not (results / name / "study.json").is_file():
            print(f"{name} is not there: the page keeps what it has of it")
            continue
        (PAGE / f"{name}.md").write_text(as_markdown(stability(results, name)), encoding="utf-8")
        if name in ("full", "thesis"):
            (PAGE / f"{name}-table1.md").write_text(table_one(results, name), encoding="utf-8")
        if name in ("full", "chains", "thesis"):
            order = pd.read_csv(results / name / "structure.tsv", sep="\t").fillna("n/a")
            (PAGE / f"{name}-structure.md").write_text(as_markdown(order), encoding="utf-8")
            offset = pd.read_csv(results / name / "offset.tsv", sep="\t").round(2)
            (PAGE / f"{name}-offset.md").write_text(as_markdown(offset), encoding="utf-8")
    for name, figure in FIGURES:
        source = results / name / "figures" / f"{figure}.png"
        if source.is_file():
            shutil.copyfile(source, PAGE / f"{name}-{figure}.png")


FIGURES = [("full", f) for f in ("1-model", "2-maps", "3-regions", "4-references", "5-offset")]
FIGURES += [("chains", "6-distance"), ("methods", "7-methods"), ("methods", "6-distance")]
FIGURES += [("masks", "3-regions"), ("chains", "5-offset")]


def main(results: Path, *names: str) -> None:
    if LABEL_HEAD:
        head = Path(LABEL_HEAD)
        EXPERIMENTS["segmented"] = (
            f"--labels {head}/head_dseg.nii.gz --susceptibility {head}/head_dseg.tsv "
            f"--mask {head}/head_desc-brain_mask.nii.gz --rois {PAGE}/segmented-rois.tsv "
            f"--voxel-size 1.92 1.92 3.84 --methods {TRIO}"
        )
    if names != ("--write",):
        run(results, list(names) or list(EXPERIMENTS))
    write(results)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
