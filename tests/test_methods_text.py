"""The methods section: every number from a sidecar, every gap named, ranges over maps."""

from __future__ import annotations

import copy
import re

import pandas as pd
import pytest
from test_report import make_result

from bids_app.groupmethods import comparison_sentences
from bids_app.methods import _references, methods_text
from bids_app.reporting import acquisition_facts, reporting_items
from qsmref.anatomy import THROUGH_T1W
from qsmref.metadata import ACQUISITION_KEYS, acquisition_of
from qsmref.workflows.citations import sentence

ACQUIRED = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "Prisma",
    "SoftwareVersions": "XA30",
    "ReceiveCoilName": "HeadNeck_64",
    "MRAcquisitionType": "3D",
    "PulseSequenceType": "spoiled gradient echo",
    "RepetitionTime": 0.0428,
    "FlipAngle": 15,
    "PixelBandwidth": 300,
    "BipolarReadout": False,
    "ParallelReductionFactorInPlane": 2,
    "ParallelAcquisitionTechnique": "GRAPPA",
    "PartialFourier": 0.875,
    "CoilCombinationMethod": "adaptive combine",
}
PROCESSING = {
    "BrainMask": {"method": "surface", "erosion_mm": 2.0, "n_voxels": 1234},
    "EchoFit": {"method": "linear", "echo_times": [0.0034, 0.0094]},
    "Unwrap": {"method": "laplacian"},
    "BackgroundRemoval": {"method": "pdf", "tolerance": 0.1, "residual": 0.0987},
    "Inversion": {"method": "medi", "lambda_": 600.0, "merit": True},
}


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    made = make_result(tmp_path_factory.mktemp("run"))
    made["sidecar"] |= {
        **ACQUIRED,
        "Processing": PROCESSING,
        "PhaseScale": "radians, as the sidecars say",
        "ReferenceStatistics": {"atlas-mine": {"csf": {"mean": 1.25, "sd": 4.5}}},
    }
    made["measured"] = {
        "mine": {
            "Statistic": "median",
            "RegionErosion": 1.0,
            "MinimumCoverage": 0.5,
            "LabelSources": ["bids:drawn:sub-01/anat/sub-01_dseg.nii.gz"],
            "LabelSpace": "native",
        }
    }
    return made


def without(result: dict, *keys: str) -> dict:
    changed = copy.deepcopy(result)
    for key in keys:
        changed["sidecar"].pop(key)
    return changed


def test_the_acquisition_is_stated_with_its_numbers(result):
    text = methods_text([result])
    for words in (
        "a 3D spoiled gradient echo sequence were acquired at 2.894 T (imaging frequency 123.25",
        "on a Siemens Prisma (software XA30) with the coil HeadNeck_64.",
        "2 echoes at 3.4, 9.4 ms, repetition time 42.8 ms, flip angle 15°, monopolar readout, "
        "bandwidth 300 Hz per pixel",
        "a matrix of 20 × 24 × 12, voxels of 2 × 1.99 × 3 mm, a field of view of 40 × 47.",
        "axial, tilted by 3.8° slices",
        "Acceleration: GRAPPA, in plane 2.",
        "Partial Fourier: 0.875.",
        "Coils were combined by adaptive combine.",
        "Not stated by the data: gradient system, name at the scanner, flow compensation.",
    ):
        assert words in text, words


def test_the_reconstruction_says_what_it_was_told_and_not_what_it_found(result):
    text = methods_text([result])
    for words in (
        "Phase values are radians, as the sidecars say.",
        "by a deformable surface (erosion 2 mm) [Smith 2002, doi:10.1002/hbm.10062].",
        "by its Laplacian [Schofield and Zhu 2003",
        "(PDF) (tolerance 0.1) [Liu et al. 2011",
        "(MEDI) (lambda 600; merit yes) [Liu et al. 2012",
        "qsmref 9.9.9",
    ):
        assert words in text, words
    assert "0.0987" not in text and "1234" not in text


def test_the_analysis_names_regions_statistic_and_reference(result):
    text = methods_text([result])
    assert (
        "Regions of the atlas mine (labels of the dataset drawn, drawn on the grid of the map) are "
        "represented by the median of their voxels in the mask, eroded by 1 mm; regions of which "
        "less than 0.5 is covered are left out." in text
    )
    assert "The maps have no reference." in text
    assert "csf 1.2 ± 4.5 ppb (mean ± SD of the voxels)" in text


def test_every_citation_is_in_the_list_once(result):
    text = methods_text([result])
    body, _, listed = text.partition("## References")
    lines = listed.strip().splitlines()
    assert len(lines) == len(set(lines)) > 4
    for line in lines:
        cite, doi = line.removeprefix("- ").split(", doi:")
        assert f"[{cite}, doi:{doi}]" in body


def test_what_the_data_do_not_say_is_named_and_not_made_up(result):
    bare = without(result, *ACQUIRED)
    items = {item.name: item.value for item in reporting_items(bare)}
    for name in ("Vendor", "Type", "Repetition time", "Flip angle", "Readout", "Acceleration"):
        assert items[name] is None
    assert items["Field strength"] == "2.894 T" and items["Voxel size"] == "2 × 1.99 × 3 mm"
    text = methods_text([bare])
    assert "Not stated by the data: vendor, model, software release, coil, channels" in text
    assert "repetition time 0" not in text and "None" not in text and "nan" not in text
    assert "Repetition time" not in acquisition_facts(bare["sidecar"])


