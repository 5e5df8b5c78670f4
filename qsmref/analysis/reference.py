"""Differences: every region against every region and every reference.

The offset of a susceptibility map cancels in a difference, so a difference needs no assumption
about a reference region; what is left of coverage and background removal is nearly equal in
neighbouring regions, which is why the distance of the two stands beside each difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from .names import split_side, tissue, tissue_labels
from .region_methods import STATISTICS
from .regions import (
    LEVELS,
    Measurement,
    in_image,
    joined,
    table_of,
    voxels_by_label,
    voxels_of,
)

#: Rows that serve as references only: a pair has them second, and never two of them.
REFERENCES = ("brain", "csf", "wm")

#: Variance of each, of normal values, over that of their mean.
_VARIANCE_OF_NORMAL = {"median": np.pi / 2, "biweight": 1 / 0.95}

#: The columns of a differential table as a BIDS sidecar describes them.
COLUMNS = {
    "region": {"Description": "Name of the region"},
    "reference": {"Description": "Name of the region or reference that is subtracted"},
    "difference": {"Description": "Mean of the region minus mean of the reference", "Units": "ppb"},
    "se": {
        "Description": "Standard error of the difference, the errors of the two taken as "
        "independent; errors that the whole of a region shares are not in it",
        "Units": "ppb",
    },
    "se_noise": {
        "Description": "Standard error of the difference of the means that the noise of the "
        "echoes makes, carried through the inversion with what the two share; n/a where the noise "
        "of the field is not known",
        "Units": "ppb",
    },
    "distance_mm": {"Description": "Distance between the centres of the two", "Units": "mm"},
    "coverage_region": {"Description": "Part of the region that lies inside the mask (0 to 1)"},
    "coverage_reference": {
        "Description": "Part of the reference that lies inside the mask (0 to 1)"
    },
}


def columns(statistic: str = "mean") -> dict[str, dict]:
    """:data:`COLUMNS` for differences of means, medians or biweights."""
    what = {"Description": f"{statistic.capitalize()} of the region minus that of the reference"}
    return {**COLUMNS, "difference": {**what, "Units": "ppb"}}


def add_references(
    table: pd.DataFrame,
    chi: np.ndarray,
    mask: np.ndarray | None,
    voxel_size: Sequence[float],
    labels: np.ndarray | None = None,
    names: Mapping[int, str] | pd.DataFrame | None = None,
    *,
    min_coverage: float = 0.0,
    affine: np.ndarray | None = None,
    erosion: float = 0.0,
    totals: Mapping[int, float] | None = None,
    samples: dict[str, np.ndarray] | None = None,
    tissues: Mapping[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Append the rows ``brain``, ``csf`` and ``wm`` to a region table.

    ``brain`` is every voxel of the mask; without a mask there is no such row, since a map does not
    tell where the brain is. ``csf`` and ``wm`` are all voxels of the labels whose
    names stand for that tissue (:func:`qsmref.analysis.names.tissue_labels`: lateral ventricles,
    else CSF; WM or cerebral white matter; any side). Without such a label it is the mask in
    `tissues`; without that, there is no such row. A region that is itself called ``csf`` or ``wm``
    serves as it is.

    Parameters
    ----------
    table : DataFrame
        Of :func:`~qsmref.analysis.regions.region_table`; not changed.
    chi, mask, voxel_size, labels, names, min_coverage, affine, erosion, totals, samples
        As for :func:`~qsmref.analysis.regions.region_table`. The brain is not eroded, nor are the
        masks in `tissues`.
    tissues : mapping of str to (x, y, z) array, optional
        Masks (non-zero) of ``csf`` and ``wm`` from elsewhere.

    Returns
    -------
    DataFrame

    Raises
    ------
    ValueError
        An empty mask, a region called ``brain``, or what
        :func:`~qsmref.analysis.regions.region_table` raises.
    """
    measurement = Measurement(chi, voxel_size, mask, min_coverage, affine, erosion)
    if "brain" in set(table["name"]):
        raise ValueError("a region is called 'brain', which is the name of a reference: rename it")
    rows = []

    def add(name, whole, core, parts=None, part=1.0):
        row = {"index": pd.NA, "name": name, "hemisphere": "n/a", "labels": parts}
        rows.append(row | measurement.row(name, whole, core, part))

    if measurement.mask is not None:
        brain = np.flatnonzero(measurement.mask)
        if not brain.size:
            raise ValueError("the mask is empty: there is no whole-brain reference")
        add("brain", brain, brain)
    voxels: dict[int, np.ndarray] = {}
    listed: dict[str, list[int]] = {}
    if labels is not None and names is not None:
        voxels = voxels_by_label(measurement.on_grid(labels, "the label image"))
        listed = {key: tissue_labels(names, key) for key in REFERENCES[1:]}
    tissues = tissues or {}
    for key in REFERENCES[1:]:
        if key in set(table["name"]):
            continue
        parts = [label for label in listed.get(key, ()) if label in voxels]
        if parts:
            whole = voxels_of(parts, voxels)
            part = in_image(parts, voxels, totals)
            add(key, whole, measurement.core(whole), joined(parts), part)
        elif key in tissues:
            given = measurement.on_grid(tissues[key], f"the mask of {key}").astype(bool)
            add(key, np.flatnonzero(given), np.flatnonzero(given))
    if samples is not None:
        samples.update(measurement.samples)
    return pd.concat([table, table_of(rows)], ignore_index=True)


