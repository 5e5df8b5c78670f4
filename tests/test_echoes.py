"""The echo fit, the noise level, and the phase before it."""

import numpy as np
import pytest
from scipy import optimize

from qsmref.reconstruction import fit_echoes
from qsmref.reconstruction.echoes import (
    RANDOM_PHASE,
    echo_spacing,
    evenly_spaced,
    fit_unwrapped,
    noise_level,
)
from qsmref.reconstruction.phase import correct_bipolar, phase_to_radians, remove_phase_offset
from qsmref.reconstruction.phase_sign import air_mask, phase_sign, phase_sign_check
from qsmref.reconstruction.unwrapping import unwrap, unwrap_echoes

SHAPE = (16, 14, 12)
TIMES = {
    "even": [0.004, 0.008, 0.012, 0.016],
    "thesis": [0.0034, 0.0094, 0.0154, 0.0214],
    "three": [0.003, 0.008, 0.013],
    "growing": [0.003, 0.007, 0.0125, 0.02],
    "shrinking": [0.004, 0.0105, 0.0152, 0.0181],
    "three uneven": [0.003, 0.007, 0.0125],
    "two": [0.0023, 0.0046],
}


def wrap(angle):
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))


def signal(field, times, offset=0.7, rate=25.0, sigma=0.0, seed=0):
    """Echoes of a field in rad per dTE."""
    times = np.asarray(times)
    steps = times / echo_spacing(times)
    angle = field[..., None] * steps + np.asarray(offset)[..., None]
    noise = np.random.default_rng(seed).standard_normal((2, *angle.shape)) * sigma
    echoes = np.exp(-rate * times) * np.exp(1j * angle) + noise[0] + 1j * noise[1]
    return np.abs(echoes), np.angle(echoes)


def ramp(low=-3.0, high=3.0, shape=SHAPE):
    return np.linspace(low, high, np.prod(shape)).reshape(shape)


@pytest.mark.parametrize("method", ["nonlinear", "linear"])
@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
def test_exact_without_noise(times, method):
    field = ramp(-3.1, 3.1)
    fit = fit_echoes(*signal(field, times), times, method=method, sigma=1.0)
    assert fit.field.dtype == np.float32
    np.testing.assert_allclose(fit.field, field, atol=2e-5)
    assert fit.residual.max() < 1e-9


@pytest.mark.parametrize("name", ["growing", "shrinking", "three uneven"])
def test_uneven_spacing_finds_fields_beyond_one_turn(name):
    # An even model would take the second difference for one of dTE: errors of a radian.
    field = ramp(-9.0, 9.0)
    fit = fit_echoes(*signal(field, TIMES[name]), TIMES[name], sigma=1.0)
    np.testing.assert_allclose(wrap(fit.field - field), 0, atol=3e-5)


@pytest.mark.parametrize("name", ["growing", "shrinking", "three uneven", "even"])
def test_noise_does_not_choose_another_alias(name):
    field = ramp(-3.0, 3.0)
    fit = fit_echoes(*signal(field, TIMES[name], sigma=0.02), TIMES[name], sigma=0.02)
    assert np.abs(wrap(fit.field - field)).max() < 0.3


def test_even_spacing_is_decided_by_absolute_differences():
    assert evenly_spaced(TIMES["thesis"]) and evenly_spaced([0.00231, 0.00462, 0.00692])
    assert not evenly_spaced(TIMES["growing"])
    assert not evenly_spaced(TIMES["shrinking"])
    assert not evenly_spaced(TIMES["three uneven"])
    assert evenly_spaced([0.005]) and evenly_spaced([0.002, 0.009])


@pytest.mark.parametrize("name", ["even", "growing", "two"])
def test_noise_map_is_the_spread_of_the_field(name):
    times, sigma = TIMES[name], 0.03
    field = np.full((24, 24, 24), 1.3)
    fit = fit_echoes(*signal(field, times, sigma=sigma), times, sigma=sigma)
    spread = np.std(wrap(fit.field - field))
    assert spread == pytest.approx(np.sqrt(np.mean(fit.noise**2)), rel=0.03)


def test_nonlinear_fit_is_the_better_one_at_low_signal():
    times = TIMES["even"]
    field = np.full((24, 24, 24), 0.8)
    echoes = signal(field, times, rate=120.0, sigma=0.12)
    error = {
        method: np.sqrt(np.mean(wrap(fit_echoes(*echoes, times, method=method).field - field) ** 2))
        for method in ("nonlinear", "linear")
    }
    assert error["nonlinear"] < 0.97 * error["linear"]


