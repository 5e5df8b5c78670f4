r"""Total field inversion: sources in and outside the mask in one MEDI problem.

.. math:: \min_y \sum_d |w_d \partial_d P y|_1 + \lambda \| m (e^{i D P y} - e^{i f}) \|^2,
          \qquad x = P y

f is the total field. P is one inside the mask and large outside, where air and bone are two to
three orders of magnitude stronger than tissue: without it the iterations would first put the
background into the tissue.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .dipole import dipole_kernel
from .gradient import edge_mask, interior_pairs
from .grid import Grid, phase_units
from .medi import GaussNewton


def total_field_inversion(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    magnitude: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    radians_per_ppm: float,
    lambda_: float = 1000.0,
    edge_fraction: float = 0.9,
    outside: float = 30.0,
    merit: bool = True,
    tolerance: float = 0.01,
    max_iterations: int = 10,
    cg_tolerance: float = 0.01,
    cg_max_iterations: int = 100,
    padding_mm: float = 20.0,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Susceptibility from the total field, with a preconditioner for the sources outside.

    Parameters
    ----------
    field, mask, voxel_size, b0_dir, magnitude, noise, radians_per_ppm
        As in :func:`qsmref.reconstruction.invert`; the total field.
    outside : float
        P outside the mask; it is one inside.
    lambda_, edge_fraction, merit, tolerance, max_iterations, cg_tolerance, cg_max_iterations, \
padding_mm
        As in :func:`qsmref.reconstruction.medi.medi`. The map is free to jump outside the mask.

    Returns
    -------
    chi : (x, y, z) array, ppm
    mask : the mask as given
    info : dict
        As for MEDI.

    References
    ----------
    Liu et al. 2017, doi:10.1002/mrm.26331.
    """
    if lambda_ <= 0 or outside < 1:
        raise ValueError(
            f"lambda_ must be positive and outside at least 1, got {lambda_}, {outside}"
        )
    work = Grid(mask, voxel_size, padding_mm)
    inside, total, spread, known = phase_units(work, field, mask, noise, radians_per_ppm)
    spread[~known] = 0
    inside, total, spread = (work.widen(a) for a in (inside, total, spread))
    smooth = interior_pairs(inside)
    if magnitude is not None:
        smooth &= edge_mask(work.put(magnitude), inside, voxel_size, edge_fraction)
    problem = GaussNewton(
        work.transform,
        work.inner,
        dipole_kernel(work.grid, voxel_size, b0_dir, field.dtype),
        voxel_size, smooth, inside, total, spread, lambda_, merit, None,
    )  # fmt: skip
    square = np.where(inside, 1, outside**2).astype(field.dtype)
    x, done = problem.solve(
        tolerance, max_iterations, cg_tolerance, cg_max_iterations, lambda r: square * r
    )
    done |= {"edges_from_magnitude": magnitude is not None, "grid": list(work.grid)}
    done["fft_count"] = work.transform.count + work.inner.count
    return work.back(x, mask, radians_per_ppm), mask, done
