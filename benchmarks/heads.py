"""Heads of known susceptibility with raw multi-echo data.

Two kinds. *Same model*: the piecewise constant head of ``make_head.py`` run through the program
qsm-forward, whose discrete dipole is the one that a reconstruction inverts: flattering. *Other
model*: heads of :mod:`qsmref.phantom`, made on a grid twice as fine with texture inside the
tissues, complex signals averaged over each voxel, then noise; partial volume, wraps, phase of the
receiver and (in two of four) an oblique B0 come with it.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

import qsmref

#: Nuclei between whose means differences are scored; `Case.regions` holds 1 + their place here.
NUCLEI = ("CN", "PU", "GP", "TH", "RN", "SN", "DN")

#: Hz per tesla, of the program qsm-forward's own documentation of the echoes (3 T, 4 ms spacing).
THREE_TESLA_HZ = 3 * 42.577478518e6


class Unavailable(Exception):
    """A head that cannot be had here; the message says what is missing."""


@dataclass(frozen=True)
class Case:
    """Raw data of one head and the truth behind it."""

    name: str
    #: (x, y, z, echo) float32, any unit.
    magnitude: np.ndarray
    #: (x, y, z, echo) float32, rad.
    phase: np.ndarray
    #: s
    echo_times: tuple[float, ...]
    #: Susceptibility, ppm.
    chi: np.ndarray
    #: Field of everything and of the brain alone, ppm.
    total: np.ndarray
    local: np.ndarray
    mask: np.ndarray
    #: 0, or 1 + index into NUCLEI.
    regions: np.ndarray
    #: mm
    voxel_size: tuple[float, float, float]
    #: In voxel axes.
    b0_dir: tuple[float, float, float]
    #: Hz
    imaging_frequency: float

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **{f.name: getattr(self, f.name) for f in fields(self)})
        partial.rename(path)

    @classmethod
    def load(cls, path: Path) -> Case:
        with np.load(path) as stored:
            values = {name: stored[name] for name in stored.files}
        for name, value in values.items():
            if value.ndim < 2:
                values[name] = value.item() if value.ndim == 0 else tuple(map(float, value))
        return cls(**values)

    def with_sources(self, chi: np.ndarray, field: np.ndarray) -> Case:
        """The same head with susceptibility `chi` (ppm) added, whose field is `field` (ppm)."""
        radians = 2 * np.pi * self.imaging_frequency * 1e-6 * np.asarray(self.echo_times)
        angle = self.phase + field[..., None] * radians.astype(np.float32)
        return replace(
            self,
            phase=np.angle(np.exp(1j * angle)).astype(np.float32),
            chi=self.chi + chi,
            total=self.total + field,
            local=self.local + field,
        )


@dataclass(frozen=True)
class Sources:
    """Folders and programs that heads are made of."""

    #: Where finished heads are kept.
    cache: Path
    #: Results of ``make_head.py``: it holds ``phantom/`` and ``results/``.
    heads: Path | None = None
    #: Python of an environment that has qsm-forward, to make those that are missing.
    forward_python: Path | None = None
    #: Folder of ``data/`` and ``bench/``.
    shared: Path | None = None


def qsm_forward(sources: Sources, name: str, matrix, voxel_size) -> Case:
    """A head of ``make_head.py``, made by the program qsm-forward where it is not there yet."""
    import nibabel as nib

    folder = sources.heads
    if folder is None or not (folder / "results" / name).is_dir():
        folder = sources.cache / "qsm-forward"
        if not (folder / "results" / name).is_dir():
            _run_qsm_forward(sources, folder, name, matrix, voxel_size)

    def load(path, dtype=np.float32):
        return np.asarray(nib.load(folder / path).dataobj, dtype=dtype)

    raw = f"results/{name}/sub-1/anat/sub-1_echo-{{}}_part-{{}}_MEGRE.nii"
    echoes = range(1, 9)
    truth = f"results/{name}/derivatives/qsm-forward/sub-1/anat/sub-1_{{}}.nii"
    labels = load(f"phantom/{name}/seg.nii.gz", np.int16)
    mask = load(f"phantom/{name}/mask.nii.gz") > 0
    # Its labels 4 to 10 are the nuclei in the order of NUCLEI.
    regions = np.where((labels >= 4) & (labels <= 10) & mask, labels - 3, 0).astype(np.uint8)
    return Case(
        name,
        np.stack([load(raw.format(n, "mag")) for n in echoes], axis=-1),
        np.stack([load(raw.format(n, "phase")) for n in echoes], axis=-1),
        tuple(0.004 * n for n in echoes),
        load(f"phantom/{name}/chi.nii.gz"),
        load(truth.format("desc-shimmed_fieldmap")),
        load(truth.format("fieldmap-local")),
        mask,
        regions,
        tuple(map(float, voxel_size)),
        (0.0, 0.0, 1.0),
        THREE_TESLA_HZ,
    )


def _run_qsm_forward(sources: Sources, folder: Path, name: str, matrix, voxel_size) -> None:
    script = sources.shared / "bench" / "make_head.py" if sources.shared else None
    if sources.forward_python is None or script is None or not script.is_file():
        raise Unavailable(
            f"{name} needs QSMREF_BENCH_HEADS (finished heads), or QSMREF_BENCH_FORWARD (a Python "
            "with qsm-forward) and --shared (make_head.py)"
        )
    folder.mkdir(parents=True, exist_ok=True)
    command = [sources.forward_python, script, name, *matrix, *voxel_size]
    subprocess.run([str(part) for part in command], cwd=folder, check=True)


def phantom(name: str, head, matrix, voxel_size, nuclei: dict[str, str], **parameters) -> Case:
    """A head of :mod:`qsmref.phantom`; `nuclei` maps names in its table to those of NUCLEI."""
    from qsmref.phantom import simulate

    acquisition = simulate(head, matrix, voxel_size, seed=1, **parameters)
    regions = np.zeros(acquisition.labels.shape, np.uint8)
    for region in head.regions:
        if region.name in nuclei:
            place = NUCLEI.index(nuclei[region.name])
            regions[(acquisition.labels == region.index) & acquisition.mask] = 1 + place
    return Case(
        name,
        acquisition.magnitude,
        acquisition.phase,
        tuple(acquisition.protocol.echo_times),
        acquisition.chi,
        acquisition.total_field_ppm,
        acquisition.local_field_ppm,
        acquisition.mask,
        regions,
        acquisition.voxel_size,
        tuple(map(float, acquisition.b0_dir)),
        acquisition.protocol.imaging_frequency * 1e6,
    )


def analytic(name: str, matrix, voxel_size, **parameters) -> Case:
    from qsmref.phantom import Head

    same = {nucleus: nucleus for nucleus in NUCLEI}
    return phantom(name, Head(), matrix, voxel_size, same, **parameters)


def labelled(sources: Sources, name: str, voxel_size, supersample, **parameters) -> Case:
    """The label model of a whole head in ``data/head-segmentation``."""
    from qsmref.phantom import read_label_image

    folder = sources.shared / "data" / "head-segmentation" if sources.shared else None
    if folder is None or not folder.is_dir():
        raise Unavailable(f"{name} needs --shared (data/head-segmentation)")
    head = read_label_image(
        folder / "head_dseg.nii.gz",
        folder / "head_dseg.tsv",
        folder / "head_desc-brain_mask.nii.gz",
    )
    nuclei = {
        "caudate": "CN",
        "putamen": "PU",
        "globus pallidus": "GP",
        "thalamus": "TH",
        "red nucleus": "RN",
        "substantia nigra + STN": "SN",
        "dentate nucleus": "DN",
    }
    return phantom(name, head, None, voxel_size, nuclei, supersample=supersample, **parameters)


EIGHT = tuple(0.004 * n for n in range(1, 9))
#: The acquisition of the study: four echoes.
FOUR = (0.0034, 0.0094, 0.0154, 0.0214)

#: Name -> (what it is, how it is made).
HEADS: dict[str, tuple[str, Callable[[Sources], Case]]] = {
    "head128": (
        "same model, 128 x 128 x 128 at 1.5 mm, 8 echoes",
        lambda s: qsm_forward(s, "head128", (128, 128, 128), (1.5, 1.5, 1.5)),
    ),
    "head256": (
        "same model, 256 x 256 x 80 at 0.9375 x 0.9375 x 2 mm, 8 echoes",
        lambda s: qsm_forward(s, "head256", (256, 256, 80), (0.9375, 0.9375, 2)),
    ),
    "analytic-1.5": (
        "other model, 128 x 128 x 128 at 1.5 mm, 8 echoes",
        lambda s: analytic(
            "analytic-1.5", (128, 128, 128), (1.5, 1.5, 1.5),
            echo_times=EIGHT, supersample=2, texture=0.2,
        ),
    ),
    "labels-1.5": (
        "other model, label head, 109 x 136 x 136 at 1.5 mm, 8 echoes, B0 15 degrees oblique",
        lambda s: labelled(
            s, "labels-1.5", (1.5, 1.5, 1.5), 2, echo_times=EIGHT, texture=0.2, oblique=15.0
        ),
    ),
    "analytic-1x1x2": (
        "other model, 176 x 208 x 76 at 1 x 1 x 2 mm, 4 echoes, B0 20 degrees oblique",
        lambda s: analytic(
            "analytic-1x1x2", (176, 208, 76), (1.0, 1.0, 2.0),
            echo_times=FOUR, supersample=2, texture=0.2, oblique=20.0,
        ),
    ),
    "labels-1x1x2": (
        "other model, label head, 163 x 204 x 102 at 1 x 1 x 2 mm, 4 echoes",
        lambda s: labelled(
            s, "labels-1x1x2", (1.0, 1.0, 2.0), (2, 2, 3), echo_times=FOUR, texture=0.2
        ),
    ),
    "speed-256x256x74": (
        "one point a voxel, 256 x 256 x 74 at 1 x 1 x 2 mm, 4 echoes: for timing",
        lambda s: analytic(
            "speed-256x256x74", (256, 256, 74), (1.0, 1.0, 2.0), echo_times=FOUR
        ),
    ),
    "memory-352x352x80": (
        "one point a voxel, 352 x 352 x 80 at 0.625 x 0.625 x 2 mm, 4 echoes: for memory",
        lambda s: analytic(
            "memory-352x352x80", (352, 352, 80), (0.625, 0.625, 2.0), echo_times=FOUR
        ),
    ),
}  # fmt: skip

#: Heads of the accuracy table.
ACCURACY = tuple(HEADS)[:6]


def cached(name: str, sources: Sources) -> Path:
    """Where a head is kept: another file when the code that makes heads has changed."""
    package = Path(qsmref.__file__).parent
    makers = [Path(__file__), package / "reconstruction" / "dipole.py"]
    makers += sorted((package / "phantom").glob("*.py"))
    digest = hashlib.sha256(b"".join(maker.read_bytes() for maker in makers)).hexdigest()
    return sources.cache / f"{name}-{digest[:8]}.npz"


def get(name: str, sources: Sources) -> Case:
    """A head, from the cache when it has been made before."""
    path = cached(name, sources)
    if not path.is_file():
        HEADS[name][1](sources).save(path)
    return Case.load(path)
