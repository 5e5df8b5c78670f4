r"""Projection onto dipole fields (PDF): the background is what sources outside the mask explain.

.. math:: \min_x \; \| W (f - D x) \|^2, \qquad x = 0 \text{ inside the mask}

with f the total field (ppm), W = 1 / noise inside the mask and 0 outside, D the dipole
convolution, x the susceptibility (ppm) outside the mask. Conjugate gradients from x = 0, here in
the form that carries the field residual e = f - D x along (CGLS, Björck): the iterates are those
of the normal equations, e is the local field, and x itself is never needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .crop import bounding_box, paste
from .dipole import dipole_kernel
from .fft import Transform, good_size
from .jit import numba, parallel_kernel

STOPPING = ("relative", "medi")


def pdf(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    noise: np.ndarray | None = None,
    tolerance: float = 0.01,
    max_iterations: int = 60,
    padding_mm: float = 40.0,
    stopping: str = "relative",
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    r"""Local field by projection onto dipole fields.

    Parameters
    ----------
    field, mask, voxel_size, b0_dir, noise
        As in :func:`qsmref.reconstruction.remove_background`.
    tolerance : float
        With ``stopping="relative"``: iterations end when the gradient of the data term has
        fallen to this part of its first value, :math:`\|A^T W e\| \le` tolerance
        :math:`\|A^T W f\|` with A = W D on the voxels outside the mask. It changes neither with
        the unit of the field nor with the scale of the noise. With ``stopping="medi"``:
        :math:`\|A^T W e\| \le` tolerance :math:`\|D W\|` over the voxels outside, the rule of
        the MEDI toolbox, which grows stricter when the field rises above its noise.
    max_iterations : int
        Iterations end here at the latest.
    padding_mm : float
        Empty space (mm) added to the bounding box of the mask along each axis, half of it at
        either side. Sources are sought there, and it keeps the periodic images apart.
    stopping : {"relative", "medi"}
        Meaning of `tolerance`. ``"medi"`` also uses that toolbox's grid: 40 voxels added, and the
        size made even instead of FFT-friendly.

    Returns
    -------
    local : (x, y, z) array, ppm
    mask : the mask as given
    info : dict
        ``iterations``; ``residual`` (gradient relative to its first value); ``field_residual``
        (weighted norm of the local field over that of the total field); ``converged``;
        ``stop_at`` (the value of ``residual`` that was asked for); ``grid``;
        ``voxels_without_weight``; ``fft_count``.

    Notes
    -----
    The kernel is the one in k-space for any direction of B0. One iteration costs two pairs of
    FFTs, and its passes over memory less than a third of that. A constant susceptibility over the
    mask makes the same field as sources outside it do: PDF takes such parts of the local field
    away too, the more the further it converges.

    References
    ----------
    Liu et al. 2011, doi:10.1002/nbm.1670; de Rochefort et al. 2010, doi:10.1002/mrm.22187.
    """
    if stopping not in STOPPING:
        raise ValueError(f"unknown stopping {stopping!r}; there are {', '.join(STOPPING)}")
    if not (tolerance >= 0 and max_iterations >= 0 and padding_mm >= 0):
        raise ValueError(
            "tolerance, max_iterations and padding_mm must not be negative, got "
            f"{tolerance}, {max_iterations}, {padding_mm}"
        )
    box = bounding_box(mask)
    inside = np.ascontiguousarray(mask[box])
    grid = _grid(inside.shape, voxel_size, padding_mm, stopping)
    weight, unit = _weight(noise, inside, box, field.dtype)
    problem = Projection(inside, weight, grid, voxel_size, b0_dir)
    limit = tolerance
    if stopping == "medi":
        # The weights are 1 / noise times `unit`, so the gradient is `unit` squared too large.
        limit = tolerance * unit * np.sqrt(problem.adjoint(weight)[1])
    local = np.where(inside, field[box], field.dtype.type(0))
    done = _solve(problem, local, limit, max_iterations, absolute=stopping == "medi")
    local *= inside
    unweighted = int(np.count_nonzero(inside & (weight == 0)))
    return paste(local, box, field.shape), mask, {**done, "voxels_without_weight": unweighted}


class Projection:
    """The map from sources outside a mask to the weighted field inside it, and its adjoint.

    Sources live on the whole padded grid, the field on the bounding box of the mask at its start.
    """

    def __init__(
        self,
        inside: np.ndarray,
        weight: np.ndarray,
        grid: Sequence[int],
        voxel_size: Sequence[float],
        b0_dir: Sequence[float],
    ):
        self.weight2 = weight * weight
        self.kernel = dipole_kernel(grid, voxel_size, b0_dir, weight.dtype)
        self.sources = Transform(grid)
        self.box = Transform(inside.shape, grid)
        self.outside = np.ones(grid, dtype=bool)
        self.outside[tuple(slice(0, n) for n in inside.shape)] = ~inside
        if not self.outside.any():
            raise ValueError(
                "PDF has no place for sources: the mask fills its box; give padding_mm room"
            )

    def field(self, sources: np.ndarray) -> np.ndarray:
        """Field in the box of `sources` on the grid; those inside the mask must be zero."""
        spectrum = self.sources.forward(sources)
        _multiply(spectrum, self.kernel)
        return self.box.inverse(spectrum)

    def adjoint(self, weighted: np.ndarray) -> tuple[np.ndarray, float]:
        """Adjoint of :meth:`field`, and the square of its norm."""
        spectrum = self.box.forward(weighted)
        _multiply(spectrum, self.kernel)
        sources = self.sources.inverse(spectrum)
        return sources, _restrict(sources, self.outside)

    @property
    def fft_count(self) -> int:
        return self.sources.count + self.box.count


def _grid(shape, voxel_size, padding_mm, stopping) -> list[int]:
    if stopping == "medi":
        return [2 * ((n - 1 + 40) // 2) for n in shape]
    return [good_size(n + round(padding_mm / h)) for n, h in zip(shape, voxel_size, strict=True)]


def _weight(noise, inside, box, dtype) -> tuple[np.ndarray, float]:
    """Weights on the box, and the factor between them and 1 / noise."""
    if noise is None:
        return inside.astype(dtype), 1.0
    noise = noise[box]
    known = inside & (noise > 0) & np.isfinite(noise)
    weight = np.zeros(inside.shape, dtype)
    # Only the ratio between voxels counts; values near one keep the squares within float32.
    unit = float(np.mean(noise[known], dtype=float))
    weight[known] = unit / noise[known]
    return weight, unit


def _solve(
    problem: Projection, residual: np.ndarray, limit: float, max_iterations: int, absolute: bool
) -> dict[str, Any]:
    """Conjugate gradients; `residual` is the total field at first and the local one at last.

    The gradient's norm ends the iterations at `limit`, or at that part of its first value.
    """
    weighted = residual * problem.weight2
    total = float(np.vdot(residual, weighted))
    descent, first = problem.adjoint(weighted)
    stop = limit / np.sqrt(first) if absolute and first > 0 else limit
    iterations, gradient = 0, first
    direction = descent.copy()
    while first > 0 and iterations < max_iterations and np.sqrt(gradient / first) > stop:
        q = problem.field(direction)
        curvature = _curvature(q, problem.weight2)
        _advance(residual, q, problem.weight2, gradient / curvature, weighted)
        descent, new = problem.adjoint(weighted)
        _redirect(direction, descent, new / gradient)
        gradient = new
        iterations += 1
    left = float(np.vdot(residual, weighted))
    reached = float(np.sqrt(gradient / first)) if first > 0 else 0.0
    return {
        "iterations": iterations,
        "residual": reached,
        "field_residual": float(np.sqrt(left / total)) if total > 0 else 0.0,
        "stop_at": float(stop),
        "converged": bool(reached <= stop),
        "grid": list(problem.sources.grid),
        "fft_count": problem.fft_count,
    }


@parallel_kernel
def _multiply(spectrum, kernel):
    for i in numba.prange(spectrum.shape[0]):
        for j in range(spectrum.shape[1]):
            for k in range(spectrum.shape[2]):
                spectrum[i, j, k] *= kernel[i, j, k]


@parallel_kernel
def _restrict(sources, outside):
    total = 0.0
    for i in numba.prange(sources.shape[0]):
        part = 0.0
        for j in range(sources.shape[1]):
            for k in range(sources.shape[2]):
                if not outside[i, j, k]:
                    sources[i, j, k] = 0
                value = sources[i, j, k]
                part += np.float64(value) * value
        total += part
    return total


@parallel_kernel
def _curvature(q, weight2):
    total = 0.0
    for i in numba.prange(q.shape[0]):
        part = 0.0
        for j in range(q.shape[1]):
            for k in range(q.shape[2]):
                value = q[i, j, k]
                part += np.float64(weight2[i, j, k] * value) * value
        total += part
    return total


@parallel_kernel
def _advance(residual, q, weight2, step, weighted):
    step = q.dtype.type(step)
    for i in numba.prange(q.shape[0]):
        for j in range(q.shape[1]):
            for k in range(q.shape[2]):
                residual[i, j, k] -= step * q[i, j, k]
                weighted[i, j, k] = weight2[i, j, k] * residual[i, j, k]


@parallel_kernel
def _redirect(direction, descent, factor):
    factor = direction.dtype.type(factor)
    for i in numba.prange(direction.shape[0]):
        for j in range(direction.shape[1]):
            for k in range(direction.shape[2]):
                direction[i, j, k] = descent[i, j, k] + factor * direction[i, j, k]
