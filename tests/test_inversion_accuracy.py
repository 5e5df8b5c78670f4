"""How right the maps of a small head are, whose local and total field are known."""

import numpy as np
import pytest
from background_cases import sphere_field
from inversion_cases import ANISOTROPIC, ISOTROPIC, MODEL, OBLIQUE, ellipsoid, make_case, options

from qsmref.reconstruction import invert

CASES = [(ISOTROPIC, OBLIQUE), (ANISOTROPIC, (0, 0, 1)), (ANISOTROPIC, OBLIQUE)]
#: Largest relative error of the map and error (ppm) of a difference between two of its regions,
#: which are 110 and 170 ppb apart.
BOUNDS = {
    "single-step": (0.03, 0.0015),
    "total-field": (0.03, 0.0015),
    "tv": (0.03, 0.0015),
    "medi": (0.03, 0.0015),
    "tkd": (0.35, 0.035),
    "tikhonov": (0.40, 0.045),
}


@pytest.fixture(scope="module", params=CASES, ids=["isotropic", "axial", "oblique"])
def case(request):
    (shape, size), b0_dir = request.param
    return make_case(shape, size, b0_dir)


@pytest.mark.parametrize("method", BOUNDS)
def test_map(case, method):
    chi, kept, info = invert(
        case.field(method), case.mask, case.size, method, **options(case), **MODEL.get(method, {})
    )
    error, difference = BOUNDS[method]
    assert case.error(chi, kept) < error
    assert case.contrast_error(chi) < difference
    # Paramagnetic is positive.
    means = [chi[case.labels == k].mean() for k in (1, 2, 3)]
    assert means[0] > means[1] > means[2]
    if "residual" in info:
        assert info["residual"] < 0.2


@pytest.mark.parametrize("method", ["tv", "tkd", "tikhonov"])
def test_wrong_direction_of_b0_is_worse(method):
    case = make_case(*ANISOTROPIC, OBLIQUE)
    wrong, _, _ = invert(
        case.local, case.mask, case.size, method, **{**options(case), "b0_dir": (0, 0, 1)}
    )
    right, _, _ = invert(case.local, case.mask, case.size, method, **options(case))
    assert case.error(wrong) > 2 * case.error(right)


@pytest.mark.parametrize(
    ("grid", "method"),
    [
        (ISOTROPIC, "single-step"),
        (ANISOTROPIC, "single-step"),
        (ANISOTROPIC, "tv"),
        (ANISOTROPIC, "medi"),
    ],
)
def test_field_in_closed_form(grid, method):
    # No dipole kernel of ours made this field: a sphere's own formula, at the voxels' centres.
    shape, size = grid
    mask = ellipsoid(shape, size, (0, 0, 0), (15, 15, 15))
    inside = ellipsoid(shape, size, (2, -1, 1), (6, 6, 6))
    field = (sphere_field(shape, size, (2, -1, 1), 6, 0.1, OBLIQUE) * mask).astype(np.float32)
    magnitude = np.where(inside, 0.7, 1.0) * mask
    options = {"b0_dir": OBLIQUE, "magnitude": magnitude, **MODEL.get(method, {})}
    if method == "single-step":
        # The largest sphere should be of the size of the source, and fit.
        options["radii"] = (1.5, 3.0, 6.0)
    chi, kept, _ = invert(field, mask, size, method, **options)
    core = ellipsoid(shape, size, (2, -1, 1), (4, 4, 4))
    around = kept & ~ellipsoid(shape, size, (2, -1, 1), (8, 8, 8))
    contrast = chi[core].mean() - chi[around].mean()
    assert contrast == pytest.approx(0.1, abs=0.006)


@pytest.mark.parametrize("method", ["single-step", "tv", "medi", "total-field"])
def test_noise_weights_the_fit(method):
    # A tenth of the voxels is fifty times noisier: it must be said, and then it does little harm.
    case = make_case(*ANISOTROPIC)
    rng = np.random.default_rng(9)
    bad = rng.random(case.mask.shape) < 0.1
    spread = np.where(bad, 0.05, 0.001)
    field = case.field(method) + (spread * rng.standard_normal(bad.shape)).astype(np.float32)
    own = {**MODEL.get(method, {})}
    if method in ("medi", "total-field"):
        own = {"max_iterations": 2, "cg_max_iterations": 60}
    errors = []
    for noise in (None, spread):
        chi, _, _ = invert(
            field, case.mask, case.size, method, magnitude=case.magnitude, noise=noise,
            b0_dir=case.b0_dir, merit=False, **own,
        )  # fmt: skip
        errors.append(case.error(chi))
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("method", ["single-step", "tv", "medi"])
def test_merit_forgives_voxels_that_do_not_fit(method):
    # A few voxels are wrong by 0.03 ppm, and nothing says so.
    case = make_case(*ANISOTROPIC)
    wrong = np.random.default_rng(3).random(case.mask.shape) < 0.002
    field = case.field(method) + np.float32(0.03) * wrong
    errors = []
    for merit in (False, True):
        own = {**options(case), **MODEL.get(method, {}), "merit": merit}
        chi, _, _ = invert(field, case.mask, case.size, method, **own)
        errors.append(case.error(chi))
    assert errors[1] < 0.3 * errors[0]
