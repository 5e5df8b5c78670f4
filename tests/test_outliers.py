"""Who is unlike the others: found by differences, blind to offsets, silent for small groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import REGIONS, cohort

from qsmref.analysis import measurements
from qsmref.analysis.design import make_design
from qsmref.analysis.outcomes import outcomes_of
from qsmref.analysis.outliers import outlier_table


def table_of(values: pd.DataFrame, people: pd.DataFrame, group: str | None = "group"):
    measured = measurements(values, regions=REGIONS)
    design = make_design(people if group else None, measured.participants, group)
    return outlier_table(outcomes_of(measured), design)


def test_one_odd_region_is_found_with_its_differences():
    values, people = cohort(24, seed=4)
    values.loc[7, "CN"] += 150
    found = table_of(values, people)
    first = found.iloc[0]
    assert first["participant_id"] == values.loc[7, "participant_id"]
    # Of ten pairs of five regions four have CN in them.
    assert (first["n"], first["n_outlying"]) == (10, 4)
    assert "CN" in (first["region"], first["reference"])
    assert len(found) == 24 and found["n_outlying"].is_monotonic_decreasing


def test_z_is_that_of_the_group():
    values, people = cohort(24, seed=4)
    found = table_of(values, people).set_index("participant_id")
    who = values["participant_id"].iloc[3]
    row = found.loc[who]
    mine = people["group"] == people["group"].iloc[3]
    pair = values[row["region"]] - values[row["reference"]]
    middle = pair[mine].median()
    spread = 1.4826 * (pair[mine] - middle).abs().median()
    assert row["difference"] == pytest.approx(pair.iloc[3])
    assert row["median"] == pytest.approx(middle)
    assert row["z"] == pytest.approx((pair.iloc[3] - middle) / spread, rel=1e-4)


def test_the_zero_of_a_map_makes_no_outlier():
    values, people = cohort(24, seed=4)
    moved = values.copy()
    moved.loc[2, list(REGIONS)] += 1e4
    before, after = table_of(values, people), table_of(moved, people)
    pd.testing.assert_frame_equal(before, after, rtol=1e-6)


def test_small_groups_equal_values_and_gaps_have_no_z():
    values, people = cohort(8, seed=1)
    found = table_of(values, people)
    assert (found["n"] == 0).all() and found["z"].isna().all() and found["region"].isna().all()
    # Without groups the eight are one.
    assert (table_of(values, people, None)["n"] == 10).all()
    values, people = cohort(24, seed=1)
    values["PU"] = values["GP"] + 3.0
    values.loc[0, "SN"] = np.nan
    found = table_of(values, people).set_index("participant_id")
    # GP and PU differ by rounding only, and one lacks the four pairs with SN.
    assert found.loc[values["participant_id"].iloc[0], "n"] == 5
    assert found.loc[values["participant_id"].iloc[1], "n"] == 9
