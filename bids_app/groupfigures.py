"""Figures of a cohort: differences with their intervals, what survives the sweep, and others.

Each is a PNG of a table that lies beside it; :func:`cohort_figures` makes those for which there are
tables.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from qsmref.analysis.cohort import Results
from qsmref.analysis.names import split_side

from .wording import region_name

#: Names of all figures.
FIGURES = ("forest", "matrix", "survival", "specification", "stability")
_LEVEL = 0.05
#: Rows that a figure has at the most; those with the largest t are shown.
_MOST = 40
#: Colours that people with red-green blindness tell apart (Okabe and Ito).
_FIRM, _WEAK, _LINE, _ALONE, _TISSUE = "#0072B2", "#9a9a9a", "#333333", "#D55E00", "#009E73"
_SIZE = 8


@dataclass(frozen=True)
class CohortFigure:
    """A figure with what the page says of it."""

    #: Name of the file.
    name: str
    title: str
    caption: str
    png: bytes
    width: int
    height: int


def cohort_figures(results: Results) -> list[CohortFigure]:
    """Figures of what there are tables for, in the order of the page."""
    groups, tables = tuple(results.facts.get("groups", {})), results.tables
    made: list[CohortFigure | None] = []
    if "ttest" in tables and len(groups) == 2:
        made += [forest(tables["ttest"], groups), matrices(tables["ttest"], groups)]
    if "survival" in tables:
        made.append(survival(tables["survival"], tables["ttest"]))
    if "specifications" in tables:
        made.append(specification_curve(tables["specifications"], groups))
    if "stability" in tables:
        made.append(stability(tables["stability"], tables.get("growth")))
    return [figure for figure in made if figure is not None]


def _drawn(
    name: str, title: str, caption: str, size: tuple[float, float], draw: Callable[[Figure], None]
) -> CohortFigure:
    stream = io.BytesIO()
    # A name may have dollars in it.
    with rc_context({"text.parse_math": False}):
        figure = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
        draw(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.print_png(stream)
    return CohortFigure(name, title, caption, stream.getvalue(), *canvas.get_width_height())


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the least cut and eroded mask."""
    cover = table[["slab_cut_mm", "erosion_mm"]]
    first = cover.sort_values(["slab_cut_mm", "erosion_mm"]).iloc[0]
    return table[(cover == first).all(axis=1)]


def _joined(table: pd.DataFrame) -> pd.DataFrame:
    """Rows without single sides, where both sides together are in the table."""
    return table[~table["family"].str.endswith(", one side")]


def _label(region: str, reference) -> str:
    if not isinstance(reference, str):
        return f"{region} alone"
    return f"{region} \u2212 {region_name(reference)}"


