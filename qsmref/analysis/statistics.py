"""Tests between groups: one row of statistics for each region alone and each difference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .design import Design, make_design
from .families import adjust, family_codes, label_families
from .methods import LEAST_PER_GROUP, TESTS
from .outcomes import Outcomes, outcomes_of, outcomes_of_differences
from .reference import REFERENCES
from .tables import Measurements, RequestError, TableError, hint, listed

#: Columns after those of the groups, the same for every test.
RESULT = ["difference", "ci_low", "ci_high", "t", "df", "p", "q_bh", "q_by"]
EFFECT = ["hedges_g", "g_low", "g_high"]


@dataclass(frozen=True)
class Effect:
    """Standardised difference with its interval."""

    g: np.ndarray
    low: np.ndarray
    high: np.ndarray


def group_labels(groups: Sequence[str]) -> tuple[str, ...]:
    """Names of groups as parts of column names, which no other column of the table has.

    >>> group_labels(["patient", "Parkinson's disease"])
    ('patient', 'Parkinson_s_disease')
    >>> group_labels(["ApoE4+", "ApoE4-"])
    ('ApoE4_plus', 'ApoE4_minus')
    """
    labels = [re.sub(r"\W+", "_", group).strip("_") or "group" for group in groups]
    if len(set(labels)) < len(labels):
        signs = {"+": "_plus", "-": "_minus", "\u2212": "_minus"}
        ends = [signs.get(group.strip()[-1:], "") for group in groups]
        labels = [label + end for label, end in zip(labels, ends, strict=True)]
    # ``n_regions`` counts regions.
    labels = ["group_regions" if label == "regions" else label for label in labels]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise TableError(
            f"the groups {listed(groups)} cannot be told apart in column names ({twice[0]}): "
            "rename one."
        )
    return tuple(labels)


def choose_test(test: str, design: Design) -> str:
    """Test that ``auto`` stands for, or a TableError when a test does not fit the groups.

    Two groups are compared by Student's t test, more by ANOVA; with covariates by ANCOVA.
    """
    if test not in TESTS:
        raise RequestError(f"test {test!r} is not known; {hint(test, TESTS)}.")
    count, adjusted = len(design.groups), bool(design.covariate_names)
    if test == "auto":
        return "ancova" if adjusted else "student" if count == 2 else "anova"
    if test in ("student", "welch") and count != 2:
        raise RequestError(
            f"the {test} test compares two groups, and there are {count} ({listed(design.groups)}):"
            " choose two of them, or the test anova."
        )
    if adjusted and test in ("student", "welch", "anova"):
        raise RequestError(f"the {test} test takes no covariates: choose the test ancova.")
    if test == "ancova" and not adjusted:
        raise RequestError("the test ancova needs covariates.")
    return test


def compare_groups(
    differences: pd.DataFrame | Measurements | Outcomes,
    participants: pd.DataFrame,
    group_column: str,
    *,
    groups: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    test: str = "auto",
    family: str = "kind",
    confidence: float = 0.95,
    permutations: int = 10_000,
    seed: int = 0,
    id_column: str = "participant_id",
) -> pd.DataFrame:
    r"""Compare groups of participants in every region and every difference of two.

    Parameters
    ----------
    differences : DataFrame, Measurements or Outcomes
        A long table of differences (columns `id_column`, ``region``, ``reference``,
        ``difference`` in ppb, and ``slab_cut_mm``, ``erosion_mm`` where there are coverages), or
        region means of :func:`measurements`, of which every region alone and every pair are
        compared.
    participants : DataFrame
        One row a participant: `id_column`, `group_column` and the covariates.
    group_column : str
        Column of groups.
    groups : sequence of str, optional
        Which groups; by default all. A difference is the first minus the second, and the
        default order is that of the alphabet.
    covariates : sequence of str
        Columns to adjust for; see :func:`~qsmref.analysis.design.make_design`.
    test : {"auto", "student", "welch", "anova", "ancova", "permutation"}
        ``student`` and ``welch``: :func:`scipy.stats.ttest_ind`. ``anova``:
        :func:`scipy.stats.f_oneway`. ``ancova``: least squares with groups and covariates
        (:class:`statsmodels.regression.linear_model.OLS`); with two groups the t test of the
        adjusted difference, with more the F test of all groups. ``permutation``: labels are
        permuted (residuals, with covariates: Freedman and Lane), `p` is of the row and
        ``p_fwe`` of the largest statistic of its family. ``auto``: see :func:`choose_test`.
    family : {"kind", "coverage", "all"}
        Which rows are corrected together; see
        :func:`~qsmref.analysis.families.label_families`.
    confidence : float
        Of the intervals.
    permutations, seed : int
        For the test ``permutation``. When there are no more different arrangements, all are
        gone through.
    id_column : str
        Column of ids in both tables.

    Returns
    -------
    DataFrame
        One row a region (`reference` missing) or pair and coverage: ``region reference
        slab_cut_mm erosion_mm``, ``n_<group> mean_<group> sd_<group>`` for each group,
        ``difference ci_low ci_high t df p q_bh q_by hedges_g g_low g_high``, then for more groups
        or ``anova`` ``f df_between eta_squared``, for ``permutation`` ``p_fwe``, and always
        ``family`` and ``note``: why a row has no test. Values in ppb. ``attrs`` has ``test``,
        ``groups``, ``covariates``, ``excluded`` (pairs of participant and reason) and more.

    Raises
    ------
    TableError
        Anything wrong with the tables, in one sentence.

    Notes
    -----
    `n` counts the participants that have the row's value. A row in which a group has fewer than
    two of them, or in which nothing varies, has no test and a note. Hedges' g and its interval are
    those of :func:`statsmodels.stats.meta_analysis.effectsize_smd`,

    .. math::

        g = \left(1 - \frac{3}{4n - 9}\right) \frac{\bar x_1 - \bar x_2}{s_p}, \qquad
        \mathrm{var}(g) = \frac{n}{n_1 n_2} + \frac{g^2}{2 (n - 3.94)},

    with the normal quantile; with covariates from the adjusted difference and the residual SD.

    References
    ----------
    Hedges 1981, doi:10.3102/10769986006002107; Freedman & Lane 1983,
    doi:10.1080/07350015.1983.10509354; Westfall & Young 1993 (max-T).

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> people = pd.DataFrame({"participant_id": list("abcdef"), "group": ["p", "c"] * 3})
    >>> values = pd.DataFrame({"participant_id": list("abcdef"), "region": "SN",
    ...     "reference": "CN", "difference": [70.0, 42.0, 64.0, 40.0, 75.0, 38.0]})
    >>> table = compare_groups(values, people, "group", groups=["p", "c"])
    >>> table[["region", "reference", "n_p", "difference", "t", "df"]].round(2)
      region reference  n_p  difference     t   df
    0     SN        CN    3       29.67  8.77  4.0
    """
    if not 0.5 <= confidence < 1:
        raise RequestError(f"confidence must lie between 0.5 and 1, got {confidence:g}.")
    outcomes = as_outcomes(differences, id_column)
    design = make_design(
        participants,
        outcomes.participants,
        group_column,
        groups=groups,
        covariates=covariates,
        id_column=id_column,
    )
    references = differences.references if isinstance(differences, Measurements) else REFERENCES
    return compare(
        outcomes,
        design,
        test=test,
        family=family,
        references=references or REFERENCES,
        confidence=confidence,
        permutations=permutations,
        seed=seed,
    )


def as_outcomes(
    differences: pd.DataFrame | Measurements | Outcomes, id_column: str = "participant_id"
) -> Outcomes:
    """Outcomes of what :func:`compare_groups` takes, one scan a participant."""
    if isinstance(differences, Outcomes):
        made = differences
    elif isinstance(differences, Measurements):
        differences.one_scan_each()
        made = outcomes_of(differences)
    else:
        made = outcomes_of_differences(differences, id_column)
    return made


def compare(
    outcomes: Outcomes,
    design: Design,
    *,
    test: str = "auto",
    family: str = "kind",
    references: Sequence[str] = REFERENCES,
    confidence: float = 0.95,
    permutations: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """:func:`compare_groups` for outcomes and a design that are already made."""
    from . import grouptests
    from .permutation import permutation_p

    test = choose_test(test, design)
    labels = group_labels(design.groups)
    place = design.place(outcomes.participants)
    outcomes = outcomes.scans(np.flatnonzero(place >= 0))
    # The order of the design is that of the scans from here on.
    order = np.argsort(design.place(outcomes.participants), kind="stable")
    outcomes = outcomes.scans(order)
    family_of = label_families(outcomes.rows, family, tuple(references))
    codes = family_codes(outcomes.rows, family_of)

    resolution = outcomes.resolution()
    parts = []
    for rows, values in outcomes.blocks():
        summary = summarise(values, design)
        note = find_notes(summary, design, resolution[rows])
        run = {"permutation": "ancova" if design.covariate_names else "student"}.get(test, test)
        if test == "permutation" and len(design.groups) > 2 and not design.covariate_names:
            run = "anova"
        result = grouptests.RUN[run](values, design, note, confidence)
        refuse_exact_fit(result, note, resolution[rows])
        parts.append(_frame(summary, labels, result, design, note, confidence))
    table = pd.concat(parts, ignore_index=True)
    table = pd.concat([outcomes.rows.reset_index(drop=True), table], axis=1)
    extra: dict[str, Any] = {}
    if test == "permutation":
        skip = table["note"].notna().to_numpy()
        p, p_fwe, done = permutation_p(outcomes, design, codes, skip, permutations, seed)
        table["p"], table["p_fwe"] = p, p_fwe
        extra = {"permutations": done, "seed": seed}
    p = table["p"].to_numpy()
    table["q_bh"] = adjust(p, codes, "fdr_bh")
    table["q_by"] = adjust(p, codes, "fdr_by")
    table["family"] = family_of.to_numpy()
    table = table[_order(table, labels)]
    table.attrs = {
        "test": test,
        "groups": list(design.groups),
        "covariates": list(design.covariate_names),
        "family": family,
        "confidence": confidence,
        "excluded": [list(pair) for pair in design.excluded],
    }
    table.attrs.update(extra)
    return table


def summarise(values: np.ndarray, design: Design) -> dict[str, np.ndarray]:
    """`n`, `mean` and `sd` (group, row) of the values (participant, row), without what is NaN."""
    shape = (len(design.groups), values.shape[1])
    made = {"n": np.zeros(shape, dtype=np.int64), "mean": np.empty(shape), "sd": np.empty(shape)}
    for k in range(len(design.groups)):
        inside = values[design.codes == k]
        there = np.isfinite(inside)
        n = there.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(there, inside, 0.0).sum(axis=0) / n
            square = (np.where(there, inside - mean, 0.0) ** 2).sum(axis=0)
            made["sd"][k] = np.where(n > 1, np.sqrt(square / (n - 1)), np.nan)
        made["n"][k], made["mean"][k] = n, mean
    return made


def find_notes(
    summary: dict[str, np.ndarray], design: Design, resolution: np.ndarray
) -> np.ndarray:
    """Why a row cannot be tested, None where it can."""
    n, sd = summary["n"], summary["sd"]
    notes = np.full(n.shape[1], None, dtype=object)
    for j in range(n.shape[1]):
        few = [k for k in range(len(n)) if n[k, j] < LEAST_PER_GROUP]
        if not n[:, j].any():
            notes[j] = "no participant has a value"
        elif few:
            lacking = " and ".join(f"{n[k, j]} in {design.groups[k]}" for k in few)
            notes[j] = f"too few participants with a value: {lacking}"
        elif np.nanmax(sd[:, j]) <= resolution[j]:
            notes[j] = "constant: no scatter within any group"
    return notes


def refuse_exact_fit(
    result: dict[str, np.ndarray], note: np.ndarray, resolution: np.ndarray
) -> None:
    """Take back tests in which covariates leave no scatter but rounding."""
    if "residual_sd" in result:
        nothing = result["residual_sd"] <= resolution
        note[nothing] = "constant: no scatter beside groups and covariates"
        for column in result.values():
            column[nothing] = np.nan


def _frame(summary, labels, result, design, note, confidence) -> pd.DataFrame:
    """Columns of a block of rows."""
    columns: dict[str, object] = {}
    for k, label in enumerate(labels):
        for name in ("n", "mean", "sd"):
            columns[f"{name}_{label}"] = summary[name][k]
    columns |= result
    if len(labels) == 2:
        effect = hedges_g(summary, result, bool(design.covariate_names), confidence)
        missing = np.isnan(result["difference"])
        for name, value in zip(EFFECT, (effect.g, effect.low, effect.high), strict=True):
            columns[name] = np.where(missing, np.nan, value)
    columns["note"] = note
    return pd.DataFrame(columns)


def hedges_g(
    summary: dict[str, np.ndarray],
    result: dict[str, np.ndarray],
    adjusted: bool,
    confidence: float,
) -> Effect:
    """Hedges' g of two groups from their summaries; from the residual SD when adjusted."""
    from scipy.stats import norm
    from statsmodels.stats.meta_analysis import effectsize_smd

    n1, n2 = summary["n"].astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        if adjusted:
            sd, zero = result["residual_sd"], np.zeros_like(n1)
            g, variance = effectsize_smd(result["difference"], sd, n1, zero, sd, n2)
        else:
            (m1, m2), (s1, s2) = summary["mean"], summary["sd"]
            g, variance = effectsize_smd(m1, s1, n1, m2, s2, n2)
        # Below four participants the variance of g has no value.
        half = norm.ppf((1 + confidence) / 2) * np.sqrt(np.where(variance > 0, variance, np.nan))
    return Effect(g, g - half, g + half)


