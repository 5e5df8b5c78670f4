"""The error that noise makes: predicted on a coarse grid, observed in repeats on the fine one."""

from __future__ import annotations

import numpy as np
import pytest

from qsmref.analysis.propagation import noise_covariance, noise_maps
from qsmref.reconstruction import forward_field, invert
from qsmref.reconstruction.closedform import gradient_spectrum
from qsmref.reconstruction.dipole import dipole_kernel
from qsmref.reconstruction.fft import Transform, frequencies

VOXEL = (2.5, 2.5, 2.5)
SHAPE = (40, 44, 36)
SCALE = 3.21
#: Centre from the middle of the brain and radii, mm; susceptibility, ppm.
NUCLEI = {
    "CN": ((-11, 10, 7), (6, 9, 6), 0.04),
    "PU": ((14, 5, 2), (6, 11, 7), 0.07),
    "GP": ((-14, -3, -2), (5, 8, 6), 0.12),
    "SN": ((7, -14, -9), (5, 7, 5), 0.11),
}


def ellipsoid(centre, radii) -> np.ndarray:
    place = np.indices(SHAPE).astype(float)
    parts = zip(place, VOXEL, centre, radii, strict=True)
    return sum(((p * h - c) / r) ** 2 for p, h, c, r in parts) < 1


def head():
    """Field (ppm), its noise, mask, magnitude and the voxels of each region."""
    middle = np.array(SHAPE) * VOXEL / 2
    mask = ellipsoid(middle, (42, 47, 37))
    chi = np.where(mask, -0.01, 0).astype(np.float32)
    samples = {}
    for name, (centre, radii, value) in NUCLEI.items():
        inside = ellipsoid(middle + centre, radii)
        chi[inside] = value
        samples[name] = np.flatnonzero(inside)
    noise = (0.002 * (1 + 0.5 * np.indices(SHAPE)[0] / SHAPE[0])).astype(np.float32)
    magnitude = ((100 - 200 * chi) * mask).astype(np.float32)
    return forward_field(chi, VOXEL).astype(np.float32), noise, mask, magnitude, samples


def errors_of(covariance: np.ndarray) -> np.ndarray:
    """Errors of all regions and all differences."""
    single = np.diag(covariance)
    first, second = np.triu_indices(len(single), 1)
    pairs = single[first] + single[second] - 2 * covariance[first, second]
    return np.sqrt(np.concatenate([single, pairs]))


def observed(method: str, repeats: int, **parameters) -> np.ndarray:
    """Covariance of the region means over noise on the fine grid, ppb squared."""
    field, noise, mask, magnitude, samples = head()
    rng = np.random.default_rng(77)
    means = []
    for _ in range(repeats):
        noisy = field + noise * rng.standard_normal(SHAPE).astype(np.float32)
        chi, _, _ = invert(
            noisy * mask, mask, VOXEL, method, magnitude=magnitude, noise=noise,
            radians_per_ppm=SCALE, **parameters,
        )  # fmt: skip
        means.append([1000 * chi.ravel()[v].mean(dtype=float) for v in samples.values()])
    return np.cov(np.array(means).T)


def predicted(method: str, repeats: int, coarse_mm: float, **parameters) -> np.ndarray:
    field, noise, mask, magnitude, samples = head()
    rng = np.random.default_rng(5)
    noisy = field + noise * rng.standard_normal(SHAPE).astype(np.float32)
    drawn = noise_maps(
        noisy * mask, noise, mask, VOXEL, repeats=repeats, magnitude=magnitude,
        radians_per_ppm=SCALE, inversion=method, inversion_params=parameters,
        coarse_mm=coarse_mm,
    )  # fmt: skip
    return noise_covariance(drawn, samples, SHAPE).to_numpy()


def test_a_linear_inversion_has_the_error_that_its_filter_gives():
    _, noise, mask, _, samples = head()
    grid = (64, 64, 64)
    transform = Transform(SHAPE, grid)
    kernel = dipole_kernel(grid, VOXEL)
    ks = frequencies(grid, VOXEL)
    below = kernel**2 + 0.01 * gradient_spectrum(ks, VOXEL)
    inverse = np.where(below > 0, kernel / np.where(below > 0, below, 1), 0).astype(np.float32)
    weights = []
    for voxels in samples.values():
        mean = np.zeros(SHAPE, np.float32)
        mean.ravel()[voxels] = 1000 / voxels.size
        spectrum = transform.forward(mean)
        spectrum *= inverse
        weights.append((transform.inverse(spectrum) * noise)[mask])
    exact = np.array(weights, float) @ np.array(weights, float).T
    found = predicted("tikhonov", 300, coarse_mm=2.5)
    np.testing.assert_allclose(errors_of(found), errors_of(exact), rtol=0.15)


def test_blocks_of_voxels_keep_the_error_of_regions():
    fine = errors_of(observed("tkd", 200))
    coarse = errors_of(predicted("tkd", 200, coarse_mm=5.0))
    np.testing.assert_allclose(coarse, fine, rtol=0.3)


def test_a_nonlinear_inversion_is_predicted_within_thirty_percent():
    parameters = {"lambda_": 1500.0, "iterations": 15}
    fine = errors_of(observed("single-step", 36, **parameters))
    coarse = errors_of(predicted("single-step", 36, coarse_mm=5.0, **parameters))
    # Each of the two standard deviations is itself known to 12 % only.
    ratio = coarse / fine
    assert 0.7 < np.exp(np.log(ratio).mean()) < 1.3
    assert np.abs(np.log(ratio)).max() < np.log(2)


def test_offsets_and_order_do_not_matter_and_seeds_repeat():
    field, noise, mask, _, samples = head()
    options = {"repeats": 4, "radians_per_ppm": SCALE, "inversion": "tkd", "coarse_mm": 5.0}
    drawn = noise_maps(field, noise, mask, VOXEL, **options)
    again = noise_maps(field, noise, mask, VOXEL, **options)
    np.testing.assert_array_equal(drawn.maps, again.maps)
    covariance = noise_covariance(drawn, samples, SHAPE)
    shifted = drawn._replace(maps=drawn.maps + np.float32(0.25) * drawn.mask[..., None])
    other = noise_covariance(shifted, dict(reversed(samples.items())), SHAPE)
    np.testing.assert_allclose(
        covariance, other.loc[covariance.index, covariance.columns], rtol=1e-3, atol=1e-6
    )
    louder = noise_maps(field, 2 * noise, mask, VOXEL, **options)
    np.testing.assert_allclose(
        noise_covariance(louder, samples, SHAPE), 4 * covariance, rtol=1e-2, atol=1e-4
    )


def test_regions_outside_the_coarse_mask_have_no_error():
    field, noise, mask, _, samples = head()
    drawn = noise_maps(field, noise, mask, VOXEL, repeats=2, radians_per_ppm=SCALE, inversion="tkd")
    outside = {"far": np.array([0, 1]), "none": np.array([], dtype=int), "CN": samples["CN"]}
    covariance = noise_covariance(drawn, outside, SHAPE)
    assert covariance.loc["far"].isna().all() and covariance.loc["none"].isna().all()
    assert covariance.loc["CN", "CN"] > 0


def test_bad_input_gets_a_sentence():
    field, noise, mask, _, _ = head()
    with pytest.raises(ValueError, match="two repeats or more, got 1"):
        noise_maps(field, noise, mask, VOXEL, repeats=1, radians_per_ppm=SCALE)
    with pytest.raises(ValueError, match="known nowhere"):
        noise_maps(field, 0 * noise, mask, VOXEL, radians_per_ppm=SCALE)