def forest(comparison: pd.DataFrame, groups: Sequence[str]) -> CohortFigure | None:
    """Differences of the groups with their intervals, whole mask."""
    table = _joined(_whole(comparison))
    table = table[np.isfinite(table["t"]) & np.isfinite(table["ci_low"])]
    if table.empty:
        return None
    kinds = {"pairs": table["family"] == "pairs", "alone": table["reference"].isna()}
    kinds["against references"] = ~kinds["pairs"] & ~kinds["alone"]
    # Pairs have most of the room; regions alone and against references stand beside them.
    room = {"pairs": _MOST * 6 // 10, "alone": _MOST * 2 // 10, "against references": _MOST // 5}
    parts = []
    for kind, rows in kinds.items():
        part = table[rows]
        most = part.reindex(part["t"].abs().sort_values(ascending=False).index[: room[kind]])
        if len(most):
            parts.append((kind, most.sort_values("difference")))
    shown = sum(len(part) for _, part in parts)
    rest = len(table) - shown
    heights = [len(part) + 0.8 for _, part in parts]

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(parts), 1, sharex=True, height_ratios=heights, squeeze=False)
        for axis, (kind, part) in zip(axes[:, 0], parts, strict=True):
            y = np.arange(len(part))
            for place, row in zip(y, part.to_dict("records"), strict=True):
                colour = _FIRM if row["q_bh"] < _LEVEL else _WEAK
                axis.plot([row["ci_low"], row["ci_high"]], [place] * 2, color=colour, lw=1.6)
                axis.plot(row["difference"], place, "s", color=colour, ms=4.5)
            names = [
                _label(*pair) for pair in part[["region", "reference"]].itertuples(index=False)
            ]
            axis.set_yticks(y, names, fontsize=_SIZE)
            axis.set_ylim(-0.7, len(part) - 0.3)
            axis.axvline(0, color=_LINE, lw=0.8)
            axis.set_title(kind, fontsize=_SIZE + 1, loc="left")
            axis.grid(axis="x", color="#e6e6e6", lw=0.6)
            axis.spines[["top", "right", "left"]].set_visible(False)
            axis.tick_params(axis="y", length=0)
        axes[-1, 0].set_xlabel(f"{groups[0]} minus {groups[1]}, ppb", fontsize=_SIZE + 1)

    more = (
        f" The {shown} rows with the largest |t| are shown; {rest} more are in the table."
        if rest > 0
        else ""
    )
    return _drawn(
        "forest",
        "Differences of the groups",
        f"{groups[0]} minus {groups[1]} with 95 % intervals (ppb), whole mask. Blue: q (Benjamini "
        f"and Hochberg) below 0.05.{more}",
        (6.6, 1.0 + 0.2 * sum(heights)),
        draw,
    )


def matrices(comparison: pd.DataFrame, groups: Sequence[str]) -> CohortFigure | None:
    """t and q of every pair as squares, whole mask."""
    table = _joined(_whole(comparison))
    names = list(table.loc[table["reference"].isna(), "region"])
    others = [r for r in dict.fromkeys(table["reference"].dropna()) if r not in names]
    if len(names) < 2 or len(names) > _MOST:
        return None
    columns = [*names, *others]
    t = np.full((len(names), len(columns) + 1), np.nan)
    q = t.copy()
    for row in table.to_dict("records"):
        i = names.index(row["region"])
        if not isinstance(row["reference"], str):
            t[i, -1], q[i, -1] = row["t"], row["q_bh"]
            continue
        j = columns.index(row["reference"])
        t[i, j], q[i, j] = row["t"], row["q_bh"]
        if j < len(names):
            t[j, i], q[j, i] = -row["t"], row["q_bh"]
    if not np.isfinite(t).any():
        return None
    end = max(4.0, float(np.nanpercentile(np.abs(t), 95)))
    edges = [0, 0.001, 0.01, 0.05, 0.2, 1]
    shades = ListedColormap(["#08306b", "#2171b5", "#6baed6", "#dedede", "#f5f5f5"])
    digits = len(names) <= 16

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        drawn = [
            axes[0].imshow(t, cmap="RdBu_r", vmin=-end, vmax=end),
            axes[1].imshow(q, cmap=shades, norm=BoundaryNorm(edges, shades.N)),
        ]
        for axis, image, values, title in zip(axes, drawn, (t, q), ("t", "q"), strict=True):
            axis.set_xticks(
                range(len(columns) + 1),
                [*map(region_name, columns), "alone"],
                rotation=90,
                fontsize=_SIZE,
            )
            axis.set_yticks(range(len(names)), names, fontsize=_SIZE)
            axis.set_title(f"{title}, row minus column", fontsize=_SIZE + 1)
            axis.axvline(len(names) - 0.5, color=_LINE, lw=0.8)
            axis.tick_params(length=0)
            bar = figure.colorbar(image, ax=axis, shrink=0.7)
            bar.ax.tick_params(labelsize=_SIZE)
            if digits:
                _write(axis, values, title == "t", end)

    side = max(2.2, 0.34 * (len(columns) + 1))
    return _drawn(
        "matrix",
        "Every pair",
        f"Left, t of {groups[0]} against {groups[1]}; right, q within the family. The columns "
        "behind the line are references and the region alone, which contains the arbitrary zero of "
        "each map.",
        (2 * side + 2.6, side * len(names) / (len(columns) + 1) + 1.5),
        draw,
    )


