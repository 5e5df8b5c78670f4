"""Unwrapping: paths, Laplacian and Poisson."""

import numpy as np
import pytest
from scipy import ndimage

from qsmref.reconstruction import methods, unwrap
from qsmref.reconstruction.fft import threads
from qsmref.reconstruction.romeo import phase_quality, unwrap_path
from qsmref.reconstruction.unwrapping import (
    inverse_laplacian,
    unwrap_echoes,
    unwrap_laplacian,
    unwrap_poisson,
)

TWO_PI = 2 * np.pi
H = (1.0, 1.0, 2.0)


def wrap(angle):
    return angle - TWO_PI * np.round(angle / TWO_PI)


def grid(shape):
    return np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")


def hill(shape=(40, 36, 24), height=25.0):
    x, y, z = grid(shape)
    field = height * np.exp(-3 * (x**2 + y**2 + z**2)) + 4 * x * y + 3 * z
    return field.astype(np.float32), x**2 + y**2 + z**2 < 0.9


def whole_turns(result, phase):
    turns = (result - phase) / TWO_PI
    return np.abs(turns - np.round(turns)).max()


@pytest.mark.parametrize("method", methods.UNWRAP)
def test_every_method_named_runs(method):
    field, mask = hill(height=8.0)
    result = unwrap(wrap(field), H, method, mask=mask)
    assert result.dtype == np.float32 and result.shape == field.shape
    assert not result[~mask].any() and result[mask].any()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("magnitude", [True, False])
def test_paths_are_exact(masked, magnitude):
    field, mask = hill()
    mask = mask if masked else None
    phase = wrap(field)
    signal = 1 + 0.3 * np.cos(field / 5) if magnitude else None
    result = unwrap(phase, H, "romeo", signal, mask)
    inside = mask if masked else np.ones(field.shape, bool)
    assert whole_turns(result[inside], phase[inside]) < 1e-5
    difference = (result - field)[inside] / TWO_PI
    np.testing.assert_allclose(difference, np.round(np.median(difference)), atol=1e-5)
    assert abs(np.median(result[inside])) <= np.pi + 1e-4


def test_paths_go_round_a_noisy_region():
    field, mask = hill()
    rng = np.random.default_rng(2)
    noisy = np.zeros(field.shape, bool)
    noisy[18:26, 10:20, 8:16] = True
    phase = np.where(noisy, rng.uniform(-np.pi, np.pi, field.shape), wrap(field))
    magnitude = np.where(noisy, 0.05, 1.0)
    result = unwrap(phase, H, "romeo", magnitude, mask)
    good = mask & ~noisy
    turns = np.round((result - field)[good] / TWO_PI)
    assert np.ptp(turns) == 0
    assert whole_turns(result[mask], phase[mask].astype(np.float32)) < 1e-5


def test_magnitude_and_second_echo_tell_where_to_join():
    # Two halves, joined by a bridge with a false jump of almost a turn and by one without.
    phase = np.zeros((9, 7, 3), np.float32)
    phase[5:] = 2.4
    mask = np.ones(phase.shape, bool)
    mask[4] = False
    mask[4, 1], mask[4, 5] = True, True
    phase[4, 1], phase[4, 5] = -1.6, 1.2  # over the first bridge the halves differ by -3.88
    magnitude = np.ones(phase.shape, np.float32)
    magnitude[4, 1] = 0.1
    turns = unwrap_path(phase, mask, magnitude)
    assert turns[8, 3, 1] == turns[0, 3, 1]
    magnitude[4, 1], magnitude[4, 5] = 1, 0.1
    turns = unwrap_path(phase, mask, magnitude)
    assert turns[8, 3, 1] == turns[0, 3, 1] - 1
    # A second echo at twice the time contradicts the first bridge.
    second = wrap(2 * phase)
    second[4, 1] += 1.0
    turns = unwrap_path(phase, mask, None, second.astype(np.float32), 0.5)
    assert turns[8, 3, 1] == turns[0, 3, 1]


