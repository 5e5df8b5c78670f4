"""Differences: antisymmetry, independence of the offset, which pairs there are."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsmref.analysis import (
    add_references,
    difference_matrix,
    differential_table,
    reference_statistics,
    region_table,
    rereference,
)
from qsmref.analysis.reference import COLUMNS
from qsmref.analysis.regions import LEVELS, SCATTERS

VOXEL = (1.0, 1.0, 2.0)
NAMES = {1: "CN_L", 2: "CN_R", 3: "PU_L", 4: "PU_R", 5: "RN", 6: "CSF", 7: "WM_L", 8: "WM_R"}


def head(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.zeros((18, 6, 6), dtype=np.uint8)
    for index in NAMES:
        labels[2 * index - 1 : 2 * index + 1, 1:5, 1:5] = index
    # Multiples of 2^-14 ppm: adding another one is exact in float32.
    chi = np.round(rng.normal(0, 0.05, labels.shape) * 2**14) / 2**14
    mask = np.ones(labels.shape, dtype=bool)
    mask[0] = mask[-2:] = False
    return chi.astype(np.float32), labels, mask


def table_of(chi, labels, mask, **options) -> pd.DataFrame:
    regions = region_table(chi, labels, NAMES, VOXEL, mask, **options)
    return add_references(regions, chi, mask, VOXEL, labels, NAMES, **options)


def pairs_of(differences: pd.DataFrame) -> set[tuple[str, str]]:
    return set(zip(differences["region"], differences["reference"], strict=True))


def test_reference_rows():
    chi, labels, mask = head()
    table = table_of(chi, labels, mask).set_index("name")
    assert list(table.index[-3:]) == ["brain", "csf", "wm"]
    values = chi.astype(float) * 1000
    assert table.loc["brain", "mean"] == pytest.approx(values[mask].mean())
    assert table.loc["csf", "mean"] == pytest.approx(values[(labels == 6) & mask].mean())
    assert table.loc["wm", "mean"] == pytest.approx(values[(labels >= 7) & mask].mean())
    assert table.loc["wm", "coverage"] == pytest.approx(3 / 4)


def test_every_pair_once_in_table_order_and_none_with_itself():
    chi, labels, mask = head()
    table = table_of(chi, labels, mask)
    differences = differential_table(table)
    assert list(differences.columns) == list(COLUMNS)
    pairs = pairs_of(differences)
    assert len(pairs) == len(differences)
    assert not {(b, a) for a, b in pairs} & pairs
    place = {name: i for i, name in enumerate(table["name"])}
    order = [(place[a], place[b]) for a, b in differences[["region", "reference"]].to_numpy()]
    assert order == sorted(order)
    assert all(a < b for a, b in order)

    regions = list(table["name"][:-3])
    expected = {(a, b) for i, a in enumerate(regions) for b in regions[i + 1 :]}
    expected |= {(a, b) for a in regions for b in ("brain", "csf", "wm")}
    # Rows made of the same voxels are no pair.
    for both in ("CN", "PU", "WM"):
        expected -= {(f"{both}_L", both), (f"{both}_R", both)}
    expected -= {("CSF", "csf"), ("WM_L", "wm"), ("WM_R", "wm"), ("WM", "wm")}
    assert pairs == expected


def test_values_by_hand():
    chi, labels, mask = head()
    table = table_of(chi, labels, mask)
    rows = table.set_index("name")
    differences = differential_table(table).set_index(["region", "reference"])
    row = differences.loc[("CN_L", "RN")]
    assert row["difference"] == rows.loc["CN_L", "mean"] - rows.loc["RN", "mean"]
    assert row["se"] == pytest.approx(np.hypot(rows.loc["CN_L", "se"], rows.loc["RN", "se"]))
    assert row["distance_mm"] == pytest.approx(8.0)
    assert row["coverage_region"] == pytest.approx(rows.loc["CN_L", "coverage"])
    assert differences.loc[("CN_L", "wm"), "coverage_reference"] == pytest.approx(3 / 4)


@settings(max_examples=30, deadline=None)
@given(offset=st.integers(-(2**12), 2**12), seed=st.integers(0, 1000))
def test_no_offset_reaches_a_difference(offset, seed):
    chi, labels, mask = head(seed)
    before = differential_table(table_of(chi, labels, mask))
    after = differential_table(table_of(chi + np.float32(offset / 2**14), labels, mask))
    pd.testing.assert_frame_equal(before, after, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(5)), seed=st.integers(0, 1000))
def test_differences_are_antisymmetric_and_close_triangles(order, seed):
    rng = np.random.default_rng(seed)
    chi = rng.normal(0, 0.1, (5, 4, 4)).astype(np.float32)
    labels = np.arange(1, 6).repeat(16).reshape(chi.shape)
    table = region_table(chi, labels, {i: f"region{i}" for i in range(1, 6)}, VOXEL)
    matrix = difference_matrix(differential_table(table))
    values = matrix.fillna(0).to_numpy()
    np.testing.assert_array_equal(values, -values.T)
    a, b, c, *_ = matrix.index
    assert matrix.loc[a, b] + matrix.loc[b, c] == pytest.approx(matrix.loc[a, c], abs=1e-9)
    shuffled = difference_matrix(differential_table(table.iloc[order]))
    np.testing.assert_array_equal(shuffled.loc[matrix.index, matrix.index].fillna(0), values)
    errors = difference_matrix(differential_table(table), "se")
    np.testing.assert_array_equal(errors.fillna(0), errors.T.fillna(0))


def test_regions_without_statistics_are_listed():
    chi, labels, mask = head()
    mask[5:7] = False  # PU_L
    differences = differential_table(table_of(chi, labels, mask))
    with_it = (differences["region"] == "PU_L") | (differences["reference"] == "PU_L")
    assert (
        with_it.sum()
        == differential_table(table_of(*head()))
        .eval("region == 'PU_L' or reference == 'PU_L'")
        .sum()
    )
    assert differences.loc[with_it, ["difference", "se"]].isna().all(axis=None)
    assert (differences.loc[differences["region"] == "PU_L", "coverage_region"] == 0).all()
    named = differences.set_index(["region", "reference"])
    assert np.isnan(named.loc[("RN", "PU"), "difference"])
    assert np.isfinite(named.loc[("CN_L", "RN"), "difference"])


def test_own_references():
    chi, labels, mask = head()
    table = region_table(chi, labels, NAMES, VOXEL, mask)
    differences = differential_table(table, references=["CSF"])
    assert not (differences["region"] == "CSF").any()
    assert ("WM_L", "CSF") in pairs_of(differences)
    with pytest.raises(ValueError, match="'brain' is no row"):
        differential_table(table, references=["brain"])


def test_names_must_be_unique_and_not_reserved():
    chi, labels, mask = head()
    table = region_table(chi, labels, NAMES, VOXEL, mask)
    with pytest.raises(ValueError, match="'CN_L' more than once"):
        differential_table(pd.concat([table, table]))
    renamed = table.replace({"name": {"RN": "brain"}})
    with pytest.raises(ValueError, match="'brain', which is the name"):
        add_references(renamed, chi, mask, VOXEL)
    with pytest.raises(ValueError, match="mask is empty"):
        add_references(table, chi, np.zeros_like(mask), VOXEL)


def test_without_a_mask_there_is_no_whole_brain():
    chi, labels, _ = head()
    table = add_references(
        region_table(chi, labels, NAMES, VOXEL), chi, None, VOXEL, labels, NAMES
    ).set_index("name")
    assert list(table.index[-2:]) == ["csf", "wm"]
    assert table.loc["wm", "coverage"] == 1


def test_a_region_called_csf_serves_as_the_reference_itself():
    chi, labels, mask = head()
    names = {**NAMES, 6: "csf", 7: "wm_L", 8: "wm_R"}
    regions = region_table(chi, labels, names, VOXEL, mask)
    table = add_references(regions, chi, mask, VOXEL, labels, names)
    assert (table["name"] == "csf").sum() == 1
    differences = differential_table(table)
    assert ("RN", "csf") in pairs_of(differences)
    assert ("CN_L", "wm") in pairs_of(differences)
    assert ("wm_L", "wm") not in pairs_of(differences)
    assert not differences["region"].isin(["csf", "wm"]).any()


def test_statistics_of_references_let_anyone_rereference():
    chi, labels, mask = head()
    table = table_of(chi, labels, mask)
    statistics = reference_statistics(chi, mask, table)
    assert json.loads(json.dumps(statistics, allow_nan=False)) == statistics
    inside = chi[mask].astype(float) * 1000
    assert statistics["brain"]["mean"] == 0
    assert statistics["brain"]["sd"] == pytest.approx(inside.std(ddof=1))
    assert statistics["brain"]["mean_in_map"] == pytest.approx(inside.mean())
    rows = table.set_index("name")
    for name in ("RN", "csf", "wm", "CN"):
        assert statistics[name]["sd"] == pytest.approx(rows.loc[name, "sd"])
        back = statistics[name]["mean"] + statistics["brain"]["mean_in_map"]
        assert back == pytest.approx(rows.loc[name, "mean"])
    moved = reference_statistics(chi + np.float32(0.25), mask, table_of(chi + 0.25, labels, mask))
    assert moved["RN"]["mean"] == pytest.approx(statistics["RN"]["mean"], abs=1e-4)


def test_statistics_of_a_lost_region_are_none():
    chi, labels, mask = head()
    mask[5:7] = False
    statistics = reference_statistics(chi, mask, table_of(chi, labels, mask))
    assert statistics["PU_L"] == {"mean": None, "sd": None, "n_voxels": 0}
    with pytest.raises(ValueError, match="mask is empty"):
        reference_statistics(chi, np.zeros_like(mask), table_of(chi, labels, mask))
    chi[3, 3, 3] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        reference_statistics(chi, mask, pd.DataFrame({"name": []}))


def test_rereference_moves_levels_only():
    chi, labels, mask = head()
    table = table_of(chi, labels, mask)
    referenced = rereference(table, "csf")
    zero = table.set_index("name").loc["csf", "mean"]
    np.testing.assert_allclose(referenced[LEVELS], table[LEVELS] - zero)
    assert referenced.set_index("name").loc["csf", "mean"] == 0
    pd.testing.assert_frame_equal(referenced[SCATTERS], table[SCATTERS])
    pd.testing.assert_frame_equal(differential_table(referenced), differential_table(table))
    with pytest.raises(ValueError, match="'GM' is no row"):
        rereference(table, "GM")
    mask[5:7] = False
    with pytest.raises(ValueError, match="'PU_L' has no mean"):
        rereference(table_of(chi, labels, mask), "PU_L")


def test_a_table_read_back_from_tsv_gives_the_same_differences(tmp_path):
    table = table_of(*head())
    path = tmp_path / "table.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    back = pd.read_csv(path, sep="\t", na_values="n/a")
    pd.testing.assert_frame_equal(differential_table(back), differential_table(table))
