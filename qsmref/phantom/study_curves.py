"""Curves of the phantom study: regions, references, distances and methods."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from .. import tables
from .study import Study
from .study_tables import WHOLE

#: Colours that people with any colour vision tell apart (Okabe and Ito).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = "osD^vPX*"

_SWEEPS = ("slab", "mask")


class Drawing:
    """A figure and the numbers in it."""

    def __init__(self, width: float, height: float, data: pd.DataFrame | None = None):
        self.figure = Figure(figsize=(width, height), layout="constrained")
        self.data = data

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # Texts may not fit a panel of a study with many masks; the figure is right anyway.
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            self.figure.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None})
            self.figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        if self.data is not None:
            tables.write_tsv(path.with_suffix(".tsv"), self.data)


def _few(ticks: list) -> list:
    """At most six of the ticks, evenly."""
    return ticks[:: -(-len(ticks) // 6)]


def _sweep_axis(axis, sweep: str, part: pd.DataFrame) -> str:
    column = "slab_mm" if sweep == "slab" else "erosion_mm"
    axis.set_xticks(_few(sorted(set(part[column]))))
    axis.set_xlabel("slab, mm" if sweep == "slab" else "erosion, mm")
    return column


def draw_values(study: Study, names, values: pd.DataFrame) -> Drawing:
    """Offset (value minus truth) of every region over slab and erosion."""
    data = values.assign(offset=values["mean"] - values["truth"])
    conditions = list(dict.fromkeys(data["condition"]))
    drawing = Drawing(2.4 * len(conditions) + 1, 4.6, data)
    axes = drawing.figure.subplots(2, len(conditions), squeeze=False, sharey="row")
    for row, sweep in enumerate(("slab", "mask")):
        for column, condition in enumerate(conditions):
            axis = axes[row, column]
            part = data[(data["sweep"] == sweep) & (data["condition"] == condition)]
            x = _sweep_axis(axis, sweep, part)
            for place, name in enumerate([*names, WHOLE]):
                line = part[part["roi"] == name].sort_values(x)
                axis.plot(
                    line[x], line["offset"], color=COLOURS[place % 8], label=name,
                    marker=_MARKERS[place % 8], markersize=4, linewidth=1,
                )  # fmt: skip
            axis.axhline(0, color="#999999", linewidth=0.6, zorder=0)
            if row == 0:
                axis.set_title(f"condition {condition}")
        axes[row, 0].set_ylabel("value minus truth, ppb")
    drawing.figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center")
    return drawing


def draw_references(study: Study, names, values: pd.DataFrame) -> Drawing:
    """Error of the first regions relative to each reference, over all masks."""
    conditions = list(dict.fromkeys(values["condition"]))
    near = list(names[:3])
    # A region that some mask does not reach is no reference.
    reached = [n for n in names[3:] if values.loc[values["roi"] == n, "mean"].notna().all()]
    references = [(None, "none"), *((n, n) for n in reached), (WHOLE, "whole brain")]
    references += [("neighbours", "neighbours")]
    table = values.assign(error=values["mean"] - values["truth"])
    rows = []
    for (condition, sweep), part in table.groupby(["condition", "sweep"], sort=False):
        error = part.pivot(index=["slab_mm", "erosion_mm"], columns="roi", values="error")
        for name in near:
            for reference, words in references:
                if reference == "neighbours":
                    others = near[near.index(name) + 1 :]
                    shown = [(f"{name}-{n}", error[name] - error[n]) for n in others]
                else:
                    taken = 0 if reference is None else error[reference]
                    shown = [(name, error[name] - taken)]
                for label, line in shown:
                    rows += [
                        (condition, sweep, words, label, *index, value)
                        for index, value in line.items()
                    ]
    columns = ["condition", "sweep", "reference", "region", "slab_mm", "erosion_mm", "error"]
    data = pd.DataFrame(rows, columns=columns)
    drawing = Drawing(1.9 * len(references) + 1, 1.8 * len(conditions) + 0.6, data)
    axes = drawing.figure.subplots(len(conditions), len(references), squeeze=False, sharey="row")
    for row, condition in enumerate(conditions):
        for column, (_, words) in enumerate(references):
            axis = axes[row, column]
            part = data[(data["condition"] == condition) & (data["reference"] == words)]
            for place, (label, line) in enumerate(part.groupby("region", sort=False)):
                slab, mask = (line[line["sweep"] == s]["error"].to_numpy() for s in _SWEEPS)
                colour, marker = COLOURS[place % 8], _MARKERS[place % 8]
                style = {"color": colour, "marker": marker, "markersize": 3, "linewidth": 1}
                axis.plot(np.arange(len(slab)), slab, label=label, **style)
                axis.plot(len(slab) + 0.5 + np.arange(len(mask)), mask, **style)
            count = len(study.slabs), len(study.erosions)
            ticks = _few(list(zip(range(count[0]), study.slabs, strict=True)))
            beyond = count[0] + 0.5 + np.arange(count[1])
            ticks += _few(list(zip(beyond, study.erosions, strict=True)))
            axis.set_xticks([x for x, _ in ticks], [f"{v:g}" for _, v in ticks], size=6)
            axis.axhline(0, color="#999999", linewidth=0.6, zorder=0)
            if row == 0:
                axis.set_title(f"reference: {words}")
                axis.legend(fontsize=6, handlelength=1, borderaxespad=0.1)
            if row == len(conditions) - 1:
                axis.set_xlabel("slab | erosion, mm")
        axes[row, 0].set_ylabel(f"condition {condition}\nerror, ppb")
    return drawing


def draw_distance(study: Study, distances: pd.DataFrame) -> Drawing:
    """Stability of a difference against the distance of its regions, a curve per chain."""
    conditions = list(dict.fromkeys(distances["condition"]))
    wide = max(len(conditions), 1)
    drawing = Drawing(2.5 * wide + 1.8, 4.8, distances)
    axes = drawing.figure.subplots(2, wide, squeeze=False, sharex=True, sharey=True)
    for row, sweep in enumerate(_SWEEPS):
        for column, condition in enumerate(conditions):
            axis = axes[row, column]
            part = distances[(distances["sweep"] == sweep) & (distances["condition"] == condition)]
            for place, chain in enumerate(study.chains):
                line = part[(part["chain"] == chain) & (part["sd"] > 0)]
                if line.empty:
                    continue
                alone, pairs = line[line["distance_mm"] == 0], line[line["distance_mm"] > 0]
                style = {"color": COLOURS[place % 8], "linewidth": 1.2}
                dashes = ("-", "--", ":", "-.")[place // 8 % 4]
                axis.plot(pairs["distance_mm"], pairs["sd"], dashes, label=chain, **style)
                axis.plot([-3] * len(alone), alone["sd"], "o", markersize=3, **style)
            axis.set_yscale("log")
            if row == 0:
                axis.set_title(f"condition {condition}")
            else:
                axis.set_xlabel("distance, mm")
        axes[row, 0].set_ylabel(f"SD over {'slabs' if sweep == 'slab' else 'erosions'}, ppb")
    handles = axes[0, 0].get_legend_handles_labels()
    drawing.figure.legend(*handles, loc="outside right center", fontsize=6)
    return drawing


def draw_methods(study: Study, names, differences: pd.DataFrame) -> Drawing:
    """SD and bias of the neighbours' differences, a row per chain."""
    near = [(names[0], other) for other in names[1:3]]
    pairs = list(zip(differences["region"], differences["reference"], strict=True))
    data = differences[[pair in near for pair in pairs]]
    conditions = list(dict.fromkeys(data["condition"]))
    drawing = Drawing(8.5, 0.2 * len(study.chains) + 1.6, data)
    axes = drawing.figure.subplots(1, 3, sharey=True)
    place = {chain: -i for i, chain in enumerate(study.chains)}
    panels = (("slab", "sd"), ("mask", "sd"), ("slab", "bias"))
    for axis, (sweep, what) in zip(axes, panels, strict=True):
        part = data[data["sweep"] == sweep]
        for number, condition in enumerate(conditions):
            mine = part[part["condition"] == condition]
            sizes = mine.groupby("chain", sort=False)[what].apply(
                lambda v: float(np.sqrt(np.mean(np.square(v))))
            )
            y = [place[chain] + 0.2 * (1 - number) for chain in sizes.index]
            axis.plot(
                sizes.to_numpy(), y, _MARKERS[number], color=COLOURS[number], markersize=4,
                label=f"condition {condition}",
            )  # fmt: skip
        axis.set_xscale("log")
        low, high = axis.get_xlim()
        axis.set_xlim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
        axis.xaxis.set_minor_formatter(NullFormatter())
        words = {"slab": "over slabs", "mask": "over erosions"}[sweep]
        axis.set_xlabel(f"{'SD ' + words if what == 'sd' else 'size of bias, ' + words}, ppb")
        axis.grid(axis="y", color="#eeeeee", linewidth=0.6)
    axes[0].set_yticks(list(place.values()), list(place))
    label = " and ".join(f"{a}-{b}" for a, b in near)
    drawing.figure.suptitle(f"{label}, root mean square", fontsize=8)
    drawing.figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return drawing