def test_maps_made_alike_share_sentences_with_ranges(result):
    other = copy.deepcopy(result)
    other["prefix"] = "sub-02"
    other["sidecar"]["ImagingFrequency"] = 123.27
    other["sidecar"]["Processing"]["Inversion"]["lambda_"] = 900.0
    text = methods_text([result, other])
    assert text.count("## Reconstruction") == 1
    assert "imaging frequency 123.26 ± 0.014 MHz" in text
    assert "lambda 600 to 900" in text
    other["sidecar"]["Processing"]["Inversion"]["method"] = "tkd"
    text = methods_text([result, other])
    assert text.count("## Reconstruction") == 2
    assert "## sub-01_run-1" in text and "## sub-02" in text


def test_what_only_some_maps_have_is_not_said_of_all(result):
    other = copy.deepcopy(result)
    other["sidecar"]["Processing"]["Inversion"]["csf_lambda"] = 100.0
    other["sidecar"]["PhaseScale"] = "0 to 4095 mean -pi to pi, declared by the user"
    text = methods_text([result, other])
    assert "merit yes; csf lambda 100)" in text
    assert "Phase values are radians, as the sidecars say or 0 to 4095 mean" in text
    assert "csf 1.2 ± 0.0 ppb (mean ± SD over 2 maps)" in text
    del other["sidecar"]["ReferenceStatistics"]
    assert "csf 1.2 ± 4.5 ppb (mean ± SD of the voxels)" in methods_text([result, other])


@pytest.mark.parametrize(
    "changes",
    [
        {"PhaseSign": -1},
        {"SusceptibilityReference": "csf"},
        {"Processing": {**PROCESSING, "PhaseCorrection": {"offset": "mcpc-3d-s"}}},
    ],
)
def test_maps_of_other_phase_or_zero_have_their_own_sentences(result, changes):
    other = copy.deepcopy(result)
    other["sidecar"] |= changes
    assert methods_text([result, other]).count("## Reconstruction") == 2


@pytest.mark.parametrize(
    ("told", "words", "absent"),
    [
        (
            {"Through": THROUGH_T1W, "MapToT1w": "precomputed", "ToTemplate": "precomputed"},
            ["The transform from the map to the T1-weighted image was taken from a derivative.",
             "Transforms between the T1-weighted image and the template were taken from"],
            "rigid",
        ),
        (
            {"Through": "transforms of the map itself", "ToTemplate": "precomputed"},
            ["Transforms between the map and the template were taken from a derivative."],
            "T1-weighted",
        ),
        (
            {"Through": THROUGH_T1W, "MapToT1w": "none: both images have one grid"},
            ["The map lies on the grid of the T1-weighted image, and was not registered to it."],
            "derivative",
        ),
    ],
)  # fmt: skip
def test_transforms_that_were_there_are_told_as_such(result, told, words, absent):
    changed = copy.deepcopy(result)
    changed["sidecar"]["Registration"] = {"Engine": "ants", **told}
    (paragraph,) = re.findall(r"## Registration\n\n(.*)", methods_text([changed]))
    for each in words:
        assert each in paragraph
    assert absent not in paragraph


def test_maps_of_other_programs_claim_no_reconstruction(result):
    imported = without(result, "Processing", "PhaseScale", *ACQUIRED)
    imported["sidecar"]["EstimationAlgorithm"] = "their own"
    imported["sidecar"]["MapGeneratedBy"] = ["QSMxT 6.4.2", "a_b"]
    text = methods_text([imported])
    assert "made by another program were used as they are" in text
    assert "Its sidecar names the algorithm their own. Its dataset names QSMxT 6.4.2, a_b." in text
    assert "MEDI" not in text


def test_only_what_all_echoes_say_alike_is_kept():
    sidecars = [{"FlipAngle": 15, "RepetitionTime": 0.04, "Manufacturer": "A"} for _ in range(3)]
    sidecars[1]["RepetitionTime"] = 0.05
    del sidecars[2]["Manufacturer"]
    assert acquisition_of(sidecars) == {"FlipAngle": 15}
    assert acquisition_of([]) == {}


@pytest.mark.parametrize("value", [float("nan"), 1e400, 10**400, {}, [[1]], "a\x1b[31m", "x" * 999])
def test_values_that_no_sidecar_should_have_are_left_out(value):
    for key in ACQUISITION_KEYS:
        assert acquisition_of([{key: value}]) == {}


def test_a_comparison_is_told_as_it_was_made():
    facts = {
        "groups": {"patient": 9, "control": 8},
        "n": 17,
        "test": "ancova",
        "covariates": ["age"],
        "family": "kind",
        "coverages": [[0, 0]],
    }
    told = " ".join(comparison_sentences("A", facts, {}))
    assert "17 participants (9 patient, 8 control)" in told
    assert "a linear model with covariates, adjusted for age" in told
    assert "Hotelling" not in told and "masks" not in told


def test_the_whole_mask_is_not_of_other_coverage():
    facts = {"n": 9, "coverages": [[0, 0], [0, 2], [4, 0]]}
    tables = {"survival": pd.DataFrame()}
    assert "under 2 masks of other coverage" in " ".join(comparison_sentences("A", facts, tables))


def test_a_reference_without_a_voxel_has_no_value():
    from bids_app.reporting import reference_values

    empty = {"csf": {"mean": None, "sd": None}, "wm": {"mean": 2.5, "sd": 1}, "brain": None}
    assert reference_values({"ReferenceStatistics": {"atlas-A": empty}}) == [("wm", 2.5, 1.0)]


def test_two_publications_in_one_bracket_are_two_references():
    text = "One [A et al. 2001, doi:1/a; B 2002, doi:1/b]. Other [B 2002, doi:1/b] [not a source]."
    assert _references(text) == ["A et al. 2001, doi:1/a", "B 2002, doi:1/b"]
    anchored = _references(sentence("echo_fit", "anchored"))
    assert [one.partition(" et al.")[0] for one in anchored] == ["Eckstein", "Liu"]
