"""The table of differences as coloured squares: row minus column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps

from qsmref.analysis import difference_matrix
from qsmref.analysis.reference import REFERENCES

from .wording import number

#: Ends of the colour scale, ppb; the first that holds every difference is taken.
_ENDS = (10, 20, 50, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10000)


@dataclass(frozen=True)
class Cell:
    """One pair."""

    #: Rounded difference, or what stands in its place.
    text: str
    #: CSS colours; empty for a cell without a difference.
    background: str
    colour: str
    #: All that is known of the pair, in words.
    detail: str
    #: The difference is within two standard errors of zero.
    weak: bool = False


@dataclass(frozen=True)
class HeatMap:
    """A square of pairs with the columns of the references at its right."""

    title: str
    rows: list[tuple[str, list[Cell]]]
    columns: list[str]
    #: How many of the columns are references.
    references: int
    #: Ticks of the colour bar, ppb.
    ticks: list[str]
    #: Stops of its CSS gradient.
    stops: str


def heat_maps(differences: pd.DataFrame, regions: pd.DataFrame) -> list[HeatMap]:
    """Heat maps of a differential table: sides joined first, then left and right apart.

    Parameters
    ----------
    differences : DataFrame
        Of :func:`qsmref.analysis.differential_table`.
    regions : DataFrame
        The region table it was made of, for the order and the sides.
    """
    if differences.empty:
        return []
    values = difference_matrix(differences)
    others = {c: difference_matrix(differences, c) for c in ("se", "distance_mm")}
    named = list(values.index)
    references = [n for n in named if n in REFERENCES or n not in set(regions["name"])]
    side = dict(zip(regions["name"], regions["hemisphere"], strict=True))
    single = [n for n in named if n not in references]
    joined = [n for n in single if side[n] not in ("L", "R")]
    apart = [n for n in single if side[n] != "both"]
    largest = np.nanmax(np.abs(values.to_numpy()), initial=0.0)
    end = next((e for e in _ENDS if e >= largest), _ENDS[-1])
    maps = []
    if joined != apart and len(joined) > 1:
        maps.append(_heat_map("Both sides together", joined, references, values, others, end))
    title = "Left and right apart" if maps else "All regions"
    maps.append(_heat_map(title, apart, references, values, others, end))
    return maps


def _heat_map(title, names, references, values, others, end) -> HeatMap:
    columns = [*names, *references]
    rows = [(row, [_cell(row, column, values, others, end) for column in columns]) for row in names]
    stops = ", ".join(_background(x)[0] for x in np.linspace(-1, 1, 11))
    ticks = [f"\u2212{end}", "0", str(end)]
    return HeatMap(title, rows, columns, len(references), ticks, stops)


def _cell(row: str, column: str, values, others, end: int) -> Cell:
    pair = f"{row} \u2212 {column}"
    if row == column:
        return Cell("", "", "", "the same region")
    value = values.loc[row, column]
    distance = others["distance_mm"].loc[row, column]
    if np.isnan(distance) and np.isnan(value):
        return Cell("\u00b7", "", "", f"{pair}: no difference (voxels in common, or no voxels)")
    if np.isnan(value):
        return Cell("n/a", "", "", f"{pair}: n/a (too little of one lies in the mask)")
    error = others["se"].loc[row, column]
    detail = f"{pair} = {number(value, 1)} ppb"
    detail += f", standard error {error:.2f} ppb" if np.isfinite(error) else ""
    detail += f", centres {distance:.0f} mm apart"
    background, colour = _background(value / end)
    return Cell(number(value, 0), background, colour, detail, bool(abs(value) < 2 * error))


def _background(position: float) -> tuple[str, str]:
    """Colour of a value between -1 and 1, and a text colour that can be read on it."""
    # The darkest tenth at either end of the scale is left out: it tells nothing apart.
    rgb = np.array(colormaps["RdBu_r"](0.5 + 0.45 * float(np.clip(position, -1, 1)))[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    # The better of black and white by the contrast ratio of WCAG 2.
    dark = (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05)
    red, green, blue = (rgb * 255).round().astype(int)
    return f"rgb({red} {green} {blue})", "#000" if dark else "#fff"
