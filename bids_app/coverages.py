"""Read the coverage tables of all participants as one array.

Only the rows of regions alone are read, since a difference is that of two of them. Our own tables
have these rows first, and say so in the sidecar: the beginning of the file is enough then.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from qsmref.problems import DataError

from .collect import Scan

_NEEDED = (b"slab_cut_mm", b"erosion_mm", b"region", b"reference", b"difference")
_COVERAGE = b"coverage_region"
_ALONE = b"n/a"
#: Bytes that hold the rows of regions alone of most tables.
_CHUNK = 1 << 15
#: Files that are read at a time.
_READERS, _BATCH = 4, 64
#: Sidecars of our tables have it.
_FIRST = b'"RegionsAloneFirst": true'


def read_coverage(
    scans: Sequence[Scan],
    names: Sequence[str],
    references: Sequence[str] = (),
    kept: float = 0.0,
) -> tuple[dict[tuple[float, float], np.ndarray], int]:
    """Means of the regions at each coverage, from ``_desc-coverage_Chimap.tsv``.

    Parameters
    ----------
    scans : sequence of Scan
        Scans; those without such a table have no values.
    names : sequence of str
        Regions.
    references : sequence of str
        Those that are only subtracted: they are taken as the mask leaves them.
    kept : float
        Part of a region, of what the whole mask has of it, that a mask must keep: below it the
        region has no value, since it would be another region.

    Returns
    -------
    means : dict
        From slab cut and erosion (mm) to a (scan, region) array, ppb; slab cuts first.
    lost : int
        Values that were left out because the mask cut the region.

    Raises
    ------
    DataError
        A table without the columns of the contract, or with a cell that is no number.
    """
    place = {name.encode(): k for k, name in enumerate(names)}
    values: dict[tuple[float, float], np.ndarray] = {}
    covered: dict[tuple[float, float], np.ndarray] = {}
    rows_of = _Places(place)
    paths = [scan.paths.get("coverage") for scan in scans]
    for k, (path, text) in enumerate(zip(paths, _contents(paths), strict=True)):
        if path is None:
            continue
        try:
            table = _columns(path, text)
            number, part = _numbers(table[4]), _numbers(table[5])
            covers, at, which = rows_of(table)
        except (ValueError, IndexError) as error:
            raise DataError(f"{path.name} is damaged: {error}.") from error
        for c, cover in enumerate(covers):
            if cover not in values:
                values[cover] = np.full((len(scans), len(names)), np.nan)
                covered[cover] = np.full((len(scans), len(names)), np.nan)
            rows = at[c]
            values[cover][k, which[rows]] = number[rows]
            covered[cover][k, which[rows]] = part[rows]
    lost = _leave_out(
        values, covered, [place[r] for r in map(str.encode, references) if r in place], kept
    )
    return dict(sorted(values.items(), key=lambda item: item[0][::-1])), lost


def _leave_out(values, covered, references, kept: float) -> int:
    """Take out the values of regions that a mask cuts; returns how many there were."""
    whole = covered.get((0.0, 0.0))
    lost = 0
    for cover, part in covered.items():
        least = kept * (1.0 if whole is None else np.where(np.isnan(whole), 1.0, whole))
        # A table without this column says nothing about it.
        cut = part < least - 1e-6
        cut[:, references] = False
        lost += int(np.count_nonzero(cut & np.isfinite(values[cover])))
        values[cover][cut] = np.nan
    return lost


class _Places:
    """Where the rows of a table go; most tables of a cohort have the same rows."""

    def __init__(self, place: dict[bytes, int]):
        self._place = place
        self._last: tuple | None = None
        self._found: tuple | None = None

    def __call__(self, table: Sequence[list[bytes]]):
        key = (table[0], table[1], table[2])
        if self._found is None or key != self._last:
            self._last, self._found = key, self._look(*key)
        return self._found

    def _look(self, slabs, erosions, regions):
        covers = {
            cell: (float(cell[0]), float(cell[1]))
            for cell in dict.fromkeys(zip(slabs, erosions, strict=True))
        }
        unique = list(dict.fromkeys(covers.values()))
        code = np.array([unique.index(covers[c]) for c in zip(slabs, erosions, strict=True)])
        which = np.array([self._place.get(region, -1) for region in regions], dtype=np.intp)
        at = [np.flatnonzero((code == c) & (which >= 0)) for c in range(len(unique))]
        for rows in at:
            if len(np.unique(which[rows])) < len(rows):
                seen = [regions[row] for row in rows]
                twice = next(region for region in seen if seen.count(region) > 1)
                raise ValueError(f"the region {twice.decode()!r} stands twice at one coverage")
        return unique, at, which


def _numbers(cells: list[bytes]) -> np.ndarray:
    """Numbers of cells, NaN for ``n/a``."""
    try:
        return np.array([float(cell) for cell in cells])
    except ValueError:
        return np.array([np.nan if cell == _ALONE else _number(cell) for cell in cells])


def _number(cell: bytes) -> float:
    try:
        return float(cell)
    except ValueError as error:
        raise ValueError(f"{cell.decode(errors='replace')!r} is no number") from error


def _columns(path: Path, text: bytes) -> tuple[list[bytes], ...]:
    """Slab cut, erosion, region, reference, difference and coverage of the regions alone."""
    header, _, body = text.partition(b"\n")
    names = header.split(b"\t")
    lacking = [name.decode() for name in _NEEDED if name not in names]
    if lacking:
        raise DataError(f"{path.name} has no column {lacking[0]}.")
    at, width = [names.index(name) for name in _NEEDED], len(names)
    cells = body.replace(b"\n", b"\t").split(b"\t") if body else []
    rows = body.count(b"\n") + 1 if body else 0
    if len(cells) != rows * width:
        odd = next(r for r in body.split(b"\n") if r.count(b"\t") != width - 1)
        raise ValueError(f"{odd.decode(errors='replace')!r} has not {width} cells")
    columns = [cells[i::width] for i in at]
    unknown = [_ALONE] * len(columns[0])
    columns.append(cells[names.index(_COVERAGE) :: width] if _COVERAGE in names else unknown)
    if columns[3].count(_ALONE) < len(columns[3]):
        keep = [i for i, cell in enumerate(columns[3]) if cell == _ALONE]
        columns = [[column[i] for i in keep] for column in columns]
    return tuple(columns)


def _contents(paths: Sequence[Path | None]) -> Iterator[bytes]:
    """Rows of the files that are needed, empty for none; read a few at a time."""
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(paths), _BATCH):
            yield from pool.map(_needed, paths[start : start + _BATCH])


def _needed(path: Path | None) -> bytes:
    """Header and rows of a table, as far as they are of regions alone where it says they are."""
    if path is None:
        return b""
    sidecar = path.with_suffix(".json")
    ours = sidecar.is_file() and _FIRST in sidecar.read_bytes()
    with open(path, "rb") as handle:
        text = handle.read(_CHUNK if ours else -1)
        end = _end_of_alone(text) if ours else 0
        while ours and not end and (more := handle.read(_CHUNK)):
            text += more
            end = _end_of_alone(text)
    text = text[:end] if end else text
    return text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").rstrip(b"\n")


def _end_of_alone(text: bytes) -> int:
    """Where the first row with a reference starts; 0 when no such row is in the text.

    The rows without one come first, so that the place is found by halving.
    """
    rows = text[: text.rfind(b"\n") + 1].splitlines(keepends=True)
    names = rows[0].strip().split(b"\t") if rows else []
    if b"reference" not in names:
        return 0
    column = names.index(b"reference")

    def paired(row: bytes) -> bool:
        return row.rstrip().split(b"\t")[column : column + 1] != [_ALONE]

    first = bisect.bisect_left(rows, True, lo=1, key=paired)
    return sum(map(len, rows[:first])) if first < len(rows) else 0
