r"""Single-step QSM: background removal and inversion in one problem with total variation.

.. math:: \min_{x, h} \sum_d H(w_d \partial_d x) + \lambda \| W (D x + h - f) \|^2,
          \qquad \nabla^2 h = 0 \text{ in the mask}

H is the size of a difference, and quadratic below a small width (Huber). h is the background, any
harmonic function: the field of whatever lies outside the mask, see
:mod:`qsmref.reconstruction.harmonic`. Or, with given radii,

.. math:: \min_x \sum_d H(w_d \partial_d x)
          + \lambda \sum_c \| m_c [ (\delta - S_c) * (D x) - (\delta - S_c) * f ] \|^2

S_c are normalised spheres of several radii (mm). Fields of sources outside a sphere equal their
mean over it at its centre, so the filter takes the background from both sides of the data term.
Every voxel counts in the largest sphere that fits into the mask around it. In both, nothing of the
tissue's own field is lost, and the map is free outside the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .admm import AlternatingDirections, TotalVariation
from .dataterms import (
    drift,
    harmonic_term,
    neighbour_difference,
    sphere_terms,
    weighed,
)
from .dipole import dipole_kernel
from .gradient import edge_mask, interior_pairs, quiet_masks
from .grid import Grid, phase_units
from .harmonic import HarmonicFree
from .merit import merit_weights

Result = tuple[np.ndarray, np.ndarray, dict[str, Any]]

#: lambda per roughness of the map (ppm per mm): the contrast that total variation takes from a
#: region is in inverse proportion to lambda, whatever the noise, and a smooth map has little to
#: lose. Measured on heads with and without texture, at several signal-to-noise ratios.
LAMBDA_PER_ROUGHNESS = 2e6

#: Width of the Huber penalty per roughness of the map: smaller differences are smooth parts of a
#: tissue and cost in proportion to their square. The problem settles far sooner for it (after 60
#: iterations, 0.05 to 0.15 ppb from where 120 lead in place of 0.1 to 1.0); from 1 on, veins and
#: small nuclei lose contrast.
WIDTH_PER_ROUGHNESS = 0.3

#: lambda of the first iterations, from which the roughness is read, and the largest: more would fit
#: what the voxels' own size leaves unmodelled. Field and map are in rad; these are for 3.21 rad
#: per ppm (3 T, 4 ms), and go with its inverse.
FIRST_LAMBDA = 1000.0
MOST_LAMBDA = 3000.0
_MEANT_FOR = 3.21

#: Neither weigh the data more than for the most probable map whose differences have this width
#: (ppm per mm): at low signal-to-noise ratios noise would look like roughness.
ROUGHEST = 0.05

#: The constant Laplacian of the field (ppm per mm squared) up to which it is taken to be none, and
#: the one from which it is believed in full. Fields of sources outside the mask have none, and what
#: tissue and noise pretend came to 9e-6 at most on five heads without any; a shim of polynomials
#: that are no solid harmonics made 4e-5.
LAPLACIAN_LIMITS = 1e-5, 2e-5

#: The same in the first iterations: until the map explains it, the tissue's own field passes for
#: up to 1.8e-5 (six heads).
FIRST_LAPLACIAN_LIMITS = 1.8e-5, 2.7e-5

#: ppm. For MERIT no field has less noise: of exact fields it would take what total variation leaves
#: for wrong data (neighbours 0.7 to 2 ppb wrong in place of 0.1).
LEAST_NOISE = 0.0003

#: Iteration after which lambda follows the roughness of the map, and the one at which the map has
#: settled from that jump.
_ADAPT_AT, _ADAPTED_AT = 10, 20


def single_step(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    magnitude: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    radians_per_ppm: float,
    lambda_: float | None = None,
    huber_width: float | None = None,
    radii: Sequence[float] | None = None,
    edge_noise: float = 1.5,
    edge_fraction: float | None = None,
    gradient_noise: float = 0.05,
    free_laplacian: bool = True,
    merit: bool = True,
    iterations: int = 60,
    padding_mm: float = 8.0,
) -> Result:
    """Susceptibility from the total field.

    Parameters
    ----------
    field, mask, voxel_size, b0_dir, magnitude, noise, radians_per_ppm
        As in :func:`qsmref.reconstruction.invert`; the total field.
    lambda_ : float, optional
        Weight of the data terms, with field and map in rad. By default it follows from the map's
        own roughness, the mean size of its differences where there is no edge, after ten
        iterations with :data:`FIRST_LAMBDA`: :data:`LAMBDA_PER_ROUGHNESS` times that, at most
        :data:`MOST_LAMBDA`, and less where the noise is high (:data:`ROUGHEST`).
    huber_width : float, optional
        Differences of the map below this (ppm per mm) cost in proportion to their square, larger
        ones to their size; 0 for plain total variation. By default :data:`WIDTH_PER_ROUGHNESS`
        times the roughness that lambda follows from.
    radii : sequence of float, optional
        Take the background out by spheres of these radii, mm, for example (1.5, 4, 12), and not by
        free harmonic functions. The smallest decides how much of the rim is reached, the largest
        how well low spatial frequencies are kept. A radius shorter than the longest side of the
        voxel is raised to it: a smaller sphere would be its centre voxel alone.
    gradient_noise : float
        Part of the field's difference between neighbouring voxels that is added to the noise (in
        quadrature). Where the field varies inside a voxel, the mean that the signal reports depends
        on where in the voxel the signal comes from, and the model does not know that.
    free_laplacian : bool
        Allow the field a constant Laplacian, which no source outside the mask can make but shim
        terms that are no solid harmonics, eddy currents or gradient errors can. One number is
        fitted with the map and kept where it is larger than what tissue and noise pretend, see
        :data:`LAPLACIAN_LIMITS`. Measured: a constant of 1.2e-4 rad per mm squared, left in, moves
        region differences by 2.4 ppb on average.
    edge_noise : float
        Differences of the magnitude above this many standard deviations of its noise are edges,
        see :func:`qsmref.reconstruction.gradient.quiet_mask`. It takes twice that to part a voxel
        without data from its neighbours, which alone know its value.
    edge_fraction : float, optional
        Instead, the part of the voxels that are edges, as MEDI has it, see
        :func:`qsmref.reconstruction.gradient.edge_mask`.
    merit : bool
        Lower the weight of voxels that do not fit the model, at iterations 20 and 40.
    iterations : int
        Of the alternating direction method.
    padding_mm : float
        Empty space around the bounding box of the mask, at either side. Little is enough: what
        the periodic grid adds to the field is the field of sources outside the mask, which is
        taken out like any other.

    Returns
    -------
    chi : (x, y, z) array, ppm
    mask : the mask as given
    info : dict
        ``iterations``, ``residual`` (weighted data residual over the weighted data),
        ``laplacian`` (rad per mm squared, the constant that was fitted), ``lambda_used``,
        ``huber_width_used`` (ppm per mm), ``roughness`` (ppm per mm, where one of the two followed
        from it), ``edges`` (part of the pairs of neighbours that are edges),
        ``typical_noise`` (rad), ``voxels_without_data`` (in the mask, but with no Laplacian of
        their own, or no sphere fits), ``background_model`` ("harmonic", "spheres"), ``grid``,
        ``fft_count``; with radii, ``radii_used`` (mm), ``shell_voxels`` (voxels of each radius).

    References
    ----------
    Chatnuntawech et al. 2017, doi:10.1002/nbm.3570; Milovic et al. 2019, doi:10.1002/mrm.27483
    (a harmonic field in the data term, as a penalty); Liu et al. 2013, doi:10.1002/mrm.24272
    (MERIT); Huber 1964, doi:10.1214/aoms/1177703732.
    """
    _check_options(lambda_, iterations)
    if huber_width is not None and not huber_width >= 0:
        raise ValueError(f"huber_width must not be negative, got {huber_width}")
    if radii is not None:
        radii = sorted(float(r) for r in np.atleast_1d(radii))
        if not radii or radii[0] <= 0:
            raise ValueError(f"radii must be positive lengths in mm, got {radii}")
        radii = sorted({max(r, *voxel_size) for r in radii})
    if not gradient_noise >= 0:
        raise ValueError(f"gradient_noise must not be negative, got {gradient_noise}")
    work = Grid(mask, voxel_size, padding_mm)
    inside, total, spread, known = phase_units(work, field, mask, noise, radians_per_ppm)
    spread = np.hypot(spread, gradient_noise * neighbour_difference(total, inside))
    dipole = dipole_kernel(work.grid, voxel_size, b0_dir, total.dtype)
    if radii is None:
        terms = harmonic_term(work, inside, total, spread, known, dipole)
    else:
        terms = sphere_terms(work, radii, inside, total, spread, known, dipole)
    del total, spread, known
    typical = None if noise is None else terms.typical_noise
    rule = _Rule(lambda_, huber_width, radians_per_ppm, typical)
    smooth = _smooth(work, inside, magnitude, edge_noise, edge_fraction, terms.served)
    done: dict[str, Any] = {
        "edges_from_magnitude": magnitude is not None,
        "edges": _edge_share(inside, smooth),
        "typical_noise": rule.noise,
        "background_model": "harmonic" if radii is None else "spheres",
        "voxels_without_data": int(np.count_nonzero(inside & ~terms.served)),
    }
    if terms.radii is not None:
        counts = np.bincount(terms.shell.ravel(), minlength=len(terms.radii) + 1)[1:]
        done["radii_used"] = terms.radii
        done["shell_voxels"] = {f"{r:g}": int(c) for r, c in zip(terms.radii, counts, strict=True)}
    deep = terms.deep
    problem, known = _problem(
        work, inside, terms, smooth, rule.first, rule.splittings, rule.width or 0.0,
        drift(terms.radii, voxel_size) if free_laplacian else None, rule.laplacian_limits[0],
    )  # fmt: skip
    del inside, dipole, terms, smooth  # the problem keeps what it needs
    done |= _solve(
        problem, work, known, rule.first, merit, iterations, rule.laplacian_limits[1], rule, deep,
        # Spheres leave their residuals to the standard deviation, see merit_weights.
        max(rule.noise or 0.0, LEAST_NOISE * radians_per_ppm) if radii is None else None,
    )  # fmt: skip
    if free_laplacian:
        done["laplacian"] = problem.drift_factor
    for key in ("roughness", "huber_width_used"):
        if key in done:
            done[key] /= radians_per_ppm
    x = problem.x
    del problem  # Makes room for the map.
    return work.back(x, mask, radians_per_ppm), mask, done


class _Rule:
    """lambda and Huber width (rad per mm) where they follow from the map and its noise.

    Parameters
    ----------
    lambda_, huber_width : float or None
        As they were given (ppm per mm).
    radians_per_ppm : float
    noise : float or None
        Typical noise of the data, rad.
    """

    def __init__(self, lambda_, huber_width, radians_per_ppm: float, noise: float | None):
        self.given, self.radians_per_ppm, self.noise = lambda_, radians_per_ppm, noise
        # Given lambda, the problem is one in rad, whatever a rad is in ppm.
        self.scale = _MEANT_FOR / radians_per_ppm if lambda_ is None else 1.0
        self.width = None if huber_width is None else huber_width * radians_per_ppm
        self.most = MOST_LAMBDA * self.scale
        if noise is not None:
            self.most = min(self.most, ROUGHEST * radians_per_ppm / (2 * noise**2))
        self.first = min(FIRST_LAMBDA * self.scale, self.most) if lambda_ is None else lambda_
        self.follows = lambda_ is None or huber_width is None
        self.laplacian_limits = [
            tuple(_MEANT_FOR / self.scale * v for v in pair)
            for pair in (FIRST_LAPLACIAN_LIMITS, LAPLACIAN_LIMITS)
        ]

    def follow(self, roughness: float) -> tuple[float, float]:
        """lambda and Huber width of a map as rough as this (rad per mm)."""
        weight, width = self.given, self.width
        if weight is None:
            per_roughness = LAMBDA_PER_ROUGHNESS * self.scale / self.radians_per_ppm
            # A map without any roughness says nothing.
            weight = min(per_roughness * roughness, self.most) or self.first
        return weight, WIDTH_PER_ROUGHNESS * roughness if width is None else width

    def splittings(self, lambda_: float, terms: int) -> tuple[float, list[float]]:
        """Weights of the splittings.

        Measured on heads with and without texture: these settle region differences soonest. In
        proportion to lambda the data's weight would be too large where lambda is, and the smoothest
        parts of the map would take twice the iterations. The largest sphere passes low spatial
        frequencies best and takes half the weight of the others: with the same, these overshoot.
        """
        relative = lambda_ / self.scale
        data = min(0.2 * relative, 6 * relative**0.5) * self.scale
        return 25 * self.scale, [data] * (terms - 1) + [data / 2 if terms > 1 else data]


def total_variation(
    field: np.ndarray,
    mask: np.ndarray,
    voxel_size: Sequence[float],
    *,
    b0_dir: Sequence[float] = (0, 0, 1),
    magnitude: np.ndarray | None = None,
    noise: np.ndarray | None = None,
    radians_per_ppm: float,
    lambda_: float = 1000.0,
    edge_fraction: float = 0.9,
    merit: bool = False,
    iterations: int = 80,
    padding_mm: float = 20.0,
) -> Result:
    """Susceptibility from the local field, with the plain dipole in the data term.

    Parameters and results as in :func:`single_step`; the field is the local one.

    References
    ----------
    Bilgic et al. 2014, doi:10.1002/mrm.25029.
    """
    _check_options(lambda_, iterations)
    work = Grid(mask, voxel_size, padding_mm)
    inside, local, spread, known = phase_units(work, field, mask, noise, radians_per_ppm)
    weight = np.zeros_like(local)
    weight[known] = 1 / spread[known]
    kernel = dipole_kernel(work.grid, voxel_size, b0_dir, local.dtype)
    terms = weighed([kernel], known.astype(np.uint8), local, weight, known)
    smooth = _smooth(work, inside, magnitude, None, edge_fraction)
    problem, known = _problem(
        work, inside, terms, smooth, lambda_, lambda v, _: (20 * np.sqrt(v / 1000), [0.06 * v])
    )
    done = {"edges_from_magnitude": magnitude is not None, "edges": _edge_share(inside, smooth)}
    del inside, local, spread, weight, kernel, terms, smooth  # the problem keeps what it needs
    done |= _solve(problem, work, known, lambda_, merit, iterations)
    x = problem.x
    del problem
    return work.back(x, mask, radians_per_ppm), mask, done


def _check_options(lambda_: float | None, iterations: int) -> None:
    if (lambda_ is not None and not lambda_ > 0) or iterations < 1:
        raise ValueError(
            f"lambda_ must be positive and iterations at least 1, got {lambda_}, {iterations}"
        )


def _smooth(work, inside, magnitude, edge_noise, edge_fraction, measured=None) -> np.ndarray:
    """(3, x, y, z), where the total variation counts; one of the two rules, where not None.

    Arrays of the box.
    """
    if magnitude is None:
        return interior_pairs(inside)
    if edge_fraction is not None:
        # The rule counts the steps at the mask's edge, which lie partly outside the box.
        whole = work.put(magnitude), work.widen(inside), work.voxel_size, edge_fraction
        return interior_pairs(inside) & edge_mask(*whole)[work.within]
    image = magnitude[work.box]
    smooth, strict = quiet_masks(image, inside, (edge_noise, 2 * edge_noise))
    blind = inside & ~measured
    for axis in range(3):
        # A voxel without data that noise alone had parted from all others would keep any value.
        smooth[axis] |= strict[axis] & (blind | np.roll(blind, -1, axis))
    return smooth


def _edge_share(inside: np.ndarray, smooth: np.ndarray) -> float:
    """Part of the pairs of neighbours in the mask that an edge parts."""
    pairs, counted = (int(np.count_nonzero(a)) for a in (interior_pairs(inside), smooth))
    return round(1 - counted / max(pairs, 1), 4)


def _roughness(x: np.ndarray, smooth: np.ndarray, where: np.ndarray, voxel_size) -> float:
    """Mean size of the differences per mm between voxels of `where` that no edge parts.

    Bit d of `smooth` says that difference d has no edge.
    """
    total, count = 0.0, 0
    for axis, spacing in enumerate(voxel_size):
        counted = (smooth >> axis & 1).astype(bool) & where & np.roll(where, -1, axis)
        steps = np.abs(np.roll(x, -1, axis) - x)[counted]
        total, count = total + float(steps.sum(dtype=float)) / spacing, count + steps.size
    return total / max(count, 1)


def _problem(
    work, inside, terms, smooth, lambda_, splittings, width=0.0, drift=None,
    drift_limits=(0.0, 0.0),
) -> tuple[AlternatingDirections, np.ndarray]:  # fmt: skip
    """What the alternating directions work on, and where (in the box) the field is known.

    Data lie in the box; the map and its gradient fill the grid.
    """
    mu_gradient, mu_data = splittings(lambda_, len(terms.kernels))
    shared = work.transform, work.voxel_size, smooth
    rest = {"width": width, "drift_limits": drift_limits, "box": work.inner}
    problem: AlternatingDirections
    if terms.harmonic:
        problem = HarmonicFree(
            *shared, terms.kernels[0], inside, terms.data, terms.weight2, lambda_, mu_gradient,
            mu_data[0], free_laplacian=bool(drift), **rest,
        )  # fmt: skip
    else:
        problem = TotalVariation(
            *shared, terms.kernels, terms.shell, terms.data, terms.weight2, lambda_, mu_gradient,
            mu_data, drift=drift, **rest,
        )  # fmt: skip
    return problem, terms.shell > 0


def _solve(
    problem, work, known, lambda_, merit, iterations, drift_limits=(0.0, 0.0), rule=None,
    deep=None, least_noise=None,
) -> dict[str, Any]:  # fmt: skip
    """Run the alternating directions; the map (rad) is the problem's. Returns what was done."""
    original = problem.weight2 if merit else None
    # As they were given: those of the problem are rounded to its precision.
    width = rule.width if rule is not None else None
    done = {"lambda_used": float(lambda_), "huber_width_used": float(width or 0.0)}

    def reweight(state: AlternatingDirections) -> bool:
        if state.iterations == _ADAPT_AT:
            state.drift_limits = drift_limits
        if rule is not None and rule.follows and state.iterations == _ADAPT_AT:
            near = state.smooth[work.place]
            rough = _roughness(state.x[work.place], near, deep, work.voxel_size)
            new, wide = rule.follow(rough)
            mu_gradient, mu_data = rule.splittings(new, len(state.kernels))
            state.reweigh(new, mu_gradient, mu_data, wide)
            done.update(lambda_used=float(new), huber_width_used=float(wide), roughness=rough)
        # The jump of lambda would pass for a drift until the map has followed it.
        jumped = done["lambda_used"] != lambda_
        state.fits_drift = not (jumped and state.iterations < _ADAPTED_AT)
        if original is not None and state.iterations in (20, 40):
            state.weight2 = merit_weights(original, state.misfit(), known, noise=least_noise)
        return False

    problem.run(iterations, reweight)
    return {
        "iterations": problem.iterations,
        **done,
        "residual": problem.residual(),
        "grid": list(work.grid),
        "fft_count": work.transform.count + work.inner.count,
    }
