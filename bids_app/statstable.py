"""Tables of ``qsmref-stats`` as they were published: other decimal signs, other marks for gaps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qsmref import tables
from qsmref.analysis.tables import TableError, row_words

#: Column that names the rows of a table without a column of participants.
ROWS = "row"

_WITH_COMMA = re.compile(r"\s*[-+\u2212]?\d*,\d+(?:[eE][-+]?\d+)?\s*")
_WITH_POINT = re.compile(r"\s*[-+\u2212]?\d*\.\d+(?:[eE][-+]?\d+)?\s*")


def read_table(
    path: Path, *, numeric: Iterable[str], decimal: str = "point", missing: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a table with every cell as text, numbers with a point and gaps empty.

    Parameters
    ----------
    path : path
        As for :func:`qsmref.tables.read_cells`.
    numeric : iterable of str
        Columns that may hold numbers; those that are not there are told later.
    decimal : {"point", "comma"}
        Sign that the numbers of these columns are written with.
    missing : sequence of str
        Cells that mean "no value", in any column; one that is a number (``-999``) stands for it
        however it is written (``-999.0``).

    Raises
    ------
    TableError
        A number with a point in a table whose numbers have a comma: nobody can say what it means.
    """
    table = tables.read_cells(path)
    if decimal == "comma":
        for name in dict.fromkeys(numeric):
            if name in table:
                table[name] = _pointed(table, name, path.name)
    for mark in missing:
        table = table.mask(table.map(lambda cell, mark=mark: _same(cell, mark)), "")
    return table


def _pointed(table: pd.DataFrame, name: str, what: str) -> pd.Series:
    """Cells of a column whose decimal comma has become a point; texts stay."""
    cells = table[name]
    odd = cells.map(lambda cell: bool(_WITH_POINT.fullmatch(cell)))
    if odd.any():
        row = int(np.flatnonzero(odd)[0])
        raise TableError(
            f"{what}, column {name!r}, {row_words(table, row)}: {cells.iloc[row]!r} has a point, "
            "and numbers are said to have a comma (--decimal comma); write all of them in one way."
        )
    return cells.map(lambda c: c.replace(",", ".") if _WITH_COMMA.fullmatch(c) else c)


def _same(cell: str, mark: str) -> bool:
    cell, mark = cell.strip(), mark.strip()
    if cell == mark:
        return True
    try:
        return float(cell) == float(mark.replace(",", "."))
    except ValueError:
        return False


def with_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Table with a column that numbers its rows, for one without a column of participants."""
    name = ROWS
    while name in table:
        name += "_"
    numbered = [f"row-{k + 1}" for k in range(len(table))]
    numbered = pd.DataFrame({name: numbered}, dtype=object)
    return pd.concat([numbered, table], axis=1)
