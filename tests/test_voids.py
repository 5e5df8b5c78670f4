"""Voxels of the mask without signal: their phase is chance, and the map must not follow it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inversion_cases import ANISOTROPIC, ISOTROPIC, ellipsoid, make_case, options

from qsmref.plausible import silence_doubts
from qsmref.reconstruction import fit_echoes, invert
from qsmref.reconstruction.checks import RANDOM_PHASE, by_chance
from qsmref.reconstruction.confidence import confidence_mask
from qsmref.reconstruction.continuation import continued
from qsmref.reconstruction.echoes import silent
from qsmref.reconstruction.inversion import RADIANS_PER_PPM

SHAPE = (18, 16, 14)


def place(size):
    return np.meshgrid(*(np.arange(n) * h for n, h in zip(SHAPE, size, strict=True)), indexing="ij")


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.9, 1.1, 2.5)])
def test_harmonic_fields_are_continued_as_they_are(size):
    x, y, z = place(size)
    # Differences of second order have no error for these.
    field = 3 + x - 2 * y + 0.5 * z + 0.1 * (x**2 - y**2) + 0.2 * x * z - 0.3 * y * z
    known = np.ones(SHAPE, dtype=bool)
    known[5:11, 4:12, 3:10] = False
    given_field = np.where(known, field, 1e3)
    found = continued(given_field, np.ones(SHAPE, dtype=bool), known, size)
    assert np.abs(found - field).max() < 1e-3 * np.ptp(field)
    assert np.array_equal(found[known], field[known])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), level=st.floats(-5, 5))
def test_continuation_keeps_constants_and_bounds(seed, level):
    rng = np.random.default_rng(seed)
    inside = rng.random(SHAPE) < 0.9
    known = inside & (rng.random(SHAPE) < 0.6)
    field = rng.standard_normal(SHAPE)
    found = continued(field, inside, known, (1, 1, 2))
    more = continued(field + level, inside, known, (1, 1, 2))
    # Of voxels that some known one reaches; specks alone stay at zero.
    reached = np.abs(more - found - level) < 1e-2
    assert reached[known].all() and reached[inside].mean() > 0.9
    filled = found[inside & ~known]
    assert filled.min() >= field[known].min() - 1e-2 and filled.max() <= field[known].max() + 1e-2
    assert np.array_equal(found[~inside], field[~inside])


def test_nothing_to_continue_is_no_copy():
    field = np.zeros(SHAPE)
    inside = np.ones(SHAPE, dtype=bool)
    assert continued(field, inside, inside, (1, 1, 1)) is field


@pytest.mark.parametrize("method", ["linear", "nonlinear", "curved", "anchored"])
@pytest.mark.parametrize("echoes", [1, 4])
def test_noise_without_signal_has_a_phase_of_chance(method, echoes):
    rng = np.random.default_rng(4)
    times = 0.005 * np.arange(1, echoes + 1)
    signal = np.zeros((*SHAPE, echoes), dtype=complex)
    signal[:9] = 20 * np.exp(2j * np.pi * 8 * times)
    signal += rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
    magnitude, phase = np.abs(signal), np.angle(signal)
    fit = fit_echoes(magnitude, phase, times, method=method, sigma=1.0, voxel_size=(2, 2, 2))
    chance = by_chance(fit.noise)
    assert not chance[:9].any()
    assert 0.995 < chance[9:].mean() <= 1
    assert fit.noise.max() <= np.float32(RANDOM_PHASE)
    assert np.array_equal(silent(magnitude, 1.0)[9:], chance[9:])


@pytest.mark.parametrize("grid", [ISOTROPIC, ANISOTROPIC])
def test_a_void_leaves_the_map_around_it_as_it_was(grid):
    case = make_case(*grid)
    void = ellipsoid(*grid, (4, -3, 1), (4.5, 4.5, 4.5)) & case.mask
    assert void.sum() > 30
    given_options = options(case)
    chi, _, plain = invert(case.total, case.mask, case.size, **given_options)
    rng = np.random.default_rng(2)
    noise = np.array(given_options["noise"])
    noise[void] = RANDOM_PHASE / RADIANS_PER_PPM
    total = case.total.copy()
    total[void] = rng.uniform(-np.pi, np.pi, int(void.sum())) / RADIANS_PER_PPM
    found, _, info = invert(total, case.mask, case.size, **given_options | {"noise": noise})
    assert info["voxels_without_data"] - plain["voxels_without_data"] >= 0.9 * void.sum()
    far = case.mask & ~ellipsoid(*grid, (4, -3, 1), (8, 8, 8))
    assert np.std((found - chi)[far]) < 0.0006
    assert abs(case.contrast_error(found) - case.contrast_error(chi)) < 0.002
    # A weight, however small, would be too much: these fields are wrong by hundreds of ppb.
    noise[void] = 0.9 * RANDOM_PHASE / RADIANS_PER_PPM
    pulled, _, _ = invert(total, case.mask, case.size, **given_options | {"noise": noise})
    assert np.std((pulled - chi)[far]) > 0.003
    noise[void] = RANDOM_PHASE / RADIANS_PER_PPM
    # Nothing of what stands in the void matters.
    total[void] = rng.uniform(-np.pi, np.pi, int(void.sum())) / RADIANS_PER_PPM
    again, _, _ = invert(total, case.mask, case.size, **given_options | {"noise": noise})
    np.testing.assert_allclose(again[case.mask], found[case.mask], atol=1e-6)


def test_a_void_is_not_confident():
    mask = np.ones(SHAPE, dtype=bool)
    noise = np.full(SHAPE, 0.001)
    noise[6:9, 6:9, 6:9] = RANDOM_PHASE / RADIANS_PER_PPM
    given_scale = {"harmonic": True, "radians_per_ppm": RADIANS_PER_PPM}
    found = confidence_mask(mask, (1, 1, 1), noise, **given_scale)
    assert not found[6:9, 6:9, 6:9].any() and found[10, 10, 10]
    assert confidence_mask(mask, (1, 1, 1), noise, harmonic=True)[7, 7, 7]


def test_weights_of_another_unit_are_no_chance():
    """Noise larger than that of any phase, all ones for example, leaves nothing out."""
    case = make_case(*ISOTROPIC)
    maps = [
        invert(case.total, case.mask, case.size, **options(case) | {"noise": noise}, lambda_=500.0)
        for noise in (np.ones(case.mask.shape), np.full(case.mask.shape, 7.0))
    ]
    assert maps[0][2]["voxels_without_data"] == maps[1][2]["voxels_without_data"]
    assert case.contrast_error(maps[0][0]) < 0.01


def test_a_mask_without_any_signal_is_refused():
    case = make_case(*ISOTROPIC)
    noise = np.full(case.mask.shape, RANDOM_PHASE / RADIANS_PER_PPM)
    with pytest.raises(ValueError, match="less noise than a random phase"):
        invert(case.total, case.mask, case.size, **options(case) | {"noise": noise})


def test_what_is_said_of_voids():
    assert silence_doubts(10, 10_000) == []
    (sentence,) = silence_doubts(50, 10_000)
    assert sentence.startswith("0.5 % of the mask has no signal beside noise")
