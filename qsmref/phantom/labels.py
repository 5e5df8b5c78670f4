"""A head given as a label image with a table of susceptibilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from ..problems import DataError, ExitCode
from .grid import Grid, ParameterError, checked_matrix, checked_voxel_size
from .head import Region, read_regions, rotation_matrix

#: Names (lower case) under which label tables list the tissues of data/head.tsv.
_SYNONYMS = {
    "air": ("air", "background", "outside"),
    "muscle": ("muscle", "soft tissue", "skin", "tissue"),
    "scalp": ("scalp", "fat"),
    "bone": ("bone", "skull", "calcification", "calc"),
    "GM": ("gm", "grey matter", "gray matter", "cortex", "cerebral cortex"),
    "WM": ("wm", "white matter"),
    "CSF": ("csf", "cerebrospinal fluid", "ventricle", "ventricles"),
    "vein": ("vein", "veins", "blood", "vessel", "vessels"),
    "CN": ("cn", "ca", "caudate", "caudate nucleus"),
    "PU": ("pu", "putamen"),
    "GP": ("gp", "globus pallidus", "pallidum"),
    "TH": ("th", "thalamus"),
    "RN": ("rn", "red nucleus"),
    "SN": ("sn", "substantia nigra"),
    "DN": ("dn", "dentate", "dentate nucleus"),
}
_TISSUE = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms}


@dataclass(frozen=True)
class LabelImage:
    """A label image with its regions, in the place of an analytic head.

    Model coordinates are mm along the voxel axes from the centre of voxel (0, 0, 0). Outside the
    image there is the label that most voxels of its six faces carry.

    Parameters
    ----------
    indices : (x, y, z) int array
        Label indices.
    affine : (4, 4) array
    regions : sequence of Region
        One for every index that occurs.
    mask : (x, y, z) bool array
        Brain.
    """

    indices: np.ndarray
    affine: np.ndarray
    regions: tuple[Region, ...]
    mask: np.ndarray

    #: The field of view holds all that is known of the head.
    extent = None

    @property
    def voxel_size(self) -> np.ndarray:
        """Voxel size of the label image, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def background(self) -> int:
        """The most frequent label on the faces of the image."""
        faces = [np.take(self.indices, (0, -1), axis=axis).ravel() for axis in range(3)]
        values, counts = np.unique(np.concatenate(faces), return_counts=True)
        return int(values[counts.argmax()])

    @property
    def outside_ppm(self) -> float:
        """Susceptibility around the image, ppm."""
        index = self.background
        return next(r.susceptibility_ppm for r in self.regions if r.index == index)

    @property
    def texture_box(self):
        """Box (mm) that texture is drawn for."""
        return (0.0,) * 3, tuple(self.voxel_size * self.indices.shape)

    def grid(
        self,
        matrix: Sequence[int] | None = None,
        voxel_size: Sequence[float] | None = None,
        oblique: float = 0.0,
    ) -> Grid:
        """Voxel grid that starts at the corner of the label image and covers it.

        The voxel size is the image's own by default. `oblique` (degrees) turns the image's affine
        about its centre by :func:`qsmref.phantom.head.rotation_matrix`.
        """
        own = self.voxel_size
        size = np.array(checked_voxel_size(own if voxel_size is None else voxel_size))
        if matrix is None:
            # A part of a voxel left over at the end is given up.
            matrix = np.floor(np.asarray(self.indices.shape) * own / size + 1e-3)
            if matrix.min() < 1:
                raise ParameterError(f"Voxels of {size.tolist()} mm exceed the label image.")
        shape = checked_matrix(matrix)
        origin = (size - own) / 2
        directions = self.affine[:3, :3] / own
        first = directions @ origin + self.affine[:3, 3]
        centre = first + directions @ ((np.asarray(shape) - 1) / 2 * size)
        turn = rotation_matrix(oblique)
        affine = np.eye(4)
        affine[:3, :3] = turn @ directions * size
        affine[:3, 3] = centre + turn @ (first - centre)
        return Grid(shape, tuple(map(float, size)), tuple(map(float, origin)), affine)

    def default_factor(self, voxel_size: Sequence[float]) -> tuple[int, int, int]:
        """Samples per voxel and axis: as many as label voxels, rounded.

        A voxel size that is a multiple of the image's own thus averages whole label voxels; any
        other takes the nearest label at each of its points.
        """
        ratio = np.asarray(voxel_size, dtype=float) / self.voxel_size
        return tuple(int(k) for k in np.maximum(1, np.rint(ratio)))

    def labels(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Nearest label on the grid of three 1-D coordinate arrays (mm)."""
        return self._sample(self.indices, (x, y, z), self.background)

    def brain(self, labels: np.ndarray, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Nearest value of the brain mask at `axes`."""
        return self._sample(self.mask, axes, False)

    def _sample(self, array, axes, outside):
        # Half a voxel is added before rounding down: ties of fine points go the same way.
        nearest = [
            np.floor(np.asarray(a) / h + 0.5 + 1e-6).astype(int)
            for a, h in zip(axes, self.voxel_size, strict=True)
        ]
        out = array[
            np.ix_(*(np.clip(i, 0, n - 1) for i, n in zip(nearest, array.shape, strict=True)))
        ]
        for axis, (i, n) in enumerate(zip(nearest, array.shape, strict=True)):
            beyond = (i < 0) | (i >= n)
            if beyond.any():
                np.moveaxis(out, axis, 0)[beyond] = outside
        return out

    def with_regions(self, regions: Sequence[Region]) -> LabelImage:
        """The same image with other region parameters."""
        return replace(self, regions=tuple(regions))


def read_label_image(
    labels: str | os.PathLike,
    susceptibility: str | os.PathLike,
    mask: str | os.PathLike | None = None,
) -> LabelImage:
    """Read a label image and its table, and find the brain.

    Parameters
    ----------
    labels : path
        NIfTI image of whole numbers.
    susceptibility : path
        TSV with the columns ``index``, ``name``, ``susceptibility_ppm`` and, optionally,
        ``abbreviation``, ``hemisphere`` (L, R), ``m0``, ``t1``, ``t2star`` (s at 3 T) and ``brain``
        (1 or 0). Relaxation that the table does not give is that of the tissue of the same name in
        data/head.tsv.
    mask : path, optional
        Brain mask on the grid of the labels. Without it the brain is every label with ``brain`` 1,
        or, without that column, every label whose name is a tissue of the brain; of these the
        largest connected part, its holes filled.

    Raises
    ------
    DataError
        One sentence: a file is missing or unreadable, a label has no susceptibility, a name has
        no known relaxation, or the brain cannot be told.
    """
    image = _open(labels)
    indices = np.asarray(image.dataobj)
    if indices.ndim != 3 or not np.array_equal(indices, np.rint(indices)):
        raise DataError(f"{labels} is no label image: it must hold whole numbers in 3-D.")
    if indices.min() < 0:
        raise DataError(f"{labels} has a negative label, {int(indices.min())}.")
    indices = indices.astype(np.uint8 if indices.max() < 256 else np.int32)
    table = read_table(susceptibility)
    present = np.unique(indices)
    missing = [int(i) for i in present if i not in set(table["index"])]
    if missing:
        raise DataError(
            f"{susceptibility} has no row for label {missing[0]} of {labels}"
            + (f" (nor for {len(missing) - 1} more)." if len(missing) > 1 else ".")
        )
    table = table[table["index"].isin(present)]
    decided = mask is not None or "brain" in table
    regions = tuple(_region(row, susceptibility, decided) for row in table.to_dict("records"))
    if mask is not None:
        brain = _read_mask(mask, image)
    else:
        brain = _connected(np.isin(indices, [r.index for r in regions if r.brain]))
    if not brain.any():
        raise DataError(f"No label of {labels} belongs to the brain: pass --mask.")
    return LabelImage(indices, np.asarray(image.affine, dtype=float), regions, brain)


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """Read and check a table of label susceptibilities (see :func:`read_label_image`)."""
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist.", ExitCode.MISSING_INPUT)
    try:
        table = pd.read_csv(path, sep="\t", keep_default_na=False, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a tab-separated table ({error}).") from error
    for column in ("index", "name", "susceptibility_ppm"):
        if column not in table:
            raise DataError(
                f"{path} has no column {column!r}; it needs index, name and susceptibility_ppm."
            )
    for column in ("index", "susceptibility_ppm", "m0", "t1", "t2star", "brain"):
        if column in table:
            numbers = pd.to_numeric(table[column], errors="coerce")
            optional = column in ("m0", "t1", "t2star")
            bad = ~np.isfinite(numbers) & ~(optional & table[column].isin(["n/a", ""]))
            if bad.any():
                row = table[bad].iloc[0]
                raise DataError(f"{path} has {row[column]!r} as {column} of label {row['index']}.")
            table[column] = numbers
    if (table["index"] != table["index"].round()).any() or table["index"].duplicated().any():
        raise DataError(f"{path} has an index twice or one that is not a whole number.")
    if "brain" in table and not table["brain"].isin([0, 1]).all():
        raise DataError(f"{path} has a value other than 0 and 1 in the column brain.")
    table["index"] = table["index"].astype(int)
    return table


def _region(row: dict, path, decided: bool) -> Region:
    """Region of one row; relaxation from the known tissue of that name where the row has none."""
    names = [str(row["name"]), str(row.get("abbreviation", ""))]
    tissue = next((_TISSUE[n.lower()] for n in names if n.lower() in _TISSUE), None)
    known = next((r for r in read_regions() if r.name == tissue), None)
    if known is None and not decided:
        raise DataError(
            f"Whether label {row['index']} ({row['name']}) is brain cannot be told from its name: "
            f"add a column brain (1 or 0) to {path} or pass --mask."
        )
    relaxation = {}
    for column in ("m0", "t1", "t2star"):
        value = row.get(column, np.nan)
        if not np.isfinite(value):
            if known is None:
                raise DataError(
                    f"Label {row['index']} ({row['name']}) is no tissue the phantom knows: add the "
                    f"columns m0, t1 and t2star to {path}."
                )
            value = getattr(known, column)
        relaxation[column] = float(value)
        if value < 0 or (column != "m0" and value == 0):
            raise DataError(f"{path} has {value:g} as {column} of label {row['index']}.")
    ppm = float(row["susceptibility_ppm"])
    hemisphere = str(row.get("hemisphere", "n/a")) or "n/a"
    brain = bool(row["brain"]) if "brain" in row else bool(known is not None and known.brain)
    return Region(
        index=int(row["index"]),
        name=names[0],
        description=names[0],
        hemisphere=hemisphere,
        brain=brain,
        susceptibility_ppm=ppm,
        # Spread between subjects: as in the analytic head, about an eighth of the value.
        sd_ppm=known.sd_ppm if known is not None else (0.12 * abs(ppm) if brain else 0.0),
        age_ppm_per_year=known.age_ppm_per_year if known is not None else 0.0,
        **relaxation,
        textured=known.textured if known is not None else brain,
        abbreviation=names[1] or names[0],
    )


def _open(path) -> nib.spatialimages.SpatialImage:
    if not Path(path).is_file():
        raise DataError(f"{path} does not exist.", ExitCode.MISSING_INPUT)
    try:
        image = nib.load(path)
        np.asarray(image.dataobj)
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}).") from error
    return image


def _read_mask(path, labels) -> np.ndarray:
    image = _open(path)
    if image.shape != labels.shape or not np.allclose(image.affine, labels.affine, atol=1e-3):
        raise DataError(f"{path} is not on the grid of the label image.")
    return np.asarray(image.dataobj) > 0


def _connected(brain: np.ndarray) -> np.ndarray:
    """Largest 6-connected part, its holes filled."""
    parts, count = ndimage.label(brain)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        brain = parts == 1 + int(sizes[1:].argmax())
    return ndimage.binary_fill_holes(brain)
