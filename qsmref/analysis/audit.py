r"""The reference audit: what the choice of a reference does to a result, and whether it was fair.

A reference B turns the value of a region A into A - B. That helps only if B shares the offset and
other noise of A, and it is fair only if B does not differ between the groups. The audit repeats the
comparison under every reference, tests the assumption, and takes the variance of A - B apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from .design import Design, make_design
from .families import adjust
from .grouptests import RUN, quiet
from .names import is_compartment, split_side
from .outcomes import Outcomes, outcomes_of
from .reference import REFERENCES
from .statistics import compare, find_notes, group_labels, refuse_exact_fit, summarise
from .tables import Measurements, RequestError

#: A reference that is nothing.
NONE = "none"


@dataclass(frozen=True)
class Audit:
    """Result of :func:`reference_audit`."""

    #: One row a region under each reference: the columns of the comparison with ``kind``, ``rank``
    #: (by effect size, within the region), ``correlation``, ``least_correlation``, ``helps``.
    specifications: pd.DataFrame
    #: One row a region: how far the result depends on the choice.
    summary: pd.DataFrame
    #: One row a candidate reference, alone and relative to every other: is it equal in the groups?
    equivalence: pd.DataFrame
    #: One row a region and reference: variance of the difference and its parts.
    variance: pd.DataFrame


def reference_audit(
    measured: Measurements,
    participants: pd.DataFrame,
    group_column: str,
    *,
    margin: float,
    groups: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    test: str = "auto",
    alpha: float = 0.05,
    permutations: int = 10_000,
    seed: int = 0,
    id_column: str = "participant_id",
) -> Audit:
    r"""Compare two groups under no reference, every tissue reference and every other region.

    Parameters
    ----------
    measured : Measurements
        Region means, one scan a participant; the coverage of the whole mask is audited. Its
        `references` are candidates, and so is every other region.
    participants, group_column, groups, covariates, test, permutations, seed, id_column
        As for :func:`~qsmref.analysis.compare_groups`; two groups.
    margin : float
        ppb. A reference is called equal when its difference between the groups is shown to lie
        within this margin.
    alpha : float
        Level of the tests counted in `summary`, and of the equivalence test.

    Returns
    -------
    Audit
        ``specifications``: q values are over all regions under one reference (single sides
        apart), which is what a study that uses this reference reports. ``equivalence``: two
        one-sided tests (:func:`statsmodels.stats.weightstats.ttost_ind`); ``ci_low`` and
        ``ci_high`` are the interval of 1 - 2 alpha that belongs to it. A row with no
        `relative_to` is the value of the map, which contains its offset.

    Raises
    ------
    TableError
        Anything wrong with the tables; a margin that is not positive; not two groups.

    Notes
    -----
    Variances and covariances are those within groups, pooled, of the participants that have both:

    .. math::

        \mathrm{var}(A - B) = \mathrm{var}(A) + \mathrm{var}(B) - 2 \, \mathrm{cov}(A, B),

    so that B makes A less variable if and only if
    :math:`\mathrm{corr}(A, B) > \mathrm{SD}(B) / (2\, \mathrm{SD}(A))` (Fuchs et al. 2025).

    References
    ----------
    Schuirmann 1987, doi:10.1007/BF01068419 (two one-sided tests); Simonsohn et al. 2020,
    doi:10.1038/s41562-020-0912-z (specification curves); Fuchs et al. 2025,
    doi:10.1007/s10334-025-01226-6.
    """
    if not (np.isfinite(margin) and margin > 0):
        raise RequestError(f"the margin of equivalence must be positive (ppb), got {margin:g}.")
    if not 0 < alpha < 0.5:
        raise RequestError(f"alpha must lie between 0 and 0.5, got {alpha:g}.")
    measured.one_scan_each()
    measured = measured.full_coverage()
    design = make_design(
        participants,
        measured.participants,
        group_column,
        groups=groups,
        covariates=covariates,
        id_column=id_column,
    )
    if len(design.groups) != 2:
        raise RequestError(
            f"the reference audit compares two groups, and there are {len(design.groups)}: choose "
            "two."
        )
    outcomes = outcomes_of(measured)
    table = compare(
        outcomes,
        design,
        test=test,
        references=measured.references or REFERENCES,
        permutations=permutations,
        seed=seed,
    )
    variance = variance_parts(outcomes, design)
    specifications = _specifications(table, variance, measured)
    return Audit(
        specifications,
        _summary(specifications, alpha),
        # References are candidates too: here they stand alone like any region.
        _equivalence(outcomes_of(replace(measured, references=())), design, margin, alpha),
        variance,
    )


def turned(table: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """Rows of a comparison read from the other side: reference minus region."""
    other = table.copy()
    other["region"], other["reference"] = table["reference"], table["region"]
    signed = ["difference", "t", "hedges_g", *(f"mean_{label}" for label in labels)]
    for name in signed:
        other[name] = -table[name]
    for low, high in (("ci_low", "ci_high"), ("g_low", "g_high")):
        other[low], other[high] = -table[high], -table[low]
    return other


def _specifications(
    table: pd.DataFrame, variance: pd.DataFrame, measured: Measurements
) -> pd.DataFrame:
    labels = group_labels(table.attrs["groups"])
    inside = table["reference"].isin(measured.alone)
    rows = pd.concat([table, turned(table[inside], labels)], ignore_index=True)
    kind = np.where(
        rows["reference"].isna(),
        NONE,
        np.where(rows["reference"].isin(measured.alone), "region", "tissue"),
    )
    rows.insert(2, "kind", kind)
    # One side and both sides together are families apart, as in the comparison.
    one_side = rows["family"].str.endswith("one side")
    world = pd.factorize(rows["reference"].fillna(NONE) + np.where(one_side, "/", ""))[0]
    rows = rows.drop(columns=["slab_cut_mm", "erosion_mm", "family"])
    p = rows["p"].to_numpy()
    rows["q_bh"], rows["q_by"] = adjust(p, world, "fdr_bh"), adjust(p, world, "fdr_by")
    rows = rows.merge(
        variance[["region", "reference", "correlation", "least_correlation", "helps"]],
        on=["region", "reference"],
        how="left",
    )
    place = {name: k for k, name in enumerate(measured.regions)}
    rows["_at"] = rows["region"].map(place)
    rows = rows.sort_values(["_at", "hedges_g"], kind="stable", ignore_index=True)
    rows.insert(3, "rank", rows.groupby("region", sort=False).cumcount() + 1)
    note = rows.pop("note")
    rows["note"] = note
    return rows.drop(columns="_at")


def _summary(specifications: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """How far the result for a region depends on the reference."""
    made = []
    for region, rows in specifications.groupby("region", sort=False):
        tested = rows[rows["p"].notna()]
        alone = rows[rows["kind"] == NONE]
        g = tested["hedges_g"]
        made.append(
            {
                "region": region,
                "n_specifications": len(tested),
                "n_p": int((tested["p"] < alpha).sum()),
                "n_q_bh": int((tested["q_bh"] < alpha).sum()),
                "n_positive": int((g > 0).sum()),
                "g_none": float(alone["hedges_g"].iloc[0]) if len(alone) else np.nan,
                "g_low": g.min(),
                "g_median": g.median(),
                "g_high": g.max(),
                "p_low": tested["p"].min(),
                "p_high": tested["p"].max(),
                "n_helps": int((rows["helps"] == "yes").sum()),
            }
        )
    return pd.DataFrame(made)


def most_moved(specifications: pd.DataFrame) -> str | None:
    """The region to look at first: the one whose result depends most on the reference.

    That is the nucleus (no fluid, cortex, white matter or vessels, and no single side where both
    are there) whose Hedges' g spans most between no reference and the tissue references. Other
    regions as references do not count, since an effect in one of them moves all others. Without
    two of these all references count, and without nuclei all regions.

    Parameters
    ----------
    specifications : DataFrame
        Of :func:`reference_audit`.

    Returns
    -------
    str or None
        The first in the table where several span alike; None for an empty table.
    """
    names = list(dict.fromkeys(specifications["region"]))
    bases = {n.removesuffix("_both") for n in names}
    whole = [n for n in names if not split_side(n)[1] or split_side(n)[0] not in bases]
    chosen = [n for n in whole if not is_compartment(n)] or whole or names
    if not chosen:
        return None
    rows = specifications[specifications["region"].isin(chosen)]
    outside = rows[rows["kind"] != "region"]
    if outside.groupby("region")["hedges_g"].count().max() > 1:
        rows = outside
    by_region = rows.groupby("region", sort=False)["hedges_g"]
    span = (by_region.max() - by_region.min()).reindex(chosen).fillna(0.0)
    return str(span.idxmax())


def variance_parts(outcomes: Outcomes, design: Design) -> pd.DataFrame:
    """Variance of each difference and its parts, within groups, read from either side.

    Parameters
    ----------
    outcomes : Outcomes
        Rows of pairs; regions alone are skipped.
    design : Design
        Without groups all participants are one.

    Returns
    -------
    DataFrame
        ``region reference n var_region var_reference covariance var_difference correlation
        least_correlation helps``; ppb². `helps` is yes where `correlation` is above
        `least_correlation` = SD(B) / (2 SD(A)).
    """
    place = design.place(outcomes.participants)
    outcomes = outcomes.scans(np.flatnonzero(place >= 0))
    codes = design.codes[place[place >= 0]]
    made = []
    for k in np.flatnonzero(outcomes.second >= 0):
        a, b = (outcomes.sources[:, j[k]] for j in (outcomes.first, outcomes.second))
        both = np.isfinite(a) & np.isfinite(b)
        x = np.stack([a[both], b[both]])
        groups = np.unique(codes[both])
        for code in groups:
            inside = codes[both] == code
            x[:, inside] -= x[:, inside].mean(axis=1, keepdims=True)
        degrees = int(both.sum()) - len(groups)
        parts = x @ x.T / degrees if degrees > 0 else np.full((2, 2), np.nan)
        var_difference = float(((x[0] - x[1]) ** 2).sum() / degrees) if degrees > 0 else np.nan
        for one, two in ((0, 1), (1, 0)):
            names = outcomes.rows["region"].iat[k], outcomes.rows["reference"].iat[k]
            made.append(
                {
                    "region": names[one],
                    "reference": names[two],
                    "n": int(both.sum()),
                    "var_region": parts[one, one],
                    "var_reference": parts[two, two],
                    "covariance": parts[0, 1],
                    "var_difference": var_difference,
                }
            )
    table = pd.DataFrame(made, columns=["region", "reference", "n", *_VARIANCES])
    sd_a, sd_b = np.sqrt(table["var_region"]), np.sqrt(table["var_reference"])
    with np.errstate(divide="ignore", invalid="ignore"):
        product = (sd_a * sd_b).where(sd_a * sd_b > 0)
        table["correlation"] = table["covariance"] / product
        table["least_correlation"] = sd_b / (2 * sd_a.where(sd_a > 0))
    helps = np.where(table["correlation"] > table["least_correlation"], "yes", "no")
    table["helps"] = pd.Series(helps, dtype=object).where(table["correlation"].notna(), None)
    return table


_VARIANCES = ("var_region", "var_reference", "covariance", "var_difference")


def _equivalence(outcomes: Outcomes, design: Design, margin: float, alpha: float) -> pd.DataFrame:
    """Two one-sided t tests of every region and difference, adjusted where there are covariates."""
    from scipy.stats import ttest_ind
    from statsmodels.stats.weightstats import ttost_ind

    place = design.place(outcomes.participants)
    order = np.flatnonzero(place >= 0)[np.argsort(place[place >= 0], kind="stable")]
    outcomes = outcomes.scans(order)
    labels = group_labels(design.groups)
    resolution = outcomes.resolution()
    made = []
    for rows, values in outcomes.blocks():
        summary = summarise(values, design)
        notes = find_notes(summary, design, resolution[rows])
        adjusted = None
        if design.covariate_names:
            adjusted = RUN["ancova"](values, design, notes, 1 - 2 * alpha)
            refuse_exact_fit(adjusted, notes, resolution[rows])
        for j, note in enumerate(notes):
            row: dict[str, Any] = dict.fromkeys(("difference", "ci_low", "ci_high"), np.nan)
            row |= dict.fromkeys(("p_lower", "p_upper", "p_equivalence"), np.nan)
            row |= {f"n_{label}": int(summary["n"][k][j]) for k, label in enumerate(labels)}
            row |= {"margin": margin, "equivalent": None, "note": note}
            if note is None and adjusted is not None:
                row |= _tost({name: float(adjusted[name][j]) for name in _ADJUSTED}, margin, alpha)
            elif note is None:
                one, two = (_finite(values[design.codes == k, j]) for k in (0, 1))
                p, lower, upper = quiet(ttost_ind)(one, two, -margin, margin)
                interval = quiet(ttest_ind)(one, two).confidence_interval(1 - 2 * alpha)
                row |= {
                    "difference": one.mean() - two.mean(),
                    "ci_low": interval.low,
                    "ci_high": interval.high,
                    "p_lower": lower[1],
                    "p_upper": upper[1],
                    "p_equivalence": p,
                    "equivalent": "yes" if p < alpha else "no",
                }
            made.append(row)
    columns = [*(f"n_{label}" for label in labels), "difference", "ci_low", "ci_high", "margin"]
    columns += ["p_lower", "p_upper", "p_equivalence", "equivalent", "note"]
    names = outcomes.rows[["region", "reference"]].reset_index(drop=True)
    table = pd.concat([names, pd.DataFrame(made, columns=columns)], axis=1)
    # Each reference is asked about from its own side: itself relative to the others.
    other = table[table["reference"].notna()].copy()
    other[["region", "reference"]] = other[["reference", "region"]].to_numpy()
    other["difference"] = -other["difference"]
    other["ci_low"], other["ci_high"] = -other["ci_high"], -other["ci_low"]
    other["p_lower"], other["p_upper"] = other["p_upper"], other["p_lower"]
    both = pd.concat([table, other], ignore_index=True)
    both = both.rename(columns={"region": "candidate", "reference": "relative_to"})
    order_of = {name: k for k, name in enumerate(dict.fromkeys(both["candidate"]))}
    at = both["candidate"].map(order_of)
    both = both.iloc[np.argsort(at.to_numpy(), kind="stable")].reset_index(drop=True)
    both.attrs = {"covariates": list(design.covariate_names)}
    return both


_ADJUSTED = ("difference", "ci_low", "ci_high", "df")


def _tost(found: dict[str, float], margin: float, alpha: float) -> dict[str, Any]:
    """Two one-sided tests of a difference by its interval of confidence 1 - 2 alpha."""
    from scipy.stats import t

    df = found.pop("df")
    error = (found["ci_high"] - found["ci_low"]) / 2 / t.isf(alpha, df)
    lower = float(t.sf((found["difference"] + margin) / error, df))
    upper = float(t.cdf((found["difference"] - margin) / error, df))
    p = max(lower, upper)
    tests = {"p_lower": lower, "p_upper": upper, "p_equivalence": p}
    return {**found, **tests, "equivalent": "yes" if p < alpha else "no"}


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
