"""MEDI: its Gauss-Newton steps, the spherical mean option, MERIT and the fluid's zero."""

import numpy as np
import pytest
from inversion_cases import ANISOTROPIC, ISOTROPIC, OBLIQUE, ellipsoid, make_case, options

from qsmref.reconstruction import invert
from qsmref.reconstruction.dipole import dipole_kernel
from qsmref.reconstruction.fft import Transform
from qsmref.reconstruction.medi import GaussNewton
from qsmref.reconstruction.spheres import sphere_spectrum, spherical_mean


@pytest.fixture(scope="module")
def case():
    return make_case(*ANISOTROPIC)


def medi(case, **changes):
    return invert(case.local, case.mask, case.size, "medi", **{**options(case), **changes})


class Objective:
    """The objective of one small problem, written down with numpy."""

    def __init__(self, seed=0):
        self.grid, self.size, self.lambda_ = (7, 8, 6), (1.0, 1.0, 2.0), 50.0
        rng = np.random.default_rng(seed)
        self.inside = ellipsoid(self.grid, self.size, (0, 0, 0), (3.5, 4, 5))
        self.phase = np.where(self.inside, 0.8 * rng.standard_normal(self.grid), 0)
        self.spread = np.where(self.inside, rng.uniform(0.5, 2, self.grid), 0)
        self.edges = rng.random((3, *self.grid)) < 0.8
        self.kernel = dipole_kernel(self.grid, self.size, OBLIQUE, np.float64)
        self.csf = self.inside & (rng.random(self.grid) < 0.2)
        self.problem = GaussNewton(
            Transform(self.grid), Transform(self.grid), self.kernel, self.size, self.edges,
            self.inside, self.phase,
            self.spread, self.lambda_, False, (self.csf, 7.0),
        )  # fmt: skip

    def value(self, x):
        steps = np.stack(
            [np.diff(x, axis=a, append=x.take([-1], a)) / h for a, h in enumerate(self.size)]
        )
        weight = np.zeros(self.grid)
        weight[self.inside] = 1 / self.spread[self.inside]
        weight /= weight[self.inside].mean()
        field = np.fft.irfftn(np.fft.rfftn(x) * self.kernel, s=self.grid, axes=(0, 1, 2))
        misfit = np.abs(weight * (np.exp(1j * field) - np.exp(1j * self.phase))) ** 2
        fluid = x[self.csf] - x[self.csf].mean()
        return (
            np.sqrt((steps * self.edges) ** 2 + 1e-6)[self.edges].sum()
            + self.lambda_ * misfit.sum()
            + 7.0 / 2 * np.sum(fluid**2)
        )


def test_penalties_are_a_symmetric_operator_and_tell_its_product():
    objective = Objective()
    problem, rng = objective.problem, np.random.default_rng(3)
    x, y, start = rng.standard_normal((3, *objective.grid))
    diffusion = rng.uniform(0.1, 2.0, (3, *objective.grid))
    images = []
    for v in (x, y):
        out = np.zeros_like(v)
        assert problem._add_smooth(v, diffusion, out) == pytest.approx(np.vdot(v, out))
        images.append(out)
    assert np.vdot(x, images[1]) == pytest.approx(np.vdot(y, images[0]))
    # The adjoint gradient of the weighted gradient, by differences of whole arrays.
    expected = 0
    for axis in range(3):
        flow = np.diff(x, axis=axis) * diffusion[axis].take(range(x.shape[axis] - 1), axis)
        none = np.zeros_like(x.take([0], axis))
        expected = expected - np.diff(flow, axis=axis, prepend=none, append=none)
    centred = x[objective.csf] - x[objective.csf].mean()
    expected[objective.csf] += 7.0 * centred
    assert np.allclose(images[0], expected)
    # What is there already stays, and counts in the product.
    out = start.copy()
    assert problem._add_smooth(x, diffusion, out) == pytest.approx(np.vdot(x, out))
    assert np.allclose(out, start + expected)


def test_steps_lower_the_objective():
    objective = Objective()
    values = [objective.value(np.zeros(objective.grid))]
    for steps in (1, 2, 4, 8, 40):
        x, _ = objective.problem.solve(0.0, steps, 1e-9, 400)
        values.append(objective.value(x))
    assert all(b < a for a, b in zip(values[:4], values[1:5], strict=True))
    # The last is a minimum: whatever is added makes it larger.
    rng = np.random.default_rng(1)
    for size in (1e-2, 1e-3, 1e-4):
        for _ in range(5):
            direction = rng.standard_normal(objective.grid)
            assert objective.value(x + size * direction) > values[-1]


