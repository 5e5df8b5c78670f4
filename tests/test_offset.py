"""The phase at TE = 0 of each voxel, as its neighbours know it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmref.reconstruction import fit_echoes
from qsmref.reconstruction.echoes import echo_spacing
from qsmref.reconstruction.offset import smooth_offset

SHAPE, SIZE = (36, 32, 18), (2.0, 2.0, 3.0)
TIMES = 0.0034 + 0.006 * np.arange(4)
SIGMA = 0.02
#: Noise of a line through these echoes whose offset is known, over that of one whose is not.
_w, _t = np.exp(-50 * TIMES), TIMES / 0.006
RATIO = np.sqrt(1 - (_w @ _t) ** 2 / (_w.sum() * (_w @ _t**2)))


def wrap(angle):
    return angle - 2 * np.pi * np.round(angle / (2 * np.pi))


def places():
    """mm from the centre."""
    return np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * h for n, h in zip(SHAPE, SIZE, strict=True)],
        indexing="ij",
    )


def ball():
    x, y, z = places()
    return (x / 34) ** 2 + (y / 30) ** 2 + (z / 25) ** 2 < 1


def bowl():
    """An offset of several turns (rad)."""
    x, y, z = places()
    return 0.4 + 0.08 * x - 0.05 * y + 0.03 * z + 1e-3 * (x * x - y * z + 0.5 * z * z)


def field():
    """Total field, rad per dTE."""
    x, y, z = places()
    return 0.02 * x + 2.0 * np.exp(-(x * x + y * y + z * z) / 200) + 0.5 * np.sin(y / 5)


def echoes(field, offset, times=TIMES, sigma=SIGMA, seed=0, amplitude=1.0):
    times = np.asarray(times)
    angle = field[..., None] * times / echo_spacing(times) + np.asarray(offset)[..., None]
    noise = np.random.default_rng(seed).standard_normal((2, *angle.shape))
    signal = np.asarray(amplitude)[..., None] * np.exp(-25 * times) * np.exp(1j * angle)
    signal = signal + sigma * (noise[0] + 1j * noise[1])
    return np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32)


def fits(magnitude, phase, times=TIMES, mask=None, sigma=SIGMA):
    """The fit with a free offset, and the anchored one."""
    common = {"mask": mask, "sigma": sigma, "voxel_size": SIZE}
    return (
        fit_echoes(magnitude, phase, times, method=method, **common)
        for method in ("nonlinear", "anchored")
    )


@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.floats(-3, 3))
@settings(max_examples=15, deadline=None)
def test_quadratics_are_exact_whatever_their_constant(slopes, constant):
    mask = ball()
    x, y, z = (p[mask] / 20 for p in places())
    terms = (x, y, z, x * x, y * y, z * z, x * y, y * z, z * x)
    offset = sum(c * t for c, t in zip(slopes, terms, strict=True))
    precision = np.full(offset.size, 400, np.float32)
    found = [
        smooth_offset(wrap(offset + c).astype(np.float32), precision, mask, SIZE)[0]
        for c in (0, constant)
    ]
    assert np.abs(wrap(found[0] - offset)).max() < 3e-3
    assert np.abs(wrap(found[1] - found[0] - constant)).max() < 1e-3


def test_noise_is_that_of_a_line_with_a_known_offset():
    mask, truth = ball(), field()
    errors = []
    free, anchored = fits(*echoes(truth, bowl()), mask=mask)
    for fit in (free, anchored):
        errors.append(wrap(fit.field - truth)[mask])
        assert np.std(errors[-1] / fit.noise[mask]) == pytest.approx(1, abs=0.05)
    known = SIGMA / np.sqrt(_w @ _t**2)
    assert np.median(anchored.noise[mask]) == pytest.approx(known, rel=0.1)
    assert np.std(errors[1]) < 1.1 * RATIO * np.std(errors[0])
    # The neighbours' error is common to them: it must not stay in their mean.
    assert abs(np.mean(errors[1])) < 4 * np.std(errors[0]) / np.sqrt(mask.sum())


def test_two_echoes_are_enough():
    mask, truth, times = ball(), field(), (0.0023, 0.0046)
    free, anchored = fits(*echoes(truth, bowl(), times), times, mask)
    assert np.std(wrap(anchored.field - truth)[mask]) < 0.5 * np.std(wrap(free.field - truth)[mask])


@pytest.mark.parametrize("turns", [0, 1, -2])
def test_uneven_spacing_and_fields_of_several_turns(turns):
    times = (0.003, 0.007, 0.0125, 0.02)
    truth = field() + 2 * np.pi * turns
    mask = ball()
    free, anchored = fits(*echoes(truth, bowl(), times), times, mask)
    errors = [wrap(fit.field - truth)[mask] for fit in (free, anchored)]
    assert np.std(errors[1]) < 0.6 * np.std(errors[0])
    assert np.abs(errors[1]).max() < 6 * anchored.noise[mask].max()


def test_offsets_that_are_not_smooth_are_left_free():
    mask, truth = ball(), field()
    rough = bowl() + np.random.default_rng(2).uniform(-2, 2, SHAPE)
    free, anchored = fits(*echoes(truth, rough), mask=mask)
    same = np.isclose(anchored.noise, free.noise, rtol=0.02)[mask]
    assert same.mean() > 0.97
    assert np.abs(wrap(anchored.field - free.field))[mask][same].max() < 1e-3


def test_it_tells_how_much_of_the_mask_was_anchored():
    mask = ball()
    rough = bowl() + np.random.default_rng(2).uniform(-2, 2, SHAPE)
    parts = []
    for offset in (bowl(), rough):
        given = *echoes(field(), offset), TIMES, mask
        fit = fit_echoes(*given, method="anchored", sigma=SIGMA, voxel_size=SIZE)
        parts.append(fit.anchored_fraction)
    assert parts[0] > 0.99
    assert parts[1] < 0.05
    assert fit_echoes(*given, method="curved", sigma=SIGMA).anchored_fraction is None


def test_a_vessel_whose_offset_differs_keeps_its_field():
    mask, truth, (x, y, _) = ball(), field(), places()
    vessel = mask & (np.hypot(x - 8, y) < 5)
    free, anchored = fits(*echoes(truth, bowl() + 0.8 * vessel), mask=mask)
    error = wrap(anchored.field - truth)
    # Held to the offset around it, the field would be off by .8 rad times the weights' mean time
    # over their mean square time, a third of a radian.
    assert abs(error[vessel].mean()) < 0.02
    far = mask & (np.hypot(x - 8, y) > 16)
    assert np.std(error[far]) < 1.2 * RATIO * np.std(wrap(free.field - truth)[far])


def test_without_a_mask_air_does_not_blur_the_head():
    head, truth = ball(), field()
    free, anchored = fits(*echoes(truth, bowl(), amplitude=head.astype(float)))
    errors = [np.std(wrap(fit.field - truth)[head]) for fit in (free, anchored)]
    assert errors[1] < 1.4 * RATIO * errors[0]
    assert anchored.noise[~head].mean() > 10 * anchored.noise[head].mean()


@pytest.mark.parametrize("axis", [0, 2])
def test_a_single_slice(axis):
    mask, truth = ball(), field()
    middle = np.zeros(SHAPE, bool)
    middle[(slice(None),) * axis + (SHAPE[axis] // 2,)] = True
    mask &= middle
    free, anchored = fits(*echoes(truth, bowl()), mask=mask)
    # The median: in a plane so few neighbours tell of a bend that noise passes for one here and
    # there.
    errors = [np.median(np.abs(wrap(fit.field - truth)[mask])) for fit in (free, anchored)]
    assert errors[1] < 1.3 * RATIO * errors[0]


def test_parts_that_do_not_touch():
    mask, truth, (x, _, _) = ball(), field(), places()
    mask &= np.abs(x) > 5
    free, anchored = fits(*echoes(truth, bowl()), mask=mask)
    errors = [np.std(wrap(fit.field - truth)[mask]) for fit in (free, anchored)]
    assert errors[1] < 1.2 * RATIO * errors[0]


def test_turns_of_the_phase_and_the_unit_of_the_magnitude_do_not_matter():
    mask = ball()
    magnitude, phase = echoes(field(), bowl())
    turned = phase + 2 * np.pi * np.random.default_rng(1).integers(-2, 3, phase.shape)
    _, one = fits(magnitude, phase, mask=mask)
    _, other = fits(4096 * magnitude, turned.astype(np.float32), mask=mask, sigma=4096 * SIGMA)
    assert np.abs(wrap(one.field - other.field)).max() < 2e-4
    assert np.allclose(one.noise, other.noise, rtol=1e-3)


def test_voxels_without_signal():
    mask = ball()
    magnitude, phase = echoes(field(), bowl())
    magnitude[18, 16, 9] = 0
    magnitude[10, 16, 9, 1:] = 0
    _, fit = fits(magnitude, phase, mask=mask)
    assert np.isfinite(fit.field).all() and np.isfinite(fit.noise).all()
    assert fit.noise[18, 16, 9] == pytest.approx(np.pi / np.sqrt(3))


def test_one_echo_has_nothing_to_anchor():
    magnitude, phase = (e[..., :1] for e in echoes(field(), bowl()))
    free, anchored = fits(magnitude, phase, TIMES[:1])
    assert np.array_equal(free.field, anchored.field)


@pytest.mark.parametrize("size", [None, (1, 1), (1, 0, 1), (1, np.nan, 1)])
def test_the_size_of_a_voxel_is_needed(size):
    magnitude, phase = echoes(field(), bowl())
    with pytest.raises(ValueError, match="voxel_size"):
        fit_echoes(magnitude, phase, TIMES, method="anchored", sigma=SIGMA, voxel_size=size)
