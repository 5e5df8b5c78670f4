"""The dipole kernel against closed forms: sphere, cylinder, plane wave, turned axes."""

import itertools

import numpy as np
import pytest
from background_cases import coordinates, sphere_field
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmref.reconstruction.dipole import GAMMA_HZ_PER_T, dipole_kernel, forward_field, unit_vector
from qsmref.reconstruction.fft import Transform, frequencies

OBLIQUE = (0.3, -0.5, 0.8)
#: (shape, voxel size) of nearly the same field of view.
GRIDS = [((36, 36, 36), (1, 1, 1)), ((36, 36, 18), (1, 1, 2)), ((58, 58, 18), (0.625, 0.625, 2))]

directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda b: np.linalg.norm(b) > 0.1)
sizes = st.tuples(*[st.floats(0.5, 3)] * 3)
shapes = st.tuples(*[st.integers(2, 9)] * 3)


def smooth_ball(shape, voxel_size, radius, samples=5):
    """Part of each voxel inside a ball about the centre, from points inside the voxel."""
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    x, y, z = coordinates(shape, voxel_size)
    total = np.zeros(shape)
    for a, b, c in itertools.product(steps, repeat=3):
        hx, hy, hz = voxel_size
        total += (x + a * hx) ** 2 + (y + b * hy) ** 2 + (z + c * hz) ** 2 <= radius**2
    return total / samples**3


def convolve(chi, voxel_size, b0_dir):
    """Periodic convolution with the kernel, double precision."""
    transform = Transform(chi.shape)
    kernel = dipole_kernel(chi.shape, voxel_size, b0_dir, np.float64)
    return transform.inverse(transform.forward(chi) * kernel)


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), (1, 0, 0), OBLIQUE])
@pytest.mark.parametrize(("shape", "size"), GRIDS)
def test_sphere(shape, size, b0_dir):
    radius, chi = 9.0, 1.5
    field = forward_field(chi * smooth_ball(shape, size, radius), size, b0_dir)
    expected = sphere_field(shape, size, (0, 0, 0), radius, chi, b0_dir)
    x, y, z = coordinates(shape, size)
    r = np.sqrt(x**2 + y**2 + z**2)
    edge = max(size)
    inside, outside = r < radius - 2 * edge, r > radius + 2 * edge
    # The largest field of the sphere, at its poles, is 2 chi / 3.
    top = 2 * chi / 3
    # An oblique kernel jumps at the Nyquist frequency (k_x k_y is odd in each), so the edge of the
    # sphere rings by 2 %; its means do not.
    ring = 3 if b0_dir == OBLIQUE else 1
    assert np.abs(field[inside]).mean() < 0.005 * ring * top
    assert abs(field[r < radius].mean()) < 0.005 * top
    assert abs((field - expected)[outside].mean()) < 0.001 * top
    assert np.abs(field - expected)[outside].max() < 0.01 * ring * top
    error = np.linalg.norm((field - expected)[outside])
    assert error < 0.02 * max(1, ring - 1) * np.linalg.norm(expected[outside])


def test_sphere_field_points_along_b0():
    # Paramagnetic: the field is raised at the poles and lowered at the equator.
    shape, size = (32, 32, 32), (1, 1, 1)
    field = forward_field(smooth_ball(shape, size, 5), size, (0, 1, 0))
    assert field[16, 27, 16] > 0.02
    assert field[27, 16, 16] < -0.01
    assert field[16, 16, 27] < -0.01


def test_cylinder_along_b0():
    # Every plane across is the same, so k_z = 0 and D = 1/3 wherever D is not D(0) = 0.
    x, y, _ = coordinates((40, 40, 6), (1, 1, 2))
    chi = np.broadcast_to((x**2 + y**2 <= 64).astype(float), (40, 40, 6))
    field = convolve(chi, (1, 1, 2), (0, 0, 1))
    assert np.abs(field - (chi - chi.mean()) / 3).max() < 1e-12


