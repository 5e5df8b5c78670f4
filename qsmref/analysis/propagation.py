r"""What the noise of the echoes does to the mean of a region, and to the difference of two.

Noise drawn as the echo fit says is added to the field, and the field goes through the same
background removal and inversion as the map. The covariance of the region means over such
repeats holds what the regions share: in a difference it cancels,
:math:`\mathrm{var}(d_{ij}) = C_{ii} + C_{jj} - 2 C_{ij}`. What the inversion does to noise depends
on the map itself (total variation, edges, weights), so that no filter stands for it; repeats do.

They are made on a coarse grid: white noise averaged over blocks of voxels is white again, and the
noise that is left in the mean of a region is that of long wavelengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..reconstruction import invert, remove_background
from ..reconstruction.crop import bounding_box

#: Blocks of voxels are no longer than this (mm).
COARSE_MM = 4.0
#: Part of a block that must lie in the mask.
_LEAST = 0.5


class NoiseMaps(NamedTuple):
    """Maps of a coarse grid that differ by noise only; :func:`noise_maps` makes them."""

    #: (x, y, z, repeat) float32, ppm; zero outside the coarse mask.
    maps: np.ndarray
    #: (x, y, z) bool array: where the coarse map is valid.
    mask: np.ndarray
    #: Voxels of the fine grid in a block, one number per axis.
    factors: tuple[int, ...]
    #: First fine voxel of the coarse grid, one per axis.
    start: tuple[int, ...]


def noise_maps(
    field: np.ndarray,
    noise: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    repeats: int = 20,
    magnitude: np.ndarray | None = None,
    b0_dir: Sequence[float] = (0, 0, 1),
    radians_per_ppm: float,
    background: str = "none",
    background_params: Mapping[str, Any] | None = None,
    inversion: str = "single-step",
    inversion_params: Mapping[str, Any] | None = None,
    csf: np.ndarray | None = None,
    coarse_mm: float = COARSE_MM,
    seed: int = 0,
) -> NoiseMaps:
    """Maps of the same field with other noise.

    Parameters
    ----------
    field, noise : (x, y, z) arrays
        Total field and its standard deviation, ppm.
    mask : (x, y, z) bool array
        Where the field is known.
    voxel_size : (3,) float
        mm.
    repeats : int
        Number of maps, two or more; the error of a standard deviation of n maps is
        1 / sqrt(2 n - 2) of it.
    magnitude, b0_dir, radians_per_ppm, csf
        As for :func:`qsmref.reconstruction.invert`.
    background, background_params, inversion, inversion_params
        Methods and parameters that the map was made with; with ``lambda_`` as it was used, where
        the method chooses it. Total variation holds noise back the more, the larger the noise is
        beside the steps of the map, so that `lambda_` is multiplied by the root of the number of
        voxels in a block (measured: see the documentation).
    coarse_mm : float
        Voxels are averaged in blocks up to this length.
    seed : int
        Of the noise: the same input gives the same result.

    Returns
    -------
    NoiseMaps

    Raises
    ------
    ValueError
        Less than two repeats, no voxel with known noise, or what the methods raise.
    """
    if repeats < 2:
        raise ValueError(f"the error by noise needs two repeats or more, got {repeats}")
    factors = tuple(max(1, int(coarse_mm / h * (1 + 1e-6))) for h in voxel_size)
    box = bounding_box(mask)
    blurred, spread, inside = _coarse(field[box], noise[box], mask[box], factors)
    size = tuple(h * f for h, f in zip(voxel_size, factors, strict=True))
    common = {"b0_dir": b0_dir, "noise": spread}
    extra = {
        "magnitude": None if magnitude is None else _mean(magnitude[box], factors),
        "csf": None if csf is None else _mean(csf[box], factors) > _LEAST,
    }
    extra = {name: value for name, value in extra.items() if value is not None and value.any()}
    rng = np.random.default_rng(seed)
    parameters = dict(inversion_params or {})
    if isinstance(parameters.get("lambda_"), int | float):
        parameters["lambda_"] = float(parameters["lambda_"] * np.sqrt(np.prod(factors)))
    maps = np.zeros((*inside.shape, repeats), dtype=np.float32)
    valid = inside
    for repeat in range(repeats):
        drawn = (blurred + spread * rng.standard_normal(inside.shape)).astype(np.float32)
        local, cut, _ = remove_background(
            drawn, inside, size, method=background, **common, **(background_params or {})
        )
        chi, cut, _ = invert(
            local,
            cut,
            size,
            method=inversion,
            radians_per_ppm=radians_per_ppm,
            **common,
            **extra,
            **parameters,
        )
        maps[..., repeat] = chi
        valid = valid & cut
    start = tuple(int(s.start) for s in box)
    return NoiseMaps(maps * valid[..., None], valid, factors, start)


def _coarse(
    field: np.ndarray, noise: np.ndarray, mask: np.ndarray, factors: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Field (float64), its noise (float32) and mask on blocks of voxels, weighted by the noise."""
    known = mask & (noise > 0) & np.isfinite(noise)
    if not known.any():
        raise ValueError("the noise of the field is known nowhere in the mask")
    weight = np.zeros(field.shape, dtype=np.float64)
    weight[known] = 1 / noise[known].astype(np.float64) ** 2
    total = _blocks(weight, factors)
    filled = total > 0
    inside = filled & (_blocks(mask.astype(np.float64), factors) >= _LEAST * np.prod(factors))
    if not inside.any():
        raise ValueError("the mask is too thin for a coarse grid")
    safe = np.where(filled, total, 1)
    blurred = _blocks(weight * np.where(known, field, 0), factors) / safe
    spread = np.where(filled, 1 / np.sqrt(safe), 0).astype(np.float32)
    return np.where(filled, blurred, 0), spread, inside


