r"""The local system of :mod:`qsmref.reconstruction.harmonic`: one unknown for each inner voxel.

With L the :math:`-\nabla^2` of 19 points, K that of 7 points plus kappa^2, and a the split of
:math:`z = F D x` plus its multiplier,

.. math:: [ K K^T / \mu + L (2 \lambda W^2)^{-1} L^T ] p = K a - L f

The multiplier is :math:`K^T p / \mu`, the residual of the field :math:`- L^T p / (2 \lambda W^2)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from .jit import kernel, numba, parallel_kernel, parallel_sum, zeros
from .multigrid import MaskedPoisson

#: kappa, 1 / mm: where the split passes from the field to its Laplacian. It sets the speed and not
#: the solution. Between 0.15 and 0.5 it matters little.
KAPPA = 0.25

#: The planes of the axes.
PLANES = ((0, 1), (0, 2), (1, 2))


def wide_laplacian(voxel_size: Sequence[float]) -> tuple[float, ...]:
    r"""Coefficients of the :math:`-\nabla^2` of 19 points, per mm squared.

    Of the neighbours along x, y and z, then of those across xy, xz and yz, all as they are taken
    off; the voxel's own makes the sum zero. With :math:`\delta_i^2` the second difference along an
    axis, it is

    .. math:: -\sum_i \frac{\delta_i^2}{h_i^2}
              - \sum_{i<j} \frac{h_i^2 + h_j^2}{12 h_i^2 h_j^2} \delta_i^2 \delta_j^2 .

    For any shape of the voxel it lies between a third of and all of that of 7 points, so that it
    is positive, whatever the signs of its coefficients.

    References
    ----------
    Spotz & Carey 1996, doi:10.1002/(SICI)1098-2426(199603)12:2<235::AID-NUM6>3.0.CO;2-R.
    """
    h2 = [float(h) ** 2 for h in voxel_size]
    across = [(h2[i] + h2[j]) / (12 * h2[i] * h2[j]) for i, j in PLANES]
    along = [
        1 / h2[axis] - 2 * sum(b for b, plane in zip(across, PLANES, strict=True) if axis in plane)
        for axis in range(3)
    ]
    return (*along, *across)


def inner(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask whose neighbours belong to it: where the Laplacian of the field is known.

    Neighbours are the 18 that the Laplacian takes.
    """
    return ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 2))


