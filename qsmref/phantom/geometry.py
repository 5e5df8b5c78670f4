"""Anatomy of the analytic head: which tissue lies at a point given in mm.

Coordinates are RAS+ mm; the origin is the middle of the head at the level of the putamen. All
shapes are closed formulas (ellipsoids, tubes along a curve, folded sheets), so the head is the
same whatever grid it is sampled on. Nothing here is random: a subject's own shape comes from
moving the points before they are classified (:mod:`qsmref.phantom.head`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

#: Box (mm) that holds the whole head with the stump of the neck.
EXTENT = ((-78.0, 78.0), (-96.0, 96.0), (-118.0, 76.0))

#: Corners (mm) of a polyhedron around the head, tighter than the box when the head is turned.
HULL = [
    *((x, y, z) for z in (-60, 40) for x, y in ((78, 40), (78, -40), (40, 96), (40, -96))),
    *((x, y, 76) for x in (45,) for y in (-60, 60)),
    *((x, y, -118) for x in (58,) for y in (-84, 80)),
]
HULL = [(side * x, y, z) for side in (-1, 1) for x, y, z in HULL]

#: Indices of data/head.tsv that this module hands out. Paired structures have the left index; the
#: right one is the next.
AIR, MUSCLE, SCALP, BONE, SINUS, MENINGES = range(6)
GM, WM, CSF, CSF_SULCAL, CSF_POSTERIOR, VEIN = range(11, 17)
CN, PU, GP, TH, RN, SN, DN = range(21, 35, 2)


@dataclass(frozen=True)
class Ellipsoid:
    """Ellipsoid turned by `turn` degrees about z, then `tilt` degrees about x.

    Paired shapes are given for the right side (x > 0); the points' x is folded before the test.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    turn: float = 0.0
    tilt: float = 0.0

    def distance(self, x, y, z) -> np.ndarray:
        """Signed distance (mm, negative inside; first order, exact on the surface)."""
        p = self._local(x, y, z)
        q = [c / r for c, r in zip(p, self.radii, strict=True)]
        k0 = np.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
        g = [c / r for c, r in zip(q, self.radii, strict=True)]
        k1 = np.sqrt(g[0] ** 2 + g[1] ** 2 + g[2] ** 2)
        return k0 * (k0 - 1) / np.maximum(k1, 1e-6)

    def holds(self, x, y, z, grow: float = 1.0) -> np.ndarray:
        """Whether points lie inside, the radii multiplied by `grow`."""
        p = self._local(x, y, z)
        a, b, c = (r * grow for r in self.radii)
        return (p[0] / a) ** 2 + (p[1] / b) ** 2 + (p[2] / c) ** 2 < 1

    def _local(self, x, y, z):
        x, y, z = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        if self.turn:
            c, s = np.cos(np.deg2rad(self.turn)), np.sin(np.deg2rad(self.turn))
            x, y = x * c + y * s, y * c - x * s
        if self.tilt:
            c, s = np.cos(np.deg2rad(self.tilt)), np.sin(np.deg2rad(self.tilt))
            y, z = y * c + z * s, z * c - y * s
        return x, y, z


class Tube:
    """Tube whose centre line and radius are smooth functions of one coordinate.

    Parameters
    ----------
    axis : int
        The coordinate the tube runs along.
    points : sequence of (x, y, z, radius)
        Nodes in mm, increasing along `axis`; the tube ends at the first and the last one.
    """

    def __init__(self, axis: int, points):
        points = np.asarray(points, dtype=float)
        self.axis = axis
        self.low, self.high = points[0, axis], points[-1, axis]
        # A table is much faster to look up than the spline, and exact enough at 0.25 mm steps.
        self._knots = np.arange(self.low, self.high + 0.25, 0.25)
        spline = CubicSpline(points[:, axis], np.delete(points, axis, axis=1))
        self._table = spline(np.minimum(self._knots, self.high))
        # The cross-section is taken across the coordinate, not across the tube: it is widened by
        # the slope of the centre line so that the tube keeps its radius where it climbs.
        slope = np.gradient(self._table[:, :2], self._knots, axis=0)
        self._table[:, 2] *= np.sqrt(1 + (slope**2).sum(axis=1))

    def holds(self, x, y, z, grow: float = 1.0) -> np.ndarray:
        """Whether points lie inside, the radius multiplied by `grow`."""
        along = (x, y, z)[self.axis]
        inside = (along >= self.low) & (along <= self.high)
        (where,) = np.nonzero(inside)
        t = along[where]
        across = [(x, y, z)[a][where] for a in range(3) if a != self.axis]
        u, v, r = (np.interp(t, self._knots, column) for column in self._table.T)
        inside[where] = (across[0] - u) ** 2 + (across[1] - v) ** 2 < (r * grow) ** 2
        return inside


