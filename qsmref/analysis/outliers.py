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
    z, values, medians, limits = _distances(kept, rows, codes)
    far = np.abs(z)
    for code in range(len(limits)):
        far[codes == code] /= limits[code]
    far[np.isnan(far)] = -1.0
    table = pd.DataFrame(
        {
            "participant_id": kept.participants,
            "group": [design.groups[c] if design.groups else None for c in codes],
            "n": (far >= 0).sum(axis=1),
            "n_outlying": (far > 1).sum(axis=1),
        }
    )
    table["group"] = table["group"].astype(object)
    count = len(table)
    at = np.argmax(far, axis=1) if len(rows) else np.zeros(count, dtype=np.intp)
    some = table["n"].to_numpy() > 0
    each = np.arange(count)
    found = {"z": (z, each), "difference": (values, each)}
    found |= {"limit": (limits, codes), "median": (medians, codes)}
    for name, (array, which) in found.items():
        table[name] = np.where(some, array[which, at], np.nan) if len(rows) else np.nan
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
    """(scan, row) z and values, (group, row) medians and bounds; NaN where there are too few."""
    values = outcomes.values(rows)
    z = np.full_like(values, np.nan)
    shape = (int(codes.max(initial=0)) + 1, len(rows))
    medians, sizes = np.full(shape, np.nan), np.zeros(shape)
    for code in np.unique(codes):
        inside = codes == code
        part = values[inside]
        count = np.isfinite(part).sum(axis=0)
        enough = count >= FEWEST
        if enough.any():
            medians[code, enough] = np.nanmedian(part[:, enough], axis=0)
            sizes[code, enough] = count[enough]
            z[inside] = part - medians[code]
    spread = np.full(len(rows), np.nan)
    some = (sizes > 0).any(axis=0)
    if some.any():
        spread[some] = np.nanquantile(np.abs(z[:, some]), _PART, axis=0) / _SD_AT_PART
    # Values that are the same but for rounding have no scatter to measure by.
    spread[spread <= outcomes.resolution()[rows]] = np.nan
    sizes[:, np.isnan(spread)] = 0
    z /= spread
    return z, values, medians, _bounds(sizes)


def _bounds(sizes: np.ndarray) -> np.ndarray:
    """Bound of the z of each group and row, where so many participants have a z."""
    from scipy.stats import t

    values = sizes.sum()
    degrees = _EFFICIENCY * np.maximum(sizes.sum(axis=0) - (sizes > 0).sum(axis=0), 1)
    bound = t.isf(LEVEL / (2 * max(values, 1)), degrees)
    with np.errstate(divide="ignore"):
        return bound * np.sqrt(1 + np.pi / (2 * sizes))
