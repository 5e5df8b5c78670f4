"""What every method of dipole inversion has in common."""

import json

import numpy as np
import pytest
from inversion_cases import ANISOTROPIC, QUICK, TOTAL, make_case, options

from qsmref.reconstruction import invert, methods
from qsmref.reconstruction.inversion import METHODS, RADIANS_PER_PPM, method_parameters

#: A value other than the default for every parameter; a new one must be added here.
OTHER = {
    "alpha": 0.2,
    "beyond": "zero",
    "cg_max_iterations": 4,
    "cg_tolerance": 0.1,
    "edge_fraction": 0.5,
    "edge_noise": 3.0,
    "free_laplacian": None,
    "gradient_noise": 0.3,
    "huber_width": 0.01,
    "iterations": 3,
    "lambda_": 700.0,
    "lambda_csf": 10.0,
    "max_iterations": 1,
    "merit": None,
    "outside": 12.0,
    "padding_mm": 12.0,
    "penalty": "identity",
    "radii": (2.0, 5.0),
    "smv_radius": 3.0,
    "threshold": 0.2,
    "tolerance": 0.2,
}


@pytest.fixture(scope="module")
def case():
    return make_case(*ANISOTROPIC)


def test_names_agree():
    assert all(callable(METHODS.function(name)) for name in methods.INVERSION)
    assert set(methods.TOTAL_FIELD) == set(TOTAL)
    assert set(methods.TOTAL_FIELD) <= set(methods.INVERSION)


@pytest.mark.parametrize("method", methods.INVERSION)
def test_result_is_complete(case, method):
    field, magnitude = case.field(method), case.magnitude
    before = field.copy(), magnitude.copy(), case.noise.copy(), case.mask.copy()
    chi, kept, info = invert(
        field, case.mask, case.size, method, **options(case), **QUICK.get(method, {})
    )
    assert chi.shape == field.shape
    assert chi.dtype == np.float32
    assert chi.flags.c_contiguous
    assert kept.dtype == bool
    assert np.array_equal(kept, case.mask)
    assert np.isfinite(chi).all()
    assert not chi[~kept].any()
    assert chi[kept].any()
    after = field, magnitude, case.noise, case.mask
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert info["method"] == method
    assert set(method_parameters(method)) <= set(info)
    assert info["iterations"] >= 1
    assert info["fft_count"] >= 2
    assert len(info["grid"]) == 3
    again = json.loads(json.dumps(info))
    assert again["iterations"] == info["iterations"]
    if "residual" in info:
        assert 0 < info["residual"] < 1


@pytest.mark.parametrize("method", methods.INVERSION)
def test_parameters_are_recorded_and_used(case, method):
    defaults = method_parameters(method)
    base = {**defaults, **QUICK.get(method, {})}
    first, _, info = invert(
        case.field(method), case.mask, case.size, method, **options(case), **base
    )
    assert {k: info[k] for k in base} == base
    for name in defaults:
        value = not defaults[name] if OTHER[name] is None else OTHER[name]
        chi, _, info = invert(
            case.field(method),
            case.mask,
            case.size,
            method,
            **options(case),
            **{**base, name: value},
        )
        assert info[name] == value
        # lambda_csf needs a mask of cerebrospinal fluid, and MERIT and tolerances more iterations
        # than these few to show; they have tests of their own.
        if name not in ("lambda_csf", "merit", "tolerance", "cg_tolerance"):
            assert not np.array_equal(chi, first), f"{method} does not use {name}"


@pytest.mark.parametrize("method", methods.INVERSION)
def test_radians_are_recorded_where_they_count(case, method):
    _, _, info = invert(
        case.field(method), case.mask, case.size, method, radians_per_ppm=5.0,
        **QUICK.get(method, {}),
    )  # fmt: skip
    if method in ("tkd", "tikhonov"):
        assert "radians_per_ppm" not in info
    else:
        assert info["radians_per_ppm"] == 5.0
        assert info["edges_from_magnitude"] is False


@pytest.mark.parametrize("method", methods.INVERSION)
def test_what_stands_outside_the_mask_does_not_matter(case, method):
    inside = case.mask
    arrays = {"field": case.field(method), "magnitude": case.magnitude, "noise": case.noise}
    results = []
    for filler in (0.0, np.nan):
        field, magnitude, noise = (np.where(inside, a, filler) for a in arrays.values())
        chi, _, _ = invert(
            field.astype(np.float32), inside, case.size, method, magnitude=magnitude,
            noise=noise.astype(np.float32), **QUICK.get(method, {}),
        )  # fmt: skip
        results.append(chi)
    assert np.array_equal(results[0], results[1])


@pytest.mark.parametrize("method", methods.INVERSION)
def test_zero_field_gives_zero(case, method):
    zero = np.zeros_like(case.local)
    chi, _, info = invert(
        zero, case.mask, case.size, method, **options(case), **QUICK.get(method, {})
    )
    assert not chi.any()
    json.dumps(info, allow_nan=False)


