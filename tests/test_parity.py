"""Agreement with the MEDI toolbox on the head that it was run on.

The reference has no raw echoes, so the echo fit itself cannot be compared: its field is wrapped,
its noise is that of magnitudes in units of the background's. What is compared starts at the
toolbox's own unwrapped field and noise.
"""

import itertools

import numpy as np
import pytest
from locations import find

from qsmref.reconstruction import forward_field, invert, remove_background, unwrap
from qsmref.reconstruction.fft import threads

FOLDER = find("bench", "medi-reference")
SIZE = (1.5, 1.5, 1.5)
#: Echo spacing 4 ms at 3 T.
RADIANS_PER_PPM = 2 * np.pi * 0.004 * 42.577478518 * 3
#: Labels CN, PU, GP, TH, RN, SN, DN.
NUCLEI = range(4, 11)

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(FOLDER is None, reason="needs bench/medi-reference (QSMREF_TEST_DATA)"),
]


@pytest.fixture(scope="module")
def load():
    import nibabel as nib

    def read(name):
        return np.asarray(nib.load(FOLDER / f"{name}.nii.gz").dataobj, dtype=np.float32)

    return read


@pytest.fixture(scope="module")
def mask(load):
    return load("mask") > 0


def pair_errors(chi, truth, labels):
    """Errors (ppb) of the differences between all pairs of nuclei."""
    errors = [1e3 * (chi - truth)[(labels == k) & (chi != 0)].mean(dtype=float) for k in NUCLEI]
    return np.array([a - b for a, b in itertools.combinations(errors, 2)])


def correlation(a, b, where):
    return np.corrcoef(a[where], b[where])[0, 1]


def test_unwrapping_differs_by_whole_turns(load, mask):
    wrapped, reference = load("field-wrapped_rad"), load("field-unwrapped_rad")
    field = unwrap(wrapped, SIZE, magnitude=load("magnitude"), mask=mask)
    turns = (field - reference)[mask] / (2 * np.pi)
    assert np.abs(turns - np.rint(turns)).max() < 1e-4
    # The common number of turns is arbitrary; beside it the two agree.
    common = np.median(np.rint(turns))
    assert np.mean(np.rint(turns) == common) > 0.999


def test_true_local_field_is_that_of_the_forward_model(load, mask):
    # qsm-forward's own dipole: periodic padding differs, the rest is the same.
    field = forward_field(np.where(mask, load("truth-chi_ppm"), 0), SIZE)
    reference = load("truth-local_ppm")
    assert correlation(field, reference, mask) > 0.999


def test_background_removal(load, mask):
    # In single precision and ppm; in double (tests/test_background_pdf.py) the agreement is
    # perfect. Thirty iterations in single precision part from those by a percent.
    local, kept, info = remove_background(
        load("field-unwrapped_rad") / np.float32(RADIANS_PER_PPM),
        mask,
        SIZE,
        noise=load("noise_rad") / np.float32(RADIANS_PER_PPM),
        stopping="medi",
        tolerance=0.1,
        max_iterations=30,
    )
    assert np.array_equal(kept, mask)
    assert info["iterations"] == 30
    reference = load("pdf-local_rad") / RADIANS_PER_PPM
    assert correlation(local, reference, mask) > 0.9995
    assert np.abs(local - reference)[mask].std() < 0.02 * reference[mask].std()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "least"),
    [
        ("medi-plain_ppm", {}, 0.99),
        ("medi-merit-smv5_ppm", {"merit": True, "smv_radius": 5.0}, 0.999),
    ],
)
def test_medi(load, mask, name, parameters, least):
    with threads(2):
        chi, kept, info = invert(
            load("pdf-local_rad") / np.float32(RADIANS_PER_PPM),
            mask,
            SIZE,
            "medi",
            magnitude=load("magnitude"),
            noise=load("noise_rad") / np.float32(RADIANS_PER_PPM),
            radians_per_ppm=RADIANS_PER_PPM,
            **parameters,
        )
    reference = load(name)
    known = reference != 0
    # The mask may differ where a sphere only just fits.
    assert np.count_nonzero(kept ^ known) < 1e-3 * np.count_nonzero(known)
    assert correlation(chi, reference, kept & known) > least
    truth, labels = load("truth-chi_ppm"), load("truth-seg")
    ours, theirs = (pair_errors(m, truth, labels) for m in (chi, reference))
    assert abs(np.abs(ours).mean() - np.abs(theirs).mean()) < 1
    assert np.abs(ours - theirs).max() < 3
    assert info["residual"] < 0.5
