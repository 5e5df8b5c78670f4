"""Maps that other tools made, registered by what lies beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import heads
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import Runner, errors_of
from test_registration import rigid

from bids_app.run import main
from qsmref import images, voxels
from qsmref.inputs import Query, discover
from qsmref.problems import ExitCode
from qsmref.registration import dice

WAY = rigid((2, -3, 4), (3, -2, 4))


def write_map(root: Path, parts: dict, label: str = "01", mask: bool = True) -> Path:
    """A map with its mask, as another program leaves them: levels by label, and an offset."""
    tiny.write_description(
        root, Name="qsm", DatasetType="derivative", GeneratedBy=[{"Name": "another"}]
    )
    anat = root / f"sub-{label}" / "anat"
    chi = np.where(parts["mask"], 0.3 + 0.05 * parts["labels"], 0)
    images.save(chi.astype(np.float32), anat / f"sub-{label}_Chimap.nii.gz", heads.AFFINE)
    tiny.write_json(anat / f"sub-{label}_Chimap.json", {"Units": "ppm"})
    if mask:
        path = anat / f"sub-{label}_desc-brain_mask.nii.gz"
        images.save(parts["mask"], path, heads.AFFINE)
    return root


@pytest.fixture
def world(tmp_path):
    """A participant with echoes and a T1-weighted image, a map of another tool, a template."""
    tiny.write_description(tmp_path / "bids", License="CC0", Authors=["A", "B"])
    (tmp_path / "bids" / "README").write_text("Heads.\n")
    parts = heads.write_participant(tmp_path / "bids", "01", 1, WAY)
    write_map(tmp_path / "qsm", parts)
    template = heads.write_template(tmp_path / "template")
    return tmp_path, parts, template


def flags(world) -> list:
    root, _, template = world
    labels = template.with_name("tpl-round_res-01_dseg.nii.gz")
    given = ["-d", f"qsm={root / 'qsm'}", "--template", template, "--atlas", f"round={labels}"]
    return [*given, "--engine", "ants"]


def without_phase(bids: Path) -> None:
    for path in bids.glob("sub-*/anat/*part-phase*"):
        path.unlink()


def check(done, parts, through: str, least: float = 0.75) -> dict:
    """Labels lie where they belong, tables hold the map's differences; what the sidecar says."""
    assert done.code == 0
    anat = done.output_dir / "sub-01" / "anat"
    labels, _ = images.load(anat / "sub-01_atlas-round_dseg.nii.gz")
    for region in heads.PARTS:
        assert dice(labels == region, parts["labels"] == region) > least
    rows = pd.read_csv(anat / "sub-01_atlas-round_desc-differential_Chimap.tsv", sep="\t")
    pair = rows[(rows["region"] == "PU_L") & (rows["reference"] == "stem")]
    assert pair["difference"].iloc[0] == pytest.approx(-100, abs=1e-3)
    told = json.loads((anat / "sub-01_desc-imported_Chimap.json").read_text())["Registration"]
    assert told["Through"].startswith(through)
    return told


def test_by_its_magnitude_and_the_t1w(world, tmp_path, capsys):
    root, parts, _ = world
    done = Runner(tmp_path, capsys)(root / "bids", *flags(world), "--maps", "qsm")
    told = check(done, parts, "the T1-weighted image")
    assert told["MapToT1w"]["rotation_degrees"] == pytest.approx(5.4, abs=1.5)
    anat = done.output_dir / "sub-01" / "anat"
    warped, image = images.load(anat / "sub-01_space-round_desc-imported_Chimap.nii.gz")
    assert np.allclose(image.affine, heads.AFFINE)
    mask, _ = images.load(anat / "sub-01_space-round_desc-brain_mask.nii.gz")
    assert dice(mask > 0, heads.head()["mask"]) > 0.9
    assert warped[mask > 0].min() > 0.1
    assert (anat / "sub-01_from-round_to-T1w_mode-image_xfm.h5").is_file()
    assert errors_of(done.output_dir) == []
    group = [root / "bids", done.output_dir, "group", "-w", tmp_path / "work"]
    assert main([str(a) for a in group]) == 0
    assert (done.output_dir / "group" / "space-round_desc-mean_Chimap.nii.gz").is_file()


def test_by_its_magnitude_alone_where_the_dataset_has_no_phase(world, tmp_path, capsys):
    root, parts, _ = world
    without_phase(root / "bids")
    shutil.rmtree(root / "qsm")
    write_map(root / "qsm", parts, mask=False)
    done = Runner(tmp_path, capsys)(root / "bids", *flags(world), "--t1w", "ignore")
    # No --maps: echoes without phases cannot be reconstructed. The brain is that of the magnitude.
    check(done, parts, "the magnitude alone", least=0.6)
    anat = done.output_dir / "sub-01" / "anat"
    assert not list(anat.glob("*space-round*Chimap*"))