class LocalSystem:
    """The equations of p, on arrays with a rim of one voxel; K and L as in this module's text.

    Attributes
    ----------
    a : (x + 2, y + 2, z + 2) array
        Split plus multiplier, on the mask.
    variance : array of that shape
        1 / W^2, zero outside the mask.
    softness, mu : float
        1 / (2 lambda), and the weight of the splitting.
    """

    def __init__(self, inside: np.ndarray, field: np.ndarray, voxel_size: Sequence[float]):
        interior = inner(inside)
        if not interior.any():
            raise ValueError(
                "no voxel of the mask has all its neighbours in the mask: nowhere is the Laplacian "
                "of the field known"
            )
        # V-cycles of K alone: L has about the same inverse where p varies within a few voxels.
        self.poisson = MaskedPoisson(interior, voxel_size, field.dtype, KAPPA**2)
        self.inside, self.interior = np.pad(inside, 1), self.poisson.levels[0].mask
        self.coefficients = self.poisson.levels[0].coefficients[:3]
        self.wide = wide_laplacian(voxel_size)
        dtype = field.dtype
        self.dtype: Any = dtype.type
        self.square = self.dtype(KAPPA**2)
        empty = [zeros(self.inside.shape, dtype) for _ in range(7)]
        self.a, self.p, self.image_of_p, self.field_side, self.variance = empty[:5]
        self._direction, self._image = empty[5:]
        self.softness = self.mu = self.dtype(1)
        np.copyto(self.a[1:-1, 1:-1, 1:-1], field, where=inside)
        _laplacian(self.a, self.field_side, self.interior, *self.wide)
        self.a[...] = 0

    def vary(self, weight2: np.ndarray) -> None:
        """Take W^2 (in the mask positive), which counts from the next :meth:`weigh` on."""
        middle = (slice(1, -1),) * 3
        np.divide(1, weight2, out=self.variance[middle], where=self.inside[middle])

    def weigh(self, twice: float, mu: float) -> None:
        """Take 2 lambda (`twice`) and mu; p stays, and what follows from it is renewed."""
        self.softness, self.mu = 1 / self.dtype(twice), self.dtype(mu)
        self._apply(self.p)
        self.image_of_p[...] = self._image  # asked for on the inner voxels alone

    def accept(self) -> None:
        """Take z and e = 0 for the split: the multiplier becomes none."""
        self.a -= self.multiplier()
        for array in (self.p, self.image_of_p):
            array[...] = 0

    def multiplier(self) -> np.ndarray:
        """That of the split, K' p / mu; zero outside the mask."""
        out = np.zeros_like(self.p)
        _multiplier(self.p, out, self.inside, *self.coefficients, self.square, 1 / self.mu)
        return out

    def data_side(self, predicted: np.ndarray) -> None:
        """In place of z of the map: (split - multiplier) less it; zero outside the mask."""
        _data_side(
            self.a, self.p, predicted, self.inside, *self.coefficients, self.square, 1 / self.mu
        )

    def relax(self, predicted: np.ndarray, relaxation: float) -> None:
        """a <- relaxed z of the map + multiplier."""
        _relax(
            predicted, self.a, self.p, self.inside, relaxation, *self.coefficients, self.square,
            1 / self.mu,
        )  # fmt: skip

    def solve(self, laplacian: float, steps: int) -> None:
        """Steps from the present p towards that of the present a; `laplacian` is - L h."""
        residual = np.zeros_like(self.a)
        _right_side(
            residual, self.a, self.field_side, self.image_of_p, self.interior,
            *self.coefficients, self.square, self.dtype(laplacian),
        )  # fmt: skip
        self._gradients(residual, steps)

    def error(self) -> np.ndarray:
        """e, the residual of the field (rad), on the box; zero outside the mask."""
        out = np.zeros_like(self.p)
        _laplacian(self.p, out, self.inside, *self.wide)
        out *= self.variance
        out *= -self.softness
        return out[1:-1, 1:-1, 1:-1]

    def force(self) -> float:
        """Sum of p over its response: what the constant Laplacian still lacks, times that."""
        return float(self.p.sum(dtype=float))

    def response(self, steps: int) -> float:
        """Sum of p for a right side of one everywhere, p and what follows from it left alone."""
        kept = self.p, self.image_of_p
        asked = bool(self.p.any())  # else they lend their memory
        if asked:
            self.p, self.image_of_p = (np.zeros_like(self.p) for _ in range(2))
        self._gradients(self.interior.astype(self.dtype), steps)
        total = self.force()
        self.p, self.image_of_p = kept
        if not asked:
            for array in kept:
                array[...] = 0
        return total

    def _gradients(self, residual: np.ndarray, steps: int) -> None:
        direction, slope = self._direction, 0.0
        for step in range(steps):
            z = self._precondition(residual)
            new = _dot(residual, z)
            if not new > 0:
                return
            _redirect(direction, z, self.interior, self.dtype(new / slope if step else 0))
            slope = new
            curvature = self._apply(direction)
            if not curvature > 0:
                return
            length = self.dtype(slope / curvature)
            _advance(
                self.p, self.image_of_p, residual, direction, self._image, self.interior, length
            )

    def _precondition(self, right: np.ndarray) -> np.ndarray:
        first = self.poisson.precondition(right)
        _soften(first, self.variance, self.interior, self.softness, 1 / self.mu, self._image)
        return self.poisson.precondition(self._image)

    def _apply(self, p: np.ndarray) -> float:
        """The matrix times p into ``_image``; returns their product."""
        # Between two V-cycles their arrays are free.
        free = self.poisson.levels[0]
        s, w = free.residual, free.solution
        _to_field(
            p, s, w, self.variance, self.inside, *self.coefficients, *self.wide, self.square,
            1 / self.mu, self.softness,
        )  # fmt: skip
        return _from_field(
            p, s, w, self._image, self.interior, *self.coefficients, *self.wide,
            self.square,
        )  # fmt: skip


