"""What the steps with several methods share: finding a method, and checking what it is given."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .checks import check_size


class Methods:
    """The methods of one step, each a function in a module that is imported when it is used.

    Parameters
    ----------
    step : str
        Name of the step, for messages.
    table : dict
        Name of the method -> (module of this package, function).
    common : sequence of str
        Keyword arguments that the step hands to every method that asks for them; the other
        keyword-only arguments of a function are the method's own parameters.
    """

    def __init__(self, step: str, table: dict[str, tuple[str, str]], common: Sequence[str] = ()):
        self.step = step
        self.table = table
        self.common = tuple(common)

    def function(self, method: str) -> Callable:
        if method not in self.table:
            raise ValueError(f"unknown {self.step} {method!r}; there are {', '.join(self.table)}")
        module, name = self.table[method]
        return getattr(importlib.import_module(f".{module}", __package__), name)

    def parameters(self, method: str) -> dict[str, Any]:
        """Names and default values of the parameters that a method takes."""
        signature = inspect.signature(self.function(method))
        return {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY and name not in self.common
        }

    def settings(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        """The method's defaults overlaid with `given`; a ValueError for a name it has not."""
        defaults = self.parameters(method)
        unknown = sorted(set(given) - set(defaults))
        if unknown:
            raise ValueError(
                f"{self.step} {method!r} has no parameter {', '.join(unknown)}; "
                f"it takes {', '.join(defaults) or 'none'}"
            )
        return {**defaults, **given}

    def select(self, method: str, **common: Any) -> dict[str, Any]:
        """Those of the common arguments that the method asks for."""
        asked = inspect.signature(self.function(method)).parameters
        return {name: value for name, value in common.items() if name in asked}


def checked_field(
    field: np.ndarray, mask: np.ndarray, voxel_size: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Field, mask and voxel size of the types that the methods work with, or a ValueError."""
    field = np.asarray(field)
    if field.ndim != 3 or field.dtype.kind not in "fiu":
        raise ValueError(
            f"the field must be a real 3-D array, got {field.dtype} of shape {field.shape}"
        )
    field = np.ascontiguousarray(field, np.float64 if field.dtype == np.float64 else np.float32)
    mask = np.asarray(mask)
    if mask.shape != field.shape:
        raise ValueError(f"the mask has shape {mask.shape}, the field {field.shape}")
    mask = np.ascontiguousarray(mask if mask.dtype == bool else mask != 0)
    if not mask.any():
        raise ValueError("the mask is empty: not a single voxel is set")
    bad = np.count_nonzero(~np.isfinite(field[mask]))
    if bad:
        raise ValueError(f"the field is NaN or infinite in {bad} voxels inside the mask")
    return field, mask, tuple(float(h) for h in check_size(voxel_size))


def checked_noise(
    noise: np.ndarray | None, mask: np.ndarray, field: np.ndarray
) -> np.ndarray | None:
    """Noise map of the field's shape and type, or a ValueError; None stays None."""
    if noise is None:
        return None
    noise = np.ascontiguousarray(noise, field.dtype)
    if noise.shape != field.shape:
        raise ValueError(f"the noise has shape {noise.shape}, the field {field.shape}")
    inside = noise[mask]
    if np.isnan(inside).any() or (inside < 0).any():
        raise ValueError("the noise is NaN or negative inside the mask")
    if not np.any((inside > 0) & np.isfinite(inside)):
        raise ValueError("the noise is zero or infinite in the whole mask: nothing has weight")
    return noise