def test_by_a_magnitude_whose_echoes_are_in_one_file(world, tmp_path, capsys):
    root, parts, _ = world
    anat = root / "bids" / "sub-01" / "anat"
    query = Query(derivatives={"qsm": root / "qsm"}, template="round", maps="qsm")
    (separate,), _ = discover(root / "bids", query)
    expected = voxels.read_magnitude(separate.magnitude_files)
    tiny.join_echoes(anat)
    runs, problems = discover(root / "bids", query)
    assert problems == []
    assert runs[0].magnitude_files == [str(anat / "sub-01_part-mag_MEGRE.nii.gz")]
    assert len(runs[0].magnitude) == len(separate.magnitude) > 1
    np.testing.assert_array_equal(voxels.read_magnitude(runs[0].magnitude_files), expected)
    # One echo by its name that holds several is told as that.
    for end in ("nii.gz", "json"):
        path = anat / f"sub-01_part-mag_MEGRE.{end}"
        path.rename(anat / f"sub-01_echo-1_part-mag_MEGRE.{end}")
    runs, problems = discover(root / "bids", query)
    assert not runs and "has 4 dimensions" in problems[0].sentence


def test_by_transforms_that_a_derivative_has(world, tmp_path, capsys):
    root, parts, _ = world
    done = Runner(tmp_path / "first", capsys)(root / "bids", *flags(world), "--maps", "qsm")
    own = done.output_dir / "sub-01" / "anat"
    ready = root / "ready"
    tiny.write_description(
        ready, Name="ready", DatasetType="derivative", GeneratedBy=[{"Name": "x"}]
    )
    (ready / "sub-01" / "anat").mkdir(parents=True)
    for path in own.glob("*_xfm.*"):
        shutil.copy(path, ready / "sub-01" / "anat" / path.name)
    shutil.copy(
        root / "bids" / "sub-01" / "anat" / "sub-01_T1w.nii.gz",
        ready / "sub-01" / "anat" / "sub-01_desc-preproc_T1w.nii.gz",
    )
    shutil.rmtree(root / "bids" / "sub-01")
    run = Runner(tmp_path / "second", capsys)
    done = run(root / "bids", *flags(world), "-d", f"ready={ready}")
    told = check(done, parts, "the T1-weighted image")
    assert told["MapToT1w"] == told["ToTemplate"] == "precomputed"
    assert "register" not in done.out


def test_by_transforms_from_the_map_to_the_template(world, tmp_path, capsys):
    root, parts, _ = world
    options = [*flags(world), "--maps", "qsm", "--t1w", "ignore"]
    done = Runner(tmp_path / "first", capsys)(root / "bids", *options)
    told = check(done, parts, "the magnitude alone", least=0.6)
    shutil.rmtree(root / "bids" / "sub-01")
    own = done.output_dir / "sub-01" / "anat"
    for path in own.glob("*_xfm.h5"):
        shutil.copy(path, root / "qsm" / "sub-01" / "anat" / path.name)
    done = Runner(tmp_path / "second", capsys)(root / "bids", *flags(world))
    told = check(done, parts, "transforms of the map itself", least=0.6)
    assert told["ToTemplate"] == "precomputed" and "register" not in done.out


def test_by_a_t1w_on_its_grid(world, tmp_path, capsys):
    root, parts, _ = world
    anat = root / "bids" / "sub-01" / "anat"
    for path in anat.glob("*MEGRE*"):
        path.unlink()
    images.save(parts["t1w"], anat / "sub-01_T1w.nii.gz", heads.AFFINE)
    done = Runner(tmp_path, capsys)(root / "bids", *flags(world))
    # 4 mm voxels: a nucleus has some 90 of them.
    told = check(done, parts, "the T1-weighted image", least=0.7)
    assert told["MapToT1w"] == "none: both images have one grid"
    assert "both are taken to show the head in one place" in done.err
    names = {p.name for p in (done.output_dir / "sub-01" / "anat").glob("*_xfm.*")}
    assert not any("MEGRE" in name for name in names)


def test_with_nothing_to_register_a_sentence_says_what_is_needed(world, tmp_path, capsys):
    root, parts, template = world
    for path in (root / "bids" / "sub-01" / "anat").glob("*MEGRE*"):
        path.unlink()
    # The T1-weighted image is on another grid than the map.
    chi = parts["labels"][1:].astype(np.float32)
    images.save(chi, root / "qsm" / "sub-01" / "anat" / "sub-01_Chimap.nii.gz", heads.AFFINE)
    images.save(
        parts["mask"][1:], root / "qsm" / "sub-01" / "anat" / "sub-01_desc-brain_mask.nii.gz",
        heads.AFFINE,
    )  # fmt: skip
    derivatives = {"qsm": root / "qsm"}
    runs, problems = discover(root / "bids", Query(derivatives=derivatives, template="round"))
    assert not runs
    assert problems[0].code == ExitCode.MISSING_INPUT
    assert "put a magnitude on its grid beside it" in problems[0].sentence
    # Without a template nothing is registered, and nothing is needed.
    runs, problems = discover(root / "bids", Query(derivatives=derivatives))
    assert len(runs) == 1 and not problems
