"""List what is tested: every region alone and every difference, at every coverage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .tables import Measurements, TableError, column, numbers, texts

#: Columns that name a row.
ROW = ["region", "reference", "slab_cut_mm", "erosion_mm"]
#: Numbers held at a time.
_BLOCK = 2_000_000
#: Scatter below this part of the values is rounding, not scatter.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Outcomes:
    """Outcomes (rows) of scans, made from sources: ``sources[:, first] - sources[:, second]``."""

    #: Columns :data:`ROW`; `reference` is None for a region alone.
    rows: pd.DataFrame
    #: Participant and session of each scan.
    participants: np.ndarray
    sessions: np.ndarray | None
    #: (scan, source) float64, ppb.
    sources: np.ndarray
    #: Source of each row, and the one that is subtracted from it (-1: none).
    first: np.ndarray
    second: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def scans(self, keep: np.ndarray) -> Outcomes:
        """The same rows of some scans, by mask or indices."""
        sessions = None if self.sessions is None else self.sessions[keep]
        return Outcomes(
            self.rows,
            self.participants[keep],
            sessions,
            self.sources[keep],
            self.first,
            self.second,
        )

    def values(self, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """(scan, row) values of some rows, ppb."""
        first, second = self.first[rows], self.second[rows]
        values = self.sources[:, first]
        paired = second >= 0
        if paired.all():
            values -= self.sources[:, second]
        elif paired.any():
            values[:, paired] -= self.sources[:, second[paired]]
        return values

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Slices of rows with their values, few enough to be held at a time."""
        size = max(1, _BLOCK // max(1, len(self.participants)))
        for start in range(0, len(self), size):
            rows = slice(start, min(start + size, len(self)))
            yield rows, self.values(rows)

    def resolution(self) -> np.ndarray:
        """Scatter (ppb) of each row under which nothing is left but rounding."""
        size = np.abs(self.sources)
        size[~np.isfinite(size)] = 0.0
        level = size.max(axis=0, initial=0.0)
        other = np.where(self.second >= 0, level[self.second], 0.0)
        return ROUNDING * np.maximum(level[self.first], other)


def outcomes_of(
    measured: Measurements, *, alone: bool = True, pairs: bool | Sequence[tuple[str, str]] = True
) -> Outcomes:
    """Outcomes of a table of regions.

    Parameters
    ----------
    measured : Measurements
        Of :func:`~qsmref.analysis.tables.measurements`.
    alone : bool
        Whether regions alone are rows.
    pairs : bool or sequence of (region, reference)
        Which differences are rows; True for those of `measured`.
    """
    names: list[tuple[str, str | None]] = []
    if alone:
        names += [(name, None) for name in measured.alone]
    if pairs is True:
        names += list(measured.pairs)
    elif pairs:
        names += list(pairs)
    place = {name: k for k, name in enumerate(measured.regions)}
    count = len(measured.regions)
    first = np.array([place[a] for a, _ in names], dtype=np.intp)
    second = np.array([-1 if b is None else place[b] for _, b in names], dtype=np.intp)
    tables, firsts, seconds = [], [], []
    for at, (slab, erosion) in enumerate(measured.coverages):
        frame = pd.DataFrame(
            {
                "region": [a for a, _ in names],
                "reference": pd.Series([b for _, b in names], dtype=object),
                "slab_cut_mm": float(slab),
                "erosion_mm": float(erosion),
            },
            columns=ROW,
        )
        tables.append(frame)
        firsts.append(first + at * count)
        seconds.append(np.where(second < 0, -1, second + at * count))
    return Outcomes(
        pd.concat(tables, ignore_index=True),
        measured.participants,
        measured.sessions,
        measured.values.reshape(len(measured.participants), -1),
        np.concatenate(firsts),
        np.concatenate(seconds),
    )


def outcomes_of_differences(
    differences: pd.DataFrame,
    id_column: str = "participant_id",
    session_column: str | None = None,
    value_column: str = "difference",
) -> Outcomes:
    """Outcomes of a long table of differences, one row a participant and pair.

    Parameters
    ----------
    differences : DataFrame
        Columns `id_column`, ``region``, ``reference`` (missing or ``n/a`` for a region alone),
        `value_column` (ppb); ``slab_cut_mm`` and ``erosion_mm`` where there are coverages (missing
        is 0). Pairs that stand there the other way round are turned to the first order met.
    id_column, session_column, value_column : str
        Names of columns.

    Raises
    ------
    TableError
        A missing column, a cell that is no number, a difference that a participant has twice.
    """
    what = "the table of differences"
    if differences.empty:
        raise TableError(f"{what} has no rows.")
    value = numbers(column(differences, value_column, what), f"{what}, column {value_column!r}")
    place, scans = _coded(differences, [id_column, *([session_column] if session_column else [])])
    for k, name in enumerate([id_column, *([session_column] if session_column else [])]):
        if any(scan[k] is None for scan in scans):
            raise TableError(f"{what} has rows without {name}.")
    pair, pairs = _coded(differences, ["region", "reference"])
    sign = np.ones(len(pairs))
    order: dict[tuple, int] = {}
    same = np.empty(len(pairs), dtype=np.intp)
    for k, (a, b) in enumerate(pairs):
        if a is None:
            raise TableError(f"{what} has rows without region.")
        if b is not None and (b, a) in order:
            same[k], sign[k] = order[(b, a)], -1.0
        else:
            same[k] = order.setdefault((a, b), len(order))
    cover, coverages = _covers(differences)
    row = cover * len(order) + same[pair]
    if pd.Series(place * (len(coverages) * len(order)) + row).duplicated().any():
        at = int(pd.Series(place * (len(coverages) * len(order)) + row).duplicated().argmax())
        a, b = pairs[pair[at]]
        raise TableError(f"{what}: {scans[place[at]][0]} has {a} - {b or 'nothing'} twice.")
    sources = np.full((len(scans), len(coverages) * len(order)), np.nan)
    sources[place, row] = value * sign[pair]
    rows = pd.DataFrame(
        [(a, b, slab, erosion) for slab, erosion in coverages for a, b in order], columns=ROW
    ).astype({"reference": object})
    rows["reference"] = rows["reference"].where(rows["reference"].notna(), None)
    index = np.arange(len(rows))
    participants = np.array([scan[0] for scan in scans], dtype=object)
    sessions = np.array([scan[1] for scan in scans], dtype=object) if session_column else None
    return Outcomes(rows, participants, sessions, sources, index, np.full(len(rows), -1))


def _coded(table: pd.DataFrame, names: list[str]) -> tuple[np.ndarray, list[tuple]]:
    """Code of each row by the texts in some columns, and the texts of each code."""
    total = np.zeros(len(table), dtype=np.int64)
    levels = []
    for name in names:
        codes, unique = pd.factorize(column(table, name, "the table of differences"))
        words = texts(pd.Series(list(unique), dtype=object))
        # A missing cell is code -1; spellings that mean the same become one level.
        level: dict[str | None, int] = {}
        to = np.array([level.setdefault(w, len(level)) for w in [*words, None]], dtype=np.int64)
        levels.append(list(level))
        total = total * len(level) + to[codes]
    codes, found = pd.factorize(total)
    keys = []
    for code in found:
        left, key = int(code), []
        for known in reversed(levels):
            left, k = divmod(left, len(known))
            key.append(known[k])
        keys.append(tuple(reversed(key)))
    return codes, keys


def _covers(table: pd.DataFrame) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Coverage of each row, and the coverages in rising order; missing is the whole mask."""
    parts = []
    for name in ROW[2:]:
        if name in table.columns:
            read = numbers(table[name], f"the table of differences, column {name!r}")
            parts.append(np.where(np.isnan(read), 0.0, read))
        else:
            parts.append(np.zeros(len(table)))
    unique, codes = np.unique(np.stack(parts, axis=1), axis=0, return_inverse=True)
    return codes.ravel(), [(float(s), float(e)) for s, e in unique]
