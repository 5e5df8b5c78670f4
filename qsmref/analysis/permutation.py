r"""Permutation of group labels: p values that need no distribution, family-wise by max-T.

With residuals :math:`e` of the values on intercept and covariates :math:`Z`, and groups
:math:`\tilde G` made orthonormal to :math:`Z`, a permutation :math:`P` of the residuals gives
(Freedman and Lane; without covariates a permutation of labels)

.. math::

    F = \frac{\|\tilde G^T P e\|^2 / h}{(\|e\|^2 - \|Q_Z^T P e\|^2 - \|\tilde G^T P e\|^2) / \nu}

which is :math:`t^2` for two groups (h = 1). Only products with the sources are needed: those of a
difference are the difference of those of its two regions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

from .design import Design
from .outcomes import Outcomes

#: Statistics that differ by less than this part count as equal: a permutation that only swaps
#: equal labels must not be told from the observed one by rounding.
_TIE = 1e-9
#: Numbers held at a time.
_CHUNK = 8_000_000


@dataclass(frozen=True)
class Permutations:
    """The same permutations for every row and for the omnibus test."""

    #: (participant, z) orthonormal basis of intercept and covariates.
    nuisance: np.ndarray
    #: (participant, h) groups, orthonormal to it and to each other.
    effects: np.ndarray
    #: Number of permutations, the identity not counted unless all are gone through.
    count: int
    #: Whether all different arrangements are gone through.
    exact: bool
    seed: int
    codes: np.ndarray

    @classmethod
    def of(cls, design: Design, count: int, seed: int = 0) -> Permutations:
        """Permutations of a design; all arrangements when there are no more than `count`."""
        nuisance = np.linalg.qr(design.nuisance())[0]
        groups = design.indicators()[:, : max(len(design.groups) - 1, 1)]
        effects = np.linalg.qr(groups - nuisance @ (nuisance.T @ groups))[0]
        exact = False
        if len(design.groups) == 2 and not design.covariate_names:
            arrangements = comb(len(design.codes), int((design.codes == 0).sum()))
            exact = arrangements <= count
            count = arrangements if exact else count
        return cls(nuisance, effects, int(count), exact, int(seed), design.codes)

    @property
    def degrees(self) -> int:
        """Residual degrees of freedom with no value missing."""
        return len(self.codes) - self.nuisance.shape[1] - self.effects.shape[1]

    def chunks(self, width: int = 1) -> Iterator[np.ndarray]:
        """Arrays (permutation, participant) of indices; `width` rows of numbers follow of each."""
        n = len(self.codes)
        size = int(max(1, min(self.count, _CHUNK // (n * 4 + width))))
        if self.exact:
            first = np.flatnonzero(self.codes == 0)
            second = np.flatnonzero(self.codes == 1)
            batch = []
            for chosen in combinations(range(n), len(first)):
                order = np.empty(n, dtype=np.intp)
                inside = np.zeros(n, dtype=bool)
                inside[list(chosen)] = True
                order[inside], order[~inside] = first, second
                batch.append(order)
                if len(batch) == size:
                    yield np.array(batch)
                    batch = []
            if batch:
                yield np.array(batch)
            return
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.count, size):
            these = np.tile(np.arange(n), (min(size, self.count - start), 1))
            yield rng.permuted(these, axis=1)

    def p_value(self, exceed: np.ndarray) -> np.ndarray:
        """p of how many permutations reach the observed statistic."""
        return exceed / self.count if self.exact else (exceed + 1.0) / (self.count + 1.0)


def permutation_p(
    outcomes: Outcomes,
    design: Design,
    codes: np.ndarray,
    skip: np.ndarray,
    count: int,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, int]:
    """p of each row and p of the largest statistic of its family.

    Parameters
    ----------
    outcomes : Outcomes
        Scans in the order of the design.
    design : Design
        Groups and covariates.
    codes : (row,) int array
        Family of each row.
    skip : (row,) bool array
        Rows that cannot be tested: NaN, and no part of a family.
    count, seed : int
        See :class:`Permutations`.

    Returns
    -------
    p, p_fwe : (row,) array
        Two-sided.
    count : int
        Permutations made.

    Notes
    -----
    Rows with missing values are permuted with the others, so that the joint distribution stays
    that of the data; an arrangement that leaves a row no degrees of freedom counts as statistic 0.
    """
    plan = Permutations.of(design, count, seed)
    tested = np.flatnonzero(~skip)
    p, p_fwe = np.full(len(codes), np.nan), np.full(len(codes), np.nan)
    if not tested.size:
        return p, p_fwe, plan.count
    statistics = _Statistics(outcomes, plan, tested)
    identity = np.arange(len(design.codes))[None]
    observed = statistics(identity)[0]
    families = codes[tested]
    alike = [np.flatnonzero(families == code) for code in np.unique(families)]
    exceed, exceed_max = np.zeros(len(tested)), np.zeros(len(tested))
    threshold = observed * (1 - _TIE)
    for orders in plan.chunks(statistics.width):
        drawn = statistics(orders)
        exceed += (drawn >= threshold).sum(axis=0)
        for rows in alike:
            largest = np.sort(drawn[:, rows].max(axis=1))
            exceed_max[rows] += len(largest) - np.searchsorted(largest, threshold[rows])
    p[tested], p_fwe[tested] = plan.p_value(exceed), plan.p_value(exceed_max)
    return p, p_fwe, plan.count


class _Statistics:
    """F of the tested rows for given permutations."""

    def __init__(self, outcomes: Outcomes, plan: Permutations, tested: np.ndarray):
        self._plan = plan
        self._count = len(tested)
        there = np.isfinite(outcomes.sources)
        second = np.where(outcomes.second < 0, outcomes.first, outcomes.second)
        whole = there.all(axis=0)
        complete = (whole[outcomes.first] & whole[second])[tested]
        self._complete = np.flatnonzero(complete)
        self._gaps = np.flatnonzero(~complete)
        self._rows = tested[self._complete]
        self._first, self._second = outcomes.first[self._rows], outcomes.second[self._rows]
        self._paired = self._second >= 0
        used = np.unique(np.concatenate([self._first, self._second[self._paired]]))
        to = np.zeros(outcomes.sources.shape[1], dtype=np.intp)
        to[used] = np.arange(len(used))
        self._first, self._second = to[self._first], to[self._second]
        self._sources = self._residual(outcomes.sources[:, used])
        self._square = self._squares()
        # Rows with gaps, grouped by who is missing.
        values = outcomes.values(tested[self._gaps])
        self._patterns = _patterns(values, plan) if self._gaps.size else []
        #: Numbers that each permutation needs.
        self.width = len(used) * (plan.nuisance.shape[1] + plan.effects.shape[1]) + 2 * len(tested)

    def _residual(self, values: np.ndarray) -> np.ndarray:
        basis = self._plan.nuisance
        return values - basis @ (basis.T @ values)

    def _difference(self, of_sources: np.ndarray) -> np.ndarray:
        """(..., source) to (..., row)."""
        made = of_sources[..., self._first]
        made[..., self._paired] -= of_sources[..., self._second[self._paired]]
        return made

    def _squares(self) -> np.ndarray:
        square = np.empty(len(self._first))
        size = max(1, _CHUNK // len(self._sources))
        for start in range(0, len(square), size):
            rows = slice(start, start + size)
            value = self._sources[:, self._first[rows]]
            paired = self._paired[rows]
            value[:, paired] -= self._sources[:, self._second[rows][paired]]
            square[rows] = np.einsum("ij,ij->j", value, value)
        return square

    def __call__(self, orders: np.ndarray) -> np.ndarray:
        """(permutation, row) F statistics."""
        plan = self._plan
        drawn = np.zeros((len(orders), self._count))
        if self._complete.size:
            effect = self._projected(plan.effects, orders)
            adjusted = self._projected(plan.nuisance[:, 1:], orders)
            rest = np.maximum(self._square - adjusted - effect, 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                f = (effect / plan.effects.shape[1]) / (rest / plan.degrees)
            drawn[:, self._complete] = np.nan_to_num(f, nan=0.0, posinf=np.inf)
        for pattern, values, residual in self._patterns:
            at = self._gaps[values]
            drawn[:, at] = _with_gaps(plan, orders, pattern, residual)
        return drawn

    def _projected(self, basis: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """(permutation, row) squared length of the projections of permuted residuals."""
        total = np.zeros((len(orders), len(self._first)))
        for column in basis.T:
            # Permuting the design is permuting the residuals the other way round.
            total += self._difference(column[orders] @ self._sources) ** 2
        return total


def _patterns(
    values: np.ndarray, plan: Permutations
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows by who has a value: (participants, rows, residuals on the covariates)."""
    there = np.isfinite(values)
    unique, inverse = np.unique(np.packbits(there, axis=0), axis=1, return_inverse=True)
    made = []
    for k in range(unique.shape[1]):
        rows = np.flatnonzero(inverse.ravel() == k)
        inside = np.flatnonzero(there[:, rows[0]])
        basis = np.linalg.qr(plan.nuisance[inside])[0]
        part = values[np.ix_(inside, rows)]
        made.append((inside, rows, part - basis @ (basis.T @ part)))
    return made


