r"""What a sweep of masks says about a cohort: which results survive it, and how far values move.

For a participant i the value of a row (a region alone or a difference) under the masks m of a
sweep is :math:`x_{im}`. Its variance over the masks, pooled over participants,

.. math::

    s^2 = \frac{\sum_i \sum_m (x_{im} - \bar x_i)^2}{\sum_i (M_i - 1)},

is what the coverage alone does to it: nothing else differs between the masks. The stability index
of a pair is the part of the two regions' own variance that is not in their difference,

.. math::

    S_{AB} = 1 - \frac{s^2_{A-B}}{s^2_A + s^2_B}.

It is 1 where the two move together and the difference stays, 0 where they move independently, and
negative where the difference moves more than that. It says nothing where neither region moves, so
that the standard deviations stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .methods import coverage_name
from .names import split_side
from .outcomes import outcomes_of
from .tables import Measurements, TableError

#: Parts of a sweep: which masks belong to them.
SWEEPS = ("slab", "erosion", "all")
_LEVEL = 0.05


def masks_of(coverages: Sequence[tuple[float, float]], sweep: str) -> list[int]:
    """Places of the masks of one part of a sweep; none when there are fewer than two.

    >>> masks_of([(0, 0), (8, 0), (0, 2), (8, 2)], "slab")
    [0, 1]
    """
    fixed = {"slab": 1, "erosion": 0}.get(sweep)
    chosen = [k for k, cover in enumerate(coverages) if fixed is None or cover[fixed] == 0]
    return chosen if len(chosen) > 1 else []


def survival_table(comparison: pd.DataFrame, level: float = _LEVEL) -> pd.DataFrame:
    """Which rows of a comparison of groups are significant under every mask.

    Parameters
    ----------
    comparison : DataFrame
        Of :func:`~qsmref.analysis.compare_groups`, with several coverages.
    level : float
        Of q (Benjamini and Hochberg within the family and the mask).

    Returns
    -------
    DataFrame
        One row a region (`reference` missing) or pair: ``region reference family n_tested
        n_significant``; ``survives_slab survives_erosion survives_all``, which are ``yes`` when q
        is below the level under every mask of that part of the sweep that has a test (the whole
        mask among them), ``no`` when not, missing without a test; then one column a mask
        (``whole slab_8mm ...``) with ``yes``, ``no`` or missing. ``attrs["masks"]`` has the slab
        cut and erosion (mm) of these columns.
    """
    covers = list(
        dict.fromkeys(zip(comparison["slab_cut_mm"], comparison["erosion_mm"], strict=True))
    )
    names = [coverage_name(*cover) for cover in covers]
    count = len(comparison) // len(covers)
    first = comparison.iloc[:count]
    keys = ["region", "reference"]
    q = np.empty((count, len(covers)))
    for k, cover in enumerate(covers):
        rows = (comparison["slab_cut_mm"] == cover[0]) & (comparison["erosion_mm"] == cover[1])
        here = comparison.loc[rows]
        if (
            not here[keys].fillna("").to_numpy().tolist()
            == first[keys].fillna("").to_numpy().tolist()
        ):
            raise TableError("the masks of the comparison differ in their rows.")
        q[:, k] = here["q_bh"]
    tested, found = np.isfinite(q), q < level
    table = first[[*keys, "family"]].reset_index(drop=True)
    table["n_tested"], table["n_significant"] = tested.sum(axis=1), found.sum(axis=1)
    for sweep in SWEEPS:
        at = masks_of(covers, sweep)
        known = np.count_nonzero(tested[:, at], axis=1) > 0
        failed = np.count_nonzero((tested & ~found)[:, at], axis=1)
        table[f"survives_{sweep}"] = _words(failed == 0, known)
    for k, name in enumerate(names):
        table[name] = _words(found[:, k], tested[:, k])
    table.attrs["masks"] = dict(zip(names, covers, strict=True))
    return table


def _words(yes: np.ndarray, known: np.ndarray) -> np.ndarray:
    words = np.where(yes, "yes", "no").astype(object)
    words[~known] = None
    return words


def scatter(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of squares about the participant's mean over masks, and degrees of freedom.

    Parameters
    ----------
    values : (participant, mask, row) array
        NaN where there is none.

    Returns
    -------
    squares, freedom : (participant, row) arrays
    """
    there = np.isfinite(values)
    n = there.sum(axis=1)
    kept = np.where(there, values, 0.0)
    mean = kept.sum(axis=1) / np.maximum(n, 1)
    squares = (np.where(there, values - mean[:, None], 0.0) ** 2).sum(axis=1)
    return squares, np.maximum(n - 1, 0)


