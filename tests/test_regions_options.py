"""Groups of labels, erosion of regions and robust differences: by hand, and free of the offset."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.stats import norm

from qsmref.analysis import add_references, differential_table, region_table
from qsmref.analysis.names import apply_groups, regions_of, tissue_labels
from qsmref.analysis.reference import difference_matrix, standard_errors
from qsmref.analysis.region_methods import STATISTICS
from qsmref.analysis.regions import LEVELS, SCATTERS, biweight
from qsmref.tables import read_tsv, write_tsv

VOXEL = (1.0, 1.5, 2.0)
NAMES = {
    1: "GPe_LH",
    2: "GPi_LH",
    11: "GPe_RH",
    12: "GPi_RH",
    3: "PU_L",
    13: "PU_R",
    4: "ventricle",
}
TABLE = pd.DataFrame({"index": list(NAMES), "name": list(NAMES.values())})
GROUPS = pd.DataFrame({"group": ["GP", "GP", "PU"], "member": ["GPe", "GPi", "PU"]})


def head(seed: int = 0, shape=(20, 14, 12)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A noise map in multiples of 2^-14 ppm, labels that touch each other, and a mask."""
    rng = np.random.default_rng(seed)
    chi = np.round(rng.normal(0, 0.05, shape) * 2**14) / 2**14
    labels = np.zeros(shape, dtype=np.int16)
    labels[2:5, 3:9, 3:8], labels[5:8, 3:9, 3:8] = 1, 2
    labels[15:18, 3:9, 3:8], labels[12:15, 3:9, 3:8] = 11, 12
    labels[2:8, 9:12, 3:8], labels[12:18, 9:12, 3:8] = 3, 13
    labels[8:12, 5:9, 4:8] = 4
    mask = np.zeros(shape, dtype=bool)
    mask[1:19, 1:11, 1:11] = True
    return chi.astype(np.float32), labels, mask


def grouped() -> pd.DataFrame:
    return apply_groups(TABLE, GROUPS)


def tables(chi, labels, mask, names=None, **options) -> pd.DataFrame:
    names = grouped() if names is None else names
    table = region_table(chi, labels, names, VOXEL, mask, **options)
    return add_references(table, chi, mask, VOXEL, labels, names, **options)


def test_a_group_is_one_region_for_each_side():
    chi, labels, mask = head()
    table = tables(chi, labels, mask).set_index("name")
    assert list(table.index) == ["GP_L", "GP_R", "PU_L", "PU_R", "GP", "PU", "brain", "csf"]
    for name, parts in {
        "GP_L": [1, 2],
        "GP_R": [11, 12],
        "GP": [1, 2, 11, 12],
        "PU": [3, 13],
    }.items():
        inside = np.isin(labels, parts) & mask
        values = chi[inside].astype(float) * 1000
        assert table.loc[name, "n_voxels"] == values.size
        assert table.loc[name, "mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert table.loc[name, "sd"] == pytest.approx(values.std(ddof=1), rel=1e-12)
        assert table.loc[name, "coverage"] == inside.sum() / np.isin(labels, parts).sum()
    assert table.loc["GP_L", "labels"] == "1+2"
    assert table.loc["GP", "labels"] == "1+2+11+12"
    assert table.loc["csf", "labels"] == "4"
    assert table["index"].isna().tolist() == [True, True, False, False, True, True, True, True]


def test_groups_may_overlap_and_are_not_paired_with_their_parts():
    chi, labels, mask = head()
    more = pd.DataFrame({"group": ["GPe", "LN"], "member": ["GPe", "GPe"]})
    more = pd.concat([GROUPS, more, pd.DataFrame({"group": ["LN"], "member": ["PU"]})])
    table = tables(chi, labels, mask, apply_groups(TABLE, more))
    pairs = set(map(tuple, differential_table(table)[["region", "reference"]].to_numpy()))
    pairs |= {(b, a) for a, b in pairs}
    assert ("GP_L", "PU_R") in pairs and ("GPe_L", "PU_L") in pairs and ("LN_L", "LN_R") in pairs
    for one, other in [("GPe_L", "GP_L"), ("LN_L", "PU_L"), ("LN", "GP_R"), ("GP", "GPe")]:
        assert (one, other) not in pairs
    assert ("LN_R", "brain") in pairs


def test_the_pairs_of_a_table_from_a_file_are_the_same(tmp_path):
    chi, labels, mask = head()
    for names in (grouped(), NAMES):
        table = tables(chi, labels, mask, names)
        back = read_tsv(write_tsv(tmp_path / "t.tsv", table, digits=17))
        expected = differential_table(table)
        pd.testing.assert_frame_equal(differential_table(back), expected)
        rounded = differential_table(read_tsv(write_tsv(tmp_path / "t.tsv", table)))
        np.testing.assert_allclose(rounded["difference"], expected["difference"], atol=1e-6)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ({"group": ["GP", "GP"], "member": ["GPe", "GPx"]}, "'GPx', which names no label"),
        ({"group": ["GP"], "name": ["GPe"]}, "no column member"),
        ({"group": ["X", "X"], "member": ["GPe", "ventricle"]}, "with a side and labels without"),
        ({"group": ["X_R"], "member": ["GPe_LH"]}, "another side than its name"),
        ({"group": ["X", "X_L"], "member": ["GPe_LH", "GPi_LH"]}, "would be called 'X_L'"),
    ],
)
def test_bad_groups_get_a_sentence(groups, sentence):
    with pytest.raises(ValueError, match=sentence):
        regions_of(apply_groups(TABLE, pd.DataFrame(groups)))


