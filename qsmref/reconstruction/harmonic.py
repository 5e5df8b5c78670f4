r"""The data term of the total field with every harmonic function taken out of both sides.

.. math:: \min_h \| W (f - D x - h) \|^2, \qquad \nabla^2 h = 0 \text{ in the mask}

The field h of all sources outside the mask is harmonic inside it, and nothing else is known of it.
Left free and fitted together with the map it takes with it what no map could tell from a
background, and not more; the noise of the rest counts once in each voxel, whatever its spatial
frequency.

The Laplacian is the one of 19 points that is exact to fourth order where it is zero: the plain one
of 7 takes steep fields next to air for tissue (0.3 ppb of CN - GP in a head of exact data).

The alternating directions split the map from :math:`z = F D x` with
:math:`F = -\nabla^2 / (\kappa^2 - \nabla^2)`, which passes harmonic functions as little as the term
does: a split from D x itself would hold the map fast in what the data leave open. On the mask, with
L the :math:`-\nabla^2` of its inner voxels and K that of 7 points plus kappa^2,

.. math:: K z = L D x = L (f - e), \qquad e = f - D x - h

ties z to the residual e by neighbours alone. The best z and e for a split plus multiplier a,

.. math:: \min_{z, e} \lambda \| W e \|^2 + \tfrac{\mu}{2} \| z - a \|^2,

are :math:`z = a - K^T p / \mu` and :math:`e = - L^T p / (2 \lambda W^2)`, with one unknown p for
each inner voxel,

.. math:: [ K K^T / \mu + L (2 \lambda W^2)^{-1} L^T ] p = K a - L f .

That system is local and well conditioned (kappa ends it at a few voxels); two steps of conjugate
gradients from the former p are enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy import ndimage

from .admm import AlternatingDirections, accumulate, shrink_firmly
from .fft import Transform
from .jit import kernel, numba, parallel_kernel, zeros
from .multigrid import MaskedPoisson

#: kappa, 1 / mm: where the split passes from the field to its Laplacian. It sets the speed and not
#: the solution. Between 0.15 and 0.5 it matters little.
KAPPA = 0.25

#: Squared weights are this part of their median at least: a voxel of less says nothing either, and
#: the local system would be ill-conditioned.
LEAST_WEIGHT = 1e-3

_PLANES = ((0, 1), (0, 2), (1, 2))

#: Steps of conjugate gradients: in each iteration, and where the weights have changed. Maps made
#: with two steps differ from those with eight by 0.03 to 0.07 ppb between nuclei (four heads).
_STEPS, _STEPS_ANEW = 2, 4

#: Iteration after which the constant Laplacian is fitted: the first maps explain nothing yet.
_FIT_FROM = 3


def split_filter(laplacian: Sequence[np.ndarray], voxel_size: Sequence[float]) -> np.ndarray:
    """Half spectrum of F, from the three parts of the discrete Laplacian's of 7 points."""
    lx, ly, lz = laplacian[0][:, None, None], laplacian[1][:, None], laplacian[2]
    bxy, bxz, byz = (
        lx.dtype.type((voxel_size[i] ** 2 + voxel_size[j] ** 2) / 12) for i, j in _PLANES
    )
    seven = lx + ly + lz
    wide = seven - bxy * lx * ly - bxz * lx * lz - byz * ly * lz
    return wide / (seven + lx.dtype.type(KAPPA**2))


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
    across = [(h2[i] + h2[j]) / (12 * h2[i] * h2[j]) for i, j in _PLANES]
    along = [
        1 / h2[axis] - 2 * sum(b for b, plane in zip(across, _PLANES, strict=True) if axis in plane)
        for axis in range(3)
    ]
    return (*along, *across)


def inner(mask: np.ndarray) -> np.ndarray:
    """Voxels of a mask whose neighbours belong to it: where the Laplacian of the field is known.

    Neighbours are the 18 that the Laplacian takes.
    """
    return ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 2))


