"""All echoes of a part in one file, with a list of echo times: the map is that of single files."""

from __future__ import annotations

import json
import random
import re

import app_runner
import fuzz_harness
import fuzz_images
import fuzz_mutations
import nibabel as nib
import numpy as np
import pytest
import tiny_bids as tiny

from qsmref import voxels
from qsmref.headers import Grid
from qsmref.inputs import Query, discover
from qsmref.problems import DataError, ExitCode


@pytest.fixture
def bids(tmp_path):
    root = tiny.make_dataset(tmp_path / "bids", oblique=10.0)
    tiny.join_echoes(root / "sub-01" / "anat")
    return root


def path_of(bids, part, end):
    return bids / "sub-01" / "anat" / f"sub-01_part-{part}_MEGRE.{end}"


def sentence(bids) -> str:
    """The one problem of the dataset."""
    runs, problems = discover(bids, Query())
    assert not runs
    assert len(problems) == 1
    return problems[0].sentence


def test_the_run_is_that_of_single_files(bids, tmp_path):
    runs, problems = discover(bids, Query())
    assert problems == []
    single, _ = discover(tiny.make_dataset(tmp_path / "single", oblique=10.0), Query())
    run, other = runs[0], single[0]
    assert run.echo_times == other.echo_times
    assert run.imaging_frequency == other.imaging_frequency
    assert run.grid.same_as(other.grid)
    assert run.warnings == other.warnings
    assert run.magnitude_files == [str(path_of(bids, "mag", "nii.gz"))]
    assert run.sources == [
        f"bids:raw:sub-01/anat/sub-01_part-{part}_MEGRE.nii.gz" for part in ("mag", "phase")
    ]
    for read, mine, theirs in (
        (voxels.read_magnitude, run.magnitude_files, other.magnitude_files),
        (lambda p: voxels.read_phase(p, None, None, False), run.phase_files, other.phase_files),
    ):
        np.testing.assert_array_equal(read(mine), read(theirs))


def test_the_whole_command(tmp_path, capsys):
    outputs, shown = [], []
    for kind in ("single", "joined"):
        root = tmp_path / kind
        tiny.make_dataset(root / "bids")
        tiny.make_regions(root / "regions")
        if kind == "joined":
            tiny.join_echoes(root / "bids" / "sub-01" / "anat", "T2starw")
        run = app_runner.Runner(root, capsys)
        done = run(root / "bids", *app_runner.regions(root), validation=kind == "joined")
        assert done.code == 0, done.err
        # BIDS wants echo- in the name of a MEGRE, but not in that of a T2starw.
        assert "bids-validator" not in done.err
        outputs.append(done.output_dir / "sub-01" / "anat")
        page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
        shown.append(re.findall(r'<img src="([^"]+)"[^>]*alt="[^"]*Wrapped phase of the', page))
    assert shown[0] == shown[1] and len(set(shown[0])) == 6
    single, joined = outputs
    names = sorted(path.name for path in single.iterdir())
    assert names == sorted(path.name for path in joined.iterdir())
    for name in names:
        if not name.endswith(".json"):
            assert (single / name).read_bytes() == (joined / name).read_bytes(), name
    chimap = json.loads((joined / "sub-01_desc-unreferenced_Chimap.json").read_text())
    assert chimap["EchoTime"] == list(tiny.ECHO_TIMES)
    assert chimap["Sources"][:2] == [
        f"bids:raw:sub-01/anat/sub-01_part-{part}_T2starw.nii.gz" for part in ("mag", "phase")
    ]


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (0.005, "has 3 volumes, and EchoTime is 0.005; for echoes in one file it must be a list"),
        ([0.005, 0.01], "a list of 3 numbers in seconds"),
        ([0.005, 0.01, 0.015, 0.02], "has 3 volumes"),
        ([0.005, 0.015, 0.01], "is not later than that of the echo before it"),
        ([5, 10, 15], "looks like milliseconds"),
        ([0.005, "0.01", 0.015], "must be a number in seconds"),
        ([0.005, None, 0.015], "it must be a list of 3 numbers"),
    ],
)
def test_lists_of_echo_times(bids, times, words):
    for part in ("mag", "phase"):
        tiny.edit_json(path_of(bids, part, "json"), EchoTime=times)
    assert words in sentence(bids)


