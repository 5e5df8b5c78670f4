r"""One test of all differences at once, which no offset of a map can touch.

With :math:`p` regions there are :math:`p - 1` independent differences; which ones are written down
does not matter. Hotelling's T² (Wilks' lambda with covariates or more groups) of these contrasts is
the same whatever region is taken as base, and the same when every participant's map gets a
constant of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import linalg

from .adjustment import adjustment_sentence, unadjusted_degrees, variance_inflation
from .design import Design, make_design
from .families import adjust
from .permutation import Permutations
from .reference import REFERENCES
from .statistics import group_labels
from .tables import Measurements, RequestError, TableError, hint, listed

#: Smallest singular value of standardised contrasts, relative to the largest.
_RANK = 1e-7
#: Participants above which permuted statistics are made in single precision.
_SINGLE = 1000


@dataclass(frozen=True)
class Omnibus:
    """Result of :func:`omnibus_test`."""

    #: One row a coverage: ``slab_cut_mm erosion_mm n_regions n_<group> t2 wilks f df_between df p
    #: p_permutation df_unadjusted variance_inflation adjustment note``.
    table: pd.DataFrame
    #: One row a region and coverage: ``region slab_cut_mm erosion_mm weight t2_without f df_between
    #: df p q_bh q_by``.
    drivers: pd.DataFrame
    #: Who is left out, and why.
    excluded: tuple[tuple[str, str], ...]
    regions: tuple[str, ...]


def contrasts(count: int, base: int | None = None) -> np.ndarray:
    """(region, contrast) matrix whose columns sum to zero.

    Parameters
    ----------
    count : int
        Regions.
    base : int, optional
        Every other region minus this one; by default orthonormal contrasts (Helmert).
    """
    if base is None:
        return linalg.helmert(count).T
    matrix = np.delete(np.eye(count), base, axis=1)
    matrix[base] = -1.0
    return matrix


def omnibus_test(
    measured: Measurements,
    participants: pd.DataFrame,
    group_column: str,
    *,
    groups: Sequence[str] | None = None,
    covariates: Sequence[str] = (),
    regions: Sequence[str] | None = None,
    base: str | None = None,
    permutations: int = 10_000,
    seed: int = 0,
    id_column: str = "participant_id",
) -> Omnibus:
    r"""Test all differences between regions at once, and tell which regions drive the result.

    Parameters
    ----------
    measured : Measurements
        Region means, one scan a participant.
    participants, group_column, groups, covariates, permutations, seed, id_column
        As for :func:`~qsmref.analysis.compare_groups`.
    regions : sequence of str, optional
        Regions that take part; by default all that are no references. Regions that share voxels
        with others (both sides beside left and right) must not be among them.
    base : str, optional
        Region to write the contrasts with; it changes nothing but rounding.

    Returns
    -------
    Omnibus
        In `table`, ``t2`` is Hotelling's (two groups) and ``p_permutation`` that of the permuted
        statistic; ``df_unadjusted``, ``variance_inflation`` and ``adjustment`` say what the
        covariates cost (:mod:`~qsmref.analysis.adjustment`). In `drivers`, ``f`` and ``p`` are
        Rao's test of additional information: what the region adds to all others; ``t2_without`` is
        T² of the others; ``weight`` is that of the region in the direction that separates the
        groups best, in standard deviations (two groups; the weights of the raw values sum to zero).

    Raises
    ------
    TableError
        Anything wrong with the tables.

    Notes
    -----
    Participants that lack one of the regions are left out, and listed. A region that nobody has
    is dropped. Without covariates and with two groups the test is
    :func:`statsmodels.stats.multivariate.test_mvmean_2indep`, otherwise
    :class:`statsmodels.multivariate.manova.MANOVA` (Wilks).

    .. math::

        F_k = \frac{\nu - d + 1}{h} \, \frac{1 - \Lambda_k}{\Lambda_k}, \qquad
        \Lambda_k = \Lambda / \Lambda_{\text{without } k}

    for region k, with :math:`d = p - 1` contrasts, :math:`\nu` error degrees of freedom and
    :math:`h` one less than the groups.

    References
    ----------
    Hotelling 1931, doi:10.1214/aoms/1177732979; Rao 1973, Linear Statistical Inference, 8c.4,
    doi:10.1002/9780470316436.
    """
    measured.one_scan_each()
    names = _regions(measured, regions)
    if base is not None and base not in names:
        raise RequestError(f"base {base!r} is not among the regions; {hint(base, names)}.")
    design = make_design(
        participants,
        measured.participants,
        group_column,
        groups=groups,
        covariates=covariates,
        id_column=id_column,
    )
    labels = group_labels(design.groups)
    place = design.place(measured.participants)
    order = np.flatnonzero(place >= 0)[np.argsort(place[place >= 0], kind="stable")]
    at = [measured.regions.index(name) for name in names]
    values = measured.values[order][:, :, at]
    rows, cases, excluded = _cases(measured.coverages, values, names, design, base)
    drivers = []
    for case, p in zip(cases, _permuted(cases, permutations, seed), strict=True):
        found = _library(case.outcome, case.design)
        rows[case.at] |= found | {"p_permutation": p} | _adjustment(case, found)
        drivers += [{**row, **case.cover} for row in _drivers(case, permutations, seed)]
    columns = ["slab_cut_mm", "erosion_mm", "n_regions", *(f"n_{x}" for x in labels)]
    columns += ["t2", "wilks", "f", "df_between", "df", "p", "p_permutation"]
    columns += ["df_unadjusted", "variance_inflation", "adjustment", "note"]
    table = pd.DataFrame(rows).reindex(columns=columns)
    table["adjustment"] = (
        table["adjustment"].astype(object).where(table["adjustment"].notna(), None)
    )
    table.attrs = {"permutations": permutations, "seed": seed}
    return Omnibus(table, _driver_table(drivers), tuple(excluded.items()), names)


def _cases(
    coverages: Sequence[tuple[float, float]],
    values: np.ndarray,
    names: Sequence[str],
    design: Design,
    base: str | None,
) -> tuple[list[dict[str, object]], list[_Case], dict[str, str]]:
    """Beginnings of the rows, those that can be tested, and who is left out.

    `values` is (participant, coverage, region), in the order of the design.
    """
    labels = group_labels(design.groups)
    rows: list[dict[str, object]] = []
    cases, excluded = [], dict(design.excluded)
    for k, (slab, erosion) in enumerate(coverages):
        cover = {"slab_cut_mm": slab, "erosion_mm": erosion}
        filled = np.isfinite(values[:, k]).any(axis=0)
        here = values[:, k][:, filled]
        whole = np.isfinite(here).all(axis=1)
        inside = [name for name, f in zip(names, filled, strict=True) if f]
        for person in np.flatnonzero(~whole):
            lost = [n for n, v in zip(inside, here[person], strict=True) if not np.isfinite(v)]
            if (slab, erosion) == (0.0, 0.0):
                excluded.setdefault(design.participants[person], f"has no {listed(lost, 3)}")
        part = _part(design, whole)
        row: dict[str, object] = {**cover, "n_regions": len(inside)}
        row |= {f"n_{x}": int((part.codes == g).sum()) for g, x in enumerate(labels)}
        row["note"] = _why_not(here[whole], part, inside)
        rows.append(row)
        if row["note"] is None:
            matrix = contrasts(len(inside), inside.index(base) if base in inside else None)
            cases.append(_Case(k, cover, part, here[whole], matrix, inside))
    return rows, cases, excluded


def _adjustment(case: _Case, found: dict[str, float]) -> dict[str, object]:
    """What the covariates cost this test; nothing without them."""
    count, outcomes = len(case.design.covariate_names), case.contrasts.shape[1]
    if not count:
        return {}
    hypotheses = len(case.design.groups) - 1
    return {
        "df_unadjusted": unadjusted_degrees(found["df"], outcomes, hypotheses, count),
        "variance_inflation": variance_inflation(case.design),
        "adjustment": adjustment_sentence(case.design, outcomes, found["df_between"], found["df"]),
    }


def _regions(measured: Measurements, regions: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(regions) if regions else tuple(r for r in measured.alone if r not in REFERENCES)
    for name in names:
        if name not in measured.regions:
            raise RequestError(f"there is no region {name!r}; {hint(name, measured.regions)}.")
    if len(names) < 2:
        raise TableError(f"an omnibus test needs two regions; there is {listed(names) or 'none'}.")
    return names


def _part(design: Design, keep: np.ndarray) -> Design:
    """Design of some of its participants."""
    names = tuple(p for p, k in zip(design.participants, keep, strict=True) if k)
    return Design(
        names,
        design.codes[keep],
        design.groups,
        design.covariates[keep],
        design.covariate_names,
        design.excluded,
    )


def _why_not(values: np.ndarray, design: Design, names: Sequence[str]) -> str | None:
    """Why there is no test, None where there is one."""
    sizes = design.sizes
    if len(names) < 2:
        return f"only {len(names)} of the regions has values"
    small = [f"{n} in {group}" for group, n in sizes.items() if n < 2]
    if small:
        return f"too few participants have all {len(names)} regions: {', '.join(small)}"
    matrix = np.column_stack([design.indicators(), design.covariates])
    if np.linalg.matrix_rank(matrix, tol=1e-7 * np.sqrt(len(matrix))) < matrix.shape[1]:
        return "a covariate does not vary among the participants that have all regions"
    degrees, differences = len(values) - matrix.shape[1], len(names) - 1
    if degrees < differences:
        return (
            f"{len(values)} participants have all {len(names)} regions and allow "
            f"{max(degrees, 0)} independent differences of {differences}: choose fewer regions "
            "(--omnibus-regions)"
        )
    rest = _residual(values @ contrasts(len(names)), matrix)
    scale = np.sqrt((rest**2).mean(axis=0))
    if not (scale > 1e-9 * max(np.abs(values).max(), 1e-300)).all():
        return "differences do not vary within groups"
    # The triangle has the singular values of the whole, and few rows.
    size = np.linalg.svd(np.linalg.qr(rest / scale, mode="r"), compute_uv=False)
    if size[-1] <= _RANK * size[0]:
        return (
            "some regions follow from the others (both sides beside left and right, or values "
            "that do not vary?)"
        )
    return None


def _residual(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    basis = np.linalg.qr(matrix)[0]
    return values - basis @ (basis.T @ values)


@dataclass(frozen=True)
class _Case:
    """One coverage that can be tested."""

    at: int
    cover: dict[str, float]
    design: Design
    #: (participant, region) of those who have all regions.
    values: np.ndarray
    contrasts: np.ndarray
    names: Sequence[str]

    @property
    def outcome(self) -> np.ndarray:
        """(participant, contrast)."""
        return self.values @ self.contrasts


def _drivers(case: _Case, permutations: int, seed: int) -> list[dict[str, object]]:
    """What each region adds to the others."""
    from scipy.stats import f as fisher

    plan = Permutations.of(case.design, permutations, seed)
    two = len(case.design.groups) == 2
    weights = _weights(case, plan) if two else np.full(len(case.names), np.nan)
    squares = _squares(case, plan)
    whole = _wilks(*squares, contrasts(len(case.names)))
    hypotheses, df = plan.effects.shape[1], plan.degrees - case.contrasts.shape[1] + 1
    rows: list[dict[str, object]] = []
    for k, name in enumerate(case.names):
        without = 1.0
        if len(case.names) > 2:
            rest = np.insert(contrasts(len(case.names) - 1), k, 0.0, axis=0)
            without = _wilks(*squares, rest)
        partial = whole / without
        f = (1 - partial) / partial * df / hypotheses
        row = {
            "region": name,
            "weight": weights[k],
            "t2_without": (1 / without - 1) * plan.degrees if two else np.nan,
            "wilks_without": without,
            "f": f,
            "df_between": float(hypotheses),
            "df": float(df),
            "p": fisher.sf(f, hypotheses, df),
        }
        rows.append(row)
    return rows


def _squares(case: _Case, plan: Permutations) -> tuple[np.ndarray, np.ndarray]:
    """(region, region) sums of squares of the error, and of error and groups together.

    The mean of each participant is taken off: contrasts do not see it, and no digits are lost.
    """
    level = case.values - case.values.mean(axis=1, keepdims=True)
    rest = level - plan.nuisance @ (plan.nuisance.T @ level)
    effect = plan.effects.T @ rest
    total = rest.T @ rest
    return total - effect.T @ effect, total


def _wilks(error: np.ndarray, total: np.ndarray, matrix: np.ndarray) -> float:
    """Wilks' lambda of some contrasts."""
    (_, small), (_, large) = (np.linalg.slogdet(matrix.T @ m @ matrix) for m in (error, total))
    return float(np.exp(small - large))