def _with_gaps(
    plan: Permutations, orders: np.ndarray, inside: np.ndarray, residual: np.ndarray
) -> np.ndarray:
    """(permutation, row) F of rows that only some participants have.

    The design of each permutation is cut to these participants and solved anew.
    """
    nuisance, effects = plan.nuisance, plan.effects
    size = max(1, _CHUNK // (len(inside) * (nuisance.shape[1] + effects.shape[1])))
    square = np.einsum("ij,ij->j", residual, residual)
    drawn = np.zeros((len(orders), residual.shape[1]))
    for start in range(0, len(orders), size):
        these = orders[start : start + size][:, inside]
        z, g = nuisance[these], effects[these]
        basis, upper = np.linalg.qr(z)
        g = g - basis @ (basis.transpose(0, 2, 1) @ g)
        direction, scale = np.linalg.qr(g)
        limit = 1e-9
        sound = (np.abs(np.diagonal(upper, axis1=1, axis2=2)) > limit).all(axis=1)
        sound &= (np.abs(np.diagonal(scale, axis1=1, axis2=2)) > limit).all(axis=1)
        degrees = len(inside) - nuisance.shape[1] - effects.shape[1]
        adjusted = ((basis.transpose(0, 2, 1) @ residual) ** 2).sum(axis=1)
        effect = ((direction.transpose(0, 2, 1) @ residual) ** 2).sum(axis=1)
        rest = np.maximum(square - adjusted - effect, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            f = (effect / effects.shape[1]) / (rest / max(degrees, 1))
        f[~sound] = 0.0
        drawn[start : start + size] = np.nan_to_num(f, nan=0.0, posinf=np.inf)
    return drawn
