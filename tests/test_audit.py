"""The reference audit: specifications, equivalence, and the variance of a difference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scipy.stats as st
from cohorts import REGIONS, cohort
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

from qsmref.analysis import compare_groups, measurements, reference_audit
from qsmref.analysis.audit import most_moved
from qsmref.analysis.tables import RequestError

NAMES = [*REGIONS, "csf"]


@pytest.fixture(scope="module")
def tables():
    table, people = cohort(34, effect=20.0, offset=25.0, seed=7)
    # CSF shares the offset of the map and little else.
    offset = table[list(REGIONS)].mean(axis=1)
    table["csf"] = offset + np.random.default_rng(1).normal(0, 6, len(table))
    return table, people


@pytest.fixture(scope="module")
def measured(tables):
    return measurements(tables[0], regions=REGIONS, references=["csf"])


@pytest.fixture(scope="module")
def audit(tables, measured):
    return reference_audit(measured, tables[1], "group", groups=["patient", "control"], margin=5.0)


def test_every_region_is_seen_under_every_reference(audit):
    found = audit.specifications
    assert len(found) == 5 * 6  # none, csf, four other regions
    for region, rows in found.groupby("region"):
        assert set(rows["reference"].dropna()) == set(NAMES) - {region}
        assert rows["hedges_g"].is_monotonic_increasing
        assert list(rows["rank"]) == [1, 2, 3, 4, 5, 6]
    assert set(found["kind"]) == {"none", "tissue", "region"}


def test_specifications_are_the_comparison_read_from_either_side(tables, measured, audit):
    table, people = tables
    patient = (people["group"] == "patient").to_numpy()
    for _, row in audit.specifications.iterrows():
        values = table[row["region"]].to_numpy(copy=True)
        values -= table[row["reference"]].to_numpy() if isinstance(row["reference"], str) else 0
        found = st.ttest_ind(values[patient], values[~patient])
        interval = found.confidence_interval()
        assert [row["t"], row["p"], row["ci_low"], row["ci_high"]] == pytest.approx(
            [found.statistic, found.pvalue, interval.low, interval.high], rel=1e-8
        )
        assert row["mean_patient"] == pytest.approx(values[patient].mean(), abs=1e-9)
        assert row["g_low"] < row["hedges_g"] < row["g_high"]


def test_q_is_over_the_regions_under_one_reference(audit):
    rows = audit.specifications[audit.specifications["reference"] == "CN"]
    assert len(rows) == 4
    assert rows["q_bh"].to_numpy() == pytest.approx(multipletests(rows["p"], method="fdr_bh")[1])


def test_the_summary_counts_the_specifications(audit):
    rows = audit.specifications[audit.specifications["region"] == "SN"]
    found = audit.summary.set_index("region").loc["SN"]
    assert found["n_specifications"] == 6
    assert found["n_p"] == (rows["p"] < 0.05).sum()
    assert found["n_positive"] == (rows["hedges_g"] > 0).sum() == 6
    assert found["g_none"] == rows.loc[rows["kind"] == "none", "hedges_g"].iloc[0]
    assert [found["g_low"], found["g_high"]] == [rows["hedges_g"].min(), rows["hedges_g"].max()]


def test_variance_of_a_difference_is_the_sum_of_its_parts(tables, audit):
    table, people = tables
    v = audit.variance
    total = v["var_region"] + v["var_reference"] - 2 * v["covariance"]
    assert v["var_difference"].to_numpy() == pytest.approx(total.to_numpy(), rel=1e-9)
    row = v[(v["region"] == "SN") & (v["reference"] == "csf")].iloc[0]
    groups = people["group"]
    within = table[["SN", "csf"]] - table[["SN", "csf"]].groupby(groups).transform("mean")
    assert row["var_region"] == pytest.approx((within["SN"] ** 2).sum() / 32, rel=1e-10)
    correlation = (
        within["SN"]
        @ within["csf"]
        / np.sqrt((within["SN"] @ within["SN"]) * (within["csf"] @ within["csf"]))
    )
    assert row["correlation"] == pytest.approx(correlation, rel=1e-10)


def test_a_reference_helps_exactly_where_it_lowers_the_variance(audit):
    v = audit.variance
    assert ((v["helps"] == "yes") == (v["var_difference"] < v["var_region"])).all()
    by_hand = v["correlation"] > np.sqrt(v["var_reference"]) / (2 * np.sqrt(v["var_region"]))
    assert ((v["helps"] == "yes") == by_hand).all()


def test_a_reference_without_the_offset_does_not_help(tables):
    table, people = tables
    noise = table.assign(csf=np.random.default_rng(5).normal(0, 30, len(table)))
    measured = measurements(noise, regions=REGIONS, references=["csf"])
    audit = reference_audit(measured, people, "group", margin=5.0)
    v = audit.variance
    assert set(v.loc[v["reference"] == "csf", "helps"]) == {"no"}


def test_equivalence_is_two_one_sided_tests(tables, audit):
    table, people = tables
    patient = (people["group"] == "patient").to_numpy()
    for _, row in audit.equivalence.iterrows():
        values = table[row["candidate"]].to_numpy(copy=True)
        values -= table[row["relative_to"]].to_numpy() if isinstance(row["relative_to"], str) else 0
        p, lower, upper = ttost_ind(values[patient], values[~patient], -5.0, 5.0)
        assert [row["p_lower"], row["p_upper"], row["p_equivalence"]] == pytest.approx(
            [lower[1], upper[1], p], rel=1e-7, abs=1e-12
        )
        # Equal means that the interval lies within the margin.
        inside = row["ci_low"] > -5 and row["ci_high"] < 5
        assert (row["equivalent"] == "yes") == inside
    assert len(audit.equivalence) == 6 * 6


def test_equivalence_needs_more_than_a_large_p():
    # Few participants: neither different nor shown to be equal.
    table, people = cohort(10, seed=2)
    audit = reference_audit(measurements(table, regions=REGIONS), people, "group", margin=2.0)
    alone = audit.equivalence[audit.equivalence["relative_to"].isna()]
    assert set(alone["equivalent"]) == {"no"}


def test_equivalence_holds_its_level_at_the_margin():
    # 400 differences of independent regions, each truly at the margin.
    rng = np.random.default_rng(8)
    hits = 0
    for k in range(8):
        table, people = cohort(40, seed=k)
        names = [f"r{j}" for j in range(50)]
        values = rng.normal(0, 3, (40, 50))
        values[people["group"] == "control"] += 4.0
        wide = people[["participant_id"]].assign(**dict(zip(names, values.T, strict=True)))
        measured = replace(measurements(wide, regions=names), pairs=(("r0", "r1"),))
        audit = reference_audit(measured, people, "group", margin=4.0)
        alone = audit.equivalence[audit.equivalence["relative_to"].isna()]
        hits += (alone["equivalent"] == "yes").sum()
    low, high = st.binom.ppf([0.0005, 0.9995], 400, 0.05)
    assert low <= hits <= high


def test_regions_that_cannot_be_tested_keep_their_note(tables):
    table, people = tables
    measured = measurements(table.assign(GP=np.nan, PU=4.0), regions=REGIONS)
    audit = reference_audit(measured, people, "group", margin=5.0)
    rows = audit.specifications.set_index("region")
    assert rows.loc["GP", "p"].isna().all()
    assert (rows.loc["GP", "note"] == "no participant has a value").all()
    alone = audit.equivalence[audit.equivalence["relative_to"].isna()].set_index("candidate")
    assert alone.loc["PU", "note"] == "constant: no scatter within any group"
    assert np.isnan(alone.loc["PU", "p_equivalence"])
    assert audit.summary.set_index("region").loc["GP", "n_specifications"] == 0


def test_covariates_are_those_of_the_comparison(tables, measured):
    table, people = tables
    audit = reference_audit(measured, people, "group", covariates=["age"], margin=5.0)
    found = compare_groups(measured, people, "group", covariates=["age"])
    one = audit.specifications.set_index(["region", "reference"]).loc[("SN", "csf"), "t"]
    other = found.set_index(["region", "reference"]).loc[("SN", "csf"), "t"]
    assert one == pytest.approx(other)


def rows_of(**spans) -> pd.DataFrame:
    """Specifications of regions, each with its Hedges' g without, with csf, and with a region."""
    kinds = (("none", None), ("tissue", "csf"), ("region", "SN"))
    rows = [
        (name, reference, kind, g)
        for name, values in spans.items()
        for (kind, reference), g in zip(kinds, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["region", "reference", "kind", "hedges_g"])


def test_the_nucleus_that_the_reference_moves_most_is_first():
    spans = {
        "GM": (0.0, 3.0, 0.0),
        "CSF_P": (0.0, 3.0, 0.0),
        "SN_L": (0.0, 2.0, 0.0),
        "SN": (1.0, 1.2, 1.1),
        "CN": (0.5, 1.1, 0.5),
        "PU": (0.1, 0.2, -9.0),
    }
    # No tissue, no single side beside both, and not what another region does to it.
    assert most_moved(rows_of(**spans)) == "CN"
    only = rows_of(**spans).query("kind == 'region' or (kind == 'none')")
    # Without tissue references there are only regions.
    assert most_moved(only) == "PU"
    assert most_moved(rows_of(GM=(0.0, 1.0, 0.0), WM=(0.0, 2.0, 0.0))) == "WM"
    assert most_moved(rows_of(SN=(np.nan,) * 3, CN=(np.nan,) * 3)) == "SN"
    assert most_moved(rows_of()) is None


def test_single_sides_count_where_both_together_are_not_there():
    assert most_moved(rows_of(SN_L=(0.0, 2.0, 0.0), SN_R=(0.0, 1.0, 0.0))) == "SN_L"


def test_requests(tables, measured):
    with pytest.raises(RequestError, match="margin of equivalence must be positive"):
        reference_audit(measured, tables[1], "group", margin=0.0)
    three = tables[1].assign(group=["a", "b", "c"] * 11 + ["a"])
    with pytest.raises(RequestError, match="compares two groups, and there are 3"):
        reference_audit(measured, three, "group", margin=5.0)
