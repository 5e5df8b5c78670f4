"""Tables of the phantom study: means of regions over the sweeps, beside what was published."""

from __future__ import annotations

import importlib.resources
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from .study import Study, Variant

#: Name of the mean over the whole mask.
WHOLE = "W_brain"

#: Differences that have a target, and what is aimed at (ppb): the published level or better.
TARGET_ROWS = ("CN-GP", "CN-PU")
TARGET_SD = {"slab": 0.2, "mask": 0.6}
TARGET_BIAS = 0.3


def region_values(
    maps: Mapping[Variant, tuple[np.ndarray, np.ndarray]],
    truth: np.ndarray,
    rois: np.ndarray,
    names: Sequence[str],
    sweeps: Mapping[str, Sequence[Variant]],
) -> pd.DataFrame:
    """Means of regions of interest in the maps of each sweep, and their true means.

    A region is the part of it that every mask of all sweeps holds, so that only the map changes;
    the whole brain is each mask's own.

    Parameters
    ----------
    maps : mapping
        From the variant to its map (x, y, z) in ppm and to where the map is valid.
    truth : (x, y, z) array
        ppm.
    rois : (x, y, z) int array
        0, or 1 + the place of a region in `names`.
    names : sequence of str
    sweeps : mapping
        From the name of a sweep to its variants.

    Returns
    -------
    DataFrame
        ``sweep``, ``slab_mm``, ``erosion_mm``, ``roi``, ``n_voxels``, ``truth``, ``mean`` (ppb).
    """
    common = np.logical_and.reduce([valid for _, valid in maps.values()])
    rows = []
    for sweep, variants in sweeps.items():
        for variant in variants:
            chi, valid = maps[variant]
            parts = {name: common & (rois == 1 + i) for i, name in enumerate(names)}
            for name, part in {**parts, WHOLE: valid}.items():
                count = int(np.count_nonzero(part))
                means = [
                    1e3 * float(a[part].mean(dtype=float)) if count else np.nan
                    for a in (truth, chi)
                ]
                rows.append((sweep, variant.slab_mm, variant.erosion_mm, name, count, *means))
    columns = ["sweep", "slab_mm", "erosion_mm", "roi", "n_voxels", "truth", "mean"]
    return pd.DataFrame(rows, columns=columns)


def differences(values: pd.DataFrame) -> pd.DataFrame:
    """Every region alone and against every reference, over each sweep.

    Parameters
    ----------
    values : DataFrame
        Of :func:`region_values`, with the columns ``chain`` and ``condition``.

    Returns
    -------
    DataFrame
        ``chain``, ``condition``, ``sweep``, ``region``, ``reference`` (``none``, another region
        or the whole brain), ``truth`` at the widest coverage, ``mean``, ``sd`` (over the masks,
        n - 1), ``bias`` (mean of value minus truth, each mask with its own truth), ``n_masks``.
        ppb.
    """
    rows = []
    for key, part in values.groupby(["chain", "condition", "sweep"], sort=False):
        # Masks in the order of their coverage: widest slab last, least erosion first.
        mean = part.pivot(index=["slab_mm", "erosion_mm"], columns="roi", values="mean")
        true = part.pivot(index=["slab_mm", "erosion_mm"], columns="roi", values="truth")
        widest = (part["slab_mm"].max(), part["erosion_mm"].min())
        names = list(dict.fromkeys(part["roi"]))
        pairs = [(name, None) for name in names]
        pairs += [(a, b) for a in names for b in names if a != b and a != WHOLE]
        for region, reference in pairs:
            value, expected = mean[region], true[region]
            if reference is not None:
                value, expected = value - mean[reference], expected - true[reference]
            sd = float(value.std(ddof=1)) if len(value) > 1 else np.nan
            rows.append(
                (*key, region, reference or "none", float(expected[widest]), float(value.mean()),
                 sd, float((value - expected).mean()), len(value))
            )  # fmt: skip
    columns = ["chain", "condition", "sweep", "region", "reference", "truth", "mean", "sd", "bias"]
    return pd.DataFrame(rows, columns=[*columns, "n_masks"])


def published() -> pd.DataFrame:
    """Table 1 of the study that is repeated: ``row sweep condition truth mean sd``, ppb."""
    source = importlib.resources.files("qsmref") / "data" / "study" / "published.tsv"
    with source.open(encoding="utf-8") as stream:
        return pd.read_csv(stream, sep="\t", dtype={"condition": str})


