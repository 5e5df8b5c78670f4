"""Sessions: the mixed model, the paired test, and agreement."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
import statsmodels.formula.api as smf
from cohorts import REGIONS, cohort
from statsmodels.stats.anova import anova_lm

from qsmref.analysis import change_over_time, measurements, paired_test, reliability_table
from qsmref.analysis.reliability import agreement
from qsmref.analysis.tables import RequestError, TableError


def sessions_of(n=24, sessions=2, change=0.0, seed=0, **options):
    """Measurements with visits; SN of the first group changes by `change` at each."""
    table, people = cohort(n, sessions=sessions, seed=seed, offset=8.0, **options)
    first = people["group"].iloc[0]
    ill = table["participant_id"].map(people.set_index("participant_id")["group"]) == first
    table.loc[ill, "SN"] += change * (table.loc[ill, "visit"].astype(int) - 1)
    return table, people


def read(table, regions=("SN", "RN")):
    return measurements(table, regions=regions, session_column="visit")


def row(table, contrast, region="SN", reference=None):
    same = table["reference"].isna() if reference is None else table["reference"] == reference
    found = table[(table["region"] == region) & same & (table["contrast"] == contrast)]
    assert len(found) == 1
    return found.iloc[0]


def test_two_complete_sessions_are_the_paired_test():
    table, _ = sessions_of(change=3.0, seed=3)
    mixed, paired = change_over_time(read(table)), paired_test(read(table))
    for k, one in paired.iterrows():
        two = mixed.iloc[k]
        # The optimiser of the mixed model stops at six digits.
        assert [two["difference"], two["t"], two["p"]] == pytest.approx(
            [one["difference"], one["t"], one["p"]], rel=1e-4
        )
        assert two["df"] == one["df"] == 23


def test_the_paired_test_is_that_of_scipy():
    table, _ = sessions_of(change=3.0, seed=4)
    found = paired_test(read(table)).iloc[0]
    first, second = (table.loc[table["visit"] == v, "SN"].to_numpy() for v in "12")
    expected = st.ttest_rel(second, first)
    interval = expected.confidence_interval()
    assert list(found[["t", "p", "ci_low", "ci_high"]]) == pytest.approx(
        [expected.statistic, expected.pvalue, interval.low, interval.high], rel=1e-10
    )
    assert found["mean_second"] - found["mean_first"] == pytest.approx(found["difference"])


def test_change_of_groups_is_the_t_test_of_their_changes():
    table, people = sessions_of(30, change=6.0, seed=5)
    mixed = change_over_time(read(table), people, "group", groups=["patient", "control"])
    change = table.pivot(index="participant_id", columns="visit", values="SN")
    change = (change["2"] - change["1"]).to_numpy()
    patient = (people["group"] == "patient").to_numpy()
    expected = st.ttest_ind(change[patient], change[~patient])
    found = row(mixed, "change per unit of time, patient - control")
    assert [found["t"], found["p"], found["df"]] == pytest.approx(
        [expected.statistic, expected.pvalue, expected.df], rel=1e-4
    )
    one = row(mixed, "change per unit of time in patient")
    assert one["difference"] == pytest.approx(change[patient].mean(), rel=1e-6)


def test_the_mixed_model_is_that_of_statsmodels():
    table, people = sessions_of(26, sessions=3, change=4.0, seed=6)
    table = table.drop(index=[3, 40, 61])  # not everybody comes every time
    found = change_over_time(
        read(table), people, "group", groups=["patient", "control"], covariates=["age"]
    )
    data = table.merge(people, on="participant_id")
    data["time"] = data["visit"].astype(float) - 1
    model = "SN ~ C(group, Treatment('control')) * time + age"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = smf.mixedlm(model, data, groups=data["participant_id"]).fit()
    name = "C(group, Treatment('control'))[T.patient]"
    one = row(found, "change per unit of time, patient - control")
    assert [one["difference"], one["t"]] == pytest.approx(
        [fit.params[f"{name}:time"], fit.tvalues[f"{name}:time"]], rel=1e-3
    )
    two = row(found, "patient - control at 1")
    assert [two["difference"], two["t"]] == pytest.approx(
        [fit.params[name], fit.tvalues[name]], rel=2e-3
    )
    assert one["sd_within"] == pytest.approx(np.sqrt(fit.scale), rel=1e-3)
    assert (one["n"], one["n_scans"]) == (26, 75)
    assert one["df"] == 75 - 26 - 2 and two["df"] == 26 - 3


def test_a_random_slope_widens_the_interval_where_participants_differ():
    table, _ = sessions_of(24, sessions=4, seed=7)
    slopes = np.random.default_rng(1).normal(0, 6, 24)
    slope = dict(zip(table["participant_id"].unique(), slopes, strict=True))
    table["SN"] += table["participant_id"].map(slope) * table["visit"].astype(int)
    plain = row(change_over_time(read(table)), "change per unit of time")
    wide = row(change_over_time(read(table), random_slope=True), "change per unit of time")
    assert wide["ci_high"] - wide["ci_low"] > 1.3 * (plain["ci_high"] - plain["ci_low"])
    # Complete data: the mean of everybody's own slope.
    own = table.groupby("participant_id").apply(
        lambda d: np.polyfit(d["visit"].astype(int), d["SN"], 1)[0]
    )
    expected = st.ttest_1samp(own, 0)
    assert wide["t"] == pytest.approx(expected.statistic, rel=0.02)
    assert wide["df"] == expected.df


def test_a_random_slope_needs_three_times():
    two, _ = sessions_of(12)
    with pytest.raises(RequestError, match="nobody has more than two"):
        change_over_time(read(two), random_slope=True)
    three, _ = sessions_of(12, sessions=3)
    with pytest.raises(RequestError, match="sessions that are times"):
        change_over_time(read(three), time="category", random_slope=True)


def test_sessions_as_categories():
    table, _ = sessions_of(20, sessions=3, change=4.0, seed=8)
    table["visit"] = table["visit"].map({"1": "base", "2": "month", "3": "year"})
    found = change_over_time(read(table))
    assert set(found["contrast"]) == {"change to month", "change to year"}
    means = table.groupby("visit")["SN"].mean()
    assert row(found, "change to year")["difference"] == pytest.approx(
        means["year"] - means["base"], rel=1e-6
    )
    with pytest.raises(RequestError, match="session 'base' is not a number"):
        change_over_time(read(table), time="number")


def test_numbers_are_times():
    table, _ = sessions_of(20, change=6.0, seed=9)
    years = table.assign(visit=table["visit"].map({"1": "2019", "2": "2022"}))
    one = row(change_over_time(read(table)), "change per unit of time")
    three = row(change_over_time(read(years)), "change per unit of time")
    assert three["difference"] == pytest.approx(one["difference"] / 3, rel=1e-6)
    assert three["t"] == pytest.approx(one["t"], rel=1e-4)


def test_offsets_of_scans_move_no_difference():
    table, _ = sessions_of(20, seed=10)
    moved = table.copy()
    moved[list(REGIONS)] += np.random.default_rng(1).normal(0, 500, (len(table), 1))
    for function in (paired_test, change_over_time):
        one, two = (
            function(read(t)).query("reference == 'RN'")["t"].iloc[0] for t in (table, moved)
        )
        assert two == pytest.approx(one, rel=1e-4)


def test_a_variance_at_its_boundary_is_a_result():
    # Participants that differ by nothing but noise: between them the variance is zero.
    rng = np.random.default_rng(0)
    notes = []
    for seed in range(8):
        table = pd.DataFrame({"participant_id": [f"s{k}" for k in range(15)] * 2})
        table["visit"] = ["1"] * 15 + ["2"] * 15
        table["SN"], table["RN"] = rng.normal(size=(2, 30)) + seed
        found = change_over_time(read(table.drop(index=[2, 20])))
        notes += list(found["note"].dropna())
        assert (found["sd_between"].dropna() >= 0).all()
    assert not notes


@pytest.mark.parametrize("function", [change_over_time, paired_test, reliability_table])
def test_rows_without_values_have_a_note(function):
    table, _ = sessions_of(12, seed=11)
    table["RN"] = np.nan
    table["CN"] = 5.0
    found = function(read(table, ("SN", "RN", "CN")))
    alone = found[found["reference"].isna()].set_index("region")
    numbers = alone.loc[["RN", "CN"]].select_dtypes("number")
    shared = ["slab_cut_mm", "erosion_mm", "n", "n_scans", "k"]
    assert numbers.drop(columns=shared, errors="ignore").isna().all(axis=None)
    assert alone.loc["CN", "note"].startswith("constant")
    assert isinstance(alone.loc["RN", "note"], str)
    assert not isinstance(alone.loc["SN", "note"], str)


def test_null_changes_are_found_five_times_in_a_hundred():
    rng = np.random.default_rng(12)
    n, count = 16, 100
    names = [f"r{k}" for k in range(count)]
    base = np.tile(rng.normal(0, 10, (n, count)), (2, 1)) + rng.normal(0, 4, (2 * n, count))
    table = pd.DataFrame(base, columns=names)
    table["participant_id"] = [f"s{k}" for k in range(n)] * 2
    table["visit"] = ["1"] * n + ["2"] * n
    measured = replace(read(table, names), pairs=(("r0", "r1"),))
    people = pd.DataFrame({"participant_id": [f"s{k}" for k in range(n)]})
    people["group"] = ["a", "b"] * (n // 2)
    for found in (
        paired_test(measured),
        change_over_time(measured, people, "group"),
    ):
        found = found[found["reference"].isna()]
        contrasts = found["contrast"] if "contrast" in found else pd.Series("", found.index)
        for _, rows in found.groupby(contrasts):
            low, high = st.binom.ppf([0.0005, 0.9995], count, 0.05)
            assert low <= (rows["p"] <= 0.05).sum() <= high


def test_requests_about_sessions():
    table, people = sessions_of(10, sessions=3, seed=13)
    no_sessions = measurements(table[table["visit"] == "1"], regions=["SN", "RN"])
    for function in (change_over_time, paired_test, reliability_table):
        with pytest.raises(RequestError, match="there are no sessions"):
            function(no_sessions)
    with pytest.raises(RequestError, match="compares two sessions, and there are 3"):
        paired_test(read(table))
    with pytest.raises(RequestError, match="no session '4'"):
        paired_test(read(table), ("1", "4"))
    assert paired_test(read(table), ("1", "3")).attrs["sessions"] == ["1", "3"]
    with pytest.raises(TableError, match="each participant has one session"):
        change_over_time(read(table[table["visit"] == "1"]))
    with pytest.raises(RequestError, match="time 'years' is not known"):
        change_over_time(read(table), time="years")
    apart = table[(table["visit"] == "1") == (table["participant_id"] < "sub-06")]
    with pytest.raises(TableError, match="0 participants have both sessions"):
        paired_test(read(apart), ("1", "2"))


# Agreement


def test_published_intraclass_correlations_are_matched():
    # Shrout and Fleiss 1979, six targets and four judges: ICC(2,1) = .29, ICC(3,1) = .71.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    found = agreement(np.array(ratings, dtype=float))
    assert found["icc_agreement"] == pytest.approx(0.2898, abs=5e-5)
    assert found["icc_consistency"] == pytest.approx(0.7148, abs=5e-5)
    # Their 95 % intervals, as printed by others for the same data.
    assert [found["icc_agreement_low"], found["icc_agreement_high"]] == pytest.approx(
        [0.0188, 0.7611], abs=5e-4
    )
    assert [found["icc_consistency_low"], found["icc_consistency_high"]] == pytest.approx(
        [0.3425, 0.9459], abs=5e-4
    )


def test_mean_squares_are_those_of_the_analysis_of_variance():
    table, _ = sessions_of(14, sessions=3, seed=14)
    found = reliability_table(read(table)).iloc[0]
    rows = anova_lm(smf.ols("SN ~ C(participant_id) + C(visit)", table).fit())["mean_sq"]
    r, c, e = (rows[k] for k in ("C(participant_id)", "C(visit)", "Residual"))
    assert found["icc_consistency"] == pytest.approx((r - e) / (r + 2 * e), rel=1e-9)
    assert found["icc_agreement"] == pytest.approx(
        (r - e) / (r + 2 * e + 3 / 14 * (c - e)), rel=1e-9
    )
    within = anova_lm(smf.ols("SN ~ C(participant_id)", table).fit())["mean_sq"]["Residual"]
    assert found["repeatability"] == pytest.approx(1.959964 * np.sqrt(2 * within), rel=1e-6)
    assert np.isnan(found["bias"])


def test_limits_of_agreement_and_repeatability():
    table, _ = sessions_of(40, seed=15)
    found = reliability_table(read(table)).iloc[0]
    first, second = (table.loc[table["visit"] == v, "SN"].to_numpy() for v in "12")
    change = second - first
    assert found["bias"] == pytest.approx(change.mean())
    limits = change.mean() + 1.959964 * change.std(ddof=1) * np.array([-1, 1])
    assert [found["loa_low"], found["loa_high"]] == pytest.approx(limits, rel=1e-6)
    assert found["repeatability"] == pytest.approx(1.959964 * np.sqrt((change**2).mean()), rel=1e-6)
    assert found["repeatability_low"] < found["repeatability"] < found["repeatability_high"]


def test_differences_agree_where_offsets_do_not():
    table, _ = sessions_of(30, seed=16)
    table[list(REGIONS)] += np.random.default_rng(2).normal(0, 100, (len(table), 1))
    found = reliability_table(read(table))
    alone, pair = found.iloc[0], found.iloc[2]
    assert alone["icc_agreement"] < 0.6 < 0.9 < pair["icc_agreement"]
    assert pair["repeatability"] < 0.2 * alone["repeatability"]
