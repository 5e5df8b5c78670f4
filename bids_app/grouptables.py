"""Tables of a cohort that its page shows as they are: titles, headings, how cells are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from qsmref.analysis.outliers import FEWEST

from .wording import number, region_name

#: Rows of a long table that the page shows; the file has all of them.
_MOST = 120
#: Columns that name a region or reference.
_REGIONS = ("region", "reference", "candidate", "relative_to")


def p_value(value: float) -> str:
    """A p value in few characters."""
    if value is None or not np.isfinite(value):
        return "n/a"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def whole_mask(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the least cut and eroded mask."""
    cover = table[["slab_cut_mm", "erosion_mm"]]
    first = cover.sort_values(["slab_cut_mm", "erosion_mm"]).iloc[0]
    return table[(cover == first).all(axis=1)]


def adjustment(omnibus: pd.DataFrame) -> str:
    """What covariates cost the test of all differences under the whole mask; empty without."""
    sentence = whole_mask(omnibus)["adjustment"].iloc[0]
    return sentence if isinstance(sentence, str) else ""


#: Tables that are shown as they are: title, columns with their heading and how to write them.
SHOWN: dict[str, tuple[str, str, dict[str, tuple[str, str]]]] = {
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
            "note": ("Why not", ""),
        },
    ),
    "reliability": (
        "Agreement of the sessions",
        "It is reliability only if nothing changed between them. "
        "Bias is the second minus the first.",
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
        "safer number is for the upper limit of the SD. Covariates are not taken out of the SD.",
        {
            "region": ("Region", ""),
            "reference": ("Reference", ""),
            "sd": ("SD, ppb", "1"),
            "target_difference": ("To be found, ppb", "0"),
            "n_per_group": ("Participants", "0"),
            "n_per_group_high": ("Safer", "0"),
        },
    ),
    "outliers": (
        "Who is unlike the others",
        "Differences so far from the median of the group that one of twenty healthy cohorts, at "
        "most, has any participant with such a one (distances in robust SD; the bound is for all "
        "participants and differences together). They carry no offset of the map: see whether "
        "mask, field and registration of these participants are sound. Nobody is left out for it.",
        {
            "participant_id": ("Participant", "link"),
            "group": ("Group", ""),
            "n": ("Differences", "0"),
            "n_outlying": ("Outlying", "0"),
            "region": ("Furthest: region", ""),
            "reference": ("minus", ""),
            "difference": ("ppb", "1"),
            "median": ("Median of the group", "1"),
            "z": ("Robust SD away", "1"),
            "limit": ("Bound", "1"),
        },
    ),
    "excluded": (
        "Left out",
        "",
        {
            "participant_id": ("Participant", "link"),
            "analysis": ("Of", ""),
            "reason": ("Because", ""),
        },
    ),
}


def plain_table(name: str, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any] | None:
    """Title, head and rows of a table that is shown as it is."""
    if name not in tables or tables[name].empty:
        return None
    table = tables[name]
    if {"slab_cut_mm", "erosion_mm"} <= set(table.columns):
        table = whole_mask(table)
    if name == "equivalence" and "specifications" in tables:
        # The question is about those that serve as references, where there are such.
        kinds = tables["specifications"]
        tissue = set(kinds.loc[kinds["kind"] == "tissue", "reference"])
        table = table[table["candidate"].isin(tissue)] if tissue else table
    title, text, columns = SHOWN[name]
    if name == "outliers":
        compared = int((table["n"] > 0).sum())
        table = table[table["n_outlying"] > 0]
        if compared:
            text += f" {len(table)} of {compared} participants have such differences."
        else:
            text += f" It takes {FEWEST} participants of a group to say, and no group has them."
        if compared and not len(table):
            most = tables["outliers"].loc[lambda rows: rows["n"] > 0].iloc[0]
            text += (
                f" The nearest to the bound of {number(most['limit'], 1)} is "
                f"{most['participant_id']}, {number(abs(most['z']), 1)} robust SD from the median "
                f"in {most['region']} minus {region_name(most['reference'])}."
            )
    shown = table.head(_MOST)
    rows = [
        [_cell(column, row.get(column), how) for column, (_, how) in columns.items()]
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
        "words": [headings[k][1] in ("", "link") for k in kept],
        "links": [headings[k][1] == "link" for k in kept],
    }


def _cell(column: str, value: Any, how: str) -> str:
    if how in ("", "link"):
        shown = value if isinstance(value, str) else "n/a"
        return region_name(shown) if column in _REGIONS else shown
    if value is None or not np.isfinite(value):
        return "n/a"
    return p_value(value) if how == "p" else number(value, int(how))
