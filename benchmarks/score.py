"""How far a map is from the truth, and how still its differences stand."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import ndimage

from .heads import NUCLEI, Case


def region_means(chi: np.ndarray, kept: np.ndarray, regions: np.ndarray) -> dict[str, float]:
    """Mean of each nucleus over the voxels kept, ppb; NaN where none is left."""
    sums = ndimage.sum_labels(chi, np.where(kept, regions, 0), range(1, len(NUCLEI) + 1))
    counts = np.bincount(regions[kept], minlength=len(NUCLEI) + 1)[1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return dict(zip(NUCLEI, 1e3 * sums / counts, strict=True))


def pairs(means: dict[str, float]) -> np.ndarray:
    """Differences between all pairs of nuclei."""
    return np.array([means[a] - means[b] for a, b in itertools.combinations(NUCLEI, 2)])


def score(chi: np.ndarray, kept: np.ndarray, case: Case) -> dict[str, float]:
    """Kept part of the mask, NRMSE, slope and errors of the differences.

    NRMSE (percent) and slope are of values less their mean over the kept voxels; the errors of the
    differences between pairs of nuclei are in ppb: their mean, and the largest.
    """
    inside = kept & case.mask
    a, b = (m[inside].astype(float) for m in (chi, case.chi))
    offset = a.mean() - b.mean()
    a -= a.mean()
    b -= b.mean()
    errors = np.abs(
        pairs(region_means(chi, inside, case.regions))
        - pairs(region_means(case.chi, inside, case.regions))
    )
    errors = errors[np.isfinite(errors)]
    return {
        "kept": np.count_nonzero(inside) / np.count_nonzero(case.mask),
        "nrmse": 100 * np.linalg.norm(a - b) / np.linalg.norm(b),
        "slope": float(a @ b / (b @ b)),
        "offset": 1e3 * float(offset),
        "pair_mean": float(errors.mean()) if errors.size else np.nan,
        "pair_max": float(errors.max()) if errors.size else np.nan,
    }
