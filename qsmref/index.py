"""The images of a BIDS dataset, by kind and participant: indexed by pybids, filtered by users."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .metadata import RUN_ENTITIES, Name, parse_name
from .problems import DataError, ExitCode
from .runs import Source

#: Kinds of files that ``--bids-filter-file`` can filter, and how pybids finds them.
KINDS: dict[str, dict[str, Any]] = {
    "megre": {"suffix": ["MEGRE", "T2starw"]},
    "mask": {"suffix": "mask", "desc": "brain"},
    "dseg": {"suffix": "dseg"},
    "chimap": {"suffix": "Chimap"},
}

_IMAGES = [".nii.gz", ".nii"]
_IGNORED = ("code", "derivatives", "models", "sourcedata", "stimuli", re.compile(r"/\."))
_PYBIDS = {
    "acq": "acquisition",
    "ce": "ceagent",
    "rec": "reconstruction",
    "ses": "session",
    "sub": "subject",
}


@dataclass(frozen=True)
class Image:
    """An image of a dataset with the parts of its name."""

    source: Source
    name: Name

    @property
    def key(self) -> dict[str, str]:
        """Entities that name the run, in a form that can be compared."""
        return {k: _label(k, v) for k, v in self.name.entities.items() if k in RUN_ENTITIES}


class Dataset:
    """Images of one dataset, by kind and participant."""

    def __init__(self, root: Path, label: str, is_derivative: bool, files: dict):
        self.root, self.label, self.is_derivative, self._files = root, label, is_derivative, files

    @classmethod
    def of(
        cls,
        root: Path,
        label: str,
        *,
        filters: Mapping[str, Mapping[str, Any]],
        participants: Sequence[str] = (),
        sessions: Sequence[str] = (),
        database_dir: Path | None = None,
    ) -> Dataset:
        """Index a dataset.

        Parameters
        ----------
        root : Path
            Its folder.
        label : str
            Its name in BIDS URIs: ``raw``, or that of a derivative. A derivative passed as ``raw``
            gets the name of the program that made it.
        filters : mapping
            pybids entities by kind of file, see :func:`read_filters`.
        participants, sessions : sequence of str
            Labels; none for all. Only echoes and maps are filtered by session.
        database_dir : Path, optional
            Where the index is kept; by default it lives in memory.

        Raises
        ------
        DataError
            When pybids cannot index the folder.
        """
        description = read_description(root)
        is_derivative = label != "raw" or description.get("DatasetType") == "derivative"
        if label == "raw" and is_derivative:
            label = _program(description)
        database = None if database_dir is None else database_dir / label
        layout = _layout(root, is_derivative, participants, database)
        files: dict[tuple[str, str], list[Image]] = {}
        for kind in KINDS:
            chosen = sessions if kind in ("megre", "chimap") else ()
            for path in sorted(_paths(layout, kind, filters.get(kind, {}), chosen)):
                name = parse_name(path)
                # Images in another space are not on the map's own grid.
                if "sub" in name.entities and (kind == "megre" or "space" not in name.entities):
                    image = Image(Source(Path(path), root, label), name)
                    files.setdefault((kind, name.entities["sub"]), []).append(image)
        return cls(root, label, is_derivative, files)

    def files(self, subject: str, kind: str) -> list[Image]:
        """Images of one kind of a participant."""
        return self._files.get((kind, subject), [])

    def has(self, kind: str) -> bool:
        """Whether there is an image of this kind for anybody."""
        return any(k == kind for k, _ in self._files)


def _layout(root: Path, is_derivative: bool, participants: Sequence[str], database: Path | None):
    from bids import BIDSLayout, BIDSLayoutIndexer

    ignore: list = list(_IGNORED)
    if database is not None:
        database.mkdir(parents=True, exist_ok=True)
    elif participants:
        # Only the asked participants are indexed: one of thousands should not cost them all.
        labels = "|".join(re.escape(p) for p in participants)
        ignore.append(re.compile(rf"/sub-(?!({labels})(/|_|$))"))
    try:
        return BIDSLayout(
            root,
            validate=False,
            is_derivative=is_derivative,
            config=["bids", "derivatives"] if is_derivative else ["bids"],
            # Sidecars are read by qsmref.metadata: here one broken file would stop the dataset.
            indexer=BIDSLayoutIndexer(validate=False, index_metadata=False, ignore=ignore),
            database_path=database,
        )
    except (ValueError, OSError) as error:
        raise DataError(f"{root} cannot be indexed as BIDS: {error}", ExitCode.USAGE) from error


def _paths(layout, kind: str, filters: Mapping[str, Any], sessions: Sequence[str]) -> list[str]:
    from bids.layout import Query

    words = {None: Query.NONE, "*": Query.ANY}
    entities = {**KINDS[kind], "extension": _IMAGES}
    if sessions:
        entities["session"] = list(sessions)
    for key, value in filters.items():
        entities[key] = value if isinstance(value, list) else words.get(value, value)
    return layout.get(return_type="filename", invalid_filters="allow", **entities)


def read_filters(path: Path | None) -> dict[str, dict[str, Any]]:
    """Content of ``--bids-filter-file``: entities by kind of file.

    Raises
    ------
    DataError
        When it is not JSON, or not of that form.
    """
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}", ExitCode.USAGE) from error
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise DataError(
            f"{path} must be a JSON object of objects, such as "
            '{"megre": {"acquisition": "highres"}}.',
            ExitCode.USAGE,
        )
    unknown = sorted(set(content) - set(KINDS))
    if unknown:
        raise DataError(
            f"{path}: unknown kind of file {', '.join(unknown)}; there are {', '.join(KINDS)}.",
            ExitCode.USAGE,
        )
    # Both the names in file names (acq) and those of pybids (acquisition) are understood.
    return {k: {_PYBIDS.get(e, e): v for e, v in f.items()} for k, f in content.items()}


def read_description(root: Path) -> dict[str, Any]:
    """``dataset_description.json``, empty when it cannot be read: validation says what is wrong."""
    try:
        content = json.loads((root / "dataset_description.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _program(description: Mapping[str, Any]) -> str:
    generated = description.get("GeneratedBy") or [{}]
    name = str(generated[0].get("Name") or description.get("Name") or "")
    return "".join(c for c in name.lower() if c.isascii() and c.isalnum()) or "maps"


def subjects(folders: Iterable[Path]) -> list[str]:
    """Labels of the participants that have a folder."""
    entries = (entry for folder in folders for entry in folder.glob("sub-*") if entry.is_dir())
    return sorted({entry.name.removeprefix("sub-") for entry in entries})


def _label(entity: str, value: str) -> str:
    # run-1 and run-01 are the same run.
    return str(int(value)) if entity == "run" and value.isdigit() else value
