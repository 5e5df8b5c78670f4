"""Comparisons of groups: every number is that of the library; what is none is no number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
import statsmodels.formula.api as smf
from cohorts import REGIONS, cohort
from statsmodels.stats.meta_analysis import effectsize_smd
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from qsmref.analysis import compare_groups, compare_summaries, measurements
from qsmref.analysis.families import adjust, family_codes, label_families
from qsmref.analysis.outcomes import outcomes_of
from qsmref.analysis.tables import TableError

COLUMNS = [
    *("region", "reference", "slab_cut_mm", "erosion_mm"),
    *("n_patient", "mean_patient", "sd_patient", "n_control", "mean_control", "sd_control"),
    *("difference", "ci_low", "ci_high", "t", "df", "p", "q_bh", "q_by"),
    *("hedges_g", "g_low", "g_high"),
]


@pytest.fixture(scope="module")
def tables():
    return cohort(33, effect=15.0, seed=4)


def compared(tables, **changes):
    table, people = tables
    options = {"groups": ["patient", "control"], **changes}
    return compare_groups(measurements(table, regions=REGIONS), people, "group", **options)


def values_of(tables, row) -> np.ndarray:
    table = tables[0]
    values = table[row["region"]].to_numpy(copy=True)
    return values - table[row["reference"]].to_numpy() if row["reference"] else values


def halves(tables, row):
    values, group = values_of(tables, row), tables[1]["group"].to_numpy()
    return values[group == "patient"], values[group == "control"]


def test_columns_and_rows_are_those_of_the_file(tables):
    table = compared(tables)
    assert list(table.columns) == [*COLUMNS, "family", "note"]
    assert len(table) == 5 + 10
    assert table["reference"].isna().sum() == 5
    assert list(table.loc[5, ["region", "reference"]]) == ["SN", "RN"]


@pytest.mark.parametrize(("test", "equal"), [("student", True), ("welch", False)])
def test_t_tests_are_those_of_scipy_and_statsmodels(tables, test, equal):
    table = compared(tables, test=test)
    for _, row in table.iterrows():
        one, two = halves(tables, row)
        found = st.ttest_ind(one, two, equal_var=equal)
        assert [row["t"], row["p"], row["df"]] == pytest.approx(
            [found.statistic, found.pvalue, found.df], rel=1e-10
        )
        means = CompareMeans(DescrStatsW(one), DescrStatsW(two))
        interval = means.tconfint_diff(usevar="pooled" if equal else "unequal")
        assert [row["ci_low"], row["ci_high"]] == pytest.approx(interval, rel=1e-9)
        assert row["difference"] == pytest.approx(one.mean() - two.mean(), rel=1e-10)
        assert [row["n_patient"], row["n_control"]] == [len(one), len(two)]
        assert row["sd_patient"] == pytest.approx(one.std(ddof=1), rel=1e-12)


def test_hedges_g_is_that_of_statsmodels(tables):
    for _, row in compared(tables).iterrows():
        one, two = halves(tables, row)
        g, variance = effectsize_smd(
            one.mean(), one.std(ddof=1), len(one), two.mean(), two.std(ddof=1), len(two)
        )
        expected = [g, g - 1.959964 * np.sqrt(variance), g + 1.959964 * np.sqrt(variance)]
        assert list(row[["hedges_g", "g_low", "g_high"]]) == pytest.approx(expected, rel=1e-6)


def test_anova_of_two_groups_is_the_square_of_t(tables):
    anova, student = compared(tables, test="anova"), compared(tables, test="student")
    assert anova["f"].to_numpy() == pytest.approx(student["t"].to_numpy() ** 2, rel=1e-9)
    assert anova["p"].to_numpy() == pytest.approx(student["p"].to_numpy(), rel=1e-8)


def test_anova_of_three_groups_is_that_of_scipy():
    table, people = cohort(31, groups=("a", "b", "c"), effect=10, seed=1)
    found = compare_groups(measurements(table, regions=REGIONS), people, "group")
    assert found.attrs["test"] == "anova"
    for _, row in found.iterrows():
        values = values_of((table, people), row)
        expected = st.f_oneway(*(values[people["group"] == g] for g in "abc"))
        assert [row["f"], row["p"]] == pytest.approx(list(expected), rel=1e-9)
        assert (row["df_between"], row["df"]) == (2, 28)
        assert np.isnan(row["difference"])
        assert 0 <= row["eta_squared"] <= 1


def test_ancova_is_ordinary_least_squares(tables):
    table, people = tables
    found = compared(tables, covariates=["age", "sex"])
    assert found.attrs["test"] == "ancova"
    for _, row in found.iterrows():
        data = people.assign(y=values_of(tables, row))
        model = "y ~ C(group, Treatment('control')) + age + C(sex)"
        fit = smf.ols(model, data).fit()
        name = "C(group, Treatment('control'))[T.patient]"
        expected = [fit.params[name], fit.tvalues[name], fit.pvalues[name], fit.df_resid]
        assert list(row[["difference", "t", "p", "df"]]) == pytest.approx(expected, rel=1e-8)
        interval = fit.conf_int().loc[name]
        assert list(row[["ci_low", "ci_high"]]) == pytest.approx(list(interval), rel=1e-8)


def test_ancova_of_three_groups_is_the_f_test_of_the_groups():
    table, people = cohort(31, groups=("a", "b", "c"), effect=10, seed=1)
    found = compare_groups(
        measurements(table, regions=REGIONS), people, "group", covariates=["age"]
    )
    fit = smf.ols("SN ~ C(group) + age", people.assign(SN=table["SN"])).fit()
    expected = fit.compare_f_test(smf.ols("SN ~ age", people.assign(SN=table["SN"])).fit())
    assert list(found.loc[0, ["f", "p", "df_between"]]) == pytest.approx(list(expected), rel=1e-8)


@pytest.mark.parametrize("groups", [("patient", "control"), ("a", "b", "c")])
def test_ancova_of_rows_with_different_gaps_is_that_of_each_alone(groups):
    table, people = cohort(31, groups=groups, effect=10, seed=1)
    rng = np.random.default_rng(7)
    table[[*REGIONS]] = table[[*REGIONS]].mask(rng.random((31, len(REGIONS))) < 0.1)
    found = compare_groups(
        measurements(table, regions=REGIONS), people, "group", covariates=["age"]
    )
    assert found[f"n_{groups[0]}"].nunique() > 1
    for _, row in found.iterrows():
        data = people.assign(y=values_of((table, people), row)).dropna(subset="y")
        fit = smf.ols("y ~ C(group) + age", data).fit()
        full = fit.compare_f_test(smf.ols("y ~ age", data).fit())
        assert row["p"] == pytest.approx(full[1], rel=1e-8)
        assert row["df"] == fit.df_resid
        if len(groups) == 3:
            share = full[0] * full[2] / (full[0] * full[2] + fit.df_resid)
            assert row["eta_squared"] == pytest.approx(share, rel=1e-8)


def test_numbers_as_categories():
    table, people = cohort(30, seed=2)
    people["site"] = np.arange(30) % 3
    found = compare_groups(
        measurements(table, regions=REGIONS), people, "group", covariates=["C(site)"]
    )
    assert found["df"].iloc[0] == 30 - 2 - 2
    assert found.attrs["covariates"] == ["C(site)=1", "C(site)=2"]


def test_correction_is_that_of_statsmodels_over_the_stated_family(tables):
    table = compared(tables)
    for _, rows in table.groupby("family"):
        for column, method in (("q_bh", "fdr_bh"), ("q_by", "fdr_by")):
            expected = multipletests(rows["p"], method=method)[1]
            assert rows[column].to_numpy() == pytest.approx(expected, rel=1e-12)
    everything = compared(tables, family="all")
    expected = multipletests(everything["p"], method="fdr_bh")[1]
    assert everything["q_bh"].to_numpy() == pytest.approx(expected, rel=1e-12)


def test_families_keep_references_and_coverages_apart():
    rows = pd.DataFrame(
        {
            "region": ["SN", "SN", "SN", "SN"],
            "reference": [None, "brain", "RN", "RN"],
            "slab_cut_mm": [0.0, 0.0, 0.0, 8.0],
            "erosion_mm": 0.0,
        }
    )
    labels = label_families(rows, "kind")
    assert list(labels) == ["alone", "against brain", "pairs", "pairs"]
    assert len(set(family_codes(rows, labels))) == 4
    assert len(set(family_codes(rows, label_families(rows, "coverage")))) == 2
    assert len(set(family_codes(rows, label_families(rows, "all")))) == 1


def test_single_sides_are_a_family_apart_where_both_sides_are_there():
    rows = pd.DataFrame({"region": ["SN", "SN_L", "SN_L", "RN_L"], "reference": "GP"})
    rows.loc[2, "reference"] = None
    expected = ["pairs", "pairs, one side", "alone, one side", "pairs"]
    assert list(label_families(rows, "kind")) == expected


def test_rows_without_a_test_do_not_count_in_the_correction():
    p = np.array([0.01, np.nan, 0.04])
    assert adjust(p)[[0, 2]] == pytest.approx(multipletests(p[[0, 2]], method="fdr_bh")[1])
    assert np.isnan(adjust(p)[1])


def test_long_differences_give_the_same_as_regions(tables):
    table, people = tables
    outcomes = outcomes_of(measurements(table, regions=REGIONS))
    values = outcomes.values()
    rows = [
        {
            "participant_id": who,
            "region": r["region"],
            "reference": "n/a" if r["reference"] is None else r["reference"],
            "difference": values[i, j],
        }
        for j, (_, r) in enumerate(outcomes.rows.iterrows())
        for i, who in enumerate(outcomes.participants)
    ]
    shuffled = pd.DataFrame(rows).sample(frac=1, random_state=1)
    found = compare_groups(shuffled, people, "group", groups=["patient", "control"])
    both = found.merge(compared(tables), on=["region", "reference"], suffixes=("", "_regions"))
    turned = found.merge(
        compared(tables), left_on=["region", "reference"], right_on=["reference", "region"]
    )
    assert len(both) + len(turned) == 15
    assert both["t"].to_numpy() == pytest.approx(both["t_regions"].to_numpy(), rel=1e-9)
    assert turned["t_x"].to_numpy() == pytest.approx(-turned["t_y"].to_numpy(), rel=1e-9)


def test_pairs_that_stand_the_other_way_round_are_turned():
    people = pd.DataFrame({"participant_id": list("abcd"), "group": list("xxyy")})
    rows = [("a", "SN", "RN", 5.0), ("b", "RN", "SN", -7.0), ("c", "SN", "RN", 1.0)]
    rows.append(("d", "SN", "RN", 2.0))
    names = ["participant_id", "region", "reference", "difference"]
    found = compare_groups(pd.DataFrame(rows, columns=names), people, "group")
    assert len(found) == 1
    assert (found["mean_x"].iloc[0], found["mean_y"].iloc[0]) == (6.0, 1.5)


def test_the_order_of_rows_does_not_matter(tables):
    table, people = tables
    mixed = (table.sample(frac=1, random_state=3), people.sample(frac=1, random_state=5))
    pd.testing.assert_frame_equal(compared(tables), compared(mixed), rtol=1e-9)
    with_age = {"covariates": ["age"]}
    pd.testing.assert_frame_equal(
        compared(tables, **with_age), compared(mixed, **with_age), rtol=1e-7
    )


@pytest.mark.parametrize("test", ["student", "welch", "anova", "permutation"])
def test_offsets_move_regions_and_no_difference(tables, test):
    table, people = tables
    moved = table.copy()
    moved[list(REGIONS)] += np.random.default_rng(9).normal(0, 1000, (len(table), 1))
    options = {"test": test, "permutations": 200}
    before, after = compared(tables, **options), compared((moved, people), **options)
    pairs = before["reference"].notna()
    assert after.loc[pairs, "t"].to_numpy() == pytest.approx(
        before.loc[pairs, "t"].to_numpy(), rel=1e-9
    )
    assert (after.loc[pairs, "p"] - before.loc[pairs, "p"]).abs().max() < 1e-10
    assert (after.loc[~pairs, "p"] - before.loc[~pairs, "p"]).abs().max() > 0.01


def test_n_is_of_the_row_and_gaps_are_left_out(tables):
    table, people = tables
    gappy = table.copy()
    gappy.loc[[0, 2, 5], "SN"] = np.nan
    gappy.loc[1, "CN"] = np.nan
    for test in ("student", "welch", "anova"):
        found = compared((gappy, people), test=test)
        for _, row in found.iterrows():
            one, two = (v[np.isfinite(v)] for v in halves((gappy, people), row))
            assert [row["n_patient"], row["n_control"]] == [len(one), len(two)]
            expected = st.ttest_ind(one, two, equal_var=test != "welch")
            assert [row["t"], row["p"]] == pytest.approx(list(expected)[:2], rel=1e-9)
    adjusted = compared((gappy, people), covariates=["age"])
    data = people.assign(y=gappy["SN"] - gappy["CN"]).dropna()
    fit = smf.ols("y ~ C(group) + age", data).fit()
    row = adjusted[(adjusted["region"] == "SN") & (adjusted["reference"] == "CN")].iloc[0]
    assert row["t"] == pytest.approx(fit.tvalues["C(group)[T.patient]"], rel=1e-8)


def test_what_cannot_be_tested_has_a_note_and_no_number(tables):
    table, people = tables
    odd = table.copy()
    odd["RN"] = 7.0
    odd["CN"] = np.nan
    odd.loc[people["group"] == "control", "GP"] = np.nan
    odd.loc[1, "GP"] = 3.0
    odd["PU"] = odd["SN"] + 4.0
    result = ["difference", "ci_low", "ci_high", "t", "df", "p", "q_bh", "q_by"]
    result += ["hedges_g", "g_low", "g_high"]
    for options in ({}, {"covariates": ["age"]}, {"test": "permutation", "permutations": 99}):
        found = compared((odd, people), **options)
        notes = {(r["region"], r["reference"]): r["note"] for _, r in found.iterrows()}
        assert notes["RN", None] == "constant: no scatter within any group"
        assert notes["CN", None] == notes["SN", "CN"] == "no participant has a value"
        assert notes["GP", None] == "too few participants with a value: 1 in control"
        assert notes["SN", "PU"] == "constant: no scatter within any group"
        without = found["note"].notna()
        assert found.loc[without, result].isna().all(axis=None)
        assert found.loc[~without, result].notna().all(axis=None)


def test_a_constant_difference_of_varying_regions_is_seen_through_rounding(tables):
    table, people = tables
    odd = table.assign(PU=table["SN"] + 0.1)
    odd[list(REGIONS)] = odd[list(REGIONS)] + 1e5
    found = compared((odd, people)).set_index(["region", "reference"])
    assert found.loc[("SN", "PU"), "note"] == "constant: no scatter within any group"


def test_covariates_that_explain_everything_leave_nothing_to_test():
    table, people = cohort(20, seed=6)
    table["SN"] = 2.5 * people["age"] + 3
    found = compare_groups(
        measurements(table, regions=REGIONS), people, "group", covariates=["age"]
    )
    assert found["note"].iloc[0] == "constant: no scatter beside groups and covariates"
    assert np.isnan(found["p"].iloc[0]) and np.isnan(found["difference"].iloc[0])


def test_published_summaries_are_matched():
    # Substantia nigra in Parkinson's disease against controls, ppb (PMC5765262).
    found = compare_summaries(125.81, 16.27, 38, 98.41, 11.70, 25)
    t, p = st.ttest_ind_from_stats(125.81, 16.27, 38, 98.41, 11.70, 25)
    assert (found["t"], found["p"]) == (t, p)
    pooled = np.sqrt((37 * 16.27**2 + 24 * 11.70**2) / 61)
    assert found["hedges_g"] == pytest.approx(27.4 / pooled * (1 - 3 / (4 * 63 - 9)), rel=1e-12)
    assert found["t"] == pytest.approx(7.266, abs=5e-4)
    assert found["hedges_g"] == pytest.approx(1.848, abs=5e-4)
    assert found["g_low"] < 1.39 < found["g_high"]  # meta-analysis: 1.13 [0.86, 1.39]


@pytest.mark.parametrize("equal", [True, False])
def test_summaries_are_those_of_samples_with_these_moments(equal):
    rng = np.random.default_rng(1)
    one, two = rng.normal(size=38), rng.normal(size=25)
    one = 125.81 + 16.27 * (one - one.mean()) / one.std(ddof=1)
    two = 98.41 + 11.70 * (two - two.mean()) / two.std(ddof=1)
    found = compare_summaries(125.81, 16.27, 38, 98.41, 11.70, 25, equal_variance=equal)
    expected = st.ttest_ind(one, two, equal_var=equal)
    interval = expected.confidence_interval()
    assert [found["t"], found["df"], found["ci_low"], found["ci_high"]] == pytest.approx(
        [expected.statistic, expected.df, interval.low, interval.high], rel=1e-9
    )
    with pytest.raises(TableError, match="two participants"):
        compare_summaries(1, 1, 1, 2, 1, 5)
