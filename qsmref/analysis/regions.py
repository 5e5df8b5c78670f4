"""What a susceptibility map says about each labelled region: one row of statistics a region.

Every statistic obeys ``stat(x + c) == stat(x) + c`` for the measures of level and
``stat(x + c) == stat(x)`` for the measures of scatter: no voxel is left out because of its value.
The offset of a map is arbitrary, so a rule that looks at values (positive voxels only, zeros
dropped) would make the offset part of the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from .names import both_sides, label_names, regions_of
from .standard_error import standard_error
from .tables import listed as named

#: Labels have 32 bits at the most.
_LARGEST = 2**31

#: The columns of a region table as a BIDS sidecar describes them.
COLUMNS = {
    "index": {"Description": "Label in the dseg image; n/a for rows made of several labels"},
    "name": {"Description": "Name of the region, unique in the table"},
    "hemisphere": {
        "Description": "Side of the region",
        "Levels": {
            "L": "left",
            "R": "right",
            "both": "the voxels of the left and the right region together",
            "n/a": "the region has no side",
        },
    },
    "n_voxels": {
        "Description": "Voxels of the region, after its erosion if any, inside the mask: the "
        "sample size"
    },
    "volume_mm3": {"Description": "Volume of these voxels", "Units": "mm^3"},
    "coverage": {
        "Description": "Part of the region's voxels, after its erosion if any, that lies inside "
        "the mask (0 to 1)"
    },
    "mean": {"Description": "Mean susceptibility", "Units": "ppb"},
    "sd": {"Description": "Standard deviation over voxels (n - 1)", "Units": "ppb"},
    "se": {
        "Description": "Standard error of the mean, for the scatter inside the region and its "
        "spatial correlation; errors that the whole region shares are not in it",
        "Units": "ppb",
    },
    "se_noise": {
        "Description": "Standard error of the mean that the noise of the echoes makes, carried "
        "through the inversion; n/a where the noise of the field is not known",
        "Units": "ppb",
    },
    "median": {"Description": "Median susceptibility", "Units": "ppb"},
    "mad": {"Description": "Median absolute deviation from the median, unscaled", "Units": "ppb"},
    "p05": {"Description": "5th percentile", "Units": "ppb"},
    "p95": {"Description": "95th percentile", "Units": "ppb"},
    "biweight": {
        "Description": "Tukey's biweight location (4.685 times 1.4826 mad): a mean to which values "
        "far from the middle add less, and those beyond 6.95 mad nothing",
        "Units": "ppb",
    },
    "x": {"Description": "Centre of the whole region, first coordinate", "Units": "mm"},
    "y": {"Description": "Centre of the whole region, second coordinate", "Units": "mm"},
    "z": {"Description": "Centre of the whole region, third coordinate", "Units": "mm"},
    "labels": {
        "Description": "Labels in the dseg image that the row is made of, with + between them; n/a "
        "for a reference that comes from no label"
    },
}
#: Columns that move with the map's offset, and those that do not.
LEVELS = ["mean", "median", "biweight", "p05", "p95"]
SCATTERS = ["sd", "se", "mad"]

_PPB_PER_PPM = 1000.0
#: Of the biweight, in SD: for normal values its variance is 1 / 0.95 of that of the mean.
_BIWEIGHT = 4.685
#: Median absolute deviation of normal values of SD 1.
_MAD_OF_NORMAL = 0.6744897501960817


class Measurement:
    """One map, one mask and the geometry: measures any set of voxels of it.

    Parameters
    ----------
    chi : (x, y, z) array
        Susceptibility, ppm.
    voxel_size : (3,) float
        mm.
    mask : (x, y, z) array, optional
        Where the map is valid (non-zero); by default everywhere.
    min_coverage : float
        Regions with a smaller part of their voxels in the mask get NaN statistics.
    affine : (4, 4) array, optional
        From voxel indices to mm; by default the indices times the voxel size.
    erosion : float
        mm; what a region loses at its surface before it is measured, see :meth:`core`.

    Raises
    ------
    ValueError
        Arrays that do not fit together, or numbers outside their range.
    """

    def __init__(
        self,
        chi: np.ndarray,
        voxel_size: Sequence[float],
        mask: np.ndarray | None = None,
        min_coverage: float = 0.0,
        affine: np.ndarray | None = None,
        erosion: float = 0.0,
    ):
        self.chi = np.asarray(chi)
        if self.chi.ndim != 3:
            raise ValueError(f"the map must have three dimensions, got shape {self.chi.shape}")
        self.voxel_size = tuple(float(v) for v in voxel_size)
        if len(self.voxel_size) != 3 or not all(v > 0 for v in self.voxel_size):
            raise ValueError(f"voxel_size must be three positive numbers (mm), got {voxel_size!r}")
        if not 0 <= min_coverage <= 1:
            raise ValueError(f"min_coverage must lie between 0 and 1, got {min_coverage}")
        if not erosion >= 0:
            raise ValueError(f"the erosion of regions must be 0 mm or more, got {erosion}")
        self.min_coverage, self.erosion = min_coverage, float(erosion)
        self.mask = None
        if mask is not None:
            self.mask = self.on_grid(mask, "the mask").astype(bool).ravel()
        self.affine = np.diag([*self.voxel_size, 1.0]) if affine is None else np.asarray(affine)
        #: Voxels (flat indices) that the statistics of each row were made of.
        self.samples: dict[str, np.ndarray] = {}
        self._scratch = np.zeros(self.chi.shape, dtype=bool)

    def on_grid(self, array: np.ndarray, what: str) -> np.ndarray:
        """`array` when it has the map's shape; a ValueError that says `what` it is otherwise."""
        array = np.asarray(array)
        if array.shape != self.chi.shape:
            raise ValueError(f"{what} has shape {array.shape}, the map {self.chi.shape}")
        return array

    def covered(self, voxels: np.ndarray) -> np.ndarray:
        """Those of the given voxels (flat indices, C order) that lie in the mask."""
        return voxels if self.mask is None else voxels[self.mask[voxels]]

    def core(self, voxels: np.ndarray) -> np.ndarray:
        """Voxels of a region whose centre is further than `erosion` from that of one outside it.

        What lies beyond the image is not outside: there the image was cut, not the region. Values
        play no part.
        """
        if not self.erosion or not voxels.size:
            return voxels
        at = np.unravel_index(voxels, self.chi.shape)
        box = tuple(
            slice(max(0, int(i.min()) - 1), int(i.max()) + 2) for i in at
        )  # slices end at the image's border by themselves
        self._scratch.ravel()[voxels] = True
        region = self._scratch[box].copy()
        self._scratch[box] = False
        if region.all():
            return voxels
        depth = ndimage.distance_transform_edt(region, sampling=self.voxel_size)
        inner = tuple(i - s.start for i, s in zip(at, box, strict=True))
        return voxels[depth[inner] > self.erosion * (1 + 1e-6)]

    def row(
        self, name: str, voxels: np.ndarray, core: np.ndarray | None = None, part: float = 1.0
    ) -> dict:
        """The columns of a region table from `n_voxels` on, for the voxels of one region.

        `core` are those of them that are measured; by default :meth:`core` decides. `part` is the
        part of the region that lies in the image.

        Raises
        ------
        ValueError
            A voxel inside the region and the mask that is not a finite number.
        """
        core = self.core(voxels) if core is None else core
        inside = self.covered(core)
        row = self._extent(voxels, core, inside, part)
        values = self.chi.ravel()[inside].astype(np.float64) * _PPB_PER_PPM
        odd = np.count_nonzero(~np.isfinite(values))
        if odd:
            raise ValueError(
                f"in region {name!r}, {odd} of {values.size} voxels of the map are not finite; "
                "a mask that leaves them out makes the statistics possible"
            )
        # Not (a >= b), since the coverage of a region without voxels is NaN.
        if not values.size or not row["coverage"] >= self.min_coverage:
            return row
        self.samples[name] = inside
        row.update(_statistics(values))
        row["se"] = self._standard_error(inside)
        return row

    def both(
        self,
        name: str,
        voxels: Sequence[np.ndarray],
        sides: Sequence[dict],
        part: float = 1.0,
    ) -> dict:
        """The columns for a left and a right region together, given the rows of the two.

        The two sides err independently, which the standard error uses. Where one side has no
        statistics the two together have none: one side must not pass for both.
        """
        together = np.concatenate(voxels)
        # Sides that touch are eroded at the midline too, as each of them is alone.
        core = np.concatenate([self.core(side) for side in voxels])
        if any(np.isnan(side["mean"]) for side in sides):
            return self._extent(together, core, self.covered(core), part)
        row = self.row(name, together, core, part)
        if np.isnan(row["mean"]):
            return row
        counts = [side["n_voxels"] for side in sides]
        errors = [n * side["se"] for n, side in zip(counts, sides, strict=True)]
        row["se"] = float(np.hypot(*errors) / sum(counts))
        return row

    def _extent(
        self, voxels: np.ndarray, core: np.ndarray, inside: np.ndarray, part: float
    ) -> dict:
        """Size and coverage of the core, centre of the whole; the statistics are NaN."""
        centre = np.full(3, np.nan)
        if voxels.size:
            mean = [float(i.mean()) for i in np.unravel_index(voxels, self.chi.shape)]
            centre = self.affine[:3, :3] @ mean + self.affine[:3, 3]
        return {
            "n_voxels": int(inside.size),
            "volume_mm3": inside.size * float(np.prod(self.voxel_size)),
            "coverage": part * inside.size / core.size if core.size else np.nan,
            **dict.fromkeys(
                ["mean", "sd", "se", "median", "mad", "biweight", "p05", "p95"], np.nan
            ),
            **dict(zip("xyz", (float(c) for c in centre), strict=True)),
        }

    def _standard_error(self, inside: np.ndarray) -> float:
        """:func:`standard_error` on the smallest box around the voxels, in ppb."""
        box = tuple(
            slice(int(i.min()), int(i.max()) + 1) for i in np.unravel_index(inside, self.chi.shape)
        )
        self._scratch.ravel()[inside] = True
        region = self._scratch[box].copy()
        self._scratch[box] = False
        return standard_error(self.chi[box], region, self.voxel_size) * _PPB_PER_PPM


