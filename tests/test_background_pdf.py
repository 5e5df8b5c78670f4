"""Projection onto dipole fields: what it removes, what it takes too much, when it stops."""

import numpy as np
import pytest
from background_cases import background, ball, interior_harmonic, relative, sphere_field
from locations import find

from qsmref.reconstruction import remove_background
from qsmref.reconstruction.crop import bounding_box
from qsmref.reconstruction.pdf import Projection, pdf

OBLIQUE = (0.3, -0.5, 0.8)
CASES = [((44, 44, 44), (1, 1, 1)), ((44, 44, 22), (1, 1, 2))]


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), OBLIQUE])
@pytest.mark.parametrize(("shape", "size"), CASES)
def test_background_is_removed(shape, size, b0_dir):
    mask = ball(shape, size, 20)
    field = background(shape, size, b0_dir)
    left, kept, info = remove_background(
        field, mask, size, b0_dir=b0_dir, tolerance=0, max_iterations=40
    )
    assert np.array_equal(kept, mask)
    assert relative(field - left, field, mask) < 0.01
    assert info["iterations"] == 40
    assert info["field_residual"] < 0.01
    # Two transforms at the start, four in each iteration.
    assert info["fft_count"] == 2 + 4 * 40


@pytest.mark.parametrize(("shape", "size"), CASES)
def test_over_removal_is_the_projection_on_harmonic_functions(shape, size):
    # A sphere (radius a) in the middle of a ball (radius R) has the field
    # chi / 3 (a / r)^3 (3 cos^2 - 1); its part along r^2 (3 cos^2 - 1), the one harmonic function
    # of that symmetry without a source in the ball, has the factor
    # chi / 3 a^3 7 (R^2 - a^2) / (2 R^7).
    a, radius, chi = 5.0, 20.0, 0.1
    mask, core = ball(shape, size, radius), ball(shape, size, 16)
    truth = sphere_field(shape, size, (0, 0, 0), a, chi)
    taken = chi / 3 * a**3 * 7 * (radius**2 - a**2) / (2 * radius**7)
    taken = taken * interior_harmonic(shape, size)
    local, _, _ = remove_background(truth, mask, size, tolerance=0, max_iterations=20)
    assert 0.12 < relative(local, truth, core) < 0.16
    assert relative(local, truth - taken, core) < 0.03
    ratio = np.vdot((truth - local)[core], taken[core]) / np.vdot(taken[core], taken[core])
    assert 1 < ratio < 1.2


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), OBLIQUE])
def test_projection_and_adjoint(b0_dir):
    rng = np.random.default_rng(2)
    mask = ball((12, 14, 9), (1, 1, 2), 6)
    grid, size = (20, 24, 14), (1, 1, 2)
    problem = Projection(mask, mask.astype(float), grid, size, b0_dir)
    sources = rng.standard_normal(grid) * problem.outside
    weighted = rng.standard_normal(mask.shape) * mask
    back, square = problem.adjoint(weighted)
    assert np.vdot(problem.field(sources), weighted) == pytest.approx(np.vdot(sources, back))
    assert square == pytest.approx(np.vdot(back, back))
    assert not back[~problem.outside].any()


def test_turning_the_array_turns_the_result():
    shape, size = (30, 34, 17), (1, 1, 2)
    mask = ball(shape, size, 14)
    mask[:, 20:] = False
    field = background(shape, size, OBLIQUE)
    local, _, info = remove_background(field, mask, size, b0_dir=OBLIQUE, tolerance=1e-2)
    turned, _, other = remove_background(
        np.transpose(field, (2, 0, 1))[:, ::-1],
        np.transpose(mask, (2, 0, 1))[:, ::-1],
        (2, 1, 1),
        b0_dir=(OBLIQUE[2], -OBLIQUE[0], OBLIQUE[1]),
        tolerance=1e-2,
    )
    assert info["iterations"] == other["iterations"]
    assert np.abs(np.transpose(local, (2, 0, 1))[:, ::-1] - turned).max() < 1e-8


def test_direction_of_b0():
    # The model's own field of a ball outside, against the closed form for this direction.
    shape, size, centre = (24, 24, 24), (1, 1, 1), (20, -4, 2)
    mask = ball(shape, size, 10)
    grid = (72, 72, 72)
    x, y, z = (np.arange(72) - 11.5 - c for c in centre)
    sources = (x[:, None, None] ** 2 + y[:, None] ** 2 + z**2 <= 36).astype(float)
    radius = (3 * sources.sum() / 4 / np.pi) ** (1 / 3)
    field = Projection(mask, mask.astype(float), grid, size, OBLIQUE).field(sources)
    closed = [sphere_field(shape, size, centre, radius, 1.0, b) for b in (OBLIQUE, (0, 0, 1))]
    assert relative(field, closed[0], mask) < 0.15
    assert relative(field, closed[1], mask) > 0.5


