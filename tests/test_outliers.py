"""Who is unlike the others: found by differences, blind to offsets, silent for small groups."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
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
    assert (found["n_outlying"].iloc[1:] == 0).all()
    bound = st.t.isf(0.05 / (2 * 240), 0.6 * 22) * np.sqrt(1 + np.pi / 24)
    assert first["limit"] == pytest.approx(bound) and abs(first["z"]) > bound


def test_several_bad_participants_do_not_hide_each_other():
    values, people = cohort(24, seed=4)
    values.loc[[7, 9, 12, 16], "CN"] += 150
    found = table_of(values, people)
    bad = set(values["participant_id"].iloc[[7, 9, 12, 16]])
    assert set(found.loc[found["n_outlying"] > 0, "participant_id"]) == bad


@pytest.mark.parametrize(
    ("sizes", "regions"),
    [((8, 8), 13), ((40, 40), 7), ((6, 6, 6, 6), 7), ((15,), 13), ((5, 20), 5)],
)
def test_one_healthy_cohort_in_twenty_or_fewer_has_an_outlier(sizes, regions):
    rng = np.random.default_rng(12)
    names = [f"R{k}" for k in range(regions)]
    ids = [f"p{k}" for k in range(sum(sizes))]
    group = np.repeat([f"g{k}" for k in range(len(sizes))], sizes)
    people = pd.DataFrame({"participant_id": ids, "group": group})
    design = make_design(people, ids, "group" if len(sizes) > 1 else None)
    found, cohorts = 0, 200
    for _ in range(cohorts):
        # Regions that scatter unlike, and share a part: the zero of the map.
        values = rng.normal(0, np.linspace(5, 15, regions), (len(ids), regions))
        table = pd.DataFrame(values + rng.normal(0, 30, (len(ids), 1)), columns=names)
        measured = measurements(table.assign(participant_id=ids), regions=names)
        found += outlier_table(outcomes_of(measured), design)["n_outlying"].any()
    # 95 % of such numbers lie below this if the rate is .05.
    assert found <= st.binom.isf(0.05, cohorts, 0.05)


def test_z_is_that_of_the_group():
    values, people = cohort(24, seed=4)
    found = table_of(values, people).set_index("participant_id")
    who = values["participant_id"].iloc[3]
    row = found.loc[who]
    mine = people["group"] == people["group"].iloc[3]
    pair = values[row["region"]] - values[row["reference"]]
    middle = pair[mine].median()
    other = pair[~mine] - pair[~mine].median()
    # Three quarters of the deviations of both groups; a normal distribution has them in 1.15 SD.
    away = pd.concat([pair[mine] - middle, other]).abs()
    spread = away.quantile(0.75) / st.norm.isf(0.125)
    assert row["difference"] == pytest.approx(pair.iloc[3])
    assert row["median"] == pytest.approx(middle)
    assert row["z"] == pytest.approx((pair.iloc[3] - middle) / spread, rel=1e-9)


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