@pytest.mark.parametrize("size", [(1, 1, 2), (1, 0.5, 1.5)])
def test_cylinder_across_b0(size):
    # Along z, B0 along x: -chi / 6 inside, chi / 2 (a / r)^2 cos(2 phi) outside. The grid is wide
    # so that the periodic neighbours, which weigh (a / period)^2, do not matter.
    radius, period = 6.0, 160.0
    shape = (int(period / size[0]), int(period / size[1]), 2)
    x, y, _ = coordinates(shape, size)
    steps = np.linspace(-0.4, 0.4, 5)
    disc = sum(
        (x + a * size[0]) ** 2 + (y + b * size[1]) ** 2 <= radius**2 for a in steps for b in steps
    )
    chi = np.broadcast_to(disc / 25.0, shape)
    field = convolve(chi, size, (1, 0, 0))
    r2 = np.broadcast_to(x**2 + y**2, shape)
    inside = r2 < (radius - 2) ** 2
    near = (r2 > (radius + 2) ** 2) & (r2 < 20**2)
    outside = radius**2 / 2 * (x**2 - y**2) / r2**2
    # The mean over the periodic grid is taken as zero; the field is that of chi less its mean.
    offset = chi.mean() / 6
    assert abs(field[inside].mean() - offset + 1 / 6) < 2e-3
    assert np.abs(field - offset - outside)[near].max() < 0.01


@given(
    n=st.tuples(*[st.integers(-4, 4)] * 3).filter(any),
    phase=st.floats(0, 6.3),
    size=sizes,
    b0_dir=directions,
)
@settings(max_examples=50, deadline=None)
def test_plane_wave_is_an_eigenvector(n, phase, size, b0_dir):
    shape = (9, 10, 11)
    k = np.array([a / (m * h) for a, m, h in zip(n, shape, size, strict=True)])
    b = np.asarray(b0_dir) / np.linalg.norm(b0_dir)
    eigenvalue = 1 / 3 - (k @ b) ** 2 / (k @ k)
    i = np.indices(shape)
    angle = 2 * np.pi * sum(a * j / m for a, j, m in zip(n, i, shape, strict=True)) + phase
    wave = np.cos(angle)
    assert np.abs(convolve(wave, size, b0_dir) - eigenvalue * wave).max() < 1e-12


@given(shape=shapes, size=sizes, b0_dir=directions)
@settings(max_examples=50, deadline=None)
def test_kernel_bounds_and_zero_frequency(shape, size, b0_dir):
    kernel = dipole_kernel(shape, size, b0_dir)
    assert kernel.dtype == np.float32
    assert kernel[0, 0, 0] == 0
    assert kernel.max() < 1 / 3 + 1e-6
    assert kernel.min() > -2 / 3 - 1e-6
    # Only the direction counts, not its sign or its length.
    other = dipole_kernel(shape, size, -7 * np.asarray(b0_dir))
    assert np.abs(kernel - other).max() < 1e-6


def test_trace_is_zero():
    # Three directions at right angles: their fields cancel.
    axes = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
    total = sum(dipole_kernel((8, 9, 7), (1, 1, 2), b, np.float64) for b in axes)
    assert np.abs(np.delete(total[:4].ravel(), 0)).max() < 1e-12


