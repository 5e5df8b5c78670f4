"""What looks wrong in a table of means, and may be meant: sentences, nothing is changed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from .design import column_of
from .tables import Measurements, listed, texts

__all__ = ["doubts_of", "mixed_units", "spelling_doubts", "unit_doubt"]

_SUMS = re.compile(r"(mean|average|avg|sd|std|sem|median|total|sum|range)\b", re.IGNORECASE)


def doubts_of(
    measured: Measurements,
    units: str,
    people: pd.DataFrame | None = None,
    group_column: str | None = None,
    covariates: Sequence[str] = (),
) -> list[str]:
    """Sentences on what looks wrong in the values, the names and the groups of a cohort.

    Parameters
    ----------
    measured : Measurements
        ppb.
    units : str
        That the table was said to have.
    people : DataFrame, optional
        Table of participants.
    group_column, covariates
        Columns of it that are used.
    """
    found = [*filter(None, [unit_doubt(measured, units)]), *mixed_units(measured)]
    ids = list(dict.fromkeys(measured.participants))
    sums = [name for name in ids if _SUMS.match(str(name))]
    if sums:
        found.append(
            f"{listed(sums, 5)} look like sums over other rows, and count as participants: delete "
            "these rows if they are."
        )
    found += spelling_doubts("participants", ids)
    found += spelling_doubts("sessions", measured.visits)
    if people is not None:
        used = [*([group_column] if group_column else []), *map(column_of, covariates)]
        for name in dict.fromkeys(used):
            found += _category_doubts(people, name) if name in people else []
    return found


def spelling_doubts(what: str, labels: Iterable[str]) -> list[str]:
    """Sentences on labels that differ in case, spaces, zeros before a number or ``sub-`` alone.

    >>> spelling_doubts("sessions", ["Baseline", "baseline", "12", "V1"])
    ["the sessions 'Baseline' and 'baseline' count as different: are they the same?"]
    """
    alike: dict[str, list[str]] = {}
    for label in labels:
        plain = str(label).casefold().removeprefix("sub-")
        # Between two numbers a sign counts: 1-1 is not 11, and 0.05 is not 0.5.
        plain = re.sub(r"(?<!\d)[\s_.-]+|[\s_.-]+(?!\d)", "", plain)
        alike.setdefault(re.sub(r"(?<![\d.,])0+(?=\d)", "", plain), []).append(str(label))
    pairs = [same for same in alike.values() if len(same) > 1]
    named = ["' and '".join(same[:3]) for same in pairs[:3]]
    more = f" (and {len(pairs) - 3} more)" if len(pairs) > 3 else ""
    words = "'; '".join(named)
    return [f"the {what} '{words}'{more} count as different: are they the same?"] if pairs else []


def _category_doubts(people: pd.DataFrame, name: str) -> list[str]:
    labels = pd.Series(texts(people[name])).dropna()
    if pd.to_numeric(labels, errors="coerce").notna().all():
        return []
    sizes = labels.value_counts()
    found = spelling_doubts(f"labels of {name}", list(sizes.index))
    single = sorted(sizes.index[sizes == 1])
    # A column in which most labels are single is no column of categories.
    if single and len(single) <= len(sizes) / 2:
        found.append(f"one participant alone has the {name} {listed(map(repr, single), 5)}.")
    return found


def unit_doubt(measured: Measurements, units: str) -> str | None:
    """A sentence when the size of the values speaks against their unit, else None.

    No tissue has a susceptibility above 10 ppm, and brain nuclei lie between 10 and 300 ppb.
    """
    level = np.nanmedian(np.abs(measured.values)) if np.isfinite(measured.values).any() else np.nan
    if units == "ppm" and level > 10_000:
        return f"the median value is {level / 1000:.3g} ppm, which no tissue has: is it ppb?"
    if units == "ppb" and 0 < level < 1:
        return f"the median value is {level:.3g} ppb, which is very small: is it ppm?"
    return None


def mixed_units(measured: Measurements) -> list[str]:
    """Sentences on regions and participants whose values have another unit than the others.

    ppm and ppb are a factor of 1000 apart. A region counts when both the size of its values and
    their scatter are a hundredth or less of what is usual in the others, or a hundred times as
    large; a participant when the values are. A region that a map was referenced to is zero in all
    participants, and has neither.
    """
    values = np.abs(measured.values[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without a number
        level = np.nanmedian(values, axis=0)
        scatter = np.nanstd(measured.values[:, 0], axis=0)
        person = np.nanmedian(values, axis=1)
    far = [_far(level) & _far(scatter), _far(person)]
    named = [np.asarray(measured.regions, object), np.asarray(measured.participants, object)]
    return [
        f"the values of {listed(dict.fromkeys(names[odd]))} differ a hundredfold or more from "
        "those of the others: are all in one unit?"
        for names, odd in zip(named, far, strict=True)
        if odd.any()
    ]


def _far(sizes: np.ndarray) -> np.ndarray:
    """Which sizes are a hundredth of the median of the positive ones, or less, or a hundredfold."""
    counted = np.isfinite(sizes) & (sizes > 0)
    if np.count_nonzero(counted) < 3:
        return np.zeros(sizes.shape, bool)
    typical = np.median(sizes[counted])
    return counted & ((sizes <= typical / 100) | (sizes >= 100 * typical))
