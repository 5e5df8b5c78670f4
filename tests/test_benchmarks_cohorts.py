"""The benchmarks of the group level: cohorts without a difference, and a large one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

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
    text = cohorts.run_null(SimpleNamespace(tables=count, say=said.append))
    assert said and "too many" not in text
    assert f"{count} cohorts" in text


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
