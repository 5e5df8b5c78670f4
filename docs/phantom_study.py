"""Runs the experiments of docs/phantom-study.md and writes the tables and figures it shows.

python docs/phantom_study.py RESULTS [NAME ...]     run (what is done is not done again), then write
python docs/phantom_study.py RESULTS --write        write only

With QSMREF_LABEL_HEAD=FOLDER (head_dseg.nii.gz, head_dseg.tsv, head_desc-brain_mask.nii.gz) the
experiment on a segmented head is among them.
"""

import json
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
    "removals": f"{SMALL} --conditions 2 --methods none+single-step pdf+tv sharp+tv v-sharp+tv "
    "resharp+tv lbv+tv harperella+tv ismv+tv",
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
            for pair in ("CN-GP", "CN-PU", "CN-CSF_P"):
                cell = cells.loc[(pair, sweep)]
                text = f"{cell['sd']:.2f}" if pd.notna(cell["sd"]) else "n/a"
                if pair in ("CN-GP", "CN-PU"):
                    text += f" ({cell['bias']:+.2f})"
                row[f"{pair}, {words}"] = text
        rows.append(row)
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def table_one(folder: Path) -> str:
    """Table 1 of the first chain, its headings in bold."""
    parts = (folder / "table1.md").read_text(encoding="utf-8").split("## ")[1:3]
    return "\n".join(f"**{part.replace(chr(10), '**' + chr(10), 1)}" for part in parts)


def default_study(results: Path) -> Path:
    """The study of the default chain: at full size where that was run, else on a coarser grid."""
    full = results / "full"
    return full if (full / "study.json").is_file() else results / "chains"


def grid_of(folder: Path) -> str:
    study = json.loads((folder / "study.json").read_text(encoding="utf-8"))["study"]
    voxels, size = (" x ".join(f"{v:g}" for v in study[k]) for k in ("matrix", "voxel_size"))
    return f"{voxels} voxels of {size} mm"


def write(results: Path) -> None:
    """Copy the figures and write the tables that the page includes."""
    PAGE.mkdir(parents=True, exist_ok=True)
    for name in EXPERIMENTS:
        if not (results / name / "study.json").is_file():
            print(f"{name} is not there: the page keeps what it has of it")
            continue
        (PAGE / f"{name}.md").write_text(as_markdown(stability(results, name)), encoding="utf-8")
    chains = results / "chains"
    order = pd.read_csv(chains / "structure.tsv", sep="\t").fillna("n/a")
    (PAGE / "chains-structure.md").write_text(as_markdown(order), encoding="utf-8")
    offset = pd.read_csv(chains / "offset.tsv", sep="\t").round(1)
    offset = offset[offset["chain"].isin(["none+single-step", "pdf+medi"])]
    (PAGE / "chains-offset.md").write_text(as_markdown(offset), encoding="utf-8")
    default = default_study(results)
    text = f"Grid: {grid_of(default)}.\n\n{table_one(default)}"
    (PAGE / "default-table1.md").write_text(text, encoding="utf-8")
    figures = [(default, f"default-{f}", f) for f in DEFAULT_FIGURES]
    figures += [(results / name, f"{name}-{f}", f) for name, f in FIGURES]
    for folder, name, figure in figures:
        source = folder / "figures" / f"{figure}.png"
        if source.is_file():
            shutil.copyfile(source, PAGE / f"{name}.png")


DEFAULT_FIGURES = ("1-model", "2-maps", "3-regions", "4-references", "5-offset")
FIGURES = (
    ("chains", "6-distance"),
    ("iterations", "6-distance"),
    ("masks", "3-regions"),
    ("scanner", "2-maps"),
    ("removals", "6-distance"),
    ("methods", "7-methods"),
)


def main(results: Path, *names: str) -> None:
    if LABEL_HEAD:
        head = Path(LABEL_HEAD)
        EXPERIMENTS["segmented"] = (
            f"--labels {head}/head_dseg.nii.gz --susceptibility {head}/head_dseg.tsv "
            f"--mask {head}/head_desc-brain_mask.nii.gz --rois {PAGE}/segmented-rois.tsv "
            f"--voxel-size 1.92 1.92 3.84 --supersample 1 --slab-centre -6 --methods {TRIO}"
        )
    if names != ("--write",):
        run(results, list(names) or list(EXPERIMENTS))
    write(results)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
