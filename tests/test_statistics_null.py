"""False positives in cohorts without a difference: five in a hundred, and no more in families.

Larger versions of these runs are reported in the documentation.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from cohorts import REGIONS, cohort
from scipy.stats import binom

from qsmref.analysis import compare_groups, measurements, omnibus_test
from qsmref.analysis.tables import Measurements

TABLES = 1000


def within(hits: int, count: int, level: float = 0.05) -> bool:
    """Inside the central 99.9 % of the binomial: a right test fails once in a thousand runs."""
    low, high = binom.ppf([0.0005, 0.9995], count, level)
    return low <= hits <= high


def null_rows(
    n: int, groups: int, seed: int = 0, aging: float = 0.0
) -> tuple[Measurements, pd.DataFrame]:
    """A thousand independent outcomes, each like a table of its own.

    An effect of age is shared by all of them: without adjustment they would not be independent.
    """
    rng = np.random.default_rng(seed)
    ids = np.array([f"sub-{k:03d}" for k in range(n)], dtype=object)
    people = pd.DataFrame({"participant_id": ids, "group": np.arange(n) % groups})
    people["age"] = rng.normal(60, 8, n)
    people["sex"] = rng.choice(["F", "M"], n)
    values = rng.normal(100, 12, (n, 1, TABLES)) + aging * people["age"].to_numpy()[:, None, None]
    names = tuple(f"r{k}" for k in range(TABLES))
    return Measurements(ids, values, names, pairs=(("r0", "r1"),)), people


@pytest.mark.parametrize(
    ("options", "groups"),
    [
        ({"test": "student"}, 2),
        ({"test": "welch"}, 2),
        ({"test": "anova"}, 2),
        ({"test": "anova"}, 3),
        ({"covariates": ["age", "sex"]}, 2),
        ({"covariates": ["age"]}, 3),
        ({"test": "permutation", "permutations": 499}, 2),
        ({"test": "permutation", "permutations": 499, "covariates": ["age"]}, 2),
        ({"test": "permutation", "permutations": 499}, 3),
    ],
)
def test_five_of_a_hundred_null_tables_are_significant(options, groups):
    measured, people = null_rows(31, groups, aging=2.0 if "covariates" in options else 0.0)
    found = compare_groups(measured, people, "group", **options)
    p = found.loc[found["reference"].isna(), "p"]
    assert len(p) == TABLES
    assert within(int((p <= 0.05).sum()), TABLES)
    assert within(int((p <= 0.5).sum()), TABLES, 0.5)


def test_welch_holds_where_variances_and_sizes_differ_and_student_does_not():
    measured, people = null_rows(40, 2)
    people["group"] = np.where(np.arange(40) < 8, "few", "many")
    values = np.random.default_rng(3).normal(size=measured.values.shape)
    values[:8] *= 4
    wide = Measurements(measured.participants, values, measured.regions, pairs=measured.pairs)
    rates = {}
    for test in ("student", "welch"):
        found = compare_groups(wide, people, "group", test=test)
        rates[test] = int((found["p"].iloc[:TABLES] <= 0.05).sum())
    assert within(rates["welch"], TABLES)
    assert rates["student"] > 200


def test_families_and_the_omnibus_hold_their_level():
    count, hits = 300, dict.fromkeys(("max-T", "BH", "BY", "F", "permutation", "driver"), 0)
    for k in range(count):
        table, people = cohort(24, seed=1000 + k)
        measured = measurements(table, regions=REGIONS)
        found = compare_groups(
            measured, people, "group", test="permutation", permutations=199, seed=k
        )
        pairs = found[found["family"] == "pairs"]
        hits["max-T"] += bool((pairs["p_fwe"] <= 0.05).any())
        hits["BH"] += bool((pairs["q_bh"] <= 0.05).any())
        hits["BY"] += bool((pairs["q_by"] <= 0.05).any())
        omnibus = omnibus_test(measured, people, "group", permutations=199, seed=k)
        hits["F"] += bool(omnibus.table["p"].iloc[0] <= 0.05)
        hits["permutation"] += bool(omnibus.table["p_permutation"].iloc[0] <= 0.05)
        hits["driver"] += bool(omnibus.drivers["p"].iloc[0] <= 0.05)
    for name in ("max-T", "F", "permutation", "driver"):
        assert within(hits[name], count), (name, hits)
    # With no difference anywhere, the false discovery rate is the rate of any discovery.
    limit = binom.ppf(0.9995, count, 0.05)
    assert hits["BH"] <= limit and hits["BY"] <= hits["BH"]
