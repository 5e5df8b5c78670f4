"""The table of differences as coloured squares: row minus column."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib import colormaps

from qsmref.analysis import difference_matrix
from qsmref.analysis.reference import REFERENCES

from .wording import number, region_name

#: Ends of the colour scale, ppb; the first that holds nine of ten differences is taken, so that one
#: odd region (a vein) does not bleach all the others. What lies beyond has the colour of the end.
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
    pairs = _Pairs.of(differences)
    named = list(pairs.values.index)
    references = [n for n in named if n in REFERENCES or n not in set(regions["name"])]
    side = dict(zip(regions["name"], regions["hemisphere"], strict=True))
    single = [n for n in named if n not in references]
    joined = [n for n in single if side[n] not in ("L", "R")]
    apart = [n for n in single if side[n] != "both"]
    maps = []
    if joined != apart and len(joined) > 1:
        maps.append(pairs.heat_map("Both sides together", joined, references))
    title = "Left and right apart" if maps else "All regions"
    maps.append(pairs.heat_map(title, apart, references))
    return maps


@dataclass(frozen=True)
class _Pairs:
    """A differential table as squares, and the scale of their colours."""

    values: pd.DataFrame
    errors: pd.DataFrame
    distances: pd.DataFrame
    #: ppb
    end: int
    #: Whether a difference lies beyond the end.
    beyond: bool

    @classmethod
    def of(cls, differences: pd.DataFrame) -> _Pairs:
        sizes = differences["difference"].abs().dropna()
        most = float(np.percentile(sizes, 90)) if len(sizes) else 0.0
        end = next((e for e in _ENDS if e >= most), _ENDS[-1])
        columns = ("difference", "se", "distance_mm")
        squares = [difference_matrix(differences, column) for column in columns]
        return cls(*squares, end, bool((sizes > end).any()))

    def heat_map(self, title: str, names: list[str], references: list[str]) -> HeatMap:
        columns = [*names, *references]
        rows = [(row, [self.cell(row, column) for column in columns]) for row in names]
        stops = ", ".join(colours_at(x)[0] for x in np.linspace(-1, 1, 11))
        low, high = f"\u2212{self.end}", str(self.end)
        if self.beyond:
            low, high = f"\u2264 {low}", f"\u2265 {high}"
        shown = [region_name(column) for column in columns]
        return HeatMap(title, rows, shown, len(references), [low, "0", high], stops)

    def cell(self, row: str, column: str) -> Cell:
        pair = f"{row} \u2212 {region_name(column)}"
        if row == column:
            return Cell("", "", "", "the same region")
        value, error = self.values.loc[row, column], self.errors.loc[row, column]
        distance = self.distances.loc[row, column]
        if np.isnan(distance) and np.isnan(value):
            return Cell("\u00b7", "", "", f"{pair}: no difference (voxels in common, or no voxels)")
        if np.isnan(value):
            return Cell("n/a", "", "", f"{pair}: n/a (too little of one lies in the mask)")
        detail = f"{pair} = {number(value, 1)} ppb"
        detail += f", standard error {error:.2f} ppb" if np.isfinite(error) else ""
        detail += f", centres {distance:.0f} mm apart"
        background, colour = colours_at(value / self.end)
        weak = bool(abs(value) < 2 * error)
        return Cell(number(value, 0), background, colour, detail, weak)


def colours_at(position: float) -> tuple[str, str]:
    """Colour of a value between -1 and 1, and a text colour that can be read on it."""
    # The darkest tenth at either end of the scale is left out: it tells nothing apart.
    rgb = np.array(colormaps["RdBu_r"](0.5 + 0.45 * float(np.clip(position, -1, 1)))[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    # The better of black and white by the contrast ratio of WCAG 2.
    dark = (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05)
    red, green, blue = (rgb * 255).round().astype(int)
    return f"rgb({red} {green} {blue})", "#000" if dark else "#fff"
