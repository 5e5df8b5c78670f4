"""Label images in the place of the analytic head, and what is refused about them."""

import nibabel as nib
import numpy as np
import pytest

from qsmref.phantom import read_label_image, simulate
from qsmref.phantom.grid import ParameterError
from qsmref.problems import DataError, ExitCode

TABLE = """\
index\tname\tabbreviation\tsusceptibility_ppm
0\tair\tair\t9.4
1\twhite matter\tWM\t-0.03
2\tgrey matter\tGM\t0.03
7\tglobus pallidus\tGP\t0.13
9\tskull\tbone\t-2.1
"""


def head_labels(n=40):
    """Ball of white matter with a nucleus, in grey matter, in bone, in air; a stray grey island."""
    x, y, z = np.meshgrid(*[np.arange(n) - (n - 1) / 2] * 3, indexing="ij")
    r = np.sqrt(x**2 + y**2 + z**2)
    labels = np.zeros((n, n, n), dtype=np.int16)
    labels[r < 17] = 9
    labels[r < 14] = 2
    labels[r < 11] = 1
    labels[np.hypot(np.hypot(x - 4, y), z) < 3] = 7
    labels[:2, :2, 2:4] = 2
    return labels


@pytest.fixture
def files(tmp_path):
    affine = np.array([[-2.0, 0, 0, 30], [0, 0, 2.0, -40], [0, 2.0, 0, 5], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(head_labels(), affine), tmp_path / "labels.nii.gz")
    (tmp_path / "table.tsv").write_text(TABLE)
    return tmp_path / "labels.nii.gz", tmp_path / "table.tsv"


def read(files, text=None, mask=None):
    if text is not None:
        files[1].write_text(text)
    return read_label_image(*files, mask)


def test_reads_labels_tissue_and_brain(files):
    model = read(files)
    assert model.outside_ppm == 9.4
    values = {r.index: r for r in model.regions}
    assert values[7].t2star == 0.028 and values[7].abbreviation == "GP"
    expected = np.isin(head_labels(), [1, 2, 7])
    expected[:2, :2, 2:4] = False  # the island is no part of the brain
    np.testing.assert_array_equal(model.mask, expected)


def test_keeps_the_grid_of_the_image_and_its_world(files):
    model = read(files)
    out = simulate(model, echo_times=(0.004, 0.008), texture=0)
    np.testing.assert_allclose(out.affine, model.affine)
    np.testing.assert_array_equal(out.labels, np.where(model.mask, head_labels(), 0))
    lookup = {0: 9.4, 1: -0.03, 2: 0.03, 7: 0.13, 9: -2.1}
    np.testing.assert_allclose(out.chi, np.vectorize(lookup.get)(head_labels()), rtol=1e-6)
    # The affine puts the third voxel axis along the world's y: B0 is along the second one.
    np.testing.assert_allclose(out.b0_dir, (0, 1, 0), atol=1e-9)


def test_whole_multiples_average_label_voxels(files):
    model = read(files)
    grid = model.grid(voxel_size=(4.0, 4.0, 4.0))
    assert model.default_factor(grid.voxel_size) == (2, 2, 2)
    np.testing.assert_array_equal(model.labels(*grid.axes((2, 2, 2))), head_labels())
    out = simulate(model, voxel_size=(4.0, 4.0, 4.0), echo_times=(0.004,), texture=0)
    assert out.mask.shape == (20, 20, 20)
    # The centre of a coarse voxel is the centre of the eight it replaces.
    world = model.affine @ [0.5, 0.5, 0.5, 1]
    np.testing.assert_allclose(out.affine @ [0, 0, 0, 1], world)
    assert out.chi[10, 10, 10] == pytest.approx(
        np.mean(simulate(model, echo_times=(0.004,), texture=0).chi[20:22, 20:22, 20:22])
    )


def test_other_sizes_take_the_nearest_label_and_keep_the_place(files):
    model = read(files)
    grid = model.grid(voxel_size=(3.1, 2.7, 5.0))
    assert grid.shape == (25, 29, 16)
    fields = simulate(model, voxel_size=(3.1, 2.7, 5.0), echo_times=(0.004,), texture=0)

    def centre(labels, affine):
        found = np.argwhere(labels == 7).mean(axis=0)
        return affine[:3, :3] @ found + affine[:3, 3]

    np.testing.assert_allclose(
        centre(fields.labels, fields.affine), centre(head_labels(), model.affine), atol=0.7
    )


def test_oblique_turns_the_affine_about_the_centre(files):
    model = read(files)
    straight, oblique = model.grid(), model.grid(oblique=15.0)
    middle = np.append((np.array(straight.shape) - 1) / 2, 1)
    np.testing.assert_allclose(oblique.affine @ middle, straight.affine @ middle, atol=1e-9)
    assert not np.allclose(oblique.affine, straight.affine)


def test_brain_column_and_own_relaxation(files):
    table = "index\tname\tsusceptibility_ppm\tm0\tt1\tt2star\tbrain\n" + "".join(
        f"{i}\tthing {i}\t{ppm}\t0.8\t1.2\t0.04\t{brain}\n"
        for i, ppm, brain in ((0, 0, 0), (1, 0.1, 1), (2, 0.2, 0), (7, 0.3, 1), (9, 0, 0))
    )
    model = read(files, table)
    np.testing.assert_array_equal(model.mask, np.isin(head_labels(), [1, 7]))
    assert all(r.t2star == 0.04 for r in model.regions)


def test_a_mask_file_decides(files, tmp_path):
    mask = np.zeros((40, 40, 40), dtype=np.uint8)
    mask[10:30, 12:28, 14:26] = 1
    path = tmp_path / "mask.nii.gz"
    affine = nib.load(files[0]).affine
    nib.save(nib.Nifti1Image(mask, affine), path)
    model = read(files, mask=path)
    np.testing.assert_array_equal(model.mask, mask > 0)
    nib.save(nib.Nifti1Image(mask, np.eye(4)), path)
    with pytest.raises(DataError, match="not on the grid"):
        read(files, mask=path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.replace("7\tglobus pallidus\tGP\t0.13\n", ""), "no row for label 7"),
        (lambda t: t.replace("susceptibility_ppm", "chi"), "no column 'susceptibility_ppm'"),
        (lambda t: t.replace("0.13", "n/a"), "'n/a' as susceptibility_ppm of label 7"),
        (lambda t: t.replace("7\tglobus", "7.5\tglobus"), "not a whole number"),
        (lambda t: t.replace("9\tskull", "7\tskull"), "index twice"),
        (lambda t: t.replace("skull\tbone", "stuff\tx"), "Whether label 9 .* is brain"),
        (lambda t: t.replace("white matter\tWM", "air\tair").replace("grey matter\tGM", "air\tair")
         .replace("globus pallidus\tGP", "air\tair"), "belongs to the brain"),
        (lambda t: "", "not a tab-separated table"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused_with_a_sentence(files, change, sentence):
    with pytest.raises(DataError, match=sentence) as caught:
        read(files, change(TABLE))
    assert caught.value.code == ExitCode.BAD_DATA
    assert "\n" not in str(caught.value)


def test_unknown_tissue_needs_relaxation(files):
    header, *rows = TABLE.splitlines()
    table = "\n".join([f"{header}\tbrain", *(f"{row}\t1" for row in rows)])
    assert read(files, table).mask.all()
    with pytest.raises(DataError, match="add the columns m0, t1 and t2star"):
        read(files, table.replace("globus pallidus\tGP", "thing\tX"))


def test_missing_and_broken_files(files, tmp_path):
    with pytest.raises(DataError, match="does not exist") as caught:
        read_label_image(tmp_path / "none.nii.gz", files[1])
    assert caught.value.code == ExitCode.MISSING_INPUT
    with pytest.raises(DataError, match="does not exist"):
        read_label_image(files[0], tmp_path / "none.tsv")
    files[0].write_bytes(files[0].read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read as an image"):
        read(files)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.full((4, 4, 4), 0.5, dtype=np.float32), "no label image"),
        (np.full((4, 4, 4), np.nan, dtype=np.float32), "no label image"),
        (np.full((4, 4, 4), -1, dtype=np.int16), "negative label"),
        (np.zeros((4, 4, 4, 2), dtype=np.int16), "no label image"),
    ],
)
def test_images_that_are_no_labels(files, array, sentence):
    nib.save(nib.Nifti1Image(array, np.eye(4)), files[0])
    with pytest.raises(DataError, match=sentence):
        read(files)


def test_voxels_larger_than_the_image_are_refused(files):
    with pytest.raises(ParameterError, match="exceed the label image"):
        read(files).grid(voxel_size=(100.0, 4.0, 4.0))
