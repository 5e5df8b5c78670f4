"""What every method of background removal has in common."""

import json

import numpy as np
import pytest
from background_cases import background, ball, sphere_field

from qsmref.reconstruction import methods, remove_background
from qsmref.reconstruction.background import METHODS, method_parameters

SHAPE, SIZE = (36, 36, 20), (1, 1, 2)
#: Parameters that suit a small ball.
SMALL = {"sharp": {"radius_mm": 4}, "resharp": {"radius_mm": 4}, "v-sharp": {"radius_mm": 6}}


@pytest.fixture(scope="module")
def case():
    mask = ball(SHAPE, SIZE, 15)
    field = background(SHAPE, SIZE) + sphere_field(SHAPE, SIZE, (2, -3, 1), 4, 0.1)
    return field.astype(np.float32), mask


def test_names_agree():
    assert all(callable(METHODS.function(name)) for name in methods.BACKGROUND)


@pytest.mark.parametrize("method", methods.BACKGROUND)
def test_result_is_complete(case, method):
    field, mask = case
    before = field.copy()
    local, kept, info = remove_background(field, mask, SIZE, method, **SMALL.get(method, {}))
    assert local.shape == field.shape
    assert local.dtype == np.float32
    assert kept.dtype == bool
    assert kept.any()
    assert not (kept & ~mask).any()
    assert np.isfinite(local).all()
    assert not local[~kept].any()
    assert local[kept].any()
    assert np.array_equal(field, before)
    assert info["method"] == method
    assert set(method_parameters(method)) <= set(info)
    assert json.loads(json.dumps(info)) is not None


@pytest.mark.parametrize("method", methods.BACKGROUND)
def test_scale_and_outside_do_not_matter(case, method):
    field, mask = case
    local, _, _ = remove_background(field, mask, SIZE, method, **SMALL.get(method, {}))
    other = np.where(mask, 8 * field, np.nan)
    scaled, _, _ = remove_background(other, mask, SIZE, method, **SMALL.get(method, {}))
    assert np.abs(scaled / 8 - local).max() < 1e-5 * np.abs(local).max()


def test_none_keeps_the_total_field(case):
    field, mask = case
    local, kept, info = remove_background(field, mask, SIZE, "none")
    assert np.array_equal(local, field * mask)
    assert np.array_equal(kept, mask)
    assert info == {"method": "none"}


def test_unknown_names(case):
    field, mask = case
    with pytest.raises(ValueError, match="unknown background removal 'lbw'.*resharp.*lbv"):
        remove_background(field, mask, SIZE, "lbw")
    with pytest.raises(ValueError, match="no parameter radius; it takes radius_mm, threshold"):
        remove_background(field, mask, SIZE, "sharp", radius=3)
    with pytest.raises(ValueError, match="no parameter tolerance; it takes none"):
        remove_background(field, mask, SIZE, "none", tolerance=3)


def test_bad_arrays(case):
    field, mask = case
    hole = field.copy()
    hole[18, 18, 10] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in 1 voxels inside the mask"):
        remove_background(hole, mask, SIZE)
    with pytest.raises(ValueError, match="mask is empty"):
        remove_background(field, np.zeros_like(mask), SIZE)
    with pytest.raises(ValueError, match=r"mask has shape \(35, 36, 20\), the field"):
        remove_background(field, mask[1:], SIZE)
    with pytest.raises(ValueError, match="real 3-D array"):
        remove_background(field[..., None], mask[..., None], SIZE)
    with pytest.raises(ValueError, match="real 3-D array"):
        remove_background(field * 1j, mask, SIZE)
    with pytest.raises(ValueError, match="three positive numbers"):
        remove_background(field, mask, (1, 1, 0))
    with pytest.raises(ValueError, match="b0_dir"):
        remove_background(field, mask, SIZE, b0_dir=(0, 0, 0))


def test_bad_noise(case):
    field, mask = case
    noise = np.ones_like(field)
    with pytest.raises(ValueError, match="noise has shape"):
        remove_background(field, mask, SIZE, noise=noise[1:])
    with pytest.raises(ValueError, match="NaN or negative"):
        remove_background(field, mask, SIZE, noise=-noise)
    with pytest.raises(ValueError, match="nothing has weight"):
        remove_background(field, mask, SIZE, noise=0 * noise)


@pytest.mark.parametrize(
    ("method", "parameters", "sentence"),
    [
        ("pdf", {"tolerance": -1}, "must not be negative"),
        ("pdf", {"tolerance": float("nan")}, "must not be negative"),
        ("pdf", {"stopping": "never"}, "relative, medi"),
        ("sharp", {"radius_mm": 0}, "radius must be positive"),
        ("sharp", {"radius_mm": 40}, "no sphere of 40 mm"),
        ("sharp", {"threshold": -1}, "threshold must not be negative"),
        ("v-sharp", {"smallest_mm": 20}, "smallest_mm <= radius_mm"),
        ("resharp", {"regularisation": -1}, "regularisation must not be negative"),
        ("ismv", {"max_iterations": -1}, "max_iterations must not be negative"),
        ("lbv", {"tolerance": -1}, "tolerance must not be negative"),
        ("lbv", {"peel_mm": 30}, "leaves nothing of the mask"),
        ("harperella", {"variant": "x"}, "harperella, iharperella"),
        ("harperella", {"rim_mm": 30}, "no sphere of 30 mm"),
        ("harperella", {"padding_mm": -1}, "padding_mm"),
    ],
)
def test_bad_parameters(case, method, parameters, sentence):
    field, mask = case
    with pytest.raises(ValueError, match=sentence):
        remove_background(field, mask, SIZE, method, **parameters)
