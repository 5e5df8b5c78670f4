"""The page of a cohort: what differs, under which reference, and who was left out.

Its layout is ``qsmref/data/report/group.html``; this module fills it with rows and figures that are
made of text, so that the page needs no script and no network.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import qsmref
from qsmref.analysis.cohort import Results
from qsmref.analysis.names import split_side
from qsmref.files import write_text

from .groupfigures import CohortFigure
from .heatmap import Cell, HeatMap, colours_at
from .pictures import data_uri
from .report import environment
from .wording import nice, number

#: Rows of a long table that the page shows; the file has all of them.
_MOST = 120
_LEVEL = 0.05
_TESTS = {
    "student": "Student's t test",
    "welch": "Welch's t test",
    "anova": "one-way analysis of variance",
    "ancova": "linear model with covariates",
    "permutation": "permutation of labels",
    "mixed": "mixed model over sessions",
    "paired": "paired t test of two sessions",
}


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
) -> Path:
    """:func:`write_page` for several atlases, by name."""
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
        if len(groups) == 2:
            made["heat_maps"] = _matrices(tables["ttest"], groups)
    if "specifications" in tables:
        made["overview"], made["curves"] = _curves(tables["specifications"])
    made["drivers"] = _plain("drivers", tables)
    names = [name for name in _SHOWN if name != "drivers"]
    made["tables"] = [shown for name in names if (shown := _plain(name, tables))]
    return made


def _embedded(figures: Sequence[CohortFigure]) -> list[dict[str, Any]]:
    return [{"source": data_uri(f.png), **vars(f)} for f in figures]


def _fact_words(facts: Mapping[str, Any]) -> dict[str, str]:
    words = {"Participants": str(facts["n"])}
    for group, n in facts.get("groups", {}).items():
        words[f"Group {group}"] = str(n)
    if "test" in facts:
        words["Test"] = _TESTS[facts["test"]]
    if facts.get("covariates"):
        words["Adjusted for"] = ", ".join(facts["covariates"])
    if len(facts.get("groups", {})) > 1:
        words["Corrected over"] = _FAMILIES[facts["family"]]
    return words


def _p(value: float) -> str:
    """A p value in few characters."""
    if value is None or not np.isfinite(value):
        return "n/a"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


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
            "p": _p(row["p"]),
            "p_permutation": _p(row["p_permutation"]),
        }
        for row in table.to_dict("records")
        if row["note"] is None or row["note"] != row["note"]
    ]


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the least cut and eroded mask."""
    cover = table[["slab_cut_mm", "erosion_mm"]]
    first = cover.sort_values(["slab_cut_mm", "erosion_mm"]).iloc[0]
    return table[(cover == first).all(axis=1)]


