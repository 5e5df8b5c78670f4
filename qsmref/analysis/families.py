"""Families of tests: which p values are corrected together, and by which rule."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .methods import FAMILIES
from .names import split_side
from .reference import REFERENCES
from .tables import RequestError, hint

#: What each choice of family means, for sidecars and reports.
DESCRIBED = {
    "kind": "regions alone, pairs of regions, and regions against each of brain, csf and wm (or "
    "what else is only subtracted) are one family each, at each coverage; rows with a left or "
    "right region are families apart where both sides together are there too",
    "coverage": "all rows of one coverage are one family",
    "all": "all rows are one family",
}


def label_families(
    rows: pd.DataFrame, family: str = "kind", references: tuple[str, ...] = REFERENCES
) -> pd.Series:
    """Name of the family of each row.

    Parameters
    ----------
    rows : DataFrame
        Columns ``region reference slab_cut_mm erosion_mm``.
    family : {"kind", "coverage", "all"}
        :data:`DESCRIBED` says what they are.
    references : tuple of str
        Names that are only subtracted.

    Returns
    -------
    Series of str
        ``alone``, ``pairs``, ``against brain``, ..., and the same with ``, one side`` for rows
        with a left or right region of which both sides together are in the table; rows with the
        same name *and* the same coverage belong together (with ``all``: whatever the coverage).
    """
    if family not in FAMILIES:
        raise RequestError(f"family {family!r} is not known; {hint(family, FAMILIES)}.")
    if family != "kind":
        return pd.Series(family, index=rows.index, dtype=object)
    reference = rows["reference"].astype(object)
    labels = pd.Series("pairs", index=rows.index, dtype=object)
    labels[reference.isna()] = "alone"
    tissue = reference.isin(list(references))
    labels[tissue] = "against " + reference[tissue].astype(str)
    names = set(rows["region"]) | set(reference.dropna())
    bases = {name: split_side(name)[0] for name in names if split_side(name)[1]}
    sided = {n for n, base in bases.items() if names & {base, f"{base}_both"}}
    one_side = rows["region"].isin(sided) | reference.isin(sided)
    labels[one_side] = labels[one_side] + ", one side"
    return labels


def family_codes(rows: pd.DataFrame, labels: pd.Series) -> np.ndarray:
    """Number of the family of each row: its label and, unless that is ``all``, its coverage."""
    columns = [labels.rename("family"), rows["slab_cut_mm"], rows["erosion_mm"]]
    keys = pd.concat(columns, axis=1)
    keys.loc[keys["family"] == "all", ["slab_cut_mm", "erosion_mm"]] = 0.0
    return keys.groupby(list(keys.columns), sort=False, dropna=False).ngroup().to_numpy()


def adjust(p: np.ndarray, codes: np.ndarray | None = None, method: str = "fdr_bh") -> np.ndarray:
    """p values corrected within their families.

    Parameters
    ----------
    p : (row,) array
        NaN where there was no test: such a row does not count.
    codes : (row,) int array, optional
        Family of each row; by default they are one.
    method : str
        As for :func:`statsmodels.stats.multitest.multipletests`: ``fdr_bh`` holds for independent
        and positively dependent tests, ``fdr_by`` for any dependence, which differences that
        share a region have.

    References
    ----------
    Benjamini & Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x; Benjamini & Yekutieli 2001,
    doi:10.1214/aos/1013699998.

    Examples
    --------
    >>> adjust(np.array([0.01, 0.02, np.nan, 0.9])).round(3).tolist()
    [0.03, 0.03, nan, 0.9]
    """
    from statsmodels.stats.multitest import multipletests

    p = np.asarray(p, dtype=np.float64)
    codes = np.zeros(len(p), dtype=int) if codes is None else np.asarray(codes)
    adjusted = np.full(len(p), np.nan)
    for code in np.unique(codes):
        tested = (codes == code) & np.isfinite(p)
        if tested.any():
            adjusted[tested] = multipletests(p[tested], method=method)[1]
    return adjusted