def _library(outcome: np.ndarray, design: Design) -> dict[str, float]:
    """Parametric test by statsmodels."""
    groups = len(design.groups)
    error = len(outcome) - groups - design.covariates.shape[1]
    if outcome.shape[1] == 1:
        return _one_difference(outcome[:, 0], design)
    if groups == 2 and not design.covariate_names:
        from statsmodels.stats.multivariate import test_mvmean_2indep

        one, two = (outcome[design.codes == k] for k in (0, 1))
        found = test_mvmean_2indep(one, two)
        between, within = found.df
        return {
            "t2": float(found.t2),
            "wilks": float(1 / (1 + found.t2 / error)),
            "f": float(found.statistic),
            "df_between": float(between),
            "df": float(within),
            "p": float(found.pvalue),
        }
    from statsmodels.multivariate.manova import MANOVA

    exog = np.column_stack([design.indicators()[:, : groups - 1], design.nuisance()])
    # Columns of like size keep statsmodels' tolerance away from what is real.
    scaled = outcome / np.sqrt(_residual(outcome, exog).var(axis=0))
    hypothesis = np.eye(groups - 1, exog.shape[1])
    # The other three statistics, which are not read, divide by zero when few degrees are left.
    with np.errstate(divide="ignore", invalid="ignore"):
        test = MANOVA(scaled, exog).mv_test([("groups", hypothesis)])
    result = test.results["groups"]["stat"]
    wilks = result.loc["Wilks' lambda"]
    value = float(wilks["Value"])
    return {
        "t2": (1 / value - 1) * error if groups == 2 else np.nan,
        "wilks": value,
        "f": float(wilks["F Value"]),
        "df_between": float(wilks["Num DF"]),
        "df": float(wilks["Den DF"]),
        "p": float(wilks["Pr > F"]),
    }