def _matrices(table: pd.DataFrame, groups: Sequence[str]) -> list[HeatMap]:
    """t of every difference as squares, row minus column."""
    table = _whole(table)
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
            [*rows, *references, "alone"],
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
        pair = name if column is None else f"{name} \u2212 {column}"
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
                f"p = {_p(row['p'])}, q = {_p(row['q_bh'])}, g = {number(row['hedges_g'], 2)}"
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
            name = "none" if row["kind"] == "none" else row["reference"]
            entries.append(
                mark
                | {
                    "reference": name,
                    "difference": number(row["difference"]),
                    "interval": _interval(row["ci_low"], row["ci_high"]),
                    "t": number(row["t"], 2),
                    "p": _p(row["p"]),
                    "q": _p(row["q_bh"]),
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
    curves.sort(key=lambda row: row["region"] in single)
    return {"rows": overview, "ticks": ticks}, curves


#: Tables that are shown as they are: title, columns with their heading and how to write them.
_SHOWN: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
    "drivers": (
        "Which regions drive it",
        "What each region adds to all others (Rao). T² without it is that of the others.",
        {
            "region": ("Region", ""),
            "weight": ("Weight", "2"),
            "t2_without": ("T² without", "2"),
            "f": ("F", "2"),
            "p": ("p", "p"),
            "q_bh": ("q", "p"),
        },
    ),
    "survival": (
        "What survives the sweep of masks",
        "Whether q is below 0.05 under the whole mask and every cut of the slab, every erosion, "
        "and all of them; the columns of single masks are in the file.",
        {
            "region": ("Region", ""),
            "reference": ("Reference", ""),
            "family": ("Family", ""),
            "n_tested": ("Masks", "0"),
            "n_significant": ("q < 0.05", "0"),
            "survives_slab": ("Slab cuts", ""),
            "survives_erosion": ("Erosions", ""),
            "survives_all": ("All", ""),
        },
    ),
    "stability": (
        "How far values move when the mask changes",
        "SD within a participant over the masks, pooled over participants. The index is 1 where "
        "the difference stays while its two regions move, 0 where they move independently.",
        {
            "region": ("Region", ""),
            "reference": ("Reference", ""),
            "distance_mm": ("Distance, mm", "0"),
            "n": ("n", "0"),
            "sd_slab": ("SD over slabs, ppb", "2"),
            "sd_erosion": ("SD over erosions", "2"),
            "index_slab": ("Index, slabs", "2"),
            "index_erosion": ("Index, erosions", "2"),
            "sd_between": ("SD between people", "1"),
            "effect_whole": ("Groups, ppb", "1"),
            "effect_low": ("least", "1"),
            "effect_high": ("most", "1"),
        },
    ),
    "growth": (
        "How this grows with the distance of two regions",
        "A line through the SD of the pairs of single structures over their distance; the interval "
        "is from participants drawn anew.",
        {
            "sweep": ("Masks", ""),
            "n_pairs": ("Pairs", "0"),
            "slope": ("Slope, ppb per cm", "3"),
            "ci_low": ("from", "3"),
            "ci_high": ("to", "3"),
            "intercept": ("At zero, ppb", "2"),
            "spearman": ("Rank correlation", "2"),
        },
    ),
    "audit": (
        "How far the result depends on the reference",
        "Of all references tried: in how many p and q lie below 0.05, and the span of Hedges' g.",
        {
            "region": ("Region", ""),
            "n_specifications": ("References", "0"),
            "n_p": ("p < 0.05", "0"),
            "n_q_bh": ("q < 0.05", "0"),
            "n_positive": ("Positive", "0"),
            "g_none": ("g, none", "2"),
            "g_low": ("g, least", "2"),
            "g_median": ("g, median", "2"),
            "g_high": ("g, most", "2"),
            "n_helps": ("Help", "0"),
        },
    ),
    "equivalence": (
        "Is the reference equal in the groups?",
        "Two one-sided tests: equal means that the 90 % interval lies within the margin. A row "
        "with n/a is the value in the map, which contains its arbitrary zero.",
        {
            "candidate": ("Candidate", ""),
            "relative_to": ("Relative to", ""),
            "difference": ("Difference, ppb", "1"),
            "ci_low": ("from", "1"),
            "ci_high": ("to", "1"),
            "margin": ("Margin", "1"),
            "p_equivalence": ("p", "p"),
            "equivalent": ("Equal", ""),
        },
    ),
    "change": (
        "Change over sessions",
        "",
        {
            "region": ("Region", ""),
            "reference": ("Reference", ""),
            "contrast": ("Contrast", ""),
            "n": ("n", "0"),
            "difference": ("Estimate, ppb", "2"),
            "ci_low": ("from", "2"),
            "ci_high": ("to", "2"),
            "t": ("t", "2"),
            "p": ("p", "p"),
            "q_bh": ("q", "p"),
        },
    ),
    "reliability": (
        "Agreement of the sessions",
        "It is reliability only if nothing changed between them.",
        {
            "region": ("Region", ""),
            "reference": ("Reference", ""),
            "n": ("n", "0"),
            "icc_agreement": ("ICC(A,1)", "3"),
            "icc_consistency": ("ICC(C,1)", "3"),
            "sd_within": ("SD within, ppb", "2"),
            "repeatability": ("Repeatability, ppb", "2"),
            "bias": ("Bias", "2"),
            "loa_low": ("Limits from", "2"),
            "loa_high": ("to", "2"),
        },
    ),
    "power": (
        "Participants needed",
        "In each of two equal groups, by a two-sided t test at 0.05 with a power of 0.8; the "
        "safer number is for the upper limit of the SD.",
        {
            "region": ("Region", ""),
            "reference": ("Reference", ""),
            "sd": ("SD, ppb", "1"),
            "target_difference": ("To be found, ppb", "0"),
            "n_per_group": ("Participants", "0"),
            "n_per_group_high": ("Safer", "0"),
        },
    ),
    "excluded": (
        "Left out",
        "",
        {
            "participant_id": ("Participant", ""),
            "analysis": ("Of", ""),
            "reason": ("Because", ""),
        },
    ),
}


def _plain(name: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Title, head and rows of a table that is shown as it is."""
    if name not in tables or tables[name].empty:
        return None
    table = tables[name]
    if {"slab_cut_mm", "erosion_mm"} <= set(table.columns):
        table = _whole(table)
    if name == "equivalence" and "specifications" in tables:
        # The question is about those that serve as references, where there are such.
        kinds = tables["specifications"]
        tissue = set(kinds.loc[kinds["kind"] == "tissue", "reference"])
        table = table[table["candidate"].isin(tissue)] if tissue else table
    title, text, columns = _SHOWN[name]
    shown = table.head(_MOST)
    rows = [
        [_cell(row.get(column), how) for column, (_, how) in columns.items()]
        for row in shown.to_dict("records")
    ]
    more = len(table) - len(shown)
    # A column that says nothing in this table takes no room.
    kept = [k for k in range(len(columns)) if any(row[k] != "n/a" for row in rows)]
    headings = list(columns.values())
    return {
        "title": title,
        "text": text,
        "head": [headings[k][0] for k in kept],
        "rows": [[row[k] for k in kept] for row in rows],
        "more": f"{more} more rows are in the file." if more else "",
        "open": len(rows) <= 40 or name == "change",
        "words": [headings[k][1] == "" for k in kept],
    }


def _cell(value: Any, how: str) -> str:
    if how == "":
        return value if isinstance(value, str) else "n/a"
    if value is None or not np.isfinite(value):
        return "n/a"
    return _p(value) if how == "p" else number(value, int(how))
