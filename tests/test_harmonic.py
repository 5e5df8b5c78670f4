"""Harmonic functions free in the data term: the local system, and the minimum that it leads to."""

import numpy as np
import pytest
from background_cases import ball
from hypothesis import given
from hypothesis import strategies as st
from inversion_cases import ANISOTROPIC, make_case, options
from scipy import ndimage

from qsmref.reconstruction import invert
from qsmref.reconstruction.dipole import dipole_kernel
from qsmref.reconstruction.fft import Transform
from qsmref.reconstruction.harmonic import HarmonicFree, split_filter
from qsmref.reconstruction.localsystem import KAPPA, LocalSystem, inner
from qsmref.reconstruction.multigrid import MaskedPoisson

GRID, SIZE, B0 = (9, 8, 6), (1.0, 1.0, 2.0), (0.3, -0.5, 0.8)


def laplacian_stencil(wide):
    """- Laplacian of 7 points, or of 19, as an array of 3 x 3 x 3."""
    none, second = np.array([0.0, 1, 0]), np.array([1.0, -2, 1])

    def product(axes):
        x, y, z = (second if axis in axes else none for axis in range(3))
        return x[:, None, None] * y[:, None] * z

    stencil = -sum(product([axis]) / SIZE[axis] ** 2 for axis in range(3))
    if wide:
        for a, b in ((0, 1), (0, 2), (1, 2)):
            factor = (SIZE[a] ** 2 + SIZE[b] ** 2) / (12 * SIZE[a] ** 2 * SIZE[b] ** 2)
            stencil -= factor * product([a, b])
    return stencil


def laplacian_matrix(inside, interior, wide=True):
    """- Laplacian: a row for each inner voxel, a column for each of the mask."""
    column = np.full(inside.shape, -1)
    column[inside] = np.arange(np.count_nonzero(inside))
    matrix = np.zeros((np.count_nonzero(interior), np.count_nonzero(inside)))
    stencil = laplacian_stencil(wide)
    for row, (i, j, k) in enumerate(np.argwhere(interior)):
        columns = column[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2]
        used = stencil != 0
        assert (columns[used] >= 0).all()
        matrix[row, columns[used]] = stencil[used]
    return matrix


@pytest.fixture
def setting():
    rng = np.random.default_rng(3)
    inside = ball(GRID, SIZE, 4.0)
    interior = inner(inside)
    weight2 = np.where(inside, rng.uniform(0.3, 2.0, GRID), 0)
    field = np.where(inside, rng.standard_normal(GRID), 0)
    return rng, inside, interior, weight2, field


def test_inner_voxels_have_their_neighbours():
    inside = np.zeros((9, 9, 9), bool)
    inside[1:8, 1:8, 1:8] = True
    inside[4, 4, 7] = False
    found = inner(inside)
    assert np.array_equal(np.argwhere(found).min(0), [2, 2, 2])
    # Diagonals within a plane count, those through the cube do not.
    assert not found[4, 4, 6] and not found[5, 4, 6]
    assert found[5, 5, 6]


def test_the_laplacian_is_exact_for_harmonic_functions_of_fourth_order():
    x, y, z = (h * (n - 4.3) for n, h in zip(np.indices(GRID), SIZE, strict=True))
    across = x**2 + y**2
    for harmonic in (
        x**4 - 6 * x**2 * y**2 + y**4,
        8 * z**4 - 24 * z**2 * across + 3 * across**2,
        x * z * (4 * z**2 - 3 * across),
    ):
        inside = np.ones(GRID, bool)
        local = LocalSystem(inside, harmonic, SIZE)
        size = np.abs(harmonic).max()
        assert np.abs(local.field_side[local.interior]).max() < 1e-10 * size
    # That of 7 points is not.
    plain = ndimage.correlate(x**4 - 6 * x**2 * y**2 + y**4, laplacian_stencil(False))
    assert np.allclose(plain[1:-1, 1:-1, 1:-1], -4)


