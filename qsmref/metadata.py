"""BIDS file names taken apart, and the JSON sidecars that belong to a file (inheritance principle).

Sidecars are read one by one, so that a broken one is a problem of one run and not of the dataset.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from . import files
from .problems import DataError

#: Entities that name a run; the names of its derivatives keep them, in this order.
RUN_ENTITIES = ("sub", "ses", "acq", "ce", "rec", "run")


#: What BIDS allows as the label of an entity.
_LABEL = re.compile(r"[0-9A-Za-z+]+")


def is_label(text: str) -> bool:
    """Whether a text may be the label of an entity: it becomes part of names of files.

    >>> is_label("01a+"), is_label("../x"), is_label("é"), is_label("")
    (True, False, False, False)
    """
    return _LABEL.fullmatch(text) is not None


class Name(NamedTuple):
    """Parts of a BIDS file name."""

    entities: dict[str, str]
    suffix: str
    extension: str

    @property
    def prefix(self) -> str:
        """The entities of the run, as they stand in the name.

        >>> parse_name("sub-01_acq-x_run-02_echo-1_part-mag_MEGRE.nii.gz").prefix
        'sub-01_acq-x_run-02'
        """
        kept = [f"{k}-{v}" for k, v in self.entities.items() if k in RUN_ENTITIES]
        return "_".join(kept)


def parse_name(path: str | os.PathLike) -> Name:
    """Entities, suffix and extension of a BIDS file name.

    >>> parse_name("sub-01_echo-1_MEGRE.nii.gz")
    Name(entities={'sub': '01', 'echo': '1'}, suffix='MEGRE', extension='.nii.gz')
    """
    stem, dot, extension = os.path.basename(path).partition(".")
    *parts, suffix = stem.split("_")
    entities = dict(part.split("-", 1) for part in parts if "-" in part)
    return Name(entities, suffix, dot + extension)


@lru_cache(maxsize=4096)
def _names(folder: str, extension: str) -> tuple[str, ...]:
    """File names in a folder; remembered, since all runs of a dataset ask for the root's."""
    with os.scandir(folder) as entries:
        return tuple(sorted(e.name for e in entries if e.name.endswith(extension)))


def forget() -> None:
    """Forget the folders that were read: a dataset may have changed since."""
    _names.cache_clear()


def applicable(path: Path, root: Path, extension: str) -> Iterator[Path]:
    """Files with `extension` that apply to `path`, the most general one first.

    They have the same suffix, no entity that `path` lacks or has otherwise, and lie in its folder
    or above it, up to `root`.
    """
    wanted = parse_name(path)
    folders = [path.parent]
    while folders[-1] != root and root in folders[-1].parents:
        folders.append(folders[-1].parent)
    for folder in reversed(folders):
        found = []
        for name in _names(str(folder), extension):
            parsed = parse_name(name)
            if (
                parsed.suffix == wanted.suffix
                and parsed.extension == extension
                and parsed.entities.items() <= wanted.entities.items()
            ):
                found.append((len(parsed.entities), folder / name))
        yield from (file for _, file in sorted(found))


def read_sidecar(path: Path, root: Path) -> dict[str, Any]:
    """Metadata of an image: all sidecars that apply to it, the nearest one winning.

    Raises
    ------
    DataError
        When a sidecar is not a JSON object.
    """
    metadata: dict[str, Any] = {}
    for sidecar in applicable(Path(path), Path(root), ".json"):
        try:
            content = files.read_json(sidecar)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{relative(sidecar, root)} cannot be read as JSON ({error}); mend the sidecar."
            ) from error
        if not isinstance(content, dict):
            raise DataError(f"{relative(sidecar, root)} is not a JSON object; mend the sidecar.")
        metadata.update(content)
    return metadata


def relative(path: Path, root: Path) -> str:
    """Path as a user finds it: from the root of its dataset."""
    path, root = Path(path), Path(root)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


#: What a report of an acquisition needs, by the names of BIDS; doi:10.1002/mrm.30006, Tables 3, 4.
ACQUISITION_KEYS = (
    "Manufacturer",
    "ManufacturersModelName",
    "SoftwareVersions",
    "ReceiveCoilName",
    "ReceiveCoilActiveElements",
    "NumberReceiveCoilActiveElements",
    "CoilCombinationMethod",
    "GradientSetType",
    "MRAcquisitionType",
    "PulseSequenceType",
    "ScanningSequence",
    "SequenceVariant",
    "SequenceName",
    "NonlinearGradientCorrection",
    "RepetitionTime",
    "RepetitionTimeExcitation",
    "FlipAngle",
    "PixelBandwidth",
    "ReceiverBandwidth",
    "DwellTime",
    "BipolarReadout",
    "FlowCompensation",
    "ParallelReductionFactorInPlane",
    "ParallelReductionFactorOutOfPlane",
    "ParallelAcquisitionTechnique",
    "PartialFourier",
    "PartialFourierDirection",
    "PhaseEncodingDirection",
    "AcquisitionDuration",
)


def acquisition_of(sidecars: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the sidecars of all echoes say alike of the acquisition.

    A key that some echoes lack, or that differs between them, says nothing of the run as a whole
    and is left out.

    >>> acquisition_of([{"FlipAngle": 15, "RepetitionTime": 0.04}, {"FlipAngle": 15}])
    {'FlipAngle': 15}
    """
    if not sidecars:
        return {}
    first = sidecars[0]
    return {
        key: first[key]
        for key in ACQUISITION_KEYS
        if key in first
        and _is_plain(first[key])
        and all(key in s and s[key] == first[key] for s in sidecars[1:])
    }


#: Characters of a word, and items of a list, that a report can show.
_MOST_CHARACTERS, _MOST_ITEMS, _LARGEST = 200, 64, 1e15


def _is_plain(value: Any) -> bool:
    """A word, a number or a short list of them: what else a sidecar holds is not passed on."""
    if isinstance(value, list):
        return len(value) <= _MOST_ITEMS and all(
            _is_plain(v) and not isinstance(v, list) for v in value
        )
    if isinstance(value, str):
        return 0 < len(value) <= _MOST_CHARACTERS and value.isprintable()
    if isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return abs(value) < _LARGEST and math.isfinite(value)
    return False
