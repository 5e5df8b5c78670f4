"""Two sessions of the same participants: paired tests for every region and difference."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .families import adjust, family_codes, label_families
from .outcomes import outcomes_of
from .reference import REFERENCES
from .tables import Measurements, RequestError, TableError, hint, listed


def paired_test(
    measured: Measurements,
    sessions: tuple[str, str] | None = None,
    *,
    family: str = "kind",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Second session minus first by the paired t test (:func:`scipy.stats.ttest_rel`).

    Parameters
    ----------
    measured : Measurements
        With sessions.
    sessions : (first, second), optional
        Needed when there are more than two; by default those of ``measured.visits``.

    Returns
    -------
    DataFrame
        ``region reference slab_cut_mm erosion_mm n mean_first sd_first mean_second sd_second
        difference ci_low ci_high t df p q_bh q_by family note``; ppb, over participants that have
        both.
    """
    from scipy.stats import ttest_rel

    first, second, names = paired_values(measured, sessions)
    outcomes = outcomes_of(measured)
    resolution, made = outcomes.resolution(), []
    for rows, values in outcomes.blocks():
        for j in range(values.shape[1]):
            a, b = values[first, j], values[second, j]
            both = np.isfinite(a) & np.isfinite(b)
            a, b = a[both], b[both]
            row: dict[str, object] = {"n": len(a), "note": None}
            if len(a) < 2:
                row["note"] = f"{len(a)} participants with a value at both sessions are too few"
            elif np.std(b - a) <= resolution[rows][j]:
                row["note"] = "constant: the change is the same in every participant"
            else:
                found = ttest_rel(b, a)
                interval = found.confidence_interval(confidence)
                row |= {
                    "mean_first": a.mean(),
                    "sd_first": a.std(ddof=1),
                    "mean_second": b.mean(),
                    "sd_second": b.std(ddof=1),
                    "difference": (b - a).mean(),
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "t": found.statistic,
                    "df": float(found.df),
                    "p": found.pvalue,
                }
            made.append(row)
    columns = ["n", "mean_first", "sd_first", "mean_second", "sd_second", "difference"]
    columns += ["ci_low", "ci_high", "t", "df", "p", "q_bh", "q_by", "family", "note"]
    table = pd.concat(
        [outcomes.rows.reset_index(drop=True), pd.DataFrame(made).reindex(columns=columns)], axis=1
    )
    labels = label_families(table, family, measured.references or REFERENCES)
    codes, p = family_codes(table, labels), table["p"].to_numpy(dtype=float)
    table["q_bh"], table["q_by"] = adjust(p, codes), adjust(p, codes, "fdr_by")
    table["family"] = labels
    here = set(measured.participants[first])
    lacking = [who for who in dict.fromkeys(measured.participants) if who not in here]
    table.attrs = {
        "test": "paired",
        "sessions": list(names),
        "excluded": [[who, f"has not both of {names[0]} and {names[1]}"] for who in lacking],
    }
    return table


def paired_values(
    measured: Measurements, sessions: tuple[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Scans of the first and of the second session, of participants that have both."""
    if measured.sessions is None:
        raise RequestError("there are no sessions: say which column tells the visits apart.")
    present = measured.visits
    if sessions is None:
        if len(present) != 2:
            raise RequestError(
                f"a paired test compares two sessions, and there are {len(present)} "
                f"({listed(present)}): choose two."
            )
        sessions = (present[0], present[1])
    for name in sessions:
        if name not in present:
            raise RequestError(f"there is no session {name!r}; {hint(name, present)}.")
    at = {
        key: k for k, key in enumerate(zip(measured.participants, measured.sessions, strict=True))
    }
    people = [
        p
        for p in dict.fromkeys(measured.participants)
        if (p, sessions[0]) in at and (p, sessions[1]) in at
    ]
    if len(people) < 2:
        raise TableError(
            f"{len(people)} participants have both sessions ({listed(sessions)}); two are needed."
        )
    first = np.array([at[p, sessions[0]] for p in people])
    return first, np.array([at[p, sessions[1]] for p in people]), sessions
