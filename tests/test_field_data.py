"""Field maps of real acquisitions, and parity with another toolbox's (QSMREF_TEST_DATA)."""

import nibabel as nib
import numpy as np
import pytest
from locations import find
from scipy import ndimage

from qsmref.images import b0_direction, voxel_size
from qsmref.reconstruction import brain_mask, fit_echoes, unwrap
from qsmref.reconstruction.echoes import noise_level
from qsmref.reconstruction.mask import erode, phase_quality_mask
from qsmref.reconstruction.phase_sign import phase_sign
from qsmref.reconstruction.romeo import phase_quality

pytestmark = pytest.mark.data


def _folder(name):
    return find("data", name) or find("bench", name)


def needs(name):
    return pytest.mark.skipif(_folder(name) is None, reason=f"needs {name} (QSMREF_TEST_DATA)")


def load(path):
    image = nib.load(path)
    return np.asarray(image.dataobj, dtype=np.float32), image.affine


@pytest.fixture(scope="module")
def philips():
    folder = _folder("gre-philips-2echo") / "sub-01" / "anat"
    parts = {
        part: [load(folder / f"sub-01_echo-{e}_part-{part}_MEGRE.nii.gz") for e in (1, 2)]
        for part in ("mag", "phase")
    }
    echoes = [np.stack([array for array, _ in parts[part]], axis=-1) for part in ("mag", "phase")]
    affine = parts["mag"][0][1]
    mask = brain_mask(echoes[0], voxel_size(affine), up=b0_direction(affine))
    return *echoes, (0.0023, 0.0046), affine, mask


@needs("gre-philips-2echo")
def test_brain_of_a_real_head(philips):
    *_, affine, mask = philips
    litres = np.count_nonzero(mask) * np.prod(voxel_size(affine)) / 1e6
    assert 1.4 < litres < 1.8
    assert ndimage.label(mask)[1] == 1


@needs("gre-philips-2echo")
def test_sign_of_a_real_phase(philips):
    magnitude, phase, times, affine, mask = philips
    h, b0 = voxel_size(affine), b0_direction(affine)
    inner = erode(mask, 3, h)
    field = unwrap(
        fit_echoes(magnitude, phase, times, inner).field, h, "romeo", magnitude[..., 0], inner
    )
    ppm = field / (2 * np.pi * times[0] * 127.748512)
    assert phase_sign(ppm, inner, magnitude[..., 0], h, b0) > 0.6
    assert phase_sign(-ppm, inner, magnitude[..., 0], h, b0) < -0.6


@needs("gre-philips-2echo")
def test_quality_of_a_real_phase(philips):
    magnitude, phase, times, _, mask = philips
    fit = fit_echoes(magnitude, phase, times, mask)
    quality = phase_quality(fit.field, mask)
    good = phase_quality_mask(mask, quality=quality, noise=fit.noise, residual=fit.residual)
    # Sinuses and the rim go, the brain stays.
    assert 0.98 < np.count_nonzero(good) / np.count_nonzero(mask) < 1
    assert noise_level(magnitude, phase, times, mask).source == "differences"


@needs("gre-crop-3echo")
def test_paths_agree_with_another_implementation_in_vivo():
    restoration = pytest.importorskip("skimage.restoration")
    folder = _folder("gre-crop-3echo")
    magnitude, affine = load(folder / "Mag.nii.gz")
    stored, _ = load(folder / "Phase.nii.gz")
    # The README says that the levels span a turn; the header's unit is arbitrary.
    phase = (stored / np.abs(stored).max() * np.pi).astype(np.float32)
    h = voxel_size(affine)
    for echo in range(3):
        ours = unwrap(phase[..., echo], h, "romeo", magnitude[..., echo])
        other = restoration.unwrap_phase(phase[..., echo])
        turns = np.round((ours - other) / (2 * np.pi))
        assert np.mean(turns != np.median(turns)) < 2e-3


@needs("medi-reference")
def test_unwrapped_field_equals_the_medi_toolbox_region_growing():
    folder = _folder("medi-reference")
    images = {
        name: load(folder / f"{name}.nii.gz")[0]
        for name in ("field-wrapped_rad", "field-unwrapped_rad", "magnitude", "mask")
    }
    mask = images["mask"] > 0
    ours = unwrap(images["field-wrapped_rad"], (1.5, 1.5, 1.5), "romeo", images["magnitude"], mask)
    np.testing.assert_allclose(ours[mask], images["field-unwrapped_rad"][mask], atol=1e-5)


@needs("gre-philips-2echo")
def test_the_offset_of_a_real_receiver_is_smooth(philips):
    magnitude, phase, times, affine, mask = philips
    h = voxel_size(affine)
    common = {"mask": mask, "voxel_size": h}
    free, anchored = (
        fit_echoes(magnitude, phase, times, method=method, **common)
        for method in ("nonlinear", "anchored")
    )
    ratio = (anchored.noise / free.noise.clip(1e-9))[mask]
    assert np.median(ratio) < 0.45
    # What a voxel differs by from its six neighbours is noise in part, and that part falls.
    inner = erode(mask, 9, h)
    rough = []
    for fit in (free, anchored):
        turned = np.exp(1j * fit.field)
        near = sum(np.roll(turned, step, axis) for axis in range(3) for step in (-1, 1))
        rough.append(np.median(np.abs(np.angle(turned * near.conj())[inner])))
    assert rough[1] < 0.75 * rough[0]
    # Sinuses and ventricles apart, the two agree within the noise of the former.
    change = np.angle(np.exp(1j * (anchored.field - free.field)))[inner]
    assert np.median(np.abs(change / free.noise[inner])) < 1
