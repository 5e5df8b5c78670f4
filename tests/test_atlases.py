"""Atlases by path and by name, their space, groups, and labels on the grid of a map."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import nilearn.datasets
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from locations import find

from qsmref import atlases, itk
from qsmref.atlases import Atlas, fetch_cit168, open_atlases, part_in_image, read_groups
from qsmref.headers import Grid
from qsmref.inputs import Query, discover
from qsmref.interfaces.tables import LoadLabels, ResampleLabels
from qsmref.problems import DataError, ExitCode
from qsmref.tables import read_tsv

TABLE = "index\tname\n1\tSN_L\n2\tCN\n3\tCSF\n"


@pytest.fixture
def folder(tmp_path):
    """An atlas on the grid of the tiny head."""
    tiny.write_image(tmp_path / "a" / "boxes_dseg.nii.gz", tiny.head()[1])
    (tmp_path / "a" / "boxes_dseg.tsv").write_text(TABLE)
    return tmp_path / "a"


def native() -> Grid:
    return Grid(tiny.SHAPE, tiny.affine())


def test_image_or_folder(folder):
    for path in (folder, folder / "boxes_dseg.nii.gz"):
        atlas = Atlas.of("mine", path)
        assert atlas.image.path == folder / "boxes_dseg.nii.gz"
        assert atlas.table == folder / "boxes_dseg.tsv"
        assert atlas.template is None
        assert atlas.regions(native(), None).space == "native"
    tiny.write_image(folder / "T1w.nii.gz", tiny.susceptibility())
    assert Atlas.of("mine", folder).image.path.name == "boxes_dseg.nii.gz"


def test_a_table_that_applies_by_bids_will_do(folder):
    (folder / "boxes_dseg.tsv").rename(folder / "dseg.tsv")
    assert Atlas.of("mine", folder).table.name == "dseg.tsv"


def test_space_by_grid_first_then_by_name(folder):
    atlas = Atlas.of("mine", folder)
    other = Grid((10, 10, 10), np.diag([2.0, 2, 2, 1]))
    assert atlas.regions(other, "MNI152NLin2009cAsym").space == "template"
    with pytest.raises(DataError, match=r"lies on another grid \(shape .*\): without a registra"):
        atlas.regions(other, None)
    named = tiny.write_image(folder / "b" / "tpl-MNI_atlas-X_dseg.nii.gz", tiny.head()[1])
    named.with_name("tpl-MNI_atlas-X_dseg.tsv").write_text(TABLE)
    atlas = Atlas.of("X", named)
    assert atlas.template == "MNI"
    assert atlas.regions(native(), None).space == "native"
    assert atlas.regions(other, "MNI").space == "template"
    with pytest.raises(DataError, match="in the space of MNI, and the template is PD25") as error:
        atlas.regions(other, "PD25")
    assert error.value.code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda f: (f / "boxes_dseg.tsv").unlink(), "no label image with a table"),
        (
            lambda f: [
                (f / f"c_dseg{e}").write_bytes((f / f"boxes_dseg{e}").read_bytes())
                for e in (".nii.gz", ".tsv")
            ],
            r"several label images \(boxes_dseg.nii.gz, c_dseg.nii.gz\)",
        ),
    ],
)
def test_folders_that_are_no_atlas(folder, change, sentence):
    change(folder)
    with pytest.raises(DataError, match=sentence):
        Atlas.of("mine", folder)


def test_paths_that_are_not_there(folder):
    with pytest.raises(DataError, match="there is no file") as error:
        open_atlases({"mine": folder / "none.nii.gz"}, folder)
    assert error.value.code == ExitCode.MISSING_INPUT


def test_a_folder_of_participants_is_read_for_each(folder, tmp_path):
    tiny.make_dataset(tmp_path / "bids", ("01", "02"))
    tiny.make_regions(tmp_path / "own", ("01",))
    query = Query(atlases={"own": tmp_path / "own", "all": folder})
    runs, problems = discover(tmp_path / "bids", query)
    assert [[r.atlas for r in run.regions] for run in runs] == [["own", "all"], ["all"]]
    # Only the labels of such a folder count.
    assert [run.mask for run in runs] == [None, None] and not problems
    assert any("derivative own has no dseg" in w for w in runs[1].warnings)


def test_two_atlases_of_one_name(folder, tmp_path):
    tiny.make_dataset(tmp_path / "bids")
    tiny.make_regions(tmp_path / "own")
    query = Query(atlases={"x": folder}, derivatives={"x": tmp_path / "own"})
    _, problems = discover(tmp_path / "bids", query)
    assert "two label images would both be atlas x" in str(problems[0])


def fake_nilearn(cache: Path) -> None:
    """Files where nilearn keeps those it fetched."""
    labels = np.zeros((20, 10, 10), np.int16)
    labels[3:6, 3:6, 3:6], labels[14:17, 3:6, 3:6], labels[8:12, 7:9, 7:9] = 1, 1, 5
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = [-19, -10, -10]
    tiny.write_image(cache / "pauli_2017" / "pauli_2017_det.nii.gz", labels, affine)
    names = ["Pu", "Ca", "NAC", "EXA", "GPe"]
    rows = "".join(f"{i} {name}\n" for i, name in enumerate(names, 1))
    (cache / "pauli_2017" / "labels.txt").write_text(rows)


def test_cit168_from_the_cache_of_nilearn_gets_sides(tmp_path, monkeypatch):
    monkeypatch.setenv("NILEARN_DATA", str(tmp_path / "nilearn"))
    fake_nilearn(tmp_path / "nilearn")
    (atlas,), folders = open_atlases({"CIT168": "CIT168"}, tmp_path / "cache")
    assert not folders and atlas.template == "MNI152NLin2009cAsym"
    labels = np.asarray(nib.load(atlas.image.path).dataobj)
    assert np.unique(labels[:10]).tolist() == [0, 1, 5]
    assert np.unique(labels[10:]).tolist() == [0, 101, 105]
    table = read_tsv(atlas.table)
    assert table["name"].tolist() == ["Pu_L", "GPe_L", "Pu_R", "GPe_R"]
    assert table["index"].tolist() == [1, 5, 101, 105]
    # From then on nothing is asked of nilearn.
    monkeypatch.setattr(nilearn.datasets, "fetch_atlas_pauli_2017", None)
    assert fetch_cit168(tmp_path / "cache") == atlas.image.path


def test_cit168_without_a_network_is_a_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(nilearn.datasets, "fetch_atlas_pauli_2017", refuse)
    with pytest.raises(DataError, match="nilearn .*: no route.*--atlas CIT168=PATH") as e:
        fetch_cit168(tmp_path)
    assert e.value.code == ExitCode.MISSING_INPUT


def test_groups_are_checked_when_they_are_read(tmp_path):
    path = tmp_path / "groups.tsv"
    with pytest.raises(DataError, match="there is no file"):
        read_groups(path)
    path.write_text("group\tlabel\nGP\tGPe\n")
    with pytest.raises(DataError, match="no column member"):
        read_groups(path)
    path.write_text("group\tmember\nGP\tn/a\n")
    with pytest.raises(DataError, match="empty cell in the column member"):
        read_groups(path)


def test_groups_reach_the_table_of_labels(folder, tmp_path):
    groups = tmp_path / "groups.tsv"
    groups.write_text("group\tmember\tatlas\nmid\t2\tmine\nmid\t3\tmine\nmid\t9\tother\n")
    names, labels = folder / "boxes_dseg.tsv", folder / "boxes_dseg.nii.gz"
    done = LoadLabels(labels=labels, names=names, groups=groups, atlas="mine").run(cwd=tmp_path)
    made = pd.read_csv(done.outputs.names, sep="\t", keep_default_na=False)
    assert made["label_group"].tolist() == ["n/a", "mid", "mid"]
    groups.write_text("group\tmember\nmid\tCN\nmid\tpons\n")
    with pytest.raises(DataError, match="groups.tsv: group 'mid' has a member 'pons'"):
        LoadLabels(labels=labels, names=names, groups=groups, atlas="mine").run(cwd=tmp_path)


def test_labels_of_a_template_on_the_grid_of_a_map(tmp_path):
    """A box in a finer template, moved: no label is invented, and what lies outside is told."""
    affine = np.diag([2.0, 2, 2, 1])
    labels = np.zeros((40, 40, 40), np.int16)
    labels[10:20, 10:20, 10:20], labels[25:35, 10:20, 25:35] = 7, 300
    tiny.write_image(tmp_path / "atlas.nii.gz", labels, affine)
    # The map reaches from z = 0 to 58 mm: half of the second box.
    grid = tiny.write_image(
        tmp_path / "map.nii.gz", np.zeros((20, 20, 15)), np.diag([4.0, 4, 4, 1])
    )
    moved = np.eye(4)
    moved[:3, 3] = [4, 0, 0]
    done = ResampleLabels(
        labels=tmp_path / "atlas.nii.gz",
        reference=grid,
        transforms=[itk.write_affine(tmp_path / "shift.mat", moved)],
        invert=[False],
    ).run(cwd=tmp_path)
    made = np.asarray(nib.load(done.outputs.labels).dataobj)
    assert np.unique(made).tolist() == [0, 7, 300]
    place = np.argwhere(made == 7) * 4.0
    # From the map's space to the atlas's: a point at x in the map is at x + 4 there.
    np.testing.assert_allclose(place.mean(axis=0), [29 - 4, 29, 29], atol=1.1)
    assert np.count_nonzero(made == 7) * 64 == pytest.approx(8000, rel=0.25)
    totals = json.loads(Path(done.outputs.totals).read_text())
    assert totals["7"] == pytest.approx(np.count_nonzero(made == 7))
    assert np.count_nonzero(made == 300) / totals["300"] == pytest.approx(0.45, abs=0.1)


def test_labels_that_miss_the_map_are_an_error(tmp_path):
    labels = np.zeros((10, 10, 10), np.int16)
    labels[4:6, 4:6, 4:6] = 1
    far = np.eye(4)
    far[:3, 3] = 500
    tiny.write_image(tmp_path / "atlas.nii.gz", labels, far)
    grid = tiny.write_image(tmp_path / "map.nii.gz", np.zeros((10, 10, 10)), np.eye(4))
    with pytest.raises(DataError, match="no region reaches the map"):
        ResampleLabels(labels=tmp_path / "atlas.nii.gz", reference=grid).run(cwd=tmp_path)


@pytest.mark.skipif(find("data", "atlas-CIT168") is None, reason="needs the shared atlas CIT168")
def test_cit168_with_groups_as_the_study_has_them(tmp_path):
    groups = tmp_path / "groups.tsv"
    rows = ["CN Ca", "PU Pu", "GP GPe", "GP GPi", "SN SNr", "SN SNc_PBP_VTA", "RN RN"]
    groups.write_text("group\tmember\n" + "".join(r.replace(" ", "\t") + "\n" for r in rows))
    atlas = Atlas.of("CIT168", find("data", "atlas-CIT168"))
    assert atlas.template == "MNI152NLin2009cAsym"
    done = LoadLabels(
        labels=atlas.image.path, names=atlas.table, groups=groups, atlas="CIT168"
    ).run(cwd=tmp_path)
    from qsmref.analysis.names import both_sides, regions_of

    regions = regions_of(read_tsv(done.outputs.names))
    assert set(both_sides(regions)) == {"CN", "PU", "GP", "SN", "RN"}
    # A coarse map at the same place: volumes are those of the atlas.
    fine = nib.load(atlas.image.path)
    affine = fine.affine @ np.diag([2.0, 2, 2, 1])
    shape = [n // 2 for n in fine.shape]
    grid = tiny.write_image(tmp_path / "map.nii.gz", np.zeros(shape, np.float32), affine)
    chain = {"transforms": [], "interpolation": "label"}
    labels = atlases.resample(atlas.image.path, grid, **chain)
    whole = np.asarray(fine.dataobj)
    for index in (1, 2, 5, 108):
        volume = 8 * np.count_nonzero(labels == index)
        assert volume == pytest.approx(np.count_nonzero(whole == index), rel=0.15)
    part = part_in_image(atlas.image.path, nib.load(grid), tmp_path, chain)
    assert min(part.values()) == 1
