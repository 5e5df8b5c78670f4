"""Spherical mean values: the filter that harmonic (background) fields pass unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import scipy.fft

from .fft import Transform

#: A sphere fits where it holds this part of its weight within the mask.
_FITS = 0.9995


def sphere_weights(radius: float, voxel_size: Sequence[float], samples: int = 12) -> np.ndarray:
    """Normalised sphere on voxels, each voxel weighted by the part of it inside the sphere.

    Parameters
    ----------
    radius : float
        mm.
    voxel_size : (3,) float
        mm.
    samples : int
        Points per voxel and axis at which the shell is sampled.

    Returns
    -------
    (2 a + 1, 2 b + 1, 2 c + 1) float64 array that sums to one, centred on its middle voxel. A
    sphere smaller than the voxel gives a single one.

    Notes
    -----
    On anisotropic voxels the sampled sphere is longer along the longer sides, and would not pass
    harmonic fields of second order: at 1 x 1 x 2 mm a sphere of 2 mm leaves 6 % of a background
    behind, one of 3 mm 1 %. The weights are corrected so that their second moments are equal,
    which leaves a tenth to a thirtieth of that. A sphere that reaches no neighbour along some
    axis cannot be corrected; neither is one whose weights would turn negative (a radius under
    about three quarters of the longest side).
    """
    if radius <= 0:
        raise ValueError(f"radius must be positive (mm), got {radius}")
    return _sphere_weights(float(radius), tuple(float(h) for h in voxel_size), samples).copy()


@lru_cache(maxsize=16)
def _sphere_weights(radius: float, voxel_size: tuple[float, ...], samples: int) -> np.ndarray:
    h = np.asarray(voxel_size)
    half = _reach(radius, voxel_size)
    axes = [np.arange(-n, n + 1) * s for n, s in zip(half, h, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    ax, ay, az = np.abs(x), np.abs(y), np.abs(z)
    far = np.sqrt((ax + h[0] / 2) ** 2 + (ay + h[1] / 2) ** 2 + (az + h[2] / 2) ** 2)
    near = np.sqrt(
        np.maximum(ax - h[0] / 2, 0) ** 2
        + np.maximum(ay - h[1] / 2, 0) ** 2
        + np.maximum(az - h[2] / 2, 0) ** 2
    )
    weights = (far <= radius).astype(float)
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    ox, oy, oz = np.meshgrid(*(offsets * s for s in h), indexing="ij")
    for i, j, k in np.argwhere((near < radius) & (far > radius)):
        inside = (axes[0][i] + ox) ** 2 + (axes[1][j] + oy) ** 2 + (axes[2][k] + oz) ** 2
        weights[i, j, k] = np.mean(inside <= radius**2)
    return _equal_moments(weights / weights.sum(), x, y, z)


def _equal_moments(weights: np.ndarray, x, y, z) -> np.ndarray:
    """`weights` with one second moment for all axes, by a factor a + b x^2 + c y^2 + d z^2."""
    moments = [np.sum(weights * c**2) for c in (x, y, z)]
    if min(weights.shape) < 3 or np.ptp(moments) <= 1e-9 * max(moments):
        return weights
    terms = [np.broadcast_to(t, weights.shape) for t in (1.0, x**2, y**2, z**2)]
    gram = np.array([[np.sum(weights * p * q) for q in terms] for p in terms])
    factors = np.linalg.lstsq(gram, [1.0, *[np.mean(moments)] * 3], rcond=None)[0]
    corrected = weights * sum(f * t for f, t in zip(factors, terms, strict=True))
    equal = [np.sum(corrected * c**2) for c in (x, y, z)]
    # A stencil of neighbours alone may have too few weights to choose from.
    sound = corrected.min() >= 0 and np.ptp(equal) <= 1e-6 * max(equal)
    return corrected if sound else weights


def sphere_shape(radius: float, voxel_size: Sequence[float]) -> tuple[int, ...]:
    """Voxels along each axis that a sphere of `radius` (mm) reaches from the centre of one."""
    return tuple(int(2 * n + 1) for n in _reach(radius, voxel_size))


def _reach(radius: float, voxel_size: Sequence[float]) -> np.ndarray:
    return np.ceil(radius / np.asarray(voxel_size, float) - 0.5).astype(int).clip(0)


def second_moment(radius: float, voxel_size: Sequence[float]) -> float:
    """Mean squared distance (mm squared) from the centre under :func:`sphere_weights`.

    Three fifths of the radius squared for a sphere of many voxels.
    """
    weights = sphere_weights(radius, voxel_size)
    axes = [
        ((np.arange(n) - n // 2) * h) ** 2 for n, h in zip(weights.shape, voxel_size, strict=True)
    ]
    return float(np.sum(weights * sum(np.meshgrid(*axes, indexing="ij"))))


def sphere_spectrum(
    grid: Sequence[int],
    voxel_size: Sequence[float],
    radius: float,
    dtype: npt.DTypeLike = np.float32,
) -> np.ndarray:
    """Half spectrum (real) of the normalised sphere on a periodic grid; 1 at k = 0."""
    return weights_spectrum(grid, sphere_weights(radius, voxel_size), dtype)


def weights_spectrum(
    grid: Sequence[int], weights: np.ndarray, dtype: npt.DTypeLike = np.float32
) -> np.ndarray:
    """Half spectrum (real) of a symmetric stencil centred on the origin of a periodic grid."""
    if any(w > g for w, g in zip(weights.shape, grid, strict=True)):
        raise ValueError(
            f"a stencil of {weights.shape} voxels does not fit on a grid of {tuple(grid)}"
        )
    field = np.zeros(grid)
    field[tuple(slice(0, n) for n in weights.shape)] = weights
    field = np.roll(field, [-(n // 2) for n in weights.shape], axis=(0, 1, 2))
    # A symmetric stencil has a real spectrum.
    return scipy.fft.rfftn(field).real.astype(dtype)


def spherical_mean(x: np.ndarray, spectrum: np.ndarray, transform: Transform) -> np.ndarray:
    """Convolve an array of ``transform.shape`` with a stencil given by its spectrum."""
    f = transform.forward(x)
    f *= spectrum
    return transform.inverse(f)


def fitting(mask: np.ndarray, spectrum: np.ndarray, transform: Transform) -> np.ndarray:
    """Where the sphere of a spectrum lies within the mask, but for rounding."""
    return spherical_mean(mask.astype(np.float32), spectrum, transform) > _FITS
