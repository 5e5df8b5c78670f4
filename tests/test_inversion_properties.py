"""What must hold for every dipole inversion whatever its numbers: axes, units, signs, offsets."""

import itertools

import numpy as np
import pytest
from background_cases import coordinates
from inversion_cases import OBLIQUE, QUICK, make_case, options

from qsmref.reconstruction import invert, methods
from qsmref.reconstruction.inversion import RADIANS_PER_PPM

#: Three different lengths and voxel sizes, so that no mix-up of axes goes unseen.
SHAPE, SIZE = (38, 32, 20), (1.0, 1.25, 2.0)


@pytest.fixture(scope="module")
def case():
    return make_case(SHAPE, SIZE, OBLIQUE, dtype=np.float64)


def run(case, method, **changes):
    field = changes.pop("field", case.field(method))
    given = {**options(case), **QUICK.get(method, {}), **changes}
    return invert(field, case.mask, case.size, method, **given)


@pytest.fixture(scope="module")
def maps(case):
    """The map of every method, in double precision."""
    return {method: run(case, method)[0] for method in methods.INVERSION}


def close(a, b, tolerance=1e-9):
    return np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize("order", [(2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("method", methods.INVERSION)
def test_turning_the_axes_turns_the_map(case, maps, method, order):
    def turn(array):
        return np.transpose(array, order)

    chi, _, _ = invert(
        turn(case.field(method)),
        turn(case.mask),
        [SIZE[i] for i in order],
        method,
        b0_dir=[OBLIQUE[i] for i in order],
        magnitude=turn(case.magnitude),
        noise=turn(case.noise),
        **QUICK.get(method, {}),
    )
    assert close(chi, turn(maps[method]))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("method", ["single-step", "tv", "tkd", "tikhonov"])
def test_mirroring_an_axis_mirrors_the_map(case, maps, method, axis):
    # The periodic methods have no first and last plane; in the others the padding lies behind the
    # array and takes the mirror image to another place.
    b0_dir = np.array(OBLIQUE)
    b0_dir[axis] *= -1

    def flip(array):
        return np.flip(array, axis)

    chi, _, _ = invert(
        flip(case.field(method)), flip(case.mask), SIZE, method, b0_dir=b0_dir,
        magnitude=flip(case.magnitude), noise=flip(case.noise), **QUICK.get(method, {}),
    )  # fmt: skip
    assert close(chi, flip(maps[method]))


@pytest.mark.parametrize("method", methods.INVERSION)
def test_moving_the_head_moves_the_map(case, maps, method):
    def move(array):
        return np.pad(array, ((4, 1), (0, 3), (2, 2)))

    chi, _, _ = invert(
        move(case.field(method)), move(case.mask), SIZE, method, b0_dir=OBLIQUE,
        magnitude=move(case.magnitude), noise=move(case.noise), **QUICK.get(method, {}),
    )  # fmt: skip
    assert np.array_equal(chi, move(maps[method]))


@pytest.mark.parametrize("method", methods.INVERSION)
def test_opposite_field_gives_the_opposite_map(case, maps, method):
    chi, _, _ = run(case, method, field=-case.field(method))
    assert close(chi, -maps[method])


@pytest.mark.parametrize("method", methods.INVERSION)
def test_length_and_sign_of_b0_do_not_matter(case, maps, method):
    chi, _, _ = run(case, method, b0_dir=-3 * np.array(OBLIQUE))
    assert close(chi, maps[method])


@pytest.mark.parametrize("method", methods.INVERSION)
def test_units(case, maps, method):
    # A field eight times larger at an eighth of the radians per ppm is the same in radians.
    chi, _, _ = run(
        case, method, field=8 * case.field(method), noise=8 * case.noise,
        radians_per_ppm=RADIANS_PER_PPM / 8,
    )  # fmt: skip
    assert np.array_equal(chi / 8, maps[method])


@pytest.mark.parametrize("method", methods.INVERSION)
def test_units_of_magnitude_and_noise_do_not_matter(case, maps, method):
    chi, _, _ = run(case, method, magnitude=64 * case.magnitude, noise=case.noise / 4)
    assert close(chi, maps[method])


@pytest.mark.parametrize("method", ["single-step", "tv"])
def test_scale_of_field_and_lambda(case, method):
    # The objective |dx| + lambda (Kx - f)^2 keeps its form when x and f grow by a and lambda falls
    # by a; the iterates are then not the same, what they run to is.
    long = {"iterations": 150, "merit": False, "edge_fraction": 0.0}
    if method == "single-step":
        long["radii"] = (3.0, 6.0)
    one, _, _ = run(case, method, lambda_=2000.0, **long)
    two, _, _ = run(case, method, lambda_=1000.0, field=2 * case.field(method), **long)
    assert case.error(two / 2 + case.chi - one) < 0.02


@pytest.mark.parametrize("method", methods.INVERSION)
def test_precision(case, maps, method):
    single = {
        name: np.asarray(value, np.float32)
        for name, value in options(case).items()
        if name in ("magnitude", "noise")
    }
    chi, _, _ = run(case, method, field=case.field(method).astype(np.float32), **single)
    assert chi.dtype == np.float32
    assert maps[method].dtype == np.float64
    difference = (chi - maps[method])[case.mask]
    assert difference.std() < 1e-3 * maps[method][case.mask].std()


@pytest.mark.parametrize("method", methods.INVERSION)
def test_edges_let_the_map_jump(case, maps, method):
    without, _, info = run(case, method, magnitude=None)
    if "edges_from_magnitude" not in info:
        assert np.array_equal(without, maps[method])
    else:
        assert info["edges_from_magnitude"] is False
        assert case.error(without) > case.error(maps[method])


def test_any_harmonic_field_may_be_added_for_single_step(case):
    # What sources anywhere outside make, and a constant: the spheres take all of it away.
    x, y, z = coordinates(SHAPE, SIZE)
    harmonic = 0.3 + 0.02 * x - 0.01 * z + 0.001 * (x * y + y * z) + 2e-4 * (2 * z**2 - x**2 - y**2)
    # Until the map has settled, its own field passes for a Laplacian: as many as by default.
    fields = case.total, case.total + harmonic
    before, after = (run(case, "single-step", field=f, iterations=60)[0] for f in fields)
    assert case.error(after - before + case.chi) < 1e-3


def test_orders_of_radii_do_not_matter(case, maps):
    radii = QUICK["single-step"]["radii"]
    for other in itertools.permutations(radii):
        assert np.array_equal(run(case, "single-step", radii=other)[0], maps["single-step"])
