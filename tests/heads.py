"""A small head with a T1-weighted image, shapes of which differ as heads do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import tiny_bids as tiny
from scipy.ndimage import gaussian_filter, map_coordinates

from qsmref import images

SHAPE = (32, 36, 30)
VOXEL = 4.0
AFFINE = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
AFFINE[:3, 3] = [-62.0, -70.0, -58.0]
#: By label: centre and half axes (mm), T1-weighted value; both sides have one label.
PARTS = {
    1: ((18, 8, 4), (9, 16, 9), 70.0),
    2: ((-18, 8, 4), (9, 16, 9), 70.0),
    3: ((0, -18, -14), (13, 9, 9), 50.0),
}
NAMES = {1: "PU_L", 2: "PU_R", 3: "stem"}


def coordinates() -> np.ndarray:
    """World coordinates of the voxels, (3, x, y, z) mm."""
    index = np.indices(SHAPE).reshape(3, -1)
    world = AFFINE[:3, :3] @ index + AFFINE[:3, 3:]
    return world.reshape(3, *SHAPE)


def bend(seed: int, amount: float = 4.0) -> np.ndarray:
    """A smooth displacement of some mm, (3, x, y, z)."""
    rng = np.random.default_rng(seed)
    field = np.stack([gaussian_filter(rng.standard_normal(SHAPE), 5) for _ in range(3)])
    return amount * field / field.std()


def head(seed: int | None = None, bone: float = 6.0) -> dict[str, np.ndarray]:
    """T1-weighted image, brain mask and labels of a head; the seed makes its shape.

    `bone` is how thick (mm) the skull is, dark in every image; the scalp ends 10 mm off the brain.
    """
    place = coordinates() + (0 if seed is None else bend(seed))
    scale = 1.0 if seed is None else 1 + 0.03 * np.random.default_rng([seed, 1]).standard_normal()

    def inside(centre, axes):
        return sum(((scale * p - c) / a) ** 2 for p, c, a in zip(place, centre, axes, strict=True))

    brain = inside((0, 0, 0), (44, 52, 40)) < 1
    values = np.where(inside((0, 0, 0), (54, 62, 50)) < 1, 40.0, 0.0)
    # Nothing else ends the brain of a magnitude, whose scalp is brighter than the brain.
    values[inside((0, 0, 0), (44 + bone, 52 + bone, 40 + bone)) < 1] = 5.0
    values[brain] = 100.0
    values[brain & (inside((0, 0, 0), (36, 44, 33)) > 1)] = 80.0
    values[brain & (inside((0, 0, 8), (6, 20, 10)) < 1)] = 25.0
    labels = np.zeros(SHAPE, dtype=np.int16)
    for label, (centre, axes, value) in PARTS.items():
        part = inside(centre, axes) < 1
        values[part], labels[part] = value, label
    rng = np.random.default_rng(5)
    values = gaussian_filter(values, 0.4) + rng.normal(0, 1, SHAPE) * (values > 0)
    return {"t1w": values.astype(np.float32), "mask": brain, "labels": labels}


def moved(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Array resampled so that ``matrix`` leads from its world back to that of the given one."""
    world = np.vstack([coordinates().reshape(3, -1), np.ones(array.size)])
    index = (np.linalg.inv(AFFINE) @ matrix @ world)[:3]
    return map_coordinates(array, index, order=1).reshape(array.shape).astype(np.float32)


def write_template(folder: Path) -> Path:
    """The head without a seed: image, mask beside it, labels with their table."""
    parts = head()
    stem = folder / "tpl-round_res-01"
    image = images.save(parts["t1w"], Path(f"{stem}_T1w.nii.gz"), AFFINE)
    images.save(parts["mask"], Path(f"{stem}_desc-brain_mask.nii.gz"), AFFINE)
    images.save(parts["labels"], Path(f"{stem}_dseg.nii.gz"), AFFINE)
    write_names(Path(f"{stem}_dseg.tsv"))
    return image


def write_names(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{index}\t{name}\n" for index, name in NAMES.items())
    path.write_text("index\tname\n" + rows, encoding="utf-8")


def echoes(parts: dict[str, np.ndarray], seed: int) -> list[tuple[float, np.ndarray]]:
    """Echo times (s) and complex signals (x, y, z) of a head, with noise."""
    chi = 0.1 * (parts["labels"] > 0)
    field = tiny.forward_field(chi.astype(np.float32), (VOXEL,) * 3)
    rng = np.random.default_rng(seed)
    measured = []
    for time in tiny.ECHO_TIMES:
        # Another contrast than that of the T1-weighted image: it is the other way round.
        signal = np.where(parts["t1w"] > 20, 130 - parts["t1w"], 1) * np.exp(-time / 0.04)
        turns = 1e-6 * tiny.GAMMA_HZ_PER_T * tiny.FIELD_STRENGTH * field * time
        signal = signal * np.exp(2j * np.pi * turns)
        noise = rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE)
        measured.append((time, signal + 0.2 * noise))
    return measured


def write_participant(root: Path, label: str, seed: int, t1w: np.ndarray | None = None) -> dict:
    """Echoes with a magnitude of the same head, a T1-weighted image; a derivative with its mask.

    `t1w` is a world affine by which the T1-weighted image is moved; without it there is none.
    """
    parts = head(seed)
    folder = root / f"sub-{label}" / "anat"
    for echo, (time, signal) in enumerate(echoes(parts, seed), start=1):
        stem = folder / f"sub-{label}_echo-{echo}_part-"
        sidecar = {"EchoTime": time, "MagneticFieldStrength": tiny.FIELD_STRENGTH}
        sidecar |= {"RepetitionTimeExcitation": 0.04, "MTState": False}
        for part, values in (("mag", np.abs(signal)), ("phase", np.angle(signal))):
            path = Path(f"{stem}{part}_MEGRE.nii.gz")
            images.save(values.astype(np.float32), path, AFFINE)
            extra = {"Units": "rad"} if part == "phase" else {}
            tiny.write_json(path.with_name(path.name.replace(".nii.gz", ".json")), sidecar | extra)
    if t1w is not None:
        path = folder / f"sub-{label}_T1w.nii.gz"
        images.save(moved(parts["t1w"], t1w), path, AFFINE)
        (folder / f"sub-{label}_T1w.json").write_text(json.dumps({"EchoTime": 0.003}))
    own = root.parent / "masks" / f"sub-{label}" / "anat" / f"sub-{label}_desc-brain_mask.nii.gz"
    images.save(parts["mask"], own, AFFINE)
    return parts
