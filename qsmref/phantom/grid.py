"""Voxel grids of the phantom in the coordinates of its head, and polynomials on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..problems import DataError, ExitCode


class ParameterError(DataError):
    """A parameter out of its range; the message is a sentence for the user."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.USAGE):
        super().__init__(sentence, code)


def checked_matrix(matrix: Sequence[int]) -> tuple[int, int, int]:
    """Three whole numbers from 1, or a ParameterError."""
    values = np.asarray(matrix, dtype=float)
    if values.shape != (3,) or not np.all(values == np.rint(values)) or values.min() < 1:
        raise ParameterError(f"The matrix needs three whole numbers from 1, not {matrix}.")
    return tuple(int(n) for n in values)


def checked_voxel_size(size: Sequence[float]) -> tuple[float, float, float]:
    """Three positive numbers (mm), or a ParameterError."""
    values = np.asarray(size, dtype=float)
    if values.shape != (3,) or not np.all(np.isfinite(values)) or values.min() <= 0:
        raise ParameterError(f"The voxel size needs three positive numbers (mm), not {size}.")
    return tuple(float(h) for h in values)


@dataclass(frozen=True)
class Grid:
    """A voxel grid in the coordinates of a model (mm along the voxel axes).

    Attributes
    ----------
    shape : (3,) int
    voxel_size : (3,) float
        mm.
    origin : (3,) float
        Model coordinates (mm) of the centre of voxel (0, 0, 0).
    affine : (4, 4) array
        From voxel indices to patient coordinates (mm, RAS+).
    """

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    origin: tuple[float, float, float]
    affine: np.ndarray

    def axes(
        self, factor: Sequence[int] = (1, 1, 1), margins: Sequence = ((0, 0),) * 3
    ) -> list[np.ndarray]:
        """Model coordinates (mm) of sample points along each axis.

        Every voxel holds ``factor`` equally spaced points per axis, none on its faces; `margins`
        adds whole voxels before and after each axis.
        """
        out = []
        for axis in range(3):
            k, h = int(factor[axis]), self.voxel_size[axis]
            before, after = margins[axis]
            steps = (np.arange(k * (self.shape[axis] + before + after)) + 0.5) / k - 0.5
            out.append(self.origin[axis] + h * (steps - before))
        return out

    @property
    def centre(self) -> np.ndarray:
        """Model coordinates (mm) of the middle of the grid."""
        n, h = np.asarray(self.shape), np.asarray(self.voxel_size)
        return np.asarray(self.origin) + (n - 1) / 2 * h


def polynomial(
    axes: Sequence[np.ndarray], coefficients: dict[tuple[int, int, int], float]
) -> np.ndarray:
    """Polynomial of three 1-D coordinate arrays, as a float32 (nx, ny, nz) array.

    `coefficients` maps the exponents of x, y, z to factors.
    """
    x = np.asarray(axes[0], dtype=np.float32)[:, None, None]
    y = np.asarray(axes[1], dtype=np.float32)[None, :, None]
    z = np.asarray(axes[2], dtype=np.float32)[None, None, :]
    out = np.zeros(tuple(len(a) for a in axes), dtype=np.float32)
    for (i, j, k), factor in coefficients.items():
        out += np.float32(factor) * (x**i * (y**j * z**k))
    return out
