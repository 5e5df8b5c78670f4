"""Background removal: the field of sources outside the mask is taken off, the local one is left.

One function, :func:`remove_background`, checks the arrays and calls one of the methods named in
:data:`qsmref.reconstruction.methods.BACKGROUND`. A method is a function
``method(field, mask, voxel_size, *, [b0_dir], [noise], **parameters) -> (local, mask, info)``;
its keyword-only arguments are the parameters a caller may set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import methods
from .checks import unit_vector
from .dispatch import Methods, checked_field, checked_noise

METHODS = Methods("background removal", methods.BACKGROUND, common=("b0_dir", "noise"))


def remove_background(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    method: str = "pdf",
    b0_dir: Sequence[float] = (0, 0, 1),
    noise: np.ndarray | None = None,
    **parameters: Any,
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Local field of a total field.

    Parameters
    ----------
    field : (x, y, z) array
        Total field, ppm, unwrapped. Values outside the mask are not used.
    mask : (x, y, z) bool array
        Where the field is known; sources outside it are background.
    voxel_size : (3,) float
        mm.
    method : str
        One of :data:`qsmref.reconstruction.methods.BACKGROUND`.
    b0_dir : (3,) float
        Direction of B0 in voxel axes. Only ``pdf`` needs it: the others use no more than that a
        background field is harmonic.
    noise : (x, y, z) array, optional
        Standard deviation of `field`, ppm, used by ``pdf``. Voxels of noise zero or infinity carry
        no weight. Without it every voxel in the mask counts the same.
    **parameters
        Parameters of the method, see :func:`method_parameters`.

    Returns
    -------
    local : (x, y, z) float32 array (float64 when `field` is)
        Local field, ppm, zero outside the returned mask.
    mask : (x, y, z) bool array
        Where the local field is valid; sphere-based methods cut the rim away.
    info : dict
        Method, every parameter, iterations, residual, number of FFTs; fit for JSON.

    Raises
    ------
    ValueError
        For an unknown method or parameter, arrays that do not fit together, an empty mask, or
        values that are not finite inside the mask.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.ones((4, 4, 4), bool)
    >>> local, kept, info = remove_background(np.ones((4, 4, 4)), mask, (1, 1, 1), method="none")
    >>> float(local.mean()), info["method"]
    (1.0, 'none')
    """
    settings = METHODS.settings(method, parameters)
    field, mask, voxel_size = checked_field(field, mask, voxel_size)
    noise = checked_noise(noise, mask, field)
    common = METHODS.select(method, b0_dir=tuple(unit_vector(b0_dir)), noise=noise)
    local, kept, done = METHODS.function(method)(field, mask, voxel_size, **common, **settings)
    return local, kept, {"method": method, **settings, **done}


def method_parameters(method: str) -> dict[str, Any]:
    """Names and default values of the parameters that a method takes.

    Examples
    --------
    >>> method_parameters("none")
    {}
    """
    return METHODS.parameters(method)


def no_removal(
    field: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Total field inside the mask, for an inversion that deals with the background itself."""
    return np.where(mask, field, 0).astype(field.dtype, copy=False), mask, {}
