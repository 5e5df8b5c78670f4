"""TSV tables as BIDS wants them, and label tables read with one sentence for each mistake."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from . import files
from .problems import DataError


def write_tsv(path: str | os.PathLike, table: pd.DataFrame) -> Path:
    """Write a table: UTF-8, tabs, ``n/a`` for what is missing, six significant digits."""
    text = table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.6g")
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