@pytest.fixture(scope="module")
def noisy():
    rng = np.random.default_rng(5)
    shape, size = (36, 36, 20), (1, 1, 2)
    mask = ball(shape, size, 15)
    noise = np.where(rng.random(shape) < 0.1, 0.5, 0.005)
    field = background(shape, size)
    return field, field + noise * rng.standard_normal(shape), noise, mask, size


def test_noise_weights_the_fit(noisy):
    field, measured, noise, mask, size = noisy
    errors = []
    for weights in (None, noise):
        local, _, _ = remove_background(measured, mask, size, noise=weights, max_iterations=30)
        errors.append(relative(measured - local, field, mask))
    assert errors[1] < 0.4 * errors[0]


def test_voxels_without_weight(noisy):
    field, measured, noise, mask, size = noisy
    unknown = noise > 0.1
    noise = np.where(unknown, np.inf, noise)
    options = {"noise": noise, "tolerance": 0, "max_iterations": 30}

    def background_of(values, filler):
        values = np.where(unknown, filler, values)
        local, _, info = remove_background(values, mask, size, **options)
        assert info["voxels_without_weight"] == np.count_nonzero(unknown & mask)
        return values - local

    # Whatever stands in such a voxel has no say in the background ...
    assert np.abs(background_of(measured, 100.0) - background_of(measured, 0.0))[mask].max() < 1e-11
    # ... which is known there from the voxels around it.
    clean = background_of(field, 100.0)
    assert relative(clean, field, mask & ~unknown) < 0.01
    assert relative(clean, field, mask & unknown) < 0.06


def test_tolerance_does_not_depend_on_units(noisy):
    _, measured, noise, mask, size = noisy
    runs = [
        remove_background(f * measured, mask, size, noise=n * noise, tolerance=0.02)[2]
        for f, n in ((1, 1), (1000, 1), (1, 1000))
    ]
    assert {r["iterations"] for r in runs} == {runs[0]["iterations"]}
    assert runs[0]["converged"] and runs[0]["residual"] <= 0.02 == runs[0]["stop_at"]
    finer = remove_background(measured, mask, size, noise=noise, tolerance=0.002)[2]
    assert finer["iterations"] > runs[0]["iterations"]
    assert finer["field_residual"] <= runs[0]["field_residual"]
    none = remove_background(measured, mask, size, noise=noise, tolerance=1)[2]
    assert none["iterations"] == 0


def test_rule_of_the_medi_toolbox_depends_on_the_noise(noisy):
    # The trap: the same field with its noise stated ten times larger stops earlier.
    _, measured, noise, mask, size = noisy
    options = {"stopping": "medi", "tolerance": 0.1, "max_iterations": 30}
    fine = remove_background(measured, mask, size, noise=noise, **options)[2]
    coarse = remove_background(measured, mask, size, noise=10 * noise, **options)[2]
    both = remove_background(10 * measured, mask, size, noise=10 * noise, **options)[2]
    assert coarse["stop_at"] == pytest.approx(10 * fine["stop_at"])
    assert both["stop_at"] == pytest.approx(fine["stop_at"])
    assert coarse["iterations"] < fine["iterations"] == both["iterations"]
    extents = [b.stop - b.start for b in bounding_box(mask)]
    assert fine["grid"] == [2 * ((n - 1 + 40) // 2) for n in extents]


def test_no_place_for_sources():
    with pytest.raises(ValueError, match="no place for sources"):
        pdf(np.ones((8, 8, 8)), np.ones((8, 8, 8), bool), (1, 1, 1), padding_mm=0)


def test_zero_field_stays_zero():
    mask = ball((16, 16, 16), (1, 1, 1), 6)
    local, _, info = remove_background(np.zeros((16, 16, 16)), mask, (1, 1, 1))
    assert not local.any()
    assert info["iterations"] == 0 and info["converged"]


def _reference():
    return find("bench", "medi-reference")


@pytest.mark.data
@pytest.mark.skipif(_reference() is None, reason="needs medi-reference (QSMREF_TEST_DATA)")
def test_parity_with_the_medi_toolbox():
    import nibabel as nib

    def load(name):
        return np.asarray(nib.load(_reference() / f"{name}.nii.gz").dataobj, dtype=float)

    mask = load("mask") > 0
    local, _, info = remove_background(
        load("field-unwrapped_rad"),
        mask,
        (1.5, 1.5, 1.5),
        noise=load("noise_rad"),
        stopping="medi",
        tolerance=0.1,
        max_iterations=30,
    )
    assert info["iterations"] == 30
    assert np.abs(local - load("pdf-local_rad"))[mask].max() < 1e-5
