"""The alternating directions reach the minimum that an independent solver finds."""

import numpy as np
import pytest
from background_cases import ball
from scipy.linalg import solve
from scipy.sparse import csr_array

from qsmref.reconstruction.admm import TotalVariation
from qsmref.reconstruction.dipole import dipole_kernel
from qsmref.reconstruction.fft import Transform
from qsmref.reconstruction.spheres import sphere_spectrum

GRID, SIZE, B0 = (9, 8, 6), (1.0, 1.0, 2.0), (0.3, -0.5, 0.8)


class Problem:
    """A problem with two data terms, and its objective written down once more with numpy."""

    def __init__(self, lambda_, seed=0, width=0.0):
        rng = np.random.default_rng(seed)
        self.lambda_, self.width = lambda_, width
        dipole = dipole_kernel(GRID, SIZE, B0, np.float64)
        self.kernels = [dipole, (1 - sphere_spectrum(GRID, SIZE, 3.0, np.float64)) * dipole]
        inside = ball(GRID, SIZE, 4.5)
        self.shell = np.where(inside, rng.integers(0, 3, GRID), 0).astype(np.uint8)
        self.weight2 = rng.uniform(0.2, 2.0, GRID)
        truth = np.zeros(GRID)
        truth[4:7, 3:5, 2:4] = 0.3
        truth[2:4, 4:7, 1:5] = -0.2
        noise = 0.003 * rng.standard_normal(GRID)
        self.data = self.predict(truth) + np.where(self.shell > 0, noise, 0)
        self.smooth = rng.random((3, *GRID)) < 0.8

    def predict(self, x):
        """K x, each voxel with its own term, zero where nothing is measured."""
        out = np.zeros(GRID)
        for index, kernel in enumerate(self.kernels):
            image = np.fft.irfftn(np.fft.rfftn(x) * kernel, s=GRID, axes=(0, 1, 2))
            out += np.where(self.shell == index + 1, image, 0)
        return out

    def steps(self, x):
        """Periodic forward differences per mm that count."""
        parts = [(np.roll(x, -1, axis) - x) / SIZE[axis] for axis in range(3)]
        return np.where(self.smooth, parts, 0)

    def objective(self, x):
        misfit = np.where(self.shell > 0, self.weight2 * (self.predict(x) - self.data) ** 2, 0)
        steps = np.abs(self.steps(x))
        if self.width:
            steps = np.where(
                steps < self.width, steps**2 / (2 * self.width), steps - self.width / 2
            )
        return steps.sum() + self.lambda_ * misfit.sum()

    def minimum(self):
        """By iteratively reweighted least squares: every step solves a dense system.

        |t| is replaced by t^2 / (2 length) + length / 2, which touches it from above at
        t = length, so that no step can raise the objective; lengths stay above a corner that is
        made sharper and sharper (as sharp as the penalty itself, where that has a width).
        """
        unit = np.eye(np.prod(GRID)).reshape(-1, *GRID)
        matrix = np.array([self.predict(e)[self.shell > 0] for e in unit]).T
        steps = csr_array(np.array([self.steps(e)[self.smooth] for e in unit]).T)
        weight = 2 * self.lambda_ * self.weight2[self.shell > 0]
        data = matrix.T @ (weight[:, None] * matrix)
        # The mean of x has no field and no steps: any value is as good, zero is taken.
        data += 1.0
        right = matrix.T @ (weight * self.data[self.shell > 0])
        x = np.zeros(len(unit))
        for corner in np.geomspace(1e-1, 1e-8, 80):
            curvature = 1 / np.maximum(np.abs(steps @ x), max(corner, self.width))
            smooth = steps.T @ steps.multiply(curvature[:, None])
            x = solve(data + smooth.toarray(), right, assume_a="pos")
        return x.reshape(GRID)

    def solver(self, dtype=np.float64, mu=(20.0, (60.0, 60.0)), **options):
        return TotalVariation(
            Transform(GRID), SIZE, self.smooth, [k.astype(dtype) for k in self.kernels],
            self.shell, self.data.astype(dtype), self.weight2.astype(dtype), self.lambda_, *mu,
            **{"width": self.width, **options},
        )  # fmt: skip


@pytest.fixture(scope="module", params=[(500.0, 0.0), (5000.0, 0.0), (500.0, 0.02)])
def case(request):
    lambda_, width = request.param
    problem = Problem(lambda_, width=width)
    return problem, problem.minimum()


def test_the_reference_is_a_minimum(case):
    problem, reference = case
    best = problem.objective(reference)
    assert best < 0.5 * problem.objective(np.zeros(GRID))
    rng = np.random.default_rng(1)
    for size in (1e-1, 1e-2, 1e-3, 1e-4):
        assert problem.objective(reference + size * rng.standard_normal(GRID)) > best


