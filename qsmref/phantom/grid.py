"""Voxel grids in the coordinates of a model, and polynomials on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..problems import DataError, ExitCode


class ParameterError(DataError):
    """A parameter out of its range; the message is a sentence for the user."""

    def __init__(self, sentence: str, code: ExitCode = ExitCode.USAGE):
        super().__init__(sentence, code)


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

    def __post_init__(self):
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ParameterError(f"The matrix needs three numbers from 1, not {self.shape}.")
        sizes = np.asarray(self.voxel_size, dtype=float)
        if sizes.shape != (3,) or not np.all(np.isfinite(sizes)) or sizes.min() <= 0:
            raise ParameterError(
                f"The voxel size needs three positive numbers (mm), not {self.voxel_size}."
            )

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