def stability_table(
    measured: Measurements,
    distances: Mapping[tuple[str, str], float] | None = None,
    codes: np.ndarray | None = None,
) -> pd.DataFrame:
    """How far each region and difference moves over the masks of a sweep.

    Parameters
    ----------
    measured : Measurements
        One scan a participant, several coverages.
    distances : mapping, optional
        From a pair (region, reference) to the distance of the two, mm.
    codes : (participant,) int array, optional
        Groups; `sd_between` is within them.

    Returns
    -------
    DataFrame
        One row a region (`reference` missing) or pair: ``region reference distance_mm n``
        (participants with values under two masks or more), ``sd_slab sd_erosion sd_all`` (ppb, over
        the masks), ``index_slab index_erosion index_all`` (stability index, pairs only),
        ``sd_between`` (ppb, between participants at the whole mask). The formulas stand at the
        top of this module.

    Raises
    ------
    TableError
        When there is one mask only.
    """
    if len(measured.coverages) < 2:
        raise TableError("there is one mask only: nothing is swept.")
    measured.one_scan_each()
    rows = outcomes_of(measured.full_coverage()).rows[["region", "reference"]]
    place = {name: k for k, name in enumerate(measured.regions)}
    made = {f"sd_{sweep}": np.full(len(rows), np.nan) for sweep in SWEEPS}
    made |= {f"index_{sweep}": np.full(len(rows), np.nan) for sweep in SWEEPS}
    count = np.zeros(len(rows), dtype=np.int64)
    for sweep in SWEEPS:
        at = masks_of(measured.coverages, sweep)
        if not at:
            continue
        values = measured.values[:, at]
        for k, (region, reference) in enumerate(rows.itertuples(index=False, name=None)):
            one = values[:, :, place[region]]
            parts = [one]
            if reference is not None:
                other = values[:, :, place[reference]]
                difference = one - other
                missing = np.isnan(difference)
                parts = [difference, np.where(missing, np.nan, one)]
                parts.append(np.where(missing, np.nan, other))
            squares, freedom = scatter(np.stack(parts, axis=2))
            total = freedom[:, 0].sum()
            if total:
                variance = squares.sum(axis=0) / total
                made[f"sd_{sweep}"][k] = np.sqrt(variance[0])
                if reference is not None and variance[1] + variance[2] > 0:
                    made[f"index_{sweep}"][k] = 1 - variance[0] / (variance[1] + variance[2])
            if sweep == "all":
                count[k] = np.count_nonzero(freedom[:, 0])
    table = rows.assign(
        distance_mm=[_distance(distances, a, b) for a, b in rows.itertuples(index=False)],
        n=count,
        **made,
        sd_between=_between(measured, rows, place, codes),
    )
    return table.reset_index(drop=True)


def _distance(distances, region: str, reference: str | None) -> float:
    if distances is None or reference is None:
        return np.nan
    return distances.get((region, reference), distances.get((reference, region), np.nan))


def _between(measured: Measurements, rows, place, codes) -> np.ndarray:
    """SD between participants within groups, at the whole mask."""
    whole = measured.full_coverage().values[:, 0]
    codes = np.zeros(len(whole), dtype=int) if codes is None else codes
    made = np.full(len(rows), np.nan)
    for k, (region, reference) in enumerate(rows.itertuples(index=False, name=None)):
        value = whole[:, place[region]]
        value = value if reference is None else value - whole[:, place[reference]]
        top = bottom = 0.0
        for code in np.unique(codes[codes >= 0]):
            inside = value[(codes == code) & np.isfinite(value)]
            if len(inside) > 1:
                top += float(((inside - inside.mean()) ** 2).sum())
                bottom += len(inside) - 1
        if bottom:
            made[k] = np.sqrt(top / bottom)
    return made


