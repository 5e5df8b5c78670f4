"""What survives a sweep of masks, and how far values move over it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qsmref.analysis import compare_groups
from qsmref.analysis.columns import describe
from qsmref.analysis.stability import (
    add_effects,
    growth_table,
    masks_of,
    stability_table,
    survival_table,
)
from qsmref.analysis.tables import Measurements, TableError

NAMES = ("SN", "RN", "CN", "FAR", "brain")
COVERS = ((0.0, 0.0), (8.0, 0.0), (16.0, 0.0), (0.0, 2.0), (0.0, 4.0))
#: mm along a line.
PLACE = {"SN": 0.0, "RN": 10.0, "CN": 30.0, "FAR": 80.0}


def swept(n=24, effect=25.0, seed=0, own=0.3, common=12.0, bend=0.1):
    """Participants under five masks: a common movement, one that grows along a line, and noise."""
    rng = np.random.default_rng(seed)
    value = rng.normal(100, 5, (n, 1, len(NAMES))) + rng.normal(0, 15, (n, 1, 1))
    value[::2, :, 0] += effect
    shape = (n, len(COVERS), 1)
    move, tilt = rng.normal(0, common, shape), rng.normal(0, bend, shape)
    far = np.array([PLACE.get(name, 50.0) for name in NAMES])
    noise = rng.normal(0, own, (n, len(COVERS), len(NAMES)))
    shift = move + tilt * far + noise
    shift[:, 0] = 0
    ids = np.array([f"sub-{k:02d}" for k in range(n)], dtype=object)
    people = pd.DataFrame({"participant_id": ids, "group": ["patient", "control"] * (n // 2)})
    return Measurements(ids, value + shift, NAMES, ("brain",), COVERS), people


def distances(measured):
    return {
        pair: abs(PLACE[pair[0]] - PLACE[pair[1]])
        for pair in measured.pairs
        if set(pair) <= set(PLACE)
    }


def test_parts_of_a_sweep():
    assert masks_of(COVERS, "slab") == [0, 1, 2]
    assert masks_of(COVERS, "erosion") == [0, 3, 4]
    assert masks_of(COVERS, "all") == [0, 1, 2, 3, 4]
    assert masks_of([(0, 0), (8, 0)], "erosion") == []


def test_sd_over_the_masks_is_that_of_each_participant_pooled():
    measured, _ = swept()
    table = stability_table(measured).set_index(["region", "reference"])
    values = measured.values[..., 0] - measured.values[..., 1]
    for sweep, at in (("slab", [0, 1, 2]), ("erosion", [0, 3, 4]), ("all", range(5))):
        by_hand = np.sqrt(values[:, list(at)].var(axis=1, ddof=1).mean())
        assert table.loc[("SN", "RN"), f"sd_{sweep}"] == pytest.approx(by_hand, rel=1e-12)
    one, other = measured.values[..., 0], measured.values[..., 1]
    parts = one.var(axis=1, ddof=1).mean() + other.var(axis=1, ddof=1).mean()
    index = 1 - values.var(axis=1, ddof=1).mean() / parts
    assert table.loc[("SN", "RN"), "index_all"] == pytest.approx(index, rel=1e-12)
    assert index > 0.95
    assert table["index_all"].isna().sum() == 4  # regions alone have none
    assert table.loc[("SN", "RN"), "n"] == 24


def test_a_movement_of_all_regions_touches_no_difference():
    measured, _ = swept(own=0.0, bend=0.0)
    table = stability_table(measured)
    pairs = table["reference"].notna()
    assert (table.loc[pairs, "sd_all"] < 1e-10).all()
    assert (table.loc[~pairs, "sd_all"] > 5).all()
    assert table.loc[pairs, "index_all"].to_numpy() == pytest.approx(1.0, abs=1e-12)
    independent, _ = swept(own=10.0, common=0.0, bend=0.0, n=200)
    index = stability_table(independent)["index_all"].dropna()
    assert np.abs(index).max() < 0.1


def test_missing_values_count_for_neither_region_of_a_pair():
    measured, _ = swept()
    values = measured.values.copy()
    values[0, :, 1] = np.nan  # a participant without RN
    values[1, 1, 0] = np.nan  # a mask that cuts SN
    table = stability_table(
        Measurements(measured.participants, values, NAMES, ("brain",), COVERS)
    ).set_index(["region", "reference"])
    assert table.loc[("SN", "RN"), "n"] == 23
    left = values[2:, :, 0] - values[2:, :, 1]
    squares = ((left - left.mean(axis=1, keepdims=True)) ** 2).sum()
    one = values[1, [0, 2, 3, 4], 0] - values[1, [0, 2, 3, 4], 1]
    squares += ((one - one.mean()) ** 2).sum()
    expected = np.sqrt(squares / (22 * 4 + 3))
    assert table.loc[("SN", "RN"), "sd_all"] == pytest.approx(expected, rel=1e-12)


def test_the_scatter_between_participants_is_within_groups():
    measured, people = swept(effect=500.0)
    codes = (people["group"] == "control").to_numpy().astype(int)
    inside = stability_table(measured, codes=codes).set_index(["region", "reference"])
    value = measured.values[:, 0, 0] - measured.values[:, 0, 1]
    pooled = np.sqrt((value[::2].var(ddof=1) + value[1::2].var(ddof=1)) / 2)
    assert inside.loc[("SN", "RN"), "sd_between"] == pytest.approx(pooled)
    assert inside.loc[("SN", "RN"), "sd_between"] < 20


def test_movement_grows_with_distance():
    measured, _ = swept(n=40, bend=0.1)
    far = distances(measured)
    table = growth_table(measured, far, samples=200).set_index("sweep")
    assert list(table.index) == ["slab", "erosion", "all"]
    # The shift differs by the tilt times the distance: SD 0.1 ppb per mm is 1 ppb per cm; the
    # whole mask does not move, which takes a fifth of the variance.
    row = table.loc["all"]
    assert row["ci_low"] < np.sqrt(0.8) < row["ci_high"]
    assert row["ci_high"] - row["ci_low"] < 0.3
    assert row["n_pairs"] == 6 and row["spearman"] > 0.9
    flat, _ = swept(n=40, bend=0.0)
    row = growth_table(flat, far, samples=200).set_index("sweep").loc["all"]
    assert row["ci_low"] < 0.01 and abs(row["slope"]) < 0.01
    again = growth_table(measured, far, samples=200)
    pd.testing.assert_frame_equal(again.set_index("sweep"), table)


def test_what_stays_significant():
    measured, people = swept(effect=25.0)
    table = compare_groups(measured, people, "group", groups=["patient", "control"])
    survival = survival_table(table)
    by = survival.assign(reference=survival["reference"].fillna("")).set_index(
        ["region", "reference"]
    )
    assert list(survival.columns[-5:]) == [
        "whole", "slab_8mm", "slab_16mm", "erosion_2mm", "erosion_4mm",
    ]  # fmt: skip
    for pair in (("SN", "RN"), ("SN", "CN")):
        assert by.loc[pair, "survives_all"] == "yes"
        assert by.loc[pair, "n_significant"] == 5
    assert by.loc[("RN", "CN"), "survives_all"] == "no"
    for region, reference in by.index:
        rows = table[
            (table["region"] == region) & (table["reference"].fillna("") == reference)
        ].set_index(["slab_cut_mm", "erosion_mm"])
        slabs = (rows.loc[[(0, 0), (8, 0), (16, 0)], "q_bh"] < 0.05).all()
        assert by.loc[(region, reference), "survives_slab"] == ("yes" if slabs else "no")
        assert (by.loc[(region, reference), "erosion_2mm"] == "yes") == (
            rows.loc[(0, 2), "q_bh"] < 0.05
        )
    described = describe("survival", survival)
    assert "slab cut by 16 mm" in described["slab_16mm"]["Description"]


def test_a_mask_without_a_test_is_not_counted():
    measured, people = swept(effect=25.0)
    values = measured.values.copy()
    values[:, 2, 1] = np.nan  # the largest cut loses RN
    lost = Measurements(measured.participants, values, NAMES, ("brain",), COVERS)
    survival = survival_table(compare_groups(lost, people, "group"))
    row = survival[(survival["region"] == "SN") & (survival["reference"] == "RN")].iloc[0]
    assert row["n_tested"] == 4 and row["survives_slab"] == "yes"
    assert pd.isna(row["slab_16mm"])


def test_effects_over_the_masks():
    measured, people = swept()
    comparison = compare_groups(measured, people, "group", groups=["patient", "control"])
    table = add_effects(stability_table(measured), comparison)
    one = comparison[(comparison["region"] == "SN") & (comparison["reference"] == "RN")]
    row = table[(table["region"] == "SN") & (table["reference"] == "RN")].iloc[0]
    assert row["effect_whole"] == one["difference"].iloc[0]
    assert row["effect_sd"] == pytest.approx(one["difference"].std())
    assert (row["effect_low"], row["effect_high"]) == (
        one["difference"].min(), one["difference"].max(),
    )  # fmt: skip


def test_one_mask_is_no_sweep():
    measured, _ = swept()
    with pytest.raises(TableError, match="one mask only"):
        stability_table(measured.full_coverage())
