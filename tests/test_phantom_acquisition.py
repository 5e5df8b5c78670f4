"""Fields and signal of the phantom against what physics says they are."""

import numpy as np
import pytest
from scipy import ndimage

from qsmref.images import b0_direction
from qsmref.phantom.acquisition import BIPOLAR_RADIANS, Protocol, simulate
from qsmref.phantom.fields import block_mean, make_fields
from qsmref.phantom.grid import ParameterError
from qsmref.phantom.head import Head, Region, lookup
from qsmref.phantom.labels import LabelImage
from qsmref.reconstruction import forward_field

MATRIX, SIZE = (48, 56, 48), (4.0, 3.6, 4.0)
TIMES = (0.004, 0.008, 0.012)


def region(index, name, ppm, brain, m0=1.0, t1=1.0, t2star=0.05):
    return Region(index, name, name, "n/a", brain, ppm, 0.0, 0.0, m0, t1, t2star)


def ball(radius=9.0, ppm=1.0, n=48, size=(1.0, 1.0, 1.0), rotation=None):
    """A sphere of `ppm` in water; the brain is all but a margin."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for h in size]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    indices = np.where(x**2 + y**2 + z**2 < radius**2, 2, 1).astype(np.uint8)
    mask = np.zeros(indices.shape, dtype=bool)
    mask[6:-6, 6:-6, 6:-6] = True
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(size)
    regions = (region(1, "water", 0.0, True), region(2, "ball", ppm, True))
    return LabelImage(indices, affine, regions, mask)


@pytest.fixture(scope="module")
def clean():
    """A head without texture, noise and receiver phase, one point per voxel."""
    return simulate(
        Head(), MATRIX, SIZE, TIMES, texture=0, snr=np.inf, phase_offset=False, receive_bias=0
    )


def test_field_of_a_sphere_is_the_analytic_dipole():
    radius, ppm, size = 9.0, 0.8, (0.9, 1.0, 1.1)
    model = ball(radius, ppm, size=size)
    grid = model.grid(voxel_size=tuple(2 * h for h in size), oblique=30)
    fields = make_fields(model, grid, texture=0, shim_order=None)
    assert fields.factor == (2, 2, 2)
    axes = [a - c for a, c in zip(grid.axes(), grid.centre, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    bx, by, bz = b0_direction(grid.affine)
    assert abs(bx) > 0.1 and abs(by) > 0.1
    cosine = (x * bx + y * by + z * bz) / np.maximum(r, 1)
    with np.errstate(divide="ignore"):
        analytic = ppm / 3 * (radius / r) ** 3 * (3 * cosine**2 - 1)
    analytic[r < radius] = 0
    compared = (r > radius + 3) | (r < radius - 3)
    np.testing.assert_allclose(fields.total_ppm[compared], analytic[compared], atol=0.02)


def test_phase_grows_with_echo_time_where_the_field_is_positive(clean):
    hertz = clean.total_field_ppm * clean.protocol.imaging_frequency
    signal = clean.magnitude * np.exp(1j * clean.phase)
    step = np.angle(signal[..., 1] * signal[..., 0].conj())
    expected = 2 * np.pi * hertz * (TIMES[1] - TIMES[0])
    unwrapped = clean.mask & (np.abs(expected) < 3)
    assert unwrapped.sum() > 10_000
    np.testing.assert_allclose(step[unwrapped], expected[unwrapped], atol=2e-3)
    assert np.abs(clean.phase).max() <= np.pi + 1e-6


def test_a_vein_along_the_field_has_positive_susceptibility_and_positive_phase():
    # Inside a long cylinder along B0 the field is chi / 3.
    n = 40
    x, y = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 2, indexing="ij")
    inside = np.repeat((x**2 + y**2 < 16)[..., None], 4 * n, axis=2)
    indices = np.where(inside, 2, 1).astype(np.uint8)
    regions = (region(1, "water", 0.0, True), region(2, "vein", 0.3, True))
    model = LabelImage(indices, np.eye(4), regions, np.ones(indices.shape, dtype=bool))
    out = simulate(model, echo_times=(0.01,), snr=np.inf, phase_offset=False, texture=0,
                   shim_order=None)  # fmt: skip
    assert out.total_field_ppm[19:21, 19:21, 75:85].mean() == pytest.approx(0.1, rel=0.05)
    # Relative to the water around, whose mean the solver leaves at zero over the grid.
    assert out.phase[19:21, 19:21, 75:85, 0].mean() == pytest.approx(
        2 * np.pi * 127.732 * 0.1 * 0.01, rel=0.05
    )


def test_magnitude_decays_with_t2star_and_follows_the_steady_state(clean):
    head = Head()
    labels = head.labels(*head.grid(MATRIX, SIZE).axes())
    first, last = (np.maximum(clean.magnitude[..., e], 1e-6) for e in (0, 2))
    rate = np.log(first / last) / (TIMES[2] - TIMES[0])
    for name in ("WM", "GP", "CSF"):
        r = next(r for r in head.regions if r.name == name)
        assert np.median(rate[labels == r.index]) == pytest.approx(1 / r.t2star, rel=1e-3)
    white, grey = (next(r for r in head.regions if r.name == n) for n in ("WM", "GM"))
    angle, tr = np.deg2rad(15), clean.protocol.repetition_time

    def ernst(r):
        e1 = np.exp(-tr / r.t1)
        decay = np.exp(-TIMES[0] / r.t2star)
        return r.m0 * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle)) * decay

    ratio = (
        np.median(clean.magnitude[labels == white.index, 0])
        / np.median(clean.magnitude[labels == grey.index, 0])
    )  # fmt: skip
    assert ratio == pytest.approx(ernst(white) / ernst(grey), rel=1e-3)
    assert np.median(clean.t1w[labels == white.index]) > 1.2 * np.median(
        clean.t1w[labels == grey.index]
    )
    assert clean.magnitude[clean.mask, 0].mean() == pytest.approx(1000, rel=1e-3)
    assert clean.magnitude.max() < 4095


def test_t2star_shortens_with_field_strength():
    decay = []
    for tesla in (3.0, 7.0):
        out = simulate(Head(), (32, 32, 32), (6.0,) * 3, (0.004, 0.01), field_strength=tesla,
                       snr=np.inf, texture=0)  # fmt: skip
        decay.append(np.log(np.divide(*out.magnitude[out.mask].T)).mean())
        assert out.protocol.imaging_frequency == pytest.approx(42.577478518 * tesla)
    assert decay[1] / decay[0] == pytest.approx(7 / 3, rel=1e-3)


def test_local_field_is_that_of_the_mask(clean):
    inside = np.where(clean.mask, clean.chi, 0)
    local = forward_field(inside, SIZE, clean.b0_dir)
    np.testing.assert_allclose(clean.local_field_ppm, local, atol=5e-6)


def test_the_background_field_is_harmonic_in_the_brain_when_supersampled():
    head = Head()
    fields = make_fields(head, head.grid(MATRIX, SIZE), 2, texture=0)
    background = fields.total_ppm - fields.local_ppm
    core = ndimage.binary_erosion(fields.mask, iterations=3)

    def laplacian(f):
        parts = ((np.roll(f, 1, a) + np.roll(f, -1, a) - 2 * f) / SIZE[a] ** 2 for a in range(3))
        return sum(parts)[core].std()

    assert core.sum() > 3000
    assert laplacian(background) < 0.05 * laplacian(fields.local_ppm)


def test_supersampling_averages_the_complex_signal_over_each_voxel():
    head = Head()
    kinds = dict(texture=0.1, snr=np.inf, phase_offset=False, receive_bias=0, shim_order=None)
    fine = simulate(head, (64, 64, 64), (3.0,) * 3, (0.02,), **kinds)
    coarse = simulate(head, (32, 32, 32), (6.0,) * 3, (0.02,), supersample=2, **kinds)
    np.testing.assert_allclose(coarse.chi, block_mean(fine.chi, (2, 2, 2)), atol=1e-5)
    np.testing.assert_allclose(
        coarse.total_field_ppm, block_mean(fine.total_field_ppm, (2, 2, 2)), atol=5e-3
    )
    signal = block_mean((fine.magnitude * np.exp(1j * fine.phase))[..., 0], (2, 2, 2))
    signal *= 1000 / np.abs(signal[coarse.mask]).mean()
    simulated = (coarse.magnitude * np.exp(1j * coarse.phase))[..., 0]
    error = np.abs(simulated - signal)[coarse.mask]
    assert np.median(error) < 2 and error.mean() < 10, "of a mean magnitude of 1000"
    # Dephasing inside the voxels takes signal away.
    lost = block_mean(fine.magnitude[..., 0], (2, 2, 2)) - np.abs(
        block_mean((fine.magnitude * np.exp(1j * fine.phase))[..., 0], (2, 2, 2))
    )
    assert lost[coarse.mask].mean() > 1


def test_regions_of_a_supersampled_voxel_are_those_of_most_of_its_points():
    model = ball(radius=11.0)
    out = simulate(model, voxel_size=(4.0,) * 3, echo_times=(0.004,))
    assert out.labels.shape == (12, 12, 12)
    share = block_mean(model.indices == 2, (4, 4, 4))
    expected = np.where(share > 0.5, 2, 1)
    expected[~out.mask] = 0
    clear = np.abs(share - 0.5) > 1e-6
    np.testing.assert_array_equal(out.labels[clear], expected[clear])


def test_the_head_beyond_the_field_of_view_still_makes_field(clean):
    small = simulate(
        Head(), (24, 30, 24), SIZE, TIMES, texture=0, snr=np.inf, phase_offset=False,
        receive_bias=0, shim_order=None,
    )  # fmt: skip
    whole = make_fields(Head(), Head().grid(MATRIX, SIZE), texture=0, shim_order=None)
    inner = (slice(12, 36), slice(13, 43), slice(12, 36))
    # A constant differs, and the padding: the periodic images of the head lie elsewhere.
    difference = small.total_field_ppm - whole.total_ppm[inner]
    assert difference[small.mask].std() < 0.01 < 0.05 * whole.total_ppm[inner][small.mask].std()
    np.testing.assert_allclose(small.chi, clean.chi[inner], atol=1e-6)


def test_noise_has_the_stated_level_and_is_complex_gaussian(clean):
    noisy = simulate(
        Head(), MATRIX, SIZE, TIMES, texture=0, snr=40, phase_offset=False, receive_bias=0, seed=3
    )
    noise = noisy.magnitude * np.exp(1j * noisy.phase) - clean.magnitude * np.exp(1j * clean.phase)
    for part in (noise.real, noise.imag):
        assert part.std() == pytest.approx(1000 / 40, rel=0.02)
        assert abs(part.mean()) < 0.3
    pairs = np.stack([n[..., e].ravel() for n in (noise.real, noise.imag) for e in range(3)])
    off = np.corrcoef(pairs) - np.eye(6)
    assert np.abs(off).max() < 0.02, "echoes and parts are independent"


def test_receiver_phase_is_smooth_and_the_same_for_all_echoes(clean):
    offset = simulate(
        Head(), MATRIX, SIZE, TIMES, texture=0, snr=np.inf, phase_offset=True, receive_bias=0
    )
    turned = np.exp(1j * offset.phase) * np.exp(-1j * clean.phase)
    for echo in (1, 2):
        np.testing.assert_allclose(turned[clean.mask, echo], turned[clean.mask, 0], atol=2e-3)
    step = np.angle(turned[1:, ..., 0] * turned[:-1, ..., 0].conj())
    assert np.abs(step[clean.mask[1:] & clean.mask[:-1]]).max() < 0.6
    assert np.abs(np.angle(turned[clean.mask, 0])).mean() > 0.2


def test_bipolar_readout_adds_ramps_of_alternating_sign(clean):
    bipolar = simulate(
        Head(), MATRIX, SIZE, TIMES, texture=0, snr=np.inf, phase_offset=False, receive_bias=0,
        bipolar=True,
    )  # fmt: skip
    change = np.angle(np.exp(1j * (bipolar.phase - clean.phase)))
    ramp = np.linspace(-BIPOLAR_RADIANS, BIPOLAR_RADIANS, MATRIX[0])[:, None, None]
    for echo, sign in enumerate((1, -1, 1)):
        expected = np.broadcast_to(sign * ramp, MATRIX)
        np.testing.assert_allclose(change[clean.mask, echo], expected[clean.mask], atol=2e-3)


def test_shim_takes_low_orders_away_and_stays_harmonic():
    head = Head()
    grid = head.grid((40, 48, 40), (5.0, 4.5, 5.0))
    spread = {}
    for order in (None, 0, 1, 2):
        fields = make_fields(head, grid, texture=0, shim_order=order)
        spread[order] = fields.total_ppm[fields.mask].std()
        if order is not None:
            assert abs(fields.total_ppm[fields.mask].mean()) < 1e-4
    assert spread[2] < spread[1] < spread[0] == pytest.approx(spread[None], rel=1e-4)
    fields = make_fields(head, grid, texture=0, shim_order=2)
    plain = make_fields(head, grid, texture=0, shim_order=None)
    shim = (plain.total_ppm - fields.total_ppm).astype(float)
    laplacian = sum(
        np.diff(shim, 2, axis=a)[tuple(slice(None) if b == a else slice(1, -1) for b in range(3))]
        / grid.voxel_size[a] ** 2
        for a in range(3)
    )
    assert np.abs(laplacian).max() < 1e-5


def test_oblique_grid_keeps_the_anatomy_and_turns_b0(clean):
    oblique = simulate(
        Head(), MATRIX, SIZE, TIMES, texture=0, snr=np.inf, phase_offset=False, receive_bias=0,
        oblique=20,
    )  # fmt: skip
    np.testing.assert_array_equal(oblique.labels, clean.labels)
    np.testing.assert_array_equal(oblique.chi, clean.chi)
    assert np.degrees(np.arccos(oblique.b0_dir[2])) == pytest.approx(20, abs=1e-4)
    np.testing.assert_allclose(oblique.b0_dir, b0_direction(oblique.affine))
    np.testing.assert_allclose(
        oblique.local_field_ppm,
        forward_field(np.where(clean.mask, clean.chi, 0), SIZE, oblique.b0_dir),
        atol=1e-4,  # a band-limited oblique kernel rings over the whole padded grid
    )
    assert np.abs(oblique.local_field_ppm - clean.local_field_ppm)[clean.mask].max() > 0.01


def test_texture_varies_tissue_by_its_fraction_and_leaves_fluid_alone():
    head = Head()
    grid = head.grid((64, 80, 64), (2.5, 2.4, 2.5))
    labels = head.labels(*grid.axes())
    smooth = make_fields(head, grid, texture=0)
    rough = make_fields(head, grid, texture=0.2, seed=8)
    change = rough.chi - smooth.chi
    nominal = lookup(head.regions, "susceptibility_ppm")
    for name, sd in (("WM", 0.006), ("GM", 0.006), ("PU", 0.014), ("CSF", 0.0), ("vein", 0.0)):
        index = next(r.index for r in head.regions if r.name == name)
        assert change[labels == index].std() == pytest.approx(sd, rel=0.3, abs=1e-7)
        np.testing.assert_allclose(smooth.chi[labels == index], nominal[index], rtol=1e-6)
    # The same function of position on another grid, up to its own sampling.
    other = make_fields(head, head.grid((32, 40, 32), (5.0, 4.8, 5.0)), (2, 2, 2), 0.2, seed=8)
    np.testing.assert_allclose(other.chi, block_mean(rough.chi, (2, 2, 2)), atol=2e-5)


def test_same_seed_same_arrays_and_streams_are_apart():
    def run(**options):
        return simulate(Head(), (32, 36, 32), (6.0,) * 3, (0.004, 0.008), **options)

    one, again, other = run(seed=4), run(seed=4), run(seed=5)
    for name in ("magnitude", "phase", "t1w", "chi", "total_field_ppm"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    without = run(seed=4, phase_offset=False)
    np.testing.assert_allclose(without.t1w, one.t1w)
    np.testing.assert_allclose(without.magnitude, one.magnitude, rtol=0.5, atol=60)


def test_types_and_shapes(clean):
    assert clean.magnitude.shape == clean.phase.shape == (*MATRIX, 3)
    for name in ("magnitude", "phase", "t1w", "chi", "total_field_ppm", "local_field_ppm"):
        array = getattr(clean, name)
        assert array.dtype == np.float32 and array.flags.c_contiguous
        assert np.isfinite(array).all()
    assert clean.mask.dtype == bool and clean.labels.dtype == np.int32
    assert not clean.labels[~clean.mask].any()
    assert clean.voxel_size == SIZE


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"echo_times": (0.008, 0.004)}, "increasing"),
        ({"echo_times": ()}, "increasing"),
        ({"echo_times": (4.0, 8.0)}, "not ms"),
        ({"echo_times": (0.004,), "repetition_time": 0.003}, "longer than the last"),
        ({"snr": 0}, "SNR"),
        ({"snr": float("nan")}, "SNR"),
        ({"field_strength": -3}, "B0"),
        ({"flip_angle": 0}, "flip angle"),
        ({"receive_bias": 1.5}, "receive bias"),
        ({"texture": -0.1}, "texture"),
        ({"shim_order": 3}, "shim order"),
        ({"supersample": 0}, "Supersampling"),
        ({"supersample": 1.5}, "Supersampling"),
        ({"matrix": (16, 16)}, "three whole numbers"),
        ({"matrix": (16, 0, 16)}, "three whole numbers"),
        ({"voxel_size": (2.0, float("nan"), 2.0)}, "three positive numbers"),
    ],
)
def test_parameters_out_of_range_are_refused(options, sentence):
    options = {"matrix": (16, 16, 16), "voxel_size": (12.0,) * 3, **options}
    with pytest.raises(ParameterError, match=sentence):
        simulate(Head(), **options)


def test_a_field_of_view_inside_the_brain_works():
    assert simulate(Head(), (8, 8, 8), (4.0,) * 3).mask.all()


def test_a_field_of_view_without_brain_is_refused():
    head = Head(shape=Head().shape.__class__(shift=(400.0, 0.0, 0.0)))
    with pytest.raises(ParameterError, match="holds no brain"):
        simulate(head, (16, 16, 16), (8.0,) * 3)


def test_repetition_time_follows_from_the_echoes():
    assert Protocol((0.004, 0.03)).repetition_time == pytest.approx(0.045)
    assert Protocol((0.004,)).repetition_time == pytest.approx(0.035)