def _write(axis, values: np.ndarray, is_t: bool, end: float) -> None:
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            dark = abs(value) > 0.6 * end if is_t else value < 0.01
            text = f"{value:.1f}" if is_t else f"{value:.2f}" if value >= 0.005 else "<.01"
            axis.text(
                j, i, text.replace("-", "\u2212"), ha="center", va="center", fontsize=6.5,
                color="white" if dark else "black",
            )  # fmt: skip


def survival(table: pd.DataFrame, comparison: pd.DataFrame) -> CohortFigure | None:
    """Which rows are significant under which mask."""
    masks = list(table.attrs["masks"])
    count = len(table)
    q = comparison["q_bh"].to_numpy().reshape(len(masks), count).T
    chosen = _joined(table)
    found = chosen["n_significant"] > 0
    rank = chosen["family"].map({"pairs": 0, "alone": 1}).fillna(2)
    order = chosen.assign(rank=rank).sort_values(["rank", "n_significant"], ascending=[True, False])
    # Where not all find room: rows that are significant somewhere, then regions alone, then others.
    first = order.assign(found=~found, others=order["rank"] != 1)
    urgent = first.sort_values(["found", "others"], kind="stable").index[:_MOST]
    order = order.loc[order.index.isin(urgent)]
    if order.empty:
        return None
    names = [_label(*pair) for pair in order[["region", "reference"]].itertuples(index=False)]
    edges = [0, 0.001, 0.01, 0.05, 1]
    shades = ListedColormap(["#08306b", "#2171b5", "#6baed6", "#efefef"])

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        image = axis.imshow(
            np.ma.masked_invalid(q[order.index]), cmap=shades,
            norm=BoundaryNorm(edges, shades.N), aspect="auto",
        )  # fmt: skip
        words = [m.replace("_", " ").replace("mm", " mm") for m in masks]
        axis.set_xticks(range(len(masks)), words, rotation=60, ha="right", fontsize=_SIZE)
        axis.set_yticks(range(len(names)), names, fontsize=_SIZE)
        axis.set_xticks(np.arange(len(masks)) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(names)) - 0.5, minor=True)
        axis.grid(which="minor", color="white", lw=1.5)
        axis.tick_params(which="both", length=0)
        for edge in np.flatnonzero(np.diff(rank.reindex(order.index))):
            axis.axhline(edge + 0.5, color=_LINE, lw=1)
        for place, row in enumerate(order.to_dict("records")):
            if row["survives_all"] == "yes":
                words = "all" if row["n_tested"] == len(masks) else f"all {row['n_tested']}"
                axis.text(len(masks) - 0.35, place, words, va="center", fontsize=_SIZE, color=_FIRM)
        bar = figure.colorbar(image, ax=axis, ticks=edges, shrink=0.6, pad=0.06)
        bar.set_label("q", fontsize=_SIZE)
        bar.ax.tick_params(labelsize=_SIZE)

    rest = len(chosen) - len(order)
    more = f" {rest} more rows are in the table." if rest else ""
    return _drawn(
        "survival",
        "What survives the sweep of masks",
        "q (Benjamini and Hochberg, in the family of each mask) of pairs, regions alone and "
        "regions against references, under every mask: blue is below 0.05, grey is not, white has "
        "no test. "
        "Rows marked 'all' are below 0.05 under every mask that has a test; a number behind it "
        f"counts these masks, where some have none.{more}",
        (3.4 + 0.38 * len(masks), 1.6 + 0.2 * len(order)),
        draw,
    )