def test_objective_and_prediction_are_those_of_the_reference(case):
    problem, reference = case
    solver = problem.solver()
    solver.run(3000)
    best = problem.objective(reference)
    assert problem.objective(solver.x) == pytest.approx(best, rel=5e-5)
    # K x is unique where it was measured, x itself need not be.
    assert np.abs(solver.predicted - problem.predict(solver.x)).max() < 1e-12
    known = problem.shell > 0
    error = (solver.predicted - problem.predict(reference))[known]
    assert np.linalg.norm(error) < 1e-2 * np.linalg.norm(problem.predict(reference)[known])


def test_objective_falls_to_the_minimum_from_above(case):
    problem, reference = case
    best = problem.objective(reference)
    values = []
    solver = problem.solver()
    solver.run(1000, lambda state: bool(values.append(problem.objective(state.x))))
    excess = np.array(values) / best - 1
    assert excess.min() > -5e-5
    assert excess[299] < 0.02
    assert excess[999] < 1e-3
    assert excess[299] < excess[49] < excess[4]
    # With a width the minimum is reached to the last digit.
    assert excess[999] < max(excess[299], 1e-14)


@pytest.mark.parametrize(
    ("mu", "relaxation"), [((20, (60, 60)), 1.0), ((5, (100, 50)), 1.7), ((60, (30, 90)), 1.5)]
)
def test_splitting_weights_change_the_way_and_not_the_end(case, mu, relaxation):
    problem, reference = case
    solver = problem.solver(mu=mu, relaxation=relaxation)
    solver.run(3000)
    assert problem.objective(solver.x) == pytest.approx(problem.objective(reference), rel=1e-3)


def test_lambda_may_change_on_the_way(case):
    problem, reference = case
    solver = problem.solver()
    solver.twice = solver.dtype(0.2 * problem.lambda_)  # started with a tenth of it
    solver.run(40)
    # Nothing changes: the split variables are those of before.
    gradient, data = solver.jump.copy(), solver.split.copy()
    solver.reweigh(0.1 * problem.lambda_, solver.mu_gradient, solver.mu_data)
    assert np.allclose(solver.jump, gradient, rtol=0, atol=1e-12)
    assert np.allclose(solver.split, data, rtol=0, atol=1e-12)
    solver.reweigh(problem.lambda_, 40.0, (120.0, 60.0))
    solver.run(3000)
    assert problem.objective(solver.x) == pytest.approx(problem.objective(reference), rel=1e-3)


def test_a_width_may_come_on_the_way():
    problem = Problem(500.0, width=0.02)
    solver = problem.solver(width=0.0)
    solver.run(40)
    solver.reweigh(problem.lambda_, solver.mu_gradient, solver.mu_data, 0.02)
    solver.run(3000)
    best = problem.objective(problem.minimum())
    assert problem.objective(solver.x) == pytest.approx(best, rel=1e-6)
    # Another problem: plain total variation has its minimum elsewhere.
    plain = Problem(500.0).minimum()
    assert problem.objective(plain) > 1.001 * best


def test_single_precision(case):
    problem, _ = case
    single, double = problem.solver(np.float32), problem.solver()
    single.run(80)
    double.run(80)
    assert single.x.dtype == np.float32
    difference = (single.x - single.x.mean()) - (double.x - double.x.mean())
    assert np.abs(difference).max() < 1e-3 * np.ptp(double.x)
    assert single.residual() == pytest.approx(double.residual(), rel=1e-2)


def test_residual_is_that_of_the_prediction(case):
    problem, _ = case
    solver = problem.solver()
    solver.run(20)
    known = problem.shell > 0
    weight = np.sqrt(problem.weight2[known])
    top = np.linalg.norm(weight * (problem.predict(solver.x) - problem.data)[known])
    bottom = np.linalg.norm(weight * problem.data[known])
    assert solver.residual() == pytest.approx(top / bottom, rel=1e-10)


def test_count_and_early_stop(case):
    problem, _ = case
    solver = problem.solver()
    solver.run(10, lambda state: state.iterations == 4)
    assert solver.iterations == 4
    # One pair of transforms for the map and one for each data term.
    assert solver.transform.count == 4 * 2 * 3
    before = solver.x
    solver.run(3)
    again = problem.solver()
    again.run(7)
    assert np.array_equal(solver.x, again.x)
    assert not np.array_equal(solver.x, before)


def test_map_has_no_mean():
    problem = Problem(300.0)
    solver = problem.solver()
    solver.run(10)
    assert abs(solver.x.mean()) < 1e-12
