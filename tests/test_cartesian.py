"""Real and imaginary parts for magnitude and phase, planes that turn by pi: the map is the same."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import app_runner
import nibabel as nib
import numpy as np
import pytest
import tiny_bids as tiny

from qsmref import images, voxels
from qsmref.inputs import Query, discover
from qsmref.problems import DataError, ExitCode
from qsmref.reconstruction.phase import remove_alternation


def to_cartesian(folder, keep: str = "") -> None:
    """Replace magnitude and phase of a participant by their real and imaginary parts."""
    for path in sorted(folder.glob("*_part-mag_MEGRE.nii.gz")):
        other = path.with_name(path.name.replace("part-mag", "part-phase"))
        magnitude, image = images.load(path, np.float64)
        signal = magnitude * np.exp(1j * images.load(other, np.float64)[0])
        sidecar = json.loads(path.with_name(path.name[:-7] + ".json").read_text(encoding="utf-8"))
        for part, values in (("real", signal.real), ("imag", signal.imag)):
            name = path.name.replace("part-mag", f"part-{part}")
            tiny.write_image(folder / name, values.astype(np.float32), image.affine)
            tiny.write_json(folder / f"{name[:-7]}.json", sidecar)
    for part in {"mag", "phase"} - {keep}:
        for path in folder.glob(f"*_part-{part}_*"):
            path.unlink()


@pytest.fixture
def bids(tmp_path):
    root = tiny.make_dataset(tmp_path / "bids", oblique=10.0)
    to_cartesian(root / "sub-01" / "anat")
    return root


def only(bids, part, echo=1):
    return bids / "sub-01" / "anat" / f"sub-01_echo-{echo}_part-{part}_MEGRE.nii.gz"


def problem(bids):
    runs, problems = discover(bids, Query())
    assert not runs and len(problems) == 1
    return problems[0]


def test_the_run_is_that_of_magnitude_and_phase(bids, tmp_path):
    (run,), problems = discover(bids, Query())
    assert problems == [] and run.cartesian
    (polar,), _ = discover(tiny.make_dataset(tmp_path / "polar", oblique=10.0), Query())
    assert not polar.cartesian
    assert run.echo_times == polar.echo_times
    assert run.imaging_frequency == polar.imaging_frequency
    assert run.warnings == polar.warnings
    made = voxels.read_cartesian(run.magnitude_files, run.phase_files)
    np.testing.assert_allclose(made[0], voxels.read_magnitude(polar.magnitude_files), rtol=1e-5)
    phase = voxels.read_phase(polar.phase_files, None, None, False)
    np.testing.assert_allclose(np.exp(1j * made[1]), np.exp(1j * phase), atol=1e-5)
    assert all(array.dtype == np.float32 for array in made)


def test_the_whole_command(tmp_path, capsys):
    found, shown = [], []
    for kind in ("polar", "cartesian"):
        root = tmp_path / kind
        tiny.make_dataset(root / "bids")
        tiny.make_regions(root / "regions")
        if kind == "cartesian":
            to_cartesian(root / "bids" / "sub-01" / "anat")
        run = app_runner.Runner(root, capsys)
        done = run(root / "bids", *app_runner.regions(root), validation=kind == "cartesian")
        assert done.code == ExitCode.OK, done.out + done.err
        assert "bids-validator" not in done.err
        path = done.output_dir / "sub-01/anat/sub-01_desc-unreferenced_Chimap.nii.gz"
        found.append(images.load(path)[0])
        sidecar = json.loads(path.with_name(path.name[:-7] + ".json").read_text(encoding="utf-8"))
        page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
        shown.append(len(re.findall(r'<img src="[^"]+"[^>]*alt="[^"]*Wrapped phase of the', page)))
    assert sidecar["PhaseScale"] == "the angle of real and imaginary parts"
    assert sum("part-real" in source for source in sidecar["Sources"]) == len(tiny.ECHO_TIMES)
    assert "Phase values are the angle of real and imaginary parts." in page
    assert shown[0] == shown[1] > 0
    np.testing.assert_allclose(found[1], found[0], atol=1e-4 * np.ptp(found[0]))


def turn(path, axes=(2,)) -> None:
    """Turn odd planes of a phase by pi, as an image of k-space that was not centred has them."""
    phase, image = images.load(path)
    for axis in axes:
        np.moveaxis(phase, axis, 0)[1::2] += np.pi
    phase = np.angle(np.exp(1j * phase)).astype(np.float32)
    tiny.write_image(path, phase, image.affine)


def test_planes_that_turn_are_turned_back_and_it_is_said(tmp_path, capsys):
    found = []
    for kind in ("as it is", "turned"):
        root = tmp_path / kind
        tiny.make_dataset(root / "bids")
        tiny.make_regions(root / "regions")
        if kind == "turned":
            for path in (root / "bids/sub-01/anat").glob("*part-phase*.nii.gz"):
                turn(path)
        run = app_runner.Runner(root, capsys)
        done = run(root / "bids", *app_runner.regions(root))
        assert done.code == ExitCode.OK, done.out + done.err
        path = done.output_dir / "sub-01/anat/sub-01_desc-unreferenced_Chimap.nii.gz"
        found.append(images.load(path)[0])
        sidecar = json.loads(path.with_name(path.name[:-7] + ".json").read_text(encoding="utf-8"))
        axes = [2] if kind == "turned" else []
        assert sidecar["Processing"]["Echoes"]["alternating_axes"] == axes
        said = "the phase turned by pi from each plane to the next along k"
        page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
        assert (said in page) == (kind == "turned")
        assert ("Turns of the phase by π from plane to plane" in page) == (kind == "turned")
    np.testing.assert_allclose(found[1], found[0], atol=1e-4 * np.ptp(found[0]))


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_turns_are_found_along_every_axis(tmp_path, axes):
    (run,), _ = discover(tiny.make_dataset(tmp_path / "bids"), Query())
    magnitude = voxels.read_magnitude(run.magnitude_files)
    phase = voxels.read_phase(run.phase_files, None, None, False)
    same, none = remove_alternation(magnitude, phase)
    assert same is phase and none == ()
    turned = phase.copy()
    for axis in axes:
        np.moveaxis(turned, axis, 0)[1::2] += np.float32(np.pi)
    back, found = remove_alternation(magnitude, turned)
    assert found == axes
    assert np.abs(back).max() <= np.float32(np.pi) and back.dtype == np.float32
    np.testing.assert_allclose(np.exp(1j * back), np.exp(1j * phase), atol=1e-5)


@pytest.mark.parametrize("turns", [-0.3, 0.3])
def test_steep_fields_are_no_turns(turns):
    """A field of .3 turns a plane, as a bad shim may have, is left alone."""
    ramp = 2 * np.pi * turns * np.arange(12)[None, None, :, None]
    phase = np.angle(np.exp(1j * (ramp + np.zeros((8, 9, 12, 1))))).astype(np.float32)
    same, axes = remove_alternation(np.ones_like(phase), phase)
    assert same is phase and axes == ()


def test_a_phase_is_used_where_there_is_one(tmp_path):
    root = tiny.make_dataset(tmp_path / "bids")
    shutil.copytree(root / "sub-01" / "anat", tmp_path / "kept")
    to_cartesian(root / "sub-01" / "anat")
    shutil.copytree(tmp_path / "kept", root / "sub-01" / "anat", dirs_exist_ok=True)
    (run,), problems = discover(root, Query())
    assert problems == [] and not run.cartesian
    assert not [source for source in run.sources if "real" in source or "imag" in source]


def test_a_magnitude_alone_beside_them_is_not_needed(tmp_path):
    root = tiny.make_dataset(tmp_path / "bids")
    to_cartesian(root / "sub-01" / "anat", keep="mag")
    (run,), problems = discover(root, Query())
    assert problems == [] and run.cartesian


@pytest.mark.parametrize(("absent", "word"), [("real", "real"), ("imag", "imaginary")])
def test_one_part_of_an_echo_is_missing(bids, absent, word):
    only(bids, absent, 2).unlink()
    found = problem(bids)
    assert f"has no {word} image of echo 2 (part-{absent}) beside it" in found.sentence
    assert found.code == ExitCode.MISSING_INPUT


def test_a_part_that_bids_does_not_know(bids):
    for path in only(bids, "imag").parent.glob("*echo-1_part-imag*"):
        path.rename(path.with_name(path.name.replace("imag", "imaginary")))
    assert "is part-imaginary, which BIDS does not know" in problem(bids).sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: np.sign(x), "has 2 different values only"),
        (lambda x: x * 0, "is 0 in every voxel"),
        (lambda x: np.where(x == x.max(), np.nan, x), "has 1 voxels that are NaN or infinite"),
        (lambda x: x * 1e14, "leaves no room to compute with"),
    ],
)
def test_parts_that_cannot_be_are_refused(bids, change, words):
    (run,), _ = discover(bids, Query())
    path = only(bids, "imag")
    image = nib.load(path)
    values = change(np.asarray(image.dataobj)).astype(np.float32)
    tiny.write_image(path, values, image.affine)
    with pytest.raises(DataError, match="imag_MEGRE") as error:
        voxels.read_cartesian(run.magnitude_files, run.phase_files)
    assert words in str(error.value)


def test_parts_that_lost_their_offset_are_refused(bids):
    (run,), _ = discover(bids, Query())
    for path in (*run.magnitude_files, *run.phase_files):
        array, image = images.load(path)
        tiny.write_image(Path(path), array - array.min(), image.affine)
    with pytest.raises(DataError, match="no echo has a value below 0"):
        voxels.read_cartesian(run.magnitude_files, run.phase_files)
