"""Who is unlike the others of a group: differences far from the median of the group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .design import Design
from .families import label_families
from .outcomes import Outcomes

#: Robust z of which a value is called outlying (Iglewicz and Hoaglin).
LIMIT = 3.5
#: Participants of a group that a median absolute deviation needs to mean something.
FEWEST = 5
#: SD of a normal distribution over its median absolute deviation.
_SD_OVER_MAD = 1.482602218505602


def outlier_table(outcomes: Outcomes, design: Design) -> pd.DataFrame:
    r"""How far each participant is from the others of the group, over all differences.

    Differences carry no offset, so that a map whose zero is odd is no outlier, and one with a
    failed registration, a bad mask or streaks is. For a difference :math:`x` of a participant

    .. math:: z = \frac{x - \operatorname{median}(x)}{1.4826 \operatorname{MAD}(x)},

    both over the participant's group.

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
        region reference difference median``. ``n`` counts the differences that have a ``z``,
        ``n_outlying`` those beyond 3.5 on either side; the rest is the difference with the
        largest ``z``. Participants of groups of less than five have ``n`` 0.

    References
    ----------
    Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers, ISBN 978-0873892476.
    """
    place = design.place(list(outcomes.participants))
    kept = outcomes.scans(place >= 0)
    codes = design.codes[place[place >= 0]]
    labels = label_families(kept.rows)
    rows = np.flatnonzero((labels == "pairs").to_numpy())
    z, values, medians = _distances(kept, rows, codes)
    known = np.isfinite(z)
    beyond = known & (np.abs(z) > LIMIT)
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
        at = np.argmax(np.where(known, np.abs(z), -1.0), axis=1)
    some = table["n"].to_numpy() > 0
    each = np.arange(count)
    for name, array in (("z", z), ("difference", values), ("median", medians)):
        table[name] = np.where(some, array[each, at], np.nan) if len(rows) else np.nan
    for name in ("region", "reference"):
        words = kept.rows[name].to_numpy()[rows[at]] if len(rows) else np.full(count, None)
        chosen = [word if has else None for word, has in zip(words, some, strict=True)]
        table[name] = pd.Series(chosen).astype(object)
    order = ["participant_id", "group", "n", "n_outlying", "z", "region", "reference"]
    table = table[[*order, "difference", "median"]]
    size = table["z"].abs().fillna(-1.0)
    table = table.assign(size=size).sort_values(
        ["n_outlying", "size"], ascending=False, kind="stable"
    )
    return table.drop(columns="size").reset_index(drop=True)


def _distances(
    outcomes: Outcomes, rows: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scan, row) z, values and medians of the group; NaN where there are too few."""
    values = outcomes.values(rows)
    z, medians = np.full_like(values, np.nan), np.full_like(values, np.nan)
    resolution = outcomes.resolution()[rows]
    for code in np.unique(codes):
        group = codes == code
        part = values[group]
        enough = np.isfinite(part).sum(axis=0) >= FEWEST
        if not enough.any():
            continue
        middle = np.nanmedian(part[:, enough], axis=0)
        away = part[:, enough] - middle
        spread = _SD_OVER_MAD * np.nanmedian(np.abs(away), axis=0)
        # Values that are the same but for rounding have no scatter to measure by.
        spread[spread <= resolution[enough]] = np.nan
        where = np.ix_(group, enough)
        z[where], medians[where] = away / spread, np.broadcast_to(middle, away.shape)
    return z, values, medians