def _one_difference(outcome: np.ndarray, design: Design) -> dict[str, float]:
    """Two regions have one difference, whose test is the F test of the groups."""
    from statsmodels.regression.linear_model import OLS

    groups = len(design.groups)
    exog = np.column_stack([design.indicators()[:, : groups - 1], design.nuisance()])
    fit = OLS(outcome, exog).fit()
    found = fit.f_test(np.eye(groups - 1, exog.shape[1]))
    f, error = float(found.fvalue), float(fit.df_resid)
    return {
        "t2": f if groups == 2 else np.nan,
        "wilks": 1 / (1 + f * (groups - 1) / error),
        "f": f,
        "df_between": float(groups - 1),
        "df": error,
        "p": float(found.pvalue),
    }


def _whitened(outcome: np.ndarray, plan: Permutations) -> np.ndarray:
    """Orthonormal basis of the residuals of the outcomes on the covariates."""
    rest = outcome - plan.nuisance @ (plan.nuisance.T @ outcome)
    return np.linalg.qr(rest / np.sqrt((rest**2).mean(axis=0)))[0]


def _products(columns: np.ndarray, orders: np.ndarray, bases: np.ndarray) -> np.ndarray:
    """(permutation, column, basis) inner products of permuted columns with bases."""
    if len(bases) > _SINGLE:
        # Six digits are enough where no two permutations tie, for half the time.
        columns, bases = columns.astype(np.float32), bases.astype(np.float32)
    made = [(column[orders] @ bases).astype(np.float64) for column in columns.T]
    return np.stack(made, axis=1)


