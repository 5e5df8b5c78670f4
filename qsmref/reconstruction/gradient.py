"""Gradients of maps, and where the magnitude says that a map may jump."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .jit import numba, parallel_kernel

#: A quarter of a normal distribution lies within this many standard deviations of its mean.
_QUARTILE = 0.3186394

#: The least noise of a magnitude, over its median in the mask: simulated magnitudes without noise
#: would have edges wherever they vary at all. No acquisition comes near.
LEAST_NOISE = 0.005


def edge_mask(
    magnitude: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    edge_fraction: float = 0.9,
) -> np.ndarray:
    """Where the magnitude has no edge, for the three forward differences.

    The threshold is the one that MEDI seeks: gradient components above it, counted over the three
    directions together, make up `edge_fraction` of the number of voxels in the mask. A value of
    0.9 thus calls 30 % of the components edges.

    Parameters
    ----------
    magnitude : (x, y, z) array
        Any unit.
    mask : (x, y, z) bool array
    voxel_size : (3,) float
        mm.
    edge_fraction : float
        Between 0 (no edges) and 3 (all).

    Returns
    -------
    (3, x, y, z) bool array, True where the total variation counts in full.

    References
    ----------
    Liu et al. 2011, doi:10.1002/mrm.22816.
    """
    if not 0 <= edge_fraction <= 3:
        raise ValueError(f"edge_fraction must lie between 0 and 3, got {edge_fraction}")
    inside = np.where(mask, magnitude, 0).astype(np.float32, copy=False)
    steps = np.empty((3, *inside.shape), np.float32)
    for axis, spacing in enumerate(voxel_size):
        last = inside.take([-1], axis)
        steps[axis] = np.abs(np.diff(inside, axis=axis, append=last)) / spacing
    values = steps[steps > 0]
    count = int(edge_fraction * np.count_nonzero(mask))
    if count == 0 or values.size == 0:
        return np.ones(steps.shape, bool)
    if count >= values.size:
        return steps <= 0
    return steps <= np.partition(values, values.size - count)[values.size - count]


def quiet_mask(magnitude: np.ndarray, mask: np.ndarray, threshold: float = 1.5) -> np.ndarray:
    """Where neighbours of the magnitude differ by its noise only, for the three differences.

    The noise of a difference is taken from the lower quartile of all of them within the mask, as
    for a normal distribution: tissue has more neighbours alike than not, and edges, at the upper
    end, do not move it. Unlike a fixed share of edges, this leaves few where there are few. It is
    taken to be :data:`LEAST_NOISE` times the median magnitude at least.

    Parameters
    ----------
    magnitude : (x, y, z) array
        Any unit.
    mask : (x, y, z) bool array
    threshold : float
        Standard deviations of the noise above which a difference is an edge.

    Returns
    -------
    (3, x, y, z) bool array, True where both voxels lie in the mask and no edge is between them.

    Raises
    ------
    ValueError
        For a threshold that is not positive.
    """
    return quiet_masks(magnitude, mask, (threshold,))[0]


def quiet_masks(
    magnitude: np.ndarray, mask: np.ndarray, thresholds: Sequence[float]
) -> list[np.ndarray]:
    """:func:`quiet_mask` for several thresholds, with the differences taken once."""
    for threshold in thresholds:
        if not threshold > 0:
            raise ValueError(f"edge_noise must be positive, got {threshold}")
    steps = np.zeros((3, *magnitude.shape), np.float32)
    for axis in range(3):
        ahead = tuple(slice(1, None) if d == axis else slice(None) for d in range(3))
        behind = tuple(slice(None, -1) if d == axis else slice(None) for d in range(3))
        steps[axis][behind] = np.abs(magnitude[ahead] - magnitude[behind])
    pairs = interior_pairs(mask)
    values = steps[pairs]
    if values.size == 0:
        return [pairs for _ in thresholds]
    quarter = values.size // 4
    noise = np.partition(values, quarter)[quarter] / _QUARTILE
    noise = max(noise, LEAST_NOISE * np.median(magnitude[mask]))
    return [pairs & (steps <= threshold * noise) for threshold in thresholds]


def interior_pairs(mask: np.ndarray) -> np.ndarray:
    """Where a voxel and its next neighbour along each axis both lie in the mask.

    Returns
    -------
    (3, x, y, z) bool array for forward differences; the last plane of each axis is False.
    """
    pairs = np.zeros((3, *mask.shape), bool)
    pairs[0, :-1] = mask[:-1] & mask[1:]
    pairs[1, :, :-1] = mask[:, :-1] & mask[:, 1:]
    pairs[2, :, :, :-1] = mask[:, :, :-1] & mask[:, :, 1:]
    return pairs


@parallel_kernel
def gradient(x: np.ndarray, spacing: np.ndarray, out: np.ndarray) -> None:
    """Forward differences per mm into `out` (3, x, y, z), zero at the last plane of each axis."""
    nx, ny, nz = x.shape
    for i in numba.prange(nx):
        for j in range(ny):
            for k in range(nz):
                here = x[i, j, k]
                out[0, i, j, k] = (x[i + 1, j, k] - here) / spacing[0] if i + 1 < nx else 0
                out[1, i, j, k] = (x[i, j + 1, k] - here) / spacing[1] if j + 1 < ny else 0
                out[2, i, j, k] = (x[i, j, k + 1] - here) / spacing[2] if k + 1 < nz else 0


@parallel_kernel
def gradient_adjoint(g: np.ndarray, spacing: np.ndarray, out: np.ndarray) -> None:
    """Adjoint of :func:`gradient`: minus the divergence of `g` (3, x, y, z), into `out`."""
    _, nx, ny, nz = g.shape
    for i in numba.prange(nx):
        for j in range(ny):
            for k in range(nz):
                value = g[0, i - 1, j, k] / spacing[0] if i > 0 else g.dtype.type(0)
                if i + 1 < nx:
                    value -= g[0, i, j, k] / spacing[0]
                if j > 0:
                    value += g[1, i, j - 1, k] / spacing[1]
                if j + 1 < ny:
                    value -= g[1, i, j, k] / spacing[1]
                if k > 0:
                    value += g[2, i, j, k - 1] / spacing[2]
                if k + 1 < nz:
                    value -= g[2, i, j, k] / spacing[2]
                out[i, j, k] = value
