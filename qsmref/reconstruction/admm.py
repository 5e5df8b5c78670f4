r"""Total variation with convolution data terms, by the alternating direction method of multipliers.

.. math:: \min_x \sum_d |w_d \partial_d x|_1 + \lambda \sum_c \| m_c (K_c x - g_c) \|^2

Each voxel has weight in one term c at most (its *shell*), so that data, weights and multipliers of
all terms share one volume each. The map is split from its gradient and from every K_c x; the update
of x is then one division in k-space. One iteration costs 1 + (number of terms) FFT pairs.

Multipliers are not stored. For the gradient, a = (gradient of x) + u is kept: the split variable
is the soft threshold of a, and u is a clipped to the threshold (with a Huber width, a share of a
clipped to it). For a data term a = K x + v, and
v = w (a - g) / (w + mu).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .fft import Transform
from .jit import numba, parallel_kernel, zeros


class AlternatingDirections:
    """Total variation of a map on a periodic grid, split from its gradient and from data terms.

    What the data terms are is left to subclasses: ``kernels`` (half spectra, real)
    and the methods at the end of this class.

    Parameters
    ----------
    transform : Transform
        Of the whole grid.
    box : Transform, optional
        Of a box at the start of the grid that holds all data, padded to the grid; it skips the
        lines outside.
    voxel_size : (3,) float
        mm.
    smooth : (3, x, y, z) bool array
        Where the forward difference counts (w_d = 1), in the box; the map may jump freely
        elsewhere.
    kernels : sequence of half spectra (real)
        K_c.
    dtype : float32 or float64
    lambda_ : float
        Weight of the data terms.
    mu_gradient, mu_data : float, and one per kernel
        Weights of the splittings. They set the speed, not the solution.
    width : float
        Differences per mm smaller than this cost in proportion to their square (Huber), of the
        same slope where the two meet; 0 for plain total variation.
    """

    def __init__(
        self,
        transform: Transform,
        voxel_size: Sequence[float],
        smooth: np.ndarray,
        kernels: Sequence[np.ndarray],
        dtype: npt.DTypeLike,
        lambda_: float,
        mu_gradient: float,
        mu_data: Sequence[float],
        relaxation: float = 1.7,
        width: float = 0.0,
        box: Transform | None = None,
    ):
        self.transform, self.kernels = transform, list(kernels)
        self.box = transform if box is None else box
        dtype = np.dtype(dtype)
        self.dtype = cast(Any, dtype.type)
        self.spacing = np.asarray(voxel_size, dtype)
        self.twice = self.dtype(2 * lambda_)
        self._set_splittings(mu_gradient, mu_data)
        self.relaxation = self.dtype(relaxation)
        self.width = self.dtype(width)
        # One byte a voxel instead of three: bit d says that difference d counts.
        grid, half = transform.grid, transform.spectrum
        self.smooth = np.zeros(grid, np.uint8)
        place = self.smooth[tuple(slice(0, n) for n in self.box.shape)]
        for d in range(3):
            place |= smooth[d].view(np.uint8) << d
        self.laplacian = [
            ((2 - 2 * np.cos(2 * np.pi * np.arange(n) / size)) / h**2).astype(dtype)
            for n, size, h in zip(half, grid, voxel_size, strict=True)
        ]
        self.spectrum = np.zeros(half, np.result_type(dtype, np.complex64))
        self.x = np.zeros(grid, dtype)
        self.jump = zeros((3, *grid), dtype)  # a of the gradient
        self.iterations = 0

    #: Whether the constant that the data may hold is fitted again after every iteration, and how
    #: much of it is believed, see the subclasses.
    fits_drift = True
    drift_limits: tuple[float, ...] = (0.0, 0.0)
    drift_factor = 0.0
    weight2: np.ndarray

    def run(self, count: int, watch: Callable[[AlternatingDirections], bool] | None = None) -> None:
        """Make `count` iterations, fewer when `watch` returns True after one of them."""
        for _ in range(count):
            self._update_map()
            # Over-relaxation needs a former split; the first iteration has none.
            first = self.iterations == 0
            relaxation = self.dtype(1) if first else self.relaxation
            _gradient_split(
                self.x, self.jump, self.smooth, 1 / self.mu_gradient, self._share(),
                self.spacing, relaxation,
            )  # fmt: skip
            self._update_data(relaxation, first)
            self.iterations += 1
            if watch is not None and watch(self):
                return

    def _set_splittings(self, mu_gradient: float, mu_data: Sequence[float]) -> None:
        if len(mu_data) != len(self.kernels):
            raise ValueError(f"{len(self.kernels)} terms need as many splittings, got {mu_data}")
        self.mu_gradient = self.dtype(mu_gradient)
        self.mu_data = [self.dtype(mu) for mu in mu_data]

    def _share(self):
        """Part of a (split plus multiplier) that is the multiplier, up to the threshold."""
        return 1 / (1 + self.width * self.mu_gradient)

    def _update_map(self) -> None:
        # The former map is asked for no more, and lends its memory.
        _gradient_side(
            self.jump, self.smooth, 1 / self.mu_gradient, self._share(), self.spacing, self.x
        )
        right = self.transform.forward(self.x)
        del self.x  # Makes room for the spectra of the data terms.
        relative = [mu / self.mu_gradient for mu in self.mu_data]
        for part, kernel, mu in zip(self._data_sides(), self.kernels, relative, strict=True):
            _accumulate(right, self.box.forward(part), kernel, mu)
        _divide(right, self.spectrum, tuple(self.kernels), tuple(relative), *self.laplacian)
        self.spectrum = right
        self.x = self.transform.inverse(right, overwrite=False)

    def reweigh(
        self,
        lambda_: float,
        mu_gradient: float,
        mu_data: Sequence[float],
        width: float | None = None,
    ) -> None:
        """Go on with another lambda, other splittings and another width; the splits stay.

        What is kept is split plus multiplier: the multiplier of the gradient is rescaled to the new
        splitting, and so is that of the data.
        """
        limit = 1 / self.mu_gradient
        change = 1 - self.mu_gradient / self.dtype(mu_gradient)
        share = self._share()
        for jump in self.jump:
            jump -= change * np.clip(share * jump, -limit, limit)
        with self._rescaled_data():
            self.twice = self.dtype(2 * lambda_)
            self._set_splittings(mu_gradient, mu_data)
            if width is not None:
                self.width = self.dtype(width)

    def _data_sides(self) -> Iterator[np.ndarray]:
        """Of each data term, (split - multiplier) less K x, on the box; good until the next."""
        raise NotImplementedError

    def _update_data(self, relaxation, first: bool) -> None:
        """Bring splits and multipliers of the data terms up to the new map."""
        raise NotImplementedError

    def _rescaled_data(self) -> AbstractContextManager[None]:
        """While lambda and splittings change: keep the splits of the data terms."""
        raise NotImplementedError

    def misfit(self) -> np.ndarray:
        """What the data terms leave unexplained, on their box, zero where nothing is known."""
        raise NotImplementedError

    def residual(self) -> float:
        """Weighted norm of the misfit over that of the data."""
        raise NotImplementedError


def shrink_firmly(value: float, least: float, full: float) -> float:
    """Zero below `least`, the value itself above `full`, in proportion to the rest in between.

    References
    ----------
    Gao & Bruce 1997, Statistica Sinica 7, 855.
    """
    if abs(value) >= full:
        return value
    return math.copysign(max(abs(value) - least, 0) * full / (full - least), value)


class TotalVariation(AlternatingDirections):
    """Data terms on shells: each voxel counts in one of several convolutions.

    Parameters
    ----------
    transform, voxel_size, smooth, kernels, lambda_, mu_gradient, mu_data, relaxation, width, box
        See :class:`AlternatingDirections`. `shell`, `data` and `weight2` have the shape of the box.
    shell : (x, y, z) uint8 array
        1 + the index of the term that the voxel belongs to, 0 where nothing was measured.
    data, weight2 : (x, y, z) arrays
        g and m^2 of the voxel's own term.
    drift : sequence of float, optional
        One value per term: a pattern, constant on each shell, of which the data may hold any
        multiple (``drift_factor``, fitted after every iteration).
    drift_limits : (2,) float, optional
        The multiple is believed as :func:`shrink_firmly` has it.
    """

    def __init__(
        self,
        transform: Transform,
        voxel_size: Sequence[float],
        smooth: np.ndarray,
        kernels: Sequence[np.ndarray],
        shell: np.ndarray,
        data: np.ndarray,
        weight2: np.ndarray,
        lambda_: float,
        mu_gradient: float,
        mu_data: Sequence[float],
        relaxation: float = 1.7,
        width: float = 0.0,
        drift: Sequence[float] | None = None,
        drift_limits: tuple[float, float] = (0.0, 0.0),
        box: Transform | None = None,
    ):
        super().__init__(
            transform, voxel_size, smooth, kernels, data.dtype, lambda_, mu_gradient, mu_data,
            relaxation, width, box,
        )  # fmt: skip
        self.shell, self.data, self.weight2 = shell, data, weight2
        # One value per shell, first that of voxels without data: the data may hold any multiple.
        self.drift = np.asarray([0.0] + list(drift or [0.0] * len(self.kernels)))
        self.drift_limits = drift_limits
        if drift:
            self.drift_factor = self._fit_drift(np.zeros_like(data))
        self.predicted = np.zeros_like(data)  # K x, each voxel with its own term
        # Started as if K x were the data already: saves the first few iterations.
        self.split = self._shifted_data()  # a of the data terms

    def _data_sides(self) -> Iterator[np.ndarray]:
        part = np.empty_like(self.data)
        for index, mu in enumerate(self.mu_data):
            _data_side(
                self.split, self.predicted, self.data, self._shift(index), self.weight2,
                self.shell, index + 1, self.twice, mu, part,
            )  # fmt: skip
            yield part

    def _update_data(self, relaxation, first: bool) -> None:
        for index, (kernel, mu) in enumerate(zip(self.kernels, self.mu_data, strict=True)):
            convolved = self.box.inverse(self.spectrum * kernel)
            _data_split(
                convolved, self.split, self.predicted, self.data, self._shift(index),
                self.weight2, self.shell, index + 1, self.twice, mu, relaxation, first,
            )  # fmt: skip
        if self.fits_drift and self.drift.any():
            self.drift_factor = self._fit_drift(self.predicted)

    @contextmanager
    def _rescaled_data(self) -> Iterator[None]:
        # The multiplier follows from the split and the weights.
        shifted = self._shifted_data()
        weight = self.twice * self.weight2
        self.split -= weight * (self.split - shifted) / (weight + self._mu_of_voxels())
        yield
        self.split += self.twice / self._mu_of_voxels() * self.weight2 * (self.split - shifted)

    def _mu_of_voxels(self) -> np.ndarray:
        """mu_data of the voxel's term; 1 where nothing was measured, which has no weight."""
        return np.asarray([1, *self.mu_data], self.data.dtype)[self.shell]

    def misfit(self) -> np.ndarray:
        """K x - g on the shells, zero elsewhere; what the drift explains is taken off g."""
        return np.where(self.shell > 0, self.predicted - self._shifted_data(), 0)

    def _shift(self, index: int):
        return self.dtype(self.drift_factor * self.drift[index + 1])

    def _shifted_data(self) -> np.ndarray:
        shifts = (self.drift_factor * self.drift).astype(self.data.dtype)
        return np.where(self.shell > 0, self.data - shifts[self.shell], 0)

    def _fit_drift(self, predicted: np.ndarray) -> float:
        top, bottom = _drift_sums(predicted, self.data, self.weight2, self.shell, self.drift)
        return shrink_firmly(float(top / bottom) if bottom > 0 else 0.0, *self.drift_limits)

    def residual(self) -> float:
        """Weighted norm of K x - g over that of g."""
        top, bottom = weighted_norms(self.predicted, self._shifted_data(), self.weight2, self.shell)
        return float(np.sqrt(top / bottom)) if bottom > 0 else 0.0