def _statistics(values: np.ndarray) -> dict:
    """Level and scatter of a sample; SD of a single voxel is NaN."""
    # Taking the first value off keeps the sums small, whatever the offset of the map is.
    mean = float(values[0] + (values - values[0]).mean())
    p05, median, p95 = (float(v) for v in np.percentile(values, [5, 50, 95]))
    scatter = np.sum((values - mean) ** 2)
    mad = float(np.median(np.abs(values - median)))
    return {
        "mean": mean,
        "sd": float(np.sqrt(scatter / (values.size - 1))) if values.size > 1 else np.nan,
        "median": median,
        "mad": mad,
        "biweight": biweight(values, median, mad),
        "p05": p05,
        "p95": p95,
    }


def biweight(values: np.ndarray, median: float, mad: float) -> float:
    """Tukey's biweight location: values count less the farther they are from the middle.

    Parameters
    ----------
    values : (n,) array
        Any unit.
    median, mad : float
        Their median, where it starts, and their median absolute deviation, which stays the scale.

    Returns
    -------
    float
        In the unit of the values; the median where half of them or more are equal.

    References
    ----------
    Beaton & Tukey 1974, doi:10.1080/00401706.1974.10489171. As
    :func:`statsmodels.robust.norms.estimate_location` with its default
    :class:`~statsmodels.robust.norms.TukeyBiweight`.

    Examples
    --------
    >>> round(biweight(np.array([1.0, 2.0, 3.0, 4.0, 90.0]), 3.0, 1.0), 2)
    2.5
    """
    reach = _BIWEIGHT * mad / _MAD_OF_NORMAL
    if not reach > 0:
        return float(median)
    away, level = values - median, 0.0
    for _ in range(100):
        weight = np.maximum(1 - ((away - level) / reach) ** 2, 0) ** 2
        before, level = level, float((weight * away).sum() / weight.sum())
        if abs(level - before) < 1e-9 * reach:
            break
    return float(median + level)