def _order(table: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """Columns in the order of the file; those without a value for this test are made NaN."""
    start = ["region", "reference", "slab_cut_mm", "erosion_mm"]
    start += [f"{name}_{label}" for label in labels for name in ("n", "mean", "sd")]
    for name in RESULT + EFFECT:
        if name not in table:
            table[name] = np.nan
    extra = [c for c in ("f", "df_between", "eta_squared", "p_fwe") if c in table]
    return [*start, *RESULT, *EFFECT, *extra, "family", "note"]


def compare_summaries(
    mean1: float,
    sd1: float,
    n1: int,
    mean2: float,
    sd2: float,
    n2: int,
    *,
    equal_variance: bool = True,
    confidence: float = 0.95,
) -> dict[str, float]:
    """t test and Hedges' g of two groups of which only mean, SD and size are known.

    Returns
    -------
    dict
        ``difference ci_low ci_high t df p hedges_g g_low g_high``, in the unit of the means.

    Examples
    --------
    Substantia nigra in Parkinson's disease and controls (PMC5765262), ppb:

    >>> found = compare_summaries(125.81, 16.27, 38, 98.41, 11.70, 25)
    >>> round(found["t"], 2), round(found["df"]), round(found["hedges_g"], 2)
    (7.27, 61, 1.85)
    """
    from scipy.stats import t as student
    from scipy.stats import ttest_ind_from_stats
    from statsmodels.stats.meta_analysis import effectsize_smd

    if min(n1, n2) < LEAST_PER_GROUP or min(sd1, sd2) < 0 or max(sd1, sd2) == 0:
        raise TableError("each group needs two participants, and one of them a positive SD.")
    t, p = ttest_ind_from_stats(mean1, sd1, n1, mean2, sd2, n2, equal_var=equal_variance)
    v1, v2 = sd1**2 / n1, sd2**2 / n2
    df = n1 + n2 - 2.0
    if not equal_variance:
        df = (v1 + v2) ** 2 / (v1**2 / (n1 - 1) + v2**2 / (n2 - 1))
    difference = mean1 - mean2
    if equal_variance:
        pooled = ((n1 - 1) * sd1**2 + (n2 - 1) * sd2**2) / (n1 + n2 - 2)
        error = np.sqrt(pooled * (1 / n1 + 1 / n2))
    else:
        error = np.sqrt(v1 + v2)
    half = student.ppf((1 + confidence) / 2, df) * error
    g, variance = effectsize_smd(mean1, sd1, n1, mean2, sd2, n2)
    from scipy.stats import norm

    around = norm.ppf((1 + confidence) / 2) * np.sqrt(variance)
    found = {
        "difference": difference,
        "ci_low": difference - half,
        "ci_high": difference + half,
        "t": t,
        "df": df,
        "p": p,
        "hedges_g": g,
        "g_low": g - around,
        "g_high": g + around,
    }
    return {name: float(value) for name, value in found.items()}
