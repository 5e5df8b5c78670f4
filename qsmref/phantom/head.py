"""The analytic head: regions with their parameters, a shape, and labels on any grid.

A head is defined in mm. Sampling it (:meth:`Head.labels`) is the only place where voxels come in,
so volumes and positions of its regions do not depend on the matrix or the voxel size.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from . import geometry
from .grid import Grid, checked_matrix, checked_voxel_size
from .smooth import SmoothField


@dataclass(frozen=True)
class Region:
    """A tissue or structure, with what the phantom needs to know of it (at 3 T)."""

    #: Index in label images.
    index: int
    #: Short name (``SN``); the same for left and right.
    name: str
    description: str
    #: ``L``, ``R`` or ``n/a``.
    hemisphere: str
    #: Whether the brain mask holds it.
    brain: bool
    #: Magnetic susceptibility relative to water, ppm.
    susceptibility_ppm: float
    #: Spread of the susceptibility between subjects (standard deviation), ppm.
    sd_ppm: float
    #: Change of the susceptibility with age, ppm per year.
    age_ppm_per_year: float
    #: Proton density relative to water.
    m0: float
    #: Longitudinal relaxation time, s.
    t1: float
    #: Effective transverse relaxation time at 3 T, s.
    t2star: float
    #: Whether texture varies it inside; fluid and veins are uniform.
    textured: bool = False
    #: Short name for tables; the name when there is no other.
    abbreviation: str = ""


def read_regions() -> tuple[Region, ...]:
    """Regions of the analytic head, from ``qsmref/data/head.tsv``.

    Examples
    --------
    >>> [r.susceptibility_ppm for r in read_regions() if r.name == "GP"]
    [0.12, 0.12]
    """
    source = importlib.resources.files("qsmref") / "data" / "head.tsv"
    with source.open(encoding="utf-8") as stream:
        table = pd.read_csv(stream, sep="\t", keep_default_na=False)
    table = table.astype({"brain": bool, "textured": bool})
    return tuple(
        Region(**{str(key): value for key, value in row.items()}, abbreviation=row["name"])
        for row in table.to_dict("records")
    )


@dataclass(frozen=True)
class Shape:
    """What makes a subject's head differ from the default one."""

    #: Factors along x, y and z.
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    #: Rotations (degrees) about x, y and z, applied in this order.
    rotation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    #: mm.
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    #: Factor on the width of the lateral ventricles.
    ventricles: float = 1.0
    #: Displacements (unit: SD) along x, y, z; None for none.
    warp: tuple[SmoothField, SmoothField, SmoothField] | None = None
    #: Standard deviation of the displacements, mm.
    warp_mm: float = 1.2

    @classmethod
    def random(cls, rng: np.random.Generator, amount: float = 1.0) -> Shape:
        """Shape of a random adult; `amount` scales every deviation from the default head.

        Size 3 % (SD) together and 1.5 % per axis, rotation 2 degrees, shift 1.5 mm, ventricles
        20 %, and a smooth displacement of 1.2 mm over distances of about 60 mm.
        """
        size = 1 + amount * 0.03 * rng.standard_normal()
        scale = size * (1 + amount * 0.015 * rng.standard_normal(3))
        rotation = amount * 2.0 * rng.standard_normal(3)
        shift = amount * 1.5 * rng.standard_normal(3)
        ventricles = float(np.exp(amount * 0.2 * rng.standard_normal()))
        low, high = [-150.0] * 3, [150.0] * 3
        warp = tuple(SmoothField.random(rng, 32.0, low, high) for _ in range(3))
        # Beyond 8 % the brain comes close to the edge of a field of view of 192 mm.
        scale = np.clip(scale, 1 - 0.08 * amount, 1 + 0.08 * amount)
        return cls(
            tuple(map(float, scale)),
            tuple(map(float, rotation)),
            tuple(map(float, shift)),
            ventricles,
            warp,
            1.2 * amount,
        )

    def matrix(self) -> np.ndarray:
        """(3, 3) matrix from default coordinates to the subject's, without shift and warp."""
        a, b, c = np.deg2rad(self.rotation)
        rx = [[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]
        ry = [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
        rz = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
        return np.array(rz) @ np.array(ry) @ np.array(rx) @ np.diag(self.scale)


@dataclass(frozen=True)
class Head:
    """The analytic head of one subject.

    Parameters
    ----------
    regions : sequence of Region, optional
        By default those of ``qsmref/data/head.tsv``; indices must be the same.
    shape : Shape, optional

    Examples
    --------
    >>> head = Head()
    >>> grid = head.grid((32, 32, 32), (6.0, 6.0, 6.0))
    >>> labels = head.labels(*grid.axes())
    >>> labels.shape, int(labels[16, 16, 0])
    ((32, 32, 32), 4)
    """

    regions: tuple[Region, ...] = ()
    shape: Shape = Shape()

    def __post_init__(self):
        if not self.regions:
            object.__setattr__(self, "regions", read_regions())

    #: Box (mm) that texture is drawn for; fixed, so that it does not change with the grid.
    texture_box = ((-165.0,) * 3, (165.0,) * 3)

    @property
    def outside_ppm(self) -> float:
        """Susceptibility of the air around the head, ppm."""
        return next(r.susceptibility_ppm for r in self.regions if r.index == geometry.AIR)

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """Box in model coordinates (mm) that holds the whole head, one pair per axis."""
        corners = np.transpose(geometry.HULL)
        moved = self.shape.matrix() @ corners + np.reshape(self.shape.shift, (3, 1))
        slack = 0.0 if self.shape.warp is None else 3 * self.shape.warp_mm
        return tuple((float(r.min() - slack), float(r.max() + slack)) for r in moved)

    def grid(
        self,
        matrix: Sequence[int] | None = None,
        voxel_size: Sequence[float] | None = None,
        oblique: float = 0.0,
    ) -> Grid:
        """Voxel grid centred on the head, 128 cubed at 1.5 mm by default.

        `oblique` turns the affine by that many degrees about the axis (2, 1, 0). The head keeps
        its place on the voxel axes, so regions can be compared voxel by voxel; B0, which is along
        z of the patient's world, turns with respect to it.
        """
        shape = checked_matrix((128, 128, 128) if matrix is None else matrix)
        size = checked_voxel_size((1.5, 1.5, 1.5) if voxel_size is None else voxel_size)
        origin = tuple(-(n - 1) / 2 * h for n, h in zip(shape, size, strict=True))
        affine = np.eye(4)
        affine[:3, :3] = rotation_matrix(oblique) @ np.diag(size)
        affine[:3, 3] = rotation_matrix(oblique) @ origin
        return Grid(shape, size, origin, affine)

    def default_factor(self, voxel_size: Sequence[float]) -> tuple[int, int, int]:
        """Samples per voxel and axis when the caller does not say: one."""
        return (1, 1, 1)

    def labels(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Label indices on the grid of three 1-D coordinate arrays (mm): uint8 (nx, ny, nz)."""
        out = np.empty((len(x), len(y), len(z)), dtype=np.uint8)
        back = np.linalg.inv(self.shape.matrix())
        plane = max(1, int(400_000 / (len(y) * len(z))))
        for start in range(0, len(x), plane):
            slab = slice(start, start + plane)
            points = np.meshgrid(x[slab], y, z, indexing="ij")
            moved = [p - s for p, s in zip(points, self.shape.shift, strict=True)]
            reference = [sum(back[i, j] * moved[j] for j in range(3)) for i in range(3)]
            if self.shape.warp is not None:
                for i, field in enumerate(self.shape.warp):
                    reference[i] = reference[i] + self.shape.warp_mm * field.on(x[slab], y, z)
            flat = [np.ravel(r).astype(np.float32) for r in reference]
            out[slab] = geometry.classify(*flat, self.shape.ventricles).reshape(points[0].shape)
        return out

    def brain(self, labels: np.ndarray, axes: Sequence[np.ndarray]) -> np.ndarray:
        """Brain mask of a label array sampled at `axes`."""
        return lookup(self.regions, "brain", bool)[labels]

    def with_shape(self, shape: Shape) -> Head:
        """The same regions in another shape."""
        return replace(self, shape=shape)

    def with_regions(self, regions: Sequence[Region]) -> Head:
        """The same shape with other region parameters."""
        return replace(self, regions=tuple(regions))


def rotation_matrix(degrees: float) -> np.ndarray:
    """Rotation about the axis (2, 1, 0): about x and y together, by unequal parts.

    With such an axis ``R.T @ z`` and ``R @ z`` differ, and so do the x and y parts of either, so
    no mix-up of the direction of B0 goes unseen.
    """
    axis = np.array([2.0, 1.0, 0.0]) / np.sqrt(5.0)
    angle = np.deg2rad(degrees)
    cross = np.array(
        [[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]], dtype=float
    )
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def lookup(regions: Sequence[Region], attribute: str, dtype=np.float32) -> np.ndarray:
    """Array that maps a label index to an attribute of its region."""
    table = np.zeros(max(r.index for r in regions) + 1, dtype=dtype)
    for region in regions:
        table[region.index] = getattr(region, attribute)
    return table


def vary_susceptibility(
    regions: Sequence[Region], rng: np.random.Generator, amount: float = 1.0, years: float = 0.0
) -> tuple[Region, ...]:
    """Regions of a random subject.

    Left and right of a structure share most of their deviation (SD ``sd_ppm`` of the table); a
    quarter of that is added to each side on its own.

    Parameters
    ----------
    regions : sequence of Region
    rng : numpy.random.Generator
    amount : float
        Factor on the spread between subjects and on the effect of age; 0 changes nothing.
    years : float
        Age above that of the table's values.
    """
    shared = {name: rng.standard_normal() for name in dict.fromkeys(r.name for r in regions)}
    out = []
    for region in regions:
        own = 0.25 * rng.standard_normal() if region.hemisphere in ("L", "R") else 0.0
        change = region.sd_ppm * (shared[region.name] + own) + region.age_ppm_per_year * years
        ppm = region.susceptibility_ppm + amount * change
        out.append(replace(region, susceptibility_ppm=round(float(ppm), 6)))
    return tuple(out)
