"""Boundary values: the multigrid solver and the method that uses it."""

import numpy as np
import pytest
from background_cases import background, ball, interior_harmonic, relative, sphere_field

from qsmref.reconstruction import remove_background
from qsmref.reconstruction.lbv import negative_laplacian
from qsmref.reconstruction.multigrid import MaskedPoisson

CASES = [((44, 44, 44), (1, 1, 1)), ((44, 44, 22), (1, 1, 2)), ((36, 70, 22), (1.25, 0.625, 2))]


def _masks():
    rng = np.random.default_rng(0)
    shape = (30, 26, 21)
    return {
        "ball": ball(shape, (1, 1, 1), 9.5),
        "holes": ball(shape, (1, 1, 1), 12) & (rng.random(shape) > 0.03),
        "scattered": rng.random(shape) > 0.5,
        "full": np.ones(shape, bool),
        "slice": np.ones((30, 26, 1), bool),
        "one voxel": np.ones((1, 1, 1), bool),
    }


@pytest.mark.parametrize("size", [(1, 1, 1), (0.6, 0.6, 2), (1, 2, 3)])
@pytest.mark.parametrize("name", list(_masks()))
def test_poisson_on_any_mask(name, size):
    mask = _masks()[name]
    rng = np.random.default_rng(1)
    poisson = MaskedPoisson(mask, size, np.float64)
    truth = rng.standard_normal(mask.shape) * mask
    right = poisson.apply(poisson.pad(truth))[1:-1, 1:-1, 1:-1]
    assert np.allclose(right, negative_laplacian(truth, size) * mask)
    solution, done = poisson.solve(right, 1e-9, 40)
    assert done["converged"]
    assert np.abs(solution - truth).max() < 1e-6
    u, v = (poisson.pad(rng.standard_normal(mask.shape)) for _ in range(2))
    mu, mv = poisson.precondition(u).copy(), poisson.precondition(v).copy()
    assert np.vdot(mu, v) == pytest.approx(np.vdot(u, mv), rel=1e-9, abs=1e-12)
    assert np.vdot(mu, u) > 0


def test_iterations_do_not_grow_with_the_grid():
    counts = []
    for n in (16, 32, 64):
        mask = ball((n, n, n), (1, 1, 1), 0.45 * n)
        right = np.random.default_rng(n).standard_normal(mask.shape)
        counts.append(MaskedPoisson(mask, (1, 1, 1)).solve(right, 1e-5, 50)[1]["iterations"])
    assert max(counts) <= 10


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (0.3, -0.5, 0.8)])
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_background_is_removed(shape, size, b0_dir):
    mask = ball(shape, size, 20)
    field = background(shape, size, b0_dir)
    left, kept, info = remove_background(field, mask, size, "lbv")
    assert relative(field - left, field, kept) < 6e-3
    assert info["converged"] and info["iterations"] < 10


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (0.3, -0.5, 0.8)])
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_over_removal_is_the_continuation_of_the_boundary(shape, size, b0_dir):
    # On the boundary (radius R) the local field of a sphere (radius a) in the middle is
    # chi / 3 (a / R)^3 (3 cos^2 - 1). Inside, its harmonic continuation grows like r^2: that
    # much is taken away.
    a, radius, chi = 5.0, 20.0, 0.1
    mask = ball(shape, size, radius)
    truth = sphere_field(shape, size, (0, 0, 0), a, chi, b0_dir)
    taken = chi / 3 * a**3 / radius**5 * interior_harmonic(shape, size, b0_dir)
    local, kept, _ = remove_background(truth, mask, size, "lbv")
    assert 0.06 < relative(local, truth, kept) < 0.1
    assert relative(local, truth - taken, kept) < 0.025


def test_boundary_and_peel():
    shape, size = CASES[1]
    mask = ball(shape, size, 20)
    field = background(shape, size)
    _, kept, info = remove_background(field, mask, size, "lbv")
    edges = [np.roll(~mask, step, axis) for axis in range(3) for step in (-1, 1)]
    assert np.array_equal(kept, mask & ~np.logical_or.reduce(edges))
    assert info["fft_count"] == 0
    _, peeled, less = remove_background(field, mask, size, "lbv", peel_mm=3)
    assert less["kept_fraction"] == pytest.approx(peeled.sum() / mask.sum())
    assert peeled.sum() < 0.8 * kept.sum()
    with pytest.raises(ValueError, match="six neighbours"):
        remove_background(field, np.eye(44, dtype=bool)[:, :, None].repeat(22, 2), size, "lbv")
