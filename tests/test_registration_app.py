"""Registration through the command line: T1-weighted image, template, derivatives, cohort."""

from __future__ import annotations

import json
import re
from pathlib import Path

import heads
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import FAST, Runner, errors_of
from test_registration import rigid

from bids_app.run import main
from qsmref import images
from qsmref.inputs import Query, discover
from qsmref.problems import ExitCode
from qsmref.registration import dice
from qsmref.resampling import resample

WAY = rigid((2, -3, 4), (3, -2, 4))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two participants, one with a T1-weighted image; a template with labels."""
    root = tmp_path_factory.mktemp("world")
    tiny.write_description(root / "bids", License="CC0", Authors=["A", "B"])
    (root / "bids" / "README").write_text("Heads.\n")
    tiny.write_description(
        root / "masks", Name="masks", DatasetType="derivative", GeneratedBy=[{"Name": "drawn"}]
    )
    truth = {
        "01": heads.write_participant(root / "bids", "01", 1, WAY),
        "02": heads.write_participant(root / "bids", "02", 2),
    }
    template = heads.write_template(root / "template")
    return root, truth, template


def flags(world) -> list:
    root, _, template = world
    return ["-d", f"masks={root / 'masks'}", "--template", template, "--engine", "ants"]


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """Results of both participants."""
    folder = tmp_path_factory.mktemp("finished")
    argv = [world[0] / "bids", folder / "out", "participant", "-w", folder / "work"]
    assert main([str(a) for a in [*argv, *FAST, *flags(world)]]) == 0
    return folder


@pytest.mark.parametrize(("label", "middle"), [("01", "T1w"), ("02", "MEGRE")])
def test_transforms_lead_from_the_template_to_the_map(world, finished, label, middle):
    anat = finished / "out" / f"sub-{label}" / "anat"
    way, invert = [anat / f"sub-{label}_from-round_to-{middle}_mode-image_xfm.h5"], [False]
    if middle == "T1w":
        way.insert(0, anat / f"sub-{label}_from-MEGRE_to-T1w_mode-image_xfm.txt")
        invert.insert(0, True)
    chimap = anat / f"sub-{label}_desc-unreferenced_Chimap.nii.gz"
    labels = world[2].with_name("tpl-round_res-01_dseg.nii.gz")
    warped = resample(labels, chimap, way, invert, "label")
    for region in heads.PARTS:
        assert dice(warped == region, world[1][label]["labels"] == region) > 0.75


@pytest.mark.parametrize(
    ("label", "pairs"),
    [
        ("01", ["magnitude and T1-weighted image", "T1-weighted image and template"]),
        ("02", ["magnitude and template"]),
    ],
)
def test_the_page_shows_the_registrations_that_were_made(finished, label, pairs):
    text = (finished / "out" / f"sub-{label}.html").read_text(encoding="utf-8")
    assert re.findall(r"<h3>Registration: ([^<]*)</h3>", text) == pairs


def test_every_sidecar_says_how_it_was_registered(finished):
    ways = {"01": "the T1-weighted image", "02": "the magnitude alone: there is no T1-weighted"}
    for label, through in ways.items():
        anat = finished / "out" / f"sub-{label}" / "anat"
        told = [
            json.loads(path.read_text(encoding="utf-8"))["Registration"]
            for path in [*anat.glob("*_xfm.json"), *anat.glob("*Chimap.json")]
            if "atlas" not in path.name
        ]
        assert len(told) == (5 if label == "01" else 4)
        for registration in told:
            assert registration["Engine"] == "ants"
            assert registration["Through"].startswith(through)
            assert registration["ToTemplate"]["brain_dice"] > 0.9
            assert "antspyx" in registration["Software"]


def test_the_map_is_in_the_template(world, finished):
    anat = finished / "out" / "sub-01" / "anat"
    warped, image = images.load(anat / "sub-01_space-round_desc-unreferenced_Chimap.nii.gz")
    mask, _ = images.load(anat / "sub-01_space-round_desc-brain_mask.nii.gz")
    parts = heads.head()
    assert np.allclose(image.affine, heads.AFFINE)
    # Background removal has taken a rim off the mask.
    assert dice(mask > 0, parts["mask"]) > 0.75
    assert parts["mask"][mask > 0].mean() > 0.98
    inside = (mask > 0) & (parts["labels"] > 0)
    assert warped[inside].mean() > warped[(mask > 0) & (parts["labels"] == 0)].mean() + 0.03


def test_results_are_a_valid_dataset(finished):
    assert errors_of(finished / "out") == []


def test_average_first_regions_drawn_on_it_then(world, finished, tmp_path, capsys):
    root, _, template = world
    common = ["-w", str(finished / "work")]
    assert main([str(root / "bids"), str(finished / "out"), "group", *common]) == 0
    mean, _ = images.load(finished / "out" / "group" / "space-round_desc-mean_Chimap.nii.gz")
    sidecar = finished / "out" / "group" / "space-round_desc-mean_Chimap.json"
    assert json.loads(sidecar.read_text(encoding="utf-8"))["NumberOfParticipants"] == 2
    sd, _ = images.load(finished / "out" / "group" / "space-round_desc-sd_Chimap.nii.gz")
    assert (sd >= 0).all() and sd.max() > 0
    # Whoever draws would take what is bright; the labels know where that is.
    drawn = heads.head()["labels"] * (mean > np.median(mean[mean != 0]))
    image = images.save(drawn, tmp_path / "space-round_dseg.nii.gz", heads.AFFINE)
    heads.write_names(tmp_path / "space-round_dseg.tsv")
    capsys.readouterr()
    argv = [root / "bids", finished / "out", "participant", *common, *FAST, *flags(world)]
    argv += ["--atlas", f"drawn={image}", "--participant-label", "01"]
    assert main([str(a) for a in argv]) == 0
    steps = capsys.readouterr().out
    assert "labels" in steps
    for done in ("register to", "bias of", "inversion", "warp"):
        assert done not in steps
    table = finished / "out" / "sub-01" / "anat" / "sub-01_atlas-drawn_desc-roi_Chimap.tsv"
    rows = pd.read_csv(table, sep="\t").set_index("name")
    assert set(heads.NAMES.values()) <= set(rows.index)
    assert rows.loc["PU_L", "mean"] > rows.loc["brain", "mean"] + 20


def fmriprep(root: Path, finished: Path, world) -> Path:
    """A derivative as fMRIPrep writes it, of the transforms that were found."""
    tiny.write_description(
        root, Name="fMRIPrep", DatasetType="derivative", GeneratedBy=[{"Name": "fMRIPrep"}]
    )
    anat, own = root / "sub-01" / "anat", finished / "out" / "sub-01" / "anat"
    parts = world[1]["01"]
    affine = heads.AFFINE.copy()
    # On a grid of its own, as T1-weighted images are.
    affine[:3, 3] += 1.0
    shift = np.eye(4)
    shift[:3, 3] = 1.0
    for array, suffix in (("t1w", "desc-preproc_T1w"), ("mask", "desc-brain_mask")):
        values = heads.moved(parts[array].astype(np.float32), WAY @ shift)
        if array == "mask":
            values = values > 0.5
        images.save(values, anat / f"sub-01_{suffix}.nii.gz", affine)
    labels = sum(
        label * (heads.moved((parts["labels"] == label) * 1.0, WAY @ shift) > 0.5)
        for label in heads.PARTS
    )
    images.save(labels.astype(np.int16), anat / "sub-01_desc-aseg_dseg.nii.gz", affine)
    images.save(labels.astype(np.int16), anat / "sub-01_dseg.nii.gz", affine)
    heads.write_names(root / "desc-aseg_dseg.tsv")
    for way in ("from-T1w_to-round", "from-round_to-T1w"):
        name = f"sub-01_{way}_mode-image_xfm.h5"
        (anat / name).write_bytes((own / name).read_bytes())
    return root


@pytest.fixture
def precomputed(world, finished, tmp_path):
    return fmriprep(tmp_path / "fmriprep", finished, world)


def test_what_a_derivative_has_is_found(world, precomputed):
    root, _, _ = world
    derivatives = {"masks": root / "masks", "fmriprep": precomputed}
    query = Query(participants=("01",), derivatives=derivatives, template="round")
    runs, problems = discover(root / "bids", query)
    assert not problems
    anatomy = runs[0].anatomy
    names = [Path(source.name).name for source in anatomy.used]
    assert anatomy.preprocessed
    assert names == [
        "sub-01_desc-preproc_T1w.nii.gz",
        "sub-01_desc-brain_mask.nii.gz",
        "sub-01_from-T1w_to-round_mode-image_xfm.h5",
        "sub-01_from-round_to-T1w_mode-image_xfm.h5",
    ]
    assert runs[0].mask.dataset == "masks"
    assert [(r.atlas, r.space) for r in runs[0].regions] == [("fmriprepaseg", "T1w")]
    assert any("sub-01_dseg.nii.gz has no table" in w for w in runs[0].warnings)
    ignored, _ = discover(root / "bids", Query(participants=("01",), t1w="ignore"))
    assert ignored[0].anatomy.used == []


def test_what_a_derivative_has_is_used(world, precomputed, tmp_path, capsys):
    root, truth, _ = world
    run = Runner(tmp_path, capsys)
    given = [*flags(world), "-d", f"fmriprep={precomputed}", "--participant-label", "01"]
    done = run(root / "bids", *given)
    assert done.code == 0
    assert "register to t1w" in done.out
    assert "register to template" not in done.out and "bias" not in done.out
    anat = done.output_dir / "sub-01" / "anat"
    assert not list(anat.glob("*to-round*xfm*"))
    sidecar = json.loads((anat / "sub-01_desc-unreferenced_Chimap.json").read_text())
    told = sidecar["Registration"]
    assert told["ToTemplate"] == told["BrainOfT1w"] == told["BiasField"] == "precomputed"
    labels, _ = images.load(anat / "sub-01_atlas-fmriprepaseg_dseg.nii.gz")
    for label in heads.PARTS:
        assert dice(labels == label, truth["01"]["labels"] == label) > 0.8


def test_a_dry_run_says_what_would_be_used(world, precomputed, tmp_path, capsys):
    run = Runner(tmp_path, capsys)
    given = [*flags(world), "-d", f"fmriprep={precomputed}", "--dry-run"]
    done = run(world[0] / "bids", *given)
    assert done.code == 0
    lines = {line.split(":")[0]: line for line in done.out.splitlines()}
    assert "from-T1w_to-round_mode-image_xfm.h5" in lines["sub-01"]
    assert "registration (ants)" in lines["sub-02"] and "through: no T1w image" in lines["sub-02"]


def test_several_t1w_images_are_no_guess(world, tmp_path):
    root, _, _ = world
    bids = tmp_path / "bids"
    tiny.write_description(bids)
    heads.write_participant(bids, "01", 1, WAY)
    anat = bids / "sub-01" / "anat"
    for extra in ("run-1", "run-2"):
        target = anat / f"sub-01_{extra}_T1w.nii.gz"
        target.write_bytes((anat / "sub-01_T1w.nii.gz").read_bytes())
    runs, problems = discover(bids, Query(template="round"))
    assert not runs
    assert "several T1-weighted images fit" in problems[0].sentence
    (tmp_path / "filter.json").write_text('{"t1w": {"run": 2}}')
    chosen = Query(filter_file=tmp_path / "filter.json", template="round")
    runs, problems = discover(bids, chosen)
    assert runs[0].anatomy.t1w.name.endswith("run-2_T1w.nii.gz")
    # Where nothing is registered, they do no harm.
    runs, problems = discover(bids, Query())
    assert not problems and runs[0].anatomy.t1w is None
    _, problems = discover(root / "bids", Query(t1w="required"))
    assert [(p.subject, p.code) for p in problems] == [("02", ExitCode.MISSING_INPUT)]


def test_what_is_missing_is_told_before_anything_runs(world, tmp_path, capsys, monkeypatch):
    run = Runner(tmp_path, capsys)
    monkeypatch.setenv("PATH", "/nowhere")
    done = run(world[0] / "bids", "--engine", "fsl", "--template", world[2])
    assert done.code == ExitCode.TOOL_MISSING
    assert "bet, fast, flirt, fslmaths" in done.last
    done = run(world[0] / "bids", "--template", tmp_path / "none.nii.gz")
    assert done.code == ExitCode.MISSING_INPUT
    assert not list(done.output_dir.glob("sub-*"))
