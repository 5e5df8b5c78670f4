"""What the phantom study writes: tables, figures, maps, and every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import __version__, files, images, tables
from ..reconstruction.dipole import GAMMA_HZ_PER_T
from . import study_figures, study_tables
from .study import Study
from .study_offset import BIN_MM, PROBE_MM, PROBES, SMOOTH_MM, smooth_part


@dataclass(frozen=True)
class Tables:
    """Tables of all chains and conditions."""

    #: Of :func:`qsmref.phantom.study_tables.region_values`.
    values: pd.DataFrame
    #: Of :func:`qsmref.phantom.study_offset.offset_table`.
    offsets: pd.DataFrame
    #: Of :func:`qsmref.phantom.study_offset.stability_by_distance`.
    distances: pd.DataFrame


@dataclass(frozen=True)
class Shown:
    """Images of the conditions (one each) and of the first chain; ppm."""

    truths: Sequence[np.ndarray]
    fields: Sequence[np.ndarray]
    locals: Sequence[np.ndarray]
    #: Field that the inversion was given, for each condition that the chain has.
    removed: Sequence[np.ndarray]
    #: 0, or 1 + the place of a region of interest.
    rois: np.ndarray
    #: Conditions, and for each of them the variants.
    maps: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]
    affine: np.ndarray


def write(
    out: Path,
    study: Study,
    head: str,
    infos: Sequence[Mapping[str, Any]],
    found: Tables,
    done: Mapping[str, Any],
    shown: Shown,
) -> None:
    """Write everything into a folder.

    Parameters
    ----------
    out : Path
        A new folder.
    study : Study
    head : str
        Which head, in words.
    infos : sequence of mapping
        What the conditions' fields say of themselves.
    found : Tables
    done : mapping
        From chain, condition and variant to what each step did.
    shown : Shown
    """
    names = list(infos[0]["names"])
    differences = study_tables.differences(found.values)
    first = study_tables.table_one(differences, names)
    order = study_tables.structure(first, names)
    for name, table in (
        ("table1", first),
        ("structure", order),
        ("values", found.values),
        ("differences", differences),
        ("offset", found.offsets),
        ("distance", found.distances),
    ):
        tables.write_tsv(out / f"{name}.tsv", table)
    files.write_text(out / "table1.md", study_tables.markdown(first, study))
    files.write_json(out / "study.json", _parameters(study, head, infos, done))
    _write_maps(out / "maps", study, shown)
    study_figures.draw_all(out / "figures", study, names, found, differences, shown)


def _parameters(study: Study, head: str, infos, done) -> dict[str, Any]:
    conditions = {
        c.name: {"title": c.title, "air_ppm": c.air_ppm, "removal_stops_early": c.early}
        for c in study.conditions
    }
    return {
        "program": f"qsmref {__version__}",
        "head": head,
        "study": study.as_dict(),
        "conditions": conditions,
        "field": {
            "kernel": "D(k) = 1/3 - (k.b)^2 / k^2, D(0) = 0, for the tissue with one point per "
            "voxel; the mean over cuboid voxels for what surrounds it, and on finer grids",
            "padding": "twofold along each axis",
            "gamma_hz_per_t": GAMMA_HZ_PER_T,
            "box_voxels": infos[0]["box"],
            "voxel_size_mm": infos[0]["voxel_size"],
            "b0_dir": infos[0]["b0_dir"],
        },
        "regions": dict(zip(infos[0]["names"], infos[0]["voxels"], strict=True)),
        "standard_deviations": "over the masks of a sweep, n - 1",
        "offset": {
            "smooth_part": f"Gaussian mean in the mask, SD {SMOOTH_MM:g} mm",
            "probes": f"{PROBES} balls of radius {PROBE_MM:g} mm, bins of {BIN_MM:g} mm",
        },
        "chains": dict(done),
    }


def _write_maps(folder: Path, study: Study, shown: Shown) -> None:
    count = len(study.variants)
    for place, condition in enumerate(study.conditions):
        images.save(shown.truths[place], folder / f"truth_{condition.name}.nii.gz", shown.affine)
        maps = shown.maps[place * count : (place + 1) * count]
        masks = shown.masks[place * count : (place + 1) * count]
        for variant, chi, mask in zip(study.variants, maps, masks, strict=False):
            name = f"map_{condition.name}_{variant.name}.nii.gz"
            images.save(chi, folder / name, shown.affine)
            if variant == study.variants[0]:
                offset = np.where(mask, chi - shown.truths[place], 0).astype(np.float32)
                smooth = smooth_part(offset, mask, images.voxel_size(shown.affine))
                images.save(offset, folder / f"offset_{condition.name}.nii.gz", shown.affine)
                images.save(smooth, folder / f"smooth_{condition.name}.nii.gz", shown.affine)
