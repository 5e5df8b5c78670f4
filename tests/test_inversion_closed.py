"""Closed-form inversions: what they make of plane waves, exactly."""

import numpy as np
import pytest
from inversion_cases import OBLIQUE

from qsmref.reconstruction import invert
from qsmref.reconstruction.dipole import forward_field, unit_vector

SHAPE, SIZE = (16, 18, 20), (1.0, 1.5, 2.0)
EVERYWHERE = np.ones(SHAPE, bool)
#: Cycles over the field of view; the kernel there is far from, close to and below the threshold.
WAVES = [(1, 0, 0), (0, 0, 3), (2, 3, 1), (1, 2, 4), (4, 1, 3), (2, 2, 2)]
DIRECTIONS = [(0, 0, 1), OBLIQUE]


def wave(n, b0_dir, phase=0.4):
    """A susceptibility wave without edges and its field, and the kernel and step there."""
    k = np.array([a / (m * h) for a, m, h in zip(n, SHAPE, SIZE, strict=True)])
    angle = 2 * np.pi * sum(a * i / m for a, i, m in zip(n, np.indices(SHAPE), SHAPE, strict=True))
    kernel = 1 / 3 - (k @ unit_vector(b0_dir)) ** 2 / (k @ k)
    step = sum((2 - 2 * np.cos(2 * np.pi * a * h)) / h**2 for a, h in zip(k, SIZE, strict=True))
    chi = np.cos(angle + phase)
    return chi, kernel * chi, kernel, step


def map_of(field, method, b0_dir, **parameters):
    chi, kept, info = invert(
        field, EVERYWHERE, SIZE, method, b0_dir=b0_dir, padding_mm=0, **parameters
    )
    assert kept.all()
    # Sizes that suit the FFT: these shapes are such already, so the wave stays periodic.
    assert info["grid"] == list(SHAPE)
    return chi


@pytest.mark.parametrize("b0_dir", DIRECTIONS)
@pytest.mark.parametrize("n", WAVES)
@pytest.mark.parametrize("threshold", [0.1, 0.15, 0.25])
def test_thresholded_division(n, b0_dir, threshold):
    chi, field, kernel, _ = wave(n, b0_dir)
    above = abs(kernel) >= threshold
    expected = {"sign": chi if above else abs(kernel) / threshold * chi, "zero": chi * above}
    for beyond, value in expected.items():
        result = map_of(field, "tkd", b0_dir, threshold=threshold, beyond=beyond)
        assert np.abs(result - value).max() < 1e-12


@pytest.mark.parametrize("b0_dir", DIRECTIONS)
@pytest.mark.parametrize("n", WAVES)
@pytest.mark.parametrize("alpha", [0.05, 0.3])
def test_tikhonov(n, b0_dir, alpha):
    chi, field, kernel, step = wave(n, b0_dir)
    for penalty, square in {"gradient": step, "identity": 1.0}.items():
        result = map_of(field, "tikhonov", b0_dir, alpha=alpha, penalty=penalty)
        factor = kernel**2 / (kernel**2 + alpha**2 * square)
        assert np.abs(result - factor * chi).max() < 1e-12


@pytest.mark.parametrize("method", ["tkd", "tikhonov"])
def test_constant_field_gives_nothing(method):
    # D(0) = 0: the mean of the map is not observable.
    result = map_of(np.ones(SHAPE), method, OBLIQUE)
    assert np.abs(result).max() < 1e-13


@pytest.mark.parametrize("method", ["tkd", "tikhonov"])
def test_linear(method):
    a, b = np.random.default_rng(0).standard_normal((2, *SHAPE))
    mask = np.random.default_rng(1).random(SHAPE) < 0.7

    def of(field):
        return invert(field, mask, SIZE, method, b0_dir=OBLIQUE)[0]

    assert np.abs(of(3 * a - b) - 3 * of(a) + of(b)).max() < 1e-11


@pytest.mark.parametrize(
    ("method", "parameters"), [("tkd", {"threshold": 0.02}), ("tikhonov", {"alpha": 0.01})]
)
def test_weak_regularisation_returns_the_map(method, parameters):
    # A field known in a wide box, without noise: what is lost is the cone alone.
    chi = np.zeros((32, 32, 32))
    chi[13:19, 12:20, 14:18] = 0.1
    field = forward_field(chi, (1, 1, 1))
    result, _, _ = invert(field, np.ones(chi.shape, bool), (1, 1, 1), method, **parameters)
    inside = chi > 0
    contrast = result[inside].mean() - result[~inside].mean()
    assert contrast == pytest.approx(0.1, abs=0.01)


def test_threshold_makes_values_low():
    # The known price of thresholding: a tenth to a fifth is missing.
    chi = np.zeros((32, 32, 32))
    chi[13:19, 12:20, 14:18] = 0.1
    field = forward_field(chi, (1, 1, 1))
    contrasts = []
    for threshold in (0.05, 0.1, 0.2):
        result, _, _ = invert(
            field, np.ones(chi.shape, bool), (1, 1, 1), "tkd", threshold=threshold
        )
        contrasts.append(result[chi > 0].mean() - result[chi == 0].mean())
    assert 0.1 > contrasts[0] > contrasts[1] > contrasts[2] > 0.07