def _lambdas(effect: np.ndarray, adjusted: np.ndarray | None) -> np.ndarray:
    """Wilks' lambda of the products of whitened outcomes with groups and covariates."""
    if adjusted is None:
        # det(I - B'B) = det(I - BB'), which is small: one number for two groups.
        return np.linalg.det(np.eye(effect.shape[1]) - effect @ effect.transpose(0, 2, 1))
    total = np.eye(effect.shape[2]) - adjusted.transpose(0, 2, 1) @ adjusted
    _, whole = np.linalg.slogdet(total)
    _, error = np.linalg.slogdet(total - effect.transpose(0, 2, 1) @ effect)
    return np.exp(error - whole)


def _lambda(outcome: np.ndarray, plan: Permutations) -> float:
    """Wilks' lambda as observed: whitened outcomes are orthogonal to the covariates."""
    identity = np.arange(len(outcome))[None]
    return float(_lambdas(_products(plan.effects, identity, _whitened(outcome, plan)), None)[0])


def _permuted(cases: Sequence[_Case], permutations: int, seed: int) -> list[float]:
    """p of the permuted statistic; cases of the same participants share their permutations."""
    p = dict.fromkeys(range(len(cases)), np.nan)
    alike: dict[tuple[str, ...], list[int]] = {}
    for k, case in enumerate(cases):
        alike.setdefault(case.design.participants, []).append(k)
    for these in alike.values():
        plan = Permutations.of(cases[these[0]].design, permutations, seed)
        bases = [_whitened(cases[k].outcome, plan) for k in these]
        observed = np.array([_lambda(cases[k].outcome, plan) for k in these])
        # The more of the variance the groups explain, the smaller lambda is.
        threshold = observed + 1e-9 * (1 - observed)
        edges = np.cumsum([0, *(b.shape[1] for b in bases)])
        stacked, exceed = np.hstack(bases), np.zeros(len(these))
        width = (len(stacked) + 3 * stacked.shape[1]) * (1 + plan.nuisance.shape[1])
        if plan.nuisance.shape[1] > 1:
            width += int(3 * np.max(np.diff(edges)) ** 2)
        for orders in plan.chunks(width):
            effect = _products(plan.effects, orders, stacked)
            adjusted = None
            if plan.nuisance.shape[1] > 1:
                adjusted = _products(plan.nuisance[:, 1:], orders, stacked)
            for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
                part = None if adjusted is None else adjusted[:, :, a:b]
                exceed[i] += (_lambdas(effect[:, :, a:b], part) <= threshold[i]).sum()
        p |= dict(zip(these, plan.p_value(exceed).tolist(), strict=True))
    return list(p.values())