@given(st.tuples(*[st.floats(0.2, 6.0)] * 3))
def test_the_wide_laplacian_is_positive_for_any_voxel(size):
    # Second differences of plane waves, per mm squared, on all their range.
    waves = [np.linspace(0, 4, 9) / h**2 for h in size]
    seven = waves[0][:, None, None] + waves[1][:, None] + waves[2]
    wide = split_filter(waves, size) * (seven + KAPPA**2)
    assert (wide <= seven * (1 + 1e-12)).all()
    assert (wide >= seven / 3 * (1 - 1e-9)).all()


def test_the_filter_is_that_of_the_stencils():
    transform = Transform(GRID)
    solver = HarmonicFree(
        transform, SIZE, np.ones((3, *GRID), bool), np.ones(transform.spectrum),
        np.ones(GRID, bool), np.zeros(GRID), np.ones(GRID), 1.0, 1.0, 1.0,
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal(GRID)
    filtered = transform.inverse(transform.forward(x) * solver.filter)
    screened = ndimage.correlate(filtered, laplacian_stencil(False), mode="wrap")
    wide = ndimage.correlate(x, laplacian_stencil(True), mode="wrap")
    assert np.allclose(screened + KAPPA**2 * filtered, wide, atol=1e-10)


def test_screened_cycles_invert_the_shifted_operator(setting):
    rng, inside, *_ = setting
    poisson = MaskedPoisson(inside, SIZE, np.float64, shift=0.3)
    x = poisson.pad(rng.standard_normal(GRID))
    solution, done = poisson.solve(poisson.apply(x)[1:-1, 1:-1, 1:-1], 1e-10, 50)
    assert done["converged"]
    assert np.abs(solution - x[1:-1, 1:-1, 1:-1]).max() < 1e-8


def test_the_local_system_finds_split_and_residual(setting):
    rng, inside, interior, weight2, field = setting
    lambda_, mu = 50.0, 20.0
    a = np.where(inside, rng.standard_normal(GRID), 0)
    local = LocalSystem(inside, field, SIZE)
    local.a[1:-1, 1:-1, 1:-1] = a
    local.vary(weight2)
    local.weigh(2 * lambda_, mu)
    local.solve(0.0, 60)
    # The same by the equations of the constrained minimum, dense.
    matrix = laplacian_matrix(inside, interior)
    screened = laplacian_matrix(inside, interior, wide=False)
    screened[np.arange(len(matrix)), np.flatnonzero(interior[inside])] += KAPPA**2
    count, rows = matrix.shape[1], len(matrix)
    system = np.zeros((2 * count + rows, 2 * count + rows))
    system[:count, :count] = mu * np.eye(count)
    system[count:-rows, count:-rows] = np.diag(2 * lambda_ * weight2[inside])
    system[-rows:, :count], system[:count, -rows:] = screened, screened.T
    system[-rows:, count:-rows], system[count:-rows, -rows:] = matrix, matrix.T
    right = np.concatenate([mu * a[inside], np.zeros(count), matrix @ field[inside]])
    z, e = np.split(np.linalg.solve(system, right)[:-rows], 2)
    assert np.allclose((local.a - local.multiplier())[1:-1, 1:-1, 1:-1][inside], z, atol=1e-8)
    assert np.allclose(local.error()[inside], e, atol=1e-8)


def test_the_minimum_is_that_of_the_equations(setting):
    # With a width that no difference reaches the penalty is quadratic and the minimum linear.
    rng, inside, interior, weight2, field = setting
    lambda_, width = 40.0, 1.0
    field = 0.05 * field
    transform = Transform(GRID)
    dipole = dipole_kernel(GRID, SIZE, B0, np.float64)
    smooth = rng.random((3, *GRID)) < 0.8
    solver = HarmonicFree(
        transform, SIZE, smooth, dipole, inside, field, weight2, lambda_, 1.0, 5.0, width=width
    )
    solver.run(4000)

    def spread(x):
        steps = [(np.roll(x, -1, a) - x)[smooth[a]] / SIZE[a] for a in range(3)]
        return np.concatenate(steps) / np.sqrt(2 * width)

    def predict(x):
        return transform.inverse(transform.forward(x) * dipole)[inside]

    unit = np.eye(np.prod(GRID)).reshape(-1, *GRID)
    steps = np.array([spread(u) for u in unit]).T
    forward = np.array([predict(u) for u in unit]).T
    # The harmonic functions: what the Laplacian takes for nothing.
    matrix = laplacian_matrix(inside, interior)
    harmonic = np.linalg.svd(matrix)[2][len(matrix) :].T
    weight = np.sqrt(lambda_ * weight2[inside])[:, None]
    free = np.linalg.qr(weight * harmonic)[0]

    def left(v):
        return v - free @ (free.T @ v)

    system = np.concatenate([steps, left(weight * forward)])
    right = np.concatenate([np.zeros(len(steps)), left(weight[:, 0] * field[inside])])
    best = np.linalg.norm(system @ np.linalg.lstsq(system, right, rcond=None)[0] - right)
    assert np.abs(spread(solver.x)).max() < width / np.sqrt(2 * width)
    reached = np.linalg.norm(system @ solver.x.reshape(-1) - right)
    assert best < 0.9 * np.linalg.norm(right)
    assert reached == pytest.approx(best, rel=1e-5)
    # The residual that it tells is that of the best harmonic function.
    error = left(weight[:, 0] * (predict(solver.x) - field[inside])) / weight[:, 0]
    assert np.allclose(solver.misfit()[inside], error, atol=1e-3 * np.abs(error).max())
    tissue = predict(solver.x) - error
    told = np.linalg.norm(weight[:, 0] * error) / np.linalg.norm(weight[:, 0] * tissue)
    assert solver.residual() == pytest.approx(told, rel=1e-3)


def test_lambda_and_splittings_may_change_on_the_way(setting):
    rng, inside, _, weight2, field = setting
    dipole = dipole_kernel(GRID, SIZE, B0, np.float64)
    smooth = np.ones((3, *GRID), bool)

    def solver(lambda_, mu):
        return HarmonicFree(
            Transform(GRID), SIZE, smooth, dipole, inside, field, weight2, lambda_, *mu, width=0.01
        )

    changed = solver(8.0, (1.0, 5.0))
    changed.run(30)
    split = changed.local.a - changed.local.multiplier()
    changed.reweigh(40.0, 2.0, [8.0])
    assert np.allclose(changed.local.a - changed.local.multiplier(), split, atol=1e-12)
    changed.run(3000)
    straight = solver(40.0, (1.0, 5.0))
    straight.run(3000)
    assert np.ptp(straight.x) > 0.1
    assert np.allclose(changed.x, straight.x, atol=1e-3 * np.ptp(straight.x))


def test_no_harmonic_field_reaches_the_map():
    case = make_case(*ANISOTROPIC)
    x, y, z = (
        (np.arange(n) - n / 2).reshape([-1 if a == b else 1 for b in range(3)]) * h
        for a, (n, h) in enumerate(zip(case.mask.shape, case.size, strict=True))
    )
    background = (
        0.01 * x + 2e-3 * (x**2 - y**2) - 1e-3 * (2 * z**2 - x**2 - y**2) + 3e-4 * x * y * z
    )
    given = {**options(case), "gradient_noise": 0.0, "iterations": 60}
    maps = [
        invert((case.total + f).astype(np.float32), case.mask, case.size, **given)[0]
        for f in (0, background)
    ]
    assert np.std(background[case.mask]) > 50 * np.std((maps[1] - maps[0])[case.mask])
    assert np.std((maps[1] - maps[0])[case.mask]) < 0.01 * np.std(maps[0][case.mask])


def test_a_mask_without_inner_voxels_is_refused():
    case = make_case(*ANISOTROPIC)
    thin = np.zeros_like(case.mask)
    thin[:, :, case.mask.shape[2] // 2] = True
    with pytest.raises(ValueError, match="nowhere is the Laplacian of the field known"):
        invert(case.total, thin & case.mask, case.size, **options(case))
