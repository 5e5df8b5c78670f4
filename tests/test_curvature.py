"""The field at echo time zero: phases that bend where voxels hold two tissues."""

import numpy as np
import pytest

from qsmref.reconstruction import fit_echoes
from qsmref.reconstruction.curvature import bend

TIMES = 0.0034 + 0.006 * np.arange(4)
SHAPE = (26, 24, 20)
#: Two tissues: R2* (1 / s) and frequency (Hz). The voxels of one layer hold half of each.
SLOW, FAST = (20.0, 0.0), (60.0, 12.0)
LAYER = (slice(12, 13), slice(None), slice(None))
SPACING = TIMES[1] - TIMES[0]


def echoes(share, sigma=0.01, seed=0):
    """Magnitude and phase; `share` of the fast tissue in each voxel."""
    tissues = [np.exp((2j * np.pi * f - r) * TIMES) for r, f in (SLOW, FAST)]
    signal = (1 - share)[..., None] * tissues[0] + share[..., None] * tissues[1]
    noise = np.random.default_rng(seed).standard_normal((2, *signal.shape))
    signal = signal * np.exp(0.4j) + sigma * (noise[0] + 1j * noise[1])
    return np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32)


def two_tissues():
    share = np.zeros(SHAPE)
    share[13:], share[LAYER] = 1, 0.5
    # In rad per echo spacing: at echo time zero both weigh the same.
    truth = 2 * np.pi * SPACING * (share * FAST[1] + (1 - share) * SLOW[1])
    return share, truth


def test_a_straight_phase_is_left_alone():
    magnitude, phase = echoes(np.zeros(SHAPE))
    line, bent = (
        fit_echoes(magnitude, phase, TIMES, method=method, sigma=0.01)
        for method in ("nonlinear", "curved")
    )
    same = np.isclose(bent.field, line.field, atol=1e-3)
    assert same.mean() > 0.98
    assert np.allclose(bent.noise[same], line.noise[same], rtol=0.02)


def test_the_bend_of_a_border_is_seen():
    share, truth = two_tissues()
    magnitude, phase = echoes(share)
    line, bent = (
        fit_echoes(magnitude, phase, TIMES, method=method, sigma=0.01)
        for method in ("nonlinear", "curved")
    )
    biases = [abs((fit.field - truth)[LAYER].mean()) for fit in (line, bent)]
    assert biases[0] > 0.03
    assert biases[1] < 0.35 * biases[0]
    # The noise knows of the freedom that the phase has there, and of what the prior leaves open.
    errors = ((bent.field - truth) / bent.noise)[LAYER]
    assert np.sqrt(np.mean(errors**2)) < 1.6
    assert bent.noise[LAYER].mean() > 1.5 * line.noise[LAYER].mean()
    # Away from the border all is as it was.
    far = np.s_[np.r_[0:6, 20:26]]
    assert np.isclose(bent.field[far], line.field[far], atol=1e-3).mean() > 0.97


def test_turns_of_the_phase_do_not_matter():
    share, _ = two_tissues()
    magnitude, phase = echoes(share)
    turns = np.random.default_rng(1).integers(-2, 3, phase.shape)
    fields = [
        fit_echoes(magnitude, p, TIMES, method="curved", sigma=0.01).field
        for p in (phase, (phase + 2 * np.pi * turns).astype(np.float32))
    ]
    assert np.allclose(*fields, atol=2e-4)


def test_voxels_without_signal_hide_no_bend_around_them():
    share, truth = two_tissues()
    magnitude, phase = echoes(share)
    magnitude[3, 5, 7], magnitude[12, 4, 4, 1:] = 0, 0
    fit = fit_echoes(magnitude, phase, TIMES, method="curved", sigma=0.01)
    assert np.isfinite(fit.field).all() and np.isfinite(fit.noise).all()
    near = np.s_[12, 10:, :]
    assert abs((fit.field - truth)[near].mean()) < 0.02


def test_two_echoes_show_no_bend():
    magnitude, phase = echoes(np.zeros(SHAPE))
    two = [
        fit_echoes(magnitude[..., :2], phase[..., :2], TIMES[:2], method=method, sigma=0.01).field
        for method in ("nonlinear", "curved")
    ]
    assert np.array_equal(*two)
    with pytest.raises(ValueError, match="three echoes"):
        bend(magnitude[..., :2], phase[..., :2], two[0], np.ones(SHAPE, bool), TIMES[:2], 0.01, 0)
