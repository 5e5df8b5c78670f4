"""The level group with tables of coverage: what is read of them, what is written and drawn."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from test_group_level import NAMES, ORDER, SIDES, result, run, write_scan

from bids_app import collect
from bids_app.coverages import _CHUNK, read_coverage
from qsmref.analysis import coverage_table
from qsmref.problems import DataError
from qsmref.tables import write_tsv

COVERS = ((0.0, 0.0), (8.0, 0.0), (16.0, 0.0), (0.0, 2.0), (0.0, 4.0))
FEW = (*ORDER, "--permutations", "199")
PLACE = np.array([0.0, 6.0, 40.0, 46.0, 60.0, 90.0, 3.0, 43.0, 50.0, 90.0])


def region_rows(mean) -> pd.DataFrame:
    index = pd.array([1, 2, 3, 4, 5, 6, None, None, None, None], dtype="Int64")
    table = pd.DataFrame({"index": index, "name": NAMES, "hemisphere": SIDES})
    table["n_voxels"], table["volume_mm3"], table["coverage"] = 90, 90.0, 1.0
    table["mean"], table["sd"], table["se"] = mean, 6.0, 1.5
    table["median"], table["mad"], table["p05"], table["p95"] = mean, 4.0, mean - 9, mean + 9
    return table.assign(x=PLACE, y=0.0, z=0.0)


@pytest.fixture
def study(tmp_path):
    """Sixteen participants under five masks: a common movement, and one that grows along x."""
    (tmp_path / "bids").mkdir()
    rng = np.random.default_rng(1)
    people = []
    for k in range(16):
        label, group = f"sub-{k + 1:02d}", "patient" if k % 2 == 0 else "control"
        people.append((label, group))
        base = rng.normal(80, 5, len(NAMES)) + rng.normal(0, 20)
        base[:2] += 25 * (group == "patient")
        base[6], base[7], base[9] = base[:2].mean(), base[2:4].mean(), base[5]
        tables = {}
        for cover in COVERS:
            moved = rng.normal(0, 20) + rng.normal(0, 0.05) * PLACE
            tables[cover] = region_rows(base + (moved if any(cover) else 0.0))
        # The largest cut loses half of CN_R, and so a quarter of both sides of CN.
        cut = tables[16.0, 0.0]
        cut.loc[3, "coverage"], cut.loc[7, "coverage"] = 0.5, 0.75
        cut.loc[5, "coverage"], cut.loc[9, "coverage"] = 0.6, 0.6
        write_scan(tmp_path / "out", label, tables[0.0, 0.0])
        stem = tmp_path / "out" / label / "anat" / f"{label}_atlas-A_desc-coverage_Chimap"
        write_tsv(f"{stem}.tsv", coverage_table(tables))
        stem.with_suffix(".json").write_text('{\n  "RegionsAloneFirst": true\n}\n')
    columns = ["participant_id", "group"]
    write_tsv(tmp_path / "bids" / "participants.tsv", pd.DataFrame(people, columns=columns))
    return tmp_path


def row_of(table: pd.DataFrame, a: str, b: str) -> pd.Series:
    """Row of a pair, whichever of the two stands first."""
    pair = table[table["region"].isin([a, b]) & table["reference"].isin([a, b])]
    return pair.squeeze(axis=0)


def scans_of(study):
    return collect.find_scans(study / "out")["A"]


def test_what_survives_and_how_far_it_moves(study, capsys):
    assert run(study, *FEW) == 0
    said = capsys.readouterr().out
    # CN_R and CN; csf is a reference, which is taken as the mask leaves it, CSF a region.
    assert "48 values of smaller masks are left out" in said
    survival = result(study, "survival")
    assert list(survival.columns[-5:]) == [
        "whole", "slab_8mm", "slab_16mm", "erosion_2mm", "erosion_4mm",
    ]  # fmt: skip
    assert row_of(survival, "SN", "GP")["survives_all"] == "yes"
    assert row_of(survival, "CN", "GP")["survives_all"] == "no"
    assert pd.isna(row_of(survival, "SN", "CN")["slab_16mm"])
    assert row_of(survival, "SN", "CN")["n_tested"] == 4
    alone = survival[survival["reference"].isna()]
    assert (alone["survives_all"] == "no").all()

    stability = result(study, "stability")
    assert row_of(stability, "SN_L", "SN_R")["distance_mm"] == 6
    assert row_of(stability, "SN_L", "SN_R")["sd_all"] < 1
    alone = stability[stability["reference"].isna()]
    assert alone["sd_all"].min() > 10
    assert row_of(stability, "SN_L", "SN_R")["index_all"] > 0.99
    assert abs(row_of(stability, "SN", "GP")["effect_whole"]) == pytest.approx(25, abs=8)
    growth = result(study, "growth").set_index("sweep")
    # The tilt is 0.05 ppb per mm, and none for the whole mask.
    assert growth.loc["all", "slope"] == pytest.approx(0.5 * np.sqrt(0.8), rel=0.25)
    assert growth.loc["all", "ci_low"] > 0.2 and growth.loc["all", "spearman"] > 0.8

    folder = study / "out" / "group"
    for path in folder.glob("*.tsv"):
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert set(pd.read_csv(path, sep="\t").columns) <= set(content), path.name
    drawn = {p.name.split("_desc-")[1].split("_")[0] for p in (folder / "figures").glob("*.png")}
    assert drawn == {"forest", "matrix", "survival", "specification", "stability"}
    page = (study / "out" / "group.html").read_text(encoding="utf-8")
    assert page.count("<figure") == 5 and page.count('src="data:image/png;base64,') == 5
    assert "What survives the sweep of masks" in page


def test_a_smaller_region_counts_where_it_is_allowed(study, capsys):
    assert run(study, *FEW, "--coverage-kept", "0.7") == 0
    assert "32 values of smaller masks" in capsys.readouterr().out
    survival = result(study, "survival")
    assert row_of(survival, "SN", "CN")["n_tested"] == 5
    assert pd.isna(row_of(survival, "SN", "CN_R")["slab_16mm"])


def test_figures_that_no_longer_belong_there_are_removed(study):
    assert run(study, *FEW) == 0
    for path in (study / "out").glob("sub-*/anat/*coverage*"):
        path.unlink()
    assert run(study, *FEW) == 0
    left = sorted(p.name for p in (study / "out" / "group" / "figures").glob("*.png"))
    assert left == [f"atlas-A_desc-{n}_Chimap.png" for n in ("forest", "matrix", "specification")]
    assert not list((study / "out" / "group").glob("*survival*"))


def test_the_beginning_of_a_long_table_is_read_as_the_whole_of_it(study):
    names = [*NAMES, *(f"R{k:03d}" for k in range(300))]
    mean = np.arange(len(names)) * 1.5
    index = pd.array(range(len(names)), dtype="Int64")
    table = pd.DataFrame({"index": index, "name": names, "hemisphere": "n/a", "n_voxels": 9})
    table = table.assign(mean=mean, se=1.0, coverage=1.0, x=mean, y=0.0, z=0.0)
    made = coverage_table({cover: table.assign(mean=mean + cover[0]) for cover in COVERS[:3]})
    scan = scans_of(study)[0]
    path = scan.paths["coverage"]
    write_tsv(path, made)
    text = path.read_bytes()
    # Rows of regions alone do not end in the first part that is read.
    assert text.find(b"\tR000\tR001\t") > _CHUNK and len(text) > 3 * _CHUNK
    quick, _ = read_coverage([scan], names)
    path.with_suffix(".json").unlink()
    whole, _ = read_coverage([scan], names)
    assert list(quick) == list(whole) == list(COVERS[:3])
    for cover in COVERS[:3]:
        assert np.array_equal(quick[cover][0], mean + cover[0])
        assert np.array_equal(whole[cover], quick[cover])


def test_participants_with_other_masks_and_regions(study):
    scans = scans_of(study)
    path = scans[1].paths["coverage"]
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    keep = (table["erosion_mm"] == 0) & (table["region"] != "GP") & (table["reference"] != "GP")
    table[keep].sample(frac=1, random_state=1).to_csv(path, sep="\t", index=False)
    path.with_suffix(".json").unlink()
    found, _ = read_coverage(scans, NAMES)
    assert np.isnan(found[0.0, 2.0][1]).all()
    assert np.isnan(found[8.0, 0.0][1]).sum() == 1
    assert np.isfinite(found[0.0, 2.0][0]).all()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("\tSN_R\tn/a\t", "\tSN_L\tn/a\t", "stands twice"),
        ("\tSN_L\tn/a\t", "\tSN_L\tn/a\tx", "is no number"),
        ("\tSN_L\tn/a\t", "\tSN_L\t", "has not 7 cells"),
        ("slab_cut_mm", "slab", "has no column slab_cut_mm"),
    ],
)
def test_a_damaged_table_is_named(study, old, new, words):
    scan = scans_of(study)[2]
    path = scan.paths["coverage"]
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=words) as told:
        read_coverage([scan], NAMES)
    assert path.name in str(told.value)
