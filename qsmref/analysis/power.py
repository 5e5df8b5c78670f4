"""How many participants a difference needs, from the scatter that was observed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .design import Design
from .outcomes import Outcomes
from .tables import RequestError

#: No study has more participants than this in a group.
_MOST = 1_000_000


def sample_size(
    outcomes: Outcomes,
    design: Design,
    differences: Sequence[float] = (5.0, 10.0, 20.0),
    *,
    power: float = 0.8,
    alpha: float = 0.05,
) -> pd.DataFrame:
    r"""Participants per group that a two-sided t test of two equal groups needs.

    The difference to be found is stated, not taken from the data: the power of a test for the
    effect it has just observed says no more than its p value (Hoenig and Heisey).

    Parameters
    ----------
    outcomes : Outcomes
        Regions and differences, ppb, one scan a participant.
    design : Design
        Groups, within which the SD is taken; without groups over all.
    differences : sequence of float
        Differences between two groups to be found, ppb.
    power, alpha : float
        Wanted power and two-sided level.

    Returns
    -------
    DataFrame
        One row a region or pair, coverage and difference: ``region reference slab_cut_mm
        erosion_mm n sd sd_high target_difference power alpha n_per_group n_per_group_high
        detectable``. ``sd`` is the pooled SD, ``sd_high`` the upper limit of its one-sided 80 %
        interval (chi square), from which comes ``n_per_group_high``, the safer number;
        ``detectable`` is the difference that groups of the present sizes (two groups) find with
        this power. Sizes come from :class:`statsmodels.stats.power.TTestIndPower`.

    Raises
    ------
    TableError
        Numbers outside their range.

    References
    ----------
    Browne 1995, doi:10.1002/sim.4780141709 (upper limit of the SD); Hoenig & Heisey 2001,
    doi:10.1198/000313001300339897.
    """
    from scipy.stats import chi2
    from statsmodels.stats.power import TTestIndPower

    if not 0 < alpha < 1 or not alpha < power < 1:
        raise RequestError(f"power must lie between alpha and 1, got {power:g} at {alpha:g}.")
    if not differences or not all(np.isfinite(d) and d > 0 for d in differences):
        raise RequestError("the differences to be found must be positive numbers (ppb).")
    place = design.place(outcomes.participants)
    outcomes = outcomes.scans(np.flatnonzero(place >= 0))
    codes = design.codes[place[place >= 0]]
    sd, n, degrees, sizes = _scatter(outcomes, codes)
    high = sd * np.sqrt(degrees / chi2.ppf(0.2, np.maximum(degrees, 1)))
    count = len(differences)
    targets = np.tile(np.asarray(differences, dtype=float), len(sd))
    table = outcomes.rows.loc[np.repeat(np.arange(len(sd)), count)].reset_index(drop=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        table["n"], table["sd"] = np.repeat(n, count), np.repeat(sd, count)
        table["sd_high"], table["target_difference"] = np.repeat(high, count), targets
        table["power"], table["alpha"] = power, alpha
        solver = TTestIndPower()
        effect = targets / np.repeat(sd, count)
        table["n_per_group"] = _sizes(solver, effect, power, alpha)
        effect = targets / np.repeat(high, count)
        table["n_per_group_high"] = _sizes(solver, effect, power, alpha)
    table["detectable"] = np.repeat(_detectable(solver, sd, sizes, power, alpha), count)
    return table


def _scatter(
    outcomes: Outcomes, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pooled SD, participants, degrees of freedom of each row, and (group, row) sizes."""
    resolution = outcomes.resolution()
    groups = np.unique(codes)
    sizes = np.zeros((len(groups), len(outcomes)), dtype=int)
    squares = np.zeros(len(outcomes))
    for rows, values in outcomes.blocks():
        for k, code in enumerate(groups):
            inside = values[codes == code]
            there = np.isfinite(inside)
            count = there.sum(axis=0)
            mean = np.where(there, inside, 0).sum(axis=0) / np.maximum(count, 1)
            squares[rows] += (np.where(there, inside - mean, 0) ** 2).sum(axis=0)
            sizes[k, rows] = count
    n, degrees = sizes.sum(axis=0), sizes.sum(axis=0) - (sizes > 0).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(squares / np.where(degrees > 0, degrees, np.nan))
    return np.where(sd > resolution, sd, np.nan), n, degrees, sizes


def _enough(solver, effect: np.ndarray, n: np.ndarray, power: float, alpha: float) -> np.ndarray:
    """Whether groups of n participants find an effect."""
    found = solver.power(effect, n, alpha)
    # scipy's noncentral t has no value for a lower tail that is nearly empty: such a test is as
    # good as one-sided. Where its upper tail has none either, the power is 1 in all its digits.
    upper = solver.power(effect, n, alpha / 2, alternative="larger")
    found = np.where(np.isnan(found), upper, found)
    return np.where(np.isnan(found), effect * np.sqrt(n / 2) > 30, found >= power)


def _sizes(solver, effect: np.ndarray, power: float, alpha: float) -> np.ndarray:
    """Participants per group by bisection of the library's power; NaN where there is none."""
    # Two in a group is the least that has a scatter.
    low, high = np.full(len(effect), 2), np.full(len(effect), _MOST)
    sought = np.isfinite(effect)
    effect = np.where(sought, effect, 1.0)
    sought &= _enough(solver, effect, high, power, alpha)
    for _ in range(21):
        middle = (low + high) // 2
        enough = _enough(solver, effect, middle, power, alpha)
        high, low = np.where(enough, middle, high), np.where(enough, low, middle + 1)
        low = np.minimum(low, high)
    return np.where(sought, high.astype(float), np.nan)


def _detectable(
    solver, sd: np.ndarray, sizes: np.ndarray, power: float, alpha: float
) -> np.ndarray:
    """Difference that two groups of these sizes find, ppb."""
    found = np.full(len(sd), np.nan)
    if len(sizes) != 2:
        return found
    known: dict[tuple[int, int], float] = {}
    for j in np.flatnonzero(np.isfinite(sd) & (sizes.min(axis=0) >= 2)):
        one, two = (int(v) for v in sizes[:, j])
        if (one, two) not in known:
            known[one, two] = solver.solve_power(
                None, nobs1=one, ratio=two / one, power=power, alpha=alpha
            )
        found[j] = known[one, two] * sd[j]
    return found
