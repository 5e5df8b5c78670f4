r"""HARPERELLA: the Laplacian of the field, known in the brain, is continued outside it.

The Laplacian L of the field inside the mask stems from sources inside alone. Outside it is
unknown; there it is chosen such that the field of brain and surroundings together,
:math:`\nabla^{-2} (L_{brain} + L_E)`, has no smooth part in the brain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .closedform import gradient_spectrum
from .crop import bounding_box, paste
from .fft import Transform, frequencies, good_size
from .krylov import conjugate_gradients
from .lbv import negative_laplacian
from .spheres import sphere_spectrum, spherical_mean

VARIANTS = ("harperella", "iharperella")


def harperella(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    variant: str = "harperella",
    radius_mm: float = 10.0,
    rim_mm: float | None = None,
    tolerance: float = 1e-6,
    max_iterations: int = 40,
    padding_mm: float = 40.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    r"""Local field by continuing the Laplacian outside the mask.

    Parameters
    ----------
    field, mask, voxel_size
        As in :func:`qsmref.reconstruction.remove_background`. The field is unwrapped here; the
        method itself needs its Laplacian only.
    variant : {"harperella", "iharperella"}
        ``harperella``: :math:`\min \| S * (L_{brain} + L_E) - \delta \|^2` over the voxels
        outside, S a sphere and :math:`\delta` the mean of :math:`S * L_{brain}` in the brain.
        ``iharperella``: :math:`\min \| M \nabla^{-2} (L_{brain} + L_E) \|^2`, M the mask.
    radius_mm : float
        Radius of S, mm; not used by ``iharperella``.
    rim_mm : float, optional
        The Laplacian is taken to be known where a sphere of this radius (mm) fits into the mask
        and is set to zero in the rim; by default three times the shortest side of a voxel.
    tolerance : float
        Iterations end when the residual of the normal equations has fallen to this part of its
        first value.
    max_iterations : int
    padding_mm : float
        Empty space (mm) added along each axis: where the Laplacian is continued.

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : the mask as given; the local field of the rim rests on the Laplacian further in
    info : dict with ``iterations``, ``residual``, ``converged``, ``grid`` and ``fft_count``

    References
    ----------
    Li et al. 2014, doi:10.1002/nbm.3056.
    """
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; there are {', '.join(VARIANTS)}")
    rim_mm = 3 * min(voxel_size) if rim_mm is None else rim_mm
    if not (radius_mm > 0 and rim_mm > 0 and padding_mm >= 0):
        raise ValueError(
            "radius_mm and rim_mm must be positive and padding_mm not negative, got "
            f"{radius_mm:g}, {rim_mm:g} and {padding_mm:g}"
        )
    box = bounding_box(mask)
    inside = np.ascontiguousarray(mask[box])
    room = max(padding_mm, 2 * radius_mm, 2 * rim_mm)
    pad = [round(room / h) + 1 for h in voxel_size]
    grid = [good_size(n + p) for n, p in zip(inside.shape, pad, strict=True)]
    corner = tuple(slice(0, n) for n in inside.shape)
    whole = np.zeros(grid, dtype=bool)
    whole[corner] = inside
    transform = Transform(grid)
    known = _interior(whole, voxel_size, rim_mm, transform, field.dtype)
    values = np.zeros(grid, field.dtype)
    values[corner] = np.where(inside, field[box], 0)
    source = negative_laplacian(values, voxel_size) * known
    inverse = _inverse_laplacian(grid, voxel_size, field.dtype)
    stop = (tolerance, max_iterations)
    if variant == "harperella":
        sphere = sphere_spectrum(grid, voxel_size, radius_mm, field.dtype)
        outside, done = _smooth_sources(source, known, ~whole, sphere, transform, stop)
    else:
        outside, done = _quiet_field(source, whole, inverse, transform, stop)
    local = spherical_mean(source + outside, inverse, transform)[corner]
    local = np.where(inside, local, field.dtype.type(0))
    info = {**done, "grid": grid, "fft_count": transform.count}
    return paste(local, box, field.shape), mask, info


def _interior(whole, voxel_size, rim_mm, transform, dtype) -> np.ndarray:
    """Voxels where a sphere of `rim_mm` fits in the mask and the Laplacian has its neighbours."""
    rim = sphere_spectrum(transform.grid, voxel_size, rim_mm, dtype)
    mean = spherical_mean(whole.astype(dtype), rim, transform)
    known = (mean > 1 - 1e-3) & ndimage.binary_erosion(whole)
    if not known.any():
        raise ValueError(f"no sphere of {rim_mm:g} mm radius fits into the mask")
    return known


def _smooth_sources(source, known, outside, sphere, transform, stop):
    """Laplacian outside that makes its spherical mean as even as it can be."""
    mean = spherical_mean(source, sphere, transform)
    level = source.dtype.type(mean[known].mean(dtype=float))
    right = spherical_mean(level - mean, sphere, transform) * outside
    square = sphere * sphere
    return conjugate_gradients(
        lambda x: spherical_mean(x, square, transform) * outside, right, *stop
    )


def _quiet_field(source, whole, inverse, transform, stop):
    """Laplacian outside that leaves the least field in the mask."""

    def normal(x):
        return spherical_mean(spherical_mean(x, inverse, transform) * whole, inverse, transform)

    right = -normal(source) * ~whole
    return conjugate_gradients(lambda x: normal(x) * ~whole, right, *stop)


def _inverse_laplacian(grid: Sequence[int], voxel_size: Sequence[float], dtype) -> np.ndarray:
    """Spectrum of the inverse of the negative 7-point Laplacian, mm squared; 0 at k = 0."""
    eigenvalues = gradient_spectrum(frequencies(grid, voxel_size), voxel_size)
    eigenvalues[0, 0, 0] = np.inf
    return (1 / eigenvalues).astype(dtype)