def _weights(case: _Case, plan: Permutations) -> np.ndarray:
    """Weights of the regions in the best direction, times the SD of each within groups."""
    outcome, matrix = case.outcome, case.contrasts
    x = np.column_stack([plan.nuisance, plan.effects])
    rest = _residual(outcome, x)
    error = rest.T @ rest / plan.degrees
    first = case.design.indicators()[:, :1]
    slope = np.linalg.lstsq(np.column_stack([first, plan.nuisance]), outcome, rcond=None)[0][0]
    raw = matrix @ np.linalg.solve(error, slope)
    # The SD of a region relative to the mean of all, which no offset changes.
    level = case.values - case.values.mean(axis=1, keepdims=True)
    sd = np.sqrt((_residual(level, x) ** 2).sum(axis=0) / plan.degrees)
    weighted = raw * sd
    return weighted / np.sqrt((weighted**2).sum())


def _driver_table(rows: list[dict[str, object]]) -> pd.DataFrame:
    columns = ["region", "slab_cut_mm", "erosion_mm", "weight", "t2_without", "wilks_without"]
    columns += ["f", "df_between", "df", "p"]
    table = pd.DataFrame(rows, columns=columns)
    covers = table.groupby(["slab_cut_mm", "erosion_mm"], sort=False).ngroup().to_numpy()
    p = table["p"].to_numpy(dtype=float)
    table["q_bh"], table["q_by"] = adjust(p, covers), adjust(p, covers, "fdr_by")
    return table