def table_one(found: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Table 1: regions alone, and the first region against all others, beside the published.

    Parameters
    ----------
    found : DataFrame
        Of :func:`differences`.
    names : sequence of str
        Regions in the order of the table.

    Returns
    -------
    DataFrame
        ``chain row sweep condition truth mean sd bias published_mean published_sd target_sd
        target_bias met``; ``met`` is ``met``, ``missed``, or missing where there is no target.
    """
    wanted = [(name, "none") for name in (*names, WHOLE)]
    wanted += [(names[0], other) for other in (*names[1:], WHOLE)]
    order = {pair: place for place, pair in enumerate(wanted)}
    pairs = list(zip(found["region"], found["reference"], strict=True))
    table = found.assign(place=[order.get(pair, -1) for pair in pairs])
    table["row"] = [a if b == "none" else f"{a}-{b}" for a, b in pairs]
    table = table[table["place"] >= 0]
    theirs = published().rename(columns={"mean": "published_mean", "sd": "published_sd"})
    table = table.merge(
        theirs.drop(columns="truth"), on=["row", "sweep", "condition"], how="left", sort=False
    )
    target = table["row"].isin(TARGET_ROWS)
    table["target_sd"] = table["sweep"].map(TARGET_SD).where(target)
    table["target_bias"] = np.where(target, TARGET_BIAS, np.nan)
    reached = (table["sd"] <= table["target_sd"]) & (table["bias"].abs() <= table["target_bias"])
    table["met"] = np.where(target, np.where(reached, "met", "missed"), None)
    chains = {chain: i for i, chain in enumerate(dict.fromkeys(found["chain"]))}
    table = table.assign(first=table["chain"].map(chains))
    sweeps = {"slab": 0, "mask": 1}
    table = table.assign(second=table["sweep"].map(sweeps))
    table = table.sort_values(["first", "place", "second", "condition"], kind="stable")
    columns = ["chain", "row", "sweep", "condition", "truth", "mean", "sd", "bias"]
    columns += ["published_mean", "published_sd", "target_sd", "target_bias", "met"]
    return table[columns].reset_index(drop=True)


def structure(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Whether the standard deviations have the order that the published table has.

    Three claims: absolute > distant > whole brain > neighbour in each condition and sweep;
    condition 3 > 2 > 1 for regions alone; slab > erosion for regions alone. *Absolute* is the root
    mean square over the first three regions, *neighbour* that of the differences of the first
    against the second and third, *distant* the difference against the fourth.

    Returns
    -------
    DataFrame
        ``chain``, ``claim``, ``where``, ``values`` (SDs in ppb, in the claimed order, largest
        first), ``holds``; the chain ``published`` is the source's own table.
    """
    if len(names) < 4:
        return pd.DataFrame(columns=["chain", "claim", "where", "values", "holds"])
    near = [f"{names[0]}-{other}" for other in names[1:3]]
    theirs = published().assign(chain="published")
    rows = []
    for chain, part in pd.concat([theirs, table], ignore_index=True).groupby("chain", sort=False):
        sds = part.set_index(["row", "sweep", "condition"])["sd"]

        def level(rows_, sweep, condition, sds=sds):
            values = [sds.get((row, sweep, condition), np.nan) for row in rows_]
            return float(np.sqrt(np.mean(np.square(values))))

        conditions = sorted(set(part["condition"]))
        alone = {k: level(names[:3], *k) for k in itertools.product(("slab", "mask"), conditions)}
        claims = []
        for (sweep, condition), absolute in alone.items():
            others = [[f"{names[0]}-{names[3]}"], [f"{names[0]}-{WHOLE}"], near]
            sizes = [absolute, *(level(rows_, sweep, condition) for rows_ in others)]
            claim = "absolute > distant > whole brain > neighbour"
            claims.append((claim, f"{sweep}, condition {condition}", sizes))
        for sweep in ("slab", "mask"):
            sizes = [alone[sweep, condition] for condition in reversed(conditions)]
            claims.append((f"condition {' > '.join(reversed(conditions))}", sweep, sizes))
        for condition in conditions:
            sizes = [alone["slab", condition], alone["mask", condition]]
            claims.append(("slab > erosion", f"condition {condition}", sizes))
        for claim, where, sizes in claims:
            if np.isfinite(sizes).all():
                holds = all(a > b for a, b in itertools.pairwise(sizes))
                written = ", ".join(f"{size:.2f}" for size in sizes)
                rows.append((chain, claim, where, written, "yes" if holds else "no"))
    return pd.DataFrame(rows, columns=["chain", "claim", "where", "values", "holds"])


def markdown(table: pd.DataFrame, study: Study) -> str:
    """Table 1 as Markdown: for each chain and sweep ours, published and whether the target is met.

    The table is that of :func:`table_one`.
    """
    slabs = ", ".join(f"{mm:g}" for mm in study.slabs)
    erosions = ", ".join(f"{mm:g}" for mm in study.erosions)
    lines = [
        "# Table 1",
        "",
        f"Mean ± SD (ppb) over slabs of {slabs} mm and over erosions of {erosions} mm. Targets "
        f"for {' and '.join(TARGET_ROWS)}: SD at most {TARGET_SD['slab']:g} ppb over slabs and "
        f"{TARGET_SD['mask']:g} ppb over erosions, bias at most {TARGET_BIAS:g} ppb.",
    ]
    if study.sloppy:
        lines += ["", "Few iterations on a coarse grid: a test that it runs, not a result."]
    for (chain, sweep), part in table.groupby(["chain", "sweep"], sort=False):
        conditions = sorted(set(part["condition"]))
        header = ["", "truth"]
        for condition in conditions:
            header += [f"condition {condition}", "published", "target"]
        lines += ["", f"## {chain}, {'slabs' if sweep == 'slab' else 'erosions'}", ""]
        lines += ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
        for row, cells in part.groupby("row", sort=False):
            cells = cells.set_index("condition")
            truth = cells["truth"].iloc[0]
            line = [str(row), f"{truth:.2f}" if np.isfinite(truth) else "n/a"]
            for condition in conditions:
                cell = cells.loc[condition]
                line.append(_pair(cell["mean"], cell["sd"]))
                line.append(_pair(cell["published_mean"], cell["published_sd"]))
                line.append(cell["met"] if isinstance(cell["met"], str) else "")
            lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def _pair(mean: float, sd: float) -> str:
    if not np.isfinite(mean):
        return "n/a"
    return f"{mean:.2f} ± {sd:.2f}" if np.isfinite(sd) else f"{mean:.2f}"