@kernel
def _stencil(x, i, j, k, ax, ay, az):
    return (
        2 * (ax + ay + az) * x[i, j, k]
        - ax * (x[i - 1, j, k] + x[i + 1, j, k])
        - ay * (x[i, j - 1, k] + x[i, j + 1, k])
        - az * (x[i, j, k - 1] + x[i, j, k + 1])
    )


@kernel
def _shifted_stencil(p, i, j, k, ax, ay, az, square, scale):
    """K p, or its transpose's, times `scale`."""
    return scale * (_stencil(p, i, j, k, ax, ay, az) + square * p[i, j, k])


@parallel_kernel
def _multiplier(p, out, inside, cx, cy, cz, square, inverse_mu):
    dtype = p.dtype.type
    k_of = (dtype(cx), dtype(cy), dtype(cz), square, inverse_mu)
    for i in numba.prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            for k in range(1, p.shape[2] - 1):
                if inside[i, j, k]:
                    out[i, j, k] = _shifted_stencil(p, i, j, k, *k_of)


@parallel_kernel
def _data_side(a, p, predicted, inside, cx, cy, cz, square, inverse_mu):
    dtype = p.dtype.type
    k_of = (dtype(cx), dtype(cy), dtype(cz), square, inverse_mu)
    for i in numba.prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            for k in range(1, p.shape[2] - 1):
                value = dtype(0)
                if inside[i, j, k]:
                    v = _shifted_stencil(p, i, j, k, *k_of)
                    value = a[i, j, k] - 2 * v - predicted[i - 1, j - 1, k - 1]
                predicted[i - 1, j - 1, k - 1] = value


@parallel_kernel
def _relax(predicted, a, p, inside, relaxation, cx, cy, cz, square, inverse_mu):
    dtype = p.dtype.type
    k_of = (dtype(cx), dtype(cy), dtype(cz), square, inverse_mu)
    for i in numba.prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            for k in range(1, p.shape[2] - 1):
                if inside[i, j, k]:
                    v = _shifted_stencil(p, i, j, k, *k_of)
                    new = relaxation * predicted[i - 1, j - 1, k - 1]
                    a[i, j, k] = new + (1 - relaxation) * (a[i, j, k] - v) + v


@kernel
def _wide_stencil(x, i, j, k, centre, fx, fy, fz, bxy, bxz, byz):
    along = (
        fx * (x[i - 1, j, k] + x[i + 1, j, k])
        + fy * (x[i, j - 1, k] + x[i, j + 1, k])
        + fz * (x[i, j, k - 1] + x[i, j, k + 1])
    )
    xy = x[i - 1, j - 1, k] + x[i - 1, j + 1, k] + x[i + 1, j - 1, k] + x[i + 1, j + 1, k]
    xz = x[i - 1, j, k - 1] + x[i - 1, j, k + 1] + x[i + 1, j, k - 1] + x[i + 1, j, k + 1]
    yz = x[i, j - 1, k - 1] + x[i, j - 1, k + 1] + x[i, j + 1, k - 1] + x[i, j + 1, k + 1]
    return centre * x[i, j, k] - along - bxy * xy - bxz * xz - byz * yz


@kernel
def _typed(x, fx, fy, fz, bxy, bxz, byz):
    dtype = x.dtype.type
    centre = 2 * (fx + fy + fz) + 4 * (bxy + bxz + byz)
    return (
        dtype(centre), dtype(fx), dtype(fy), dtype(fz), dtype(bxy), dtype(bxz), dtype(byz),
    )  # fmt: skip


