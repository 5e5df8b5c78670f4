"""Discovery in derivatives: masks, regions and maps, and what is wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_bids as tiny
from discovery import only_problem

from qsmref.inputs import Query, discover
from qsmref.problems import ExitCode
from qsmref.runs import EchoRun, MapRun


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


def test_labels_on_another_grid(bids, regions):
    tiny.write_image(regions / "sub-01/anat/sub-01_dseg.nii.gz", np.ones((9, 9, 9), np.int16))
    problem = only_problem(bids, derivatives={"mine": regions})
    assert problem.code == ExitCode.BAD_DATA
    assert "label image lies on another grid" in problem.sentence


def test_mask_on_another_grid(bids, regions):
    moved = tiny.affine(oblique=5)
    mask = np.ones(tiny.SHAPE, np.uint8)
    tiny.write_image(regions / "sub-01/anat/sub-01_desc-brain_mask.nii.gz", mask, moved)
    assert (
        "the mask lies on another grid"
        in only_problem(bids, derivatives={"mine": regions}).sentence
    )


def test_labels_without_a_table(bids, regions):
    (regions / "sub-01/anat/sub-01_dseg.tsv").unlink()
    problem = only_problem(bids, derivatives={"mine": regions})
    assert problem.code == ExitCode.MISSING_INPUT
    assert "no dseg.tsv" in problem.sentence


def test_table_of_labels_of_the_whole_derivative(bids, regions):
    (regions / "sub-01/anat/sub-01_dseg.tsv").rename(regions / "dseg.tsv")
    runs, problems = discover(bids, Query(derivatives={"mine": regions}))
    assert not problems
    assert runs[0].regions[0].table == regions / "dseg.tsv"


def test_several_label_images_have_atlases_of_their_own(bids, regions):
    folder = regions / "sub-01" / "anat"
    for name in ("dseg.nii.gz", "dseg.tsv"):
        shutil.copy(folder / f"sub-01_{name}", folder / f"sub-01_desc-fine_{name}")
    runs, problems = discover(bids, Query(derivatives={"mine": regions}))
    assert not problems
    assert sorted(r.atlas for r in runs[0].regions) == ["mine", "minefine"]


def test_labels_of_another_run_are_not_taken(bids, regions):
    folder = regions / "sub-01" / "anat"
    for name in ("dseg.nii.gz", "dseg.tsv"):
        (folder / f"sub-01_{name}").rename(folder / f"sub-01_run-2_{name}")
    runs, problems = discover(bids, Query(derivatives={"mine": regions}))
    assert not problems
    assert runs[0].regions == ()
    assert "derivative mine has no dseg for sub-01." in runs[0].warnings


def test_derivative_that_holds_nothing(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    runs, problems = discover(dataset, Query(derivatives={"empty": tmp_path / "empty"}))
    assert len(runs) == 2
    assert "has no brain mask, dseg or map" in problems[0].sentence


def test_maps_are_only_taken_when_asked_for(dataset, tmp_path):
    maps = tiny.make_regions(tmp_path / "maps", ("01", "02"), with_map=True)
    runs, _ = discover(dataset, Query(derivatives={"qsmxt": maps}))
    assert all(isinstance(run, EchoRun) for run in runs)
    runs, problems = discover(dataset, Query(derivatives={"qsmxt": maps}, maps="qsmxt"))
    assert not problems
    assert all(isinstance(run, MapRun) for run in runs)
    assert runs[0].sources[0] == "bids:qsmxt:sub-01/anat/sub-01_Chimap.nii.gz"


def test_maps_without_raw_data(tmp_path):
    (tmp_path / "bids").mkdir()
    maps = tiny.make_regions(tmp_path / "maps", with_map=True)
    (run,), problems = discover(tmp_path / "bids", Query(derivatives={"sepia": maps}))
    assert not problems
    assert isinstance(run, MapRun)
    assert run.mask is not None


def test_a_derivative_as_the_dataset(tmp_path):
    maps = tiny.make_regions(tmp_path / "maps", with_map=True)
    (run,), problems = discover(maps, Query())
    assert not problems
    assert isinstance(run, MapRun)
    assert [r.atlas for r in run.regions] == ["drawn"]


def test_several_maps_ask_for_a_choice(tmp_path):
    maps = tiny.make_regions(tmp_path / "maps", with_map=True)
    shutil.copy(
        maps / "sub-01/anat/sub-01_Chimap.nii.gz",
        maps / "sub-01/anat/sub-01_desc-other_Chimap.nii.gz",
    )
    runs, problems = discover(maps, Query())
    assert not runs
    assert "several maps" in problems[0].sentence
    assert "--bids-filter-file" in problems[0].sentence


def test_map_in_another_unit(tmp_path):
    maps = tiny.make_regions(tmp_path / "maps", with_map=True)
    tiny.edit_json(maps / "sub-01/anat/sub-01_Chimap.json", Units="ppb")
    runs, problems = discover(maps, Query())
    assert not runs
    assert "has Units 'ppb'" in problems[0].sentence


def test_nothing_is_written_into_the_dataset(dataset, regions):
    before = {p: p.stat().st_mtime_ns for p in dataset.rglob("*")}
    discover(dataset, Query(derivatives={"mine": regions}))
    assert {p: p.stat().st_mtime_ns for p in dataset.rglob("*")} == before


def test_index_can_be_kept(dataset, tmp_path):
    query = Query(database_dir=tmp_path / "db")
    runs, _ = discover(dataset, query)
    assert (tmp_path / "db" / "raw").is_dir()
    again, _ = discover(dataset, query)
    assert [r.prefix for r in again] == [r.prefix for r in runs]


def test_a_mask_that_a_derivative_lacks_is_told_with_what_stands_in_for_it(bids, regions, tmp_path):
    other = tiny.make_regions(tmp_path / "other", ("01", "02"))
    for path in (other / "sub-01" / "anat").glob("*_mask.nii.gz"):
        path.unlink()
    runs, problems = discover(bids, Query(derivatives={"other": other}))
    assert not problems
    told = "derivative other has no brain mask for sub-01"
    assert f"{told}: it is made from the magnitude." in runs[0].warnings
    for order in ({"other": other, "mine": regions}, {"mine": regions, "other": other}):
        runs, problems = discover(bids, Query(derivatives=order))
        assert not problems
        assert runs[0].mask.dataset == "mine"
        assert f"{told}: that of mine is used." in runs[0].warnings