def test_members_by_name_short_name_or_index_and_for_one_atlas():
    short = TABLE.assign(abbreviation=["e", "i", "e", "i", "PU", "PU", "V"])
    for members in (["GPe_LH", "GPi_LH"], ["1", "2"], [1, 2]):
        made = regions_of(apply_groups(short, pd.DataFrame({"group": "GP", "member": members})))
        assert made[["name", "labels"]].to_numpy().tolist() == [["GP_L", (1, 2)]]
    made = regions_of(
        apply_groups(short, pd.DataFrame({"group": ["GP"] * 2, "member": ["e", "i"]}))
    )
    assert made["labels"].tolist() == [(1, 2), (11, 12)]
    other = GROUPS.assign(atlas=["a", "a", "b"])
    assert list(regions_of(apply_groups(TABLE, other, "b"))["name"]) == ["PU_L", "PU_R"]
    # Another atlas has none of these labels, and stays as it is.
    plain = pd.DataFrame({"index": [1], "name": ["thalamus"]})
    assert apply_groups(plain, GROUPS) is plain


def test_ventricles_go_before_other_fluid():
    assert tissue_labels({1: "CSF", 2: "Left-Lateral-Ventricle", 3: "wm"}, "csf") == [2]
    assert tissue_labels({1: "CSF", 3: "wm"}, "csf") == [1]


@pytest.mark.parametrize("erosion", [1.0, 1.6, 2.0])
def test_erosion_is_in_millimetres_and_of_the_whole_group(erosion):
    chi, labels, _ = head()
    table = tables(chi, labels, None, erosion=erosion).set_index("name")
    whole = np.isin(labels, [1, 2])
    distance = ndimage.distance_transform_edt(whole, sampling=VOXEL)
    values = chi[distance > erosion + 1e-9].astype(float) * 1000
    assert 0 < values.size < whole.sum()
    assert table.loc["GP_L", "n_voxels"] == values.size
    assert table.loc["GP_L", "mean"] == pytest.approx(values.mean(), rel=1e-12)
    # The centre stays that of the whole; both sides together are the two eroded ones.
    np.testing.assert_allclose(
        table.loc["GP_L", ["x", "y", "z"]].to_numpy(float), np.argwhere(whole).mean(axis=0) * VOXEL
    )
    assert table.loc["GP", "n_voxels"] == table.loc[["GP_L", "GP_R"], "n_voxels"].sum()


def test_erosion_that_leaves_nothing_keeps_the_row():
    chi, labels, mask = head()
    table = tables(chi, labels, mask, erosion=6.0).set_index("name")
    assert table.loc["PU_L", "n_voxels"] == 0
    assert table.loc["PU_L", ["mean", "coverage", "se"]].isna().all()
    assert np.isfinite(table.loc["PU_L", ["x", "y", "z"]].to_numpy(float)).all()
    assert table.loc["brain", "n_voxels"] == mask.sum()


