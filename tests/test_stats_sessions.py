"""Sessions: their order gives a change its sign, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from cohorts import REGIONS, cohort

from bids_app import stats
from qsmref.analysis import measurements
from qsmref.analysis.longitudinal import change_over_time
from qsmref.analysis.paired import paired_test
from qsmref.analysis.reliability import reliability_table
from qsmref.analysis.visits import in_order, visits_of
from qsmref.tables import read_tsv


def visits(first: str, second: str, n: int = 16) -> pd.DataFrame:
    """A wide table of two visits with these names; SN rises by 5 ppb at the second."""
    table, people = cohort(n, sessions=2, seed=5)
    table["SN"] += np.where(table["visit"] == "2", 5.0, 0.0)
    table["visit"] = table["visit"].map({"1": first, "2": second})
    return table.merge(people, on="participant_id")


def run(folder, table, *options):
    table.to_csv(folder / "t.csv", index=False)
    given = [str(folder / "t.csv"), str(folder / "out"), "--id-column", "participant_id"]
    given += ["--regions", *REGIONS, "--units", "ppb", "--session-column", "visit"]
    return stats.main([*given, *options])


def rise(table: pd.DataFrame, first: str, second: str, region: str = "SN") -> float:
    """Second minus first, by plain pandas."""
    by = table.pivot(index="participant_id", columns="visit", values=region)
    return float((by[second] - by[first]).mean())


@pytest.mark.parametrize(
    ("first", "second", "options"),
    [
        # The alphabet has 12 before 6, and post before pre.
        ("6", "12", ()),
        ("V2", "V10", ()),
        ("0.5", "1e1", ()),
        ("pre", "post", ("--sessions", "pre", "post")),
        ("Baseline", "12 months", ("--sessions", "Baseline", "12 months")),
        ("12", "6", ("--sessions", "12", "6")),
    ],
)
def test_a_change_is_the_second_session_minus_the_first(tmp_path, capsys, first, second, options):
    table = visits(first, second)
    assert run(tmp_path, table, "--test", "paired", *options) == 0
    row = read_tsv(tmp_path / "out" / "change.tsv").iloc[0]
    expected = rise(table, first, second)
    assert row["region"] == "SN" and row["difference"] == pytest.approx(expected, rel=1e-6)
    assert row["mean_second"] - row["mean_first"] == pytest.approx(expected, rel=1e-6)
    bias = read_tsv(tmp_path / "out" / "reliability.tsv").iloc[0]["bias"]
    assert bias == pytest.approx(expected, rel=1e-6)
    said = f"{second} minus {first}"
    assert f"differences are {said}" in capsys.readouterr().out
    assert said in (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    sidecar = json.loads((tmp_path / "out" / "change.json").read_text(encoding="utf-8"))
    assert (sidecar["FirstSession"], sidecar["SecondSession"]) == (first, second)
    assert sidecar["Sessions"] == [first, second]
    assert sidecar["difference"]["Description"] == f"Session {second} minus session {first}"


def test_categories_change_from_the_first_that_was_asked_for(tmp_path, capsys):
    table = visits("pre", "post")
    assert run(tmp_path, table, "--sessions", "pre", "post") == 0
    found = read_tsv(tmp_path / "out" / "change.tsv")
    assert set(found["contrast"]) == {"change to post"}
    assert found["difference"].iloc[0] == pytest.approx(rise(table, "pre", "post"), rel=1e-4)
    said = capsys.readouterr().out
    assert "changes are from pre; sessions in their order: pre, post" in said
    assert "differences with q (BH) below 0.05; change to post" in said


def test_the_functions_take_the_same_order():
    table = visits("pre", "post")
    read = measurements(table, "participant_id", REGIONS, session_column="visit")
    assert read.visits == ("post", "pre")
    expected = rise(table, "post", "pre")
    for found in (
        paired_test(read)["difference"],
        change_over_time(read)["difference"],
        reliability_table(read)["bias"],
    ):
        assert found.iloc[0] == pytest.approx(expected, rel=1e-4)
    other = paired_test(read, ("pre", "post"))
    assert other["difference"].iloc[0] == pytest.approx(-expected, rel=1e-6)


def test_decimal_commas_of_times_are_read(tmp_path):
    table = visits("0,5", "2,0")
    for region in REGIONS:
        table[region] = table[region].map(lambda x: f"{x:.4f}".replace(".", ","))
    assert run(tmp_path, table, "--decimal", "comma") == 0
    assert set(read_tsv(tmp_path / "out" / "change.tsv")["contrast"]) == {"change per unit of time"}


def test_who_lacks_a_session_is_told(tmp_path, capsys):
    table = visits("1", "2").drop(index=0)
    who = sorted(set(table["participant_id"][table["visit"] == "2"]))[0]
    assert run(tmp_path, table, "--test", "paired") == 0
    assert f"{who} is left out (paired): has not both of 1 and 2" in capsys.readouterr().err
    excluded = read_tsv(tmp_path / "out" / "excluded.tsv")
    assert list(excluded["participant_id"]) == [who]


def test_why_there_is_no_change_is_on_the_page(tmp_path, capsys):
    table = visits("1", "2")
    table["SN"] = np.where(np.arange(len(table)) < 17, table["SN"], np.nan)
    assert run(tmp_path, table) == 0
    note = "participants with a value at two sessions are too few"
    assert f"no test of SN: 1 {note}" in capsys.readouterr().out
    assert note in (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")


def test_one_session_is_named_in_the_comparison_of_groups(tmp_path):
    table = visits("Baseline", "12 months")
    assert run(tmp_path, table, "--group-column", "group", "--sessions", "Baseline") == 0
    sidecar = json.loads((tmp_path / "out" / "ttest.json").read_text(encoding="utf-8"))
    assert sidecar["Sessions"] == ["Baseline"]
    page = (tmp_path / "out" / "summary.html").read_text(encoding="utf-8")
    assert "<dt>Sessions</dt><dd>Baseline</dd>" in page


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (["10", "9", "9"], ("9", "10")),
        (["-1", "0.5", "0"], ("-1", "0", "0.5")),
        (["ses10", "ses9", "SES1"], ("SES1", "ses9", "ses10")),
        (["b", "nan"], ("b", "nan")),
        ([], ()),
    ],
)
def test_the_order_of_names(labels, order):
    assert in_order(labels) == order


def test_an_order_that_was_asked_for_comes_first():
    assert visits_of(["a", "b", "c"], ("c", "x", "a")) == ("c", "a", "b")
