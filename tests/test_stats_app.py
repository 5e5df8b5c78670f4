"""``qsmref-stats``: tables in, tables out, and a sentence with an exit code for what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from cohorts import REGIONS, cohort

from bids_app import stats
from qsmref.analysis import compare_groups, measurements
from qsmref.analysis.audit import most_moved
from qsmref.analysis.columns import describe
from qsmref.tables import read_cells, read_tsv

ALWAYS = {"ttest", "omnibus", "drivers", "specifications", "audit", "equivalence", "variance"}
ALWAYS |= {"power", "outliers", "excluded"}


@pytest.fixture
def folder(tmp_path):
    table, people = cohort(24, effect=20.0, seed=3)
    joined = table.merge(people, on="participant_id").rename(columns={"participant_id": "ID"})
    joined[list(REGIONS)] /= 1000
    joined.to_csv(tmp_path / "means.csv", index=False)
    visits, _ = cohort(24, sessions=2, seed=3)
    visits = visits.merge(people, on="participant_id").rename(columns={"participant_id": "ID"})
    visits.to_csv(tmp_path / "visits.tsv", sep="\t", index=False)
    return tmp_path


def run(folder, *options, table="means.csv", units="ppm", regions=REGIONS):
    given = [str(folder / table), str(folder / "out"), "--id-column", "ID", "--units", units]
    given += ["--regions", *regions] if regions else []
    return stats.main([*given, *options])


GROUPS = ("--group-column", "group", "--groups", "patient", "control")


def test_the_tables_are_those_of_the_functions(folder, capsys):
    assert run(folder, *GROUPS, "--covariates", "age", "sex") == 0
    written = {p.stem for p in (folder / "out").glob("*.tsv")}
    assert written == ALWAYS
    said = capsys.readouterr().out.splitlines()
    assert said[-1].startswith("qsmref-stats: 24 participants (12 patient, 12 control); tables")
    assert said[-1].endswith("Exit status 0")
    sentence = read_tsv(folder / "out" / "omnibus.tsv")["adjustment"].iloc[0]
    assert sentence.startswith("Adjusted for age, sex=M in 24 participants: the error of F has")
    assert f"<p>{sentence}</p>" in (folder / "out" / "summary.html").read_text(encoding="utf-8")
    assert any(line.endswith(sentence) for line in said)
    page = (folder / "out" / "summary.html").read_text(encoding="utf-8")
    first = most_moved(read_tsv(folder / "out" / "specifications.tsv"))
    shown = re.findall(r"<details( open)?>\s*<summary>(\w+) under every reference", page)
    assert shown[0] == (" open", first) and len(shown) == 5
    assert not any(state for state, _ in shown[1:])
    assert f"{first} is first and open" in page
    table = pd.read_csv(folder / "means.csv")
    found = read_tsv(folder / "out" / "ttest.tsv")
    expected = compare_groups(
        measurements(table, "ID", REGIONS, "ppm"),
        table,
        "group",
        groups=["patient", "control"],
        covariates=["age", "sex"],
        id_column="ID",
    )
    assert list(found.columns) == list(expected.columns)
    for name in ("difference", "t", "p", "q_bh", "hedges_g", "ci_low"):
        assert found[name].to_numpy() == pytest.approx(expected[name].to_numpy(), rel=1e-5)


def test_every_column_has_its_description_and_unit(folder):
    assert run(folder, *GROUPS, "--test", "permutation", "--permutations", "99") == 0
    for path in (folder / "out").glob("*.tsv"):
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        for name in read_tsv(path).columns:
            assert content[name]["Description"], (path.name, name)
        assert content["SourceTable"] == "means.csv"
    content = json.loads((folder / "out" / "ttest.json").read_text(encoding="utf-8"))
    assert content["difference"]["Units"] == content["sd_patient"]["Units"] == "ppb"
    assert "'patient' minus mean of 'control'" in content["difference"]["Description"]
    assert content["Test"] == "permutation" and content["Permutations"] == 99
    assert content["Groups"] == {"patient": 12, "control": 12}
    assert "one family each" in content["Family"]


@pytest.mark.parametrize(
    ("options", "table", "units"),
    [
        ((*GROUPS,), "means.csv", "ppm"),
        (("--group-column", "group", "--test", "welch", "--family", "all"), "means.csv", "ppm"),
        (("--session-column", "visit"), "visits.tsv", "ppb"),
        (("--session-column", "visit", *GROUPS, "--covariates", "age"), "visits.tsv", "ppb"),
        (("--session-column", "visit", "--test", "paired"), "visits.tsv", "ppb"),
    ],
)
def test_the_page_is_one_file_without_a_network(folder, options, table, units):
    assert run(folder, *options, table=table, units=units) == 0
    page = (folder / "out" / "summary.html").read_text(encoding="utf-8")
    assert page.count("<html") == 1 and page.rstrip().endswith("</html>")
    words = re.sub(r"data:image/png;base64,[^\"]+", "", page)
    assert 'src="http' not in page and "<link" not in page and "nan" not in words.lower()
    assert table in page
    for region in REGIONS:
        assert region in page


def test_sessions_without_groups_are_the_change_over_time(folder):
    assert run(folder, "--session-column", "visit", table="visits.tsv", units="ppb") == 0
    written = {p.stem for p in (folder / "out").glob("*.tsv")}
    assert written == {"change", "reliability", "excluded"}
    change = read_tsv(folder / "out" / "change.tsv")
    assert set(change["contrast"]) == {"change per unit of time"}
    assert len(change) == 15


def test_a_session_can_be_chosen(folder):
    options = ("--session-column", "visit", "--sessions", "2", *GROUPS)
    assert run(folder, *options, table="visits.tsv", units="ppb") == 0
    assert read_tsv(folder / "out" / "ttest.tsv")["n_patient"].iloc[0] == 12


def test_two_of_three_sessions_can_be_chosen(folder):
    table, _ = cohort(24, sessions=3, seed=3)
    table.to_csv(folder / "three.tsv", sep="\t", index=False)
    given = [str(folder / "three.tsv"), str(folder / "out"), "--id-column", "participant_id"]
    given += ["--regions", *REGIONS, "--units", "ppb", "--session-column", "visit"]
    assert stats.main([*given, "--test", "paired"]) == 2
    assert stats.main([*given, "--test", "paired", "--sessions", "1", "3"]) == 0
    found = read_tsv(folder / "out" / "change.tsv")
    assert (found["n"] == 24).all() and found["mean_second"].notna().all()


def test_tables_of_an_earlier_call_do_not_stay(folder):
    assert run(folder, *GROUPS) == 0
    options = ("--session-column", "visit")
    assert run(folder, *options, table="visits.tsv", units="ppb") == 0
    assert not (folder / "out" / "ttest.tsv").exists()
    assert not (folder / "out" / "ttest.json").exists()


def test_a_long_table_and_participants_apart(folder):
    wide = pd.read_csv(folder / "means.csv")
    wide.melt("ID", REGIONS, "roi", "chi").to_csv(folder / "long.csv", sep=";", index=False)
    wide[["ID", "group", "age"]].to_csv(folder / "people.tsv", sep="\t", index=False)
    people = ("--participants", str(folder / "people.tsv"))
    long = ("--region-column", "roi", "--value-column", "chi", "--covariates", "age")
    assert run(folder, *people, *long, *GROUPS, table="long.csv", regions=()) == 0
    first = read_tsv(folder / "out" / "ttest.tsv")
    assert run(folder, *GROUPS, "--covariates", "age") == 0
    pd.testing.assert_frame_equal(first, read_tsv(folder / "out" / "ttest.tsv"))


def test_who_is_left_out_is_printed_and_written(folder, capsys):
    table = read_cells(folder / "means.csv")
    table.loc[0, "group"], table.loc[3, "age"] = "n/a", ""
    table.to_csv(folder / "means.csv", index=False)
    assert run(folder, *GROUPS, "--covariates", "age") == 0
    said = capsys.readouterr()
    assert "sub-01 is left out (all): has no group" in said.err
    assert "sub-04 is left out (all): has no age" in said.err
    assert "22 participants (11 patient, 11 control)" in said.out
    found = read_tsv(folder / "out" / "excluded.tsv")
    assert list(found["participant_id"]) == ["sub-01", "sub-04"]


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--group-column", "Group"), 2, "no column 'Group'; did you mean 'group'"),
        (
            ("--group-column", "group", "--groups", "patients", "control"),
            2,
            "no group 'patients' in the column 'group'; did you mean 'patient'",
        ),
        ((*GROUPS, "--references", "CFS"), 2, "no column 'CFS'"),
        ((*GROUPS, "--omnibus-regions", "SN", "XX"), 2, "no region 'XX'"),
        ((*GROUPS, "--test", "ancova"), 2, "needs covariates"),
        ((*GROUPS, "--covariates", "ID"), 65, "24 categories for 24 participants"),
        (("--session-column", "group"), 65, "each participant has one session"),
        (("--session-column", "group", "--sessions", "x", *GROUPS), 2, "no session 'x'"),
    ],
)
def test_bad_requests_get_a_sentence_and_a_code(folder, capsys, options, code, words):
    assert run(folder, *options) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert words in last and last.endswith(f"Exit status {code}")
    assert not list((folder / "out").glob("*.tsv")) if (folder / "out").exists() else True


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: pd.concat([t, t.iloc[[5]]]), "sub-06 stands in more than one row"),
        (lambda t: t.assign(SN=["x"] + [0.1] * 23), "column 'SN', sub-01: 'x' is not a finite"),
        (lambda t: t.assign(group=["patient"] + ["control"] * 23), "has 1 participant (sub-01)"),
        (lambda t: t.assign(group=""), "the column 'group' is empty"),
        (lambda t: t.assign(ID=["", *t["ID"][1:]]), "line 2: there is nothing in the column 'ID'"),
        (lambda t: t.iloc[:0], "has no rows"),
    ],
)
def test_bad_tables_get_a_sentence_and_a_code(folder, capsys, edit, words):
    table = pd.read_csv(folder / "means.csv", dtype=str)
    edit(table).to_csv(folder / "means.csv", index=False)
    assert run(folder, *GROUPS) == 65
    assert words in capsys.readouterr().out.splitlines()[-1]


def test_groups_of_several_words(folder, capsys):
    table = pd.read_csv(folder / "means.csv").replace(
        {"patient": "Parkinson's disease", "control": "regions"}
    )
    table.to_csv(folder / "means.csv", index=False)
    assert run(folder, "--group-column", "group", "--groups", "Parkinson's disease", "regions") == 0
    said = capsys.readouterr().out
    assert "all differences at once (24 participants): p " in said
    assert "qsmref-stats: 24 participants (12 Parkinson's disease, 12 regions)" in said
    omnibus = read_tsv(folder / "out" / "omnibus.tsv").iloc[0]
    counted = ["n_Parkinson_s_disease", "n_group_regions", "n_regions"]
    assert list(omnibus[counted]) == [12, 12, len(REGIONS)]


def test_a_group_named_like_a_count_does_not_describe_it():
    table = pd.DataFrame(columns=["n_p", "n_regions"])
    assert "below" in describe("audit", table[["n_p"]], ["p"], ["p"])["n_p"]["Description"]
    ours = describe("ttest", table[["n_p"]], ["p"], ["p"])["n_p"]["Description"]
    assert ours == "Participants in group 'p' with the value"


def test_odd_regions_are_told_and_not_tested(folder, capsys):
    table = pd.read_csv(folder / "means.csv")
    table["RN"], table["CN"] = 0.05, np.nan
    table.to_csv(folder / "means.csv", index=False)
    assert run(folder, *GROUPS) == 0
    said = capsys.readouterr().out.splitlines()
    assert "qsmref-stats: no test of RN: constant: no scatter within any group" in said
    assert "qsmref-stats: no test of CN: no participant has a value" in said
    found = read_tsv(folder / "out" / "ttest.tsv")
    alone = found[found["reference"].isna()].set_index("region")
    assert alone.loc["RN", "note"] == "constant: no scatter within any group"
    assert alone.loc["CN", "note"] == "no participant has a value"
    assert alone.loc[["RN", "CN"], ["t", "p", "q_bh", "hedges_g"]].isna().all(axis=None)
    omnibus = read_tsv(folder / "out" / "omnibus.tsv")
    assert omnibus["n_regions"].iloc[0] == 4 and omnibus["p"].notna().all()


def test_covariates_that_change_within_a_participant(folder, capsys):
    table = pd.read_csv(folder / "visits.tsv", sep="\t", dtype=str)
    table.loc[0, "group"] = "control"
    table.to_csv(folder / "visits.tsv", sep="\t", index=False)
    code = run(folder, "--session-column", "visit", *GROUPS, table="visits.tsv", units="ppb")
    assert code == 65
    said = capsys.readouterr().out
    assert "sub-01 has group 'control' and 'patient' in different rows" in said


def test_files_that_are_not_there_or_no_tables(folder, capsys):
    assert run(folder, *GROUPS, table="nothing.csv") == 66
    assert "There is no file" in capsys.readouterr().out
    (folder / "broken.csv").write_text('ID,"SN\n1,2\n')
    assert run(folder, *GROUPS, table="broken.csv") == 65
    (folder / "twice.csv").write_text("ID,SN,SN\n1,2,3\n")
    assert run(folder, *GROUPS, table="twice.csv") == 65
    assert "has the column 'SN' more than once" in capsys.readouterr().out


def test_the_folder_of_results_must_be_writable(folder, capsys):
    (folder / "out").write_text("a file")
    assert run(folder, *GROUPS) == 73
    assert "cannot be written" in capsys.readouterr().out


def test_a_doubtful_unit_is_a_warning(folder, capsys):
    assert run(folder, *GROUPS, units="ppb") == 0
    assert "is it ppm?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--group-column", "group", "--sessions", "1"),
        ("--group-column", "group", "--equivalence-margin", "0"),
        ("--group-column", "group", "--permutations", "none"),
        ("--group-column", "group", "--test", "t"),
    ],
)
def test_usage_is_checked_before_anything_is_read(folder, capsys, options):
    with pytest.raises(SystemExit) as end:
        run(folder, *options)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("qsmref-stats: ")


def test_help_is_quick_to_load():
    code = (
        "import sys\nfrom bids_app import stats\nstats._build_parser().format_help()\n"
        "print(sorted({'numpy', 'pandas', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
