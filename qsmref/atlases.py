"""Atlases that ``--atlas`` names: label images with the table of their names.

An atlas is either one image for everybody, or a folder with labels of each participant. One image
is in the space of a map when it has the map's grid, and in that of a template otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from . import files, images, tables
from .analysis.region_methods import ATLASES_BY_NAME
from .metadata import applicable, parse_name
from .problems import DataError, ExitCode, printable
from .resampling import resample
from .runs import Regions, Source

if TYPE_CHECKING:
    from .headers import Grid

#: The template whose space the atlas CIT168 is in.
CIT168_TEMPLATE = "MNI152NLin2009cAsym"
#: mm; step of the grid on which regions are followed beyond an image, and how far.
_COARSE_MM, _BEYOND_MM = 3.0, 60.0
#: What is added to the labels of CIT168 on the right side.
_RIGHT = 100


@dataclass(frozen=True)
class Atlas:
    """One label image for everybody."""

    name: str
    image: Source
    table: Path
    #: Template named in the file name (``space-`` or ``tpl-``), or None.
    template: str | None

    @classmethod
    def of(cls, name: str, path: Path) -> Atlas:
        """Atlas of an image, or of a folder that holds one.

        Raises
        ------
        DataError
            When there is no image, more than one, or no table of names beside it.
        """
        image = _only_image(name, path) if path.is_dir() else path
        if not image.is_file():
            raise DataError(f"atlas {name}: there is no file {path}.", ExitCode.MISSING_INPUT)
        table = _table_of(image)
        if table is None:
            raise DataError(
                f"atlas {name}: {image.name} has no table (.tsv) of its labels beside it, with the "
                "columns index and name.",
                ExitCode.MISSING_INPUT,
            )
        entities = parse_name(image).entities
        template = entities.get("space", entities.get("tpl"))
        return cls(name, Source(image, image.parent, name), table, template)

    def regions(self, grid: Grid, template: str | None) -> Regions:
        """Regions of a map, in its own space or that of the template.

        Parameters
        ----------
        grid : Grid
            Of the map.
        template : str or None
            Name of the template that the map is registered to; None without a registration.

        Raises
        ------
        DataError
            When the atlas lies on another grid and nothing leads from there to the map.
        """
        # A template may have the grid of a map; what its name says goes first.
        named = template is not None and self.template == template
        if self.image.grid.same_as(grid) and not named:
            return Regions(self.name, self.image, self.table)
        difference = self.image.grid.difference(grid)
        if template is None:
            where = f"in the space of {self.template}" if self.template else "on another grid"
            raise DataError(
                f"atlas {self.name} ({self.image.path.name}) lies {where} ({difference}): without "
                "a registration (--template) its labels must be on "
                "the grid of the map.",
                ExitCode.USAGE,
            )
        if self.template not in (None, template):
            raise DataError(
                f"atlas {self.name} is in the space of {self.template}, and the template is "
                f"{template}: choose one that goes with the other.",
                ExitCode.USAGE,
            )
        return Regions(self.name, self.image, self.table, "template")


def open_atlases(
    given: Mapping[str, str | os.PathLike], cache: Path
) -> tuple[list[Atlas], dict[str, Path]]:
    """What ``--atlas`` names: images for everybody, and folders of participants.

    Parameters
    ----------
    given : mapping
        Paths by name; a name of :data:`ATLASES_BY_NAME` instead of a path is looked up.
    cache : Path
        Folder where what is fetched is kept.

    Raises
    ------
    DataError
        When something is not there, or is no atlas.
    """
    atlases, folders = [], {}
    for name, value in given.items():
        path = Path(value)
        if str(value) in ATLASES_BY_NAME and not path.exists():
            path = fetch_cit168(cache)
        path = path.absolute()
        if path.is_dir() and any(path.glob("sub-*")):
            folders[name] = path
        else:
            atlases.append(Atlas.of(name, path))
    return atlases, folders


def read_groups(path: str | os.PathLike) -> pd.DataFrame:
    """Table of ``--label-groups``: columns `group`, `member`, and `atlas` if it likes.

    Raises
    ------
    DataError
        A table that cannot be read, has not these columns, or an empty cell.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"--label-groups: there is no file {path}.", ExitCode.MISSING_INPUT)
    groups = tables.read_tsv(path, ("group", "member", "atlas"))
    for column in ("group", "member"):
        if column not in groups:
            raise DataError(
                f"{path.name} has no column {column}; a table of groups has the columns group and "
                "member, one row a member."
            )
        if groups[column].isna().any():
            raise DataError(f"{path.name} has an empty cell in the column {column}; fill it.")
    return groups


