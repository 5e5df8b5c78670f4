"""The offset of a map as a field: how smooth it is, and how far it cancels in differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import ndimage

from ..reconstruction.fft import Transform, good_size
from .study import Variant

#: Width (mm, SD) of the Gaussian whose mean is the smooth part of an offset.
SMOOTH_MM = 8.0

#: Balls whose means stand for regions: their number, radius (mm), and the width of the bins of
#: their distance (mm).
PROBES = 400
PROBE_MM = 4.0
BIN_MM = 5.0


def smooth_part(
    offset: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float], mm: float = SMOOTH_MM
) -> np.ndarray:
    """Gaussian mean of what lies in the mask, zero outside; unit as given."""
    sigma = [mm / h for h in voxel_size]
    weight = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant")
    total = ndimage.gaussian_filter(
        np.where(mask, offset, 0).astype(np.float32), sigma, mode="constant"
    )
    return np.where(mask, total / np.maximum(weight, 1e-6), 0).astype(np.float32)


def autocorrelation(
    field: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float], step: float = 2.0
) -> pd.DataFrame:
    """Correlation of a field's values at two voxels of the mask, against their distance.

    The mean over the mask is taken off. Pairs of all directions count alike.

    Returns
    -------
    DataFrame
        ``distance_mm`` (mean of the bin) and ``correlation``, up to half of the mask's extent.
    """
    inside = np.where(mask, field - field[mask].mean(dtype=float), 0).astype(np.float64)
    grid = [good_size(2 * n) for n in mask.shape]
    transform = Transform(mask.shape, grid)
    whole = Transform(grid)

    def products(array):
        spectrum = transform.forward(array)
        return whole.inverse((np.abs(spectrum) ** 2).astype(spectrum.dtype))

    sums, pairs = products(inside), products(mask.astype(np.float64))
    lags = [
        np.minimum(np.arange(n), n - np.arange(n)) * h
        for n, h in zip(grid, voxel_size, strict=True)
    ]
    distance = np.sqrt(lags[0][:, None, None] ** 2 + lags[1][:, None] ** 2 + lags[2] ** 2)
    longest = 0.5 * max(np.ptp(np.argwhere(mask), axis=0) * voxel_size)
    bins = np.floor(distance / step + 0.5).astype(int).ravel()
    kept = (distance.ravel() <= longest) & (pairs.ravel() > 0.5)
    count = np.bincount(bins[kept], pairs.ravel()[kept])
    total = np.bincount(bins[kept], sums.ravel()[kept])
    away = np.bincount(bins[kept], (distance * pairs).ravel()[kept])
    filled = count > 0
    variance = inside[mask].var()
    if variance == 0:
        variance = np.nan
    return pd.DataFrame(
        {
            "distance_mm": away[filled] / count[filled],
            "correlation": total[filled] / count[filled] / variance,
        }
    )


def correlation_length(curve: pd.DataFrame) -> float:
    """Distance (mm) at which the correlation first falls to 1/e; not a number if it does not."""
    below = np.flatnonzero(curve["correlation"].to_numpy() <= np.exp(-1))
    if not below.size or below[0] == 0:
        return float("nan")
    a, b = below[0] - 1, below[0]
    r, c = curve["distance_mm"].to_numpy(), curve["correlation"].to_numpy()
    return float(r[a] + (c[a] - np.exp(-1)) / (c[a] - c[b]) * (r[b] - r[a]))


def describe(field: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float]) -> dict[str, float]:
    """Mean, spread and correlation lengths of an offset (ppm), and of its smooth part, in ppb."""
    smooth = smooth_part(field, mask, voxel_size)
    return {
        "mean": 1e3 * float(field[mask].mean(dtype=float)),
        "sd": 1e3 * float(field[mask].std(dtype=float)),
        "smooth_sd": 1e3 * float(smooth[mask].std(dtype=float)),
        "correlation_length_mm": correlation_length(autocorrelation(field, mask, voxel_size)),
        "smooth_correlation_length_mm": correlation_length(
            autocorrelation(smooth, mask, voxel_size)
        ),
    }


def offset_table(
    maps: Mapping[Variant, tuple[np.ndarray, np.ndarray]],
    truth: np.ndarray,
    voxel_size: Sequence[float],
    sweeps: Mapping[str, Sequence[Variant]],
) -> pd.DataFrame:
    """What the offset of the reference map looks like, and its change along each sweep.

    Returns
    -------
    DataFrame
        ``what`` (``error``: map minus truth of the widest, least eroded mask; ``change over
        SWEEP``: the map of the least coverage minus that of the most), and the columns of
        :func:`describe`.
    """
    reference = next(iter(maps))
    chi, valid = maps[reference]
    rows = [{"what": "error", **describe(chi - truth, valid, voxel_size)}]
    for sweep, variants in sweeps.items():
        ends = sorted(variants, key=lambda v: (v.slab_mm, -v.erosion_mm))
        (small, in_small), (large, in_large) = maps[ends[0]], maps[ends[-1]]
        if len(ends) > 1:
            both = in_small & in_large
            row = describe(np.where(both, small - large, 0), both, voxel_size)
            rows.append({"what": f"change over {sweep}", **row})
    return pd.DataFrame(rows)


def stability_by_distance(
    maps: Mapping[Variant, tuple[np.ndarray, np.ndarray]],
    truth: np.ndarray,
    voxel_size: Sequence[float],
    sweeps: Mapping[str, Sequence[Variant]],
    seed: int = 0,
) -> pd.DataFrame:
    """How the difference of two balls holds over a sweep, against their distance.

    Balls of :data:`PROBE_MM` lie anywhere in the part that all masks hold, and stand for regions.

    Returns
    -------
    DataFrame
        ``sweep``, ``distance_mm`` (0 for the balls alone, without reference), ``n_pairs``, ``sd``
        (root mean square over pairs of the SD over masks) and ``bias`` (root mean square of the
        mean error), ppb. Where nothing is as wide as a ball, no rows.
    """
    common = np.logical_and.reduce([valid for _, valid in maps.values()])
    ball = _ball(voxel_size)
    share = ndimage.correlate(common.astype(np.float32), ball / ball.sum(), mode="constant")
    places = np.argwhere(share > 0.999)
    columns = ["sweep", "distance_mm", "n_pairs", "sd", "bias"]
    if len(places) < 2:
        return pd.DataFrame(columns=columns)
    rng = np.random.default_rng([seed, 1])
    chosen = places[rng.permutation(len(places))[:PROBES]]
    steps = np.argwhere(ball > 0) - np.array(ball.shape) // 2
    voxels = tuple(np.moveaxis(chosen[:, None] + steps, -1, 0))
    errors = {
        v: 1e3 * (chi[voxels].mean(axis=1, dtype=float) - truth[voxels].mean(axis=1, dtype=float))
        for v, (chi, _) in maps.items()
    }
    i, j = np.triu_indices(len(chosen), 1)
    distance = np.linalg.norm((chosen[i] - chosen[j]) * np.asarray(voxel_size), axis=1)
    bins = np.floor(distance / BIN_MM).astype(int)
    rows = []
    for sweep, variants in sweeps.items():
        values = np.stack([errors[v] for v in variants])
        rows.append((sweep, 0.0, len(chosen), _spread(values), _rms(values.mean(axis=0))))
        pairs = values[:, i] - values[:, j]
        for number in np.unique(bins):
            inside = bins == number
            if np.count_nonzero(inside) >= 20:
                part = pairs[:, inside]
                rows.append(
                    (sweep, float(distance[inside].mean()), int(np.count_nonzero(inside)),
                     _spread(part), _rms(part.mean(axis=0)))
                )  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _ball(voxel_size: Sequence[float]) -> np.ndarray:
    reach = [int(PROBE_MM / h) for h in voxel_size]
    axes = [np.arange(-n, n + 1) * h for n, h in zip(reach, voxel_size, strict=True)]
    square = axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2
    return (square <= PROBE_MM**2 * (1 + 1e-6)).astype(np.float32)


def _spread(values: np.ndarray) -> float:
    return _rms(values.std(axis=0, ddof=1)) if len(values) > 1 else float("nan")


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
