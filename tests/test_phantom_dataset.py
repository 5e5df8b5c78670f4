"""Datasets of the phantom: BIDS, truth, cohorts, same seed same bytes."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from qsmref.phantom.cohort import draw_participants, participant_head
from qsmref.phantom.dataset import region_names, write_dataset
from qsmref.phantom.grid import ParameterError
from qsmref.phantom.head import Head, read_regions
from qsmref.problems import DataError, ExitCode

SMALL = dict(matrix=(40, 48, 40), voxel_size=(5.0, 4.5, 5.0), echo_times=(0.004, 0.009))


def load(path):
    return np.asarray(nib.load(path).dataobj)


def sidecar(path):
    return json.loads(Path(path).read_text())


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    out = tmp_path_factory.mktemp("single") / "ds"
    write_dataset(out, seed=2, oblique=12, field_strength=2.89, **SMALL)
    return out


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort") / "ds"
    write_dataset(
        out, participants=4, groups=("patient", "control"), effect_ppb={"SN": 25}, **SMALL
    )
    return out


def test_raw_files_and_sidecars(single):
    anat = single / "sub-01" / "anat"
    names = {p.name for p in anat.iterdir()}
    expected = {
        f"sub-01_echo-{n}_part-{part}_MEGRE.{ext}"
        for n in (1, 2) for part in ("mag", "phase") for ext in ("nii.gz", "json")
    } | {"sub-01_T1w.nii.gz", "sub-01_T1w.json"}  # fmt: skip
    assert names == expected
    phase = sidecar(anat / "sub-01_echo-2_part-phase_MEGRE.json")
    assert phase["Units"] == "rad" and phase["EchoTime"] == 0.009 and phase["EchoNumber"] == 2
    assert phase["MagneticFieldStrength"] == 2.89
    assert phase["ImagingFrequency"] == pytest.approx(42.577478518 * 2.89, abs=1e-6)
    assert "Units" not in sidecar(anat / "sub-01_echo-2_part-mag_MEGRE.json")
    image = nib.load(anat / "sub-01_echo-1_part-phase_MEGRE.nii.gz")
    assert image.get_data_dtype() == np.float32
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    data = np.asarray(image.dataobj)
    assert -3.2 < data.min() < -3 and 3 < data.max() < 3.2
    np.testing.assert_allclose(
        np.linalg.norm(image.affine[:3, :3], axis=0), (5.0, 4.5, 5.0), rtol=1e-6
    )
    description = sidecar(single / "dataset_description.json")
    assert description["DatasetType"] == "raw" and description["BIDSVersion"] == "1.10.0"
    assert description["GeneratedBy"][0]["Name"] == "qsmref-phantom"


def test_truth_agrees_with_the_raw_data(single):
    truth = single / "derivatives" / "truth"
    assert sidecar(truth / "dataset_description.json")["DatasetType"] == "derivative"
    subject = truth / "sub-01"
    chi = load(subject / "anat/sub-01_desc-truth_Chimap.nii.gz")
    assert sidecar(subject / "anat/sub-01_desc-truth_Chimap.json")["SkullStripped"] is False
    mask = load(subject / "anat/sub-01_desc-brain_mask.nii.gz") > 0
    labels = load(subject / "anat/sub-01_dseg.nii.gz")
    total = load(subject / "fmap/sub-01_desc-total_fieldmap.nii.gz")
    local = load(subject / "fmap/sub-01_desc-local_fieldmap.nii.gz")
    assert sidecar(subject / "fmap/sub-01_desc-local_fieldmap.json")["Units"] == "Hz"
    table = pd.read_csv(subject / "anat/sub-01_dseg.tsv", sep="\t", keep_default_na=False)
    assert table["name"].is_unique
    assert {"SN_L", "SN_R", "CSF_P", "WM"} <= set(table["name"])
    assert set(np.unique(labels)) - {0} <= set(table["index"])
    assert not labels[~mask].any() and (labels[mask] > 0).all()
    for row in table.to_dict("records"):
        inside = chi[labels == row["index"]]
        if len(inside) > 30:
            assert inside.mean() == pytest.approx(row["susceptibility_ppm"], abs=0.015)
    # The raw phase grows by the total field: two echoes 5 ms apart.
    anat = single / "sub-01" / "anat"
    one, two = (load(anat / f"sub-01_echo-{n}_part-phase_MEGRE.nii.gz") for n in (1, 2))
    step = np.angle(np.exp(1j * (two - one)))
    expected = 2 * np.pi * total * 0.005
    few = mask & (np.abs(expected) < 2.5)
    assert np.median(np.abs(step - expected)[few]) < 0.03
    assert np.corrcoef(step[few], expected[few])[0, 1] > 0.98
    assert 1 < local[mask].std() < 10


def test_one_participant_has_the_default_head(single):
    head = Head()
    grid = head.grid(SMALL["matrix"], SMALL["voxel_size"])
    labels = head.labels(*grid.axes())
    brain = head.brain(labels, grid.axes())
    written = load(single / "derivatives/truth/sub-01/anat/sub-01_dseg.nii.gz")
    np.testing.assert_array_equal(written, np.where(brain, labels, 0))


def test_cohort_tables(cohort):
    table = pd.read_csv(cohort / "participants.tsv", sep="\t")
    assert list(table) == ["participant_id", "group", "age", "sex"]
    assert list(table["participant_id"]) == [f"sub-0{n}" for n in range(1, 5)]
    assert list(table["group"]) == ["patient", "control"] * 2
    assert table["age"].between(40, 85).all() and set(table["sex"]) <= {"F", "M"}
    columns = sidecar(cohort / "participants.json")
    assert set(columns) == set(table) and set(columns["group"]["Levels"]) == {"patient", "control"}


def test_participants_of_a_cohort_differ_in_shape_and_susceptibility(cohort):
    truth = cohort / "derivatives" / "truth"
    dseg = [load(truth / f"sub-0{n}/anat/sub-0{n}_dseg.nii.gz") for n in range(1, 5)]
    assert len({d.tobytes() for d in dseg}) == 4
    tables = [
        pd.read_csv(truth / f"sub-0{n}/anat/sub-0{n}_dseg.tsv", sep="\t") for n in range(1, 5)
    ]
    values = np.array([t.set_index("name").loc["PU_L", "susceptibility_ppm"] for t in tables])
    assert len(set(values)) == 4 and np.all(np.abs(values - 0.07) < 0.05)


def test_effect_is_added_in_the_first_group_and_nowhere_else():
    people = draw_participants(6, ["patient", "control"], seed=1)
    with_effect, without = (
        [participant_head(Head(), p, 1.0, e if p.group == "patient" else None) for p in people]
        for e in ({"SN": 25.0, "PU": -4.0}, None)
    )
    for person, a, b in zip(people, with_effect, without, strict=True):
        for x, y in zip(a.regions, b.regions, strict=True):
            shift = {"SN": 0.025, "PU": -0.004}.get(x.name, 0.0) * (person.group == "patient")
            assert x.susceptibility_ppm - y.susceptibility_ppm == pytest.approx(shift, abs=1e-9)


def test_effect_reaches_the_written_truth(cohort, tmp_path):
    write_dataset(tmp_path / "null", participants=2, groups=("patient", "control"), **SMALL)
    for label, expected in (("01", 0.025), ("02", 0.0)):
        name = f"derivatives/truth/sub-{label}/anat/sub-{label}_desc-truth_Chimap.nii.gz"
        dseg = load(cohort / f"derivatives/truth/sub-{label}/anat/sub-{label}_dseg.nii.gz")
        change = load(cohort / name) - load(tmp_path / "null" / name)
        inside = np.isin(dseg, [31, 32])
        # Texture is a fraction of the susceptibility, so it grows with it.
        assert change[inside].mean() == pytest.approx(expected, abs=0.003)
        np.testing.assert_allclose(change[~inside], 0, atol=1e-6)


def test_same_seed_same_bytes_and_a_longer_cohort_starts_the_same(cohort, tmp_path):
    options = dict(groups=("patient", "control"), effect_ppb={"SN": 25}, variation=1.0, **SMALL)
    write_dataset(tmp_path / "two", participants=2, **options)
    for path in sorted((tmp_path / "two").rglob("*")):
        relative = path.relative_to(tmp_path / "two")
        if path.is_file() and relative.parts[0] != "participants.tsv":
            assert path.read_bytes() == (cohort / relative).read_bytes(), relative
    assert (
        (cohort / "participants.tsv")
        .read_text()
        .startswith((tmp_path / "two" / "participants.tsv").read_text())
    )
    write_dataset(tmp_path / "other", participants=1, seed=9, **options)
    name = "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz"
    assert (tmp_path / "other" / name).read_bytes() != (cohort / name).read_bytes()


def test_groups_are_balanced_and_alike():
    people = pd.DataFrame(draw_participants(201, ["a", "b", "c"], seed=0))
    assert people["group"].value_counts().tolist() == [67, 67, 67]
    assert people["age"].mean() == pytest.approx(62, abs=2)
    assert 0.4 < (people["sex"] == "F").mean() < 0.6
    assert people["label"].iloc[0] == "001" and people["seed"].is_unique


def test_region_names_are_unique_and_say_the_side():
    table = region_names(read_regions())
    assert table["name"].is_unique and table["index"].is_unique
    row = table.set_index("name").loc["GP_R"]
    assert (row["hemisphere"], row["abbreviation"], row["index"]) == ("R", "GP", 26)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(DataError) as caught:
            write_dataset(tmp_path, overwrite=overwrite, **SMALL)
        assert caught.value.code == ExitCode.CANNOT_CREATE
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_overwrite_replaces_the_dataset_and_keeps_other_derivatives(tmp_path):
    tiny = dict(matrix=(24, 28, 24), voxel_size=(8.0,) * 3, echo_times=(0.004, 0.008))
    write_dataset(tmp_path / "ds", participants=2, **tiny)
    kept = tmp_path / "ds" / "derivatives" / "qsmref" / "note.txt"
    kept.parent.mkdir()
    kept.write_text("keep")
    with pytest.raises(DataError, match="--overwrite"):
        write_dataset(tmp_path / "ds", **tiny)
    write_dataset(tmp_path / "ds", overwrite=True, **{**tiny, "echo_times": (0.005,)})
    assert kept.read_text() == "keep"
    assert not (tmp_path / "ds" / "sub-02").exists()
    assert len(list((tmp_path / "ds" / "sub-01" / "anat").glob("*_MEGRE.nii.gz"))) == 2
    assert len(list((tmp_path / "ds" / "derivatives" / "truth").glob("sub-*"))) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"participants": 0}, "at least 1"),
        ({"groups": ("a", "a")}, "must differ"),
        ({"effect_ppb": {"XX": 25}}, "region 'XX'"),
        ({"effect_ppb": {"SN": float("nan")}}, "must be a number"),
    ],
)
def test_bad_cohorts_are_refused_before_anything_is_written(tmp_path, options, sentence):
    with pytest.raises(ParameterError, match=sentence):
        write_dataset(tmp_path / "ds", **options, **SMALL)
    assert not (tmp_path / "ds").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("bids_validator_deno") is None,
    reason="bids-validator-deno is not installed",
)
@pytest.mark.parametrize("part", [".", "derivatives/truth"])
@pytest.mark.parametrize("dataset", ["single", "cohort"])
def test_bids_validator_finds_no_error(request, dataset, part):
    root = request.getfixturevalue(dataset)
    beside = Path(sys.executable).parent / "bids-validator-deno"
    program = str(beside) if beside.exists() else shutil.which("bids-validator-deno")
    result = subprocess.run(
        [program, str(root / part), "--format", "json"], capture_output=True, text=True
    )
    issues = json.loads(result.stdout)["issues"]["issues"]
    errors = [i for i in issues if i["severity"] == "error"]
    assert result.returncode == 0 and not errors, errors
