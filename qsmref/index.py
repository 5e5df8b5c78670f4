"""The images of a BIDS dataset, by kind and participant: indexed by pybids, filtered by users."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import files
from .headers import Grid, regular_size
from .metadata import RUN_ENTITIES, Name, parse_name
from .problems import DataError, ExitCode, printable, shown
from .runs import Source

#: Kinds of files that ``--bids-filter-file`` can filter, and how pybids finds them.
KINDS: dict[str, dict[str, Any]] = {
    "megre": {"suffix": ["MEGRE", "T2starw"]},
    "mask": {"suffix": "mask", "desc": "brain"},
    "dseg": {"suffix": "dseg"},
    "chimap": {"suffix": "Chimap"},
    "t1w": {"suffix": "T1w"},
    "xfm": {"suffix": "xfm", "extension": [".h5", ".txt", ".mat"]},
}

#: Arguments of pybids that are no entities; the kinds choose extensions themselves.
_RESERVED = {
    "absolute_paths",
    "extension",
    "invalid_filters",
    "regex_search",
    "return_type",
    "scope",
    "self",
    "target",
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

    def echoes(self) -> list[Image]:
        """Its volumes, an echo each, unless the name says that it is one echo.

        Raises
        ------
        DataError
            Where the header cannot be believed, or has more volumes than the name allows.
        """
        if "echo" in self.name.entities:
            # Read now: one that has more than its name says is told as that, not as one too few.
            _ = self.source.grid
            return [self]
        count = Grid.of(self.source.path, several=True).volumes
        if count == 1:
            return [self]
        return [
            Image(
                replace(self.source, volume=k),
                self.name._replace(entities={**self.name.entities, "echo": str(k + 1)}),
            )
            for k in range(count)
        ]


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
        if (root / "dataset_description.json").exists():
            # pybids reads it too, and would wait for a pipe.
            regular_size(root / "dataset_description.json")
        description = read_description(root)
        is_derivative = label != "raw" or description.get("DatasetType") == "derivative"
        told = description.get("GeneratedBy", [])
        # pybids takes it for granted.
        if is_derivative and not (
            isinstance(told, list) and all(isinstance(x, dict) for x in told)
        ):
            raise DataError(
                f"{root}/dataset_description.json: GeneratedBy is {shown(told)}, and BIDS has a "
                'list there: write it as [{"Name": "...", "Version": "..."}].'
            )
        if label == "raw":
            label = label_of_input(root)
        database = None if database_dir is None else database_dir / label
        layout = _layout(root, is_derivative, participants, database)
        files: dict[tuple[str, str], list[Image]] = {}
        for kind in KINDS:
            chosen = sessions if kind in ("megre", "chimap") else ()
            for path in sorted(_paths(layout, kind, filters.get(kind, {}), chosen)):
                name = parse_name(path)
                # Images in another space are not on the map's own grid; segmentations of the T1w
                # image can be brought there.
                space = name.entities.get("space")
                near = kind == "megre" or space in (None, "orig")
                near = near or (kind == "dseg" and space == "T1w")
                if "sub" in name.entities and near:
                    image = Image(Source(Path(path), root, label), name)
                    files.setdefault((kind, name.entities["sub"]), []).append(image)
        return cls(root, label, is_derivative, files)

    def files(self, subject: str, kind: str) -> list[Image]:
        """Images of one kind of a participant."""
        return self._files.get((kind, subject), [])

    def only(self, kind: str) -> Dataset:
        """The same dataset with images of one kind."""
        files = {key: images for key, images in self._files.items() if key[0] == kind}
        return Dataset(self.root, self.label, self.is_derivative, files)

    def has(self, kind: str) -> bool:
        """Whether there is an image of this kind for anybody."""
        return any(k == kind for k, _ in self._files)


def _layout(root: Path, is_derivative: bool, participants: Sequence[str], database: Path | None):
    from bids import BIDSLayout, BIDSLayoutIndexer

    ignore: list = [*_IGNORED, _Loops(root)]
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
            indexer=BIDSLayoutIndexer(
                validate=False,
                index_metadata=False,
                ignore=ignore,
                # A dataset has no say in how its names are read; this file is nowhere.
                config_filename=os.path.join(os.devnull, "none"),
            ),
            database_path=database,
        )
    except Exception as error:  # Whatever pybids meets in a description it did not expect.
        raise DataError(f"{root} cannot be indexed as BIDS: {error}.", ExitCode.USAGE) from error


class _Loops:
    """Pattern of folders that are links to a folder they lie in: pybids would never come back."""

    def __init__(self, root: Path):
        self._root = str(root)

    def search(self, path: str) -> bool:
        """Whether a folder, as pybids names it from the root, leads back to one above it."""
        folder = Path(self._root + path)
        if not folder.is_symlink():
            return False
        above = {os.path.realpath(parent) for parent in folder.parents}
        return os.path.realpath(folder) in above


def _paths(layout, kind: str, filters: Mapping[str, Any], sessions: Sequence[str]) -> list[str]:
    from bids.layout import Query

    words = {None: Query.NONE, "*": Query.ANY}
    entities = {"extension": _IMAGES, **KINDS[kind]}
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
        content = files.read_json(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}.", ExitCode.USAGE) from error
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
    for kind, chosen in content.items():
        for entity, value in chosen.items():
            if not entity.isidentifier() or entity in _RESERVED:
                raise DataError(f"{path}: {kind} has no entity {shown(entity)}.", ExitCode.USAGE)
            values = value if isinstance(value, list) else [value]
            if not all(v is None or isinstance(v, str | int) for v in values):
                raise DataError(
                    f"{path}: {kind}, {entity} must be a label, a list of labels, or null, and is "
                    f"{shown(value)}.",
                    ExitCode.USAGE,
                )
    # Both the names in file names (acq) and those of pybids (acquisition) are understood.
    return {k: {_PYBIDS.get(e, e): v for e, v in f.items()} for k, f in content.items()}


def read_description(root: Path) -> dict[str, Any]:
    """``dataset_description.json``, empty when it cannot be read: validation says what is wrong."""
    try:
        content = files.read_json(root / "dataset_description.json")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def label_of_input(root: Path) -> str:
    """Name that BIDS URIs have for the dataset of the command: ``raw``, or who made its maps."""
    description = read_description(root)
    return _program(description) if description.get("DatasetType") == "derivative" else "raw"


def generated_by(root: Path) -> tuple[str, ...]:
    """Programs that made a derivative, with their versions, as it says; none of a raw dataset."""
    description = read_description(root)
    if description.get("DatasetType") != "derivative":
        return ()
    told = (
        " ".join(printable(entry[k])[:60] for k in ("Name", "Version") if entry.get(k))
        for entry in _generated(description)
        if entry.get("Name")
    )
    return tuple(dict.fromkeys(told))[:5]


def _generated(description: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = description.get("GeneratedBy")
    return [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []


def _program(description: Mapping[str, Any]) -> str:
    named = [entry.get("Name") for entry in _generated(description)[:1]]
    name = str((named and named[0]) or description.get("Name") or "")[:40]
    return "".join(c for c in name.lower() if c.isascii() and c.isalnum()) or "maps"


def subjects(folders: Iterable[Path]) -> list[str]:
    """Labels of the participants that have a folder."""
    entries = (entry for folder in folders for entry in folder.glob("sub-*") if entry.is_dir())
    return sorted({entry.name.removeprefix("sub-") for entry in entries})


def _label(entity: str, value: str) -> str:
    # run-1 and run-01 are the same run.
    number = entity == "run" and value.isascii() and value.isdigit()
    return str(int(value)) if number else value
