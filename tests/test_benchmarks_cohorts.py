"""The benchmarks of the group level: cohorts without a difference, and a large one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import __main__ as main_module
from benchmarks import cohorts
from benchmarks.cohort_tables import SWEEP, null_cohort, write_cohort
from bids_app.collect import find_scans
from bids_app.coverages import read_coverage
from bids_app.run import main
from qsmref.tables import read_tsv


def test_cohorts_without_a_difference():
    wide, people = null_cohort(np.random.default_rng(0), (100, 100), visits=2, offset=0, aging=0)
    assert len(wide) == 400 and people["group"].tolist() == ["a"] * 100 + ["b"] * 100
    values = wide[["SN", "RN"]].to_numpy()
    apart = values[:100].mean(axis=0) - values[100:200].mean(axis=0)
    assert np.abs(apart).max() < 4 * 12 * np.sqrt(2 / 100)


def test_verdicts():
    assert cohorts.verdict("SN alone", 50, 1000) == "right"
    assert cohorts.verdict("SN alone", 80, 1000) == "too many"
    assert cohorts.verdict("SN alone", 20, 1000) == "too few"
    # What claims no more than a bound may be wrong less often.
    assert cohorts.verdict("any q (BY) of ten pairs", 20, 1000) == "fewer"
    assert cohorts.verdict("any q (BY) of ten pairs", 80, 1000) == "too many"


@pytest.mark.parametrize("name", cohorts.CHECKS)
def test_every_check_runs(name):
    hits = dict(cohorts.CHECKS[name](np.random.default_rng(3), 0))
    assert hits and all(bool(v) in (True, False) for v in hits.values())


@pytest.mark.parametrize(
    ("name", "count"), [("paired", 200), ("equivalence", 40), ("sweep of masks", 40)]
)
def test_checks_without_a_faster_version_hold_their_level(name, count, monkeypatch):
    monkeypatch.setattr(cohorts, "CHECKS", {name: cohorts.CHECKS[name]})
    said = []
    text = cohorts.run_null(SimpleNamespace(tables=count, seeds=(7,), say=said.append))
    assert said and "too many" not in text
    assert f"{count} cohorts" in text


def test_seeds_give_cohorts_of_their_own(monkeypatch):
    drawn = []

    def check(rng, k):
        drawn.append((k, float(rng.normal())))
        yield "SN alone", k < 4
        yield "any q (BH) of ten pairs", False

    monkeypatch.setattr(cohorts, "CHECKS", {"made up": check})
    text = cohorts.run_null(SimpleNamespace(tables=20, seeds=(7, 8), say=str))
    assert [k for k, _ in drawn] == [*range(40)]
    assert len({value for _, value in drawn}) == 40
    assert "40 cohorts" in text and "(seeds 7, 8)" in text
    # Of 40 cohorts up to 5 are within chance: 4 of 40.
    assert "| made up | SN alone | 10.0 | right |" in text
    assert "0 of 1 rates of tests at the level 0.05 lie outside that interval" in text
    again = drawn[20:]
    drawn.clear()
    alone = cohorts.run_null(SimpleNamespace(tables=20, seeds=(8,), say=str))
    assert [value for _, value in drawn] == [value for _, value in again]
    assert "20 cohorts" in alone and "(seed 8)" in alone
    # The command line hands its seeds on.
    monkeypatch.setitem(main_module.SECTIONS, "null", ("Null", lambda options: f"{options.seeds}"))
    said = []
    monkeypatch.setattr(main_module, "write", lambda path, title, text: said.append(text))
    assert main_module.main(["null", "--seeds", "7", "8"]) == 0
    assert said[0].endswith("(7, 8)")


def test_rates_outside_are_counted_with_those_that_chance_puts_there():
    rates = [("SN alone", 5.0, "right")] * 58
    rates += [("SN alone", 8.0, "too many"), ("PU", 3.0, "too few")]
    rates += [("any q (BY) of ten pairs", 1.0, "fewer"), ("survives: any", 9.0, "too many")]
    text = cohorts.outside(rates, 1000)
    assert "2 of 60 rates of tests at the level 0.05 lie outside" in text
    assert "(1 above, 1 below)" in text
    assert "Of 2 rates that may lie below, 1 lie above." in text
    # By counting: the share of runs of a right test that get a verdict against it.
    hits = np.random.default_rng(0).binomial(1000, 0.05, 100_000)
    values, counts = np.unique(hits, return_counts=True)
    wrong = sum(
        n
        for v, n in zip(values, counts, strict=True)
        if cohorts.verdict("SN alone", v, 1000) != "right"
    )
    expected = float(text.split("; ")[1].split()[0])
    assert expected == pytest.approx(60 * wrong / 100_000, abs=0.15)


def test_the_large_cohort_is_what_the_level_participant_leaves(tmp_path):
    bids, results = write_cohort(tmp_path, 8, regions=4)
    scans = find_scans(results)["big"]
    means, lost = read_coverage(scans, ["R00", "R01", "R02", "R03", "brain"], ["brain"], 0.9)
    assert list(means) == list(SWEEP) and lost == 0
    assert all(np.isfinite(values).all() for values in means.values())
    sidecar = scans[0].paths["coverage"].with_suffix(".json")
    assert json.loads(sidecar.read_text())["RegionsAloneFirst"] is True
    table = read_tsv(scans[0].paths["coverage"])
    own = read_tsv(scans[0].paths["differential"])
    pairs = table[table["reference"].notna() & (table["slab_cut_mm"] + table["erosion_mm"] == 0)]
    assert np.allclose(pairs["difference"], own["difference"], atol=1e-5)
    given = [str(bids), str(results), "group", "--group-column", "group"]
    assert main([*given, "--groups", "patient", "control"]) == 0
    assert len(read_tsv(results / "group" / "atlas-big_desc-survival_Chimap.tsv")) == 4 + 6 + 4