@pytest.mark.parametrize("method", ["tv", "medi", "total-field"])
@pytest.mark.parametrize("nothing", [0.0, np.inf])
def test_voxels_of_unknown_noise_have_no_say(case, method, nothing):
    # single-step is left out: its spheres take the field of all voxels around into account.
    unknown = np.zeros(case.mask.shape, bool)
    unknown[20:22, 16:18, 8:10] = True
    given = {**options(case), "noise": np.where(unknown, np.float32(nothing), case.noise)}
    maps = []
    for wrong in (0.0, 1.0):
        field = case.field(method) + np.float32(wrong) * unknown
        chi, _, _ = invert(field, case.mask, case.size, method, **given, **QUICK[method])
        maps.append(chi)
    assert np.array_equal(maps[0], maps[1])


def test_bad_input(case):
    field, mask, size = case.local, case.mask, case.size
    bad = field.copy()
    bad[18, 18, 9] = np.nan
    for arguments, sentence in [
        ((field, np.zeros_like(mask), size), "the mask is empty"),
        ((field, mask[1:], size), r"the mask has shape \(35, 36, 18\), the field \(36, 36, 18\)"),
        ((field[..., None], mask, size), "must be a real 3-D array"),
        ((field.astype(complex), mask, size), "must be a real 3-D array, got complex"),
        ((bad, mask, size), "NaN or infinite in 1 voxels inside the mask"),
        ((field, mask, (1, 1)), "three positive numbers"),
        ((field, mask, (1, 1, 0)), "three positive numbers"),
        ((field, mask, (1, 1, np.nan)), "three positive numbers"),
        ((field, mask, size, "medii"), "unknown dipole inversion 'medii'.*single-step.*tkd"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            invert(*arguments)


def test_bad_companions(case):
    field, mask, size = case.local, case.mask, case.size
    magnitude = case.magnitude.copy()
    magnitude[18, 18, 9] = np.inf
    for keywords, sentence in [
        ({"b0_dir": (0, 0, 0)}, "b0_dir must be three numbers"),
        ({"magnitude": magnitude}, "the magnitude is NaN or infinite inside the mask"),
        ({"magnitude": magnitude[1:]}, "the magnitude has shape"),
        ({"noise": -case.noise}, "NaN or negative"),
        ({"noise": 0 * case.noise}, "nothing has weight"),
        ({"noise": case.noise[1:]}, "the noise has shape"),
        ({"csf": mask[1:]}, "the csf mask has shape"),
        ({"radians_per_ppm": 0}, "radians_per_ppm must be positive"),
        ({"radians_per_ppm": np.nan}, "radians_per_ppm must be positive"),
        ({"lamda": 1}, "has no parameter lamda; it takes lambda_"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            invert(field, mask, size, "medi", **keywords)


@pytest.mark.parametrize(
    ("method", "parameters", "sentence"),
    [
        ("tkd", {"threshold": 0}, "threshold must lie between 0 and 2/3"),
        ("tkd", {"threshold": 0.7}, "threshold must lie between 0 and 2/3"),
        ("tkd", {"beyond": "one"}, "'sign' or 'zero'"),
        ("tkd", {"padding_mm": -1}, "padding_mm must not be negative"),
        ("tikhonov", {"alpha": 0}, "alpha must be positive"),
        ("tikhonov", {"penalty": "l1"}, "'gradient' or 'identity'"),
        ("medi", {"lambda_": 0}, "lambda_ must be positive"),
        ("medi", {"smv_radius": -1}, "smv_radius"),
        ("medi", {"smv_radius": 30}, "a sphere of 30 mm fits nowhere"),
        ("medi", {"cg_tolerance": -1}, "tolerance must not be negative"),
        ("medi", {"edge_fraction": 4}, "edge_fraction must lie between 0 and 3"),
        ("tv", {"lambda_": -1}, "lambda_ must be positive"),
        ("tv", {"lambda_": float("nan")}, "lambda_ must be positive"),
        ("tv", {"iterations": 0}, "iterations at least 1"),
        ("tv", {"padding_mm": -1}, "padding_mm must not be negative"),
        ("single-step", {"edge_noise": 0}, "edge_noise must be positive"),
        ("single-step", {"radii": ()}, "radii must be positive"),
        ("single-step", {"radii": (0, 3)}, "radii must be positive"),
        ("single-step", {"gradient_noise": -0.1}, "gradient_noise must not be negative"),
        ("single-step", {"radii": (30,)}, "no sphere of 30.0 mm fits anywhere"),
        ("total-field", {"outside": 0.5}, "outside at least 1"),
        ("total-field", {"lambda_": 0}, "lambda_ must be positive"),
    ],
)
def test_bad_parameters(case, method, parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        invert(case.field(method), case.mask, case.size, method, **options(case), **parameters)


def test_mask_at_the_edge_of_the_array():
    # No room around the brain: the padding must come from the method.
    case = make_case(*ANISOTROPIC)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(case.mask))
    for method in methods.INVERSION:
        whole, _, _ = invert(
            case.field(method), case.mask, case.size, method, magnitude=case.magnitude,
            noise=case.noise, **QUICK.get(method, {}),
        )  # fmt: skip
        tight, _, _ = invert(
            case.field(method)[box], case.mask[box], case.size, method,
            magnitude=case.magnitude[box], noise=case.noise[box], **QUICK.get(method, {}),
        )  # fmt: skip
        assert np.array_equal(tight, whole[box]), method


def test_radians_per_ppm_by_default():
    # 4 ms at 3 T: 127.7 Hz per ppm.
    assert pytest.approx(2 * np.pi * 127.732435554 * 0.004, rel=1e-9) == RADIANS_PER_PPM
