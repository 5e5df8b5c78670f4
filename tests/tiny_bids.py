"""A BIDS dataset small enough to be processed in a second, made without the package's phantom."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

from qsmref.reconstruction.dipole import GAMMA_HZ_PER_T, forward_field

SHAPE = (24, 26, 22)
VOXEL = 4.0
ECHO_TIMES = (0.005, 0.010, 0.015)
FIELD_STRENGTH = 3.0
#: ppm by label; 1 and 2 are two boxes, 3 the ventricle.
SUSCEPTIBILITY = {1: 0.10, 2: 0.05, 3: 0.0}
NAMES = {1: "SN_L", 2: "CN", 3: "CSF"}


def affine(oblique: float = 0.0) -> np.ndarray:
    """Affine of the images, turned about x by an angle in degrees."""
    c, s = np.cos(np.deg2rad(oblique)), np.sin(np.deg2rad(oblique))
    result = np.eye(4)
    result[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) * VOXEL
    result[:3, 3] = -40.0
    return result


def head() -> tuple[np.ndarray, np.ndarray]:
    """Brain mask and labels."""
    centre = (np.array(SHAPE) - 1) / 2
    place = np.moveaxis(np.indices(SHAPE), 0, -1) - centre
    mask = np.linalg.norm(place / (0.4 * np.array(SHAPE)), axis=-1) < 1
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[7:10, 11:15, 9:13] = 1
    labels[14:17, 11:15, 9:13] = 2
    labels[11:13, 11:15, 9:13] = 3
    return mask, labels


def susceptibility() -> np.ndarray:
    """Truth, ppm."""
    _, labels = head()
    chi = np.zeros(SHAPE, dtype=np.float32)
    for label, value in SUSCEPTIBILITY.items():
        chi[labels == label] = value
    return chi


def write_image(path: Path, array: np.ndarray, image_affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine() if image_affine is None else image_affine), path)
    return path


def write_json(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def edit_json(path: Path, **changes) -> None:
    """Change keys of a sidecar; a value of None removes the key."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    write_json(path, {k: v for k, v in content.items() if v is not None})


def skull() -> np.ndarray:
    """What has signal: the brain, a shell around it, and in the shell a cavity with air."""
    centre = (np.array(SHAPE) - 1) / 2
    place = np.moveaxis(np.indices(SHAPE), 0, -1) - centre
    shell = np.linalg.norm(place / (0.48 * np.array(SHAPE)), axis=-1) < 1
    cavity = np.linalg.norm(place - np.array([0, 8, -7]), axis=-1) < 3
    return shell & (~cavity | head()[0])


def write_echoes(
    root: Path,
    label: str,
    *,
    entities: str = "",
    oblique: float = 0.0,
    air: float = 0.0,
) -> Path:
    """Magnitude and phase of a participant; returns the folder.

    With `air`, its susceptibility (ppm), the brain has a shell with a cavity around it.
    """
    mask = skull() if air else head()[0]
    rng = np.random.default_rng(7)
    place = affine(oblique)
    b0 = place[2, :3] / VOXEL
    field = forward_field(susceptibility(), (VOXEL,) * 3, tuple(b0))
    if air:
        around = air * ~mask
        field = field + forward_field(around.astype(np.float32), (VOXEL,) * 3, tuple(b0))
    folder = root / f"sub-{label}" / "anat"
    for echo, time in enumerate(ECHO_TIMES, start=1):
        signal = np.where(mask, 100 * np.exp(-time / 0.04), 2.0)
        turns = 1e-6 * GAMMA_HZ_PER_T * FIELD_STRENGTH * field * time
        signal = signal * np.exp(1j * (0.4 + 2 * np.pi * turns))
        signal = signal + 0.2 * (rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE))
        sidecar = {
            "EchoTime": time,
            "MagneticFieldStrength": FIELD_STRENGTH,
            "RepetitionTimeExcitation": 0.04,
            "MTState": False,
        }
        stem = f"sub-{label}{entities}_echo-{echo}_part-{{}}_MEGRE"
        parts = {"mag": np.abs(signal), "phase": np.angle(signal)}
        for part, values in parts.items():
            name = stem.format(part)
            write_image(folder / f"{name}.nii.gz", values.astype(np.float32), place)
            extra = {"Units": "rad"} if part == "phase" else {}
            write_json(folder / f"{name}.json", sidecar | extra)
    return folder


def join_echoes(folder: Path, suffix: str = "MEGRE") -> Path:
    """Put the echoes of a participant into one file a part, as some converters do."""
    for part in ("mag", "phase"):
        paths = sorted(folder.glob(f"*_echo-*_part-{part}_MEGRE.nii.gz"))
        arrays = [np.asarray(nib.load(path).dataobj) for path in paths]
        stem, _, _ = paths[0].name.partition("_echo-")
        joined = folder / f"{stem}_part-{part}_{suffix}.nii.gz"
        write_image(joined, np.stack(arrays, axis=-1), nib.load(paths[0]).affine)
        sidecars = [folder / path.name.replace(".nii.gz", ".json") for path in paths]
        contents = [json.loads(path.read_text(encoding="utf-8")) for path in sidecars]
        times = [content["EchoTime"] for content in contents]
        write_json(folder / f"{stem}_part-{part}_{suffix}.json", contents[0] | {"EchoTime": times})
        for path in (*paths, *sidecars):
            path.unlink()
    return folder


def write_description(root: Path, **content) -> None:
    description = {"Name": "tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw", **content}
    write_json(root / "dataset_description.json", description)


def make_dataset(root: Path, labels=("01",), **options) -> Path:
    """Raw dataset with one participant a label; options of :func:`write_echoes`."""
    write_description(root, License="CC0", Authors=["A", "B"])
    (root / "README").write_text("A dataset for tests.\n")
    for label in labels:
        write_echoes(root, label, **options)
    return root


def make_regions(root: Path, labels=("01",), *, with_map: bool = False) -> Path:
    """Derivative with brain mask and regions; with the true map if asked."""
    write_description(
        root, Name="regions", DatasetType="derivative", GeneratedBy=[{"Name": "drawn"}]
    )
    mask, regions = head()
    for label in labels:
        stem = root / f"sub-{label}" / "anat" / f"sub-{label}"
        write_image(Path(f"{stem}_desc-brain_mask.nii.gz"), mask.astype(np.uint8))
        write_image(Path(f"{stem}_dseg.nii.gz"), regions)
        rows = "".join(f"{index}\t{name}\n" for index, name in NAMES.items())
        Path(f"{stem}_dseg.tsv").write_text("index\tname\n" + rows, encoding="utf-8")
        if with_map:
            write_image(Path(f"{stem}_Chimap.nii.gz"), susceptibility() + 0.02 * mask)
            write_json(Path(f"{stem}_Chimap.json"), {"Units": "ppm", "SkullStripped": True})
    return root