def specification_curve(table: pd.DataFrame, groups: Sequence[str]) -> CohortFigure | None:
    """Hedges' g of the regions that differ most, under every reference, in order of size."""
    known = table[np.isfinite(table["hedges_g"])]
    joined = [r for r in dict.fromkeys(known["region"]) if not split_side(r)[1]]
    names = joined or list(dict.fromkeys(known["region"]))
    medians = known.groupby("region")["hedges_g"].median().abs()
    names = sorted(names, key=lambda n: -medians[n])[:6]
    if not names:
        return None
    colours = {"none": _ALONE, "tissue": _TISSUE, "region": _FIRM}
    columns = min(3, len(names))
    rows = -(-len(names) // columns)

    def draw(figure: Figure) -> None:
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for axis in axes.ravel()[len(names) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.ravel(), names, strict=False):
            part = known[known["region"] == name].sort_values("hedges_g")
            for place, row in enumerate(part.to_dict("records")):
                colour = colours[row["kind"]]
                axis.plot([place] * 2, [row["g_low"], row["g_high"]], color=colour, lw=1)
                axis.plot(
                    place, row["hedges_g"], "o", ms=4.5, color=colour,
                    mfc=colour if row["q_bh"] < _LEVEL else "white",
                )  # fmt: skip
            axis.axhline(0, color=_LINE, lw=0.8)
            few = len(part) <= 16
            ticks = part["reference"].fillna("none").map(region_name) if few else []
            axis.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=_SIZE - 1)
            axis.set_title(name, fontsize=_SIZE + 1)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=_SIZE - 1)
        for axis in axes[:, 0]:
            axis.set_ylabel("Hedges' g", fontsize=_SIZE)

    return _drawn(
        "specification",
        "One comparison under every reference",
        f"Hedges' g of {groups[0]} against {groups[1]} with its 95 % interval, for the regions "
        "with the largest median. Orange: no reference; green: a tissue reference; blue: another "
        "region (a difference). Filled: q over all regions under that reference is below 0.05.",
        (2.9 * columns + 0.4, 2.7 * rows + 0.2),
        draw,
    )


def stability(table: pd.DataFrame, growth: pd.DataFrame | None) -> CohortFigure | None:
    """SD of each pair over the sweep against the distance of its regions."""
    pairs = table[table["reference"].notna() & np.isfinite(table["distance_mm"])]
    sweeps = [s for s in ("slab", "erosion") if np.isfinite(pairs[f"sd_{s}"]).any()]
    if pairs.empty or not sweeps:
        return None
    regions = set(table.loc[table["reference"].isna(), "region"])
    bases = {split_side(name)[0] for name in regions if split_side(name)[1]}
    joined = bases | {f"{base}_both" for base in bases}
    tissue = ~pairs["reference"].isin(regions)
    between = pairs["region"].isin(joined) | pairs["reference"].isin(joined)
    alone = table[table["reference"].isna()]
    lines = {} if growth is None else growth.set_index("sweep").to_dict("index")

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(sweeps), sharey=True, squeeze=False)[0]
        for axis, sweep in zip(axes, sweeps, strict=True):
            sd = f"sd_{sweep}"
            single = pairs[~tissue & ~between]
            single = single if len(single) else pairs[~tissue]
            axis.plot(single["distance_mm"], single[sd], "o", ms=3.5, color=_FIRM, alpha=0.6)
            level = float(np.sqrt((alone[sd] ** 2).mean()))
            axis.axhline(level, color=_ALONE, lw=1.2, ls="--")
            if sweep in lines:
                ends = np.array([single["distance_mm"].min(), single["distance_mm"].max()])
                row = lines[sweep]
                axis.plot(ends, row["intercept"] + row["slope"] * ends / 10, color=_LINE, lw=1.2)
            axis.set_title({"slab": "slab cuts", "erosion": "erosions"}[sweep], fontsize=_SIZE + 1)
            axis.set_xlabel("distance of the centres, mm", fontsize=_SIZE)
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=_SIZE)
        axes[0].set_ylim(0, 1.05 * max(axis.get_ylim()[1] for axis in axes))
        axes[0].set_ylabel("SD over the masks, ppb", fontsize=_SIZE)

    return _drawn(
        "stability",
        "How far a difference moves when the mask changes",
        "SD of each pair of single structures within a participant over the masks, pooled over "
        "participants, against the distance of the two. Dashed: regions alone (root mean square).",
        (3.4 * len(sweeps) + 0.4, 3.2),
        draw,
    )