@parallel_kernel
def _laplacian(x, out, where, fx, fy, fz, bxy, bxz, byz):
    wide = _typed(x, fx, fy, fz, bxy, bxz, byz)
    for i in numba.prange(1, x.shape[0] - 1):
        for j in range(1, x.shape[1] - 1):
            for k in range(1, x.shape[2] - 1):
                if where[i, j, k]:
                    out[i, j, k] = _wide_stencil(x, i, j, k, *wide)


@parallel_kernel
def _right_side(out, a, field_side, image, interior, cx, cy, cz, square, constant):
    """K a - L f - T p + constant on the inner voxels."""
    dtype = a.dtype.type
    ax, ay, az = dtype(cx), dtype(cy), dtype(cz)
    for i in numba.prange(1, a.shape[0] - 1):
        for j in range(1, a.shape[1] - 1):
            for k in range(1, a.shape[2] - 1):
                if interior[i, j, k]:
                    value = _shifted_stencil(a, i, j, k, ax, ay, az, square, dtype(1))
                    out[i, j, k] = value - field_side[i, j, k] - image[i, j, k] + constant


@parallel_kernel
def _to_field(
    p, s, w, variance, inside, cx, cy, cz, fx, fy, fz, bxy, bxz, byz, square, inverse_mu, softness
):
    """On the mask: s = K' p / mu, and w = (2 lambda W^2)^-1 L' p."""
    dtype = p.dtype.type
    wide = _typed(p, fx, fy, fz, bxy, bxz, byz)
    ax, ay, az = dtype(cx), dtype(cy), dtype(cz)
    for i in numba.prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            for k in range(1, p.shape[2] - 1):
                if inside[i, j, k]:
                    s[i, j, k] = _shifted_stencil(p, i, j, k, ax, ay, az, square, inverse_mu)
                    soft = softness * variance[i, j, k]
                    w[i, j, k] = soft * _wide_stencil(p, i, j, k, *wide)


@parallel_sum
def _from_field(p, s, w, out, interior, cx, cy, cz, fx, fy, fz, bxy, bxz, byz, square):
    """On the inner voxels: K s + L w, and its product with p."""
    dtype = p.dtype.type
    wide = _typed(p, fx, fy, fz, bxy, bxz, byz)
    ax, ay, az = dtype(cx), dtype(cy), dtype(cz)
    total = 0.0
    for i in numba.prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            for k in range(1, p.shape[2] - 1):
                if interior[i, j, k]:
                    value = _shifted_stencil(s, i, j, k, ax, ay, az, square, dtype(1))
                    value += _wide_stencil(w, i, j, k, *wide)
                    out[i, j, k] = value
                    total += np.float64(value) * p[i, j, k]
    return total


@parallel_kernel
def _soften(first, variance, interior, softness, inverse_mu, out):
    """Divide by 1 / mu + (2 lambda W^2)^-1 on the inner voxels."""
    for i in numba.prange(first.shape[0]):
        for j in range(first.shape[1]):
            for k in range(first.shape[2]):
                value = first[i, j, k] / (inverse_mu + softness * variance[i, j, k])
                out[i, j, k] = value if interior[i, j, k] else 0


@parallel_sum
def _dot(a, b):
    total = 0.0
    for i in numba.prange(a.shape[0]):
        for j in range(a.shape[1]):
            for k in range(a.shape[2]):
                total += np.float64(a[i, j, k]) * b[i, j, k]
    return total


@parallel_kernel
def _redirect(direction, z, interior, factor):
    for i in numba.prange(z.shape[0]):
        for j in range(z.shape[1]):
            for k in range(z.shape[2]):
                if interior[i, j, k]:
                    direction[i, j, k] = z[i, j, k] + factor * direction[i, j, k]


@parallel_kernel
def _advance(p, image_of_p, residual, direction, image, interior, length):
    for i in numba.prange(p.shape[0]):
        for j in range(p.shape[1]):
            for k in range(p.shape[2]):
                if interior[i, j, k]:
                    p[i, j, k] += length * direction[i, j, k]
                    change = length * image[i, j, k]
                    image_of_p[i, j, k] += change
                    residual[i, j, k] -= change
