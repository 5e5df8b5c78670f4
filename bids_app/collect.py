"""The tables of all participants, found in the folder of results and joined as text.

Ten thousand participants are twenty thousand small files: they are joined line by line as they
are, and read once, as one table.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qsmref import files
from qsmref.analysis.tables import listed
from qsmref.metadata import RUN_ENTITIES, parse_name
from qsmref.problems import DataError

#: Columns that name a scan, by the entity of the file name.
ENTITY_COLUMNS = {
    "ses": "session_id",
    "acq": "acquisition",
    "ce": "contrast_agent",
    "rec": "reconstruction",
    "run": "run",
}
#: Files that are read at a time.
_READERS = 4
#: What a table of regions must have for the group level.
NEEDED = ("index", "name", "hemisphere", "mean", "se", "coverage", "x", "y", "z")


@dataclass(frozen=True)
class Scan:
    """Tables of one run of a participant."""

    participant: str
    #: Entities of its name, ``sub`` left out.
    entities: Mapping[str, str]
    #: Paths by ``desc``: roi, differential, coverage.
    paths: Mapping[str, Path]


def find_scans(output_dir: Path) -> dict[str, list[Scan]]:
    """Runs that have a table of regions, by atlas, in the order of their names."""
    found: dict[str, dict[str, dict[str, Path]]] = {}
    for path in _tables(output_dir):
        name = parse_name(path)
        atlas, desc = name.entities.get("atlas"), name.entities.get("desc")
        if atlas and desc in ("roi", "differential", "coverage"):
            found.setdefault(atlas, {}).setdefault(name.prefix, {})[desc] = path
    scans = {}
    for atlas in sorted(found):
        made = []
        for prefix, paths in sorted(found[atlas].items()):
            if "roi" in paths:
                entities = dict(parse_name(prefix + "_x").entities)
                participant = "sub-" + entities.pop("sub")
                made.append(Scan(participant, entities, paths))
        if made:
            scans[atlas] = made
    return scans


def _tables(output_dir: Path) -> Iterator[Path]:
    """``sub-*/[ses-*/]anat/*_Chimap.tsv``, without looking into other folders."""
    for subject in _folders(output_dir, "sub-"):
        for place in (subject, *_folders(subject, "ses-")):
            anat = place / "anat"
            if anat.is_dir():
                with os.scandir(anat) as entries:
                    names = [e.name for e in entries if e.name.endswith("_Chimap.tsv")]
                yield from (anat / name for name in names)


def _folders(folder: Path, start: str) -> list[Path]:
    with os.scandir(folder) as entries:
        return sorted(Path(e.path) for e in entries if e.name.startswith(start) and e.is_dir())


@dataclass(frozen=True)
class Joined:
    """Tables of regions of all scans."""

    #: Scans that could be read, in order.
    scans: tuple[Scan, ...]
    #: Names of the regions in the order in which they were met, with hemisphere, centre and all
    #: else that their first row says.
    regions: pd.DataFrame
    #: (scan, region) mean, ppb.
    means: np.ndarray
    #: (scan, region, 3) centres, mm.
    centres: np.ndarray
    #: Who could not be read, and why.
    unread: tuple[tuple[str, str], ...]


def _contents(paths: Iterable[Path | None]) -> Iterator[bytes]:
    """What is in files, empty for none of them; read a few at a time, since disks can wait."""
    paths = list(paths)
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(paths), 16 * _READERS):
            batch = paths[start : start + 16 * _READERS]
            yield from pool.map(lambda path: path.read_bytes() if path else b"", batch)


def join_tables(
    scans: Sequence[Scan],
    labels: Mapping[str, str],
    roi_path: Path,
    differential_path: Path,
    statistic: str = "mean",
) -> Joined:
    """Write the tables of all scans as one, and read what `statistic` says of the regions.

    Parameters
    ----------
    scans : sequence of Scan
        Of one atlas.
    labels : mapping
        Group of each participant, for the column ``group``.
    roi_path, differential_path : Path
        Tables to write: ``participant_id``, what names a scan, ``group``, then the columns of the
        participants' tables as they are.
    statistic : {"mean", "median", "biweight"}
        Column that is read.
    """
    entities = [e for e in RUN_ENTITIES[1:] if any(e in scan.entities for scan in scans)]
    head = ["participant_id", *(ENTITY_COLUMNS[e] for e in entities), "group"]

    def start(scan: Scan) -> bytes:
        cells = [scan.participant, *(scan.entities.get(e, "n/a") for e in entities)]
        return ("\t".join([*cells, labels.get(scan.participant, "n/a")]) + "\t").encode()

    unread: dict[str, str] = {}
    kept, lines = [], []
    with ExitStack() as stack:
        out = {
            "roi": stack.enter_context(_opened(stack, roi_path)),
            "differential": stack.enter_context(_opened(stack, differential_path)),
        }
        headers: dict[str, bytes] = {}
        body = io.BytesIO()
        read = {desc: _contents([scan.paths.get(desc) for scan in scans]) for desc in out}
        for scan in scans:
            parts = {}
            text = {desc: next(read[desc]) for desc in out}
            try:
                for desc in out:
                    if desc in scan.paths:
                        header = headers.get(desc)
                        parts[desc] = _lines(scan.paths[desc], text[desc], desc, header)
            except DataError as error:
                unread[scan.participant] = str(error)
                continue
            for desc, (header, rows) in parts.items():
                if desc not in headers:
                    headers[desc] = header
                    out[desc].write("\t".join(head).encode() + b"\t" + header + b"\n")
                mark = start(scan)
                out[desc].write(b"".join(mark + row + b"\n" for row in rows))
            rows = parts["roi"][1]
            body.write(b"\n".join(rows) + b"\n")
            kept.append(scan)
            lines.append(len(rows))
        if not kept:
            raise DataError(next(iter(unread.values()), "there are no tables of regions."))
        if "differential" not in headers:
            columns = [*head, "region", "reference", "difference"]
            out["differential"].write("\t".join(columns).encode() + b"\n")
        regions, means, centres = _means(body, headers["roi"], kept, lines, statistic)
    return Joined(tuple(kept), regions, means, centres, tuple(unread.items()))


def _opened(stack: ExitStack, path: Path):
    """A file that appears under its name when all went well."""
    temporary = stack.enter_context(files.atomic_path(path))
    return open(temporary, "wb")


def _lines(path: Path, text: bytes, desc: str, header: bytes | None) -> tuple[bytes, list[bytes]]:
    """Header and rows of a table, as bytes; with the columns of `header` in its order."""
    text = text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    first, *rows = text.rstrip(b"\n").split(b"\n")
    if not rows:
        raise DataError(f"{path.name} has no rows.")
    names = first.split(b"\t")
    for name in NEEDED if desc == "roi" else ("region", "reference", "difference"):
        if name.encode() not in names:
            raise DataError(f"{path.name} has no column {name}.")
    width = len(names)
    if text.count(b"\t") != (width - 1) * (len(rows) + 1):
        odd = next(k for k, row in enumerate(rows) if row.count(b"\t") != width - 1)
        raise DataError(f"{path.name}, row {odd + 1}, has not {width} cells; it is damaged.")
    if header is not None and first != header:
        wanted = header.split(b"\t")
        at = [names.index(name) if name in names else None for name in wanted]
        cells = (row.split(b"\t") for row in rows)
        rows = [b"\t".join(b"n/a" if i is None else row[i] for i in at) for row in cells]
        first = header
    return first, rows


def _means(
    body: io.BytesIO,
    header: bytes,
    scans: Sequence[Scan],
    lines: Sequence[int],
    statistic: str,
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Regions, their means and their centres of all scans."""
    body.seek(0)
    header_names = header.decode().split("\t")
    if statistic not in header_names:
        raise DataError(f"{scans[0].paths['roi'].name} has no column {statistic}.")
    # What a row is made of says which rows are no pair; tables of other tools may not say.
    more = [name for name in ("labels",) if name in header_names]
    table = pd.read_csv(
        body,
        sep="\t",
        names=header_names,
        usecols=[*dict.fromkeys([*NEEDED, statistic, *more])],
        dtype=str,
        keep_default_na=False,
        quoting=3,
    )
    scan = np.repeat(np.arange(len(scans)), lines)
    code, names = pd.factorize(table["name"])
    twice = pd.Series(scan.astype(np.int64) * len(names) + code).duplicated().to_numpy()
    if twice.any():
        at = int(np.flatnonzero(twice)[0])
        path = scans[scan[at]].paths["roi"]
        raise DataError(f"{path.name} has the region {table['name'].iat[at]!r} more than once.")
    text = table[statistic]
    missing = text.isin(["n/a", "", "nan"]).to_numpy()
    mean = pd.to_numeric(text.where(~missing), errors="coerce").to_numpy(dtype=np.float64)
    odd = ~missing & ~np.isfinite(mean)
    if odd.any():
        at = int(np.flatnonzero(odd)[0])
        path = scans[scan[at]].paths["roi"]
        name = table["name"].iat[at]
        raise DataError(
            f"{path.name}: the {statistic} of {name!r} is {text.iat[at]!r}, not a number."
        )
    means = np.full((len(scans), len(names)), np.nan)
    means[scan, code] = mean
    centres = np.full((len(scans), len(names), 3), np.nan)
    for axis, column in enumerate("xyz"):
        centres[scan, code, axis] = pd.to_numeric(table[column], errors="coerce")
    regions = table.iloc[np.unique(code, return_index=True)[1]].reset_index(drop=True)
    for column in ("index", "mean", "se", "coverage", "x", "y", "z"):
        regions[column] = pd.to_numeric(regions[column], errors="coerce")
    for column in more:
        regions[column] = regions[column].where(~regions[column].isin(["n/a", ""]))
    return regions, means, centres


def reduce_runs(
    scans: Sequence[Scan], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, list[str]]:
    """One row a participant and session: runs of one session are averaged.

    Parameters
    ----------
    scans : sequence of Scan
        Scans.
    values : (scan, ...) array
        Theirs.

    Returns
    -------
    participants, sessions, values, notes
        Sessions are None when there is one at most for every participant.

    Raises
    ------
    DataError
        When a participant has several acquisitions or reconstructions: they are no repetitions.
    """
    kinds: dict[tuple[str, str], set[tuple]] = {}
    place: dict[tuple[str, str], list[int]] = {}
    for k, scan in enumerate(scans):
        key = (scan.participant, scan.entities.get("ses", "n/a"))
        kind = tuple((e, scan.entities[e]) for e in ("acq", "ce", "rec") if e in scan.entities)
        kinds.setdefault(key, set()).add(kind)
        place.setdefault(key, []).append(k)
    for (participant, _), several in kinds.items():
        if len(several) > 1:
            names = sorted("_".join(f"{e}-{v}" for e, v in kind) or "none" for kind in several)
            raise DataError(
                f"{participant} has tables of several acquisitions ({', '.join(names)}), which are "
                "no repetitions of each other; choose one with --bids-filter-file, for example "
                '{"chimap": {"acquisition": "highres"}}.'
            )
    notes = []
    mixed = {next(iter(kind)) for kind in kinds.values()}
    if len(mixed) > 1:
        names = sorted("_".join(f"{e}-{v}" for e, v in kind) or "none" for kind in mixed)
        notes.append(f"Participants have different acquisitions ({', '.join(names)}).")
    several_runs = sum(len(rows) > 1 for rows in place.values())
    if several_runs:
        notes.append(f"Runs of one session were averaged ({several_runs} sessions).")
    with np.errstate(invalid="ignore"):
        rows = [_mean(values[rows]) for rows in place.values()]
    participants = np.array([key[0] for key in place], dtype=object)
    sessions = np.array([key[1] for key in place], dtype=object)
    once = not pd.Series(participants).duplicated().any()
    unnamed = [key[0] for key in place if key[1] == "n/a"]
    if not once and unnamed:
        notes.append(
            f"Tables without a session, beside others that have one, count as the session n/a "
            f"({listed(dict.fromkeys(unnamed), 5)}): choose sessions with --session-label, or move "
            "these participants into a session."
        )
    return participants, None if once else sessions, np.array(rows), notes


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there, NaN where nothing is."""
    if len(values) == 1:
        return values[0]
    there = np.isfinite(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def select(
    scans: Sequence[Scan],
    participants: Sequence[str],
    sessions: Sequence[str],
    filters: Mapping[str, Any],
) -> list[Scan]:
    """Scans that the filters of the command line let through.

    Parameters
    ----------
    participants, sessions : sequence of str
        Labels without ``sub-`` and ``ses-``; empty for all.
    filters : mapping
        Entities of maps in the spelling of pybids.
    """
    short = {"session": "ses", "acquisition": "acq", "ceagent": "ce", "reconstruction": "rec"}
    chosen = []
    for scan in scans:
        if participants and scan.participant.removeprefix("sub-") not in participants:
            continue
        if sessions and scan.entities.get("ses") not in sessions:
            continue
        if all(_passes(scan.entities.get(short.get(k, k)), v) for k, v in filters.items()):
            chosen.append(scan)
    return chosen


def _passes(value: str | None, wanted: Any) -> bool:
    if wanted is None:
        return value is None
    if wanted == "*":
        return value is not None
    options = wanted if isinstance(wanted, list) else [wanted]
    return value is not None and any(str(o).lstrip("0") == value.lstrip("0") for o in options)
