r"""Poisson's equation in a mask of any shape, by multigrid-preconditioned conjugate gradients.

Unknowns are the voxels of a mask; outside it the solution is zero (Dirichlet). The operator is the
7-point :math:`-\nabla^2` with the spacing of each axis (mm), plus a constant where one is given.
Every array has a rim of one voxel outside the mask, so that the loops need no tests for the ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .jit import numba, parallel_kernel, zeros
from .krylov import conjugate_gradients

#: Axes up to this many times the finest spacing are coarsened; the others wait.
_COARSEN_UP_TO = 1.5
_SMALLEST = 5
_SWEEPS_AT_THE_END = 8


@dataclass
class _Level:
    mask: np.ndarray
    coefficients: tuple[float, ...]  # of the neighbours along each axis, and the constant
    solution: np.ndarray = field(repr=False)
    right: np.ndarray = field(repr=False)
    residual: np.ndarray = field(repr=False)
    factors: tuple[int, int, int] | None = None


class MaskedPoisson:
    r"""The operator :math:`-\nabla^2` on the voxels of a mask, zero outside it.

    Parameters
    ----------
    mask : (x, y, z) bool array
        The unknowns.
    voxel_size : (3,) float
        mm.
    dtype : float32 or float64
    shift : float
        Constant added to the operator, per mm squared (a screened Poisson equation).

    Notes
    -----
    Levels are nested grids: a coarse voxel is every second fine one along the axes that are
    coarsened (only the finest axes are, until the spacing is even), and belongs to the coarse
    mask when its fine voxel belongs to the fine one. One V-cycle has a red-black Gauss-Seidel
    sweep before and one in reverse order after the coarse correction, trilinear interpolation
    and its transpose, so it is symmetric, as conjugate gradients need.
    """

    def __init__(
        self,
        mask: np.ndarray,
        voxel_size: Sequence[float],
        dtype: npt.DTypeLike = np.float32,
        shift: float = 0.0,
    ):
        self.dtype = np.dtype(dtype)
        self.levels: list[_Level] = []
        mask, spacing = np.pad(mask, 1), np.asarray(voxel_size, float)
        while True:
            x, residual = (zeros(mask.shape, self.dtype) for _ in range(2))
            # The right side of the first level comes with each cycle.
            right = zeros(mask.shape, self.dtype) if self.levels else residual
            coefficients = (*(float(c) for c in 1 / spacing**2), float(shift))
            level = _Level(mask, coefficients, x, right, residual)
            self.levels.append(level)
            factors = _factors(mask.shape, spacing)
            coarse = _coarse_mask(mask, factors)
            # Where the shift outweighs the neighbours, sweeps alone settle what is left.
            settled = shift > 2 * sum(1 / spacing**2)
            if not coarse.any() or max(factors) == 1 or settled:
                break
            level.factors = factors
            mask, spacing = coarse, spacing * factors

    def pad(self, x: np.ndarray) -> np.ndarray:
        """`x` with the rim of one voxel, in the type of the levels, zero outside the mask."""
        return np.pad(x, 1).astype(self.dtype, copy=False) * self.levels[0].mask

    def apply(self, x: np.ndarray) -> np.ndarray:
        """The operator on a padded array that is zero outside the mask."""
        level = self.levels[0]
        out = np.zeros_like(x)
        _residual(out, x, out, level.mask, *level.coefficients, -1.0)
        return out

    def precondition(self, right: np.ndarray) -> np.ndarray:
        """One V-cycle from zero: an approximate inverse of :meth:`apply`."""
        self.levels[0].right = right
        self._cycle(0)
        return self.levels[0].solution

    def solve(
        self, right: np.ndarray, tolerance: float, max_iterations: int
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Solve for a right side of the mask's shape; see :func:`conjugate_gradients`."""
        solution, done = conjugate_gradients(
            self.apply, self.pad(right), tolerance, max_iterations, self.precondition
        )
        return np.ascontiguousarray(solution[1:-1, 1:-1, 1:-1]), done

    def _cycle(self, depth: int) -> None:
        level = self.levels[depth]
        at = level.solution, level.right, level.mask, *level.coefficients
        sweeps = _SWEEPS_AT_THE_END if level.factors is None else 1
        for sweep in range(sweeps):
            # The first half of the first sweep starts from zero.
            (_sweep if sweep else _start)(*at, 0)
            _sweep(*at, 1)
        if level.factors is not None:
            coarse = self.levels[depth + 1]
            _residual(
                level.residual, level.solution, level.right, level.mask, *level.coefficients, 1.0
            )
            _restrict(coarse.right, level.residual, coarse.mask, *level.factors)
            self._cycle(depth + 1)
            _prolong(level.solution, coarse.solution, level.mask, *level.factors)
        for _ in range(sweeps):
            _sweep(*at, 1)
            _sweep(*at, 0)


def _factors(shape, spacing) -> tuple[int, int, int]:
    fine = spacing <= _COARSEN_UP_TO * spacing.min()
    x, y, z = (2 if f and n > _SMALLEST else 1 for f, n in zip(fine, shape, strict=True))
    return x, y, z


