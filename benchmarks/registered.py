"""Regions that a registration brings: overlap with the true ones, and what tables make of it."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy.ndimage import map_coordinates

from .report import table

TITLE = "Regions through registration"

#: Nuclei, their labels in the analytic head, and the Dice that is asked for.
NUCLEI = {
    "CN": ((21, 22), 0.85),
    "PU": ((23, 24), 0.85),
    "GP": ((25, 26), 0.85),
    "SN": ((31, 32), 0.7),
    "RN": ((29, 30), 0.7),
}
_MATRIX, _VOXEL = (96, 114, 90), (2.0, 2.0, 2.0)
#: Degrees and mm that T1-weighted images are turned and shifted by, at most.
_TURN, _SHIFT = 8.0, 8.0


def run(options) -> str:
    """Four participants of 2 mm with heads of different shapes, through the whole command."""
    dice, apart, seconds = [], [], []
    for seed in options.seeds:
        folder = Path(options.sources.cache) / f"registered-{seed}"
        bids, template = write_cohort(folder, seed)
        for label in sorted(p.name for p in bids.glob("sub-*")):
            seconds.append(_participant(folder, bids, template, label))
            dice.append((f"{seed}, {label}", *overlap(folder, bids, label)))
            apart += [(f"{seed}, {label}", *row) for row in differences(folder, label)]
            options.say(table(("seed, participant", *NUCLEI), dice[-1:]))
            options.say(table(_APART, apart[-4:]))
    least = ("lowest", *(min(column) for column in zip(*(d[1:] for d in dice), strict=True)))
    asked = ("asked", *(limit for _, limit in NUCLEI.values()))
    text = (
        "Simulated participants of 2 mm with different heads, T1-weighted images turned and "
        f"shifted by up to {_TURN:g} degrees and {_SHIFT:g} mm, a template of yet another head; "
        "the command from echoes to tables, own brain mask. Dice of the regions that come from "
        "the template with the true ones, both sides:"
    )
    also = (
        "Largest of the ten differences between the nuclei, registered minus true regions, ppb, on "
        "the maps as reconstructed. `means`, `medians`, `biweights`: of both; `as written`: what "
        "`--statistic auto` writes, biweights of registered and means of true regions."
    )
    took = f"One participant took {np.median(seconds):.0f} s (median; {max(seconds):.0f} at most)."
    parts = [text, table(("seed, participant", *NUCLEI), [*dice, least, asked])]
    return "\n\n".join([*parts, also, table(_APART, apart), took])


_APART = ("seed, participant", "statistic", "largest", "root mean square", "pair")


def write_cohort(folder: Path, seed: int, participants: int = 4) -> tuple[Path, Path]:
    """Write the participants and the template, unless they are there.

    Returns
    -------
    bids, template : Path
        Dataset, with the truth in a derivative, and the T1-weighted image of the template.
    """
    from qsmref.phantom.cohort import Participant, participant_head
    from qsmref.phantom.dataset import write_dataset
    from qsmref.phantom.head import Head

    bids, stem = folder / "bids", folder / "template" / "tpl-head"
    template = Path(f"{stem}_T1w.nii.gz")
    if template.is_file():
        return bids, template
    write_dataset(
        bids, participants=participants, matrix=_MATRIX, voxel_size=_VOXEL, seed=seed,
        overwrite=True,
    )  # fmt: skip
    rng = np.random.default_rng([seed, 3])
    for path in sorted(bids.glob("sub-*/anat/*_T1w.nii.gz")):
        _turn(path, rng)
    other = Participant("99", "control", 62, "F", seed + 1000)
    made = folder / "template-bids"
    write_dataset(
        made, participant_head(Head(), other), matrix=_MATRIX, voxel_size=_VOXEL, seed=seed + 1,
        overwrite=True,
    )  # fmt: skip
    anat = made / "derivatives" / "truth" / "sub-01" / "anat"
    stem.parent.mkdir(parents=True, exist_ok=True)
    for name in ("desc-brain_mask.nii.gz", "dseg.nii.gz", "dseg.tsv"):
        (anat / f"sub-01_{name}").rename(f"{stem}_{name}")
    (made / "sub-01" / "anat" / "sub-01_T1w.nii.gz").rename(template)
    return bids, template


def _turn(path: Path, rng: np.random.Generator) -> None:
    """Resample a T1-weighted image as if the head had moved in between (cubic)."""
    from scipy.spatial.transform import Rotation

    image = nib.load(path)
    matrix = np.eye(4)
    angles = rng.uniform(-_TURN, _TURN, 3)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    matrix[:3, 3] = rng.uniform(-_SHIFT, _SHIFT, 3)
    way = np.linalg.inv(image.affine) @ matrix @ image.affine
    place = np.indices(image.shape).reshape(3, -1)
    place = way[:3, :3] @ place + way[:3, 3:]
    values = np.asarray(image.dataobj, dtype=np.float32)
    moved = np.maximum(map_coordinates(values, place, order=3), 0).reshape(values.shape)
    nib.save(nib.Nifti1Image(moved.astype(np.float32), image.affine, image.header), path)


def _participant(folder: Path, bids: Path, template: Path, label: str) -> float:
    """Run one participant; seconds from start to end."""
    command = [sys.executable, "-m", "bids_app.run", bids, folder / "results", "participant"]
    command += ["-w", folder / "work", "--participant-label", label, "--skip-bids-validation"]
    command += ["--template", template, "--engine", "ants", "--noise-repeats", 0]
    command += ["--atlas", f"true={bids / 'derivatives' / 'truth'}"]
    command += [f"head={template.with_name('tpl-head_dseg.nii.gz')}", "--nprocs", 2]
    started = time.monotonic()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def overlap(folder: Path, bids: Path, label: str) -> list[float]:
    """Dice of each nucleus, both sides together."""
    from qsmref.registration import dice

    found = _labels(folder / "results" / label / "anat" / f"{label}_atlas-head_dseg.nii.gz")
    truth = _labels(bids / "derivatives" / "truth" / label / "anat" / f"{label}_dseg.nii.gz")
    return [dice(np.isin(found, at), np.isin(truth, at)) for at, _ in NUCLEI.values()]


def _labels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).astype(int)


def differences(folder: Path, label: str) -> list[tuple]:
    """Rows of statistic, largest and root mean square change of a difference, and its pair."""
    anat = folder / "results" / label / "anat"
    tables = {
        atlas: pd.read_csv(anat / f"{label}_atlas-{atlas}_desc-roi_Chimap.tsv", sep="\t")
        .set_index("name")
        for atlas in ("head", "true")
    }  # fmt: skip
    rows = []
    ways = {
        "means": ("mean", "mean"),
        "medians": ("median", "median"),
        "biweights": ("biweight", "biweight"),
        "as written": ("biweight", "mean"),
    }
    for name, (head, true) in ways.items():
        moved = {n: tables["head"].loc[n, head] - tables["true"].loc[n, true] for n in NUCLEI}
        pairs = {f"{a} - {b}": moved[a] - moved[b] for a, b in combinations(NUCLEI, 2)}
        worst = max(pairs, key=lambda pair: abs(pairs[pair]))
        rms = float(np.sqrt(np.mean(np.square(list(pairs.values())))))
        rows.append((name, abs(float(pairs[worst])), rms, worst))
    return rows