def test_parts_that_do_not_touch_are_centred_apart():
    field, _ = hill((30, 20, 12), 10.0)
    field += 40
    mask = np.zeros(field.shape, bool)
    mask[2:12, 2:18, 2:10] = mask[16:28, 2:18, 2:10] = True
    mask[14, 10, 5] = True
    result = unwrap(wrap(field), H, "romeo", mask=mask)
    labels, count = ndimage.label(mask)
    assert count == 3
    for part in range(1, count + 1):
        inside = labels == part
        assert np.ptp(np.round((result - field)[inside] / TWO_PI)) == 0
        assert abs(np.median(result[inside])) <= np.pi + 1e-4


def test_voxels_outside_the_mask_have_no_influence():
    field, mask = hill()
    phase = wrap(field)
    other = phase.copy()
    other[~mask] = np.nan
    for method in methods.UNWRAP:
        np.testing.assert_array_equal(
            unwrap(phase, H, method, mask=mask), unwrap(other, H, method, mask=mask)
        )


def test_threads_do_not_change_the_result():
    field, mask = hill()
    field = field + np.random.default_rng(0).normal(0, 0.5, field.shape)
    one = unwrap(wrap(field), H, "romeo", mask=mask)
    with threads(2):
        np.testing.assert_array_equal(one, unwrap(wrap(field), H, "romeo", mask=mask))


def test_agrees_with_another_implementation():
    restoration = pytest.importorskip("skimage.restoration")
    field, mask = hill((32, 30, 20), 20.0)
    noise = np.random.default_rng(5).normal(0, 0.35, field.shape)
    phase = wrap(field + noise).astype(np.float32)
    result = unwrap(phase, H, "romeo", mask=mask)
    other = restoration.unwrap_phase(np.ma.array(phase, mask=~mask)).filled(0)
    turns = np.round((result - other)[mask] / TWO_PI)
    assert np.mean(turns != np.median(turns)) < 5e-3
    # Where they differ, it is the other one that is wrong.
    turns = np.round((result - field - noise)[mask] / TWO_PI)
    assert np.ptp(turns) == 0


@pytest.mark.parametrize("voxel_size", [(1, 1, 1), (1, 1, 2), (0.6, 1.5, 2)])
@pytest.mark.parametrize("kind", ["laplacian", "poisson"])
def test_laplacian_and_poisson_find_a_smooth_field(kind, voxel_size):
    shape = (48, 44, 32)
    x, y, z = (g * s for g, s in zip(grid(shape), (1, 1.1, 0.9), strict=True))
    # Compact, so that periodicity does not matter.
    field = (9 * np.exp(-8 * (x**2 + y**2 + z**2)) * (1 + x)).astype(np.float32)
    phase = wrap(field)
    assert np.abs(phase - field).max() > 6
    mask = np.ones(shape, bool)
    result = unwrap(phase, voxel_size, kind, mask=mask)
    error = result - field
    # The sines of the Laplacian form fall short of large differences (8 % of the peak here);
    # Poisson's differences are wrapped, not sines.
    tolerance = 0.1 * field.max() if kind == "laplacian" else 1e-3
    assert np.abs(error - np.median(error)).max() < tolerance


def test_laplacian_is_the_textbook_formula():
    # cos(phi) L sin(phi) - sin(phi) L cos(phi), every operator by FFT, without padding.
    rng = np.random.default_rng(1)
    phase = wrap(3 * ndimage.gaussian_filter(rng.normal(size=(16, 12, 10)), 2, mode="wrap") * 20)
    h = (1.0, 1.5, 2.0)
    stencil = np.zeros(phase.shape)
    stencil[0, 0, 0] = -2 * sum(1 / v**2 for v in h)
    for axis, v in enumerate(h):
        for side in (1, -1):
            place = [0, 0, 0]
            place[axis] = side
            stencil[tuple(place)] += 1 / v**2
    k = np.fft.fftn(stencil).real

    def laplacian(image):
        return np.fft.ifftn(np.fft.fftn(image) * k).real

    right = np.cos(phase) * laplacian(np.sin(phase)) - np.sin(phase) * laplacian(np.cos(phase))
    k[0, 0, 0] = 1
    spectrum = np.fft.fftn(right) / k
    spectrum[0, 0, 0] = 0
    expected = np.fft.ifftn(spectrum).real
    got = unwrap_laplacian(phase.astype(np.float32), h, padding=0, periodic=True)
    np.testing.assert_allclose(got, expected, atol=2e-4 * np.abs(expected).max())
    assert abs(got.mean()) < 1e-5


