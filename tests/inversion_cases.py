"""A small head with a known map, for the tests of dipole inversion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from background_cases import background, coordinates

from qsmref.reconstruction import forward_field
from qsmref.reconstruction.inversion import RADIANS_PER_PPM

OBLIQUE = (0.3, -0.5, 0.8)
#: (shape, voxel size) of the same field of view.
ISOTROPIC = ((30, 30, 30), (1.25, 1.25, 1.25))
ANISOTROPIC = ((36, 36, 18), (1.0, 1.0, 2.0))

#: Parameters that make the iterative methods quick enough for many tests.
QUICK = {
    "single-step": {
        "radii": (1.5, 3.0, 6.0),
        "iterations": 15,
        "lambda_": 1000.0,
        "gradient_noise": 0.0,
    },
    "tv": {"iterations": 15},
    "medi": {"max_iterations": 2, "cg_max_iterations": 8},
    "total-field": {"max_iterations": 2, "cg_max_iterations": 8},
}
#: Parameters of the tests of accuracy: those that suit data made by the model itself. The defaults
#: are meant for data that the model does not quite describe.
MODEL = {
    "single-step": {
        "lambda_": 1000.0,
        "edge_fraction": 0.9,
        "gradient_noise": 0.0,
        "free_laplacian": False,
    },
    "total-field": {"max_iterations": 3, "cg_max_iterations": 200},
}
#: Methods that take the total field.
TOTAL = ("single-step", "total-field")


class Case(NamedTuple):
    """Arrays of one small head; ppm and mm."""

    chi: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    size: tuple[float, float, float]
    b0_dir: tuple[float, float, float]
    local: np.ndarray
    total: np.ndarray
    noise: np.ndarray
    magnitude: np.ndarray

    def field(self, method: str) -> np.ndarray:
        return self.total if method in TOTAL else self.local

    def error(self, chi: np.ndarray, mask: np.ndarray | None = None) -> float:
        """Relative error of a map in the mask, its mean left aside."""
        inside = self.mask if mask is None else mask
        a, b = chi[inside] - chi[inside].mean(), self.chi[inside] - self.chi[inside].mean()
        return float(np.linalg.norm(a - b) / np.linalg.norm(b))

    def contrast_error(self, chi: np.ndarray) -> float:
        """Largest error (ppm) of a difference between two of the regions."""
        regions = [
            chi[self.labels == k].mean() - self.chi[self.labels == k].mean() for k in (1, 2, 3)
        ]
        return float(np.ptp(regions))


def ellipsoid(shape, size, centre, radii):
    offsets = [c - o for c, o in zip(coordinates(shape, size), centre, strict=True)]
    return sum((c / r) ** 2 for c, r in zip(offsets, radii, strict=True)) <= 1


def make_case(shape, size, b0_dir=(0.0, 0.0, 1.0), noise=0.0005, seed=0, dtype=np.float32) -> Case:
    """Ball of 15 mm with three regions, air and bone far outside; `noise` in ppm."""
    rng = np.random.default_rng(seed)
    mask = ellipsoid(shape, size, (0, 0, 0), (15, 14, 13))
    labels = np.zeros(shape, int)
    labels[ellipsoid(shape, size, (-6, 1, 1), (4, 5, 4))] = 1
    labels[ellipsoid(shape, size, (5, -3, 2), (4, 4, 5))] = 2
    labels[ellipsoid(shape, size, (1, 7, -4), (5, 3, 4))] = 3
    chi = np.choose(labels, (0.0, 0.12, 0.06, -0.05))
    local = forward_field(chi * mask, size, b0_dir)
    # In closed form: air on voxels would ring into the mask.
    total = local + background(shape, size, b0_dir)
    spread = np.where(mask, noise * rng.uniform(0.7, 1.4, shape), 0.0)
    error = spread * rng.standard_normal(shape)
    magnitude = np.choose(labels, (1.0, 0.7, 0.8, 1.2)) * mask
    magnitude += 0.004 * rng.standard_normal(shape)
    arrays = [a.astype(dtype) for a in (local + error, total + error, spread, magnitude)]
    return Case(chi, labels, mask, size, b0_dir, *arrays)


def options(case: Case) -> dict:
    """The keyword arguments of `invert` that every method gets."""
    return {
        "b0_dir": case.b0_dir,
        "magnitude": case.magnitude,
        "noise": case.noise,
        "radians_per_ppm": RADIANS_PER_PPM,
    }
