"""Discovery: what is found, and the one sentence for each thing that is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_bids as tiny
from discovery import anat, only_problem

from qsmref import voxels
from qsmref.acquisition import imaging_frequency
from qsmref.inputs import Query, discover
from qsmref.metadata import read_sidecar
from qsmref.problems import DataError, ExitCode, Problem, exit_code
from qsmref.runs import EchoRun


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("raw") / "bids", ("01", "02"))


@pytest.fixture
def bids(dataset, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(dataset, tmp_path / "bids"))


@pytest.fixture
def regions(tmp_path):
    return tiny.make_regions(tmp_path / "regions", ("01", "02"))


def test_runs_of_a_good_dataset(dataset, regions):
    runs, problems = discover(dataset, Query(derivatives={"mine": regions}))
    assert problems == []
    assert [run.prefix for run in runs] == ["sub-01", "sub-02"]
    run = runs[0]
    assert isinstance(run, EchoRun)
    assert run.echo_times == pytest.approx(tiny.ECHO_TIMES)
    assert run.imaging_frequency == pytest.approx(3 * 42.577478518e6)
    assert run.voxel_size == pytest.approx((4, 4, 4))
    assert run.b0_direction == pytest.approx((0, 0, 1))
    assert run.mask.uri == "bids:mine:sub-01/anat/sub-01_desc-brain_mask.nii.gz"
    assert [r.atlas for r in run.regions] == ["mine"]
    assert run.sources[0] == "bids:raw:sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz"
    assert len(run.sources) == 7
    assert run.warnings == ()


def test_oblique_b0(tmp_path):
    bids = tmp_path / "bids"
    tiny.write_description(bids)
    tiny.write_echoes(bids, "01", oblique=30)
    (run,), problems = discover(bids, Query())
    assert not problems
    assert run.b0_direction == pytest.approx((0, 0.5, np.sqrt(0.75)))


def test_sessions_and_runs_are_kept_apart(tmp_path, regions):
    bids = tmp_path / "bids"
    tiny.write_description(bids)
    for session in ("a", "b"):
        tiny.write_echoes(bids, "01", entities=f"_ses-{session}_acq-hi_run-01")
        (bids / "sub-01" / f"ses-{session}").mkdir()
        (bids / "sub-01" / "anat").rename(bids / "sub-01" / f"ses-{session}" / "anat")
    runs, problems = discover(bids, Query(derivatives={"mine": regions}))
    assert not problems
    assert [r.prefix for r in runs] == ["sub-01_ses-a_acq-hi_run-01", "sub-01_ses-b_acq-hi_run-01"]
    # The mask of the participant as a whole fits every session of it.
    assert all(run.mask is not None for run in runs)
    runs, problems = discover(bids, Query(sessions=("b",)))
    assert [r.prefix for r in runs] == ["sub-01_ses-b_acq-hi_run-01"]
    runs, problems = discover(bids, Query(sessions=("c",)))
    assert not runs
    assert problems[0].code == ExitCode.NO_MATCH


def test_filter_file(bids, tmp_path):
    tiny.write_echoes(bids, "01", entities="_acq-lo")
    runs, _ = discover(bids, Query())
    assert [r.prefix for r in runs] == ["sub-01", "sub-01_acq-lo", "sub-02"]
    filters = tiny.write_json(tmp_path / "filter.json", {"megre": {"acq": "lo"}})
    runs, problems = discover(bids, Query(filter_file=filters))
    assert [r.prefix for r in runs] == ["sub-01_acq-lo"]
    assert problems[0].code == ExitCode.NO_MATCH
    filters = tiny.write_json(tmp_path / "filter.json", {"megre": {"acquisition": None}})
    runs, problems = discover(bids, Query(filter_file=filters))
    assert [r.prefix for r in runs] == ["sub-01", "sub-02"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "JSON"), ('{"bold": {}}', "unknown kind"), ("[]", "object of objects")],
)
def test_wrong_filter_file(dataset, tmp_path, content, words):
    (tmp_path / "filter.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        discover(dataset, Query(filter_file=tmp_path / "filter.json"))
    assert caught.value.code == ExitCode.USAGE


def test_labels_that_match_nothing(dataset):
    runs, problems = discover(dataset, Query(participants=("01", "77")))
    assert [r.subject for r in runs] == ["01"]
    assert "77 matches none of the 2 participants (01, 02)" in problems[0].sentence
    runs, problems = discover(dataset, Query(participants=("77",)))
    assert not runs
    assert exit_code(0, problems) == ExitCode.NO_MATCH


def test_empty_folder(tmp_path):
    runs, problems = discover(tmp_path, Query())
    assert not runs
    assert problems[0].code == ExitCode.NO_MATCH


def test_no_phase(bids):
    for path in anat(bids, "").parent.glob("*part-phase*"):
        path.unlink()
    problem = only_problem(bids)
    assert problem.code == ExitCode.MISSING_INPUT
    assert "no phase image (part-phase)" in problem.sentence


def test_magnitude_of_one_echo_without_phase(bids):
    anat(bids, "echo-2_part-phase_MEGRE.nii.gz").unlink()
    problem = only_problem(bids)
    assert problem.code == ExitCode.MISSING_INPUT
    assert "echo-2_part-mag_MEGRE.nii.gz has no phase image of echo 2" in problem.sentence


def test_phase_without_magnitude(bids):
    for path in anat(bids, "").parent.glob("*part-mag*"):
        path.unlink()
    assert "no magnitude image" in only_problem(bids).sentence


def test_no_gradient_echo_data_at_all(bids):
    shutil.rmtree(bids / "sub-01" / "anat")
    problem = only_problem(bids)
    assert problem.code == ExitCode.MISSING_INPUT
    assert "no multi-echo gradient-echo data" in problem.sentence


def test_other_shape(bids):
    path = anat(bids, "echo-2_part-phase_MEGRE.nii.gz")
    tiny.write_image(path, np.zeros((24, 26, 21), np.float32))
    problem = only_problem(bids)
    assert problem.code == ExitCode.BAD_DATA
    assert "shape (24, 26, 21) and not (24, 26, 22)" in problem.sentence
    assert path.name in problem.sentence


def test_other_affine(bids):
    path = anat(bids, "echo-2_part-phase_MEGRE.nii.gz")
    moved = tiny.affine()
    moved[0, 3] += 1
    tiny.write_image(path, np.zeros(tiny.SHAPE, np.float32), moved)
    assert "another affine" in only_problem(bids).sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"EchoTime": None}, "has no EchoTime"),
        ({"EchoTime": 10.0}, "looks like milliseconds"),
        ({"EchoTime": "0.01"}, "must be a number in seconds"),
        ({"EchoTime": -0.01}, "cannot be"),
        ({"EchoTime": 0.004}, "is not later than that of the echo before it"),
        ({"EchoTime": 0.005}, "is not later than that of the echo before it"),
    ],
)
def test_echo_times(bids, changes, words):
    for part in ("mag", "phase"):
        tiny.edit_json(anat(bids, f"echo-2_part-{part}_MEGRE.json"), **changes)
    problem = only_problem(bids)
    assert problem.code == ExitCode.BAD_DATA
    assert words in problem.sentence
    assert "echo-2" in problem.sentence


def test_echo_times_that_contradict(bids):
    tiny.edit_json(anat(bids, "echo-2_part-mag_MEGRE.json"), EchoTime=0.011)
    assert "for the magnitude of the same echo" in only_problem(bids).sentence


def test_echo_time_of_one_part_is_enough(bids):
    tiny.edit_json(anat(bids, "echo-2_part-mag_MEGRE.json"), EchoTime=None)
    runs, problems = discover(bids, Query())
    assert not problems
    assert runs[0].echo_times[1] == pytest.approx(0.010)


def spoil_scale(bids: Path, units: str | None) -> None:
    for echo in (1, 2, 3):
        stem = f"echo-{echo}_part-phase_MEGRE"
        phase = voxels.read(anat(bids, f"{stem}.nii.gz"))
        stored = np.round(phase / np.pi * 4095).astype(np.int16)
        stored[0, 0, :2] = (-4096, 4094)
        tiny.write_image(anat(bids, f"{stem}.nii.gz"), stored)
        tiny.edit_json(anat(bids, f"{stem}.json"), Units=units)


@pytest.mark.parametrize("units", [None, "arbitrary"])
def test_phase_of_unknown_scale_names_span_and_option(bids, units):
    spoil_scale(bids, units)
    problem = only_problem(bids)
    assert problem.code == ExitCode.BAD_DATA
    assert "stored values run from -4096 to 4094" in problem.sentence
    assert "--phase-range LOW HIGH" in problem.sentence
    assert "--phase-units rad" in problem.sentence
    runs, problems = discover(bids, Query(phase_range=(-4096, 4096)))
    assert not problems
    assert (runs[0].phase_scale.low, runs[0].phase_scale.high) == (-4096, 4096)
    runs, problems = discover(bids, Query(phase_units="rad"))
    assert not problems
    assert runs[0].phase_scale.low is None


def test_field_strength(bids):
    for path in anat(bids, "").parent.glob("*.json"):
        tiny.edit_json(path, MagneticFieldStrength=None)
    assert "neither ImagingFrequency" in only_problem(bids).sentence


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ImagingFrequency": 123.2e6}, "looks like Hz"),
        ({"ImagingFrequency": 123.2, "MagneticFieldStrength": 7}, "does not go with"),
        ({"MagneticFieldStrength": 30000}, "not a number of tesla"),
        ({"ImagingFrequency": "123"}, "must be a number"),
    ],
)
def test_wrong_frequency(dataset, metadata, words):
    source = discover(dataset, Query())[0][0].phase[0]
    with pytest.raises(DataError, match=words):
        imaging_frequency([(source, metadata)])


def test_imaging_frequency_goes_before_nominal_strength(dataset):
    source = discover(dataset, Query())[0][0].phase[0]
    siemens = {"ImagingFrequency": 123.25, "MagneticFieldStrength": 3}
    assert imaging_frequency([(source, siemens)]) == pytest.approx(123.25e6)


def test_single_echo_warns(bids):
    for echo in (2, 3):
        for path in anat(bids, "").parent.glob(f"*echo-{echo}_*"):
            path.unlink()
    runs, problems = discover(bids, Query())
    assert not problems
    assert "phase offset stays in the field" in " ".join(runs[0].warnings)


def test_alternating_readouts_that_stay_in_the_field_are_warned_of(bids):
    for path in anat(bids, "").parent.glob("*.json"):
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        tiny.write_json(path, {**sidecar, "BipolarReadout": True})
    told = [
        " ".join(run.warnings)
        for corrected in (False, True)
        for run in discover(bids, Query(bipolar=corrected))[0]
        if run.subject == "01"
    ]
    assert "alternating directions (BipolarReadout)" in told[0]
    assert "give --bipolar" in told[0]
    assert "alternating" not in told[1]
    for path in anat(bids, "").parent.glob("*echo-3_*"):
        path.unlink()
    (two,) = [run for run in discover(bids, Query())[0] if run.subject == "01"]
    assert "two echoes cannot tell it" in " ".join(two.warnings)


def test_missing_echo_warns(bids):
    for path in anat(bids, "").parent.glob("*echo-2_*"):
        path.unlink()
    runs, problems = discover(bids, Query())
    assert not problems
    assert "sub-01 has the echoes 1, 3 only." in runs[0].warnings
    assert runs[0].echo_times == pytest.approx((0.005, 0.015))


def test_derivative_without_a_description(bids, regions):
    (regions / "dataset_description.json").unlink()
    runs, problems = discover(bids, Query(derivatives={"mine": regions}))
    assert not problems
    assert runs[0].mask is not None


@pytest.mark.parametrize("told", [{"Name": "QSMxT"}, "QSMxT", [None]])
def test_derivative_whose_programs_are_no_list(bids, regions, told):
    tiny.edit_json(regions / "dataset_description.json", GeneratedBy=told)
    with pytest.raises(DataError, match="GeneratedBy is .*, and BIDS has a list there") as error:
        discover(bids, Query(derivatives={"mine": regions}))
    assert error.value.code == ExitCode.BAD_DATA


def test_maps_without_a_description(regions):
    chi = regions / "sub-01/anat/sub-01_Chimap.nii.gz"
    shutil.copy(next((regions / "sub-01/anat").glob("*mask.nii.gz")), chi)
    (regions / "dataset_description.json").unlink()
    _, problems = discover(regions, Query())
    assert 'must have "DatasetType": "derivative"' in problems[0].sentence
    assert problems[0].code == ExitCode.MISSING_INPUT


def test_broken_sidecar(bids):
    anat(bids, "echo-1_part-mag_MEGRE.json").write_text('{"EchoTime": ')
    problem = only_problem(bids)
    assert "cannot be read as JSON" in problem.sentence


def test_sidecars_are_inherited(bids):
    for path in bids.glob("sub-*/anat/*part-phase*.json"):
        tiny.edit_json(path, Units=None)
    tiny.write_json(bids / "part-phase_MEGRE.json", {"Units": "rad"})
    runs, problems = discover(bids, Query())
    assert not problems
    image = anat(bids, "echo-1_part-phase_MEGRE.nii.gz")
    assert read_sidecar(image, bids)["Units"] == "rad"
    assert "Units" not in read_sidecar(anat(bids, "echo-1_part-mag_MEGRE.nii.gz"), bids)


def test_header_that_is_no_image(bids):
    anat(bids, "echo-1_part-mag_MEGRE.nii.gz").write_bytes(b"not an image")
    problem = only_problem(bids)
    assert "damaged or cut short" in problem.sentence


# --- problems ------------------------------------------------------------------------------------


def test_exit_codes():
    bad = Problem("01", "x", ExitCode.BAD_DATA)
    missing = Problem("02", "x", ExitCode.MISSING_INPUT)
    internal = Problem("03", "x", ExitCode.INTERNAL)
    assert exit_code(2, []) == ExitCode.OK
    assert exit_code(1, [bad]) == ExitCode.SOME_FAILED
    assert exit_code(0, [missing]) == ExitCode.MISSING_INPUT
    assert exit_code(0, [bad, missing]) == ExitCode.BAD_DATA
    assert exit_code(0, [bad, missing, internal]) == ExitCode.INTERNAL
    assert exit_code(0, []) == ExitCode.NO_MATCH


def test_problem_survives_json():
    problem = Problem("01", "x", ExitCode.MISSING_INPUT, "unwrap", "sub-01_run-1")
    assert Problem.from_dict(problem.as_dict()) == problem