def test_inverse_laplacian_is_that_of_the_stencil():
    grid_ = (8, 6, 10)
    inverse = inverse_laplacian(grid_, (1, 2, 0.5))
    assert inverse[0, 0, 0] == 0
    x = np.random.default_rng(0).normal(size=grid_)
    x -= x.mean()
    laplacian = sum(
        (np.roll(x, 1, a) + np.roll(x, -1, a) - 2 * x) / v**2 for a, v in enumerate((1, 2, 0.5))
    )
    back = np.fft.irfftn(np.fft.rfftn(laplacian) * inverse, s=grid_, axes=(0, 1, 2))
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_poisson_keeps_the_harmonic_field_of_the_background():
    shape = (36, 32, 24)
    x, y, z = grid(shape)
    field = (14 * (x**2 - y**2) + 6 * x * z).astype(np.float32)
    mask = (x**2 + y**2 + z**2 < 0.9) & ((x - 0.3) ** 2 + y**2 > 0.05)
    result = unwrap_poisson(wrap(field), (1, 1, 1), mask)
    error = (result - field)[mask]
    # A smooth answer, equal to the exact one up to whole turns.
    assert np.ptp(error) < 5e-3
    assert abs(wrap(np.median(error))) < 1e-3


def test_unwrap_echoes_with_offsets_and_uneven_times():
    field, mask = hill((32, 30, 20), 4.0)
    offset = 2.0 * grid(field.shape)[0]
    for times in ([0.004, 0.008, 0.012], [0.003, 0.007, 0.0125], [0.004]):
        steps = np.asarray(times) / (times[1] - times[0] if len(times) > 1 else times[0])
        angle = field[..., None] * steps + offset[..., None]
        magnitude = np.exp(-20 * np.asarray(times)) * np.ones_like(angle)
        for template in {0, len(times) - 1}:
            result = unwrap_echoes(magnitude, wrap(angle), times, H, mask, template)
            turns = np.round((result - angle)[mask] / TWO_PI)
            assert (np.ptp(turns, axis=0) == 0).all()
            assert not result[~mask].any()
    with pytest.raises(ValueError, match="template"):
        unwrap_echoes(magnitude, wrap(angle), times, H, mask, 1)


def test_quality_is_low_where_the_phase_is_torn():
    field, mask = hill(height=6.0)
    phase = wrap(field)
    phase[10:14, 10:14, 8:12] = np.random.default_rng(0).uniform(-np.pi, np.pi, (4, 4, 4))
    quality = phase_quality(phase.astype(np.float32), mask)
    torn = np.zeros(mask.shape, bool)
    torn[10:14, 10:14, 8:12] = True
    assert quality[torn & mask].mean() < 0.65
    far = mask & ~ndimage.binary_dilation(torn, iterations=1)
    assert quality[far].min() > 0.7 and quality[far].max() <= 1
    assert not quality[~mask].any()


def test_bad_input_is_named():
    field, mask = hill((12, 10, 8))
    with pytest.raises(ValueError, match="'romeo', 'laplacian' or 'poisson'"):
        unwrap(field, H, "best")
    with pytest.raises(ValueError, match="axes"):
        unwrap(field[0], H)
    with pytest.raises(ValueError, match="three positive"):
        unwrap(field, (1, 1))
    with pytest.raises(ValueError, match="same shape"):
        unwrap(field, H, magnitude=field[1:])
    with pytest.raises(ValueError, match="empty"):
        unwrap(field, H, mask=np.zeros(field.shape, bool))
    broken = field.copy()
    broken[6, 5, 4] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        unwrap(broken, H, mask=mask)
