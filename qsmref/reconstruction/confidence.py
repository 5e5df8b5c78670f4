"""Which voxels of a map have data of their own, and which follow from their neighbours alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .checks import by_chance
from .crop import paste
from .grid import Grid
from .localsystem import inner
from .spheres import fitting, sphere_spectrum


def confidence_mask(
    mask: np.ndarray,
    voxel_size: Sequence[float],
    noise: np.ndarray | None = None,
    radii: Sequence[float] = (),
    *,
    harmonic: bool = False,
    radians_per_ppm: float | None = None,
) -> np.ndarray:
    """Voxels of a map that were measured themselves.

    The single-step inversion compares Laplacians of fields, or filtered fields, and a voxel at the
    surface of the mask, or nearer to it than the smallest sphere, has none: what the map shows
    there comes from the field around it and from its neighbours. The same holds for voxels whose
    noise is not known.

    Parameters
    ----------
    mask : (x, y, z) bool array
        Where the map is valid.
    voxel_size : (3,) float
        mm.
    noise : (x, y, z) array, optional
        Standard deviation of the field, any unit, or ppm with `radians_per_ppm`.
    radii : sequence of float
        Spheres of the inversion, mm; none for methods that have no spheres or cut the mask
        themselves.
    harmonic : bool
        Harmonic functions were free in the inversion: voxels of the surface do not count.
    radians_per_ppm : float, optional
        Phase of 1 ppm in one echo spacing; with it, voxels without signal, whose phase is pure
        chance, do not count.

    Returns
    -------
    (x, y, z) bool array, within `mask`.
    """
    confident = np.array(mask, bool)
    if noise is not None:
        confident &= (noise > 0) & np.isfinite(noise)
        if radians_per_ppm is not None:
            confident &= ~by_chance(noise * radians_per_ppm)
    if harmonic:
        confident &= inner(np.asarray(mask, bool))
    if len(radii) and confident.any():
        work = Grid(mask, voxel_size, 2 * min(radii))
        sphere = sphere_spectrum(work.grid, voxel_size, min(radii), np.float32)
        fits = fitting(work.put(np.asarray(mask, bool)), sphere, work.transform)
        confident &= paste(fits[work.place], work.box, mask.shape)
    return confident