def fetch_cit168(cache: Path) -> Path:
    """The subcortical atlas CIT168, by nilearn, with sides; from the cache where it is there.

    Parameters
    ----------
    cache : Path
        Folder for the label image with sides and its table.

    Returns
    -------
    Path
        Label image; left as in the atlas (1 to 16), right 100 more.

    Raises
    ------
    DataError
        When it is neither cached nor to be had.

    References
    ----------
    Pauli, Nili & Tyszka 2018, doi:10.1038/sdata.2018.63.
    """
    target = Path(cache) / "CIT168" / f"tpl-{CIT168_TEMPLATE}_atlas-CIT168_dseg.nii.gz"
    table = target.with_name(target.name.replace(".nii.gz", ".tsv"))
    if target.is_file() and table.is_file():
        return target
    try:
        from nilearn.datasets import fetch_atlas_pauli_2017

        found = fetch_atlas_pauli_2017("deterministic", verbose=0)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        words = printable(str(error)).strip()[:200]
        raise DataError(
            "the atlas CIT168 is not on this machine and cannot be fetched by nilearn "
            f"({type(error).__name__}{f': {words}' if words else ''}): run once where the network "
            "allows it, set NILEARN_DATA to a folder that has it (pauli_2017), or give its files "
            "as --atlas CIT168=PATH.",
            ExitCode.MISSING_INPUT,
        ) from error
    labels, like = images.load(found["maps"], np.int16)
    named = {
        int(i): str(n) for i, n in zip(found["lut"]["index"], found["lut"]["name"], strict=True)
    }
    sided = np.where((labels > 0) & _right_of_midline(like.affine, labels.shape), _RIGHT, 0)
    sided = np.where(labels > 0, labels + sided, 0).astype(np.int16)
    rows = ["index\tname\themisphere"]
    for side, start in (("L", 0), ("R", _RIGHT)):
        present = np.unique(sided[(sided > start) & (sided < start + _RIGHT)]) - start
        rows += [f"{start + i}\t{named[int(i)]}_{side}\t{side}" for i in present]
    images.save(sided, target, like)
    files.write_text(table, "\n".join(rows) + "\n")
    return target


def part_in_image(
    labels: str | os.PathLike, like: Any, folder: Path, chain: Mapping[str, Any]
) -> dict[int, float]:
    """Part of each label that lies within an image, seen on a coarse grid that reaches further.

    Parameters
    ----------
    labels : path
        Label image in another space.
    like : image
        Image whose field of view counts.
    folder : Path
        For a file of the coarse grid.
    chain : mapping
        Transforms and interpolation, for :func:`qsmref.resampling.resample`.

    Returns
    -------
    dict
        From labels to a number between 0 and 1.
    """
    size, shape = np.array(images.voxel_size(like.affine)), np.array(like.shape[:3])
    step = np.maximum(size, _COARSE_MM) / size  # in voxels of the image
    beyond = np.ceil(_BEYOND_MM / size / step)
    count = (np.ceil(shape / step) + 2 * beyond).astype(int)
    start = -beyond * step
    affine = like.affine @ np.vstack(
        [np.column_stack([np.diag(step), start]), [0.0, 0.0, 0.0, 1.0]]
    )
    grid = images.save(np.zeros(count, dtype=np.uint8), folder / "coarse.nii", affine)
    found = resample(labels, grid, **chain)
    place = [np.arange(n) * s + b for n, s, b in zip(count, step, start, strict=True)]
    seen = [(p >= -0.5) & (p <= n - 0.5) for p, n in zip(place, shape, strict=True)]
    inside = seen[0][:, None, None] & seen[1][:, None] & seen[2]
    whole, within = (np.unique(f, return_counts=True) for f in (found, found[inside]))
    here = dict(zip(within[0].tolist(), within[1].tolist(), strict=True))
    return {
        int(label): here.get(label, 0) / n
        for label, n in zip(whole[0].tolist(), whole[1].tolist(), strict=True)
        if label
    }


def _right_of_midline(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Voxels whose first world coordinate is positive, broadcastable to `shape`."""
    place = np.ogrid[tuple(slice(n) for n in shape)]
    x = sum(a * p for a, p in zip(affine[0, :3], place, strict=True)) + affine[0, 3]
    return x > 0


def _table_of(image: Path) -> Path | None:
    """Table of the labels: of the same name, or one that applies to it by BIDS."""
    stem = image.name.partition(".")[0]
    if (image.parent / f"{stem}.tsv").is_file():
        return image.parent / f"{stem}.tsv"
    return next(reversed(list(applicable(image, image.parent, ".tsv"))), None)


def _only_image(name: str, folder: Path) -> Path:
    found = sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith((".nii", ".nii.gz")) and _table_of(path) is not None
    )
    if len(found) == 1:
        return found[0]
    what = "no label image with a table (.tsv) beside it"
    if found:
        what = f"several label images ({', '.join(p.name for p in found)}): name one of them"
    raise DataError(f"atlas {name}: {folder} has {what}.", ExitCode.MISSING_INPUT)
