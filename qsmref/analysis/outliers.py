"""Who is unlike the others of a group: differences far from the median of the group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .design import Design
from .families import label_families
from .outcomes import Outcomes

#: Chance that a cohort without outliers has any participant beyond the bound.
LEVEL = 0.05
#: Participants of a group that its median needs to mean something.
FEWEST = 5
#: Part of the deviations by which the scatter is measured, and what it is in SD of a normal
#: distribution.
_PART, _SD_AT_PART = 0.75, 1.1503493803760079
#: What that quantile knows of the scatter, relative to the SD: q (1 - q) / (4 x² f(x)²) is .836 at
#: this quantile x of a half normal density 2 f, and .5 for the SD.
_EFFICIENCY = 0.6


def outlier_table(outcomes: Outcomes, design: Design) -> pd.DataFrame:
    r"""How far each participant is from the others of the group, over all differences.

    Differences carry no offset, so that a map whose zero is odd is no outlier, and one with a
    failed registration, a bad mask or streaks is. For a difference :math:`x` of a participant

    .. math:: z = \frac{x - \operatorname{median}(x)}{s}, \qquad
              s = \frac{Q_{.75}(|x - \operatorname{median}(x)|)}{1.15}

    with the median of the participant's group, and s from the deviations of all groups together,
    three quarters of which lie within 1.15 s. A quarter of the participants may be bad without
    changing it much. (The median absolute deviation stands more, and knows little of the scatter
    of few people: with it and the usual bound of 3.5, most of 8 + 8 healthy people are outliers.)

    The bound belongs to the whole table: with N values of all participants and differences,

    .. math:: |z| > \sqrt{1 + \frac{\pi}{2 n_g}} \; t_{1 - .05 / (2 N)}(.6 (n - G)),

    for n participants in G groups, n_g of them in that of the participant. It is Bonferroni's, so
    that it needs no knowledge of how differences depend on each other; the root is the error of
    the group's median, and .6 what s knows relative to an SD. Of simulated cohorts without
    outliers one in twenty or fewer had anybody beyond it (tests/test_outliers.py).

    Parameters
    ----------
    outcomes : Outcomes
        Differences of one coverage, ppb, one scan a participant; regions alone are left out.
    design : Design
        Groups; without groups all are one.

    Returns
    -------
    DataFrame
        One row a participant, the most outlying first: ``participant_id group n n_outlying z
        limit region reference difference median``. ``n`` counts the differences that have a
        ``z``, ``n_outlying`` those beyond the bound on either side; the rest is the difference
        that is furthest beyond its bound ``limit``, or nearest to it. Participants of groups of
        less than five have ``n`` 0.

    Notes
    -----
    Groups are taken to scatter alike, as Student's test does.

    References
    ----------
    Rousseeuw & Croux 1993, doi:10.1080/01621459.1993.10476408 (scales for few participants).
    """
    place = design.place(list(outcomes.participants))
    kept = outcomes.scans(place >= 0)
    codes = design.codes[place[place >= 0]]
    labels = label_families(kept.rows)
    rows = np.flatnonzero((labels == "pairs").to_numpy())
    z, limits, values, medians = _distances(kept, rows, codes)
    known = np.isfinite(z)
    far = np.abs(z) / limits
    beyond = known & (far > 1)
    table = pd.DataFrame(
        {
            "participant_id": kept.participants,
            "group": [design.groups[c] if design.groups else None for c in codes],
            "n": known.sum(axis=1),
            "n_outlying": beyond.sum(axis=1),
        }
    )
    table["group"] = table["group"].astype(object)
    count = len(table)
    at = np.zeros(count, dtype=np.intp)
    if len(rows):
        at = np.argmax(np.where(known, far, -1.0), axis=1)
    some = table["n"].to_numpy() > 0
    each = np.arange(count)
    for name, array in (("z", z), ("limit", limits), ("difference", values), ("median", medians)):
        table[name] = np.where(some, array[each, at], np.nan) if len(rows) else np.nan
    for name in ("region", "reference"):
        words = kept.rows[name].to_numpy()[rows[at]] if len(rows) else np.full(count, None)
        chosen = [word if has else None for word, has in zip(words, some, strict=True)]
        table[name] = pd.Series(chosen).astype(object)
    order = ["participant_id", "group", "n", "n_outlying", "z", "limit", "region"]
    table = table[[*order, "reference", "difference", "median"]]
    size = (table["z"].abs() / table["limit"]).fillna(-1.0)
    table = table.assign(size=size).sort_values(
        ["n_outlying", "size"], ascending=False, kind="stable"
    )
    return table.drop(columns="size").reset_index(drop=True)


def _distances(
    outcomes: Outcomes, rows: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(scan, row) z, its bound, values and medians of the group; NaN where there are too few."""
    values = outcomes.values(rows)
    away, medians = np.full_like(values, np.nan), np.full_like(values, np.nan)
    sizes = np.zeros_like(values)
    groups = np.zeros(len(rows))
    for code in np.unique(codes):
        inside = codes == code
        part = values[inside]
        count = np.isfinite(part).sum(axis=0)
        enough = count >= FEWEST
        if not enough.any():
            continue
        where = np.ix_(inside, enough)
        medians[where] = np.nanmedian(part[:, enough], axis=0)
        away[where] = values[where] - medians[where]
        sizes[where] = count[enough]
        groups += enough
    known = np.isfinite(away)
    spread = np.full(len(rows), np.nan)
    some = known.any(axis=0)
    if some.any():
        spread[some] = np.nanquantile(np.abs(away[:, some]), _PART, axis=0) / _SD_AT_PART
    # Values that are the same but for rounding have no scatter to measure by.
    spread[spread <= outcomes.resolution()[rows]] = np.nan
    with np.errstate(invalid="ignore"):
        z = away / spread
    # Like the values: where there is none, there is nothing to be an outlier.
    medians[~np.isfinite(z)] = np.nan
    return z, _bounds(np.isfinite(z), sizes, groups), values, medians


def _bounds(known: np.ndarray, sizes: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(scan, row) bound of each z; `sizes` are those of the groups, `groups` their number."""
    from scipy.stats import t

    count = int(known.sum())
    degrees = _EFFICIENCY * np.maximum(known.sum(axis=0) - groups, 1)
    bound = t.isf(LEVEL / (2 * max(count, 1)), degrees)
    with np.errstate(divide="ignore"):
        return bound * np.sqrt(1 + np.pi / (2 * sizes))