@parallel_kernel
def _gradient_side(jump, smooth, threshold, share, spacing, out):
    """Adjoint (periodic) gradient of (split - multiplier) = a - 2 clip(share a)."""
    _, nx, ny, nz = jump.shape
    for i in numba.prange(nx):
        for j in range(ny):
            for k in range(nz):
                value = jump.dtype.type(0)
                for d in range(3):
                    a = jump[d, i, j, k]
                    if smooth[i, j, k] >> d & 1:
                        a -= 2 * min(max(share * a, -threshold), threshold)
                    # A negative index reaches the far side of the periodic grid.
                    p, q, r = i - (d == 0), j - (d == 1), k - (d == 2)
                    b = jump[d, p, q, r]
                    if smooth[p, q, r] >> d & 1:
                        b -= 2 * min(max(share * b, -threshold), threshold)
                    value += (b - a) / spacing[d]
                out[i, j, k] = value


@parallel_kernel
def _gradient_split(x, jump, smooth, threshold, share, spacing, relaxation):
    """a <- relaxed gradient of x + multiplier, in place."""
    nx, ny, nz = x.shape
    for i in numba.prange(nx):
        for j in range(ny):
            for k in range(nz):
                here = x[i, j, k]
                ahead = (
                    x[i + 1 if i + 1 < nx else 0, j, k],
                    x[i, j + 1 if j + 1 < ny else 0, k],
                    x[i, j, k + 1 if k + 1 < nz else 0],
                )
                for d in range(3):
                    step = (ahead[d] - here) / spacing[d]
                    a = jump[d, i, j, k]
                    u = a * 0
                    if smooth[i, j, k] >> d & 1:
                        u = min(max(share * a, -threshold), threshold)
                    jump[d, i, j, k] = relaxation * step + (1 - relaxation) * (a - u) + u