def test_the_end_of_the_image_is_no_surface_of_a_region():
    chi, labels = np.zeros((6, 6, 6), np.float32), np.zeros((6, 6, 6), np.int16)
    labels[:, :, 2:] = 1
    table = region_table(chi, labels, {1: "a"}, (1, 1, 1), erosion=1.0)
    assert table.loc[0, "n_voxels"] == 6 * 6 * 3


def test_below_the_coverage_statistics_and_differences_are_missing():
    chi, labels, mask = head()
    mask[:5] = False
    table = tables(chi, labels, mask, min_coverage=0.6)
    rows = table.set_index("name")
    assert rows.loc["GP_L", "coverage"] == 0.5
    assert rows.loc["GP_L", "n_voxels"] > 0
    assert rows.loc[["GP_L", "GP"], [*LEVELS, *SCATTERS]].isna().all(axis=None)
    assert rows.loc["GP_R", LEVELS].notna().all()
    pairs = differential_table(table)
    lost = pairs["region"].isin(["GP_L", "GP"]) | pairs["reference"].isin(["GP_L", "GP"])
    assert lost.any() and pairs.loc[lost, ["difference", "se"]].isna().all(axis=None)
    assert len(pairs) == len(differential_table(tables(chi, labels, mask)))


OPTIONS = st.fixed_dictionaries(
    {"erosion": st.sampled_from([0.0, 1.0, 2.1]), "min_coverage": st.sampled_from([0.0, 0.7])}
)


@settings(max_examples=20, deadline=None)
@given(
    offset=st.integers(-(2**12), 2**12),
    seed=st.integers(0, 1000),
    options=OPTIONS,
    statistic=st.sampled_from(STATISTICS),
)
def test_no_offset_reaches_a_difference(offset, seed, options, statistic):
    chi, labels, mask = head(seed)
    shift = np.float32(offset / 2**14)
    before = tables(chi, labels, mask, **options)
    after = tables(chi + shift, labels, mask, **options)
    np.testing.assert_allclose(after[LEVELS], before[LEVELS] + 1000 * float(shift), atol=1e-9)
    np.testing.assert_allclose(after[SCATTERS], before[SCATTERS], rtol=1e-9, atol=1e-9)
    one, other = (differential_table(t, statistic=statistic) for t in (before, after))
    pd.testing.assert_frame_equal(one, other, rtol=1e-9, atol=1e-8)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), options=OPTIONS, statistic=st.sampled_from(STATISTICS))
def test_differences_are_antisymmetric_and_close_triangles(seed, options, statistic):
    table = tables(*head(seed), **options)
    order = np.random.default_rng(seed).permutation(len(table))
    matrix = difference_matrix(differential_table(table, statistic=statistic))
    other = difference_matrix(differential_table(table.iloc[order], statistic=statistic))
    names = [n for n in matrix.index if n not in ("brain", "csf")]
    np.testing.assert_allclose(
        matrix.loc[names, names], other.loc[names, names], rtol=1e-12, atol=1e-9
    )
    np.testing.assert_allclose(matrix, -matrix.T)
    triangle = matrix.loc["GP_L", "PU_R"] + matrix.loc["PU_R", "GP_R"] + matrix.loc["GP_R", "GP_L"]
    assert np.isnan(triangle) or abs(triangle) < 1e-9


def test_medians_and_their_errors():
    chi, labels, mask = head()
    table = tables(chi, labels, mask)
    rows = table.set_index("name")
    pairs = differential_table(table, statistic="median").set_index(["region", "reference"])
    assert pairs.loc[("GP_L", "PU_L"), "difference"] == (
        rows.loc["GP_L", "median"] - rows.loc["PU_L", "median"]
    )
    error = standard_errors(rows, "median")
    assert pairs.loc[("GP_L", "PU_L"), "se"] == pytest.approx(
        np.hypot(error["GP_L"], error["PU_L"])
    )
    # Of independent normal values it is known: the root of pi/2 times that of the mean.
    rng = np.random.default_rng(1)
    many = rng.normal(0, 0.05, (40, 40, 40)).astype(np.float32)
    row = region_table(many, np.ones(many.shape, int), {1: "a"}, (1, 1, 1)).set_index("name")
    ratio = standard_errors(row, "median")["a"] / row.loc["a", "se"]
    assert ratio == pytest.approx(np.sqrt(np.pi / 2), rel=0.02)
    flat = region_table(np.ones((3, 3, 3)), np.ones((3, 3, 3), int), {1: "a"}, (1, 1, 1))
    assert standard_errors(flat, "median")[0] == 0
    with pytest.raises(ValueError, match="statistic must be one of mean, median, biweight"):
        differential_table(table, statistic="mode")


