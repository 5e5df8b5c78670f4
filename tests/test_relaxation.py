"""R2* and the fluid it shows."""

import numpy as np
import pytest

from qsmref.reconstruction.relaxation import csf_mask, integral_weights, r2star

TIMES = {
    "even": [0.004, 0.008, 0.012, 0.016, 0.020],
    "uneven": [0.003, 0.007, 0.012, 0.018, 0.021],
    "three": [0.0034, 0.0094, 0.0154],
}


def decay(rate, times):
    return np.exp(-np.asarray(rate)[..., None] * np.asarray(times))


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
def test_rule_integrates_parabolas_exactly(times):
    t = np.asarray(times)
    weights = integral_weights(times)
    for power in range(3):
        exact = (t[2:] ** (power + 1) - t[:-2] ** (power + 1)) / (power + 1)
        values = np.stack([t[:-2], t[1:-1], t[2:]], axis=1) ** power
        np.testing.assert_allclose(np.sum(weights * values, axis=1), exact, rtol=1e-10)


def test_even_spacing_is_simpsons_rule():
    np.testing.assert_allclose(integral_weights(TIMES["even"]) * 3 / 0.004, [[1, 4, 1]] * 3)


@pytest.mark.parametrize("times", TIMES.values(), ids=TIMES.keys())
def test_rate_without_noise(times):
    rate = np.linspace(1, 80, 60).reshape(5, 4, 3)
    np.testing.assert_allclose(r2star(7 * decay(rate, times), times), rate, rtol=2e-3)


def test_error_of_the_parabola_is_the_stated_one():
    rate, step = 150.0, 0.004
    found = r2star(decay(np.full((1, 1, 1), rate), TIMES["even"]), TIMES["even"])[0, 0, 0]
    assert 1 - found / rate == pytest.approx((rate * step) ** 4 / 180, rel=0.2)


@pytest.mark.parametrize("times", [TIMES["even"], TIMES["uneven"]])
def test_noise_floor_is_taken_off(times):
    rate, sigma = np.full((30, 30, 20), 120.0), 0.08
    parts = np.random.default_rng(0).normal(0, sigma, (2, *rate.shape, len(times)))
    magnitude = np.abs(decay(rate, times) + parts[0] + 1j * parts[1])
    plain, corrected = r2star(magnitude, times), r2star(magnitude, times, sigma=sigma)
    assert np.median(plain) < 115  # the floor looks like a slow decay
    assert abs(np.median(corrected) - 120) < 0.5 * abs(np.median(plain) - 120)


def test_limits_and_mask():
    times = TIMES["even"]
    magnitude = decay(np.full((3, 3, 3), 20.0), times)
    magnitude[0, 0, 0] = 0
    magnitude[1, 1, 1] = magnitude[1, 1, 1][::-1]  # grows
    mask = np.ones((3, 3, 3), bool)
    mask[2] = False
    rate = r2star(magnitude, times, mask)
    assert rate.dtype == np.float32
    assert rate[0, 0, 0] == pytest.approx(3 / 0.004) and rate[1, 1, 1] == 0
    assert not rate[2].any()
    with pytest.raises(ValueError, match="three echoes"):
        r2star(magnitude[..., :2], times[:2])
    with pytest.raises(ValueError, match="sigma"):
        r2star(magnitude, times, sigma=-1.0)


def fluid_head():
    h = (2.0, 2.0, 3.0)
    x, y, z = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * s for n, s in zip((60, 70, 40), h, strict=True)],
        indexing="ij",
    )
    mask = (x / 52) ** 2 + (y / 62) ** 2 + (z / 52) ** 2 < 1
    rate = np.full(mask.shape, 20.0)
    ventricles = np.zeros(mask.shape, bool)
    for side in (-1, 1):
        # The horns leave the 30 mm ball.
        ventricles |= ((x - side * 10) / 5) ** 2 + (y / 36) ** 2 + ((z - 6) / 9) ** 2 < 1
    ventricles |= (x / 4) ** 2 + ((y + 20) / 4) ** 2 + ((z + 18) / 7) ** 2 < 1
    rate[ventricles] = 3.0
    rim = mask & ((x / 48) ** 2 + (y / 58) ** 2 + (z / 48) ** 2 > 1)
    rate[rim] = 3.0  # the fluid around the brain
    return rate, mask, h, ventricles


def test_csf_is_the_ventricles_and_not_the_rim():
    rate, mask, h, ventricles = fluid_head()
    np.testing.assert_array_equal(csf_mask(rate, mask, h), ventricles)


def test_csf_with_fewer_than_three_parts():
    rate, mask, h, ventricles = fluid_head()
    half = np.arange(60) < 30
    rate[~half] = np.where(rate[~half] < 5, 20.0, rate[~half])
    rate[:, :, :16] = 20.0
    found = csf_mask(rate, mask, h)
    expected = ventricles & half[:, None, None]
    expected[:, :, :16] = False
    np.testing.assert_array_equal(found, expected)


def test_no_csf_is_an_error():
    rate, mask, h, _ = fluid_head()
    with pytest.raises(ValueError, match="no cerebrospinal fluid"):
        csf_mask(np.maximum(rate, 10), mask, h)
