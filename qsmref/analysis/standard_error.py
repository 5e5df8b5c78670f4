"""How exactly the mean of a region is known, from the scatter and the smoothness inside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

#: Correlation is followed up to this distance (mm); beyond it a region has few pairs of voxels,
#: and anatomy, not noise, decides what they share.
REACH_MM = 10.0
#: A correlation below this is taken for zero, and with it every longer lag of that axis.
LEAST_CORRELATION = 0.05


def _shifted(array: np.ndarray, axis: int, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Two views of an array, one `lag` voxels after the other along an axis."""
    start, stop = [slice(None)] * array.ndim, [slice(None)] * array.ndim
    start[axis], stop[axis] = slice(lag, None), slice(None, -lag)
    return array[tuple(start)], array[tuple(stop)]


def _covariances(
    residual: np.ndarray, inside: np.ndarray, variance: float, axis: int, lags: int
) -> list[float]:
    """Mean product of residuals at lags 1, 2, ... along an axis, while enough pairs exist."""
    least = max(0.2 * np.count_nonzero(inside), 4)
    covariances: list[float] = []
    for lag in range(1, min(lags, inside.shape[axis] - 1) + 1):
        pairs = np.count_nonzero(np.logical_and(*_shifted(inside, axis, lag)))
        if pairs < least:
            break
        late, early = _shifted(residual, axis, lag)
        covariances.append(float(np.einsum("ijk,ijk->", late, early)) / int(pairs))
        # Correcting for the fitted mean does not lift this lag over the threshold, so no later
        # one is used; in a large region the correction is nil, and the first negative lag ends it.
        if covariances[-1] < (-0.3 * variance if least < 2000 else 0.0):
            break
    return covariances


def standard_error(values: np.ndarray, inside: np.ndarray, voxel_size: Sequence[float]) -> float:
    r"""Standard error of the mean over a region whose voxels are correlated.

    .. math::

        \mathrm{se}^2 = \sigma^2 V, \quad
        V = \frac{1}{n^2} \sum_{i, j} \rho(r_i - r_j), \quad
        \sigma^2 = \frac{\sum_i (x_i - \bar x)^2}{n (1 - V)}

    where the sum runs over all pairs of voxels of the region and the correlation is taken as
    separable, :math:`\rho(r) = \rho_x \rho_y \rho_z`. Each factor is measured inside the region
    along its axis, up to the first lag under 0.05, and corrected for the fitted mean
    (:math:`E[c_k] = \sigma^2 (\rho_k - V)`), which makes the equations implicit: they are iterated.
    For uncorrelated voxels this is the textbook ``sd / sqrt(n)``.

    Parameters
    ----------
    values : (x, y, z) array
        Any unit.
    inside : (x, y, z) bool array
        The region.
    voxel_size : (3,) float
        mm.

    Returns
    -------
    float, in the unit of `values`; NaN for a region of one voxel.

    Notes
    -----
    Against the true scatter of the mean of simulated noise, in regions of 67 to 4,400 voxels (RN,
    SN, CN, PU at 1 x 1 x 1 to 0.6 x 0.6 x 2 mm): within 21 % for white noise and Gaussian smoothing
    of 0.5 and 1 mm (SD); 8 to 27 % too small for exponential correlation over 1 mm, and up to 28 %
    for nuclei not much wider than their smoothing (RN and SN at 2 mm). White noise on a smooth
    component of equal variance is no separable correlation: there it is 1.1 to 2.3 times too
    small. In the smoothed cases ``sd / sqrt(n)`` is 1.3 to 16 times too small.

    It contains what varies *inside* the region: noise and real heterogeneity alike. It does not
    contain what the voxels share: the map's offset, a streak or a shadow wider than the region, an
    error of the region's outline.

    References
    ----------
    Bayley & Hammersley 1946, doi:10.2307/2983560 (effective number of correlated observations).
    """
    inside = np.asarray(inside, dtype=bool)
    n = np.count_nonzero(inside)
    if n < 2:
        return float("nan")
    residual = np.where(inside, values, 0).astype(np.float64)
    residual -= residual.sum() / n
    residual[~inside] = 0
    variance = float(np.einsum("ijk,ijk->", residual, residual)) / n
    if variance == 0:
        return 0.0
    covariances = [
        _covariances(residual, inside, variance, axis, int(REACH_MM / voxel_size[axis]))
        for axis in range(3)
    ]
    region = inside.astype(np.float64)
    shared = 1 / float(n)
    for _ in range(8):
        total = variance / (1 - shared)
        reach = region
        for axis, measured in enumerate(covariances):
            rho = _correlation(np.array(measured) / total + shared)
            if rho.size:
                kernel = np.concatenate([rho[::-1], [1.0], rho])
                reach = ndimage.convolve1d(reach, kernel, axis=axis, mode="constant")
        # A region that moves as one voxel (shared = 1) has no scatter to learn from: half is
        # where the estimate stops.
        update = min(max(float(np.einsum("ijk,ijk->", reach, region)) / n**2, 1 / n), 0.5)
        converged = abs(update - shared) < 1e-3 * shared
        shared = update
        if converged:
            break
    return float(np.sqrt(variance * shared / (1 - shared)))


def _correlation(rho: np.ndarray) -> np.ndarray:
    """The leading part of a correlation that falls with every lag and stays above noise."""
    rho = np.minimum(rho, 1.0)
    falling = np.concatenate([[True], np.diff(rho) <= 0])[: rho.size]
    keep = (rho >= LEAST_CORRELATION) & falling
    return rho[: keep.size if keep.all() else int(np.argmin(keep))]
