"""The command line on bad input: one sentence, the right exit code, and the others go on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import Runner, regions

from qsmref import images
from qsmref.problems import ExitCode


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    tiny.make_dataset(root / "bids", ("01", "02"))
    tiny.make_regions(root / "regions", ("01", "02"))
    return root


@pytest.fixture
def data(dataset, tmp_path):
    """A copy that a test may spoil."""
    return Path(shutil.copytree(dataset, tmp_path / "data"))


@pytest.fixture
def run(tmp_path, capfd):
    """Run the command line in this process."""
    return Runner(tmp_path, capfd)


def anat(root: Path, name: str, label: str = "01") -> Path:
    return root / "bids" / f"sub-{label}" / "anat" / f"sub-{label}_{name}"


def spoil_nan(root, label):
    path = anat(root, "echo-2_part-phase_MEGRE.nii.gz", label)
    array, image = images.load(path)
    array[2, 2, 2:5] = (np.nan, np.inf, -np.inf)
    images.save(array, path, image)


def spoil_truncated(root, label):
    path = anat(root, "echo-3_part-mag_MEGRE.nii.gz", label)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_constant(root, label):
    path = anat(root, "echo-1_part-mag_MEGRE.nii.gz", label)
    tiny.write_image(path, np.zeros(tiny.SHAPE, np.float32))


def spoil_mask(root, label):
    path = root / f"regions/sub-{label}/anat/sub-{label}_desc-brain_mask.nii.gz"
    tiny.write_image(path, np.zeros(tiny.SHAPE, np.uint8))


def spoil_names(root, label):
    table = root / f"regions/sub-{label}/anat/sub-{label}_dseg.tsv"
    table.write_text("index\tname\n1\tSN_L\n2\tCN\n")


def spoil_units(root, label):
    path = anat(root, "echo-1_part-phase_MEGRE.nii.gz", label)
    tiny.write_image(path, np.linspace(-4096, 4095, np.prod(tiny.SHAPE)).reshape(tiny.SHAPE))


def spoil_echo_time(root, label):
    for part in ("mag", "phase"):
        tiny.edit_json(anat(root, f"echo-2_part-{part}_MEGRE.json", label), EchoTime=9.4)


def spoil_phase(root, label):
    for path in anat(root, "", label).parent.glob("*part-phase*"):
        path.unlink()


#: By participant: what is wrong, words of the sentence, the step, and the code.
BAD = {
    "01": (
        spoil_nan,
        "echo-2_part-phase_MEGRE.nii.gz has 3 voxels that are NaN",
        "load echoes",
        65,
    ),
    "02": (spoil_truncated, "echo-3_part-mag_MEGRE.nii.gz is damaged or cut", "load echoes", 65),
    "03": (spoil_constant, "echo-1_part-mag_MEGRE.nii.gz is 0 in every voxel", "load echoes", 65),
    "04": (spoil_units, "Units says rad, but the stored values run from -4096", "load echoes", 65),
    "05": (spoil_mask, "sub-05_desc-brain_mask.nii.gz is empty", "brain mask", 65),
    "06": (spoil_names, "labels without a name in sub-06_dseg.tsv: 3", "load labels", 65),
    "07": (spoil_echo_time, "looks like milliseconds", "input", 65),
    "08": (spoil_phase, "has no phase image", "input", 66),
}


def test_bad_input_is_one_sentence_each_and_the_others_go_on(tmp_path, run):
    labels = [*BAD, "09"]
    tiny.make_dataset(tmp_path / "bids", labels)
    tiny.make_regions(tmp_path / "regions", labels)
    for label, (spoil, *_) in BAD.items():
        spoil(tmp_path, label)
    done = run(tmp_path / "bids", *regions(tmp_path))
    assert done.code == ExitCode.SOME_FAILED
    failed = ", ".join(f"sub-{label}: {step}" for label, (_, _, step, _) in BAD.items())
    # Those that are found before anything runs come first.
    told = done.last.split("(")[1].split(")")[0].split(", ")
    assert sorted(told) == failed.split(", ")
    assert done.last.startswith("qsmref: 1 of 9 participants finished; 8 failed (")
    assert done.status.loc["sub-09", "status"] == "completed"
    for label, (_, words, step, _) in BAD.items():
        row = done.status.loc[f"sub-{label}"]
        assert words in done.err
        assert words in row.reason
        assert row.step == step
        assert row.status == ("skipped" if step == "input" else "failed")
        page = (done.output_dir / f"sub-{label}.html").read_text(encoding="utf-8")
        assert words in page


@pytest.mark.parametrize("label", ["01", "05", "08"])
def test_bad_input_alone_gives_the_code_of_its_problem(tmp_path, run, label):
    tiny.make_dataset(tmp_path / "bids", [label])
    tiny.make_regions(tmp_path / "regions", [label])
    spoil, words, _, code = BAD[label]
    spoil(tmp_path, label)
    done = run(tmp_path / "bids", *regions(tmp_path))
    assert done.code == code
    assert words in done.err


def test_declared_range_of_the_phase(data, run):
    for echo in (1, 2, 3):
        stem = f"echo-{echo}_part-phase_MEGRE"
        phase, image = images.load(anat(data, f"{stem}.nii.gz"))
        stored = np.round((phase / np.pi + 1) * 2048).astype(np.int16)
        images.save(stored, anat(data, f"{stem}.nii.gz"), image)
        tiny.edit_json(anat(data, f"{stem}.json"), Units="arbitrary")
    label = ["--participant-label", "01", *regions(data)]
    done = run(data / "bids", *label)
    assert done.code == ExitCode.BAD_DATA
    assert "--phase-range LOW HIGH" in done.err
    done = run(data / "bids", *label, "--phase-range", "0", "4096")
    assert done.code == ExitCode.OK
    name = "sub-01/anat/sub-01_atlas-mine_desc-differential_Chimap.tsv"
    pair = pd.read_csv(done.output_dir / name, sep="\t").iloc[0]
    assert (pair.region, pair.reference) == ("SN_L", "CN")
    assert 25 < pair.difference < 60
    # The wrong range is told by the values outside it.
    done = run(data / "bids", *label, "--phase-range", "-2048", "2048")
    assert done.code == ExitCode.BAD_DATA
    assert "outside the phase range" in done.err


def test_single_echo(data, run):
    for echo in (2, 3):
        for path in (data / "bids").rglob(f"*echo-{echo}_*"):
            path.unlink()
    done = run(data / "bids", *regions(data), "--participant-label", "01")
    assert done.code == ExitCode.OK
    assert "the receiver's phase offset stays in the field" in done.err
    assert "offset stays in the field" in done.status.loc["sub-01", "warnings"]


def test_filters_that_match_nothing(data, run):
    done = run(data / "bids", "--participant-label", "77")
    assert done.code == ExitCode.NO_MATCH
    assert "matches none of the 2 participants" in done.err
    done = run(data / "bids", "--session-label", "x")
    assert done.code == ExitCode.NO_MATCH


def test_results_that_cannot_be_written(dataset, tmp_path, run):
    (tmp_path / "out").write_text("a file where a folder should be")
    done = run(dataset / "bids")
    assert done.code == ExitCode.CANNOT_CREATE
    assert "cannot be written" in done.last


def test_read_only_dataset(data, run):
    for path in (data / "bids").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (data / "bids").chmod(0o555)
    try:
        done = run(data / "bids", *regions(data), "--participant-label", "01")
    finally:
        for path in [data / "bids", *(data / "bids").rglob("*")]:
            path.chmod(0o755)
    assert done.code == ExitCode.OK


def test_dataset_that_fails_validation(data, run):
    description = data / "bids" / "dataset_description.json"
    tiny.write_json(description, {"BIDSVersion": "1.10.0"})
    done = run(data / "bids", *regions(data), validation=True)
    assert done.code == ExitCode.INVALID_DATASET
    assert "dataset_description.json" in done.err
    assert "--skip-bids-validation" in done.last
    done = run(data / "bids", *regions(data), "--participant-label", "01")
    assert done.code == ExitCode.OK


def test_errors_of_one_participant_do_not_hold_up_the_others(data, run):
    tiny.edit_json(anat(data, "echo-2_part-phase_MEGRE.json"), EchoTime=None)
    tiny.edit_json(anat(data, "echo-2_part-mag_MEGRE.json"), EchoTime=None)
    done = run(data / "bids", *regions(data), validation=True)
    assert done.code == ExitCode.SOME_FAILED
    assert "warning: bids-validator: /sub-01/" in done.err
    assert "has no EchoTime" in done.err


def test_stop_on_first_crash(data, run):
    spoil_nan(data, "01")
    done = run(data / "bids", *regions(data), "--stop-on-first-crash")
    assert done.code == ExitCode.BAD_DATA
    assert done.last.startswith("qsmref: 0 of 2 participants finished; 2 failed")
    assert "not done, since the graph stopped: " in done.status.loc["sub-02", "reason"]
    assert "NaN or infinite" in done.status.loc["sub-02", "reason"]
