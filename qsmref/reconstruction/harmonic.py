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

import numpy as np

from .admm import AlternatingDirections, shrink_firmly, weighted_norms
from .fft import Transform
from .localsystem import KAPPA, PLANES, LocalSystem

#: Squared weights are this part of their median at least: a voxel of less says nothing either, and
#: the local system would be ill-conditioned.
LEAST_WEIGHT = 1e-3

#: Steps of conjugate gradients: in each iteration, and where the weights have changed. Maps made
#: with two steps differ from those with eight by 0.03 to 0.07 ppb between nuclei (four heads).
_STEPS, _STEPS_ANEW = 2, 4

#: Iteration after which the constant Laplacian is fitted: the first maps explain nothing yet.
_FIT_FROM = 3


def split_filter(laplacian: Sequence[np.ndarray], voxel_size: Sequence[float]) -> np.ndarray:
    """Half spectrum of F, from the three parts of the discrete Laplacian's of 7 points."""
    lx, ly, lz = laplacian[0][:, None, None], laplacian[1][:, None], laplacian[2]
    bxy, bxz, byz = (
        lx.dtype.type((voxel_size[i] ** 2 + voxel_size[j] ** 2) / 12) for i, j in PLANES
    )
    seven = lx + ly + lz
    wide = seven - bxy * lx * ly - bxz * lx * lz - byz * ly * lz
    return wide / (seven + lx.dtype.type(KAPPA**2))


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
        self.voxel_size = voxel_size
        self.kernels = [dipole * self.filter]
        self.inside = inside
        self.free_laplacian, self.drift_limits = free_laplacian, drift_limits
        self.local = LocalSystem(inside, field, voxel_size)
        self.weight2 = weight2
        self._yield, self._yield_of = 1.0, (0.0, 0.0)
        self.predicted = np.zeros_like(field)  # z of the map
        # Started as if z were that of the data already (e = 0): saves the first iterations.
        self._solve()
        self.local.accept()

    @property
    def filter(self) -> np.ndarray:
        """Half spectrum of F, made anew each time: the iterations need it in their kernel alone."""
        return split_filter(self.laplacian, self.voxel_size)

    @property
    def weight2(self) -> np.ndarray:
        """W^2; within the mask no less than :data:`LEAST_WEIGHT` of its median, zero outside."""
        variance = self.local.variance[1:-1, 1:-1, 1:-1]
        return np.divide(1, variance, out=np.zeros_like(variance), where=variance > 0)

    @weight2.setter
    def weight2(self, value: np.ndarray) -> None:
        known = value[self.inside & (value > 0)]
        least = LEAST_WEIGHT * float(np.median(known)) if known.size else 1.0
        self.local.vary(np.maximum(value, self.dtype(least)))
        self._changed = True

    def _data_sides(self) -> Iterator[np.ndarray]:
        # K x of the former map is asked for no more, and lends its memory.
        self.local.data_side(self.predicted)
        yield self.predicted

    def _update_data(self, relaxation, first: bool) -> None:
        self.predicted = self.box.inverse(self.spectrum * self.kernels[0])
        self.local.relax(self.predicted, relaxation)
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
            self.local.weigh(float(self.twice), float(self.mu_data[0]))
            self._changed, steps = False, _STEPS_ANEW
            splitting = float(self.twice), float(self.mu_data[0])
            if self.free_laplacian and splitting != self._yield_of:
                # Weights of a few voxels more or less do not change it much.
                self._yield, self._yield_of = self.local.response(_STEPS_ANEW), splitting
        self.local.solve(-self.drift_factor, steps)

    @contextmanager
    def _rescaled_data(self) -> Iterator[None]:
        before = self.local.multiplier()
        yield
        self.local.mu = self.mu_data[0]
        self.local.a += self.local.multiplier() - before
        self._changed = True

    def misfit(self) -> np.ndarray:
        """D x + h - f in the mask, zero elsewhere."""
        return -self.local.error()

    def residual(self) -> float:
        """Weighted norm of the misfit over that of the field without the background."""
        product = self.spectrum * self.kernels[0]
        first, *others = self.laplacian
        for n, plane in enumerate(product):  # The filter, a plane at a time: no more memory.
            passed = split_filter((first[n : n + 1], *others), self.voxel_size)[0]
            np.divide(plane, passed, out=plane, where=passed > 0)
        predicted = self.box.inverse(product)
        del product
        tissue = self.misfit()
        np.subtract(predicted, tissue, out=tissue)
        top, bottom = weighted_norms(predicted, tissue, self.weight2, self.inside)
        return float(np.sqrt(top / bottom)) if bottom > 0 else 0.0
