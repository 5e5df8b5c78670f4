"""The head of the phantom study: its field under a condition, its masks and regions of interest."""

from __future__ import annotations

import importlib.resources
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..images import b0_direction
from ..problems import DataError, ExitCode
from ..reconstruction.mask import brain_mask, erode
from ..units import radians_per_ppm
from .acquisition import echo_signal
from .fields import make_fields, random_stream
from .grid import ParameterError
from .head import Head, Region
from .labels import LabelImage, read_label_image
from .study import Condition, Study, Variant

#: mm around the brain that are kept: what a picture of the head needs.
_MARGIN_MM = 16.0

_AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Measured:
    """What a condition measures, on the box around the brain, and the truth behind it.

    Arrays are (x, y, z) float32 in ppm unless said.
    """

    total: np.ndarray
    #: Standard deviation of the total field, or None where it is exact.
    noise: np.ndarray | None
    #: Root of the sum of squares over the echoes, any unit.
    magnitude: np.ndarray
    #: Brain, bool.
    mask: np.ndarray
    chi: np.ndarray
    #: Field of the true brain mask's own susceptibility.
    local: np.ndarray
    #: 0, or 1 + the place of a region of interest in the table.
    rois: np.ndarray
    affine: np.ndarray
    voxel_size: tuple[float, float, float]
    b0_dir: tuple[float, float, float]
    #: mm from the middle of the image, of the slices of the box.
    heights: np.ndarray


def read_rois(path: str | os.PathLike | None = None) -> pd.DataFrame:
    """Table of the regions of interest; without a path that of the analytic head.

    Columns: ``name``; ``index``, labels joined by commas; optionally ``x_low``, ``x_high``,
    ``y_low``, ..., ``z_high``: mm from the middle of the image along its axes, which the centres
    of voxels must lie within.

    Raises
    ------
    DataError
        A missing or unreadable file, a missing column, a name twice, a number that is none.
    """
    if path is None:
        path = importlib.resources.files("qsmref") / "data" / "study" / "rois.tsv"
    elif not Path(path).is_file():
        raise DataError(f"{path} does not exist.", ExitCode.MISSING_INPUT)
    with path.open(encoding="utf-8") if hasattr(path, "open") else open(path) as stream:
        try:
            table = pd.read_csv(stream, sep="\t", dtype=str, keep_default_na=False)
        except (ValueError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a tab-separated table ({error}).") from error
    for column in ("name", "index"):
        if column not in table:
            raise DataError(f"{path} has no column {column!r}; it needs name and index.")
    if table.empty or table["name"].duplicated().any() or (table["name"] == "").any():
        raise DataError(f"{path} must name each region of interest once.")
    if "W_brain" in set(table["name"]):
        raise DataError(f"{path} has a region called W_brain, which means the whole mask.")
    try:
        table["index"] = [[int(i) for i in cell.split(",")] for cell in table["index"]]
        for column in table.columns.intersection([f"{a}_{e}" for a in _AXES for e in _ENDS]):
            table[column] = [_limit(cell, column) for cell in table[column]]
    except ValueError as error:
        raise DataError(f"{path} has a cell that is no number ({error}).") from error
    return table


_ENDS = ("low", "high")


def _limit(cell: str, column: str) -> float:
    if cell in ("", "n/a"):
        return -np.inf if column.endswith("low") else np.inf
    return float(cell)


def make_head(
    study: Study,
    labels: str | os.PathLike | None = None,
    susceptibility: str | os.PathLike | None = None,
    mask: str | os.PathLike | None = None,
) -> Head | LabelImage:
    """The analytic head with the study's susceptibilities, or a label image with those of a table.

    White matter has that of the study where it says so.
    """
    if labels is not None:
        if susceptibility is None:
            raise ParameterError("A label image needs a table of susceptibilities.")
        head: Head | LabelImage = read_label_image(labels, susceptibility, mask)
    else:
        head = Head()
        source = importlib.resources.files("qsmref") / "data" / "study" / "susceptibility.tsv"
        with source.open(encoding="utf-8") as stream:
            table = pd.read_csv(stream, sep="\t", keep_default_na=False)
        values = dict(zip(table["name"], table["susceptibility_ppm"], strict=True))
        head = head.with_regions(
            tuple(replace(r, susceptibility_ppm=float(values[r.name])) for r in head.regions)
        )
    if study.white_matter_ppm is None:
        return head
    wm = [r.index for r in head.regions if r.name.lower() in ("wm", "white matter")]
    if not wm:
        raise ParameterError("The head has no white matter whose susceptibility could be set.")
    return head.with_regions(
        tuple(
            replace(r, susceptibility_ppm=study.white_matter_ppm) if r.index in wm else r
            for r in head.regions
        )
    )


def is_air(region: Region) -> bool:
    """Whether a region is air: outside the brain and without a proton."""
    return not region.brain and region.m0 == 0


def under(head: Head | LabelImage, condition: Condition) -> Head | LabelImage:
    """The head with the surroundings of a condition."""

    def changed(region: Region) -> Region:
        if region.brain:
            return region
        if condition.air_ppm is None:
            return replace(region, susceptibility_ppm=0.0)
        if is_air(region):
            return replace(region, susceptibility_ppm=condition.air_ppm)
        return region

    return head.with_regions(tuple(changed(r) for r in head.regions))


def measure(study: Study, head: Head | LabelImage, rois: pd.DataFrame, condition: Condition):
    """Field of the head under a condition, as it is measured.

    Returns
    -------
    Measured

    Raises
    ------
    DataError
        A region of interest without a voxel, or two that share one.
    """
    head = under(head, condition)
    grid = head.grid(study.matrix, study.voxel_size, study.oblique)
    fields = make_fields(head, grid, study.supersample, study.texture, study.shim_order, study.seed)
    protocol = study.protocol
    magnitude, phase = echo_signal(head, fields, protocol, study.texture, study.seed)
    combined = np.sqrt(np.einsum("xyze,xyze->xyz", magnitude, magnitude))
    size, b0_dir = grid.voxel_size, b0_direction(grid.affine)
    mask = fields.mask
    if study.mask == "magnitude":
        mask = brain_mask(combined, size, up=b0_dir)
    middle = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(grid.shape, size, strict=True)]
    regions = _regions(rois, fields.labels, middle)
    total, noise = fields.total_ppm, None
    if study.signal == "echoes":
        total, noise = _fitted(study, magnitude, phase, combined, mask, size)
    elif np.isfinite(study.snr):
        total, noise = _noisy(study, total, magnitude)
    # All that a reconstruction uses lies in the mask; the true brain is wanted for the truth.
    box = _box(mask | fields.mask, size)
    first = [s.start for s in box]
    affine = grid.affine.copy()
    affine[:3, 3] += grid.affine[:3, :3] @ first

    def cut(array):
        return None if array is None else np.ascontiguousarray(array[box])

    return Measured(
        cut(total), cut(noise), cut(combined), cut(mask), cut(fields.chi), cut(fields.local_ppm),
        cut(regions), affine, size, b0_dir, middle[2][box[2]],
    )  # fmt: skip


