"""Tables of region means from any tool: wide or long, in ppm or ppb, checked cell by cell.

What is wrong with a table is told in one sentence (:class:`TableError`) that names the column and
the row; no value is ever guessed or repaired.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
import pandas as pd

from .methods import UNITS
from .visits import visits_of

#: Cells that mean "missing" in columns of numbers and in columns of text (lower case).
MISSING_NUMBER = {"", "n/a", "na", "nan", "none", "null", "#n/a", "<na>"}
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
MISSING_TEXT = {"", "n/a", "nan", "#n/a", "<na>"}


class TableError(ValueError):
    """A table that cannot be used; the message is the sentence for the user."""


class RequestError(TableError):
    """A name or number that was asked for and does not fit the table."""


def listed(names: Iterable[object], most: int = 16) -> str:
    """Names with commas between them, cut after some.

    >>> listed(["SN", "RN"]), listed("abc", most=2)
    ('SN, RN', 'a, b and 1 more')
    """
    words = [str(name) for name in names]
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def hint(name: str, known: Iterable[object]) -> str:
    """What to say about a name that is not among the known ones.

    >>> hint("patients", ["control", "patient"])
    "did you mean 'patient'? There are control, patient"
    >>> hint("SN", ["RN (ppm)", "RN", "SN (ppm)"])
    "did you mean 'SN (ppm)'? There are RN (ppm), RN, SN (ppm)"
    """
    words = [str(k) for k in known]
    lower = {k.lower(): k for k in reversed(words)}
    # A name with something behind it, such as a unit, is nearer than another of the same length.
    longer = [k for k in lower if re.match(rf"{re.escape(str(name).lower())}\b", k)]
    close = longer or difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.5)
    start = f"did you mean {lower[close[0]]!r}? There" if close else "there"
    return f"{start} are {listed(words)}"


def column(table: pd.DataFrame, name: str, what: str = "the table") -> pd.Series:
    """A column by name, or a TableError with the name that was probably meant."""
    if name not in table.columns:
        raise RequestError(f"{what} has no column {name!r}; {hint(name, table.columns)}.")
    if list(table.columns).count(name) > 1:
        raise TableError(f"{what} has the column {name!r} more than once.")
    return table[name]


class Lines(tuple):
    """Line of the file that each row of a table was read from; ``table.attrs["lines"]``.

    pandas copies attributes with every table that it makes of another.
    """

    def __deepcopy__(self, memo: object) -> Lines:
        return self


def row_words(table: pd.DataFrame, at: int) -> str:
    """What to call a row: its line in the file, where the table knows it; else its number from 1.

    >>> table = pd.DataFrame({"SN": [1, 2]})
    >>> row_words(table, 1)
    'row 2'
    >>> table.attrs["lines"] = Lines((2, 5))
    >>> row_words(table, 1)
    'line 5'
    """
    lines = table.attrs.get("lines", ())
    # Rows that were left out since have taken their lines with them.
    return f"line {lines[at]}" if len(lines) == len(table) else f"row {at + 1}"


def texts(series: pd.Series) -> np.ndarray:
    """Cells of a column as stripped text, None where missing; 1.0 and 1 are the same label.

    >>> texts(pd.Series([1.0, None, " a ", "2.0"], dtype=object)).tolist()
    ['1', None, 'a', '2']
    """

    def text(cell) -> str | None:
        if cell is None or cell is pd.NA or (isinstance(cell, float) and np.isnan(cell)):
            return None
        if isinstance(cell, float | np.floating) and float(cell).is_integer():
            cell = int(cell)
        stripped = str(cell).strip()
        # As pandas writes whole numbers of a column with gaps.
        whole = _WHOLE.fullmatch(stripped)
        stripped = whole.group(1) if whole else stripped
        return None if stripped.lower() in MISSING_TEXT else stripped

    return np.array([text(cell) for cell in series], dtype=object)


def numbers(series: pd.Series, what: str, rows: Sequence[object] | None = None) -> np.ndarray:
    """Cells of a column as float64, NaN where missing.

    Parameters
    ----------
    series : Series
        Numbers, or texts of numbers.
    what : str
        What to call the column in a sentence.
    rows : sequence, optional
        What to call its rows; by default their numbers from 1.

    Raises
    ------
    TableError
        A cell that is neither a finite number nor missing.
    """
    if pd.api.types.is_numeric_dtype(series.dtype):
        values = series.to_numpy(dtype=np.float64, na_value=np.nan)
        odd = np.isinf(values)
    else:
        cells = series.astype(object).map(lambda c: "" if pd.isna(c) else str(c).strip())
        # Typeset tables have a minus sign in place of a hyphen.
        cells = cells.str.replace("\u2212", "-", regex=False)
        missing = cells.str.lower().isin(MISSING_NUMBER).to_numpy()
        values = pd.to_numeric(cells.where(~missing), errors="coerce").to_numpy(dtype=np.float64)
        odd = ~missing & ~np.isfinite(values)
    if odd.any():
        at = int(np.flatnonzero(odd)[0])
        row = f"row {at + 1}" if rows is None else str(rows[at])
        cell = str(series.iloc[at])
        raise TableError(f"{what}, {row}: {cell!r} is not a finite number; {_cure(cell)}.")
    return values


def _cure(cell: str) -> str:
    """What to do about a cell that is no number."""
    if re.search(r"[0-9]\s*(±|\+/-|\()", cell):
        return (
            "it looks like a mean with its SD, and each row must be a participant: published means "
            "and SDs are compared by qsmref.analysis.compare_summaries in Python"
        )
    if "," in cell and "." in cell:
        return "write it without a sign between the thousands"
    if "," in cell:
        return "write it with a decimal point (qsmref-stats reads it with --decimal comma)"
    return (
        "a cell holds a number and nothing beside it, and is empty or n/a where there is "
        "none (qsmref-stats: --missing names other signs)"
    )


@dataclass(frozen=True)
class Measurements:
    """Mean susceptibility of regions in scans, ppb: what all group statistics start from.

    A difference is made from it when it is needed, so that ten thousand participants with
    thirty regions and eleven coverages take 26 MB.
    """

    #: Participant of each scan.
    participants: np.ndarray
    #: (scan, coverage, region) float64, ppb; NaN where there is none.
    values: np.ndarray
    #: Names along the last axis; those of `references` are only subtracted.
    regions: tuple[str, ...]
    references: tuple[str, ...] = ()
    #: Slab cut and erosion (mm) along the second axis.
    coverages: tuple[tuple[float, float], ...] = ((0.0, 0.0),)
    #: Session of each scan, None when the table has none.
    sessions: np.ndarray | None = None
    #: Pairs (region, reference) that are compared; by default every one, references second.
    pairs: tuple[tuple[str, str], ...] = field(default=())
    #: Different sessions, the first one first; by default by number, or by name.
    visits: tuple[str, ...] = ()

    def __post_init__(self):
        if self.sessions is not None:
            object.__setattr__(self, "visits", visits_of(list(self.sessions), self.visits))
        shape = (len(self.participants), len(self.coverages), len(self.regions))
        if self.values.shape != shape:
            raise ValueError(f"values have shape {self.values.shape}, expected {shape}")
        for name in self.references:
            if name not in self.regions:
                raise RequestError(f"reference {name!r} is no region; {hint(name, self.regions)}.")
        if not self.pairs:
            object.__setattr__(self, "pairs", all_pairs(self.regions, self.references))

    @property
    def alone(self) -> tuple[str, ...]:
        """Regions that are no references."""
        return tuple(name for name in self.regions if name not in self.references)

    def scans(self, keep: np.ndarray) -> Measurements:
        """Those of the scans that a mask or list of indices selects."""
        return replace(
            self,
            participants=self.participants[keep],
            values=self.values[keep],
            sessions=None if self.sessions is None else self.sessions[keep],
        )

    def select(self, regions: Sequence[str]) -> Measurements:
        """Some of the regions, and the references.

        Raises
        ------
        RequestError
            A name that is no region.
        """
        for name in regions:
            if name not in self.regions:
                raise RequestError(f"there is no region {name!r}; {hint(name, self.regions)}.")
        keep = [n for n in self.regions if n in regions or n in self.references]
        at = [self.regions.index(name) for name in keep]
        pairs = tuple(pair for pair in self.pairs if set(pair) <= set(keep))
        return replace(self, values=self.values[:, :, at], regions=tuple(keep), pairs=pairs)

    def full_coverage(self) -> Measurements:
        """The same at the whole mask: the coverage without cut and erosion, else the first."""
        at = self.coverages.index((0.0, 0.0)) if (0.0, 0.0) in self.coverages else 0
        return replace(self, values=self.values[:, at : at + 1], coverages=(self.coverages[at],))

    def one_scan_each(self) -> None:
        """Raise a TableError when a participant has several scans."""
        ids = pd.Series(self.participants)
        twice = ids[ids.duplicated()]
        if len(twice):
            raise RequestError(
                f"{twice.iloc[0]} has {int((ids == twice.iloc[0]).sum())} sessions, and a "
                "comparison of groups needs one value for each participant: choose a session, or "
                "test the change over sessions."
            )


def all_pairs(
    regions: Sequence[str], references: Sequence[str] = ()
) -> tuple[tuple[str, str], ...]:
    """Every unordered pair once in the order of `regions`, references second, never two of them.

    >>> all_pairs(["SN", "brain", "RN"], ["brain"])
    (('SN', 'RN'), ('SN', 'brain'), ('RN', 'brain'))
    """
    inner = [name for name in regions if name not in references]
    outer = [name for name in regions if name in references]
    return tuple(pair for pair in combinations(inner + outer, 2) if pair[0] not in references)


def measurements(
    table: pd.DataFrame,
    id_column: str = "participant_id",
    regions: Sequence[str] | None = None,
    units: str = "ppb",
    *,
    session_column: str | None = None,
    region_column: str | None = None,
    value_column: str | None = None,
    references: Sequence[str] = (),
    what: str = "the table",
) -> Measurements:
    """Read a table of region means.

    Parameters
    ----------
    table : DataFrame
        Wide: one row a scan, one column a region. Long (with `region_column` and
        `value_column`): one row a region of a scan.
    id_column : str
        Column of participants.
    regions : sequence of str, optional
        Which regions, and in which order; needed for a wide table. Default of a long table: all,
        in the order in which they appear.
    units : {"ppb", "ppm"}
        Unit of the values.
    session_column : str, optional
        Column of visits; without it every participant has one scan.
    region_column, value_column : str, optional
        Columns of a long table.
    references : sequence of str
        Regions that are only subtracted (``CSF``); they may be left out of `regions`.
    what : str
        What to call the table in a sentence.

    Returns
    -------
    Measurements
        ppb.

    Raises
    ------
    TableError
        A column that is not there (with the one that was probably meant), a cell that is no
        number, a row without participant, a participant (or visit) that stands twice, a unit
        that is not known.

    Examples
    --------
    >>> table = pd.DataFrame({"ID": ["a", "b"], "SN": [0.12, 0.1], "RN": [0.1, 0.1]})
    >>> measurements(table, "ID", ["SN", "RN"], "ppm").values[:, 0].round(6).tolist()
    [[120.0, 100.0], [100.0, 100.0]]
    """
    if units not in UNITS:
        raise RequestError(f"unit {units!r} is not known; {hint(units, UNITS)}.")
    if table.empty:
        raise TableError(f"{what} has no rows.")
    ids = texts(column(table, id_column, what))
    if any(i is None for i in ids):
        row = row_words(table, int(np.flatnonzero([i is None for i in ids])[0]))
        raise TableError(
            f"{what}, {row}: there is nothing in the column {id_column!r}; delete the row if "
            "it holds no participant, such as a second line of names or a sum."
        )
    sessions = None
    if session_column is not None:
        sessions = texts(column(table, session_column, what))
        if any(s is None for s in sessions):
            at = int(np.flatnonzero([s is None for s in sessions])[0])
            raise TableError(f"{what}: {ids[at]} has a row without {session_column}.")
    if (region_column is None) != (value_column is None):
        raise RequestError("a long table needs both the column of regions and that of values.")
    if region_column is not None and value_column is not None:
        read = _long(table, ids, sessions, regions, references, region_column, value_column, what)
    else:
        read = _wide(table, ids, sessions, regions, references, what)
    return replace(read, values=read.values * UNITS[units])


def _names(regions: Sequence[str], references: Sequence[str]) -> tuple[str, ...]:
    names = tuple(regions) + tuple(r for r in references if r not in regions)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise RequestError(f"region {twice[0]!r} is asked for twice.")
    return names


def _wide(table, ids, sessions, regions, references, what) -> Measurements:
    if not regions:
        raise RequestError("say which columns are regions.")
    names = _names(regions, references)
    keys = list(ids) if sessions is None else list(zip(ids, sessions, strict=True))
    _refuse_twice(keys, what, sessions is not None)
    values = np.empty((len(ids), 1, len(names)))
    for j, name in enumerate(names):
        values[:, 0, j] = numbers(column(table, name, what), f"{what}, column {name!r}", ids)
    return Measurements(ids, values, names, tuple(references), sessions=sessions)


def _long(
    table, ids, sessions, regions, references, region_column, value_column, what
) -> Measurements:
    cells = texts(column(table, region_column, what))
    present = tuple(dict.fromkeys(c for c in cells if c is not None))
    names = _names(regions or [p for p in present if p not in references], references)
    for name in names:
        if name not in present:
            raise RequestError(f"{what} has no region {name!r}; {hint(name, present)}.")
    value = numbers(column(table, value_column, what), f"{what}, column {value_column!r}", ids)
    wanted = np.array([c in names for c in cells])
    keys = list(zip(ids, sessions if sessions is not None else [None] * len(ids), strict=True))
    scans = list(dict.fromkeys(keys))
    row = {key: k for k, key in enumerate(scans)}
    at = np.array([row[key] for key in keys], dtype=np.intp)[wanted]
    which = np.array([names.index(c) for c in cells[wanted]], dtype=np.intp)
    twice = pd.Series(at * len(names) + which).duplicated()
    if twice.any():
        k = int(np.flatnonzero(twice)[0])
        scan = scans[at[k]]
        visit = "" if sessions is None else f" at {scan[1]}"
        raise TableError(f"{what}: {scan[0]} has region {names[which[k]]!r} twice{visit}.")
    values = np.full((len(scans), 1, len(names)), np.nan)
    values[at, 0, which] = value[wanted]
    participants = np.array([s[0] for s in scans], dtype=object)
    visits = None if sessions is None else np.array([s[1] for s in scans], dtype=object)
    return Measurements(participants, values, names, tuple(references), sessions=visits)


def _refuse_twice(keys: list, what: str, sessions: bool) -> None:
    seen = set()
    for key in keys:
        if key in seen:
            if sessions:
                raise TableError(f"{what}: {key[0]} stands twice with session {key[1]}.")
            raise TableError(
                f"{what}: {key} stands in more than one row; if these are visits, say which "
                "column tells them apart."
            )
        seen.add(key)