def add_effects(stability: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Stability with how far the difference of two groups moves over the masks.

    Adds ``effect_whole`` (the difference of the groups at the whole mask), ``effect_sd`` (its SD
    over all masks), ``effect_low`` and ``effect_high`` (its ends), ppb.
    """
    effects = comparison.assign(reference=comparison["reference"].fillna(""))
    groups = effects.groupby(["region", "reference"], sort=False)["difference"]
    found = groups.agg(effect_whole="first", effect_sd="std", effect_low="min", effect_high="max")
    keys = zip(stability["region"], stability["reference"].fillna(""), strict=True)
    added = found.reindex(pd.MultiIndex.from_tuples(list(keys))).reset_index(drop=True)
    return pd.concat([stability, added], axis=1)


def growth_table(
    measured: Measurements,
    distances: Mapping[tuple[str, str], float],
    *,
    samples: int = 500,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """How the movement of a difference over the masks grows with the distance of its regions.

    Parameters
    ----------
    measured : Measurements
        One scan a participant, several coverages.
    distances : mapping
        From a pair (region, reference) to the distance of the two, mm.
    samples, seed : int
        Of the bootstrap over participants.
    confidence : float
        Of the interval of the slope.

    Returns
    -------
    DataFrame
        One row a part of the sweep: ``sweep n_pairs n slope ci_low ci_high intercept
        spearman``: a straight line through the SD (ppb) of the pairs over their distance (cm), and
        the rank correlation. Pairs of single structures count: neither references nor both sides
        together, whose centre lies between them.

    Notes
    -----
    Pairs share regions, so the usual interval of a regression would be too narrow; participants are
    drawn anew instead.
    """
    from scipy.stats import rankdata

    pairs = [p for p in single_pairs(measured) if np.isfinite(_distance(distances, *p))]
    place = {name: k for k, name in enumerate(measured.regions)}
    far = np.array([_distance(distances, *pair) for pair in pairs]) / 10
    rng = np.random.default_rng(seed)
    n = len(measured.participants)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=samples).astype(np.float64)
    found = []
    for sweep in SWEEPS:
        at = masks_of(measured.coverages, sweep)
        if not at or len(pairs) < 3 or np.ptp(far) == 0:
            continue
        squares = np.zeros((n, len(pairs)))
        freedom = np.zeros((n, len(pairs)))
        for k, (a, b) in enumerate(pairs):
            values = measured.values[:, at, place[a]] - measured.values[:, at, place[b]]
            one = scatter(values[:, :, None])
            squares[:, k], freedom[:, k] = one[0][:, 0], one[1][:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            sd = np.sqrt(squares.sum(axis=0) / freedom.sum(axis=0))
            drawn = np.sqrt((weights @ squares) / (weights @ freedom))
        known = np.isfinite(sd)
        if known.sum() < 3:
            continue
        slope, intercept = np.polyfit(far[known], sd[known], 1)
        slopes = _slopes(far[known], drawn[:, known])
        low, high = np.nanquantile(slopes, [(1 - confidence) / 2, (1 + confidence) / 2])
        ranks = [rankdata(v[known]) for v in (far, sd)]
        found.append(
            {
                "sweep": sweep,
                "n_pairs": int(known.sum()),
                "n": int(np.count_nonzero(freedom.any(axis=1))),
                "slope": slope,
                "ci_low": low,
                "ci_high": high,
                "intercept": intercept,
                "spearman": float(np.corrcoef(np.stack(ranks))[0, 1]),
            }
        )
    columns = ["sweep", "n_pairs", "n", "slope", "ci_low", "ci_high", "intercept", "spearman"]
    return pd.DataFrame(found, columns=columns)


def _slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slope of each row of `y` over `x`; NaN where a value is missing."""
    x = x - x.mean()
    return (y @ x) / (x @ x)


def single_pairs(measured: Measurements) -> list[tuple[str, str]]:
    """Pairs of regions that are single structures, no references.

    >>> from qsmref.analysis.tables import Measurements
    >>> names = ("SN_L", "SN_R", "SN", "GP", "brain")
    >>> measured = Measurements(np.array(["a"]), np.zeros((1, 1, 5)), names, ("brain",))
    >>> single_pairs(measured)
    [('SN_L', 'SN_R'), ('SN_L', 'GP'), ('SN_R', 'GP')]
    """
    bases = {split_side(name)[0] for name in measured.regions if split_side(name)[1]}
    joined = bases | {f"{base}_both" for base in bases}
    left_out = joined | set(measured.references)
    return [pair for pair in measured.pairs if not left_out & set(pair)]