def variant_mask(
    mask: np.ndarray,
    heights: np.ndarray,
    voxel_size: tuple[float, float, float],
    variant: Variant,
    centre: float = 0.0,
) -> np.ndarray:
    """Mask of a variant: whole slices of the slab, eroded in plane and at the ends of the brain.

    The ends of the slab are not eroded: that is where the scan ended.

    Parameters
    ----------
    mask : (x, y, z) bool array
    heights : (z,) array
        mm of the slices.
    voxel_size : (3,) float
        mm.
    variant : Variant
    centre : float
        mm, middle of the slab.
    """
    half = variant.slab_mm / 2
    # Half open, so that any even number of slices fits; rounding must not decide.
    kept = (heights >= centre - half - 1e-6) & (heights < centre + half - 1e-6)
    if not (mask & kept).any():
        raise DataError(f"A slab of {variant.slab_mm:g} mm at {centre:g} mm holds no brain.")
    return erode(mask, variant.erosion_mm, voxel_size) & kept


def _regions(rois: pd.DataFrame, labels: np.ndarray, middle) -> np.ndarray:
    out = np.zeros(labels.shape, np.uint8)
    for place, row in enumerate(rois.to_dict("records")):
        inside = np.isin(labels, row["index"])
        for axis, name in enumerate(_AXES):
            low, high = row.get(f"{name}_low", -np.inf), row.get(f"{name}_high", np.inf)
            within = (middle[axis] >= low - 1e-6) & (middle[axis] <= high + 1e-6)
            inside &= np.moveaxis(within[:, None, None], 0, axis)
        if not inside.any():
            raise DataError(f"The region of interest {row['name']} has no voxel in this head.")
        if out[inside].any():
            raise DataError(f"The region of interest {row['name']} shares voxels with another.")
        out[inside] = 1 + place
    return out


def _fitted(study: Study, magnitude, phase, combined, mask, size):
    """Total field and its noise (ppm) from the echoes, as the command line does it."""
    from ..reconstruction.checks import echo_spacing
    from ..reconstruction.echoes import fit_echoes
    from ..reconstruction.unwrapping import unwrap

    fit = fit_echoes(
        magnitude, phase, study.echo_times, mask, method=study.echo_fit, voxel_size=size
    )
    field = unwrap(fit.field, size, method=study.unwrap, magnitude=combined, mask=mask)
    frequency = study.protocol.imaging_frequency * 1e6
    scale = np.float32(1 / radians_per_ppm(echo_spacing(study.echo_times), frequency))
    return field * scale, fit.noise * scale


def _noisy(study: Study, total: np.ndarray, magnitude: np.ndarray):
    """The field with the least noise (Cramer-Rao) of a line over echoes of this magnitude."""
    from .acquisition import BRAIN_MAGNITUDE

    sigma = BRAIN_MAGNITUDE / study.snr
    times = np.asarray(study.echo_times)
    weight = magnitude.astype(np.float64) ** 2
    a11, a12, a22 = weight.sum(axis=-1), weight @ times, weight @ times**2
    slope = np.full(a11.shape, np.inf)
    known = a11 * a22 - a12**2 > 1e-12 * a11 * a22
    slope[known] = np.sqrt(a11[known] / (a11 * a22 - a12**2)[known])
    # rad per s over that of 1 ppm; where there is no signal the phase is random.
    noise = sigma * slope / (2 * np.pi * study.protocol.imaging_frequency)
    noise = np.minimum(noise, 1.0).astype(np.float32)
    drawn = random_stream(study.seed, "noise").standard_normal(total.shape, dtype=np.float32)
    return total + noise * drawn, noise


def _box(mask: np.ndarray, voxel_size) -> tuple[slice, ...]:
    box = []
    for axis, n in enumerate(mask.shape):
        margin = int(_MARGIN_MM / voxel_size[axis])
        other = tuple(a for a in range(3) if a != axis)
        where = np.flatnonzero(mask.any(axis=other))
        box.append(slice(max(0, where[0] - margin), min(n, where[-1] + 1 + margin)))
    return tuple(box)