def test_lists_that_contradict(bids):
    tiny.edit_json(path_of(bids, "phase", "json"), EchoTime=[0.005, 0.015, 0.01])
    assert "but 0.01 s for the magnitude of the same echo" in sentence(bids)


def test_times_of_one_part_are_enough(bids):
    tiny.edit_json(path_of(bids, "mag", "json"), EchoTime=None)
    runs, problems = discover(bids, Query())
    assert problems == []
    assert runs[0].echo_times == tiny.ECHO_TIMES
    tiny.edit_json(path_of(bids, "phase", "json"), EchoTime=None)
    assert "has no EchoTime in its sidecar" in sentence(bids)


def test_phase_in_one_file_and_magnitude_in_three(tmp_path):
    root = tiny.make_dataset(tmp_path / "bids")
    other = tiny.make_dataset(tmp_path / "other")
    tiny.join_echoes(other / "sub-01" / "anat")
    for path in (root / "sub-01" / "anat").glob("*part-phase*"):
        path.unlink()
    for path in (other / "sub-01" / "anat").glob("*part-phase*"):
        path.rename(root / "sub-01" / "anat" / path.name)
    runs, problems = discover(root, Query())
    assert problems == []
    assert (len(runs[0].magnitude_files), len(runs[0].phase_files)) == (3, 1)


def test_parts_of_different_length(bids):
    fuzz_images.rewrite(path_of(bids, "phase", "nii.gz"), lambda a: a[..., :2])
    assert "no phase image of echo 3" in sentence(bids)


def test_a_name_that_says_one_echo(bids):
    for end in ("nii.gz", "json"):
        path = path_of(bids, "mag", end)
        path.rename(path.with_name(path.name.replace("_part", "_echo-1_part")))
    assert "has 4 dimensions (24, 26, 22, 3), and must have 3" in sentence(bids)


def test_five_dimensions(bids):
    fuzz_images.rewrite(path_of(bids, "mag", "nii.gz"), lambda a: np.stack([a, a], axis=-1))
    assert "has 5 dimensions" in sentence(bids)


def test_only_echoes_may_be_several(tmp_path):
    path = tiny.write_image(tmp_path / "a.nii.gz", np.ones((3, 4, 5, 2), np.float32))
    with pytest.raises(DataError, match="has 4 dimensions") as raised:
        voxels.read(path)
    assert raised.value.code == ExitCode.BAD_DATA
    grid = Grid.of(path, several=True)
    assert (grid.shape, grid.volumes) == ((3, 4, 5), 2)


def test_each_volume_is_checked(bids):
    path = path_of(bids, "mag", "nii.gz")
    image = nib.load(path)
    good = np.asarray(image.dataobj)
    array = good.copy()
    array[..., 1] = 7
    tiny.write_image(path, array, image.affine)
    with pytest.raises(DataError, match="is 7 in every voxel"):
        voxels.read_magnitude([path])
    array[..., 1] = -good[..., 1]
    tiny.write_image(path, array, image.affine)
    with pytest.raises(DataError, match="a magnitude is not negative"):
        voxels.read_magnitude([path])


def test_spoiled(tmp_path):
    mutations = {fuzz_mutations.joined_same: 4, fuzz_mutations.joined_wrong: 26}
    cases = [
        fuzz_harness.Case("joined", mutation, random.Random(k).randrange(10**9))
        for mutation, count in mutations.items()
        for k in range(count)
    ]
    verdicts = fuzz_harness.Sandbox(tmp_path).judge(cases, quick=True)
    wrong = [f"{v.case}: {v.complaints} ({v.sentence})" for v in verdicts if v.complaints]
    assert not wrong, "\n".join(wrong)
    outcomes = [v.outcome for v in verdicts]
    assert outcomes.count("refused") > 12
    assert outcomes.count("accepted") > 4