def _coarse_mask(mask: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    # A coarsened axis of n voxels needs n // 2 + 1, so that its last voxel is again outside.
    grid = [n // 2 + 1 if f == 2 else n for n, f in zip(mask.shape, factors, strict=True)]
    coarse = np.zeros(grid, dtype=bool)
    kept = mask[tuple(slice(None, None, f) for f in factors)]
    coarse[tuple(slice(0, n) for n in kept.shape)] = kept
    return coarse


@parallel_kernel
def _residual(out, x, right, mask, cx, cy, cz, shift, sign):
    """``sign (right - A x)``, zero outside the mask; with right = out = 0 and sign = -1, A x."""
    dtype = x.dtype.type
    ax, ay, az = dtype(cx), dtype(cy), dtype(cz)
    diagonal, s = dtype(2 * (cx + cy + cz) + shift), dtype(sign)
    for i in numba.prange(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            for k in range(1, x.shape[2] - 1):
                value = s * (
                    right[i, j, k]
                    - diagonal * x[i, j, k]
                    + ax * (x[i - 1, j, k] + x[i + 1, j, k])
                    + ay * (x[i, j - 1, k] + x[i, j + 1, k])
                    + az * (x[i, j, k - 1] + x[i, j, k + 1])
                )
                out[i, j, k] = value if mask[i, j, k] else dtype(0)


@parallel_kernel
def _start(x, right, mask, cx, cy, cz, shift, colour):
    """The sweep of one colour from x = 0; the other colour becomes zero."""
    dtype = x.dtype.type
    inverse = dtype(1 / (2 * (cx + cy + cz) + shift))
    for i in numba.prange(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            other = (i + j + colour) % 2
            for k in range(1, x.shape[2] - 1):
                counts = mask[i, j, k] and (k + other) & 1 == 1
                x[i, j, k] = inverse * right[i, j, k] if counts else dtype(0)


@parallel_kernel
def _sweep(x, right, mask, cx, cy, cz, shift, colour):
    """Gauss-Seidel on the voxels of one colour, whose neighbours all have the other."""
    dtype = x.dtype.type
    ax, ay, az = dtype(cx), dtype(cy), dtype(cz)
    inverse = dtype(1 / (2 * (cx + cy + cz) + shift))
    for i in numba.prange(1, x.shape[0] - 1):
        # By way of a row of its own: in place, the compiler takes each voxel to need the last.
        row = np.empty(x.shape[2], x.dtype)
        for j in range(1, x.shape[1] - 1):
            other = (i + j + colour) % 2
            for k in range(1, x.shape[2] - 1):
                value = inverse * (
                    right[i, j, k]
                    + ax * (x[i - 1, j, k] + x[i + 1, j, k])
                    + ay * (x[i, j - 1, k] + x[i, j + 1, k])
                    + az * (x[i, j, k - 1] + x[i, j, k + 1])
                )
                row[k] = value if mask[i, j, k] and (k + other) & 1 == 1 else x[i, j, k]
            for k in range(1, x.shape[2] - 1):
                x[i, j, k] = row[k]


@parallel_kernel
def _restrict(coarse, fine, mask, fx, fy, fz):
    """Full weighting: the transpose of the interpolation over the product of the factors."""
    dtype = fine.dtype.type
    half = dtype(0.5)
    share = dtype(1 / (fx * fy * fz))
    for i in numba.prange(1, coarse.shape[0] - 1):
        row = np.empty(fine.shape[2], fine.dtype)
        for j in range(1, coarse.shape[1] - 1):
            row[:] = 0
            for a in range(1 - fx, fx):
                for b in range(1 - fy, fy):
                    weight = (dtype(1) if a == 0 else half) * (dtype(1) if b == 0 else half)
                    for k in range(fine.shape[2]):
                        row[k] += weight * fine[fx * i + a, fy * j + b, k]
            for k in range(1, coarse.shape[2] - 1):
                if mask[i, j, k]:
                    value = row[fz * k]
                    if fz == 2:
                        value += half * (row[2 * k - 1] + row[2 * k + 1])
                    coarse[i, j, k] = share * value


@parallel_kernel
def _prolong(fine, coarse, mask, fx, fy, fz):
    """Add the trilinear interpolation of the coarse array to the fine one."""
    quarter, half = fine.dtype.type(0.25), fine.dtype.type(0.5)
    for i in numba.prange(1, fine.shape[0] - 1):
        row = np.empty(coarse.shape[2], fine.dtype)
        i0, i1 = i // fx, (i + fx - 1) // fx
        for j in range(1, fine.shape[1] - 1):
            j0, j1 = j // fy, (j + fy - 1) // fy
            for k in range(coarse.shape[2]):
                row[k] = quarter * (
                    coarse[i0, j0, k] + coarse[i0, j1, k] + coarse[i1, j0, k] + coarse[i1, j1, k]
                )
            if fz == 1:
                for k in range(1, fine.shape[2] - 1):
                    if mask[i, j, k]:
                        fine[i, j, k] += row[k]
            else:
                for k in range(1, fine.shape[2] - 1):
                    if mask[i, j, k]:
                        fine[i, j, k] += half * (row[k >> 1] + row[(k + 1) >> 1])
