"""The test of all differences: no offset, no base and no unit changes it."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from cohorts import REGIONS, cohort
from statsmodels.multivariate.manova import MANOVA
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multivariate import test_mvmean_2indep as mvmean_2indep
from statsmodels.stats.outliers_influence import variance_inflation_factor

from qsmref.analysis import measurements, omnibus_test
from qsmref.analysis.cohort import omnibus_names
from qsmref.analysis.tables import RequestError, TableError


def omnibus_of(tables, **options):
    table, people = tables
    options = {"permutations": 300, **options}
    return omnibus_test(measurements(table, regions=REGIONS), people, "group", **options)


@pytest.fixture(scope="module")
def tables():
    return cohort(31, effect=14.0, seed=2)


@pytest.mark.parametrize("covariates", [(), ("age", "sex")])
@pytest.mark.parametrize("scale", [10.0, 1e3, 1e5])
def test_no_offset_of_a_participant_changes_it(tables, covariates, scale):
    table, people = tables
    moved = table.copy()
    moved[list(REGIONS)] += np.random.default_rng(3).normal(0, scale, (len(table), 1))
    before, after = (omnibus_of(t, covariates=covariates) for t in (tables, (moved, people)))
    numbers = ["t2", "wilks", "f", "p", "p_permutation"]
    difference = after.table[numbers] - before.table[numbers]
    assert (difference.abs() <= 1e-10 * before.table[numbers].abs()).all(axis=None)
    numbers = ["weight", "t2_without", "f", "p"]
    assert after.drivers[numbers].to_numpy() == pytest.approx(
        before.drivers[numbers].to_numpy(), rel=1e-9, abs=1e-10
    )


@pytest.mark.parametrize("base", REGIONS)
def test_it_is_the_same_whatever_region_is_the_base(tables, base):
    first, other = omnibus_of(tables), omnibus_of(tables, base=base)
    for name in ("t2", "f", "p"):
        assert other.table[name].iloc[0] == pytest.approx(first.table[name].iloc[0], rel=1e-10)
    assert (other.table["p_permutation"] == first.table["p_permutation"]).all()
    assert other.drivers["f"].to_numpy() == pytest.approx(first.drivers["f"].to_numpy(), rel=1e-10)


def test_it_is_hotellings_test_of_statsmodels(tables):
    table, people = tables
    differences = table[list(REGIONS[1:])].to_numpy() - table[["SN"]].to_numpy()
    patient = (people["group"] == "patient").to_numpy()
    expected = mvmean_2indep(differences[patient], differences[~patient])
    row = omnibus_of(tables).table.iloc[0]
    assert [row["t2"], row["f"], row["p"]] == pytest.approx(
        [expected.t2, expected.statistic, expected.pvalue], rel=1e-9
    )
    assert (row["df_between"], row["df"]) == expected.df


@pytest.mark.parametrize("groups", [("a", "b"), ("a", "b", "c")])
def test_with_covariates_or_more_groups_it_is_manova(groups):
    table, people = cohort(33, groups=groups, effect=10.0, seed=5)
    found = omnibus_of((table, people), covariates=["age"]).table.iloc[0]
    data = people.assign(**{r: table[r] - table["PU"] for r in REGIONS[:4]})
    result = MANOVA.from_formula("SN + RN + CN + GP ~ C(group) + age", data).mv_test()
    wilks = result.results["C(group)"]["stat"].loc["Wilks' lambda"]
    assert [found["wilks"], found["f"], found["p"]] == pytest.approx(
        [wilks["Value"], wilks["F Value"], wilks["Pr > F"]], rel=1e-8
    )


def test_two_regions_are_the_t_test_of_their_difference(tables):
    table, people = tables
    patient = (people["group"] == "patient").to_numpy()
    difference = (table["SN"] - table["CN"]).to_numpy()
    expected = st.ttest_ind(difference[patient], difference[~patient])
    found = omnibus_of(tables, regions=["SN", "CN"])
    assert found.table["t2"].iloc[0] == pytest.approx(expected.statistic**2, rel=1e-9)
    assert found.drivers["p"].to_numpy() == pytest.approx([expected.pvalue] * 2, rel=1e-8)


def test_drivers_are_the_groups_given_all_other_differences(tables):
    table, people = tables
    drivers = omnibus_of(tables).drivers.set_index("region")
    group = (people["group"] == "patient").to_numpy(float)
    for name in REGIONS:
        others = [r for r in REGIONS if r != name]
        base = table[others[0]]
        given = (table[others[1:]].to_numpy().T - base.to_numpy()).T
        fit = OLS(table[name] - base, np.column_stack([group, np.ones(31), given])).fit()
        assert drivers.loc[name, "f"] == pytest.approx(fit.tvalues.iloc[0] ** 2, rel=1e-8)
        assert drivers.loc[name, "p"] == pytest.approx(fit.pvalues.iloc[0], rel=1e-8)
    assert drivers["f"].idxmax() == "SN"
    assert drivers["weight"].abs().idxmax() == "SN"
    assert np.linalg.norm(drivers["weight"]) == pytest.approx(1)
    whole = omnibus_of(tables).table["t2"].iloc[0]
    assert (drivers["t2_without"] <= whole * (1 + 1e-9)).all()


def test_permutations_of_two_small_groups_are_exact():
    table, people = cohort(9, effect=15.0, seed=3)
    patient = (people["group"] == "patient").to_numpy()
    values = (table[["SN", "RN"]].to_numpy().T - table["GP"].to_numpy()).T

    def t2(one, two, axis=0):
        order = np.concatenate([one, two]).astype(int)
        return mvmean_2indep(values[order[: len(one)]], values[order[len(one) :]]).t2

    index = np.arange(9)
    exact = st.permutation_test(
        (index[patient], index[~patient]), t2, vectorized=False, alternative="greater"
    )
    found = omnibus_of((table, people), regions=["SN", "RN", "GP"], permutations=1000)
    assert found.table["p_permutation"].iloc[0] == pytest.approx(exact.pvalue, abs=1e-12)


def test_coverages_are_tested_one_by_one(tables):
    table, people = tables
    measured = measurements(table, regions=REGIONS)
    noise = np.random.default_rng(2).normal(0, 4, measured.values.shape)
    both = np.concatenate([measured.values, measured.values + noise], axis=1)
    from dataclasses import replace

    double = replace(measured, values=both, coverages=((0.0, 0.0), (8.0, 0.0)))
    single = replace(measured, values=measured.values + noise)
    found = omnibus_test(double, people, "group", permutations=200)
    for k, one in enumerate((measured, single)):
        expected = omnibus_test(one, people, "group", permutations=200)
        for name in ("t2", "p", "p_permutation"):
            assert found.table[name].iloc[k] == pytest.approx(expected.table[name].iloc[0])
    assert list(found.drivers["slab_cut_mm"].unique()) == [0.0, 8.0]


def test_who_lacks_a_region_is_left_out_and_listed(tables):
    table, people = tables
    gappy = table.copy()
    gappy.loc[[1, 4], "RN"] = np.nan
    found = omnibus_of((gappy, people))
    assert dict(found.excluded) == {"sub-02": "has no RN", "sub-05": "has no RN"}
    keep = table.index.difference([1, 4])
    expected = omnibus_of((table.loc[keep], people.loc[keep]))
    assert found.table["t2"].iloc[0] == pytest.approx(expected.table["t2"].iloc[0], rel=1e-9)
    assert found.table["n_patient"].iloc[0] + found.table["n_control"].iloc[0] == 29


def test_a_region_that_nobody_has_is_dropped(tables):
    table, people = tables
    found = omnibus_of((table.assign(GP=np.nan), people)).table.iloc[0]
    expected = omnibus_of(tables, regions=["SN", "RN", "CN", "PU"]).table.iloc[0]
    assert found["n_regions"] == 4
    assert found["t2"] == pytest.approx(expected["t2"], rel=1e-10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(GP=(t["SN"] + t["RN"]) / 2), "some regions follow from the others"),
        (lambda t: t.assign(GP=t["SN"] + 1), "do not vary|follow from the others"),
        (
            lambda t: t.iloc[:7],
            "7 participants have all 7 regions and allow 5 independent differences of 6",
        ),
        (lambda t: t.assign(GP=t["GP"].where(t.index == 0)), "too few participants have all"),
    ],
)
def test_what_cannot_be_tested_is_said(tables, change, words):
    table, people = tables
    names = [*REGIONS, "x", "y"]
    rng = np.random.default_rng(1)
    wide = table.assign(x=rng.normal(size=31), y=rng.normal(size=31))
    measured = measurements(change(wide), regions=names)
    found = omnibus_test(measured, people, "group", permutations=50)
    note = found.table["note"].iloc[0]
    assert pd.Series([note]).str.contains(words).all(), note
    assert np.isnan(found.table["p"].iloc[0]) and found.drivers.empty


def test_requests(tables):
    with pytest.raises(RequestError, match="no region 'SM'; did you mean 'SN'"):
        omnibus_of(tables, regions=["SM", "RN"])
    with pytest.raises(RequestError, match="base 'XX'"):
        omnibus_of(tables, base="XX")
    with pytest.raises(TableError, match="needs two regions"):
        omnibus_of(tables, regions=["SN"])


def test_single_precision_gives_the_same_p(monkeypatch):
    from qsmref.analysis import omnibus

    table, people = cohort(60, effect=8.0, seed=5)
    measured = measurements(table, regions=REGIONS)
    found = {}
    for least in (0, 1000):
        monkeypatch.setattr(omnibus, "_SINGLE", least)
        for covariates in ((), ("age",)):
            made = omnibus_test(measured, people, "group", permutations=2000, covariates=covariates)
            found[least, covariates] = made.table["p_permutation"].iloc[0]
    for covariates in ((), ("age",)):
        assert 0.0005 < found[0, covariates] < 0.9
        assert found[0, covariates] == pytest.approx(found[1000, covariates], abs=1e-3)


@pytest.mark.parametrize("groups", [("a", "b"), ("a", "b", "c")])
def test_what_covariates_cost_is_told_in_the_numbers_of_the_plain_test(groups):
    tables = cohort(24, groups=groups, effect=10.0, seed=5)
    plain, found = (omnibus_of(tables, covariates=c).table.iloc[0] for c in ((), ("age", "sex")))
    assert found["df"] < found["df_unadjusted"] == pytest.approx(plain["df"], rel=1e-12)
    before, needed = (st.f.isf(0.05, r["df_between"], r["df"]) for r in (plain, found))
    assert f"needs F above {needed:.3g} instead of {before:.3g}." in found["adjustment"]
    assert "in 24 participants" in found["adjustment"]
    assert plain["adjustment"] is None and np.isnan(plain["variance_inflation"])


def test_confounding_is_the_variance_inflation_of_the_group():
    table, people = cohort(30, effect=10.0, seed=5)
    patient = (people["group"] == "patient").to_numpy(float)
    people["age"] += 6 * patient
    found = omnibus_of((table, people), covariates=["age", "sex"]).table.iloc[0]
    sex = (people["sex"] == "M").to_numpy(float)
    exog = np.column_stack([np.ones(30), patient, people["age"], sex])
    assert found["variance_inflation"] == pytest.approx(variance_inflation_factor(exog, 1))
    one, two = (people.loc[patient == k, "age"] for k in (1, 0))
    sd = np.sqrt((14 * one.var() + 14 * two.var()) / 28)
    assert f"{abs(one.mean() - two.mean()) / sd:.2f} SD in age" in found["adjustment"]
    assert f"by {found['variance_inflation']:.2f}." in found["adjustment"]


def test_few_degrees_of_freedom_make_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = omnibus_of(cohort(10, seed=3), covariates=["age"])
    assert found.table["df"].iloc[0] == 4


def test_nuclei_are_compared_at_once_and_tissues_are_not():
    names = [
        "GM",
        "CSF_P",
        "vein",
        "WM",
        "brain",
        "SN_L",
        "SN_R",
        "SN",
        "GP_L",
        "GP_R",
        "GP",
        "DN_L",
    ]
    sides = ["n/a"] * 5 + ["L", "R", "both", "L", "R", "both", "L"]
    assert omnibus_names(names, sides) == ("SN", "GP", "DN_L")
    # Of an atlas without nuclei, what it has.
    assert omnibus_names(names[:5], sides[:5]) == ("GM", "CSF_P", "vein")
