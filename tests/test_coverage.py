"""The sweep of masks: how it is written, what is cut, and the table of a participant."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import Runner, errors_of, regions

from bids_app.parser import parse_args
from qsmref.analysis import add_references, coverage_table, differential_table, region_table
from qsmref.analysis.coverage import COLUMNS, coverage_mask
from qsmref.problems import ExitCode
from qsmref.settings import Settings
from qsmref.sweep import Coverage, parse_sweep
from qsmref.tables import read_tsv

SIZE = (1.0, 1.0, 2.0)


# --- how it is written ----------------------------------------------------------------------------


def test_the_sweep_of_the_study_has_eleven_masks():
    masks = parse_sweep(())
    assert masks[0] == (0, 0)
    assert masks[1:6] == tuple((8.0 * k, 0.0) for k in range(1, 6))
    assert masks[6:] == tuple((0.0, 2.0 * k) for k in range(1, 6))


@pytest.mark.parametrize(
    "word", ["slab", "slab:", "slab:-8", "slab:x", "erode:2", "slab:8+slab:2", "slab:nan", "8"]
)
def test_words_that_are_no_sweep_are_told(word):
    with pytest.raises(ValueError, match="slab"):
        parse_sweep(["erosion:2", word])
    with pytest.raises(ValueError, match="coverage-sweep must be a list such as slab:8,16"):
        Settings(coverage_sweep=(word,))


def test_the_option_is_off_by_default_and_goes_through_a_file(tmp_path):
    assert Settings().coverage_sweep is None
    settings = Settings(coverage_sweep=["slab:8,16", "erosion:2"])
    assert Settings.from_toml(settings.to_toml()) == settings
    (tmp_path / "bids").mkdir()
    given = [str(tmp_path / "bids"), str(tmp_path / "out"), "participant", "--coverage-sweep"]
    assert len(parse_sweep(parse_args(given).settings.coverage_sweep)) == 11
    assert parse_args([*given, "slab:8"]).settings.coverage_sweep == ("slab:8",)


# --- what is cut ----------------------------------------------------------------------------------


def test_half_of_a_slab_cut_is_taken_off_either_end():
    mask = np.zeros((6, 6, 40), dtype=bool)
    mask[1:5, 1:5, 5:35] = True  # 60 mm
    cut = coverage_mask(mask, 8.0, 0.0, SIZE)
    # Two slices of 2 mm at top and bottom are 8 mm of slab, as in the study.
    assert np.flatnonzero(cut.any(axis=(0, 1))).tolist() == list(range(7, 33))
    assert (cut[:, :, 7:33] == mask[:, :, 7:33]).all()


def test_the_end_of_a_cut_slab_is_not_eroded():
    mask = np.zeros((20, 20, 40), dtype=bool)
    mask[2:18, 2:18, 5:35] = True
    both = coverage_mask(mask, 16.0, 2.0, SIZE)
    assert np.flatnonzero(both.any(axis=(0, 1))).tolist() == list(range(9, 31))
    assert np.flatnonzero(both.any(axis=(1, 2))).tolist() == list(range(4, 16))
    assert not (both & ~mask).any()


@pytest.mark.parametrize(
    ("slab", "erosion", "words"),
    [
        (60, 0, "leaves nothing"),
        (1, 0, "half a slice"),
        (0, 50, "leaves nothing"),
        (0, 0.5, "takes nothing"),
    ],
)
def test_masks_that_cannot_be_are_told(slab, erosion, words):
    mask = np.zeros((20, 20, 40), dtype=bool)
    mask[2:18, 2:18, 5:35] = True
    with pytest.raises(ValueError, match=words):
        coverage_mask(mask, slab, erosion, SIZE)


# --- the table ------------------------------------------------------------------------------------


def sweep_of(offsets: dict) -> tuple[dict, dict]:
    """Region tables of a map whose offset depends on the mask, and the masks."""
    shape = (20, 20, 40)
    labels = np.zeros(shape, dtype=np.int16)
    labels[8:12, 8:12, 18:22] = 1
    labels[8:12, 13:16, 18:22] = 2
    labels[8:12, 8:12, 5:9] = 3  # at the end of the slab
    mask = np.zeros(shape, dtype=bool)
    mask[2:18, 2:18, 5:35] = True
    chi = np.choose(labels, (0.0, 0.1, 0.05, 0.02)).astype(np.float32)
    names = {1: "SN", 2: "RN", 3: "CSF"}
    tables, masks = {}, {}
    for cover, offset in offsets.items():
        masks[cover] = coverage_mask(mask, *cover, SIZE)
        table = region_table(chi + offset, labels, names, SIZE, masks[cover])
        tables[cover] = add_references(table, chi + offset, masks[cover], SIZE, labels, names)
    return tables, masks


def test_differences_stay_and_cut_regions_say_so():
    tables, masks = sweep_of({(0.0, 0.0): 0.0, (8.0, 0.0): 0.03, (0.0, 2.0): -0.02})
    table = coverage_table(tables)
    assert list(table.columns) == list(COLUMNS)
    alone = table[table["reference"].isna()]
    assert (alone.index == np.arange(len(alone))).all()  # they come first
    by = table.assign(reference=table["reference"].fillna("")).set_index(
        ["slab_cut_mm", "erosion_mm", "region", "reference"]
    )
    for cover, offset in {(0.0, 0.0): 100, (8.0, 0.0): 130, (0.0, 2.0): 80}.items():
        assert by.loc[(*cover, "SN", ""), "difference"] == pytest.approx(offset, abs=1e-3)
        assert by.loc[(*cover, "SN", "RN"), "difference"] == pytest.approx(50, abs=1e-3)
        assert by.loc[(*cover, "SN", "RN"), "coverage_region"] == 1.0
    # Half of the four slices of CSF are gone, and part of the mask.
    assert by.loc[(8.0, 0.0, "CSF", ""), "coverage_region"] == 0.5
    assert by.loc[(8.0, 0.0, "SN", "CSF"), "coverage_reference"] == 0.5
    left = masks[8.0, 0.0].sum() / masks[0.0, 0.0].sum()
    assert by.loc[(8.0, 0.0, "SN", "brain"), "coverage_reference"] == pytest.approx(left)
    whole = table[(table[["slab_cut_mm", "erosion_mm"]] == 0).all(axis=1)]
    own = differential_table(tables[0.0, 0.0])
    pairs = whole[whole["reference"].notna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        pairs[["region", "reference", "difference"]],
        own[["region", "reference", "difference"]],
        check_dtype=False,
    )


def test_a_mask_without_a_map_has_its_rows_without_numbers():
    tables, _ = sweep_of({(0.0, 0.0): 0.0})
    table = coverage_table({**tables, (80.0, 0.0): None})
    lost = table[table["slab_cut_mm"] == 80]
    assert len(lost) == len(table) / 2
    assert lost["difference"].isna().all() and (lost["coverage_region"] == 0).all()


def test_the_whole_mask_and_the_same_rows_are_needed():
    tables, _ = sweep_of({(0.0, 0.0): 0.0, (8.0, 0.0): 0.0})
    with pytest.raises(ValueError, match="whole mask"):
        coverage_table({(8.0, 0.0): tables[8.0, 0.0]})
    with pytest.raises(ValueError, match="differ in their regions"):
        coverage_table({**tables, (8.0, 0.0): tables[8.0, 0.0].iloc[1:]})


# --- the command line -----------------------------------------------------------------------------


def test_from_echoes_to_the_table(tmp_path, capfd):
    bids, drawn = tiny.make_dataset(tmp_path / "bids"), tmp_path
    tiny.make_regions(tmp_path / "regions")
    run = Runner(tmp_path, capfd)
    sweep = ["--coverage-sweep", "slab:8,100", "erosion:4"]
    done = run(bids, *regions(drawn), *sweep)
    assert done.code == ExitCode.OK
    assert "sub-01: slab 8mm" in done.out
    assert "no map at a slab cut of 100 mm" in done.err
    stem = done.output_dir / "sub-01/anat/sub-01_atlas-mine_desc-coverage_Chimap"
    table, sidecar = read_tsv(f"{stem}.tsv"), json.loads(Path(f"{stem}.json").read_text())
    assert set(table.columns) <= set(sidecar) and sidecar["difference"]["Units"] == "ppb"
    done_masks = [(m["slab_cut_mm"], m["erosion_mm"]) for m in sidecar["Masks"]]
    assert done_masks == [(8, 0), (100, 0), (0, 4)]
    assert sidecar["Masks"][0]["inversion"]["method"] == "tkd"
    assert sidecar["Masks"][0]["n_voxels"] > sidecar["Masks"][2]["n_voxels"]
    found = table.groupby(["slab_cut_mm", "erosion_mm"])["difference"].count()
    assert found.loc[0, 0] == found.loc[8, 0] == found.loc[0, 4] > 0 == found.loc[100, 0]
    # The rows of the whole mask are those of the other tables.
    own = read_tsv(stem.with_name("sub-01_atlas-mine_desc-differential_Chimap.tsv"))
    whole = table[(table["slab_cut_mm"] == 0) & (table["erosion_mm"] == 0)]
    pairs = whole[whole["reference"].notna()]
    assert np.allclose(pairs["difference"], own["difference"])
    assert "reconstruction was repeated" in (done.output_dir / "logs/CITATION.md").read_text()
    assert errors_of(done.output_dir) == []
    # A longer list only adds what is missing.
    (former,) = tmp_path.rglob("result_slab_8mm.pklz")
    made = former.stat().st_mtime_ns
    run(bids, *regions(drawn), *sweep[:2], "erosion:4,8")
    assert former.stat().st_mtime_ns == made
    assert set(read_tsv(f"{stem}.tsv")["erosion_mm"]) == {0, 4, 8}


def test_maps_of_others_are_not_swept(tmp_path, capfd):
    (tmp_path / "bids").mkdir()
    maps = tiny.make_regions(tmp_path / "maps", with_map=True)
    done = Runner(tmp_path, capfd)(tmp_path / "bids", "-d", f"x={maps}", "--coverage-sweep")
    assert done.code == ExitCode.OK
    assert "no coverage sweep, since its map was made elsewhere" in done.err
    assert not list(done.output_dir.rglob("*desc-coverage*"))


def test_dry_run_lists_the_masks(tmp_path, capfd):
    bids = tiny.make_dataset(tmp_path / "bids")
    done = Runner(tmp_path, capfd)(bids, "--dry-run", "--coverage-sweep", "slab:8+erosion:2")
    assert "masks: whole, slab_8mm_erosion_2mm" in done.out
    assert Coverage(8, 2).name == "slab_8mm_erosion_2mm"
