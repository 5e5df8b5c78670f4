"""Spherical mean values: the filter that harmonic (background) fields pass unchanged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft

from .fft import Transform


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
    """
    if radius <= 0:
        raise ValueError(f"radius must be positive (mm), got {radius}")
    h = np.asarray(voxel_size, dtype=float)
    half = np.ceil(radius / h - 0.5).astype(int).clip(0)
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
    return weights / weights.sum()


def sphere_spectrum(
    grid: Sequence[int], voxel_size: Sequence[float], radius: float, dtype=np.float32
) -> np.ndarray:
    """Half spectrum (real) of the normalised sphere on a periodic grid; 1 at k = 0."""
    return weights_spectrum(grid, sphere_weights(radius, voxel_size), dtype)


def weights_spectrum(grid: Sequence[int], weights: np.ndarray, dtype=np.float32) -> np.ndarray:
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