class HarmonicFree(AlternatingDirections):
    """Total variation of a map, all harmonic functions free in its data.

    Parameters
    ----------
    transform, voxel_size, smooth, lambda_, mu_gradient, width, box
        See :class:`qsmref.reconstruction.admm.AlternatingDirections`. The other arrays have the
        shape of the box.
    dipole : half spectrum (real)
    inside : (x, y, z) bool array
        The mask.
    field, weight2 : (x, y, z) arrays
        f (rad) and W^2; outside the mask any finite number.
    mu_data : float
        Weight of the splitting.
    free_laplacian : bool
        Whether h may have a constant Laplacian (``drift_factor``, rad per mm squared, fitted in
        every iteration).
    drift_limits : (2,) float
        It is believed as :func:`qsmref.reconstruction.admm.shrink_firmly` has it.
    """

    def __init__(
        self,
        transform: Transform,
        voxel_size: Sequence[float],
        smooth: np.ndarray,
        dipole: np.ndarray,
        inside: np.ndarray,
        field: np.ndarray,
        weight2: np.ndarray,
        lambda_: float,
        mu_gradient: float,
        mu_data: float,
        width: float = 0.0,
        free_laplacian: bool = False,
        drift_limits: tuple[float, float] = (0.0, 0.0),
        box: Transform | None = None,
    ):
        super().__init__(
            transform, voxel_size, smooth, [dipole], field.dtype, lambda_, mu_gradient, [mu_data],
            width=width, box=box,
        )  # fmt: skip
        self.filter = split_filter(self.laplacian, voxel_size)
        self.kernels = [dipole * self.filter]
        self.inside = inside
        self.free_laplacian, self.drift_limits = free_laplacian, drift_limits
        self.local = LocalSystem(inside, field, voxel_size)
        self._weight2 = self._bounded(weight2)
        self._changed = True
        self._yield, self._yield_of = 1.0, (0.0, 0.0)
        self.predicted = np.zeros_like(field)  # z of the map
        # Started as if z were that of the data already (e = 0): saves the first iterations.
        self._solve()
        self.local.accept()

    @property
    def weight2(self) -> np.ndarray:
        """W^2; within the mask no less than :data:`LEAST_WEIGHT` of its median."""
        return self._weight2

    @weight2.setter
    def weight2(self, value: np.ndarray) -> None:
        self._weight2 = self._bounded(value)
        self._changed = True

    def _bounded(self, weight2: np.ndarray) -> np.ndarray:
        known = weight2[self.inside & (weight2 > 0)]
        least = LEAST_WEIGHT * float(np.median(known)) if known.size else 1.0
        return np.where(self.inside, np.maximum(weight2, self.dtype(least)), 1)

    def _data_right(self, right: np.ndarray, squares: np.ndarray) -> None:
        part = np.empty_like(self.predicted)
        _data_side(self.local.a, self.local.v, self.predicted, self.inside, part)
        accumulate(right, self.box.forward(part), self.kernels[0], self.mu_data[0], squares)

    def _update_data(self, relaxation, first: bool) -> None:
        self.predicted = self.box.inverse(self.spectrum * self.kernels[0])
        _relax(self.predicted, self.local.a, self.local.v, self.inside, relaxation)
        self._solve()
        if self.free_laplacian and self.fits_drift and self.iterations >= _FIT_FROM:
            full = self.drift_factor + self.local.force() / self._yield
            new = shrink_firmly(full, *self.drift_limits)
            if new != self.drift_factor:
                self.drift_factor = new
                # Or p would not know of it when it is asked the next time.
                self._solve()

    def _solve(self) -> None:
        """e and the multiplier that belong to the present split plus multiplier."""
        steps = _STEPS
        if self._changed:
            self.local.weigh(self.twice * self._weight2, float(self.mu_data[0]))
            self._changed, steps = False, _STEPS_ANEW
            splitting = float(self.twice), float(self.mu_data[0])
            if self.free_laplacian and splitting != self._yield_of:
                # Weights of a few voxels more or less do not change it much.
                self._yield, self._yield_of = self.local.response(_STEPS_ANEW), splitting
        self.local.solve(-self.drift_factor, steps)

    @contextmanager
    def _rescaled_data(self) -> Iterator[None]:
        before = self.mu_data[0]
        self.local.a -= self.local.v
        yield
        self.local.v *= before / self.mu_data[0]
        self.local.a += self.local.v
        self._changed = True

    def misfit(self) -> np.ndarray:
        """D x + h - f in the mask, zero elsewhere."""
        return -self.local.error()

    def residual(self) -> float:
        """Weighted norm of the misfit over that of the field without the background."""
        error = self.misfit()
        back = np.divide(1, self.filter, out=np.zeros_like(self.filter), where=self.filter > 0)
        tissue = self.box.inverse(self.spectrum * (self.kernels[0] * back)) - error
        top = np.sum(self._weight2 * error**2, where=self.inside, dtype=float)
        bottom = np.sum(self._weight2 * tissue**2, where=self.inside, dtype=float)
        return float(np.sqrt(top / bottom)) if bottom > 0 else 0.0