@parallel_kernel
def _data_side(split, predicted, data, shift, weight2, shell, which, twice, mu, out):
    """(Split - multiplier) minus K x on the shell of one term, zero elsewhere."""
    for i in numba.prange(split.shape[0]):
        for j in range(split.shape[1]):
            for k in range(split.shape[2]):
                if shell[i, j, k] == which:
                    a = split[i, j, k]
                    w = twice * weight2[i, j, k]
                    v = w * (a - data[i, j, k] + shift) / (w + mu)
                    out[i, j, k] = a - 2 * v - predicted[i, j, k]
                else:
                    out[i, j, k] = 0


@parallel_kernel
def _data_split(
    convolved, split, predicted, data, shift, weight2, shell, which, twice, mu, relaxation, first
):
    """a <- relaxed K x + multiplier on the shell of one term, in place; K x is kept too."""
    for i in numba.prange(split.shape[0]):
        for j in range(split.shape[1]):
            for k in range(split.shape[2]):
                if shell[i, j, k] == which:
                    value = convolved[i, j, k]
                    predicted[i, j, k] = value
                    a = split[i, j, k]
                    v = a * 0
                    if not first:
                        w = twice * weight2[i, j, k]
                        v = w * (a - data[i, j, k] + shift) / (w + mu)
                    split[i, j, k] = relaxation * value + (1 - relaxation) * (a - v) + v


