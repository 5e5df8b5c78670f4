"""The same field under masks of other coverage: what a difference is worth when less was covered.

A sweep cuts the slab and erodes the mask, reconstructs each time, and measures the regions in what
is left of them. A region that the mask cuts is measured in its remaining voxels, and its coverage
stands beside it, so that a smaller region never passes for the same one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..reconstruction.mask import cut_slab, erode
from .reference import differential_table
from .region_methods import STATISTICS

#: The columns of a table of coverages as a BIDS sidecar describes them.
COLUMNS = {
    "slab_cut_mm": {
        "Description": "What the slab of the mask is thinner by, half of it at either end; 0 is "
        "all of it",
        "Units": "mm",
    },
    "erosion_mm": {"Description": "Erosion of the mask; 0 is none", "Units": "mm"},
    "region": {"Description": "Name of the region"},
    "reference": {
        "Description": "Name of the region or reference that is subtracted; n/a for the region "
        "alone, whose value contains the arbitrary zero of the map"
    },
    "difference": {
        "Description": "Mean of the region minus mean of the reference, over the voxels that are "
        "in the mask; n/a where there are none",
        "Units": "ppb",
    },
    "coverage_region": {
        "Description": "Part of the region's voxels that lies in the mask (0 to 1); of brain, "
        "part of the whole mask"
    },
    "coverage_reference": {
        "Description": "The same of the reference; n/a for the region alone",
    },
}

_TYPES = {"reference": object, "difference": float}
_TYPES |= {"coverage_region": float, "coverage_reference": float}


def coverage_mask(
    mask: np.ndarray,
    slab_cut_mm: float,
    erosion_mm: float,
    voxel_size: Sequence[float],
    axis: int = 2,
) -> np.ndarray:
    """Mask of a narrower slab, eroded.

    Parameters
    ----------
    mask : (x, y, z) bool array
    slab_cut_mm : float
        What the slab becomes thinner by: half of it is cut off the mask at either end, in whole
        slices.
    erosion_mm : float
        Depth of the erosion. The ends of the cut slab are not eroded: there the image was
        cut, and the head goes on.
    voxel_size : (3,) float
        mm.
    axis : int
        Axis of the slab.

    Returns
    -------
    (x, y, z) bool array

    Raises
    ------
    ValueError
        A negative length, a cut that is less than half a slice at either end, an erosion that takes
        no voxel, or nothing left.
    """
    slices = round(slab_cut_mm / 2 / voxel_size[axis])
    if slab_cut_mm > 0 and slices == 0:
        raise ValueError(
            f"a slab cut of {slab_cut_mm:g} mm is {slab_cut_mm / 2:g} mm at either end, which is "
            f"less than half a slice of {voxel_size[axis]:g} mm"
        )
    cut = cut_slab(mask, slab_cut_mm / 2, voxel_size, axis)
    eroded = erode(mask, erosion_mm, voxel_size)
    if erosion_mm > 0 and np.array_equal(eroded, mask):
        raise ValueError(
            f"an erosion of {erosion_mm:g} mm takes nothing from voxels of "
            f"{' x '.join(f'{h:g}' for h in voxel_size)} mm"
        )
    cut &= eroded
    if not cut.any():
        raise ValueError(
            f"a slab cut of {slab_cut_mm:g} mm with an erosion of {erosion_mm:g} mm leaves nothing "
            "of the mask"
        )
    return cut


def coverage_table(
    tables: Mapping[tuple[float, float], pd.DataFrame | None],
    references: Iterable[str] | None = None,
    *,
    statistic: str = "mean",
) -> pd.DataFrame:
    """Every region and every difference under each mask of a sweep.

    Parameters
    ----------
    tables : mapping
        From slab cut and erosion (mm) to the region table (with its reference rows) of the map that
        was made with this mask; None where nothing could be made. (0, 0) must be there.
    references : iterable of str, optional
        As for :func:`~qsmref.analysis.differential_table`.
    statistic : {"mean", "median", "biweight"}
        What of a region is told, and what differences are made of.

    Returns
    -------
    DataFrame
        :data:`COLUMNS` describes the columns. First come all regions and references alone, mask by
        mask, then the pairs. A mask without a table has its rows, with NaN and coverage 0.

    Raises
    ------
    ValueError
        The whole mask is missing, or the tables do not have the same rows.
    """
    whole = tables.get((0.0, 0.0))
    if whole is None:
        raise ValueError("a table of coverages needs the table of the whole mask")
    names = list(whole["name"])
    references = list(references) if references else None
    alone, pairs = [], []
    for (slab, erosion), table in tables.items():
        if table is None:
            lost = dict.fromkeys((*STATISTICS, "se"), np.nan)
            table = whole.assign(n_voxels=0, coverage=0.0, **lost)
        if list(table["name"]) != names:
            raise ValueError("the tables of a sweep differ in their regions")
        # Of the mask itself all is in the mask: what counts is how much of it is left.
        count = table.set_index("name")["n_voxels"].astype(float)
        coverage = np.where(
            table["name"] == "brain",
            count.get("brain", np.nan) / max(_brain(whole), 1),
            table["coverage"],
        )
        table = table.assign(coverage=coverage)
        cover = {"slab_cut_mm": float(slab), "erosion_mm": float(erosion)}
        rows: dict[str, Any] = {"region": names, "reference": None}
        rows["difference"] = table[statistic].to_numpy()
        rows |= {"coverage_region": coverage, "coverage_reference": np.nan}
        alone.append(pd.DataFrame({**cover, **rows}, columns=list(COLUMNS)).astype(_TYPES))
        found = differential_table(table, references, statistic=statistic).assign(**cover)
        pairs.append(found[list(COLUMNS)].astype(_TYPES))
    return pd.concat([*alone, *pairs], ignore_index=True)


def _brain(table: pd.DataFrame) -> float:
    voxels = table.loc[table["name"] == "brain", "n_voxels"]
    return float(voxels.iloc[0]) if len(voxels) else 0.0
