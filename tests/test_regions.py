"""Region statistics: values by hand, independence of the offset, honest coverage."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from qsmref.analysis import region_table
from qsmref.analysis.names import both_sides, label_names, split_side, tissue
from qsmref.analysis.regions import COLUMNS, LEVELS, SCATTERS
from qsmref.analysis.standard_error import standard_error

VOXEL = (1.0, 1.5, 2.0)
NAMES = {1: "CN_L", 2: "CN_R", 3: "brainstem"}


def head(seed: int = 0, shape=(12, 10, 8)) -> tuple[np.ndarray, np.ndarray]:
    """A noise map in multiples of 2^-14 ppm, so that adding such a number is exact in float32."""
    rng = np.random.default_rng(seed)
    chi = np.round(rng.normal(0, 0.05, shape) * 2**14) / 2**14
    labels = np.zeros(shape, dtype=np.uint8)
    labels[1:4, 2:6, 1:5] = 1
    labels[8:11, 2:6, 1:5] = 2
    labels[5:7, 6:9, 2:7] = 3
    return chi.astype(np.float32), labels


def test_values_by_hand():
    chi, labels = head()
    table = region_table(chi, labels, NAMES, VOXEL).set_index("name")
    assert list(table.index) == ["CN_L", "CN_R", "brainstem", "CN"]
    for name, inside in [
        ("CN_L", labels == 1),
        ("brainstem", labels == 3),
        ("CN", (labels == 1) | (labels == 2)),
    ]:
        values = chi[inside].astype(float) * 1000
        row = table.loc[name]
        assert row["n_voxels"] == values.size
        assert row["volume_mm3"] == pytest.approx(values.size * 3.0)
        assert row["coverage"] == 1
        expected = {
            "mean": values.mean(),
            "sd": values.std(ddof=1),
            "median": np.median(values),
            "mad": np.median(np.abs(values - np.median(values))),
            "p05": np.percentile(values, 5),
            "p95": np.percentile(values, 95),
        }
        for column, value in expected.items():
            assert row[column] == pytest.approx(value, rel=1e-12), column
        centre = np.argwhere(inside).mean(axis=0) * VOXEL
        np.testing.assert_allclose(row[["x", "y", "z"]].to_numpy(float), centre)


def test_columns_index_and_hemisphere():
    chi, labels = head()
    table = region_table(chi, labels, NAMES, VOXEL)
    assert list(table.columns) == list(COLUMNS)
    assert list(table["hemisphere"]) == ["L", "R", "n/a", "both"]
    assert list(table["index"][:3]) == [1, 2, 3]
    assert table["index"].isna().tolist() == [False, False, False, True]


@settings(max_examples=40, deadline=None)
@given(offset=st.integers(-(2**12), 2**12), seed=st.integers(0, 1000))
def test_offset_moves_levels_and_nothing_else(offset, seed):
    chi, labels = head(seed)
    shift = np.float32(offset / 2**14)
    mask = np.ones(chi.shape, dtype=bool)
    mask[2] = False
    before = region_table(chi, labels, NAMES, VOXEL, mask)
    after = region_table(chi + shift, labels, NAMES, VOXEL, mask)
    np.testing.assert_allclose(after[LEVELS], before[LEVELS] + 1000 * float(shift), atol=1e-9)
    np.testing.assert_allclose(after[SCATTERS], before[SCATTERS], rtol=1e-9, atol=1e-9)
    rest = [c for c in COLUMNS if c not in LEVELS + SCATTERS]
    pd.testing.assert_frame_equal(after[rest], before[rest])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_order_of_voxels_does_not_matter(seed):
    chi, labels = head(seed)
    order = np.random.default_rng(seed).permutation(chi.size)
    mixed = [a.ravel()[order].reshape(a.shape) for a in (chi, labels)]
    before = region_table(chi, labels, NAMES, VOXEL)
    after = region_table(*mixed, NAMES, VOXEL)
    # The standard error alone knows which voxels are neighbours.
    columns = [c for c in [*LEVELS, *SCATTERS, "n_voxels", "coverage"] if c != "se"]
    np.testing.assert_allclose(after[columns], before[columns], rtol=1e-10, atol=1e-10)


def test_label_numbers_and_types_do_not_matter():
    chi, labels = head()
    expected = region_table(chi, labels, NAMES, VOXEL)
    far = labels.astype(np.int64) * 100_000
    names = {100_000 * index: name for index, name in NAMES.items()}
    found = region_table(chi, far, names, VOXEL)
    kept = found.columns.drop(["index", "labels"])
    pd.testing.assert_frame_equal(found[kept], expected[kept])
    pd.testing.assert_frame_equal(region_table(chi, labels.astype(float), NAMES, VOXEL), expected)
    fortran = region_table(np.asfortranarray(chi), np.asfortranarray(labels), NAMES, VOXEL)
    pd.testing.assert_frame_equal(fortran, expected)


def test_zeros_and_negative_values_count():
    labels = np.ones((2, 2, 1), dtype=int)
    chi = np.array([0.0, 0.0, -0.1, 0.2], dtype=np.float32).reshape(2, 2, 1)
    row = region_table(chi, labels, {1: "CN"}, VOXEL).iloc[0]
    assert row["n_voxels"] == 4
    assert row["mean"] == pytest.approx(25.0, abs=1e-5)
    assert row["median"] == 0


def test_float32_sums_are_made_in_float64():
    # A float32 running sum of four million such values would be off by more than 1 ppb.
    chi = np.full((160, 160, 160), 9.4 + 0.0123, dtype=np.float32)
    labels = np.ones(chi.shape, dtype=np.uint8)
    row = region_table(chi, labels, {1: "all"}, VOXEL).iloc[0]
    assert row["mean"] == pytest.approx(float(chi[0, 0, 0]) * 1000, rel=1e-13)
    assert row["sd"] == 0 and row["se"] == 0


def test_coverage_and_the_mask():
    chi, labels = head()
    mask = np.ones(chi.shape, dtype=np.uint8)
    mask[1] = 0  # a third of CN_L
    mask[:, 6:9, :] = 0  # all of the brainstem
    table = region_table(chi, labels, NAMES, VOXEL, mask).set_index("name")
    inside = (labels == 1) & (mask > 0)
    assert table.loc["CN_L", "coverage"] == pytest.approx(2 / 3)
    assert table.loc["CN_L", "n_voxels"] == np.count_nonzero(inside)
    assert table.loc["CN_L", "mean"] == pytest.approx(1000 * chi[inside].astype(float).mean())
    assert table.loc["CN", "coverage"] == pytest.approx(5 / 6)
    assert table.loc["brainstem", "coverage"] == 0
    assert table.loc["brainstem", "n_voxels"] == 0
    assert table.loc["brainstem", LEVELS + SCATTERS].isna().all()
    # The centre is that of the region, wherever the mask ends.
    whole = region_table(chi, labels, NAMES, VOXEL).set_index("name")
    pd.testing.assert_frame_equal(table[["x", "y", "z"]], whole[["x", "y", "z"]])


def test_min_coverage_makes_statistics_missing_not_smaller():
    chi, labels = head()
    mask = np.ones(chi.shape, dtype=bool)
    mask[1] = False
    arguments = (chi, labels, NAMES, VOXEL, mask)
    table = region_table(*arguments, min_coverage=0.7).set_index("name")
    assert table.loc["CN_L", LEVELS + SCATTERS].isna().all()
    assert table.loc["CN_L", "coverage"] == pytest.approx(2 / 3)
    assert table.loc["CN_L", "n_voxels"] > 0
    assert np.isfinite(table.loc["CN_R", "mean"])
    # The right side alone must not pass for both, although five sixths of the voxels are there.
    assert np.isnan(table.loc["CN", "mean"])
    kept = region_table(*arguments, min_coverage=0.6).set_index("name")
    assert np.isfinite(kept.loc[["CN_L", "CN"], "mean"]).all()


def test_a_named_label_without_voxels_has_a_row():
    chi, labels = head()
    table = region_table(chi, labels, NAMES | {9: "RN"}, VOXEL).set_index("name")
    assert table.loc["RN", "n_voxels"] == 0
    assert np.isnan(table.loc["RN", "coverage"])
    assert np.isnan(table.loc["RN", "mean"])


def test_one_voxel_has_a_mean_and_no_scatter():
    chi = np.full((2, 2, 2), 0.05, dtype=np.float32)
    labels = np.zeros(chi.shape, dtype=int)
    labels[1, 1, 1] = 4
    row = region_table(chi, labels, {4: "RN"}, VOXEL).iloc[0]
    assert row["mean"] == pytest.approx(50.0)
    assert np.isnan(row["sd"]) and np.isnan(row["se"])


def test_both_sides_have_the_error_of_two_independent_means():
    chi, labels = head()
    table = region_table(chi, labels, NAMES, VOXEL).set_index("name")
    left, right = table.loc["CN_L"], table.loc["CN_R"]
    assert table.loc["CN", "se"] == pytest.approx(np.hypot(left["se"], right["se"]) / 2)


def test_world_coordinates_of_the_centre():
    chi, labels = head()
    affine = np.array([[-1.0, 0, 0, 5], [0, 0, 2, -3], [0, 1.5, 0, 7], [0, 0, 0, 1]])
    table = region_table(chi, labels, NAMES, VOXEL, affine=affine)
    index = np.argwhere(labels == 3).mean(axis=0)
    expected = affine[:3, :3] @ index + affine[:3, 3]
    np.testing.assert_allclose(table.loc[2, ["x", "y", "z"]].to_numpy(float), expected)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_odd_voxels_are_an_error_only_where_they_count(odd):
    chi, labels = head()
    chi[2, 3, 2] = odd
    with pytest.raises(ValueError, match="in region 'CN_L', 1 of 48 voxels of the map are not fin"):
        region_table(chi, labels, NAMES, VOXEL)
    mask = np.isfinite(chi)
    table = region_table(chi, labels, NAMES, VOXEL, mask)
    assert table.loc[0, "n_voxels"] == 47
    assert np.isfinite(table[LEVELS + SCATTERS].to_numpy()).all()


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"names": {1: "CN_L", 2: "CN_R"}}, "labels without a name: 3"),
        ({"labels": np.full((12, 10, 8), 0.5)}, "0.5, which is no label"),
        ({"labels": np.full((12, 10, 8), np.nan)}, "nan, which is no label"),
        ({"labels": np.full((12, 10, 8), 1e300)}, r"1e\+300, which is too large for a label"),
        ({"labels": np.zeros((3, 3, 3))}, "the label image has shape"),
        ({"mask": np.ones((3, 3, 3))}, "the mask has shape"),
        ({"voxel_size": (1, 0, 1)}, "three positive numbers"),
        ({"chi": np.zeros((3, 3))}, "three dimensions"),
        ({"min_coverage": 2}, "between 0 and 1"),
    ],
)
def test_bad_input_gets_a_sentence(change, sentence):
    chi, labels = head()
    arguments = {"chi": chi, "labels": labels, "names": NAMES, "voxel_size": VOXEL} | change
    with pytest.raises(ValueError, match=sentence):
        region_table(**arguments)


@pytest.mark.parametrize(
    "name, base, side",
    [
        ("SN_L", "SN", "L"),
        ("Ca_RH", "Ca", "R"),
        ("Left-Putamen", "Putamen", "L"),
        ("Right Thalamus", "Thalamus", "R"),
        ("ctx-rh-insula", "ctx-insula", "R"),
        ("Lateral-Ventricle", "Lateral-Ventricle", None),
        ("RN", "RN", None),
        ("L", "L", None),
    ],
)
def test_sides_of_names(name, base, side):
    assert split_side(name) == (base, side)


def test_hemisphere_column_wins_and_must_not_contradict():
    table = pd.DataFrame({"index": [0, 1, 2, 3], "name": ["background", "CN", "CN", "x_L"]})
    listed = label_names(table.assign(hemisphere=["n/a", "L", "right", "n/a"]))
    assert list(listed["name"]) == ["CN_L", "CN_R", "x_L"]
    assert list(listed["hemisphere"]) == ["L", "R", "n/a"]
    assert both_sides(listed) == {"CN": ("CN_L", "CN_R")}
    with pytest.raises(ValueError, match="'x_L' contradicts hemisphere R"):
        label_names(table.assign(hemisphere=["n/a", "L", "R", "R"]))


@pytest.mark.parametrize(
    "names, sentence",
    [
        ({1: "CN", 2: "CN"}, "the name CN more than once"),
        ({1: " "}, "label 1 has an empty name"),
        ({1.5: "CN"}, "not a whole number"),
        (pd.DataFrame({"index": [1, 1], "name": ["a", "b"]}), "index 1 more than once"),
        (pd.DataFrame({"label": [1], "name": ["a"]}), "no column index"),
    ],
)
def test_bad_label_tables_get_a_sentence(names, sentence):
    with pytest.raises(ValueError, match=sentence):
        label_names(names)


def test_both_gets_another_name_where_it_is_taken():
    listed = label_names({1: "GP_L", 2: "GP_R", 3: "GP", 4: "RN_L"})
    assert both_sides(listed) == {"GP_both": ("GP_L", "GP_R")}


def test_tissue_names():
    assert tissue("Left-Lateral-Ventricle") == tissue("csf") == "csf"
    assert tissue("white_matter") == "wm"
    assert tissue("GM") is None


def ellipsoid(shape, radii, voxel_size) -> np.ndarray:
    axes = [(np.arange(n) - n // 2) * h for n, h in zip(shape, voxel_size, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    return sum((x / r) ** 2 for x, r in zip(grid, radii, strict=True)) < 1


@pytest.mark.parametrize("smoothing_mm", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.6, 0.6, 2.0)])
def test_standard_error_is_the_scatter_of_the_mean(smoothing_mm, voxel_size):
    # 300 noise maps: the scatter of the means is known to 4 % itself.
    rng = np.random.default_rng(7)
    shape = tuple(int(np.ceil(40 / h)) for h in voxel_size)
    inside = ellipsoid(shape, (5, 12, 6), voxel_size)
    box = ndimage.find_objects(inside.astype(int))[0]
    margin = [int(4 / h) for h in voxel_size]
    around = tuple(slice(max(s.start - m, 0), s.stop + m) for s, m in zip(box, margin, strict=True))
    inside = inside[around]
    means, errors, textbook = [], [], []
    for _ in range(300):
        noise = rng.standard_normal(inside.shape)
        if smoothing_mm:
            sigma = [smoothing_mm / h for h in voxel_size]
            noise = ndimage.gaussian_filter(noise, sigma, mode="wrap")
        means.append(noise[inside].mean())
        errors.append(standard_error(noise, inside, voxel_size))
        textbook.append(noise[inside].std(ddof=1) / np.sqrt(np.count_nonzero(inside)))
    estimate = np.sqrt(np.mean(np.square(errors)))
    assert estimate == pytest.approx(np.std(means), rel=0.2)
    if smoothing_mm >= 1:
        assert np.mean(textbook) < 0.4 * np.std(means)


def test_standard_error_of_white_noise_is_the_textbook_one():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((20, 20, 20))
    inside = np.ones(noise.shape, dtype=bool)
    assert standard_error(noise, inside, VOXEL) == pytest.approx(1 / np.sqrt(8000), rel=0.05)