def noise_covariance(
    noisy: NoiseMaps, samples: Mapping[str, np.ndarray], shape: Sequence[int]
) -> pd.DataFrame:
    """Covariance (ppb squared) that the noise gives to the means of regions.

    Parameters
    ----------
    noisy : NoiseMaps
        Of :func:`noise_maps`.
    samples : mapping of str to array
        Flat indices (C order, fine grid) of the voxels of each region.
    shape : (3,) int
        Of the fine grid.

    Returns
    -------
    DataFrame
        Names of the regions as rows and columns. NaN where a region has no voxel, or less than
        half of it in the blocks of the coarse mask.
    """
    values = noisy.maps[noisy.mask].astype(np.float64) * 1000
    place = np.full(noisy.mask.shape, -1)
    place[noisy.mask] = np.arange(len(values))
    means = np.full((len(samples), noisy.maps.shape[3]), np.nan)
    for row, voxels in enumerate(samples.values()):
        at = np.unravel_index(voxels, shape)
        blocks = [(i - s) // f for i, s, f in zip(at, noisy.start, noisy.factors, strict=True)]
        sound = np.all(
            [(b >= 0) & (b < n) for b, n in zip(blocks, noisy.mask.shape, strict=True)], axis=0
        )
        hit = place[tuple(b[sound] for b in blocks)]
        hit = hit[hit >= 0]
        if hit.size and hit.size >= _LEAST * voxels.size:
            means[row] = np.bincount(hit, minlength=len(values)) @ values / hit.size
    means -= means.mean(axis=1, keepdims=True)
    covariance = means @ means.T / (means.shape[1] - 1)
    names = list(samples)
    return pd.DataFrame(covariance, index=names, columns=names)


def _blocks(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Sums over blocks of voxels; the last ones may be smaller."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            array = np.add.reduceat(array, np.arange(0, array.shape[axis], factor), axis=axis)
    return array


def _mean(array: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    ones = _blocks(np.ones(array.shape, dtype=np.float32), factors)
    return (_blocks(array.astype(np.float32), factors) / ones).astype(np.float32)
