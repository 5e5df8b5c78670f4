"""Conjugate gradients for symmetric positive (semi)definite operators on arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .jit import numba, parallel_kernel, parallel_sum


def conjugate_gradients(
    operator: Callable[[np.ndarray], np.ndarray | tuple[np.ndarray, float]],
    right_side: np.ndarray,
    tolerance: float,
    max_iterations: int,
    precondition: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Solve ``operator(x) = right_side`` from x = 0.

    Parameters
    ----------
    operator : callable
        Symmetric positive semidefinite; returns an array of the shape it is given, or that and its
        product with what it was given, where it has made it on the way.
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
    direction, slope, step = None, 1.0, 0.0
    while first > 0 and iterations < max_iterations and square > tolerance**2 * first:
        z = residual if precondition is None else precondition(residual)
        new = square if precondition is None else _dot(residual, z)
        if direction is None:
            direction = z.copy()
        else:
            # The step along the former direction waits for the next, and is made in its pass.
            _redirect(x, direction, z, step, new / slope)
        slope, step = new, 0.0
        found = operator(direction)
        image, curvature = found if isinstance(found, tuple) else (found, None)
        image = np.ascontiguousarray(image)
        if curvature is None:
            curvature = _dot(direction, image)
        if not curvature > 0:
            break  # the rest of the residual lies in the null space, or below rounding
        step = slope / curvature
        square = _reduce(residual, image, step)
        iterations += 1
    if direction is not None:
        x += x.dtype.type(step) * direction
    reached = float(np.sqrt(square / first)) if first > 0 else 0.0
    converged = bool(reached <= tolerance)
    return x, {"iterations": iterations, "residual": reached, "converged": converged}


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return _dot_flat(a.reshape(-1), b.reshape(-1))


def _reduce(residual, image, step) -> float:
    return _reduce_flat(residual.reshape(-1), image.reshape(-1), step)


def _redirect(x, direction, z, step, factor) -> None:
    _redirect_flat(*(a.reshape(-1) for a in (x, direction, z)), step, factor)


@parallel_sum
def _dot_flat(a, b):
    total = 0.0
    for i in numba.prange(a.size):
        total += np.float64(a[i]) * b[i]
    return total


@parallel_sum
def _reduce_flat(residual, image, step):
    step = residual.dtype.type(step)
    total = 0.0
    for i in numba.prange(residual.size):
        value = residual[i] - step * image[i]
        residual[i] = value
        total += np.float64(value) * value
    return total


@parallel_kernel
def _redirect_flat(x, direction, z, step, factor):
    step, factor = x.dtype.type(step), x.dtype.type(factor)
    for i in numba.prange(x.size):
        former = direction[i]
        x[i] += step * former
        direction[i] = z[i] + factor * former
