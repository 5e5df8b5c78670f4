"""Padded transforms that skip lines of zeros give what a plain one of the whole grid gives."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmref.reconstruction import fft
from qsmref.reconstruction.fft import Transform, frequencies, good_size, thread_count, threads

#: (shape of the array, shape of the grid): padded along all axes, some, none; even and odd.
CASES = [
    ((6, 7, 8), (6, 7, 8)),
    ((5, 7, 9), (5, 7, 9)),
    ((6, 7, 8), (12, 16, 20)),
    ((5, 4, 3), (9, 4, 7)),
    ((3, 8, 5), (3, 10, 5)),
]
#: Allowed error relative to the largest value.
PRECISION = {np.float32: 2e-6, np.float64: 1e-14}


def noise(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def plain_inverse(spectrum, grid, shape):
    """Crop of numpy's inverse over the whole grid, in double precision."""
    whole = np.fft.irfftn(spectrum.astype(complex), s=grid, axes=(0, 1, 2))
    return whole[tuple(slice(0, n) for n in shape)]


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize(("shape", "grid"), CASES)
def test_forward_is_the_plain_transform_of_the_padded_array(shape, grid, dtype):
    x = noise(shape, dtype)
    transform = Transform(shape, grid)
    spectrum = transform.forward(x)
    expected = np.fft.rfftn(x.astype(float), s=grid, axes=(0, 1, 2))
    assert spectrum.shape == transform.spectrum == expected.shape
    assert spectrum.dtype == np.result_type(dtype, np.complex64)
    assert np.abs(spectrum - expected).max() < PRECISION[dtype] * np.abs(expected).max()


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize(("shape", "grid"), CASES)
def test_inverse_is_the_plain_transform_cropped(shape, grid, dtype):
    # A spectrum that was multiplied by a kernel: its inverse fills the whole grid.
    kernel = np.fft.rfftn(noise(grid, seed=1))
    spectrum = (np.fft.rfftn(noise(shape), s=grid, axes=(0, 1, 2)) * kernel).astype(
        np.result_type(dtype, np.complex64)
    )
    expected = plain_inverse(spectrum, grid, shape)
    result = Transform(shape, grid).inverse(spectrum)
    assert result.shape == shape
    assert result.dtype == dtype
    assert np.abs(result - expected).max() < PRECISION[dtype] * np.abs(expected).max() * 4


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    more=st.tuples(*[st.integers(0, 6)] * 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_there_and_back(shape, more, seed):
    grid = tuple(n + m for n, m in zip(shape, more, strict=True))
    x = noise(shape, seed=seed)
    transform = Transform(shape, grid)
    spectrum = transform.forward(x)
    assert np.abs(spectrum - np.fft.rfftn(x, s=grid, axes=(0, 1, 2))).max() < 1e-12
    assert np.abs(transform.inverse(spectrum) - x).max() < 1e-13
    assert transform.count == 2


@pytest.mark.parametrize(("shape", "grid"), CASES)
def test_inputs_are_kept_where_it_is_promised(shape, grid):
    transform = Transform(shape, grid)
    x = noise(shape, np.float32)
    before = x.copy()
    spectrum = transform.forward(x)
    assert np.array_equal(x, before)
    kept = spectrum.copy()
    first = transform.inverse(spectrum, overwrite=False)
    assert np.array_equal(spectrum, kept)
    assert np.array_equal(transform.inverse(spectrum, overwrite=False), first)
    assert transform.count == 3


def test_grid_smaller_than_the_array():
    with pytest.raises(ValueError, match=r"grid \(4, 4, 3\) is smaller than the array \(4, 4, 4\)"):
        Transform((4, 4, 4), (4, 4, 3))


@given(st.integers(-3, 3000))
def test_good_size_is_the_next_even_product_of_small_primes(length):
    size = good_size(length)
    candidates = (n for n in range(max(length, 2), 2 * abs(length) + 20) if n % 2 == 0)
    assert size == next(n for n in candidates if only_small_primes(n))


def only_small_primes(n):
    for prime in (2, 3, 5):
        while n % prime == 0:
            n //= prime
    return n == 1


def test_frequencies_are_cycles_per_mm():
    grid, size = (6, 5, 8), (0.5, 1, 2)
    kx, ky, kz = frequencies(grid, size)
    assert (kx.shape, ky.shape, kz.shape) == ((6, 1, 1), (1, 5, 1), (1, 1, 5))
    assert np.array_equal(kx.ravel(), np.fft.fftfreq(6, 0.5))
    assert np.array_equal(ky.ravel(), np.fft.fftfreq(5, 1))
    assert kz.ravel()[-1] == 0.25  # one cycle in two voxels of 2 mm


def test_threads_hold_inside_the_block_and_in_its_own_thread():
    assert thread_count() == 1
    seen = []
    with threads(2):
        with threads(3):
            assert thread_count() == 3
        assert thread_count() == 2
        other = threading.Thread(target=lambda: seen.append(thread_count()))
        other.start()
        other.join()
    assert seen == [1]
    with pytest.raises(RuntimeError, match="inside"), threads(2):
        raise RuntimeError("inside")
    assert thread_count() == 1
    with pytest.raises(ValueError, match="at least 1, got 0"), threads(0):
        pass


def test_threads_do_not_change_the_result():
    x = noise((24, 20, 18), np.float32)
    results = []
    for count in (1, 2):
        transform = Transform(x.shape, (48, 40, 36))
        with threads(count):
            spectrum = transform.forward(x)
            results.append((spectrum, transform.inverse(spectrum.copy())))
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


def test_the_library_has_a_name():
    # Both libraries are behind the same two functions, so all of the above holds for either.
    assert fft.library_name() in ("scipy", "pyfftw")
