"""Smooth random functions of position (mm), for texture and shapes that differ between people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

#: Variance of a cubic B-spline series with independent coefficients of variance one, per axis and
#: averaged over positions: the integral of the squared spline.
_SPLINE_VARIANCE = 151.0 / 315.0


@dataclass(frozen=True)
class SmoothField:
    """Cubic B-spline series on a lattice in mm: a smooth random function of position.

    It is a function of mm, so the same seed gives the same function on every voxel grid. It is
    zero far outside the lattice.
    """

    #: Lattice spacing in mm; features are about twice as wide.
    spacing: float
    #: Model coordinates (mm) of the first lattice point.
    start: tuple[float, float, float]
    #: (a, b, c) float32.
    coefficients: np.ndarray

    @classmethod
    def random(
        cls, rng: np.random.Generator, spacing: float, low: Sequence[float], high: Sequence[float]
    ) -> SmoothField:
        """Random function of mean zero and standard deviation one on the box `low` to `high`.

        Parameters
        ----------
        rng : numpy.random.Generator
        spacing : float
            mm.
        low, high : (3,) float
            Corners of the box, mm.
        """
        low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        size = np.ceil((high - low) / spacing).astype(int) + 4
        coefficients = rng.standard_normal(size, dtype=np.float32)
        coefficients /= np.float32(_SPLINE_VARIANCE**1.5)
        return cls(float(spacing), tuple(low - 1.5 * spacing), coefficients)

    def on(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Values on the grid of three 1-D coordinate arrays (mm): float32 (nx, ny, nz)."""
        bases = [
            self._basis(points, axis, n)
            for axis, (points, n) in enumerate(zip((x, y, z), self.coefficients.shape, strict=True))
        ]
        # One axis after the other; each goes first for its turn and comes last in the result.
        out = self.coefficients
        for basis in bases:
            rest = out.shape[1:]
            out = basis @ np.ascontiguousarray(out.reshape(out.shape[0], -1))
            out = np.moveaxis(out.reshape(-1, *rest), 0, -1)
        return np.ascontiguousarray(out)

    def _basis(self, points: np.ndarray, axis: int, n: int) -> sparse.csr_matrix:
        """Splines at `points`, four of which differ from zero at each."""
        position = (np.asarray(points, dtype=float) - self.start[axis]) / self.spacing
        nodes = np.floor(position).astype(int)[:, None] + np.arange(-1, 3)
        t = np.abs(position[:, None] - nodes)
        near = (4 - 6 * t**2 + 3 * t**3) / 6
        far = np.clip(2 - t, 0, None) ** 3 / 6
        values = np.where(t < 1, near, far).astype(np.float32)
        rows = np.broadcast_to(np.arange(len(position))[:, None], nodes.shape)
        known = (nodes >= 0) & (nodes < n)
        return sparse.csr_matrix((values[known], (rows[known], nodes[known])), (len(position), n))