@pytest.mark.parametrize("name", ["even", "growing"])
def test_the_minimum_is_that_of_a_general_optimiser(name):
    times = TIMES[name]
    steps = np.asarray(times) / echo_spacing(times)
    field = ramp(-3, 3, (3, 3, 2))
    magnitude, phase = signal(field, times, sigma=0.08, seed=4)
    fit = fit_echoes(magnitude, phase, times, sigma=1.0)
    echoes = magnitude * np.exp(1j * phase)

    def misfit(line, voxel):
        model = magnitude[voxel] * np.exp(1j * (line[0] + line[1] * steps))
        return np.sum(np.abs(echoes[voxel] - model) ** 2)

    for voxel in np.ndindex(field.shape):
        best = min(
            (
                optimize.minimize(misfit, (start, field[voxel]), (voxel,), tol=1e-12)
                for start in (0.7, 2.2, -0.8)
            ),
            key=lambda result: result.fun,
        )
        assert abs(wrap(fit.field[voxel] - best.x[1])) < 2e-4
        energy = np.sum(magnitude[voxel] ** 2)
        assert fit.residual[voxel] == pytest.approx(best.fun / energy, rel=1e-3, abs=1e-7)


def test_single_echo_keeps_the_offset():
    field = ramp(-1.0, 1.0)
    fit = fit_echoes(*signal(field, [0.02], offset=0.4), [0.02], sigma=0.1)
    np.testing.assert_allclose(fit.field, field + 0.4, atol=1e-5)
    np.testing.assert_allclose(fit.noise, 0.1 / np.exp(-0.5), rtol=1e-5)
    assert not fit.residual.any()


def test_scale_of_the_magnitude_does_not_matter():
    times, field = TIMES["even"], ramp()
    magnitude, phase = signal(field, times, sigma=0.05)
    one, other = (fit_echoes(magnitude * scale, phase, times) for scale in (1.0, 4096.0))
    np.testing.assert_allclose(one.field, other.field, atol=1e-5)
    np.testing.assert_allclose(one.noise, other.noise, rtol=1e-4)
    np.testing.assert_allclose(one.residual, other.residual, atol=1e-6)


def test_mask_and_voxels_without_signal():
    times, field = TIMES["even"], ramp()
    magnitude, phase = signal(field, times)
    magnitude[3, 3, 3] = 0
    magnitude[4, 4, 4, 1:] = 0  # one echo is not enough
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:9, 2:9, 2:9] = True
    fit = fit_echoes(magnitude, phase, times, mask, sigma=0.01)
    for image in fit:
        assert np.isfinite(image).all() and not image[~mask].any()
    for empty in ((3, 3, 3), (4, 4, 4)):
        assert fit.field[empty] == 0
        assert fit.noise[empty] == pytest.approx(RANDOM_PHASE)
        assert fit.residual[empty] == 1
    whole = fit_echoes(magnitude, phase, times, sigma=0.01)
    np.testing.assert_array_equal(fit.field[mask], whole.field[mask])


def test_memory_order_does_not_matter():
    times = TIMES["growing"]
    magnitude, phase = signal(ramp(), times, sigma=0.01)
    fit = fit_echoes(magnitude, phase, times, sigma=0.01)
    other = fit_echoes(np.asfortranarray(magnitude), phase.copy(order="F"), times, sigma=0.01)
    np.testing.assert_array_equal(fit.field, other.field)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m, p, t: (m[..., :2], p, t), "same shape"),
        (lambda m, p, t: (m, p, t[:2]), "as many echo times"),
        (lambda m, p, t: (m, p, t[::-1]), "must increase"),
        (lambda m, p, t: (m, p, [0.0, 0.01, 0.02, 0.03]), "must be positive"),
        (lambda m, p, t: (m[..., 0], p[..., 0], t), "axes"),
        (lambda m, p, t: (np.where(m > m.mean(), np.nan, m), p, t), "NaN"),
        (lambda m, p, t: (m, np.where(m > m.mean(), np.inf, p), t), "NaN or infinite"),
        (lambda m, p, t: (-m, p, t), "negative"),
    ],
)
def test_bad_input_is_named(change, sentence):
    times = TIMES["even"]
    with pytest.raises(ValueError, match=sentence):
        fit_echoes(*change(*signal(ramp(), times), times), sigma=1.0)


def test_bad_options_are_named():
    times = TIMES["even"]
    magnitude, phase = signal(ramp(), times)
    with pytest.raises(ValueError, match="method"):
        fit_echoes(magnitude, phase, times, method="best")
    with pytest.raises(ValueError, match="empty"):
        fit_echoes(magnitude, phase, times, np.zeros(SHAPE, bool))
    with pytest.raises(ValueError, match="sigma"):
        fit_echoes(magnitude, phase, times, sigma=0.0)


