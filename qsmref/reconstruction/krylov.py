"""Conjugate gradients for symmetric positive (semi)definite operators on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .jit import numba, parallel_kernel


def conjugate_gradients(
    operator: Callable[[np.ndarray], np.ndarray],
    right_side: np.ndarray,
    tolerance: float,
    max_iterations: int,
    precondition: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Solve ``operator(x) = right_side`` from x = 0.

    Parameters
    ----------
    operator : callable
        Symmetric positive semidefinite; returns an array of the shape it is given.
    right_side : C-contiguous array
    tolerance : float
        Iterations end when the residual's norm has fallen to this part of that of `right_side`.
    max_iterations : int
    precondition : callable, optional
        Symmetric positive definite approximate inverse of the operator.

    Returns
    -------
    x : array like `right_side`
    info : dict
        ``iterations``, ``residual`` (relative norm reached), ``converged``.

    Raises
    ------
    ValueError
        For a negative tolerance or number of iterations.

    References
    ----------
    Hestenes & Stiefel 1952, doi:10.6028/jres.049.044.
    """
    if not (tolerance >= 0 and max_iterations >= 0):
        raise ValueError(
            "tolerance must not be negative, max_iterations must not be negative, got "
            f"{tolerance} and {max_iterations}"
        )
    x = np.zeros_like(right_side)
    residual = right_side.copy()
    first = square = _dot(residual, residual)
    iterations = 0
    direction, slope = None, 1.0
    while first > 0 and iterations < max_iterations and square > tolerance**2 * first:
        z = residual if precondition is None else precondition(residual)
        new = square if precondition is None else _dot(residual, z)
        if direction is None:
            direction = z.copy()
        else:
            _redirect(direction, z, new / slope)
        slope = new
        image = np.ascontiguousarray(operator(direction))
        curvature = _dot(direction, image)
        if not curvature > 0:
            break  # the rest of the residual lies in the null space, or below rounding
        square = _advance(x, residual, direction, image, slope / curvature)
        iterations += 1
    reached = float(np.sqrt(square / first)) if first > 0 else 0.0
    converged = bool(reached <= tolerance)
    return x, {"iterations": iterations, "residual": reached, "converged": converged}


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return _dot_flat(a.reshape(-1), b.reshape(-1))


def _advance(x, residual, direction, image, step) -> float:
    return _advance_flat(*(a.reshape(-1) for a in (x, residual, direction, image)), step)


def _redirect(direction, z, factor) -> None:
    _redirect_flat(direction.reshape(-1), z.reshape(-1), factor)


@parallel_kernel
def _dot_flat(a, b):
    total = 0.0
    for i in numba.prange(a.size):
        total += np.float64(a[i]) * b[i]
    return total


@parallel_kernel
def _advance_flat(x, residual, direction, image, step):
    step = x.dtype.type(step)
    total = 0.0
    for i in numba.prange(x.size):
        x[i] += step * direction[i]
        value = residual[i] - step * image[i]
        residual[i] = value
        total += np.float64(value) * value
    return total


@parallel_kernel
def _redirect_flat(direction, z, factor):
    factor = direction.dtype.type(factor)
    for i in numba.prange(direction.size):
        direction[i] = z[i] + factor * direction[i]
