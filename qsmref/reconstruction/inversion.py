"""Dipole inversion: the susceptibility map of a field.

One function, :func:`invert`, checks the arrays and calls one of the methods named in
:data:`qsmref.reconstruction.methods.INVERSION`. A method is a function
``method(field, mask, voxel_size, *, [b0_dir], [magnitude], [noise], [radians_per_ppm],
**parameters) -> (chi, mask, info)``; its keyword-only arguments are what a caller may set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import methods
from .checks import unit_vector
from .dipole import GAMMA_HZ_PER_T
from .dispatch import Methods, checked_field, checked_noise

METHODS = Methods(
    "dipole inversion",
    methods.INVERSION,
    common=("b0_dir", "magnitude", "noise", "radians_per_ppm", "csf"),
)

#: Phase (rad) that 1 ppm gathers in 4 ms at 3 T: the scale at which MEDI's lambda is customary.
RADIANS_PER_PPM = 2 * np.pi * GAMMA_HZ_PER_T * 3 * 0.004 * 1e-6


def invert(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    method: str = "single-step",
    b0_dir: Sequence[float] = (0, 0, 1),
    magnitude: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    radians_per_ppm: float = RADIANS_PER_PPM,
    csf: np.ndarray | None = None,
    **parameters: Any,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Susceptibility map of a field.

    Parameters
    ----------
    field : (x, y, z) array
        ppm, unwrapped. The *total* field for ``single-step`` and ``total-field``, which deal with
        the background themselves; the local field for the others.
    mask : (x, y, z) bool array
        Where the field is known.
    voxel_size : (3,) float
        mm.
    method : str
        One of :data:`qsmref.reconstruction.methods.INVERSION`.
    b0_dir : (3,) float
        Direction of B0 in voxel axes.
    magnitude : (x, y, z) array, optional
        Any unit; its edges tell the total-variation methods where the map may jump. Without it
        the map is smoothed alike everywhere, and ``info`` says so.
    noise : (x, y, z) array, optional
        Standard deviation of `field`, ppm. Without it every voxel counts the same.
    radians_per_ppm : float
        Phase (rad) that 1 ppm gathers in one echo spacing: the unit in which the data term of
        ``medi`` and the lambda of all total-variation methods are meant.
    csf : (x, y, z) bool array, optional
        Cerebrospinal fluid, for ``medi`` only: MEDI+0 smooths the map there and takes its mean
        there as zero.
    **parameters
        Parameters of the method; :func:`method_parameters` lists them.

    Returns
    -------
    chi : (x, y, z) float32 array
        Susceptibility, ppm, zero outside the returned mask. Its constant is arbitrary.
    mask : (x, y, z) bool array
        Where the map is valid.
    info : dict
        Method, every parameter, iterations, residual, number of FFTs; fit for JSON.

    Raises
    ------
    ValueError
        For an unknown method or parameter, arrays that do not fit together, an empty mask, or
        values that are not finite inside the mask.
    """
    settings = METHODS.settings(method, parameters)
    field, mask, voxel_size = checked_field(field, mask, voxel_size)
    if magnitude is not None:
        magnitude = np.ascontiguousarray(magnitude, np.float32)
        if magnitude.shape != field.shape:
            raise ValueError(f"the magnitude has shape {magnitude.shape}, the field {field.shape}")
        if not np.all(np.isfinite(magnitude[mask])):
            raise ValueError("the magnitude is NaN or infinite inside the mask")
    if csf is not None and np.shape(csf) != field.shape:
        raise ValueError(f"the csf mask has shape {np.shape(csf)}, the field {field.shape}")
    if not (np.isfinite(radians_per_ppm) and radians_per_ppm > 0):
        raise ValueError(f"radians_per_ppm must be positive, got {radians_per_ppm}")
    common = METHODS.select(
        method,
        b0_dir=tuple(float(b) for b in unit_vector(b0_dir)),
        magnitude=magnitude,
        noise=checked_noise(noise, mask, field),
        radians_per_ppm=float(radians_per_ppm),
        csf=csf,
    )
    chi, kept, done = METHODS.function(method)(field, mask, voxel_size, **common, **settings)
    if "radians_per_ppm" in common:
        settings["radians_per_ppm"] = common["radians_per_ppm"]
    return chi, kept, {"method": method, **settings, **done}


def method_parameters(method: str) -> dict[str, Any]:
    """Names and default values of the parameters that a method takes."""
    return METHODS.parameters(method)
