"""Permutation tests against scipy's, and what max-T must obey."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats as st
from cohorts import REGIONS, cohort

from qsmref.analysis import compare_groups, measurements
from qsmref.analysis.design import make_design
from qsmref.analysis.families import family_codes, label_families
from qsmref.analysis.outcomes import outcomes_of
from qsmref.analysis.permutation import Permutations, permutation_p


def size(one, two, axis=0):
    return np.abs(st.ttest_ind(one, two, axis=axis).statistic)


@pytest.fixture(scope="module")
def small():
    return cohort(9, effect=14.0, offset=5.0, seed=3)


def compared(tables, **options):
    table, people = tables
    return compare_groups(
        measurements(table, regions=REGIONS), people, "group", test="permutation", **options
    )


def test_all_arrangements_give_the_exact_p_of_scipy(small):
    table, people = small
    found = compared(small)
    assert found.attrs["permutations"] == 126  # 9 choose 4
    patient = (people["group"] == "patient").to_numpy()
    for _, row in found.iterrows():
        values = table[row["region"]].to_numpy(copy=True)
        values -= 0 if row["reference"] is None else table[row["reference"]].to_numpy()
        exact = st.permutation_test(
            (values[patient], values[~patient]), size, vectorized=True, alternative="greater"
        )
        assert row["p"] == pytest.approx(exact.pvalue, abs=1e-12)


def test_family_wise_p_is_that_of_the_largest_statistic(small):
    table, people = small
    found = compared(small)
    patient = (people["group"] == "patient").to_numpy()
    outcomes = outcomes_of(measurements(table, regions=REGIONS))
    pairs = outcomes.rows["reference"].notna().to_numpy()
    values = outcomes.values()[:, pairs]

    def largest(one, two, axis=0):
        # scipy gives indices of participants, the same for all differences.
        order = np.concatenate([one, two]).astype(int)
        return np.nanmax(size(values[order[: len(one)]], values[order[len(one) :]]))

    index = np.arange(9)
    exact = st.permutation_test(
        (index[patient], index[~patient]), largest, vectorized=False, alternative="greater"
    )
    rows = found[found["reference"].notna()]
    top = rows.loc[rows["t"].abs().idxmax()]
    assert top["p_fwe"] == pytest.approx(exact.pvalue, abs=1e-12)
    for _, row in rows.iterrows():
        expected = np.mean(exact.null_distribution >= abs(row["t"]) * (1 - 1e-9))
        assert row["p_fwe"] == pytest.approx(expected, abs=1e-12)
    assert (rows["p_fwe"] >= rows["p"]).all()


def test_a_family_of_one_row_has_the_p_of_the_row(small):
    table, people = small
    found = compare_groups(
        measurements(table, regions=["SN", "RN"]), people, "group", test="permutation"
    )
    pair = found.iloc[2]
    assert pair["p_fwe"] == pair["p"]


def test_random_permutations_come_near_the_exact_p_and_depend_on_the_seed_only(small):
    exact = compared(small)
    first = compared(small, permutations=125, seed=5)
    second = compared(small, permutations=125, seed=5)
    assert (first["p"] == second["p"]).all() and (first["p_fwe"] == second["p_fwe"]).all()
    assert (first["p"] - exact["p"]).abs().max() < 4 * np.sqrt(0.25 / 125)
    assert (first["p"] >= 1 / 126).all()


def test_covariates_are_permuted_by_freedman_and_lane():
    table, people = cohort(24, effect=8.0, seed=8)
    measured = measurements(table, regions=REGIONS)
    options = {"covariates": ["age"], "test": "permutation", "permutations": 400, "seed": 2}
    found = compare_groups(measured, people, "group", **options)
    adjusted = compare_groups(measured, people, "group", covariates=["age"])
    assert found["t"].to_numpy() == pytest.approx(adjusted["t"].to_numpy(), rel=1e-9)
    # By hand: fit without the groups, permute the residuals, fit with the groups.
    design = make_design(people, measured.participants, "group", covariates=["age"])
    outcomes = outcomes_of(measured)
    plan = Permutations.of(design, 400, 2)
    null = np.column_stack([np.ones(24), people["age"]])
    full = np.column_stack([null, people["group"] == "patient"])
    values = outcomes.values()
    fitted = null @ np.linalg.lstsq(null, values, rcond=None)[0]

    def f(y):
        residual = [y - m @ np.linalg.lstsq(m, y, rcond=None)[0] for m in (null, full)]
        rss = [(r**2).sum(axis=0) for r in residual]
        return (rss[0] - rss[1]) / (rss[1] / (24 - 3))

    observed, count = f(values), np.zeros(values.shape[1])
    for orders in plan.chunks():
        for order in orders:
            # The design is permuted in the module, the residuals here: the inverse order.
            count += f(fitted + (values - fitted)[np.argsort(order)]) >= observed * (1 - 1e-9)
    assert found["p"].to_numpy() == pytest.approx((count + 1) / 401, abs=1e-12)


def test_three_groups_are_permuted_by_their_f():
    table, people = cohort(21, groups=("a", "b", "c"), effect=14.0, seed=3)
    measured = measurements(table, regions=REGIONS)
    found = compare_groups(measured, people, "group", test="permutation", permutations=2000)
    anova = compare_groups(measured, people, "group", test="anova")
    assert found["f"].to_numpy() == pytest.approx(anova["f"].to_numpy())
    assert (found["p"] - anova["p"]).abs().max() < 0.05
    assert (found["p_fwe"] >= found["p"]).all()


@pytest.mark.parametrize("covariates", [(), ("age",)])
def test_rows_with_gaps_use_those_who_have_the_value(covariates):
    table, people = cohort(26, effect=10.0, seed=11)
    table.loc[[0, 3, 4], "SN"] = np.nan
    table.loc[[1], "RN"] = np.nan
    measured = measurements(table, regions=REGIONS)
    options = {"covariates": covariates, "test": "permutation", "permutations": 3000}
    found = compare_groups(measured, people, "group", **options)
    other = compare_groups(measured, people, "group", covariates=covariates)
    assert found["n_patient"].iloc[0] == 13 - 2
    assert (found["p"] - other["p"]).abs().max() < 0.04
    # A row without gaps has the same p whether or not others have gaps.
    whole = measurements(table.fillna(1.0), regions=REGIONS)
    full = compare_groups(whole, people, "group", **options)
    assert found["p"].iloc[[2, 3, 4]].to_list() == full["p"].iloc[[2, 3, 4]].to_list()


def test_statistics_of_rows_with_gaps_are_those_of_the_test():
    table, people = cohort(26, effect=10.0, seed=11)
    table.loc[[0, 3, 4], "SN"] = np.nan
    outcomes = outcomes_of(measurements(table, regions=REGIONS))
    design = make_design(people, outcomes.participants, "group")
    codes = family_codes(outcomes.rows, label_families(outcomes.rows))
    skip = np.ones(len(outcomes), dtype=bool)
    skip[0] = False
    p, p_fwe, count = permutation_p(outcomes, design, codes, skip, 5000, 1)
    assert count == 5000 and p[0] == p_fwe[0] and np.isnan(p[1:]).all()
    there = table["SN"].notna().to_numpy()
    patient = (people["group"] == "patient").to_numpy()
    values = table["SN"].to_numpy()
    expected = st.permutation_test(
        (values[there & patient], values[there & ~patient]),
        size,
        n_resamples=5000,
        vectorized=True,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    assert p[0] == pytest.approx(expected.pvalue, abs=5 * np.sqrt(0.25 / 5000))


def test_ties_are_ties():
    # Two values only: a permutation that gives the same split has the same statistic.
    table, people = cohort(10, seed=2)
    table["SN"] = [0.1, 0.1, 0.7, 0.1, 0.7, 0.1, 0.7, 0.7, 0.7, 0.1]
    found = compare_groups(
        measurements(table, regions=["SN", "RN"]), people, "group", test="permutation"
    ).iloc[0]
    patient = (people["group"] == "patient").to_numpy()
    high = (table["SN"] > 0.5).to_numpy()
    a, b = int((high & patient).sum()), int((high & ~patient).sum())
    exact = st.fisher_exact([[a, 5 - a], [b, 5 - b]]).pvalue
    assert found["p"] == pytest.approx(exact, abs=1e-12)