@parallel_kernel
def _accumulate(total, spectrum, kernel, mu):
    """Add mu K (spectrum) to the right side."""
    for i in numba.prange(total.shape[0]):
        for j in range(total.shape[1]):
            for k in range(total.shape[2]):
                total[i, j, k] += mu * kernel[i, j, k] * spectrum[i, j, k]


@parallel_kernel
def _divide(right, old, kernels, mu, lx, ly, lz):
    """x of the normal equations over the gradient's splitting, in place of the right side.

    Outside its shell the split of a term equals K x of the iteration before: there its share of
    the right side is the square of its kernel times the former spectrum.
    """
    for i in numba.prange(right.shape[0]):
        for j in range(right.shape[1]):
            for k in range(right.shape[2]):
                s = lx[i] * 0
                for c in range(len(kernels)):
                    s += mu[c] * kernels[c][i, j, k] ** 2
                below = lx[i] + ly[j] + lz[k] + s
                if below > 0:
                    right[i, j, k] = (right[i, j, k] + s * old[i, j, k]) / below
                else:
                    right[i, j, k] = 0


@parallel_kernel
def _drift_sums(predicted, data, weight2, shell, drift):
    """Weighted products of the drift with (g - K x), and with itself."""
    top = 0.0
    bottom = 0.0
    for i in numba.prange(data.shape[0]):
        for j in range(data.shape[1]):
            for k in range(data.shape[2]):
                value = drift[shell[i, j, k]]
                w = np.float64(weight2[i, j, k]) * value
                top += w * (data[i, j, k] - predicted[i, j, k])
                bottom += w * value
    return top, bottom


@parallel_kernel
def weighted_norms(
    predicted: np.ndarray, data: np.ndarray, weight2: np.ndarray, shell: np.ndarray
) -> tuple[float, float]:
    """Sums of the weighted squares of (predicted - data), and of the data, on all shells."""
    top = 0.0
    bottom = 0.0
    for i in numba.prange(data.shape[0]):
        for j in range(data.shape[1]):
            for k in range(data.shape[2]):
                if shell[i, j, k]:
                    w = np.float64(weight2[i, j, k])
                    error = predicted[i, j, k] - data[i, j, k]
                    top += w * error * error
                    bottom += w * data[i, j, k] * data[i, j, k]
    return top, bottom
