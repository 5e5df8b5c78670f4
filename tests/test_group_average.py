"""The average of a cohort on its page: what is damaged is told, and left out."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import tiny_bids as tiny

from bids_app.average import average_maps
from bids_app.groupaverage import average_figures
from bids_app.grouppage import write_pages
from bids_app.report import read_atlas
from qsmref import images
from qsmref.analysis import region_table
from qsmref.problems import DataError
from qsmref.settings import Settings
from qsmref.tables import write_tsv

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
SHAPE = (16, 18, 14)


@pytest.fixture
def out(tmp_path):
    """Results with an average in the template T, and labels of the atlas A on its grid."""
    out, atlases = tmp_path / "out", tmp_path / "atlases"
    rng = np.random.default_rng(0)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:-2, 2:-2, 2:-2] = True
    for kind in ("mean", "sd"):
        values = np.where(mask, np.abs(rng.normal(0.01, 0.02, SHAPE)), 0).astype(np.float32)
        images.save(values, out / "group" / f"space-T_desc-{kind}_Chimap.nii.gz", AFFINE)
    tiny.write_json(out / "group" / "space-T_desc-mean_Chimap.json", {"NumberOfParticipants": 7})
    labels = np.zeros(SHAPE, dtype=np.int16)
    labels[5:8, 6:12, 5:9] = 1
    images.save(labels, atlases / "labels.nii.gz", AFFINE)
    links = {"atlases": atlases.as_uri()}
    tiny.write_description(out, DatasetType="derivative", DatasetLinks=links)
    for label in ("01", "02"):
        stem = out / f"sub-{label}" / "anat" / f"sub-{label}_atlas-A"
        sources = {"Sources": ["bids:atlases:labels.nii.gz"]}
        tiny.write_json(stem.with_name(f"{stem.name}_dseg.json"), sources)
        table = region_table(labels * 0.01, labels, {1: "CN"}, (2, 2, 2), mask, affine=AFFINE)
        write_tsv(stem.with_name(f"{stem.name}_desc-roi_Chimap.tsv"), table)
    return out


def titles(figures) -> list[str]:
    return [figure.title for figure in figures]


WHOLE = ["Average map, T", "Regions on the average: A", "Scatter between participants, T"]


def test_the_average_is_shown_with_its_regions(out):
    figures, lost = average_figures(out, read_atlas)
    assert titles(figures) == WHOLE and lost == []
    assert "of 7 participants" in figures[0].caption


def test_labels_of_one_participant_are_not_those_of_the_average(out):
    # Drawn in a scan whose grid happens to be the template's.
    atlases = out.parent / "atlases"
    own = atlases / "sub-01" / "anat" / "sub-01_dseg.nii.gz"
    own.parent.mkdir(parents=True)
    (atlases / "labels.nii.gz").rename(own)
    for sidecar in out.glob("sub-*/anat/*_dseg.json"):
        tiny.write_json(sidecar, {"Sources": ["bids:atlases:sub-01/anat/sub-01_dseg.nii.gz"]})
    figures, lost = average_figures(out, read_atlas)
    assert titles(figures) == [WHOLE[0], WHOLE[2]] and lost == []
    assert "of 7 participants" in figures[0].caption


@pytest.mark.parametrize("kind", ["cut", "header", "voxels"])
def test_damaged_labels_are_told_and_left_out(out, kind):
    path = out.parent / "atlases" / "labels.nii.gz"
    if kind == "voxels":
        images.save(np.full(SHAPE, np.nan, np.float32), path, AFFINE)
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - 12 if kind == "cut" else 5])
    figures, lost = average_figures(out, read_atlas)
    # Everything else is shown, and two participants with one atlas make one sentence.
    assert titles(figures) == [WHOLE[0], WHOLE[2]]
    assert len(lost) == 1 and "labels.nii.gz" in lost[0] and "regions of A" in lost[0]
    page = write_pages(out / "group.html", "Cohort", {}, {}, figures, "", lost)
    assert "labels.nii.gz" in page.read_text(encoding="utf-8")


def test_a_damaged_sidecar_or_average_is_told(out):
    (out / "sub-01" / "anat" / "sub-01_atlas-A_dseg.json").write_text("{", encoding="utf-8")
    figures, lost = average_figures(out, read_atlas)
    # The second participant has the atlas too.
    assert titles(figures) == WHOLE
    assert len(lost) == 1 and "sub-01_atlas-A_dseg.json cannot be read" in lost[0]
    (out / "group" / "space-T_desc-mean_Chimap.json").write_text(json.dumps([1]), encoding="utf-8")
    figures, lost = average_figures(out, read_atlas)
    assert figures == [] and lost[0].startswith("The average in T is not shown: space-T_desc-mean")


def test_a_map_that_cannot_be_averaged_is_told_in_the_sentence_of_this_run(tmp_path):
    out = tmp_path / "out"
    for label in ("01", "02"):
        stem = out / f"sub-{label}" / "anat" / f"sub-{label}_space-T"
        chi = np.full(SHAPE, 0.01, np.float32)
        chi[4, 4, 4] = 0.02 if label == "01" else np.nan
        images.save(chi, stem.with_name(f"{stem.name}_desc-unreferenced_Chimap.nii.gz"), AFFINE)
        mask = np.ones(SHAPE, dtype=bool)
        images.save(mask, stem.with_name(f"{stem.name}_desc-brain_mask.nii.gz"), AFFINE)
    settings = Settings.from_preset("default", work_dir=tmp_path / "work")
    # What a step of another run has left there is not of this one.
    stale = tmp_path / "work" / "cohort_T_wf" / "old" / "problem.json"
    tiny.write_json(stale, {"sentence": "old.", "code": 65})
    os.utime(stale, (0, 0))
    with pytest.raises(DataError, match="sub-02_space-T.*NaN or infinite"):
        average_maps(out, settings)
