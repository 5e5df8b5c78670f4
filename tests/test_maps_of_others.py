"""Maps as other tools write them: NaN or zeros outside of their mask, names, missing masks."""

from __future__ import annotations

import json

import app_runner
import numpy as np
import pytest
import tiny_bids as tiny

from qsmref import images
from qsmref.problems import ExitCode
from qsmref.tables import read_tsv

ANAT = "sub-01/anat/sub-01"


@pytest.fixture
def maps(tmp_path):
    return tiny.make_regions(tmp_path / "maps", with_map=True)


def spoil(maps, where, value) -> None:
    """Put a value into voxels of the map."""
    chi, image = images.load(maps / f"{ANAT}_Chimap.nii.gz")
    chi[where] = value
    tiny.write_image(maps / f"{ANAT}_Chimap.nii.gz", chi, image.affine)


def means(done) -> dict[str, float]:
    path = next((done.output_dir / "sub-01").rglob("*_desc-roi_Chimap.tsv"))
    return dict(read_tsv(path).set_index("name")["mean"].dropna())


def test_nan_outside_of_the_mask_is_no_value(maps, tmp_path, capsys):
    run = app_runner.Runner(tmp_path / "run", capsys)
    plain = run(maps, fast=False)
    assert plain.code == ExitCode.OK, plain.out
    mask, _ = tiny.head()
    spoil(maps, ~mask, np.nan)
    other = app_runner.Runner(tmp_path / "other", capsys)(maps, fast=False)
    assert other.code == ExitCode.OK, other.out
    assert means(other) == pytest.approx(means(plain), rel=1e-6)
    chi, _ = images.load(other.output_dir / f"{ANAT}_desc-imported_Chimap.nii.gz")
    assert np.isfinite(chi).all() and not chi[~mask].any()


def test_nan_inside_the_mask_is_refused(maps, tmp_path, capsys):
    mask, _ = tiny.head()
    where = np.zeros(mask.shape, dtype=bool)
    where[tuple(np.argwhere(mask)[5])] = True
    spoil(maps, where | ~mask, np.nan)
    done = app_runner.Runner(tmp_path / "run", capsys)(maps, fast=False)
    assert done.code == ExitCode.BAD_DATA
    assert "has 1 voxels that are NaN or infinite inside its mask" in done.err + done.out


def test_nan_without_a_mask_says_what_to_do(maps, tmp_path, capsys):
    mask, _ = tiny.head()
    spoil(maps, ~mask, np.nan)
    (maps / f"{ANAT}_desc-brain_mask.nii.gz").unlink()
    done = app_runner.Runner(tmp_path / "run", capsys)(maps, fast=False)
    assert done.code == ExitCode.BAD_DATA
    assert "give the brain mask outside of which they lie (desc-brain_mask)" in done.err + done.out


@pytest.mark.parametrize("with_mask", [True, False])
def test_zeros_in_a_region_are_told_where_no_mask_is_known(maps, tmp_path, capsys, with_mask):
    _, labels = tiny.head()
    index, name = next(iter(tiny.NAMES.items()))
    inside = np.flatnonzero(labels.ravel() == index)
    where = np.zeros(labels.size, dtype=bool)
    where[inside[: len(inside) // 4]] = True
    spoil(maps, where.reshape(labels.shape), 0.0)
    if not with_mask:
        (maps / f"{ANAT}_desc-brain_mask.nii.gz").unlink()
    done = app_runner.Runner(tmp_path / "run", capsys)(maps, fast=False)
    assert done.code == ExitCode.OK, done.out
    share = 100 * (len(inside) // 4) / len(inside)
    said = f"voxels that are exactly 0 count as tissue in {name} ({share:.0f} %)"
    page = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    assert (said in page) != with_mask
    path = next((done.output_dir / "sub-01").rglob("*_desc-roi_Chimap.json"))
    assert ("Warnings" in json.loads(path.read_text(encoding="utf-8"))) != with_mask
    status = (done.output_dir / "logs" / "participant-status.tsv").read_text(encoding="utf-8")
    assert (said in status) != with_mask


def test_space_orig_is_the_grid_of_the_map(maps, tmp_path, capsys):
    plain = app_runner.Runner(tmp_path / "plain", capsys)(maps, fast=False)
    for path in sorted((maps / "sub-01" / "anat").iterdir()):
        path.rename(path.with_name(path.name.replace("sub-01_", "sub-01_space-orig_")))
    done = app_runner.Runner(tmp_path / "orig", capsys)(maps, fast=False)
    assert done.code == ExitCode.OK, done.out
    assert means(done) == pytest.approx(means(plain), rel=1e-6)


def test_a_dataset_of_maps_lacks_a_map_and_no_echoes(maps, tmp_path, capsys):
    for path in (maps / "sub-01" / "anat").glob("*_Chimap.*"):
        path.rename(path.with_name(path.name.replace("Chimap", "QSM")))
    done = app_runner.Runner(tmp_path / "run", capsys)(maps, fast=False)
    assert done.code == ExitCode.MISSING_INPUT
    assert "has no map (a name that ends in _Chimap.nii.gz)" in done.err + done.out
