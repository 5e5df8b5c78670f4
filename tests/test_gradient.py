"""Finite differences and the edges of the magnitude."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmref.reconstruction.gradient import (
    edge_mask,
    gradient,
    gradient_adjoint,
    interior_pairs,
    quiet_mask,
)

SHAPE, SIZE = (7, 8, 9), (1.0, 1.5, 2.0)


def differences(x, size=SIZE):
    out = np.empty((3, *x.shape), x.dtype)
    gradient(x, np.asarray(size, x.dtype), out)
    return out


def adjoint(g, size=SIZE):
    out = np.empty(g.shape[1:], g.dtype)
    gradient_adjoint(g, np.asarray(size, g.dtype), out)
    return out


def test_ramp_has_its_slope_in_mm():
    x, y, z = np.indices(SHAPE)
    ramp = 3.0 * x * SIZE[0] - 2.0 * y * SIZE[1] + 0.5 * z * SIZE[2]
    g = differences(ramp)
    assert np.allclose(g[0, :-1], 3)
    assert np.allclose(g[1, :, :-1], -2)
    assert np.allclose(g[2, :, :, :-1], 0.5)
    assert not g[0, -1].any() and not g[1, :, -1].any() and not g[2, :, :, -1].any()


@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    size=st.tuples(*[st.floats(0.5, 3)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_adjoint(shape, size, seed):
    rng = np.random.default_rng(seed)
    x, g = rng.standard_normal(shape), rng.standard_normal((3, *shape))
    left, right = np.vdot(differences(x, size), g), np.vdot(x, adjoint(g, size))
    assert left == pytest.approx(right, abs=1e-11)


def test_precision_and_types():
    x = np.random.default_rng(0).standard_normal(SHAPE)
    single, double = differences(x.astype(np.float32)), differences(x)
    assert single.dtype == np.float32
    assert np.abs(single - double).max() < 1e-6
    back = adjoint(single)
    assert back.dtype == np.float32
    assert np.abs(back - adjoint(double)).max() < 1e-5


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.9, 1.5, 2.4, 2.9])
def test_edges_are_the_stated_part(fraction):
    magnitude = np.random.default_rng(1).random((12, 13, 14)) + 1
    mask = np.zeros(magnitude.shape, bool)
    mask[2:-2, 3:-1, 1:-2] = True
    smooth = edge_mask(magnitude, mask, SIZE, fraction)
    assert smooth.shape == (3, *magnitude.shape)
    # No two differences are equal here, so the number is met; the threshold itself is no edge.
    above = np.count_nonzero(~smooth)
    assert 0 <= int(fraction * np.count_nonzero(mask)) - above <= 1
    steps = np.abs(differences(np.where(mask, magnitude, 0)))
    if above:
        assert steps[~smooth].min() > steps[smooth].max()


def test_edges_are_where_the_magnitude_jumps():
    magnitude = np.ones((10, 10, 10))
    magnitude[5:] = 2
    mask = np.ones(magnitude.shape, bool)
    smooth = edge_mask(magnitude, mask, (1, 1, 1), edge_fraction=0.1)
    assert not smooth[0, 4].any()
    assert np.count_nonzero(~smooth) == 100
    noise = 1e-3 * np.random.default_rng(2).random(magnitude.shape)
    smooth = edge_mask(magnitude + noise, mask, (1, 1, 1), edge_fraction=0.1)
    assert np.count_nonzero(~smooth[0, 4]) == 99
    assert np.count_nonzero(~smooth) == 99


def test_differences_above_the_noise_are_edges():
    # A ball in noise: whatever its size, its surface is found, and little else.
    rng = np.random.default_rng(6)
    shape = (40, 40, 40)
    mask = np.ones(shape, bool)
    mask[:3] = False
    distance = np.sqrt(sum((np.indices(shape)[a] - 19.5) ** 2 for a in range(3)))
    for radius in (4, 12):
        magnitude = np.where(distance < radius, 2.0, 1.0) + 0.01 * rng.standard_normal(shape)
        magnitude[~mask] = np.nan
        smooth = quiet_mask(magnitude, mask, 4.0)
        jumps = [np.abs(np.diff(distance < radius, axis=a, append=0)) > 0 for a in range(3)]
        inner = interior_pairs(mask)
        assert not (smooth & ~inner).any()
        assert not (smooth & np.array(jumps) & inner).any()
        assert np.count_nonzero(inner & ~smooth & ~np.array(jumps)) < 2e-3 * np.count_nonzero(inner)
        # The part of a normal distribution beyond 1.5 standard deviations is 13 %.
        quiet = quiet_mask(magnitude, mask, 1.5)
        elsewhere = inner & ~np.array(jumps)
        assert np.mean(~quiet[elsewhere]) == pytest.approx(0.134, abs=0.02)


def test_edges_of_a_magnitude_without_noise_are_its_jumps():
    magnitude = np.ones((8, 8, 8))
    magnitude[4:] = 2
    smooth = quiet_mask(magnitude, np.ones(magnitude.shape, bool))
    expected = interior_pairs(np.ones(magnitude.shape, bool))
    expected[0, 3] = False
    assert np.array_equal(smooth, expected)
    with pytest.raises(ValueError, match="edge_noise must be positive"):
        quiet_mask(magnitude, magnitude > 0, 0.0)


def test_a_slow_change_without_noise_is_no_edge():
    # As a receive field over a head; without a least noise a quarter of the steps would be quiet.
    ramp = 1 + 0.1 * np.linspace(0, 1, 30) ** 2
    magnitude = np.broadcast_to(ramp[:, None, None], (30, 8, 8)).copy()
    magnitude[20:] += 0.1
    smooth = quiet_mask(magnitude, np.ones(magnitude.shape, bool))
    assert not smooth[0, 19].any()
    assert smooth[0, :19].all()
    assert smooth[0, 20:-1].all()


def test_edges_know_mm():
    # The same step over a shorter distance is the steeper one.
    magnitude = np.zeros((8, 8, 8))
    magnitude[4:, :, :] += 1.0
    magnitude[:, 4:, :] += 1.2
    magnitude += 1e-3 * np.random.default_rng(3).random(magnitude.shape)
    mask = np.ones(magnitude.shape, bool)
    count = 64 / mask.size
    equal = edge_mask(magnitude, mask, (1, 1, 1), edge_fraction=count)
    longer = edge_mask(magnitude, mask, (1, 2, 1), edge_fraction=count)
    assert [np.count_nonzero(~s) for s in equal] == [0, 63, 0]
    assert [np.count_nonzero(~s) for s in longer] == [63, 0, 0]


def test_scale_of_the_magnitude_does_not_matter():
    magnitude = np.random.default_rng(4).random((9, 9, 9))
    mask = magnitude > 0.1
    one = edge_mask(magnitude, mask, SIZE)
    assert np.array_equal(one, edge_mask(4096 * magnitude, mask, SIZE))
    filled = np.where(mask, magnitude, np.nan)
    assert np.array_equal(one, edge_mask(filled, mask, SIZE))


def test_uniform_magnitude_has_no_edges():
    mask = np.ones((5, 5, 5), bool)
    assert edge_mask(np.ones(mask.shape), mask, (1, 1, 1)).all()
    with pytest.raises(ValueError, match="between 0 and 3, got 3.1"):
        edge_mask(np.ones(mask.shape), mask, (1, 1, 1), 3.1)


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_interior_pairs(seed):
    mask = np.random.default_rng(seed).random((5, 6, 4)) < 0.6
    pairs = interior_pairs(mask)
    for axis in range(3):
        ahead = np.roll(mask, -1, axis)
        both = mask & ahead
        np.moveaxis(both, axis, 0)[-1] = False
        assert np.array_equal(pairs[axis], both)
