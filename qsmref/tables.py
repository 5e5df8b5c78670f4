"""TSV tables as BIDS wants them, and label tables read with one sentence for each mistake."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from . import files
from .problems import DataError, ExitCode

#: Significant digits that give every float64 back as it was.
EXACT = 17


def write_tsv(path: str | os.PathLike, table: pd.DataFrame, digits: int = 9) -> Path:
    """Write a table: UTF-8, tabs, ``n/a`` for what is missing.

    Nine significant digits hold every float32, which is what maps are made of.
    """
    text = table.to_csv(sep="\t", index=False, na_rep="n/a", float_format=f"%.{digits}g")
    return files.write_text(path, text)


def read_tsv(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table that :func:`write_tsv` wrote, or any BIDS table.

    Only ``n/a`` and empty cells are missing: a region may be called NA.
    """
    try:
        return pd.read_csv(
            path, sep="\t", encoding="utf-8-sig", keep_default_na=False, na_values=["n/a", ""]
        )
    except (ValueError, OSError) as error:
        cause = str(error).splitlines()[0]
        raise DataError(
            f"{Path(path).name} cannot be read as a table: {cause}; mend it."
        ) from error


def read_cells(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table with every cell as text: labels stay as they are written (``01`` is not 1).

    The separator is a tab in ``.tsv``; elsewhere the one of tab, semicolon and comma that the
    header has. Cells that are missing are empty.

    Raises
    ------
    DataError
        A file that is not there or cannot be read, rows of different length, a header with an
        empty or repeated name, no rows.
    """
    path = Path(path)
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            header = handle.readline()
        separator = next((s for s in "\t;," if s in header), ",")
        table = pd.read_csv(
            path,
            sep="\t" if path.suffix.lower() == ".tsv" else separator,
            encoding="utf-8-sig",
            dtype=str,
            header=None,
            keep_default_na=False,
            skipinitialspace=True,
        )
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", ExitCode.MISSING_INPUT) from error
    except (ValueError, OSError) as error:
        cause = str(error).strip().splitlines()[0]
        raise DataError(f"{path} cannot be read as a table: {cause}; mend it.") from error
    names = [str(name).strip() for name in table.iloc[0]]
    for name in names:
        if not name or names.count(name) > 1:
            what = f"the column {name!r} more than once" if name else "a column without a name"
            raise DataError(f"{path.name} has {what}; mend its first line.")
    if len(table) < 2:
        raise DataError(f"{path.name} has no rows below its first line.")
    table = table.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index(names)
    return table.fillna("")


def read_label_table(path: str | os.PathLike) -> pd.DataFrame:
    """Table of the labels of a dseg image: columns ``index``, ``name`` and those it has besides.

    Raises
    ------
    DataError
        Without these columns, or without a row.
    """
    table = read_tsv(path)
    for column in ("index", "name"):
        if column not in table:
            raise DataError(
                f"{Path(path).name} has no column {column}; a dseg.tsv has the columns index and "
                "name."
            )
    if table.empty:
        raise DataError(f"{Path(path).name} names no label; list each with its index and name.")
    numbers = pd.to_numeric(table["index"], errors="coerce")
    if numbers.isna().any():
        row = int(np.flatnonzero(numbers.isna())[0])
        raise DataError(
            f"{Path(path).name}: the index in row {row + 1} is not a number; mend the table."
        )
    return table.assign(index=numbers)