def test_line_through_unwrapped_echoes_is_not_wrapped_again():
    shape, times = (20, 18, 12), TIMES["growing"]
    x = np.linspace(-1, 1, shape[0])[:, None, None]
    field = np.broadcast_to(6 * x**3 + 2 * x + 1, shape)
    magnitude, phase = signal(field, times, offset=np.broadcast_to(2 * x**2, shape))
    straight = unwrap_echoes(magnitude, phase, times, (1, 1, 2))
    turns = (straight - phase) / (2 * np.pi)
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-5)
    fit, offset = fit_unwrapped(magnitude, straight, times, sigma=1.0)
    np.testing.assert_allclose(fit.field, field, atol=1e-4)
    constant = offset - 2 * x**2
    assert np.ptp(constant) < 1e-4 and np.abs(wrap(constant)).max() < 1e-4
    assert fit.residual.max() < 1e-9


# Noise level


def head_signal(sigma, echoes=4, seed=1):
    times = 0.004 * np.arange(1, echoes + 1)
    place = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 30)], indexing="ij")
    mask = sum(p**2 for p in place) < 0.6
    rng = np.random.default_rng(seed)
    clean = mask[..., None] * np.exp(-20 * times) * np.exp(1j * (3 * place[0][..., None] * times))
    noise = sigma * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))
    return np.abs(clean + noise), np.angle(clean + noise), times, mask


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.05])
@pytest.mark.parametrize("echoes", [1, 2, 5])
def test_noise_of_the_air(sigma, echoes):
    magnitude, phase, times, mask = head_signal(sigma, echoes)
    for given in (mask, None):
        level = noise_level(magnitude, phase, times, given)
        assert level.source == "background"
        assert level.sigma == pytest.approx(sigma, rel=0.03)


def test_noise_where_the_scanner_zeroes_the_air():
    magnitude, phase, times, mask = head_signal(0.03)
    magnitude[~mask] = 0
    level = noise_level(magnitude, phase, times, mask)
    assert level.source == "fit"
    assert level.sigma == pytest.approx(0.03, rel=0.03)
    two = noise_level(magnitude[..., :2], phase[..., :2], times[:2], mask)
    assert two.source == "differences"
    assert two.sigma == pytest.approx(0.03, rel=0.1)


def test_noise_where_the_scanner_filters_the_air():
    magnitude, phase, times, mask = head_signal(0.03)
    magnitude[~mask] *= 0.1
    level = noise_level(magnitude, phase, times, mask)
    assert level.source == "fit"
    assert level.sigma == pytest.approx(0.03, rel=0.03)


def test_noise_level_needs_signal():
    with pytest.raises(ValueError, match="zero in every voxel"):
        noise_level(np.zeros((*SHAPE, 2)), np.zeros((*SHAPE, 2)), [0.01, 0.02])


# The phase before the fit


def test_phase_to_radians():
    stored = np.array([0, 2048, 4096], dtype=np.uint16)
    np.testing.assert_allclose(phase_to_radians(stored, 0, 4096), [-np.pi, 0, np.pi], atol=1e-6)
    # A scanner that stores the opposite sign.
    np.testing.assert_allclose(phase_to_radians(stored, 4096, 0), [np.pi, 0, -np.pi], atol=1e-6)
    with pytest.raises(ValueError, match="spans 0 to 4096"):
        phase_to_radians(stored, -1000, 1000)
    with pytest.raises(ValueError, match="must differ"):
        phase_to_radians(stored, 5, 5)


def head_field(shape=(48, 44, 24), h=(2.0, 2.0, 3.0)):
    place = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, h, strict=True)], indexing="ij"
    )
    x, y, z = (p / 40 for p in place)
    mask = x**2 + y**2 + z**2 < 0.95
    return x, y, z, mask, 2.5 * x * y + 1.5 * z + np.exp(-((x - 0.4) ** 2 + y**2) * 20)


@pytest.mark.parametrize("times", [[0.004, 0.009, 0.014], [0.003, 0.007, 0.0125]])
def test_phase_offset_is_removed(times):
    x, y, z, mask, field = head_field()
    offset = 1.5 * x + y * z - 0.6
    magnitude, phase = signal(field, times, offset=offset)
    magnitude *= mask[..., None]
    clean, found = remove_phase_offset(magnitude, phase, times, (2, 2, 3), mask, smoothing=3.0)
    inner = mask & (x**2 + y**2 + z**2 < 0.7)
    left = wrap(found - offset)[inner]
    assert np.abs(left - np.median(left)).max() < 0.1
    assert abs(np.median(left)) < 0.02
    expected = field[..., None] * np.asarray(times) / (times[1] - times[0])
    assert np.abs(wrap(clean - expected)[inner]).max() < 0.12
    np.testing.assert_allclose(wrap(clean + found[..., None] - phase), 0, atol=1e-5)
    with pytest.raises(ValueError, match="two echoes"):
        remove_phase_offset(magnitude[..., :1], phase[..., :1], times[:1], (2, 2, 3))