def voxels_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Flat indices (C order) of the voxels of every label but 0, ordered by label.

    Raises
    ------
    ValueError
        A label that is not a whole number (an interpolated label image).
    """
    flat = np.asarray(labels).ravel()
    voxels = np.flatnonzero(flat)
    values = flat[voxels]
    if not np.issubdtype(values.dtype, np.integer):
        whole = np.rint(values)
        odd = values[values != whole]
        if odd.size:
            raise ValueError(
                f"the label image holds {odd[0]:g}, which is no label: labels are whole numbers"
            )
        beyond = whole[np.abs(whole) >= _LARGEST]
        if beyond.size:
            raise ValueError(
                f"the label image holds {beyond[0]:g}, which is too large for a label of 32 bits"
            )
        values = whole.astype(np.int64)
    if values.size and values.min() >= 0 and values.max() < 2**16:
        values = values.astype(np.uint16)  # sorted in linear time
    order = np.argsort(values, kind="stable")
    values, voxels = values[order], voxels[order]
    starts = np.flatnonzero(values[1:] != values[:-1]) + 1
    groups = np.split(voxels, starts) if voxels.size else []
    return {int(values[i]): v for i, v in zip([0, *starts], groups, strict=False)}


def table_of(rows: Sequence[dict]) -> pd.DataFrame:
    """Rows of statistics as a data frame with the columns, order and types of the contract."""
    table = pd.DataFrame(list(rows), columns=list(COLUMNS))
    texts = ("index", "name", "hemisphere", "n_voxels", "labels")
    numbers = [c for c in COLUMNS if c not in texts]
    types = {"index": "Int64", "n_voxels": "int64"} | dict.fromkeys(numbers, "float64")
    return table.astype(types)


def region_table(
    chi: np.ndarray,
    labels: np.ndarray,
    names: Mapping[int, str] | pd.DataFrame,
    voxel_size: Sequence[float],
    mask: np.ndarray | None = None,
    *,
    min_coverage: float = 0.0,
    affine: np.ndarray | None = None,
    erosion: float = 0.0,
    totals: Mapping[int, float] | None = None,
    samples: dict[str, np.ndarray] | None = None,
) -> pd.DataFrame:
    """Statistics of a susceptibility map in every region, in ppb.

    Parameters
    ----------
    chi : (x, y, z) array
        Susceptibility, ppm; sums are made in float64.
    labels : (x, y, z) array of whole numbers
        Regions on the map's grid; 0 is background.
    names : mapping of int to str, or DataFrame
        What the labels are called; see :func:`qsmref.analysis.names.label_names`. Every named
        label gets a row, also when the image has no voxel of it; or every group of labels, where
        the table has groups (:func:`qsmref.analysis.names.regions_of`).
    voxel_size : (3,) float
        mm.
    mask : (x, y, z) array, optional
        Where the map is valid. Statistics are over the voxels in the region *and* in the mask; by
        default the map is valid everywhere.
    min_coverage : float
        A region with a smaller part of its voxels in the mask gets NaN statistics (0 to 1). A
        region of which nothing is in the mask always does.
    affine : (4, 4) array, optional
        Gives the centres in the image's world coordinates (mm) instead of mm from the first voxel.
    erosion : float
        mm; voxels of a region whose centre lies no further than this from that of a voxel outside
        it are left out, before the mask is looked at. A region of which nothing is left has NaN
        statistics. A group is eroded as one.
    totals : mapping of int to float, optional
        Voxels that each label would have if the image reached as far as the region: what lies
        beyond the image is not covered. By default nothing does.
    samples : dict, optional
        Is given, under the name of each row with statistics, the flat indices (C order) of the
        voxels that they were made of.

    Returns
    -------
    DataFrame
        One row a region in the order of `names`, then one row (hemisphere ``both``) for each region
        that has a left and a right side, made of the voxels of the two. :data:`COLUMNS` describes
        the columns; susceptibilities are in ppb.

    Raises
    ------
    ValueError
        A label without a name, labels that are not whole numbers, shapes that differ, or a voxel
        inside a region and the mask that is NaN or infinite.

    Examples
    --------
    >>> chi = np.array([0.01, 0.03, 0.08], dtype=np.float32).reshape(3, 1, 1)
    >>> labels = np.array([1, 1, 2]).reshape(3, 1, 1)
    >>> table = region_table(chi, labels, {1: "CN", 2: "PU"}, (1, 1, 1))
    >>> table[["name", "n_voxels", "mean"]].round(3)
      name  n_voxels  mean
    0   CN         2  20.0
    1   PU         1  80.0
    """
    measurement = Measurement(chi, voxel_size, mask, min_coverage, affine, erosion)
    voxels = voxels_by_label(measurement.on_grid(labels, "the label image"))
    unnamed = sorted(set(voxels) - set(label_names(names)["index"]))
    if unnamed:
        raise ValueError(f"the label image has labels without a name: {named(unnamed, 5)}")

    listed = regions_of(names)
    rows, by_name = [], {}
    for name, hemisphere, parts in zip(
        listed["name"], listed["hemisphere"], listed["labels"], strict=True
    ):
        here = voxels_of(parts, voxels)
        row: dict[str, Any] = {"index": parts[0] if len(parts) == 1 else pd.NA}
        row["labels"] = joined(parts)
        part = in_image(parts, voxels, totals)
        row |= {"name": name, "hemisphere": hemisphere} | measurement.row(name, here, part=part)
        rows.append(row)
        by_name[name] = (here, row, parts)
    for name, sides in both_sides(listed).items():
        pair = [by_name[side] for side in sides]
        row = {"index": pd.NA, "labels": "+".join(str(p[1]["labels"]) for p in pair)}
        row |= {"name": name, "hemisphere": "both"}
        part = in_image([label for p in pair for label in p[2]], voxels, totals)
        theirs, their_rows = [p[0] for p in pair], [p[1] for p in pair]
        rows.append(row | measurement.both(name, theirs, their_rows, part))
    if samples is not None:
        samples.update(measurement.samples)
    return table_of(rows)


def in_image(
    parts: Sequence[int],
    voxels: Mapping[int, np.ndarray],
    totals: Mapping[int, float] | None = None,
) -> float:
    """Part of several labels that lies in the image, 0 to 1; 1 when nothing is known of more."""
    here = sum(voxels[label].size for label in parts if label in voxels)
    whole = sum((totals or {}).get(int(label), 0) for label in parts)
    return min(1.0, here / whole) if whole > 0 else 1.0


def voxels_of(parts: Sequence[int], voxels: Mapping[int, np.ndarray]) -> np.ndarray:
    """Flat indices, ascending, of the voxels of several labels; of :func:`voxels_by_label`."""
    found = [voxels[label] for label in parts if label in voxels]
    if len(found) == 1:
        return found[0]
    return np.sort(np.concatenate(found)) if found else np.empty(0, dtype=np.intp)


def joined(parts: Sequence[int]) -> str:
    """Labels as they stand in the column `labels`.

    >>> joined((5, 6))
    '5+6'
    """
    return "+".join(str(int(label)) for label in parts)
