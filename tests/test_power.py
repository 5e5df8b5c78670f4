"""Sample sizes against the solver of statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from cohorts import REGIONS, cohort
from scipy.stats import chi2
from statsmodels.stats.power import TTestIndPower

from qsmref.analysis import measurements, sample_size
from qsmref.analysis.design import make_design
from qsmref.analysis.outcomes import outcomes_of
from qsmref.analysis.tables import RequestError


@pytest.fixture(scope="module")
def parts():
    table, people = cohort(25, effect=20.0, seed=3)
    outcomes = outcomes_of(measurements(table, regions=REGIONS))
    return table, people, outcomes, make_design(people, outcomes.participants, "group")


def test_sizes_are_those_of_statsmodels(parts):
    table, people, outcomes, design = parts
    found = sample_size(outcomes, design, (5.0, 10.0))
    assert len(found) == 15 * 2
    for _, row in found.iterrows():
        n = TTestIndPower().solve_power(row["target_difference"] / row["sd"], power=0.8, alpha=0.05)
        assert row["n_per_group"] == np.ceil(n)
        n = TTestIndPower().solve_power(
            row["target_difference"] / row["sd_high"], power=0.8, alpha=0.05
        )
        assert row["n_per_group_high"] == np.ceil(n)


def test_the_sd_is_pooled_within_groups_with_its_upper_limit(parts):
    table, people, outcomes, design = parts
    row = sample_size(outcomes, design, (5.0,)).iloc[0]
    within = table["SN"] - table["SN"].groupby(people["group"]).transform("mean")
    sd = np.sqrt((within**2).sum() / 23)
    assert row["sd"] == pytest.approx(sd, rel=1e-10)
    assert row["sd_high"] == pytest.approx(sd * np.sqrt(23 / chi2.ppf(0.2, 23)), rel=1e-10)


def test_the_detectable_difference_has_the_power(parts):
    _, _, outcomes, design = parts
    row = sample_size(outcomes, design, (5.0,), power=0.9).iloc[0]
    sizes = list(design.sizes.values())
    reached = TTestIndPower().power(
        row["detectable"] / row["sd"], sizes[0], 0.05, ratio=sizes[1] / sizes[0]
    )
    assert reached == pytest.approx(0.9, abs=1e-6)


@pytest.mark.parametrize("effect", [1e-5, 1e-3, 0.05, 0.3, 1.0, 3.0, 20.0, 1e3])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_effects_of_every_size_have_an_answer_or_none(parts, effect, alpha):
    table, people, outcomes, design = parts
    sd = sample_size(outcomes, design, (1.0,)).iloc[0]["sd"]
    row = sample_size(outcomes, design, (effect * sd,), alpha=alpha).iloc[0]
    n = row["n_per_group"]
    if effect <= 1e-3:
        # More than a million in each group.
        assert np.isnan(n)
        return
    upper = {"alpha": alpha / 2, "alternative": "larger"}
    if effect < 10:
        # The other tail adds nothing that could be seen, and scipy has no value for it at times.
        assert TTestIndPower().power(effect, n, **upper) > 0.8 - 1e-3
        assert n == 2 or TTestIndPower().power(effect, n - 1, **upper) < 0.8
    else:
        assert 2 <= n <= 4


def test_regions_without_scatter_have_no_size(parts):
    table, people, _, design = parts
    outcomes = outcomes_of(measurements(table.assign(RN=3.0, CN=np.nan), regions=REGIONS))
    found = sample_size(outcomes, design, (5.0,)).set_index(["region", "reference"])
    alone = found[found.index.get_level_values(1).isna()].droplevel(1)
    for name in ("RN", "CN"):
        assert alone.loc[name, ["sd", "sd_high", "n_per_group", "detectable"]].isna().all()
    assert alone.loc["CN", "n"] == 0


def test_without_groups_the_scatter_is_over_all(parts):
    table, _, outcomes, _ = parts
    design = make_design(None, outcomes.participants)
    row = sample_size(outcomes, design, (5.0,)).iloc[0]
    assert row["sd"] == pytest.approx(table["SN"].std(), rel=1e-10)
    assert np.isnan(row["detectable"])


def test_requests(parts):
    _, _, outcomes, design = parts
    with pytest.raises(RequestError, match="power must lie between"):
        sample_size(outcomes, design, power=0.01)
    with pytest.raises(RequestError, match="must be positive"):
        sample_size(outcomes, design, (5.0, -1.0))