def test_minimum_has_no_slope():
    objective = Objective()
    x, done = objective.problem.solve(0.0, 100, 1e-10, 400)
    assert done["step"] < 1e-3
    rng = np.random.default_rng(2)
    for _ in range(8):
        d = rng.standard_normal(objective.grid)
        d -= d.mean()
        # Central differences, against the slope at the start.
        slopes = [
            (objective.value(y + 1e-6 * d) - objective.value(y - 1e-6 * d)) / 2e-6
            for y in (x, np.zeros(objective.grid))
        ]
        assert abs(slopes[0]) < 1e-2 * max(abs(slopes[1]), 10)


def test_spherical_mean_cuts_the_mask_and_helps_against_background(case):
    # Half the background left behind: the filter takes it from the field and the model alike.
    field = case.local + 0.5 * (case.total - case.local)
    plain, _, _ = invert(field, case.mask, case.size, "medi", **options(case))
    chi, kept, info = invert(field, case.mask, case.size, "medi", **options(case), smv_radius=4.0)
    sphere = sphere_spectrum((80, 80, 48), case.size, 4.0)
    mean = spherical_mean(
        case.mask.astype(np.float32), sphere, Transform(case.mask.shape, (80, 80, 48))
    )
    assert np.array_equal(kept, mean > 0.999)
    assert info["smv_radius"] == 4.0
    assert not chi[~kept].any()
    assert case.error(chi, kept) < 0.1 < case.error(plain, kept)


def test_fluid_has_mean_zero_and_is_smooth(case):
    fluid = ellipsoid(*ANISOTROPIC, (0, 0, 5), (3, 3, 3)) & case.mask
    plain, _, _ = medi(case)
    chi, _, info = medi(case, csf=fluid)
    assert abs(chi[fluid].mean(dtype=float)) < 1e-7
    assert info["lambda_csf"] == 100.0
    stronger, _, _ = medi(case, csf=fluid, lambda_csf=1e5)
    assert stronger[fluid].std() < 0.5 * chi[fluid].std() < plain[fluid].std()
    assert not chi[~case.mask].any()
    # Differences between regions do not know of it.
    assert abs(case.contrast_error(chi) - case.contrast_error(plain)) < 3e-4
    nothing, _, _ = medi(case, csf=fluid, lambda_csf=0.0)
    shift = (plain - nothing)[case.mask]
    assert np.ptp(shift) < 1e-5
    assert shift.mean() == pytest.approx(plain[fluid].mean(), abs=1e-5)


def test_fluid_outside_the_mask(case):
    with pytest.raises(ValueError, match="cerebrospinal fluid has no voxel inside"):
        medi(case, csf=~case.mask)


def test_phase_may_be_wrapped(case):
    # The data term knows angles only; the wraps of a field beyond pi do not matter to it.
    field = case.local * 8
    wraps = np.zeros_like(field)
    wraps[::3, ::2, ::4] = 1.0
    one, _, _ = invert(
        field, case.mask, case.size, "medi", radians_per_ppm=2 * np.pi, max_iterations=3
    )
    two, _, _ = invert(
        field + wraps, case.mask, case.size, "medi", radians_per_ppm=2 * np.pi, max_iterations=3
    )
    assert np.abs(one - two).max() < 1e-3 * np.abs(one).max()


def test_limits_are_kept(case):
    _, _, info = medi(case, tolerance=0.0, max_iterations=2, cg_max_iterations=5)
    assert (info["iterations"], info["cg_iterations"]) == (2, 10)
    assert not info["converged"]
    # Two pairs for a step of the inner loop, one for the slope and one for the new field.
    assert info["fft_count"] == 2 * (2 * 10 + 2 * 2)
    _, _, info = medi(case, tolerance=0.5)
    assert info["converged"]
    assert info["step"] <= 0.5
    _, _, one = medi(case, max_iterations=1)
    assert one["step"] is None


def test_merit_leaves_clean_data_alone(case):
    plain, _, _ = medi(case)
    merit, _, _ = medi(case, merit=True)
    assert abs(case.error(merit) - case.error(plain)) < 5e-3


def test_total_field_inversion_gains_by_its_preconditioner():
    case = make_case(*ISOTROPIC)
    errors = {}
    for outside in (1.0, 30.0):
        chi, _, info = invert(
            case.total, case.mask, case.size, "total-field", **options(case), outside=outside,
            max_iterations=2, cg_max_iterations=120,
        )  # fmt: skip
        assert info["outside"] == outside
        errors[outside] = case.error(chi)
    assert errors[30.0] < 0.85 * errors[1.0]