_CEREBRUM = Ellipsoid((0, 0, 3), (64, 81, 58))
_CEREBELLUM = Ellipsoid((0, -49, -37), (47, 31, 23))
_BRAIN_STEM = (
    Ellipsoid((0, -18, -13), (19, 14, 11)),
    Ellipsoid((0, -22, -32), (16, 13, 15)),
    Ellipsoid((0, -29, -50), (8, 8, 16)),
)
_FACE = Ellipsoid((0, 42, -52), (58, 48, 58))
_LOWER_HEAD = Ellipsoid((0, 2, -32), (71, 84, 44))
_NECK = (-22.0, 50.0, 56.0)  # y of the axis, radii in x and y

#: Air within the head; `paired` shapes lie on both sides.
_SINUSES = (
    (True, Ellipsoid((9, 70, -31), (9, 9, 9))),  # frontal
    (False, Ellipsoid((0, 31, -34), (13, 12, 9))),  # sphenoid
    (False, Ellipsoid((0, 54, -45), (11, 20, 13))),  # ethmoid cells and nose
    (True, Ellipsoid((28, 54, -63), (13, 15, 15))),  # maxillary
    (True, Ellipsoid((55, -24, -46), (7, 10, 12))),  # mastoid cells
    (False, Ellipsoid((0, 34, -86), (14, 22, 4))),  # mouth
    (False, Ellipsoid((0, 8, -86), (8, 7, 34))),  # throat
)
_EAR_CANAL = Tube(0, [(54, -8, -40, 3.5), (64, -10, -41, 3.5), (80, -12, -42, 4.0)])

#: Veins along the midline and across the white matter: axis, nodes.
_PAIRED_VEINS = (
    Tube(1, [(3, -40, 12, 1.5), (3, -22, 17, 1.4), (3, 0, 16, 1.3), (4, 18, 10, 1.2)]),
    Tube(2, [(36, -30, 14, 1.2), (41, -34, 26, 1.3), (40, -40, 38, 1.5), (34, -44, 48, 1.7)]),
    Tube(2, [(33, 22, 14, 1.2), (37, 28, 26, 1.4), (34, 32, 38, 1.6)]),
    Tube(1, [(44, -24, -14, 1.3), (48, -8, -10, 1.4), (46, 8, -9, 1.4), (40, 20, -6, 1.2)]),
    Tube(2, [(22, -6, 30, 1.0), (24, -4, 40, 1.2), (22, -2, 52, 1.4)]),
)
_MIDLINE_VEINS = (
    Tube(1, [(0, -72, 2, 2.2), (0, -56, 5, 2.1), (0, -40, 11, 1.9)]),  # straight sinus
)

#: Lateral ventricles, scaled by the subject; then the third and fourth.
_VENTRICLES = (
    Tube(1, [(17, -50, 8, 3.5), (17, -34, 13, 5), (10, -10, 20, 4.5), (7.5, 8, 17, 4.8),
             (8, 24, 10, 4), (9, 34, 5, 2)]),
    Tube(2, [(33, -6, -15, 1.5), (33, -18, -8, 2.6), (28, -30, 2, 3.2), (20, -34, 10, 4.0)]),
)  # fmt: skip
_THIRD_VENTRICLE = Ellipsoid((0, -8, 3), (1.8, 13, 10))
_FOURTH_VENTRICLE = Ellipsoid((0, -39, -35), (6, 5, 8))
_POSTERIOR_CSF = Ellipsoid((0, -67, 37), (17, 11, 8.5))
_CORPUS_CALLOSUM = Ellipsoid((0, -5, 8), (60, 44, 22))

