"""Background removal: the field of sources outside the mask is taken off, the local one is left.

One function, :func:`remove_background`, checks the arrays and calls one of the methods named in
:data:`qsmref.reconstruction.methods.BACKGROUND`. A method is a function
``method(field, mask, voxel_size, *, [b0_dir], [noise], **parameters) -> (local, mask, info)``;
its keyword-only arguments are the parameters a caller may set.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .dipole import unit_vector

#: Module and function of each method; modules are imported when they are first used.
METHODS = {
    "none": ("background", "no_removal"),
    "pdf": ("pdf", "pdf"),
    "sharp": ("sharp", "sharp"),
    "v-sharp": ("sharp", "v_sharp"),
    "resharp": ("sharp", "resharp"),
    "lbv": ("lbv", "lbv"),
    "harperella": ("harperella", "harperella"),
    "ismv": ("sharp", "iterative_smv"),
}

#: Arguments that every method may ask for; they are not parameters of one method.
_COMMON = ("b0_dir", "noise")


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
    function = _function(method)
    settings = _settings(method, function, parameters)
    field, mask, voxel_size, noise = _checked(field, mask, voxel_size, noise)
    common = {"b0_dir": tuple(unit_vector(b0_dir)), "noise": noise}
    asked = inspect.signature(function).parameters
    common = {name: value for name, value in common.items() if name in asked}
    local, kept, done = function(field, mask, voxel_size, **common, **settings)
    return local, kept, {"method": method, **settings, **done}


def method_parameters(method: str) -> dict[str, Any]:
    """Names and default values of the parameters that a method takes.

    Examples
    --------
    >>> method_parameters("none")
    {}
    """
    signature = inspect.signature(_function(method))
    return {
        name: parameter.default
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in _COMMON
    }


def no_removal(
    field: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Total field inside the mask, for an inversion that deals with the background itself."""
    return np.where(mask, field, 0).astype(field.dtype, copy=False), mask, {}


def _function(method: str) -> Callable:
    if method not in METHODS:
        raise ValueError(
            f"unknown background removal {method!r}; there are {', '.join(sorted(METHODS))}"
        )
    module, name = METHODS[method]
    return getattr(importlib.import_module(f".{module}", __package__), name)


def _settings(method: str, function: Callable, parameters: dict[str, Any]) -> dict[str, Any]:
    defaults = method_parameters(method)
    unknown = sorted(set(parameters) - set(defaults))
    if unknown:
        raise ValueError(
            f"background removal {method!r} has no parameter {', '.join(unknown)}; "
            f"it takes {', '.join(defaults) or 'none'}"
        )
    return {**defaults, **parameters}


def _checked(field, mask, voxel_size, noise):
    """Arrays of one shape and of the types that the methods work with, or a ValueError."""
    field = np.asarray(field)
    if field.ndim != 3 or field.dtype.kind not in "fiu":
        raise ValueError(
            f"the field must be a real 3-D array, got {field.dtype} of shape {field.shape}"
        )
    field = np.ascontiguousarray(field, np.float64 if field.dtype == np.float64 else np.float32)
    mask = np.asarray(mask)
    if mask.shape != field.shape:
        raise ValueError(f"the mask has shape {mask.shape}, the field {field.shape}")
    mask = np.ascontiguousarray(mask != 0)
    if not mask.any():
        raise ValueError("the mask is empty: not a single voxel is set")
    bad = np.count_nonzero(~np.isfinite(field[mask]))
    if bad:
        raise ValueError(f"the field is NaN or infinite in {bad} voxels inside the mask")
    spacing = np.asarray(voxel_size, dtype=float)
    if spacing.shape != (3,) or not np.all(np.isfinite(spacing)) or np.any(spacing <= 0):
        raise ValueError(f"voxel_size must be three positive numbers (mm), got {voxel_size!r}")
    if noise is not None:
        noise = np.ascontiguousarray(noise, field.dtype)
        if noise.shape != field.shape:
            raise ValueError(f"the noise has shape {noise.shape}, the field {field.shape}")
        inside = noise[mask]
        if np.isnan(inside).any() or (inside < 0).any():
            raise ValueError("the noise is NaN or negative inside the mask")
        if not np.any((inside > 0) & np.isfinite(inside)):
            raise ValueError("the noise is zero or infinite in the whole mask: nothing has weight")
    return field, mask, tuple(float(h) for h in spacing), noise