def differential_table(
    region_table: pd.DataFrame,
    references: Iterable[str] | None = None,
    *,
    statistic: str = "mean",
    covariance: pd.DataFrame | None = None,
) -> pd.DataFrame:
    r"""Every unordered pair of regions once, and every region against every reference.

    .. math::

        d_{ij} = \bar\chi_i - \bar\chi_j, \qquad
        \mathrm{se}(d_{ij}) = \sqrt{\mathrm{se}_i^2 + \mathrm{se}_j^2}

    The standard error takes the errors of the two means as independent. Errors that both share
    (the map's offset above all) cancel in the difference and rightly add nothing; errors that
    change over the distance between the two are not in it. ``se_noise`` is another error, of
    another origin: that of the echoes' noise, with the part that the two regions share
    (:mod:`qsmref.analysis.propagation`).

    Of medians, :math:`\mathrm{se}` is that of the mean times
    :math:`\sqrt{\pi / 2} \cdot 1.4826\, \mathrm{mad} / \mathrm{sd}`: the error of a median of as
    many independent normal values as the error of the mean stands for; of biweights times
    :math:`1.4826\, \mathrm{mad} / (\sqrt{0.95}\, \mathrm{sd})`. ``se_noise`` stays that of the
    means.

    Parameters
    ----------
    region_table : DataFrame
        Of :func:`~qsmref.analysis.regions.region_table`, with or without the rows of
        :func:`add_references`.
    references : iterable of str, optional
        Names of rows that are only subtracted; by default ``brain``, ``csf`` and ``wm`` where the
        table has them. Every other row is a region, and so a reference to all regions before it.
    statistic : {"mean", "median", "biweight"}
        What of the two rows is subtracted.
    covariance : DataFrame, optional
        Covariance (ppb squared) of the means by the noise, rows and columns named as the regions;
        without it ``se_noise`` is NaN.

    Returns
    -------
    DataFrame
        :data:`COLUMNS` describes the columns; differences in ppb. Pairs stand in table order: the
        region is the earlier row. A row is never paired with one that holds the same voxels: both
        sides with its own left or right, a label of CSF or WM with the tissue made of it. ``brain``
        is an exception, as the common reference of the field (doi:10.1002/mrm.30006). Pairs with a
        region that has no statistics are listed with NaN.

    Raises
    ------
    ValueError
        A reference that is no row of the table, or names that are not unique.

    Examples
    --------
    >>> from qsmref.analysis import region_table
    >>> chi = np.array([0.01, 0.03, 0.08], dtype=np.float32).reshape(3, 1, 1)
    >>> labels = np.array([1, 1, 2]).reshape(3, 1, 1)
    >>> table = region_table(chi, labels, {1: "CN", 2: "PU"}, (1, 1, 1))
    >>> differential_table(table)[["region", "reference", "difference", "distance_mm"]].round(2)
      region reference  difference  distance_mm
    0     CN        PU       -60.0          1.5
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}")
    table = _unique(region_table)
    if references is None:
        references = [name for name in REFERENCES if name in table.index]
    references = list(references)
    unknown = [name for name in references if name not in table.index]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no row of the region table")

    order = [name for name in table.index if name not in references] + references
    regions = len(order) - len(references)
    table = table.loc[order]
    first, second = np.triu_indices(len(order), k=1)
    keep = first < regions
    shared = _shared_voxels(table)
    keep &= [(order[i], order[j]) not in shared for i, j in zip(first, second, strict=True)]
    first, second = first[keep], second[keep]

    level, se = table[statistic].to_numpy(), standard_errors(table, statistic).to_numpy()
    coverage, centre = table["coverage"].to_numpy(), table[["x", "y", "z"]].to_numpy()
    names = np.array(order, dtype=object)
    return pd.DataFrame(
        {
            "region": names[first],
            "reference": names[second],
            "difference": level[first] - level[second],
            "se": np.hypot(se[first], se[second]),
            "se_noise": _noise_errors(covariance, order, first, second),
            "distance_mm": np.linalg.norm(centre[first] - centre[second], axis=1),
            "coverage_region": coverage[first],
            "coverage_reference": coverage[second],
        },
        columns=list(COLUMNS),
    )


def standard_errors(table: pd.DataFrame, statistic: str = "mean") -> pd.Series:
    """Standard error (ppb) of the mean, median or biweight of each row of a region table."""
    if statistic == "mean":
        return table["se"]
    ratio = (
        _VARIANCE_OF_NORMAL[statistic] ** 0.5
        * 1.4826
        * table["mad"]
        / table["sd"].where(table["sd"] > 0)
    )
    # Without scatter there is no ratio, and no error.
    return table["se"].where(table["sd"] == 0, table["se"] * ratio)


def _noise_errors(
    covariance: pd.DataFrame | None, order: list[str], first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    if covariance is None:
        return np.full(first.size, np.nan)
    shared = covariance.reindex(index=order, columns=order).to_numpy(dtype=float)
    variance = shared[first, first] + shared[second, second] - 2 * shared[first, second]
    # Rounding may leave a little less than nothing of two rows that are nearly one.
    return np.sqrt(np.maximum(variance, 0.0))


def difference_matrix(differences: pd.DataFrame, column: str = "difference") -> pd.DataFrame:
    """A differential table as a square: row minus column, in ppb.

    Parameters
    ----------
    differences : DataFrame
        Of :func:`differential_table`.
    column : str
        ``difference`` changes its sign across the diagonal; other columns (``se``,
        ``distance_mm``) are the same on both sides.

    Returns
    -------
    DataFrame
        Pairs that the table does not have, and the diagonal, are NaN.
    """
    pairs = differences[["region", "reference"]]
    names = list(dict.fromkeys(pairs.to_numpy().T.ravel()))
    matrix = pd.DataFrame(np.nan, index=names, columns=names)
    at = [matrix.index.get_indexer(pd.Index(pairs[c])) for c in ("region", "reference")]
    values = matrix.to_numpy(copy=True)
    numbers = differences[column].to_numpy(dtype=float)
    values[at[0], at[1]] = numbers
    values[at[1], at[0]] = -numbers if column == "difference" else numbers
    return pd.DataFrame(values, index=names, columns=names)


def reference_statistics(chi: np.ndarray, mask: np.ndarray, table: pd.DataFrame) -> dict:
    """Mean and SD of every candidate reference relative to the whole brain, for the sidecar.

    With these, anyone can re-reference the map to any row of the table or to the whole brain, as
    the consensus of the ISMRM study group asks for.

    Parameters
    ----------
    chi : (x, y, z) array
        Susceptibility, ppm.
    mask : (x, y, z) array
        The brain (non-zero).
    table : DataFrame
        Region table of the same map, with or without reference rows.

    Returns
    -------
    dict
        ``{"brain": {"mean": 0.0, "sd": ..., "n_voxels": ..., "mean_in_map": ...}, name: {"mean":
        ..., "sd": ..., "n_voxels": ...}}``. Means are relative to the mean over the mask, ppb;
        `mean_in_map` is that mean itself. None stands where a region has no statistics.

    Raises
    ------
    ValueError
        An empty mask, or a map with NaN or infinite voxels in it.

    References
    ----------
    QSM Consensus Organization Committee 2024, doi:10.1002/mrm.30006.
    """
    chi = np.asarray(chi)
    mask = np.asarray(mask).astype(bool)
    if chi.shape != mask.shape:
        raise ValueError(f"the mask has shape {mask.shape}, the map {chi.shape}")
    values = chi[mask].astype(np.float64) * 1000.0
    if not values.size:
        raise ValueError("the mask is empty: there is no whole-brain reference")
    if not np.isfinite(values).all():
        raise ValueError("the map has NaN or infinite voxels inside the mask")
    brain = float(values.mean())
    statistics = {
        "brain": {
            "mean": 0.0,
            "sd": float(values.std(ddof=1)) if values.size > 1 else None,
            "n_voxels": int(values.size),
            "mean_in_map": brain,
        }
    }
    for name, row in _unique(table).iterrows():
        if name != "brain":
            statistics[str(name)] = {
                "mean": _number(row["mean"] - brain),
                "sd": _number(row["sd"]),
                "n_voxels": int(row["n_voxels"]),
            }
    return statistics


def reference_of(tables: Mapping[str, pd.DataFrame], name: str) -> tuple[str | None, pd.Series]:
    """Row of a reference in the region tables of several atlases, and its atlas.

    Parameters
    ----------
    tables : mapping of str to DataFrame
        Region tables of one map, by atlas.
    name : str
        Name of a row, or ``ATLAS:NAME``.

    Returns
    -------
    atlas : str or None
        None where every atlas that has the row says the same of it, as of ``brain``.
    row : Series

    Raises
    ------
    ValueError
        When no atlas has the row, several have different ones, or it has no mean.
    """
    chosen, _, plain = name.rpartition(":")
    rows = {
        atlas: table.loc[table["name"] == plain].iloc[0]
        for atlas, table in tables.items()
        if (table["name"] == plain).any() and chosen in ("", atlas)
    }
    if not rows:
        where = f"the atlas {chosen}" if chosen in tables else ", ".join(tables) or "no atlas"
        raise ValueError(f"the reference {plain!r} is no row of the table of regions ({where})")
    atlas, row = next(iter(rows.items()))
    others = [r for r in rows.values() if not _same_row(r, row)]
    if others:
        raise ValueError(
            f"the atlases {', '.join(rows)} have different regions {plain!r}: name one of them, "
            f"as in {atlas}:{plain}"
        )
    if not np.isfinite(row["mean"]):
        raise ValueError(f"the reference {plain!r} has no mean (coverage {row['coverage']:.2f})")
    return (atlas if len(rows) == 1 and plain != "brain" else None), row


def _same_row(one: pd.Series, other: pd.Series) -> bool:
    both_lost = np.isnan(one["mean"]) and np.isnan(other["mean"])
    return one["n_voxels"] == other["n_voxels"] and (both_lost or one["mean"] == other["mean"])


def rereference(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """A region table with the mean of one of its rows as zero.

    Only the measures of level change. `se` stays that of the region alone: the standard error of
    a difference, which includes the reference's own, is in :func:`differential_table`.

    Raises
    ------
    ValueError
        `name` is no row of the table, or a row without statistics.
    """
    rows = _unique(table)
    if name not in rows.index:
        raise ValueError(f"{name!r} is no row of the region table")
    zero, coverage = (float(rows[c][name]) for c in ("mean", "coverage"))
    if not np.isfinite(zero):
        raise ValueError(f"{name!r} has no mean (coverage {coverage:.2f})")
    referenced = table.copy()
    referenced[LEVELS] = referenced[LEVELS] - zero
    return referenced


def _unique(table: pd.DataFrame) -> pd.DataFrame:
    """The table indexed by name; a ValueError when a name occurs twice."""
    twice = table.loc[table["name"].duplicated(), "name"]
    if len(twice):
        raise ValueError(f"the region table has {twice.iloc[0]!r} more than once")
    return table.set_index("name")


def _shared_voxels(table: pd.DataFrame) -> set[tuple[str, str]]:
    """Ordered pairs of names, in both orders, that are made of the same voxels in part."""
    made_of = _labels_of(table)
    shared = {
        (one, other)
        for one, labels in made_of.items()
        for other, others in made_of.items()
        if one != other and labels & others
    }
    if not made_of:
        both = table.index[table["hemisphere"] == "both"]
        sided = table.index[table["hemisphere"].isin(["L", "R"])]
        for whole in both:
            base = whole.removesuffix("_both")
            shared |= {(whole, part) for part in sided if split_side(part)[0] in (whole, base)}
    for key in REFERENCES[1:]:
        # A row with a label of its own was not put together from the others.
        if key in table.index and pd.isna(table["index"][key]):
            shared |= {(key, name) for name in table.index if name != key and tissue(name) == key}
    return shared | {(b, a) for a, b in shared}


def _labels_of(table: pd.DataFrame) -> dict[str, set[int]]:
    """Labels of each row, of the column `labels`; empty for a table that has none."""
    if "labels" not in table.columns or table["labels"].isna().all():
        return {}
    # A column of single labels with a gap comes back from a file as floating-point numbers.
    return {
        str(name): {int(float(part)) for part in str(cell).split("+")}
        for name, cell in table["labels"].items()
        if not pd.isna(cell)
    }


def _number(value: float) -> float | None:
    """A float that JSON can hold."""
    return float(value) if np.isfinite(value) else None