@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("echoes", [3, 6])
def test_bipolar_difference_is_removed(echoes, axis):
    times = 0.003 * np.arange(1, echoes + 1)
    x, y, z, mask, field = head_field()
    theta = 4.0 * y + 0.5 + 0.3 * np.cos(2 * x)
    magnitude, phase = signal(field, times, sigma=0.01)
    magnitude *= mask[..., None]
    sign = np.where(np.arange(echoes) % 2 == 0, 0.5, -0.5)
    bad = wrap(phase + theta[..., None] * sign)
    before = fit_echoes(magnitude, bad, times, mask, sigma=0.01)
    result = correct_bipolar(magnitude, bad, times, (2, 2, 3), mask, axis)
    after = fit_echoes(magnitude, result.phase, times, mask, sigma=0.01)
    error = [np.std(wrap(fit.field - field)[mask]) for fit in (before, after)]
    assert error[1] < 0.05 * error[0]
    assert result.slope[1] == pytest.approx(4.0 / 40, rel=0.02)
    assert np.median(after.residual[mask]) < 0.2 * np.median(before.residual[mask])
    assert np.abs((result.difference - theta)[mask]).mean() < 0.05


def test_bipolar_correction_leaves_monopolar_data_alone():
    times = 0.003 * np.arange(1, 5)
    _, _, _, mask, field = head_field()
    magnitude, phase = signal(field, times, sigma=0.01)
    result = correct_bipolar(magnitude, phase, times, (2, 2, 3), mask)
    assert np.abs(result.difference[mask]).max() < 0.02
    with pytest.raises(ValueError, match="evenly"):
        correct_bipolar(magnitude, phase, [0.003, 0.006, 0.01, 0.015], (2, 2, 3), mask)
    with pytest.raises(ValueError, match="three echoes"):
        correct_bipolar(magnitude[..., :2], phase[..., :2], times[:2], (2, 2, 3), mask)


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (0.3, -0.2, 0.93)])
def test_sign_of_the_phase_is_told_from_the_air(b0_dir):
    from qsmref.reconstruction import forward_field

    h, n = (3.0, 3.0, 4.0), (64, 64, 44)
    x, y, z = np.meshgrid(
        *[(np.arange(k) - (k - 1) / 2) * s for k, s in zip(n, h, strict=True)], indexing="ij"
    )
    head = (x / 80) ** 2 + (y / 88) ** 2 + (z / 75) ** 2 < 1
    sinus = x**2 + (y - 45) ** 2 + (z + 40) ** 2 < 12**2
    brain = ((x / 66) ** 2 + (y / 74) ** 2 + (z / 60) ** 2 < 1) & ~(
        x**2 + (y - 45) ** 2 + (z + 40) ** 2 < 18**2
    )
    skull = ((x / 74) ** 2 + (y / 82) ** 2 + (z / 69) ** 2 < 1) & ~(
        (x / 69) ** 2 + (y / 77) ** 2 + (z / 64) ** 2 < 1
    )
    chi = np.where(head & ~sinus, 0.0, 9.4)
    chi[skull & ~sinus] = -2.0
    total = forward_field(chi - 9.4, h, b0_dir) + 0.02 * (x * y / 1000 + z / 10)
    magnitude = np.where(head & ~sinus & ~skull, 1.0, 0.02)
    air = air_mask(magnitude, brain, h)
    assert air[32, 47, 12] and air[0, 0, 0] and not air[brain].any()
    assert np.count_nonzero(air & skull & ~sinus) < 0.15 * np.count_nonzero(skull)
    right = phase_sign_check(total, brain, air, h, b0_dir)
    wrong = phase_sign_check(-total, brain, air, h, b0_dir)
    assert right > 0.7 and wrong == pytest.approx(-right)
    assert phase_sign(total, brain, magnitude, h, b0_dir) > 0.7
    assert phase_sign(-total, brain, magnitude, h, b0_dir) < -0.7


def test_unwrapped_field_of_the_whole_chain():
    times = TIMES["even"]
    _, _, _, mask, field = head_field()
    field = 3 * field
    magnitude, phase = signal(field, times, sigma=0.01)
    fit = fit_echoes(magnitude, phase, times, mask)
    error = (unwrap(fit.field, (2, 2, 3), "romeo", magnitude[..., 0], mask) - field)[mask]
    assert np.abs(error - np.median(error)).max() < 0.3
