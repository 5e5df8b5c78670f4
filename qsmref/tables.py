"""TSV tables as BIDS wants them, and label tables read with one sentence for each mistake."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from . import files
from .analysis.tables import Lines, row_words
from .problems import DataError, ExitCode, printable, shown

#: Significant digits that give every float64 back as it was.
EXACT = 17
#: Columns that hold names, whatever they look like.
TEXT = ("name", "hemisphere", "abbreviation", "region", "reference")
#: What the labels of an image may be: those of 32 bits.
_LARGEST_LABEL = 2**31 - 1


_BREAK = re.compile(r"[^\S\n\r\t\v\f]*[\n\r\t\v\f]\s*")
#: Characters in which the line of names is sought.
_HEADER = 100_000


def write_tsv(path: str | os.PathLike, table: pd.DataFrame, digits: int = 9) -> Path:
    """Write a table: UTF-8, tabs, ``n/a`` for what is missing.

    Nine significant digits hold every float32, which is what maps are made of.
    """
    texts = {c: table[c].map(_one_cell) for c in table.columns if c in TEXT}
    text = table.assign(**texts).to_csv(
        sep="\t",
        index=False,
        na_rep="n/a",
        float_format=f"%.{digits}g",
        # A quotation mark is a character of a name in a BIDS table, and nothing else.
        quoting=csv.QUOTE_NONE,
        lineterminator="\n",
    )
    return files.write_text(path, text)


def _one_cell(value):
    return re.sub(r"[\t\r\n]+", " ", value) if isinstance(value, str) else value


def read_tsv(path: str | os.PathLike, text: Sequence[str] = TEXT) -> pd.DataFrame:
    """Read a table that :func:`write_tsv` wrote, or any BIDS table.

    Only ``n/a`` and empty cells are missing: a region may be called NA. Columns named in `text`
    stay as they are written: a region may be called 01.

    Raises
    ------
    DataError
        A file that is not there or cannot be read, a column twice, or rows of different length.
    """
    name = Path(path).name
    try:
        content = files.read_text(path)
        lines = _check_rows(name, content)
        names = content.partition("\n")[0].rstrip("\r").split("\t")
        table = pd.read_csv(
            io.StringIO(content),
            sep="\t",
            keep_default_na=False,
            na_values=["n/a", ""],
            dtype={column: str for column in text if column in names},
            quoting=csv.QUOTE_NONE,
        )
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", ExitCode.MISSING_INPUT) from error
    except (ValueError, OSError, OverflowError) as error:
        raise DataError(
            f"{name} cannot be read as a table: {printable(error)}; mend it."
        ) from error
    if len(lines) == len(table):
        table.attrs["lines"] = lines
    return table


def _check_rows(name: str, content: str) -> Lines:
    """Lines of the rows; refuse what would be read as something else: columns shifted, names cut.

    Lines count from 1, which is that of the names where nothing stands above it.
    """
    odd = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", content)
    if odd:
        raise DataError(f"{name} has the control character {shown(odd[0])}; mend the table.")
    numbered = list(enumerate(re.split(r"\r\n|\n|\r", content), start=1))
    lines = [(k, line) for k, line in numbered if line.strip(" \t")]
    if not lines:
        raise DataError(f"{name} is empty; a table has a line of names and rows.")
    names = [column.strip() for column in lines[0][1].split("\t")]
    for column in names:
        if not column or names.count(column) > 1:
            what = (
                f"the column {shown(column)} more than once"
                if column
                else "a column without a name"
            )
            raise DataError(f"{name} has {what}; mend its first line.")
    for k, line in lines[1:]:
        if line.count("\t") != len(names) - 1:
            raise DataError(
                f"{name}: line {k} has {line.count(chr(9)) + 1} cells, and there are {len(names)} "
                "columns; mend the table."
            )
    return Lines(k for k, _ in lines[1:])


def read_cells(path: str | os.PathLike) -> pd.DataFrame:
    """Read a table with every cell as text: labels stay as they are written (``01`` is not 1).

    The separator is a tab in ``.tsv``; elsewhere the one of tab, semicolon and comma that the
    header has outside quotation marks. Cells that are missing are empty. Rows without any text, and
    columns without a name, as spreadsheets and R leave them, are no part of the table.

    Raises
    ------
    DataError
        A file that is not there or cannot be read, rows of different length, a header with a
        repeated name, no rows.
    """
    path = Path(path)
    tsv = path.suffix.lower() == ".tsv"
    try:
        content = files.read_text(path)
        if tsv:
            _check_rows(path.name, content)
        rows = _rows(content, tsv)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"There is no file {path}.", ExitCode.MISSING_INPUT) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text in UTF-8: save it as CSV in UTF-8 (spreadsheets offer it)."
        ) from error
    except (csv.Error, ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a table: {printable(error)}; mend it."
        ) from error
    if not rows:
        raise DataError(f"{path.name} is empty; a table has a line of names and rows.")
    _check_lengths(path.name, rows)
    names = [name.strip() for name in rows[0][1]]
    if sum(map(bool, names)) == 1 < max(sum(map(bool, row)) for _, row in rows):
        raise DataError(
            f"{path.name}: the first line has one name ({printable(max(names))}) and others have "
            "more cells; the first line must have the names of the columns: delete what stands "
            "above them."
        )
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(
                f"{path.name} has the column {name!r} more than once; mend its first line."
            )
    if len(rows) < 2:
        raise DataError(f"{path.name} has no rows below its first line.")
    keep = [k for k, name in enumerate(names) if name]
    columns = {names[k]: [row[k] for _, row in rows[1:]] for k in keep}
    table = pd.DataFrame(columns, dtype=object)
    table.attrs["lines"] = Lines(line for line, _ in rows[1:])
    return table


def _rows(content: str, tsv: bool) -> list[tuple[int, list[str]]]:
    """Line and cells of the rows that have a text in any of them."""
    # A separator inside quotation marks belongs to a name, and so does the end of a line.
    header = re.sub(r'"[^"]*"', "", content[:_HEADER]).partition("\n")[0]
    separator = "\t" if tsv else next((s for s in "\t;," if s in header), ",")
    # Spreadsheets may name the separator in a line of its own.
    named = None if tsv else re.match(r'"?sep=([,;\t])"?\r?\n', content, re.IGNORECASE)
    skipped = 0
    if named:
        separator, content, skipped = named.group(1), content[named.end() :], 1
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if tsv else csv.QUOTE_MINIMAL,
        skipinitialspace=True,
        strict=True,
    )
    found, line = [], 1 + skipped
    for row in reader:
        if any(cell.strip() for cell in row):
            # A line's end within a name or label is a space, in results too.
            found.append((line, [_BREAK.sub(" ", cell) for cell in row]))
        # A cell in quotation marks may have several lines: the row is where it begins.
        line = reader.line_num + 1 + skipped
    return found


def _check_lengths(name: str, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
    """Refuse rows that are longer or shorter than the line of names."""
    columns = len(rows[0][1])
    for k, row in rows[1:]:
        if len(row) == columns:
            continue
        if columns == 1:
            raise DataError(
                f"{name}: the first line has 1 cell and line {k} has {len(row)}; the first line "
                "must have the names of the columns: delete what stands above them."
            )
        cause = "fewer" if len(row) < columns else "more"
        raise DataError(
            f"{name}: line {k} has {cause} cells than there are columns ({len(row)} and "
            f"{columns}); mend the table."
        )


def read_label_table(path: str | os.PathLike) -> pd.DataFrame:
    """Table of the labels of a dseg image: columns ``index``, ``name`` and those it has besides.

    Raises
    ------
    DataError
        Without these columns, or without a row.
    """
    table = read_tsv(path, (*TEXT, "index"))
    for column in ("index", "name"):
        if column not in table:
            raise DataError(
                f"{Path(path).name} has no column {column}; a dseg.tsv has the columns index and "
                "name."
            )
    if table.empty:
        raise DataError(f"{Path(path).name} names no label; list each with its index and name.")
    numbers = pd.to_numeric(table["index"], errors="coerce").astype(float)
    whole = numbers.where(np.isfinite(numbers) & (numbers.abs() <= _LARGEST_LABEL)) % 1 == 0
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        value = shown(table["index"].iat[row])
        raise DataError(
            f"{Path(path).name}: the index in {row_words(table, row)} is {value}, which is not a "
            "number of a label: these are whole and have 32 bits at the most; mend it."
        )
    return table.assign(index=numbers.astype(np.int64))
