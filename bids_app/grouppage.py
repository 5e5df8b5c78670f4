"""The page of a cohort: what differs, under which reference, and who was left out.

Its layout is ``qsmref/data/report/group.html``; this module fills it with rows and figures that are
made of text, so that the page needs no script and no network.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

import qsmref
from qsmref.analysis.audit import most_moved
from qsmref.analysis.cohort import Results
from qsmref.analysis.names import split_side
from qsmref.files import write_text

from .groupfigures import CohortFigure
from .groupmethods import TESTS
from .grouptables import SHOWN, adjustment, p_value, plain_table, whole_mask
from .heatmap import Cell, HeatMap, colours_at
from .model import Figure
from .pictures import data_uri
from .report import environment, text_blocks
from .wording import nice, number, region_name

_LEVEL = 0.05
_FAMILIES = {
    "kind": "regions alone; pairs; each reference",
    "coverage": "all rows of a mask",
    "all": "all rows",
}


def write_page(
    path: Path, title: str, results: Results, figures: Sequence[CohortFigure] = ()
) -> Path:
    """Write the page of a cohort as one file.

    Parameters
    ----------
    path : Path
        Where to (``.html``).
    title : str
        What the cohort is called.
    results : Results
        Of :func:`qsmref.analysis.cohort.analyse`.
    figures : sequence of CohortFigure
        Of :func:`bids_app.groupfigures.cohort_figures`.
    """
    return write_pages(path, title, {"": results}, {"": figures})


def write_pages(
    path: Path,
    title: str,
    cohorts: Mapping[str, Results],
    figures: Mapping[str, Sequence[CohortFigure]],
    averages: Sequence[Figure] = (),
    methods: str = "",
    lost: Sequence[str] = (),
) -> Path:
    """:func:`write_page` for several atlases, by name.

    Parameters
    ----------
    path, title
        As there.
    cohorts, figures : mapping
        By the name of the atlas.
    averages : sequence of Figure
        Of :func:`bids_app.groupaverage.average_figures`.
    methods : str
        Of :func:`bids_app.methods.methods_text`.
    lost : sequence of str
        Sentences on what of the averages cannot be shown.
    """
    # Only names of pages that lie there become addresses, whatever a table holds.
    pages = {page.stem: quote(page.name) for page in path.parent.glob("sub-*.html")}
    page = (
        environment()
        .get_template("group.html")
        .render(
            title=title,
            version=qsmref.__version__,
            written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            cohorts=[
                _cohort(name, results, k) | {"figures": _embedded(figures.get(name, ()))}
                for k, (name, results) in enumerate(cohorts.items())
            ],
            pages=pages,
            averages=averages,
            lost=lost,
            methods=text_blocks(methods) if methods else [],
        )
    )
    return write_text(path, page)


def _cohort(name: str, results: Results, k: int) -> dict[str, Any]:
    """What the template shows of one atlas."""
    made: dict[str, Any] = {
        "name": name,
        "id": f"atlas{k + 1}",
        "facts": _fact_words(results.facts),
        "notes": results.notes,
        "tables": [],
        "heat_maps": [],
        "curves": [],
        "overview": None,
        "omnibus": [],
    }
    tables = results.tables
    groups = tuple(results.facts.get("groups", {}))
    if "ttest" in tables:
        made["omnibus"] = _omnibus(tables["omnibus"]) if "omnibus" in tables else []
        made["adjustment"] = adjustment(tables["omnibus"]) if "omnibus" in tables else ""
        if len(groups) == 2:
            made["heat_maps"] = _matrices(tables["ttest"], groups)
    if "specifications" in tables:
        made["overview"], made["curves"] = _curves(tables["specifications"])
    made["drivers"] = plain_table("drivers", tables)
    made["outliers"] = plain_table("outliers", tables)
    names = [name for name in SHOWN if name not in ("drivers", "outliers")]
    made["tables"] = [shown for name in names if (shown := plain_table(name, tables))]
    return made


def _embedded(figures: Sequence[CohortFigure]) -> list[dict[str, Any]]:
    return [{"source": data_uri(f.png), **vars(f)} for f in figures]


def _fact_words(facts: Mapping[str, Any]) -> dict[str, str]:
    words = {"Participants": str(facts["n"])}
    for group, n in facts.get("groups", {}).items():
        words[f"Group {group}"] = str(n)
    if facts.get("sessions"):
        words["Sessions"] = ", ".join(facts["sessions"])
    if "second_session" in facts:
        words["Differences"] = f"{facts['second_session']} minus {facts['first_session']}"
    elif "first_session" in facts:
        words["Changes"] = f"from {facts['first_session']}"
    if "test" in facts:
        words["Test"] = TESTS[facts["test"]]
    if facts.get("covariates"):
        words["Adjusted for"] = ", ".join(facts["covariates"])
    if len(facts.get("groups", {})) > 1:
        words["Corrected over"] = _FAMILIES[facts["family"]]
    return words


def _interval(low: float, high: float, digits: int = 1) -> str:
    if not np.isfinite(low) or not np.isfinite(high):
        return "n/a"
    return f"{number(low, digits)} to {number(high, digits)}"


def _cover(row: Mapping[str, Any]) -> str:
    parts = [f"slab \u2212{row['slab_cut_mm']:g} mm"] if row["slab_cut_mm"] else []
    parts += [f"erosion {row['erosion_mm']:g} mm"] if row["erosion_mm"] else []
    return ", ".join(parts) or "whole mask"


def _omnibus(table: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {
            "cover": _cover(row),
            "n_regions": str(row["n_regions"]),
            "t2": number(row["t2"], 2),
            "f": f"{number(row['f'], 2)} ({number(row['df_between'], 0)}, {number(row['df'], 0)})",
            "p": p_value(row["p"]),
            "p_permutation": p_value(row["p_permutation"]),
        }
        for row in table.to_dict("records")
        if row["note"] is None or row["note"] != row["note"]
    ]


def _matrices(table: pd.DataFrame, groups: Sequence[str]) -> list[HeatMap]:
    """t of every difference as squares, row minus column."""
    table = whole_mask(table)
    alone = table[table["reference"].isna()]
    names = list(alone["region"])
    references = [r for r in dict.fromkeys(table["reference"].dropna()) if r not in set(names)]
    named = table["reference"].astype(object).where(table["reference"].notna(), None)
    cells = dict(
        zip(zip(table["region"], named, strict=True), table.to_dict("records"), strict=True)
    )
    for (a, b), row in list(cells.items()):
        if b is not None:
            signs = {k: -row[k] for k in ("t", "difference", "hedges_g")}
            ends = {"ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
            cells.setdefault((b, a), {**row, **signs, **ends})
    end = max(4, int(np.ceil(np.nanpercentile(table["t"].abs().fillna(0), 95))))
    bases = {split_side(n)[0] for n in names if split_side(n)[1]}
    joined = [n for n in names if not split_side(n)[1]]
    apart = [n for n in names if n not in bases and n.removesuffix("_both") not in bases]
    chosen = [("Both sides together", joined)] if joined != apart and len(joined) > 1 else []
    chosen.append(("Left and right apart" if chosen else "All regions", apart))
    stops = ", ".join(colours_at(x)[0] for x in np.linspace(-1, 1, 11))
    ticks = [f"\u2264 \u2212{end}", "0", f"\u2265 {end}"]
    return [
        HeatMap(
            f"{title}: t of {groups[0]} against {groups[1]}",
            [(a, _row(a, [*rows, *references], cells, end)) for a in rows],
            [*map(region_name, [*rows, *references]), "alone"],
            len(references) + 1,
            ticks,
            stops,
        )
        for title, rows in chosen
    ]


def _row(name: str, columns: Sequence[str], cells: Mapping, end: float) -> list[Cell]:
    made = []
    for column in [*columns, None]:
        row = cells.get((name, column))
        pair = name if column is None else f"{name} \u2212 {region_name(column)}"
        if name == column:
            made.append(Cell("", "", "", "the same region"))
        elif row is None:
            made.append(Cell("\u00b7", "", "", f"{pair}: not compared"))
        elif not np.isfinite(row["t"]):
            made.append(Cell("n/a", "", "", f"{pair}: {row['note']}"))
        else:
            detail = (
                f"{pair}: {number(row['difference'])} ppb "
                f"({_interval(row['ci_low'], row['ci_high'])}), t = {number(row['t'], 2)}, "
                f"p = {p_value(row['p'])}, q = {p_value(row['q_bh'])}, "
                f"g = {number(row['hedges_g'], 2)}"
            )
            colours = colours_at(row["t"] / end)
            weak = not row["q_bh"] < _LEVEL
            made.append(Cell(number(row["t"], 1), *colours, detail, weak))
    return made


def _curves(table: pd.DataFrame) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The specification curve of each region, and all of them in one figure."""
    ends = table[["g_low", "g_high"]].to_numpy(dtype=float)
    ends = ends[np.isfinite(ends)]
    limit = float(np.percentile(np.abs(ends), 98)) if ends.size else 1.0
    step = nice(limit / 4)
    limit = float(np.ceil(limit / step) * step)

    def place(g: float) -> float:
        return round(float(np.clip(50 + 50 * g / limit, 0, 100)), 2)

    curves, overview = [], []
    for region, rows in table.groupby("region", sort=False):
        points, entries = [], []
        for row in rows.to_dict("records"):
            known = np.isfinite(row["hedges_g"])
            mark = {
                "kind": row["kind"],
                "firm": bool(row["q_bh"] < _LEVEL),
                "x": place(row["hedges_g"]) if known else None,
                "low": place(row["g_low"]) if np.isfinite(row["g_low"]) else None,
                "high": place(row["g_high"]) if np.isfinite(row["g_high"]) else None,
            }
            name = "none" if row["kind"] == "none" else region_name(row["reference"])
            entries.append(
                mark
                | {
                    "reference": name,
                    "difference": number(row["difference"]),
                    "interval": _interval(row["ci_low"], row["ci_high"]),
                    "t": number(row["t"], 2),
                    "p": p_value(row["p"]),
                    "q": p_value(row["q_bh"]),
                    "g": number(row["hedges_g"], 2),
                    "helps": row["helps"] if isinstance(row["helps"], str) else "",
                }
            )
            if known:
                points.append(
                    mark | {"text": f"{region}, {name}: g = {number(row['hedges_g'], 2)}"}
                )
        # Those that matter most are drawn last, over the others.
        points.sort(key=lambda m: ("region", "tissue", "none").index(m["kind"]))
        curves.append({"region": region, "rows": entries})
        overview.append({"region": region, "points": points})
    count = round(2 * limit / step)
    values = [-limit + i * step for i in range(count + 1)]
    ticks = [(place(v), number(v, 1 if step < 1 else 0)) for v in values]
    # Both sides together are what most readers look for.
    single = {c["region"] for c in curves if split_side(c["region"])[1]}
    overview.sort(key=lambda row: row["region"] in single)
    first = most_moved(table)
    curves.sort(key=lambda row: (row["region"] != first, row["region"] in single))
    return {"rows": overview, "ticks": ticks, "first": first}, curves
