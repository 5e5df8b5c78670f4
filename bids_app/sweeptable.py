"""What the sweep of masks did to the values of one map, as rows of a page."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qsmref.analysis.names import split_side
from qsmref.analysis.reference import REFERENCES

from .heatmap import colours_at
from .wording import number, region_name

#: Rows of one kind that the page shows; the file has all of them.
_MOST = 40
#: ppb; a shift that has the darkest colour.
_END = 10.0
_KINDS = ("Regions alone", "Differences between regions", "Against the references")


@dataclass(frozen=True)
class Shift:
    """What a value became under one mask."""

    #: Shift from the whole mask, ppb, or ``n/a``.
    text: str
    background: str
    colour: str
    #: The value itself, in words.
    detail: str


@dataclass(frozen=True)
class Kind:
    """Rows of one kind: name, value under the whole mask, shifts, SD over all masks."""

    title: str
    rows: list[tuple[str, str, list[Shift], str]]
    #: Rows that are only in the file.
    hidden: int
    #: Median of the SD over all rows of the kind, ppb.
    typical: str


@dataclass(frozen=True)
class SweepTable:
    """Shifts of all values under all masks but the whole one."""

    masks: list[str]
    kinds: list[Kind]


def sweep_table(coverage: pd.DataFrame, nuclei: Collection[str] = ()) -> SweepTable | None:
    """Rows of a table of coverages, sides joined where they can be.

    Parameters
    ----------
    coverage : DataFrame
        Of :mod:`qsmref.analysis.coverage`: `slab_cut_mm`, `erosion_mm`, `region`, `reference`,
        `difference` (ppb).
    nuclei : collection of str
        Regions whose rows come first: those that a study is about.

    Returns
    -------
    SweepTable or None
        None when there is no second mask.
    """
    masks = masks_of(coverage)
    if len(masks) < 2 or (0.0, 0.0) not in masks:
        return None
    others = [mask for mask in masks if mask != (0.0, 0.0)]
    named = coverage.assign(reference=coverage["reference"].fillna(""))
    named["mask"] = list(zip(named["slab_cut_mm"], named["erosion_mm"], strict=True))
    wide = named.pivot(index=["region", "reference"], columns="mask", values="difference")
    order = named[["region", "reference"]].drop_duplicates()
    wide = wide.reindex(pd.MultiIndex.from_frame(order))
    wide = wide[[_joined(*pair, set(order["region"])) for pair in wide.index]]
    others_of = [sum(n not in nuclei for n in pair if n) for pair in wide.index]
    wide = wide.iloc[np.argsort(others_of, kind="stable")]
    kinds = []
    for title in _KINDS:
        part = wide[[_kind(*pair) == title for pair in wide.index]]
        if len(part):
            kinds.append(_rows(title, part, others))
    return SweepTable([mask_in_words(*mask) for mask in others], kinds)


def masks_of(coverage: pd.DataFrame) -> list[tuple[float, float]]:
    """Slab cut and erosion (mm) of the masks of a table of coverages, in its order."""
    return list(dict.fromkeys(zip(coverage["slab_cut_mm"], coverage["erosion_mm"], strict=True)))


def _joined(region: str, reference: str, names: set[str]) -> bool:
    """Whether neither of a pair is one side of a structure that is there with both sides."""
    return not any(
        side and base in names for base, side in (split_side(n) for n in (region, reference) if n)
    )


def _kind(region: str, reference: str) -> str:
    if not reference:
        return _KINDS[0]
    return _KINDS[2] if reference in REFERENCES or region in REFERENCES else _KINDS[1]


def mask_in_words(slab: float, erosion: float) -> str:
    """Name of a mask.

    >>> mask_in_words(8, 2)
    'slab \u22128 mm, erosion 2 mm'
    """
    parts = [f"slab \u2212{slab:g} mm"] if slab else []
    return ", ".join(parts + ([f"erosion {erosion:g} mm"] if erosion else []))


def _rows(title: str, part: pd.DataFrame, masks: list[tuple[float, float]]) -> Kind:
    spread = part.std(axis=1, ddof=1)
    rows = []
    for (region, reference), values in part.head(_MOST).iterrows():
        names = [region_name(name) for name in (region, reference) if name]
        name = " \u2212 ".join(names)
        whole = values[(0.0, 0.0)]
        shifts = [_shift(name, whole, values[mask], mask_in_words(*mask)) for mask in masks]
        rows.append((name, number(whole), shifts, number(spread[region, reference], 2)))
    return Kind(title, rows, max(len(part) - _MOST, 0), number(spread.median(), 2))


def _shift(name: str, whole: float, value: Any, mask: str) -> Shift:
    if not np.isfinite(value):
        return Shift("n/a", "", "", f"{name}, {mask}: too little is left")
    shift = value - whole
    if not np.isfinite(shift):
        return Shift(number(value), "", "", f"{name}, {mask}: {number(value)} ppb")
    sign = "+" if round(shift, 1) > 0 else ""
    detail = f"{name}, {mask}: {number(value)} ppb, a shift of {sign}{number(shift)} ppb"
    return Shift(f"{sign}{number(shift)}", *colours_at(shift / _END), detail)