#: Nuclei of the right side, in the order in which later ones overwrite earlier ones.
_NUCLEI = (
    (TH, (Ellipsoid((10.5, -17, 7), (8, 14, 8.5), 14),)),
    (CN, (Ellipsoid((14, 19, 5), (5.5, 9.5, 9), 10),
          Tube(1, [(23, -34, 17, 2.0), (21, -20, 22, 2.8), (17, 0, 19, 3.8), (15, 14, 11, 4.5)]))),
    (PU, (Ellipsoid((27, 5, 1), (5.8, 16, 9.5), -12),)),
    (GP, (Ellipsoid((19, 1, -1), (4.3, 10, 6.5), -24),)),
    (SN, (Ellipsoid((10.5, -14.5, -15), (3.4, 8, 3.4), -35, 15),)),
    (RN, (Ellipsoid((5.2, -20, -9.5), (3.4, 3.6, 4.4)),)),
    (DN, (Ellipsoid((15, -53, -36), (6.5, 8.5, 4.5), 20),)),
)  # fmt: skip


def classify(x: np.ndarray, y: np.ndarray, z: np.ndarray, ventricles: float = 1.0) -> np.ndarray:
    """Label index (data/head.tsv) at points.

    Parameters
    ----------
    x, y, z : (n,) float32 arrays
        mm, RAS+.
    ventricles : float
        Factor on the radius of the lateral ventricles.

    Returns
    -------
    (n,) uint8.
    """
    labels = np.full(x.shape, AIR, dtype=np.uint8)
    (near,) = np.nonzero(
        (np.abs(x) < EXTENT[0][1]) & (np.abs(y) < EXTENT[1][1]) & (z < EXTENT[2][1])
        & (z > EXTENT[2][0])
    )  # fmt: skip
    x, y, z = x[near], y[near], z[near]
    cerebrum, cerebellum, stem = _brain_distances(x, y, z)
    skin = np.minimum(np.minimum(cerebrum, cerebellum), stem)
    found = _outside_brain(x, y, z, skin)
    (brain,) = np.nonzero(skin < 0)
    found[brain] = _inside_brain(
        x[brain], y[brain], z[brain], cerebrum[brain], cerebellum[brain], stem[brain], ventricles
    )
    labels[near] = found
    return labels


def _brain_distances(x, y, z):
    """Signed distances (mm) to cerebrum, cerebellum and brain stem; the brain is their union."""
    # The base of the cerebrum: flat in the middle, 20 mm lower where the temporal lobes hang.
    temporal = np.exp(-(((np.abs(x) - 40) / 18) ** 2) - ((y + 2) / 30) ** 2)
    base = -17 - 20 * temporal
    cerebrum = np.maximum(_CEREBRUM.distance(x, y, z), (base - z) * 0.8)
    stem = np.minimum.reduce([part.distance(x, y, z) for part in _BRAIN_STEM])
    return cerebrum, _CEREBELLUM.distance(x, y, z), stem


def _outside_brain(x, y, z, skin) -> np.ndarray:
    """Air, soft tissue, bone, sinuses and the fluid around the brain."""
    labels = np.full(x.shape, AIR, dtype=np.uint8)
    y0, rx, ry = _NECK
    neck = ((x / rx) ** 2 + ((y - y0) / ry) ** 2 < 1) & (z < -30)
    labels[(skin < 12.5) & (z > -60)] = SCALP
    # Below the skull there is muscle up to the bone.
    labels[neck | _FACE.holds(x, y, z) | _LOWER_HEAD.holds(x, y, z)] = MUSCLE
    labels[skin < 7.5] = BONE
    (low,) = np.nonzero((z < 0) & (skin > 3.5))
    side = np.abs(x[low]), y[low], z[low]
    hollow = _EAR_CANAL.holds(*side)
    for paired, shape in _SINUSES:
        hollow |= shape.holds(*side) if paired else shape.holds(x[low], y[low], z[low])
    labels[low[hollow & (labels[low] != AIR)]] = SINUS
    labels[skin < 2.0] = MENINGES
    return labels


