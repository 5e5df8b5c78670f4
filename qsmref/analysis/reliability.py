r"""What repeated sessions say about the precision of regions and of differences.

It is reliability only where nothing changed between the sessions: a scan and a rescan, not a visit
and the next year's.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from .outcomes import Outcomes, outcomes_of
from .tables import Measurements, RequestError, TableError, listed


def reliability_table(
    measured: Measurements,
    sessions: tuple[str, ...] | None = None,
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    r"""ICC, repeatability coefficient and Bland-Altman limits of every region and difference.

    Parameters
    ----------
    measured : Measurements
        With sessions.
    sessions : tuple of str, optional
        Which of them, in order; by default all, in the order of ``measured.visits``. Participants
        that lack one of them are left out of a row.
    confidence : float
        Of the intervals, and of the limits of agreement.

    Returns
    -------
    DataFrame
        One row a region or pair and coverage, ppb: ``region reference slab_cut_mm erosion_mm n k``
        (participants, sessions); ``icc_agreement`` ICC(A,1), ``icc_consistency`` ICC(C,1), each
        with ``_low _high``; ``sd_between``, ``sd_within`` (of one session, a shift between
        sessions included); ``repeatability``, the difference of two sessions that is exceeded once
        in twenty, with ``_low _high``; with two sessions ``bias`` (second minus first), its
        interval, and the limits of agreement ``loa_low loa_high``; ``note``.

    Raises
    ------
    TableError
        No sessions, or no two participants who have them all.

    Notes
    -----
    From the mean squares of the two-way analysis of variance, of participants R, sessions C and
    error E, with n participants and k sessions (McGraw and Wong, with their intervals):

    .. math::

        \mathrm{ICC}(C, 1) = \frac{R - E}{R + (k - 1) E}, \qquad
        \mathrm{ICC}(A, 1) = \frac{R - E}{R + (k - 1) E + \frac{k}{n} (C - E)}.

    The variance within participants is the mean square within them (one-way), whose interval is
    that of chi square with n(k - 1) degrees of freedom; the repeatability coefficient is
    :math:`z \sqrt{2}` times its root.

    References
    ----------
    McGraw & Wong 1996, doi:10.1037/1082-989X.1.1.30; Bland & Altman 1999,
    doi:10.1177/096228029900800204.
    """
    if measured.sessions is None:
        raise RequestError("there are no sessions: say which column tells the visits apart.")
    names = tuple(sessions) if sessions else measured.visits
    if len(names) < 2:
        raise RequestError(f"reliability needs two sessions; there is {listed(names) or 'none'}.")
    keys = zip(measured.participants, measured.sessions, strict=True)
    at = {key: row for row, key in enumerate(keys)}
    people = [
        p for p in dict.fromkeys(measured.participants) if all((p, name) in at for name in names)
    ]
    if len(people) < 2:
        raise TableError(
            f"{len(people)} participants have all sessions ({listed(names)}); two are needed."
        )
    scans = np.array([[at[p, name] for name in names] for p in people])
    outcomes = outcomes_of(measured)
    table = _table(outcomes, scans, confidence)
    table.attrs = {"sessions": list(names), "confidence": confidence}
    return table


_COLUMNS = [
    *("n", "k"),
    *("icc_agreement", "icc_agreement_low", "icc_agreement_high"),
    *("icc_consistency", "icc_consistency_low", "icc_consistency_high"),
    *("sd_between", "sd_within"),
    *("repeatability", "repeatability_low", "repeatability_high"),
    *("bias", "bias_low", "bias_high", "loa_low", "loa_high", "note"),
]


def _table(outcomes: Outcomes, scans: np.ndarray, confidence: float) -> pd.DataFrame:
    resolution, made = outcomes.resolution(), []
    for rows, values in outcomes.blocks():
        for j in range(values.shape[1]):
            x = values[:, j][scans]
            x = x[np.isfinite(x).all(axis=1)]
            row: dict[str, object] = {"n": len(x), "k": scans.shape[1]}
            if len(x) < 3:
                row["note"] = f"{len(x)} participants with all sessions are too few"
            elif np.ptp(x, axis=1).max() <= resolution[rows][j]:
                row["note"] = "constant: no scatter within any participant"
            else:
                row |= agreement(x, confidence)
            made.append(row)
    found = pd.DataFrame(made).reindex(columns=_COLUMNS)
    return pd.concat([outcomes.rows.reset_index(drop=True), found], axis=1)


def agreement(x: np.ndarray, confidence: float = 0.95) -> dict[str, float]:
    """The columns of :func:`reliability_table` for one outcome.

    Parameters
    ----------
    x : (participant, session) array
        No value missing.

    Examples
    --------
    Six subjects and four judges (Shrout & Fleiss 1979, doi:10.1037/0033-2909.86.2.420):

    >>> ratings = "9 2 5 8 6 1 3 2 8 4 6 8 7 1 2 6 10 5 6 9 6 2 4 7".split()
    >>> found = agreement(np.array(ratings, dtype=float).reshape(6, 4))
    >>> round(found["icc_agreement"], 2), round(found["icc_consistency"], 2)
    (0.29, 0.71)
    """
    from scipy.stats import chi2, f, norm

    n, k = x.shape
    tail = (1 - confidence) / 2
    rows, columns, error, within = _mean_squares(x)
    made: dict[str, float] = {}

    consistency = (rows - error) / (rows + (k - 1) * error)
    agree = (rows - error) / (rows + (k - 1) * error + k / n * (columns - error))
    made["icc_agreement"], made["icc_consistency"] = agree, consistency
    ratio = rows / error if error > 0 else np.inf
    low = ratio / f.isf(tail, n - 1, (n - 1) * (k - 1))
    high = ratio * f.isf(tail, (n - 1) * (k - 1), n - 1)
    made["icc_consistency_low"] = _icc(low, k)
    made["icc_consistency_high"] = _icc(high, k)

    a = k * agree / (n * (1 - agree))
    b = 1 + k * agree * (n - 1) / (n * (1 - agree))
    parts = (a * columns) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    df = (a * columns + b * error) ** 2 / parts
    upper, lower = f.isf(tail, n - 1, df), f.isf(tail, df, n - 1)
    rest = k * columns + (k * n - k - n) * error
    made["icc_agreement_low"] = n * (rows - upper * error) / (upper * rest + n * rows)
    made["icc_agreement_high"] = n * (lower * rows - error) / (rest + n * lower * rows)

    z = float(norm.isf(tail))
    made["sd_between"] = float(np.sqrt(max(rows - error, 0.0) / k))
    made["sd_within"] = float(np.sqrt(within))
    degrees = n * (k - 1)
    for name, factor in (
        ("repeatability", 1.0),
        ("repeatability_low", degrees / chi2.isf(tail, degrees)),
        ("repeatability_high", degrees / chi2.ppf(tail, degrees)),
    ):
        made[name] = float(z * np.sqrt(2 * within * factor))
    if k == 2:
        made |= _limits(x[:, 1] - x[:, 0], tail)
    return {name: float(value) for name, value in made.items()}


def _mean_squares(x: np.ndarray) -> tuple[float, float, float, float]:
    """Of participants, sessions, error, and within participants."""
    n, k = x.shape
    # The first value is taken off so that the offset of a map does not cost digits.
    x = x - x[0, 0]
    level = x.mean()
    people, sessions = x.mean(axis=1), x.mean(axis=0)
    rows = k * float(((people - level) ** 2).sum()) / (n - 1)
    columns = n * float(((sessions - level) ** 2).sum()) / (k - 1)
    rest = x - people[:, None] - sessions[None] + level
    error = float((rest**2).sum()) / ((n - 1) * (k - 1))
    within = float(((x - people[:, None]) ** 2).sum()) / (n * (k - 1))
    return rows, columns, error, within


def _icc(ratio: float, k: int) -> float:
    return float((ratio - 1) / (ratio + k - 1)) if np.isfinite(ratio) else 1.0


def _limits(change: np.ndarray, tail: float) -> dict[str, float]:
    """Bias with its interval, and limits of agreement."""
    from scipy.stats import norm, t

    n, bias, sd = len(change), float(change.mean()), float(change.std(ddof=1))
    half = float(t.isf(tail, n - 1)) * sd / np.sqrt(n)
    z = float(norm.isf(tail))
    return {
        "bias": bias,
        "bias_low": bias - half,
        "bias_high": bias + half,
        "loa_low": bias - z * sd,
        "loa_high": bias + z * sd,
    }