def test_biweights_are_those_of_statsmodels():
    from statsmodels.robust.norms import TukeyBiweight, estimate_location

    chi, labels, mask = head()
    rng = np.random.default_rng(4)
    # A sixth of each region holds what a neighbour has, 200 ppb away.
    chi = np.where(rng.random(chi.shape) < 1 / 6, chi - np.float32(0.2), chi)
    table = tables(chi, labels, mask).set_index("name")
    for name, parts in (("GP_L", [1, 2]), ("PU_R", [13])):
        values = chi[np.isin(labels, parts) & mask].astype(float) * 1000
        scale = table.loc[name, "mad"] / norm.ppf(0.75)
        expected = estimate_location(values, scale, TukeyBiweight(), maxiter=200, tol=1e-12)
        assert table.loc[name, "biweight"] == pytest.approx(float(expected), abs=1e-4)
    # The error of a biweight of normal values is known.
    many = rng.normal(0, 0.05, (40, 40, 40)).astype(np.float32)
    row = region_table(many, np.ones(many.shape, int), {1: "a"}, (1, 1, 1)).set_index("name")
    ratio = standard_errors(row, "biweight")["a"] / row.loc["a", "se"]
    assert ratio == pytest.approx(0.95**-0.5, rel=0.02)
    # Where most values are equal there is no scale, and the median stands.
    flat = np.zeros((3, 3, 3))
    flat[0, 0] = 7
    row = region_table(flat, np.ones(flat.shape, int), {1: "a"}, (1, 1, 1)).set_index("name")
    assert row.loc["a", "biweight"] == row.loc["a", "median"] == 0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000), part=st.floats(0, 0.25), away=st.floats(10, 1000),
    shift=st.floats(-1e3, 1e3), unit=st.floats(0.01, 100),
)  # fmt: skip
def test_a_neighbour_hardly_moves_a_biweight(seed, part, away, shift, unit):
    rng = np.random.default_rng(seed)
    own = rng.normal(0, 1, 400)
    mixed = np.where(rng.random(400) < part, -away, own)

    def level(values):
        median = float(np.median(values))
        return biweight(values, median, float(np.median(np.abs(values - median))))

    found = level(mixed)
    assert abs(found) < 0.4  # a mean would move by up to a quarter of the way, 2.5 to 250
    assert level(shift + unit * mixed) == pytest.approx(shift + unit * found, abs=1e-6 * unit)


def test_the_noise_two_regions_share_cancels():
    table = tables(*head())
    names = list(table["name"])
    covariance = pd.DataFrame(4.0, index=names, columns=names) + np.diag([1.0] * len(names))
    pairs = differential_table(table, covariance=covariance)
    np.testing.assert_allclose(pairs["se_noise"], np.sqrt(2))
    assert differential_table(table)["se_noise"].isna().all()


def test_a_mask_stands_in_for_labels_of_a_tissue():
    chi, labels, mask = head()
    names = {i: n for i, n in NAMES.items() if i != 4}
    labels = np.where(labels == 4, 0, labels)
    fluid = np.zeros(chi.shape, dtype=bool)
    fluid[8:12, 5:9, 4:8] = True
    table = region_table(chi, labels, names, VOXEL, mask)
    made = add_references(
        table, chi, mask, VOXEL, labels, names, erosion=5.0, tissues={"csf": fluid}
    ).set_index("name")
    assert made.loc["csf", "n_voxels"] == (fluid & mask).sum()
    assert made.loc["csf", "mean"] == pytest.approx(chi[fluid & mask].mean(dtype=float) * 1000)
    assert pd.isna(made.loc["csf", "labels"])
    # A label of that tissue goes first.
    first = tables(*head()).set_index("name").loc["csf", "n_voxels"]
    chi, labels, mask = head()
    again = add_references(
        region_table(chi, labels, NAMES, VOXEL, mask), chi, mask, VOXEL, labels, NAMES,
        tissues={"csf": mask},
    ).set_index("name")  # fmt: skip
    assert again.loc["csf", "n_voxels"] == first