def _inside_brain(x, y, z, cerebrum, cerebellum, stem, ventricles) -> np.ndarray:
    """Tissue of points inside the brain; distances as from :func:`_brain_distances`."""
    is_cerebrum = (cerebrum <= cerebellum) & (stem > -1)
    is_cerebellum = ~is_cerebrum & (stem > -1)
    labels = np.full(x.shape, WM, dtype=np.uint8)
    # Depth below the part's own surface: the outer one, or the cleft towards its neighbour.
    cleft = np.abs(cerebrum - cerebellum) / 2
    depth = np.where(is_cerebrum, np.minimum(-cerebrum, cleft + 40 * (cerebellum > 0)), -cerebellum)
    depth = np.where(is_cerebellum, np.minimum(depth, cleft + 40 * (cerebrum > 0)), depth)

    fluid = _distance_to_sulci(x, y, z, depth)
    labels[is_cerebrum & (fluid < 3.7)] = GM
    labels[is_cerebrum & (fluid < 0.8)] = CSF_SULCAL
    # Cerebellar folia are finer than any voxel here: a thick cortex with a wavy inner border.
    wavy = 8.0 + 2.2 * np.sin(z / 2.2) * np.cos(y / 6.0)
    labels[is_cerebellum & (depth < wavy)] = GM
    labels[is_cerebellum & (depth < 1.0)] = CSF_SULCAL

    side = np.abs(x), y, z
    (deep,) = np.nonzero((side[0] < 50) & (y > -76) & (y < 60) & (z > -48) & (z < 56))
    labels[deep] = _deep_structures(labels[deep], x[deep], y[deep], z[deep], stem[deep], ventricles)
    labels[_POSTERIOR_CSF.holds(x, y, z) & is_cerebrum] = CSF_POSTERIOR
    # The sagittal sinus runs under the crown of the midline, 3 mm below the surface.
    crown = (x**2 + (depth - 3.0) ** 2 < 4.0) & (z > 25) & (y < 62) & is_cerebrum
    labels[crown & (labels != CSF_POSTERIOR)] = VEIN
    return labels


def _deep_structures(labels, x, y, z, stem, ventricles) -> np.ndarray:
    """Ventricles, nuclei and veins put over the cortex and white matter of `labels`."""
    side = np.abs(x), y, z
    # Around the nuclei there is white matter: sulci end before them.
    core = Ellipsoid((19, 0, 3), (21, 34, 17)).holds(*side)
    labels[core & ((labels == GM) | (labels == CSF_SULCAL))] = WM
    for vein in _PAIRED_VEINS:
        labels[vein.holds(*side)] = VEIN
    for tube in _VENTRICLES:
        labels[tube.holds(*side, grow=ventricles)] = CSF
    labels[_THIRD_VENTRICLE.holds(x, y, z) & (stem > 0)] = CSF
    labels[_FOURTH_VENTRICLE.holds(x, y, z)] = CSF
    for index, shapes in _NUCLEI:
        inside = np.logical_or.reduce([shape.holds(*side) for shape in shapes])
        if index in (TH, CN):
            inside &= labels != CSF
        labels[inside] = np.where(x[inside] < 0, index, index + 1)
    for vein in _MIDLINE_VEINS:
        labels[vein.holds(x, y, z)] = VEIN
    return labels


def _distance_to_sulci(x, y, z, depth) -> np.ndarray:
    """Distance (mm) to the nearest fluid: the brain's surface, a sulcus or the midline fissure.

    Sulci are the sheets of a gyroid, a surface without boundary that fills space with walls of
    nearly equal distance; they are cut at a depth of 13 to 21 mm.
    """
    # Two slow waves bend the sheets, so that they do not look like a crystal.
    u = (x + 7 * np.sin(y / 17 + 1) + 4 * np.sin(z / 9)) / 5.3
    v = (y + 7 * np.sin(z / 15 + 2) + 4 * np.sin(x / 10 + 1)) / 5.3
    w = (z + 7 * np.sin(x / 16 + 3) + 4 * np.sin(y / 11 + 2)) / 5.3
    su, cu, sv, cv, sw, cw = np.sin(u), np.cos(u), np.sin(v), np.cos(v), np.sin(w), np.cos(w)
    value = su * cv + sv * cw + sw * cu
    slope = np.sqrt((cu * cv - sw * su) ** 2 + (cv * cw - su * sv) ** 2 + (cw * cu - sv * sw) ** 2)
    sheet = np.abs(value) / np.maximum(slope, 0.4) * 5.3
    reach = 17 + 4 * np.sin(x / 13 + z / 19) * np.sin(y / 16)
    sulcus = np.hypot(sheet, np.maximum(depth - reach, 0))
    # The fissure between the hemispheres reaches down to the corpus callosum.
    above = np.maximum(-_CORPUS_CALLOSUM.distance(x, y, z), 0)
    fissure = np.hypot(np.abs(x), above)
    return np.minimum(np.minimum(depth, sulcus), fissure)
