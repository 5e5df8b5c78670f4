"""What the single-step inversion compares with the map: the total field, or filtered fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from .grid import Grid
from .localsystem import inner
from .spheres import (
    fitting,
    second_moment,
    sphere_shape,
    sphere_spectrum,
    sphere_weights,
    spherical_mean,
    weights_spectrum,
)

#: Noise above this many times its median counts as that: all voxels of the mask hold the harmonic
#: field, and near the rim steep fields would take nearly all weight from them. With half of it,
#: the few voxels whose fields are wrong by far more than their noise move differences with the
#: coverage (SD of CN - GP over slabs 0.24 in place of 0.12 ppb).
MOST_NOISE = 9.0

#: Depth (mm) from which on the map is taken for the roughness: far from the rim noise is least.
DEEP_MM = 12.0


class DataTerms(NamedTuple):
    """Data terms of an inversion; kernels are half spectra, the other arrays those of the box."""

    kernels: list[np.ndarray]
    #: 1 + the index of the voxel's term, 0 where nothing is known.
    shell: np.ndarray
    #: rad.
    data: np.ndarray
    #: (typical noise / noise)^2, 0 where nothing is known.
    weight2: np.ndarray
    #: rad.
    typical_noise: float
    #: Voxels with data of their own, and far from the rim.
    served: np.ndarray
    deep: np.ndarray | None = None
    #: mm; None where harmonic functions are free.
    radii: list[float] | None = None
    harmonic: bool = False


def weighed(
    kernels: list[np.ndarray],
    shell: np.ndarray,
    data: np.ndarray,
    weight: np.ndarray,
    served: np.ndarray,
    deep: np.ndarray | None = None,
    radii: list[float] | None = None,
    harmonic: bool = False,
) -> DataTerms:
    """Data terms of arrays of the box; `weight` in 1 / rad."""
    typical = float(1 / np.mean(weight[shell > 0], dtype=float))
    weight2 = weight * weight.dtype.type(typical)
    weight2 *= weight2
    return DataTerms(kernels, shell, data, weight2, typical, served, deep, radii, harmonic)


def harmonic_term(
    work: Grid,
    inside: np.ndarray,
    total: np.ndarray,
    spread: np.ndarray,
    known: np.ndarray,
    dipole: np.ndarray,
) -> DataTerms:
    """The total field itself (rad, with its noise `spread`), harmonic functions free in it.

    Arrays of the box.
    """
    weight = np.zeros_like(total)
    most = MOST_NOISE * np.median(spread[known])
    weight[known] = 1 / np.minimum(spread[known], most)
    depth = ndimage.distance_transform_edt(np.pad(inside, 1), sampling=work.voxel_size)
    deep = depth[1:-1, 1:-1, 1:-1] > min(DEEP_MM, depth.max() / 2)
    served = known & inner(inside)
    shell = known.astype(np.uint8)
    return weighed([dipole], shell, total, weight, served, deep, harmonic=True)


def drift(radii: Sequence[float] | None, voxel_size: Sequence[float]) -> list[float]:
    """What a constant Laplacian of one rad per mm squared makes in the data of each term (rad).

    The sphere's mean of a field of Laplacian L exceeds its value at the centre by L / 6 times the
    sphere's second moment.
    """
    return [1.0] if radii is None else [-second_moment(r, voxel_size) / 6 for r in radii]


def sphere_terms(
    work: Grid,
    radii: Sequence[float],
    inside: np.ndarray,
    total: np.ndarray,
    spread: np.ndarray,
    known: np.ndarray,
    dipole: np.ndarray,
) -> DataTerms:
    """Filtered fields (rad): every voxel in the largest sphere that fits into the mask around it.

    Of the total field and its noise `spread` (rad) in the box; radii in mm.
    """
    inside, total, spread, known = (work.widen(a) for a in (inside, total, spread, known))
    shell = np.zeros(work.grid, np.uint8)
    data, weight = np.zeros_like(total), np.zeros_like(total)
    served, kernels = [], []
    for radius in radii:
        if np.any(np.array(sphere_shape(radius, work.voxel_size)) > work.shape):
            break  # larger than the mask's box
        sphere = sphere_spectrum(work.grid, work.voxel_size, radius, total.dtype)
        fits = known & fitting(inside, sphere, work.transform)
        if not fits.any():
            break  # nor will a larger one
        served.append(radius)
        shell[fits] = len(served)  # radii ascend: the largest that fits stays
        filtered = total - spherical_mean(total, sphere, work.transform)
        squares = sphere_weights(radius, work.voxel_size) ** 2
        squares = weights_spectrum(work.grid, squares, total.dtype)
        variance = spread**2 + spherical_mean(spread**2, squares, work.transform)
        data[fits] = filtered[fits]
        weight[fits] = np.sqrt(1 / variance[fits])
        kernels.append((1 - sphere) * dipole)
    if not served:
        raise ValueError(f"no sphere of {radii[0]} mm fits anywhere in the mask")
    # A sphere whose every voxel fits a larger one serves none, and takes no term.
    used = [n for n in range(len(served)) if np.any(shell == n + 1)]
    numbers = np.zeros(len(served) + 1, np.uint8)
    numbers[np.array(used) + 1] = np.arange(len(used)) + 1
    shell = numbers[shell]
    shell, data, weight = work.crop(shell, data, weight)
    kernels = [kernels[n] for n in used]
    radii = [served[n] for n in used]
    return weighed(kernels, shell, data, weight, shell > 0, shell == len(used), radii)


def neighbour_difference(field: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Root of the summed squares, over axes, of the larger difference to a neighbour in the mask.

    In the unit of the field, and per voxel, not per mm: what counts is how far the field varies
    within a voxel.
    """
    squares = np.zeros_like(field)
    for axis in range(3):
        before = (slice(None),) * axis
        ahead, behind = (*before, slice(1, None)), (*before, slice(None, -1))
        step = np.abs(field[ahead] - field[behind]) * (inside[ahead] & inside[behind])
        largest = np.zeros_like(field)
        largest[behind] = step
        largest[ahead] = np.maximum(largest[ahead], step)
        squares += largest**2
    return np.sqrt(squares)