class LocalSystem:
    """The equations of p, on arrays with a rim of one voxel; K and L as in this module's text.

    Attributes
    ----------
    a, v : (x + 2, y + 2, z + 2) arrays
        Split plus multiplier, and the multiplier, on the mask.
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
        empty = [zeros(self.inside.shape, dtype) for _ in range(9)]
        self.a, self.v, self.p, self.image_of_p, self.field_side = empty[:5]
        self._direction, self._image, self._s, self._w = empty[5:]
        padded = np.where(self.inside, np.pad(field, 1), self.dtype(0))
        _laplacian(padded, self.field_side, self.interior, *self.wide)

    def weigh(self, stiffness: np.ndarray, mu: float) -> None:
        """Take 2 lambda W^2 (`stiffness`) and mu; p stays, and what follows from it is renewed."""
        self.softness = zeros(self.inside.shape, self.dtype)
        self.softness[1:-1, 1:-1, 1:-1] = 1 / stiffness
        self.softness *= self.inside
        self.mu = self.dtype(mu)
        self._scale = np.where(self.interior, 1 / (1 / self.mu + self.softness), 0).astype(
            self.dtype, copy=False
        )
        self.v[...], self.image_of_p[...] = 0, 0
        self._apply(self.p)
        self.image_of_p += self._image
        self.v += self._s

    def accept(self) -> None:
        """Take z and e = 0 for the split: the multiplier becomes none."""
        self.a -= self.v
        for array in (self.v, self.p, self.image_of_p):
            array[...] = 0

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
        out *= -self.softness
        return out[1:-1, 1:-1, 1:-1]

    def force(self) -> float:
        """Sum of p over its response: what the constant Laplacian still lacks, times that."""
        return float(self.p.sum(dtype=float))

    def response(self, steps: int) -> float:
        """Sum of p for a right side of one everywhere, p and what follows from it left alone."""
        kept = self.p, self.image_of_p, self.v
        self.p, self.image_of_p, self.v = (np.zeros_like(self.p) for _ in range(3))
        self._gradients(self.interior.astype(self.dtype), steps)
        total = self.force()
        self.p, self.image_of_p, self.v = kept
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
            _add(self.v, self._s, self.inside, length)

    def _precondition(self, right: np.ndarray) -> np.ndarray:
        first = self.poisson.precondition(right)
        np.multiply(first, self._scale, out=self._image)
        return self.poisson.precondition(self._image)

    def _apply(self, p: np.ndarray) -> float:
        """The matrix times p into ``_image``; returns their product."""
        _to_field(
            p, self._s, self._w, self.softness, self.inside, *self.coefficients, *self.wide,
            self.square, 1 / self.mu,
        )  # fmt: skip
        return _from_field(
            p, self._s, self._w, self._image, self.interior, *self.coefficients, *self.wide,
            self.square,
        )  # fmt: skip


@parallel_kernel
def _data_side(a, v, predicted, inside, out):
    """(Split - multiplier) less z of the map; zero outside the mask."""
    for i in numba.prange(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                if inside[i, j, k]:
                    m = (i + 1, j + 1, k + 1)
                    out[i, j, k] = a[m] - 2 * v[m] - predicted[i, j, k]
                else:
                    out[i, j, k] = 0


@parallel_kernel
def _relax(predicted, a, v, inside, relaxation):
    """a <- relaxed z of the map + multiplier, in the mask."""
    for i in numba.prange(predicted.shape[0]):
        for j in range(predicted.shape[1]):
            for k in range(predicted.shape[2]):
                if inside[i, j, k]:
                    m = (i + 1, j + 1, k + 1)
                    u = v[m]
                    a[m] = relaxation * predicted[i, j, k] + (1 - relaxation) * (a[m] - u) + u


@kernel
def _stencil(x, i, j, k, ax, ay, az):
    return (
        2 * (ax + ay + az) * x[i, j, k]
        - ax * (x[i - 1, j, k] + x[i + 1, j, k])
        - ay * (x[i, j - 1, k] + x[i, j + 1, k])
        - az * (x[i, j, k - 1] + x[i, j, k + 1])
    )


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
                    value = _stencil(a, i, j, k, ax, ay, az) + square * a[i, j, k]
                    out[i, j, k] = value - field_side[i, j, k] - image[i, j, k] + constant


@parallel_kernel
def _to_field(p, s, w, softness, inside, cx, cy, cz, fx, fy, fz, bxy, bxz, byz, square, inverse_mu):
    """On the mask: s = K' p / mu, and w = (2 lambda W^2)^-1 L' p."""
    dtype = p.dtype.type
    wide = _typed(p, fx, fy, fz, bxy, bxz, byz)
    ax, ay, az = dtype(cx), dtype(cy), dtype(cz)
    for i in numba.prange(1, p.shape[0] - 1):
        for j in range(1, p.shape[1] - 1):
            for k in range(1, p.shape[2] - 1):
                if inside[i, j, k]:
                    value = _stencil(p, i, j, k, ax, ay, az)
                    s[i, j, k] = inverse_mu * (value + square * p[i, j, k])
                    w[i, j, k] = softness[i, j, k] * _wide_stencil(p, i, j, k, *wide)


@parallel_kernel
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
                    value = _stencil(s, i, j, k, ax, ay, az) + square * s[i, j, k]
                    value += _wide_stencil(w, i, j, k, *wide)
                    out[i, j, k] = value
                    total += np.float64(value) * p[i, j, k]
    return total


@parallel_kernel
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


@parallel_kernel
def _add(v, s, inside, length):
    for i in numba.prange(v.shape[0]):
        for j in range(v.shape[1]):
            for k in range(v.shape[2]):
                if inside[i, j, k]:
                    v[i, j, k] += length * s[i, j, k]
