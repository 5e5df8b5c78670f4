"""The tests themselves: thin calls of scipy and statsmodels, for many rows at a time.

Each function takes values (participant, row) in the order of the design and a note for every
row that cannot be tested, and returns columns: NaN where there is a note. A row that turns out to
be untestable on the way gets a note in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np

from .design import Design

Columns = dict[str, np.ndarray]


def _empty(count: int, names: tuple[str, ...]) -> Columns:
    return {name: np.full(count, np.nan) for name in names}


def _t_test(
    values: np.ndarray, design: Design, note: np.ndarray, confidence: float, equal: bool
) -> Columns:
    """Student's or Welch's t test by :func:`scipy.stats.ttest_ind`."""
    from scipy.stats import ttest_ind

    made = _empty(values.shape[1], ("difference", "ci_low", "ci_high", "t", "df", "p"))
    one, two = (values[design.codes == k] for k in (0, 1))
    usable = np.array([n is None for n in note], dtype=bool)
    gaps = ~np.isfinite(values).all(axis=0)
    # Rows without gaps are tested in one call; scipy goes through the others one by one.
    for rows in (usable & ~gaps, usable & gaps):
        if not rows.any():
            continue
        found = ttest_ind(one[:, rows], two[:, rows], equal_var=equal, nan_policy="omit")
        interval = found.confidence_interval(confidence)
        made["difference"][rows] = np.nanmean(one[:, rows], axis=0) - np.nanmean(
            two[:, rows], axis=0
        )
        made["ci_low"][rows], made["ci_high"][rows] = interval.low, interval.high
        made["t"][rows], made["df"][rows] = found.statistic, found.df
        made["p"][rows] = found.pvalue
    return made


def student(values: np.ndarray, design: Design, note: np.ndarray, confidence: float) -> Columns:
    """Student's t test of two groups, variances equal."""
    return _t_test(values, design, note, confidence, equal=True)


def welch(values: np.ndarray, design: Design, note: np.ndarray, confidence: float) -> Columns:
    """Welch's t test of two groups, variances not taken as equal (df of Satterthwaite)."""
    return _t_test(values, design, note, confidence, equal=False)


def anova(values: np.ndarray, design: Design, note: np.ndarray, confidence: float) -> Columns:
    """One-way analysis of variance by :func:`scipy.stats.f_oneway`.

    With two groups F is the square of Student's t, and the columns of the t test are filled too.
    """
    from scipy.stats import f_oneway

    count, groups = values.shape[1], len(design.groups)
    made = _empty(count, ("f", "df_between", "df", "p", "eta_squared"))
    parts = [values[design.codes == k] for k in range(groups)]
    usable = np.array([n is None for n in note], dtype=bool)
    gaps = ~np.isfinite(values).all(axis=0)
    for rows in (usable & ~gaps, usable & gaps):
        if not rows.any():
            continue
        found = f_oneway(*(part[:, rows] for part in parts), nan_policy="omit", axis=0)
        n = np.isfinite(values[:, rows]).sum(axis=0)
        made["f"][rows], made["p"][rows] = found.statistic, found.pvalue
        made["df_between"][rows], made["df"][rows] = groups - 1, n - groups
        between = made["f"][rows] * (groups - 1)
        made["eta_squared"][rows] = between / (between + n - groups)
    if groups == 2:
        made = {**student(values, design, note, confidence), **made}
    return made


#: Rows that are computed together: their residuals take memory.
_BLOCK = 256


def _alike(known: np.ndarray, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows of the table (columns of `known`) by who has a value: participants, and their rows."""
    groups: dict[bytes, list[int]] = {}
    for row in rows:
        groups.setdefault(np.packbits(known[:, row]).tobytes(), []).append(row)
    for together in groups.values():
        yield known[:, together[0]], np.array(together)


def ancova(values: np.ndarray, design: Design, note: np.ndarray, confidence: float) -> Columns:
    """Groups adjusted for covariates, by :class:`statsmodels.regression.linear_model.OLS`.

    Each row uses the participants that have its value; rows of the same participants share one fit
    of the design, and :mod:`scipy.stats` has their p. With two groups `difference` is the
    coefficient of the first group; with more, `f` tests all groups at once.
    """
    from scipy.stats import f, t
    from statsmodels.regression.linear_model import OLS

    count, groups = values.shape[1], len(design.groups)
    names = (
        ("f", "df_between", "eta_squared") if groups > 2 else ("difference", "ci_low", "ci_high")
    )
    made = _empty(count, (*names, "df", "p", "residual_sd", *(("t",) if groups == 2 else ())))
    # The last group is the baseline.
    matrix = np.column_stack([design.indicators()[:, : groups - 1], design.nuisance()])
    usable = np.flatnonzero([n is None for n in note])
    for there, rows in _alike(np.isfinite(values), usable):
        x = matrix[there]
        rank = np.linalg.matrix_rank(x, tol=1e-7 * np.sqrt(len(x)))
        if rank < x.shape[1] or len(x) <= x.shape[1]:
            note[rows] = (
                f"{len(x)} participants with a value are too few, or too alike, for "
                f"{x.shape[1]} groups and covariates"
            )
            continue
        # One fit has all of the design; what differs from row to row are the values alone.
        model = OLS(values[there, rows[0]], x)
        df, unscaled = model.fit().df_resid, model.normalized_cov_params
        for some in np.array_split(rows, -(-len(rows) // _BLOCK)):
            y = values[np.ix_(there, some)]
            found = model.pinv_wexog @ y
            variance = np.sum((y - x @ found) ** 2, axis=0) / df
            made["residual_sd"][some], made["df"][some] = np.sqrt(variance), df
            if groups == 2:
                error = np.sqrt(variance * unscaled[0, 0])
                half = error * t.ppf((1 + confidence) / 2, df)
                made["difference"][some], made["t"][some] = found[0], found[0] / error
                made["ci_low"][some], made["ci_high"][some] = found[0] - half, found[0] + half
                made["p"][some] = 2 * t.sf(np.abs(made["t"][some]), df)
            else:
                between = found[: groups - 1]
                inverse = np.linalg.inv(unscaled[: groups - 1, : groups - 1])
                square = np.einsum("is,ij,js->s", between, inverse, between)
                made["f"][some] = square / (groups - 1) / variance
                made["p"][some] = f.sf(made["f"][some], groups - 1, df)
                made["df_between"][some] = groups - 1
                made["eta_squared"][some] = square / (square + df * variance)
    return made


def quiet(function: Callable) -> Callable:
    """The function without the warnings of scipy about rows that have too little in them.

    Such rows have their note before the test is called; what is left are warnings about nearly
    constant samples, whose t is large and right.
    """

    def run(*arguments, **keywords):
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.filterwarnings("ignore", message="Precision loss occurred")
            warnings.filterwarnings("ignore", message="One or more sample arguments is too small")
            return function(*arguments, **keywords)

    return run


#: From the name of a test to its function.
RUN: dict[str, Callable[..., Columns]] = {
    "student": quiet(student),
    "welch": quiet(welch),
    "anova": quiet(anova),
    "ancova": quiet(ancova),
}
