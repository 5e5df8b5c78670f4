r"""Laplacian boundary value method (LBV): the background is harmonic and known on the boundary.

.. math:: \nabla^2 f_B = 0 \text{ in the mask}, \qquad f_B = f \text{ on its outermost voxels}

The local field f_L = f - f_B then solves :math:`\nabla^2 f_L = \nabla^2 f` with f_L = 0 on the
boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .crop import bounding_box, paste
from .mask import erode
from .multigrid import MaskedPoisson


def lbv(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    peel_mm: float = 0.0,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Local field by the Laplacian boundary value method.

    Parameters
    ----------
    field, mask, voxel_size
        As in :func:`qsmref.reconstruction.remove_background`.
    peel_mm : float
        The mask is eroded by this first, mm, where its rim is too noisy to be a boundary value.
    tolerance : float
        Iterations end when the Laplacian of f - f_L has fallen to this part of that of f (norms
        over the voxels inside the boundary).
    max_iterations : int
        Each is one multigrid V-cycle within conjugate gradients.

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : (x, y, z) bool array
        The voxels inside the boundary: on the boundary the local field is zero by assumption, not
        by measurement.
    info : dict with ``iterations``, ``residual``, ``converged``, ``levels``, ``kept_fraction``
        and ``fft_count``, which is 0.

    References
    ----------
    Zhou et al. 2014, doi:10.1002/nbm.3064.
    """
    whole = mask
    if peel_mm:
        mask = erode(mask, peel_mm, voxel_size)
    box = bounding_box(mask)
    inside = mask[box]
    # A voxel is an unknown when its six neighbours are in the mask; the others are the boundary.
    unknown = ndimage.binary_erosion(inside)
    if not unknown.any():
        raise ValueError("LBV finds no voxel whose six neighbours are all in the mask")
    poisson = MaskedPoisson(unknown, voxel_size, field.dtype)
    values = np.where(inside, field[box], field.dtype.type(0))
    local, done = poisson.solve(negative_laplacian(values, voxel_size), tolerance, max_iterations)
    info = {
        **done,
        "levels": len(poisson.levels),
        "kept_fraction": float(np.count_nonzero(unknown) / np.count_nonzero(whole)),
        "fft_count": 0,
    }
    return paste(local, box, field.shape), paste(unknown, box, field.shape), info


def negative_laplacian(x: np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """7-point Laplacian with its sign turned, per mm squared; zero beyond the array's ends."""
    out = np.zeros_like(x)
    for axis, h in enumerate(voxel_size):
        weight = x.dtype.type(1 / h**2)
        step = np.diff(np.moveaxis(x, axis, 0), axis=0, prepend=0, append=0) * weight
        out -= np.moveaxis(np.diff(step, axis=0), 0, axis)
    return out
