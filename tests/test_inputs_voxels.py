"""Voxels and label tables: what is read, and the sentence for what cannot be used."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import tiny_bids as tiny

from qsmref import voxels
from qsmref.interfaces import tables as table_interfaces
from qsmref.problems import DataError


def test_voxels_that_are_not_finite(tmp_path):
    array = np.ones((4, 4, 4), np.float32)
    array[0, 0, :2] = (np.nan, np.inf)
    path = tiny.write_image(tmp_path / "a.nii.gz", array)
    with pytest.raises(DataError, match="a.nii.gz has 2 voxels that are NaN or infinite"):
        voxels.read(path)


def test_truncated_file(tmp_path):
    path = tiny.write_image(tmp_path / "a.nii.gz", np.arange(8000.0).reshape(20, 20, 20))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match="a.nii.gz is damaged or cut short"):
        voxels.read(path)
    # A gzip file that is whole, of an image that is not.
    raw = gzip.compress(b"\0" * 400)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="damaged or cut short"):
        voxels.read(path)


def test_constant_image(tmp_path):
    path = tiny.write_image(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), np.float32))
    with pytest.raises(DataError, match="is 0 in every voxel"):
        voxels.read_echo(path)


def test_phase_that_is_not_what_units_say(tmp_path):
    phase = np.linspace(-4096, 4094, 64, dtype=np.float32).reshape(4, 4, 4)
    path = tiny.write_image(tmp_path / "a.nii.gz", phase)
    with pytest.raises(DataError, match="Units says rad, but the stored values run from -4096"):
        voxels.read_phase([path], None, None, declared=False)
    radians = voxels.read_phase([path], None, None, declared=True)
    np.testing.assert_array_equal(radians[..., 0], phase)
    with pytest.raises(DataError, match="outside the phase range"):
        voxels.read_phase([path], 0, 4095, declared=True)
    radians = voxels.read_phase([path], -4096, 4094, declared=True)
    assert (radians.min(), radians.max()) == pytest.approx((-np.pi, np.pi))


def test_empty_mask(tmp_path):
    path = tiny.write_image(tmp_path / "mask.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(DataError, match="mask.nii.gz is empty"):
        voxels.read_mask(path)


def test_map_that_cannot_be_ppm(tmp_path):
    path = tiny.write_image(tmp_path / "Chimap.nii.gz", np.arange(64.0).reshape(4, 4, 4))
    with pytest.raises(DataError, match="cannot be ppm"):
        voxels.read_map(path)


def load_labels(tmp_path, labels, table):
    image = tiny.write_image(tmp_path / "dseg.nii.gz", labels)
    names = tmp_path / "dseg.tsv"
    names.write_text(table)
    return table_interfaces.LoadLabels(labels=image, names=names).run(cwd=tmp_path)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("index\tname\n1\tSN\n", "labels without a name in dseg.tsv: 2"),
        ("index\tlabel\n1\tSN\n", "no column name"),
        ("index\tname\n", "names no label"),
        ("index\tname\nx\tSN\n", "not a number"),
        ("index\tname\n1\tSN\n1\tCN\n2\tPU\n", "more than once"),
        ("index\tname\n1\tSN\n2\t\n", "empty name"),
    ],
)
def test_wrong_label_tables(tmp_path, table, words):
    labels = np.zeros((4, 4, 4), np.int16)
    labels[0], labels[1] = 1, 2
    with pytest.raises(DataError, match=words) as caught:
        load_labels(tmp_path, labels, table)
    assert "dseg" in str(caught.value)
    assert (tmp_path / "problem.json").is_file()


def test_labels_that_were_interpolated(tmp_path):
    labels = np.linspace(0, 2, 64, dtype=np.float32).reshape(4, 4, 4)
    with pytest.raises(DataError, match="labels are whole numbers"):
        load_labels(tmp_path, labels, "index\tname\n1\tSN\n2\tCN\n")


def test_image_without_labels(tmp_path):
    with pytest.raises(DataError, match="has no label"):
        load_labels(tmp_path, np.zeros((4, 4, 4), np.int16), "index\tname\n1\tSN\n")
