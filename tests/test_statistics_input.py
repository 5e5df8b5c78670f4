"""Tables that cannot be used: one sentence that names what is wrong, never a number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import REGIONS, cohort

from qsmref.analysis import compare_groups, measurements
from qsmref.analysis.design import make_design
from qsmref.analysis.doubts import mixed_units, unit_doubt
from qsmref.analysis.outcomes import outcomes_of_differences
from qsmref.analysis.tables import RequestError, TableError


@pytest.fixture
def wide():
    return cohort(8, seed=1)[0]


@pytest.fixture
def people():
    return cohort(8, seed=1)[1]


def read(table, **options):
    return measurements(table, regions=options.pop("regions", REGIONS), **options)


# Tables of regions


def test_units_are_factors_to_ppb(wide):
    ppb = read(wide).values
    assert read(wide, units="ppm").values == pytest.approx(1000 * ppb)
    with pytest.raises(RequestError, match="unit 'ppt' is not known.*ppb, ppm"):
        read(wide, units="ppt")


def test_wide_and_long_tables_hold_the_same(wide):
    long = wide.melt("participant_id", var_name="roi", value_name="chi")
    found = measurements(
        long.sample(frac=1, random_state=2), region_column="roi", value_column="chi"
    )
    first = read(wide)
    order = [list(found.participants).index(p) for p in first.participants]
    at = [found.regions.index(r) for r in first.regions]
    assert (found.values[order][:, :, at] == first.values).all()


def test_texts_are_read_as_numbers_and_gaps_as_gaps(wide):
    text = wide.astype(object).map(lambda v: f" {v:.12g}" if isinstance(v, float) else v)
    text.loc[0, "SN"], text.loc[1, "SN"], text.loc[2, "SN"] = "n/a", "", "NaN"
    found = read(text).values
    assert np.isnan(found[:3, 0, 0]).all()
    assert found[3:] == pytest.approx(read(wide).values[3:])


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("abc", "column 'SN', sub-03: 'abc' is not a finite number"),
        ("12,5", "decimal point"),
        ("inf", "not a finite number"),
    ],
)
def test_a_cell_that_is_no_number_is_named(wide, cell, words):
    text = wide.astype(object)
    text.loc[2, "SN"] = cell
    with pytest.raises(TableError, match=words):
        read(text)


def test_infinite_numbers_are_refused(wide):
    wide.loc[2, "SN"] = np.inf
    with pytest.raises(TableError, match="sub-03: 'inf' is not a finite number"):
        read(wide)


def test_a_wrong_region_is_answered_with_the_right_one(wide):
    with pytest.raises(RequestError, match="no column 'sn'; did you mean 'SN'"):
        read(wide, regions=["sn", "RN"])
    with pytest.raises(RequestError, match="'SN' is asked for twice"):
        read(wide, regions=["SN", "SN"])
    with pytest.raises(RequestError, match="say which columns are regions"):
        read(wide, regions=[])
    long = wide.melt("participant_id", var_name="roi", value_name="chi")
    with pytest.raises(RequestError, match="no region 'SNN'; did you mean 'SN'"):
        read(long, regions=["SNN"], region_column="roi", value_column="chi")
    with pytest.raises(RequestError, match="both the column"):
        read(long, region_column="roi")


def test_a_participant_twice_is_refused_and_sessions_are_offered(wide):
    twice = pd.concat([wide, wide.iloc[[3]]])
    with pytest.raises(TableError, match="sub-04 stands in more than one row; if these are visits"):
        read(twice)
    twice["visit"] = [1] * 8 + [1]
    with pytest.raises(TableError, match="sub-04 stands twice with session 1"):
        read(twice, session_column="visit")
    twice["visit"] = [1] * 8 + [2]
    assert len(read(twice, session_column="visit").participants) == 9
    long = wide.melt("participant_id", var_name="roi", value_name="chi")
    with pytest.raises(TableError, match="sub-01 has region 'SN' twice"):
        measurements(pd.concat([long, long.iloc[[0]]]), region_column="roi", value_column="chi")


def test_rows_without_participant_or_session(wide):
    wide["visit"] = "1"
    wide.loc[4, "visit"] = "n/a"
    with pytest.raises(TableError, match="sub-05 has a row without visit"):
        read(wide, session_column="visit")
    wide.loc[1, "participant_id"] = ""
    with pytest.raises(TableError, match="row 2: there is nothing in the column 'participant_id'"):
        read(wide)
    with pytest.raises(TableError, match="has no rows"):
        read(wide.iloc[:0])


def test_a_unit_that_cannot_be_is_doubted():
    table, _ = cohort(8, offset=3.0)
    table[list(REGIONS)] += 100
    assert "is it ppb" in unit_doubt(read(table, units="ppm"), "ppm")
    small = table.assign(**{r: table[r] / 1000 for r in REGIONS})
    assert "is it ppm" in unit_doubt(read(small), "ppb")
    assert unit_doubt(read(table), "ppb") is None
    empty = read(table.assign(**dict.fromkeys(REGIONS, np.nan)))
    assert unit_doubt(empty, "ppb") is None


def test_a_region_or_a_participant_in_another_unit_is_doubted():
    table, _ = cohort(8, offset=3.0)
    assert mixed_units(read(table)) == []
    region, who = REGIONS[1], table["participant_id"].iloc[3]
    for factor in (1000, 1 / 1000):
        one = table.assign(**{region: table[region] * factor})
        (sentence,) = mixed_units(read(one))
        assert f"values of {region} differ a hundredfold" in sentence
    # A row of another unit moves the scatter of every region alike.
    row = table.copy()
    row[list(REGIONS)] += 60
    assert mixed_units(read(row)) == []
    row.loc[3, list(REGIONS)] /= 1000
    (sentence,) = mixed_units(read(row))
    assert f"values of {who} differ" in sentence
    # The reference of the map is zero in everybody, and a gap is no number.
    zero = table.assign(**{region: 0.0, REGIONS[2]: np.nan})
    assert mixed_units(read(zero)) == []


def test_a_long_table_of_differences_is_checked():
    rows = [("a", "SN", "RN", 1.0), ("a", "RN", "SN", 2.0)]
    names = ["participant_id", "region", "reference", "difference"]
    with pytest.raises(TableError, match="a has RN - SN twice"):
        outcomes_of_differences(pd.DataFrame(rows, columns=names))
    with pytest.raises(TableError, match="no column 'difference'"):
        outcomes_of_differences(pd.DataFrame(rows, columns=[*names[:3], "diff"]))
    with pytest.raises(TableError, match="rows without region"):
        outcomes_of_differences(pd.DataFrame([("a", None, "RN", 1.0)], columns=names))
    covers = pd.DataFrame(rows[:1] * 2, columns=names)
    covers["slab_cut_mm"], covers["erosion_mm"] = [np.nan, 8.0], [0.0, 0.0]
    made = outcomes_of_differences(covers)
    assert list(made.rows["slab_cut_mm"]) == [0.0, 8.0]


# Groups and covariates


def design(people, **options):
    ids = options.pop("ids", list(people["participant_id"]))
    return make_design(people, ids, options.pop("column", "group"), **options)


def test_groups_are_in_the_order_that_was_asked_for_or_of_the_alphabet(people):
    assert design(people).groups == ("control", "patient")
    assert design(people, groups=["patient", "control"]).groups == ("patient", "control")


def test_a_wrong_group_or_column_is_answered_with_the_right_one(people):
    with pytest.raises(RequestError, match="no group 'patients'.*did you mean 'patient'"):
        design(people, groups=["patients", "control"])
    with pytest.raises(RequestError, match="no column 'Group'; did you mean 'group'"):
        design(people, column="Group")
    with pytest.raises(RequestError, match="no column 'ages'; did you mean 'age'"):
        design(people, covariates=["ages"])
    with pytest.raises(RequestError, match="a group is named twice"):
        design(people, groups=["patient", "patient"])


def test_labels_are_compared_as_text(people):
    numbered = people.assign(group=[1.0, 2.0] * 4)
    assert design(numbered, groups=["1", "2"]).groups == ("1", "2")
    zeros = people.assign(group=["01", "02"] * 4)
    assert design(zeros).groups == ("01", "02")


def test_one_group_or_too_many(people):
    with pytest.raises(TableError, match="one group only \\('x'"):
        design(people.assign(group="x"))
    with pytest.raises(TableError, match="the column 'group' is empty"):
        design(people.assign(group="n/a"))
    many = pd.concat([people] * 3, ignore_index=True)
    many["participant_id"] = [f"s{k}" for k in range(24)]
    with pytest.raises(RequestError, match="24 different values.*which are no groups"):
        design(many, column="participant_id", ids=[f"s{k}" for k in range(24)])


def test_one_participant_in_a_group_is_no_group(people):
    lone = people.assign(group=["patient"] + ["control"] * 7)
    with pytest.raises(TableError, match="'patient' has 1 participant \\(sub-01\\).*needs 2"):
        design(lone)
    with pytest.raises(TableError, match="'patient' has 0 participants.*sub-01 has no age"):
        design(lone.assign(age=[np.nan] + [50.0] * 7), covariates=["age"])


def test_a_participant_in_two_rows(people):
    twice = pd.concat([people, people.iloc[[2]]])
    with pytest.raises(
        TableError, match="sub-03 stands in more than one row \\(row 3 and row 9\\)"
    ):
        design(twice)


def test_who_is_left_out_is_told(people):
    people["group"] = people["group"].astype(object)
    people.loc[0, "group"] = None
    people.loc[1, "group"] = "other"
    people.loc[2, "age"] = np.nan
    ids = [i for i in people["participant_id"] if i != "sub-06"] + ["sub-99"]
    people = pd.concat([people, cohort(16, seed=3)[1].iloc[8:]], ignore_index=True)
    ids += [f"sub-{k:02d}" for k in range(9, 17)]
    made = design(people, groups=["patient", "control"], covariates=["age"], ids=ids)
    assert dict(made.excluded) == {
        "sub-99": "is not in the table of participants",
        "sub-06": "has no values",
        "sub-01": "has no group",
        "sub-02": "is in group 'other', which is not compared",
        "sub-03": "has no age",
    }
    assert sum(made.sizes.values()) == 12


def test_groups_without_a_table_of_them():
    with pytest.raises(RequestError, match="need a table of participants"):
        make_design(None, ["a", "b"], "group")
    assert make_design(None, ["a", "b", "a"]).participants == ("a", "b")


def test_covariates_that_cannot_be_used(people):
    with pytest.raises(TableError, match="covariate 'age' is 60.0 for every participant"):
        design(people.assign(age=60.0), covariates=["age"])
    with pytest.raises(TableError, match="'twin' follows from the groups and the other covariates"):
        design(people.assign(twin=3 - 2 * people["age"]), covariates=["age", "twin"])
    with pytest.raises(TableError, match="'site=PATIENT' follows from the groups"):
        design(people.assign(site=people["group"].str.upper()), covariates=["site"])
    with pytest.raises(TableError, match="8 categories for 8 participants"):
        design(people, covariates=["participant_id"])
    with pytest.raises(TableError, match="column 'age', sub-02: '6O' is not a finite number"):
        design(
            people.assign(age=["61", "6O", "59", "58", "70", "66", "61", "60"]), covariates=["age"]
        )
    with pytest.raises(TableError, match="the column 'age' is empty"):
        design(people.assign(age="n/a"), covariates=["age"])
    noise = {f"c{k}": np.random.default_rng(k).normal(size=8) for k in range(6)}
    with pytest.raises(TableError, match="8 participants are too few for 8 groups and covariates"):
        design(people.assign(**noise), covariates=list(noise))


def test_a_covariate_with_gaps_leaves_these_participants_out():
    table, people = cohort(20, seed=5)
    people.loc[[3, 8], "age"] = np.nan
    found = compare_groups(read(table), people, "group", covariates=["age"])
    assert found["n_patient"].iloc[0] == 9 and found["n_control"].iloc[0] == 9
    assert found.attrs["excluded"] == [["sub-04", "has no age"], ["sub-09", "has no age"]]
    less = ~people["participant_id"].isin(["sub-04", "sub-09"])
    expected = compare_groups(read(table[less]), people[less], "group", covariates=["age"])
    assert found["t"].to_numpy() == pytest.approx(expected["t"].to_numpy(), rel=1e-9)


# What is asked of the comparison


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"test": "t-test"}, "test 't-test' is not known"),
        ({"test": "student", "covariates": ["age"]}, "takes no covariates: choose the test ancova"),
        ({"test": "ancova"}, "needs covariates"),
        ({"family": "pairs"}, "family 'pairs' is not known"),
        ({"confidence": 95}, "confidence must lie between"),
    ],
)
def test_requests_that_do_not_fit(options, words):
    table, people = cohort(12)
    with pytest.raises(RequestError, match=words):
        compare_groups(read(table), people, "group", **options)


def test_two_group_tests_want_two_groups():
    table, people = cohort(18, groups=("a", "b", "c"))
    for test in ("student", "welch"):
        with pytest.raises(RequestError, match=f"the {test} test compares two groups.*a, b, c"):
            compare_groups(read(table), people, "group", test=test)
    two = compare_groups(read(table), people, "group", groups=["c", "a"], test="welch")
    assert two.attrs["groups"] == ["c", "a"]
    assert ["sub-02", "is in group 'b', which is not compared"] in two.attrs["excluded"]


def test_several_sessions_are_no_independent_participants():
    table, people = cohort(12, sessions=2)
    measured = read(table, session_column="visit")
    with pytest.raises(RequestError, match="sub-01 has 2 sessions.*choose a session"):
        compare_groups(measured, people, "group")


def test_groups_that_look_alike_as_columns():
    table, people = cohort(12, groups=("a b", "a-b"))
    with pytest.raises(TableError, match="cannot be told apart in column names"):
        compare_groups(read(table), people, "group")