@given(shape=shapes, size=sizes, b0_dir=directions, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_convolution_is_self_adjoint(shape, size, b0_dir, seed):
    x, y = np.random.default_rng(seed).standard_normal((2, *shape))
    left, right = np.vdot(convolve(x, size, b0_dir), y), np.vdot(x, convolve(y, size, b0_dir))
    assert left == pytest.approx(right, abs=1e-11)


@given(shape=shapes, size=sizes, b0_dir=directions, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_half_spectrum_stands_for_the_full_one(shape, size, b0_dir, seed):
    # On even grids one sample stands for +k and -k of the Nyquist frequency: the mean of the fields
    # for all choices of sign is real, and prefers none.
    chi = np.random.default_rng(seed).standard_normal(shape)
    b = np.asarray(b0_dir) / np.linalg.norm(b0_dir)
    kernel = np.zeros(shape)
    for signs in itertools.product((1, -1), repeat=3):
        k = [np.fft.fftfreq(n, h) for n, h in zip(shape, size, strict=True)]
        for axis, n, sign in zip(k, shape, signs, strict=True):
            if n % 2 == 0:
                axis[n // 2] *= sign
        kx, ky, kz = np.meshgrid(*k, indexing="ij")
        k2 = kx**2 + ky**2 + kz**2
        k2[0, 0, 0] = 1
        kernel += (1 / 3 - (kx * b[0] + ky * b[1] + kz * b[2]) ** 2 / k2) / 8
    kernel[0, 0, 0] = 0
    expected = np.fft.ifftn(np.fft.fftn(chi) * kernel)
    assert np.abs(expected.imag).max() < 1e-12
    assert np.abs(convolve(chi, size, b0_dir) - expected.real).max() < 1e-12


@given(seed=st.integers(0, 99), a=st.floats(-5, 5), b0_dir=directions)
@settings(max_examples=20, deadline=None)
def test_forward_field_is_linear(seed, a, b0_dir):
    x, y = np.random.default_rng(seed).standard_normal((2, 6, 7, 5))
    field = forward_field(a * x + y, (1, 1, 2), b0_dir)
    parts = a * forward_field(x, (1, 1, 2), b0_dir) + forward_field(y, (1, 1, 2), b0_dir)
    assert np.abs(field - parts).max() < 1e-12


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_turning_the_axes_turns_the_field(order):
    chi = np.random.default_rng(1).standard_normal((8, 9, 10))
    size = (1, 1.5, 2)
    field = forward_field(chi, size, OBLIQUE)
    turned = forward_field(
        np.transpose(chi, order), [size[i] for i in order], [OBLIQUE[i] for i in order]
    )
    assert np.abs(turned - np.transpose(field, order)).max() < 1e-12


@pytest.mark.parametrize("axis", range(3))
def test_mirroring_an_axis_mirrors_the_field(axis):
    chi = np.random.default_rng(2).standard_normal((8, 9, 10))
    b0_dir = np.array(OBLIQUE)
    field = forward_field(chi, (1, 1, 2), b0_dir)
    b0_dir[axis] *= -1
    mirrored = forward_field(np.flip(chi, axis), (1, 1, 2), b0_dir)
    assert np.abs(mirrored - np.flip(field, axis)).max() < 1e-12


def test_moving_the_source_moves_the_field():
    chi = np.zeros((10, 10, 10))
    chi[2:5, 3:5, 2:4] = 1
    field = forward_field(chi, (1, 1, 2), OBLIQUE)
    moved = forward_field(np.roll(chi, (4, 2, 3), (0, 1, 2)), (1, 1, 2), OBLIQUE)
    # Not periodic: what leaves the array at one side does not come back at the other.
    same = np.abs(moved[4:, 2:, 3:] - field[:-4, :-2, :-3])
    assert same.max() < 0.02 * np.abs(field).max()


@pytest.mark.parametrize("b0_dir", [(0, 0, 1), OBLIQUE])
def test_precision(b0_dir):
    chi = np.random.default_rng(4).standard_normal((20, 21, 12))
    double = forward_field(chi, (1, 1, 2), b0_dir)
    single = forward_field(chi.astype(np.float32), (1, 1, 2), b0_dir)
    assert (double.dtype, single.dtype) == (np.float64, np.float32)
    assert single.flags.c_contiguous
    assert np.abs(single - double).max() < 3e-6 * np.abs(double).max()
    assert forward_field(np.ones((4, 4, 4), int), (1, 1, 1)).dtype == np.float32


def test_kernel_matches_its_formula_at_single_frequencies():
    grid, size = (8, 9, 10), (0.625, 0.625, 2)
    kernel = dipole_kernel(grid, size, OBLIQUE, np.float64)
    kx, ky, kz = frequencies(grid, size)
    k = np.array([kx[3, 0, 0], ky[0, 7, 0], kz[0, 0, 2]])
    b = np.array(OBLIQUE) / np.linalg.norm(OBLIQUE)
    assert kernel[3, 7, 2] == pytest.approx(1 / 3 - (k @ b) ** 2 / (k @ k), abs=1e-14)


def test_bad_input():
    for direction in ((0, 0, 0), (1, 0), (np.nan, 0, 1), (np.inf, 0, 0)):
        with pytest.raises(ValueError, match="b0_dir must be three numbers"):
            unit_vector(direction)
    with pytest.raises(ValueError, match="three dimensions, got shape"):
        forward_field(np.ones((3, 3)), (1, 1, 1))
    assert unit_vector((0, 3, 4)) == pytest.approx([0, 0.6, 0.8])


def test_gyromagnetic_ratio():
    # 2.6752218744e8 rad/s/T, CODATA 2018, over 2 pi.
    assert pytest.approx(2.6752218744e8 / (2 * np.pi), rel=1e-9) == GAMMA_HZ_PER_T
