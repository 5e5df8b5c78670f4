"""Tables as they are published: other signs, odd names, gaps, rows and columns without content."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from cohorts import REGIONS, cohort
from statsmodels.stats.meta_analysis import effectsize_smd

from bids_app import stats
from qsmref.files import read_json
from qsmref.problems import DataError
from qsmref.tables import read_cells, read_tsv

GROUPS = ("--group-column", "group", "--groups", "patient", "control")


@pytest.fixture
def table():
    """24 participants, ppb."""
    wide, people = cohort(24, effect=20.0, seed=3)
    joined = wide.merge(people, on="participant_id").rename(columns={"participant_id": "ID"})
    joined[list(REGIONS)] = joined[list(REGIONS)].round(2)
    return joined


def run(folder, name, *options, regions=REGIONS, units="ppb"):
    given = [str(folder / name), str(folder / f"out-{name}"), "--units", units]
    given += ["--permutations", "50", "--regions", *regions, *options]
    code = stats.main(given)
    return code, folder / f"out-{name}" / "ttest.tsv"


def same(a, b):
    numbers = ["difference", "t", "p", "q_bh", "hedges_g"]
    pd.testing.assert_frame_equal(read_tsv(a)[numbers], read_tsv(b)[numbers], rtol=1e-6)


@pytest.fixture
def plain(table, tmp_path):
    table.to_csv(tmp_path / "plain.csv", index=False)
    code, path = run(tmp_path, "plain.csv", "--id-column", "ID", *GROUPS, "--covariates", "age")
    assert code == 0
    return path


def test_decimal_commas_are_read_when_they_are_said(table, plain, tmp_path, capsys):
    comma = table.map(lambda v: str(v).replace(".", ",") if isinstance(v, float) else v)
    comma.to_csv(tmp_path / "comma.csv", index=False, sep=";", encoding="utf-8-sig")
    given = ("--id-column", "ID", *GROUPS, "--covariates", "age")
    assert run(tmp_path, "comma.csv", *given)[0] == 65
    assert "--decimal comma" in capsys.readouterr().out
    code, path = run(tmp_path, "comma.csv", *given, "--decimal", "comma")
    assert code == 0
    same(plain, path)


def test_a_point_among_decimal_commas_is_no_guess(table, tmp_path, capsys):
    table.to_csv(tmp_path / "plain.csv", index=False)
    assert run(tmp_path, "plain.csv", *GROUPS, "--decimal", "comma")[0] == 65
    assert "has a point, and numbers are said to have a comma" in capsys.readouterr().out


def test_odd_names_are_names(table, plain, tmp_path):
    names = {"age": "Age (y)", "SN": "SN (ppb)", "CN": "Caudate; head, left", "ID": "Subject ID"}
    table.rename(columns=names).to_csv(tmp_path / "odd.csv", index=False)
    regions = [names.get(r, r) for r in REGIONS]
    given = ("--id-column", "Subject ID", *GROUPS, "--covariates", "Age (y)")
    code, path = run(tmp_path, "odd.csv", *given, regions=regions)
    assert code == 0
    same(plain, path)


def test_a_table_without_ids_has_a_participant_in_each_row(table, plain, tmp_path, capsys):
    table.drop(columns="ID").to_csv(tmp_path / "rows.csv", index=False)
    code, path = run(tmp_path, "rows.csv", *GROUPS, "--covariates", "age")
    assert code == 0
    same(plain, path)
    with pytest.raises(SystemExit):
        run(tmp_path, "rows.csv", *GROUPS, "--session-column", "age")
    assert "need --id-column" in capsys.readouterr().err


def test_row_names_and_empty_rows_are_no_part_of_the_table(table, plain, tmp_path):
    table.to_csv(tmp_path / "named.csv")
    with open(tmp_path / "named.csv", "a", encoding="utf-8") as stream:
        stream.write("," * table.shape[1] + "\n\n")
    given = ("--id-column", "ID", *GROUPS, "--covariates", "age")
    code, path = run(tmp_path, "named.csv", *given)
    assert code == 0
    same(plain, path)


def test_marks_of_gaps_can_be_named(table, tmp_path, capsys):
    table = table.astype({"SN": object, "RN": object})
    gaps = table.copy()
    gaps.loc[[0, 4], "SN"], gaps.loc[3, "RN"] = np.nan, np.nan
    gaps.to_csv(tmp_path / "gaps.csv", index=False)
    table.loc[0, "SN"], table.loc[4, "SN"], table.loc[3, "RN"] = ".", "-999.0", "-999"
    table.to_csv(tmp_path / "marks.csv", index=False)
    given = ("--id-column", "ID", *GROUPS)
    assert run(tmp_path, "marks.csv", *given)[0] == 65
    assert "--missing names other signs" in capsys.readouterr().out
    code, path = run(tmp_path, "marks.csv", *given, "--missing", ".", "-999")
    assert code == 0
    same(run(tmp_path, "gaps.csv", *given)[1], path)


def test_typeset_minus_signs_are_minus_signs(table, tmp_path):
    table["SN"] -= 100
    table.to_csv(tmp_path / "hyphen.csv", index=False)
    table["SN"] = table["SN"].map(lambda v: f"{v:.2f}".replace("-", "\u2212"))
    table.to_csv(tmp_path / "minus.csv", index=False)
    both = [run(tmp_path, name, *GROUPS) for name in ("hyphen.csv", "minus.csv")]
    assert [code for code, _ in both] == [0, 0]
    same(both[0][1], both[1][1])


def test_what_r_writes_for_a_missing_group_or_category(table, tmp_path, capsys):
    table.loc[0, "group"], table.loc[3, "sex"] = "NA", "NA"
    table.to_csv(tmp_path / "na.csv", index=False)
    given = ("--id-column", "ID", "--group-column", "group", "--covariates", "sex")
    assert run(tmp_path, "na.csv", *given)[0] == 0
    said = capsys.readouterr()
    assert "is in group 'NA', which is not compared" in said.err
    assert "sub-04 is left out (all): has no sex" in said.err
    assert "22 participants" in said.out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"Table 2\nID,SN\n1,2\n", "delete what stands above them"),
        (b"Table S3: means,,\nID,SN,RN\n1,2,3\n", "delete what stands above them"),
        (b"sep=;\nID;SN\n1;2;3\n", "line 3 has more cells"),
        (b"ID,SN\n1,2,3\n", "line 2 has more cells than there are columns (3 and 2)"),
        (b"ID,SN\n1\n", "line 2 has fewer cells than there are columns (1 and 2)"),
        # Lines are those of the file: empty ones count, and a cell may have several.
        (b"ID,SN\n\n1,2\n,\n1,2,3\n", "line 5 has more cells"),
        (b'ID,SN\n"a\nb",2\n\n1\n', "line 5 has fewer cells"),
        ("ID;Gr\u00f6\u00dfe\n1;2\n".encode("latin-1"), "save it as CSV in UTF-8"),
        (b"PK\x03\x04\xff\xfe", "save it as CSV in UTF-8"),
        (b"\n\n", "is empty"),
        # A first line without any name is no line of the table, and one row is none below it.
        (b'"",""\n1,2\n', "has no rows below"),
    ],
)
def test_files_that_are_no_tables_say_what_to_do(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError) as error:
        read_cells(tmp_path / "t.csv")
    assert words in str(error.value)


@pytest.mark.parametrize("separator", [",", ";"])
def test_breaks_of_lines_within_cells_are_spaces(tmp_path, separator):
    text = '"Subject\r\nID"|"SN\n(ppb)"|"Age"\n"a \tb"|1|60\n"c\n"|2|61\n'.replace("|", separator)
    (tmp_path / "t.csv").write_bytes(text.encode())
    read = read_cells(tmp_path / "t.csv")
    assert list(read) == ["Subject ID", "SN (ppb)", "Age"]
    assert list(read["Subject ID"].str.strip()) == ["a b", "c"]


def test_the_line_in_which_a_spreadsheet_names_the_separator_is_no_line_of_the_table(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"sep=;\r\nID;SN, left\r\na;1,5\r\n")
    read = read_cells(tmp_path / "t.csv")
    assert list(read) == ["ID", "SN, left"] and list(read["SN, left"]) == ["1,5"]


@pytest.mark.parametrize("odd", ["SN$_{bad$", "a $x$ b", "$"])
def test_dollars_in_names_are_characters(table, tmp_path, odd):
    renamed = table.rename(columns={"SN": odd}).replace({"patient": f"p {odd}"})
    renamed.to_csv(tmp_path / "d.csv", index=False)
    given = ("--id-column", "ID", "--group-column", "group", "--groups", f"p {odd}", "control")
    assert run(tmp_path, "d.csv", *given, regions=(odd, *REGIONS[1:]))[0] == 0


def test_groups_that_differ_by_a_sign(table, plain, tmp_path):
    table.replace({"patient": "ApoE4+", "control": "ApoE4-"}).to_csv(
        tmp_path / "s.csv", index=False
    )
    given = ("--id-column", "ID", "--group-column", "group", "--groups", "ApoE4+", "ApoE4-")
    code, path = run(tmp_path, "s.csv", *given, "--covariates", "age")
    assert code == 0
    same(plain, path)
    assert {"n_ApoE4_plus", "n_ApoE4_minus"} <= set(read_tsv(path).columns)


def test_whole_numbers_that_pandas_wrote_with_a_point_are_the_labels(table, plain, tmp_path):
    table = table.assign(group=table["group"].map({"patient": "1.0", "control": "0.0"}))
    table.to_csv(tmp_path / "w.csv", index=False)
    given = ("--id-column", "ID", "--group-column", "group", "--groups", "1", "0")
    code, path = run(tmp_path, "w.csv", *given, "--covariates", "age")
    assert code == 0
    same(plain, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(ID=["SUB-1", *t["ID"][1:-1], "sub-01"]), "'SUB-1' and 'sub-01'"),
        (lambda t: t.assign(ID=["Mean PD", *t["ID"][1:]]), "Mean PD look like sums over other"),
        (lambda t: t.assign(sex=["m", *t["sex"].replace("m", "M")[1:]]), "the labels of sex"),
        (lambda t: t.assign(sex=["x", *t["sex"][1:]]), "one participant alone has the sex 'x'"),
    ],
)
def test_names_that_look_like_others_are_told(table, tmp_path, capsys, change, words):
    given = ("--id-column", "ID", *GROUPS, "--covariates", "sex")
    table.to_csv(tmp_path / "as-is.csv", index=False)
    assert run(tmp_path, "as-is.csv", *given)[0] == 0
    assert "warning" not in capsys.readouterr().err
    change(table).to_csv(tmp_path / "odd.csv", index=False)
    code, path = run(tmp_path, "odd.csv", *given)
    assert code == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert any(words in line for line in said)
    page = (path.parent / "summary.html").read_text(encoding="utf-8")
    # A sentence begins with a capital there.
    assert words[1:].replace("'", "&#39;") in page


def test_equivalence_is_adjusted_as_the_comparison_is(table, tmp_path):
    table.to_csv(tmp_path / "e.csv", index=False)
    given = ("--id-column", "ID", *GROUPS, "--covariates", "age", "sex")
    code, path = run(tmp_path, "e.csv", *given)
    assert code == 0
    adjusted = read_tsv(path)
    alone = adjusted[adjusted["reference"].isna()].set_index("region")
    found = read_tsv(path.with_name("equivalence.tsv"))
    found = found[found["relative_to"].isna()].set_index("candidate")
    for name in REGIONS:
        assert found.loc[name, "difference"] == pytest.approx(alone.loc[name, "difference"], 1e-6)
    # By hand, from the model of statsmodels.
    model = smf.ols("SN ~ C(group, Treatment('control')) + age + C(sex)", table).fit()
    estimate, error = model.params.iloc[1], model.bse.iloc[1]
    p = max(
        scipy.stats.t.sf((estimate + 5) / error, model.df_resid),
        scipy.stats.t.cdf((estimate - 5) / error, model.df_resid),
    )
    assert found.loc["SN", "p_equivalence"] == pytest.approx(p, rel=1e-5)
    low, high = model.conf_int(0.1).iloc[1]
    assert found.loc["SN", ["ci_low", "ci_high"]].to_numpy(float) == pytest.approx([low, high])
    for name in ("power", "variance", "outliers"):
        assert "Covariates" not in read_json(path.with_name(f"{name}.json"))
    assert "Covariates" in read_json(path.with_name("equivalence.json"))
    assert "adjusted" in read_json(path.with_suffix(".json"))["difference"]["Description"]


@pytest.mark.parametrize(
    ("cell", "cure"),
    [
        ("125.8 ± 16.3", "published means and SDs are compared by qsmref.analysis"),
        ("125.8 (16.3)", "it looks like a mean with its SD"),
        ("1,234.5", "without a sign between the thousands"),
        ("12,5", "--decimal comma"),
        ("93 ppb", "a cell holds a number and nothing beside it"),
    ],
)
def test_cells_that_are_no_numbers_say_what_to_do(table, tmp_path, capsys, cell, cure):
    table.assign(SN=[cell, *table["SN"][1:]]).to_csv(tmp_path / "c.csv", index=False)
    assert run(tmp_path, "c.csv", "--id-column", "ID", *GROUPS)[0] == 65
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"column 'SN', sub-01: {cell!r} is not a finite number" in last and cure in last


def test_groups_called_by_numbers_are_named_as_groups(table, tmp_path, capsys):
    table.replace({"patient": "1", "control": "0"}).to_csv(tmp_path / "g.csv", index=False)
    given = ("--id-column", "ID", "--group-column", "group", "--groups", "1", "0")
    assert run(tmp_path, "g.csv", *given)[0] == 0
    assert "24 participants (12 in group 1, 12 in group 0); tables" in capsys.readouterr().out


def test_published_moments_give_the_published_test(tmp_path):
    """SN in Parkinson's disease, PMC5765262: 125.81 (16.27), n 38; 98.41 (11.70), n 25."""
    rng = np.random.default_rng(2)
    parts = []
    for group, n, mean, sd in (("1", 38, 125.81, 16.27), ("0", 25, 98.41, 11.70)):
        x = rng.standard_normal(n)
        values = mean + sd * (x - x.mean()) / x.std(ddof=1)
        parts.append(pd.DataFrame({"Gruppe": group, "SN": values, "CN": rng.normal(40, 5, n)}))
    pd.concat(parts).to_csv(tmp_path / "moments.csv", index=False)
    given = ("--group-column", "Gruppe", "--groups", "1", "0")
    code, path = run(tmp_path, "moments.csv", *given, regions=("SN", "CN"))
    assert code == 0
    row = read_tsv(path).iloc[0]
    t, p = scipy.stats.ttest_ind_from_stats(125.81, 16.27, 38, 98.41, 11.70, 25)
    assert row["t"] == pytest.approx(t, rel=1e-6) and row["t"] == pytest.approx(7.27, abs=0.005)
    assert row["p"] == pytest.approx(p, rel=1e-6)
    g, variance = effectsize_smd(125.81, 16.27, 38, 98.41, 11.70, 25)
    assert row["hedges_g"] == pytest.approx(g, rel=1e-6)
    half = scipy.stats.norm.ppf(0.975) * np.sqrt(variance)
    assert row["g_low"] == pytest.approx(g - half, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ((), lambda t: t.assign(ID=[*t["ID"][:4], "", *t["ID"][5:]]), "line 9: there is nothing"),
        (
            ("--decimal", "comma"),
            lambda t: t.assign(SN=["1,5"] * 4 + ["1.5"] + ["1,5"] * (len(t) - 5)),
            "column 'SN', line 9: '1.5' has a point",
        ),
        (
            ("--missing", "x"),
            lambda t: t.assign(ID=[*t["ID"][:4], "x", *t["ID"][5:]]),
            "line 9: there is nothing",
        ),
    ],
)
def test_rows_are_called_by_their_line_in_the_file(table, tmp_path, capsys, options, change, words):
    lines = change(table).to_csv(index=False, sep=";").splitlines()
    # Three empty rows above: the fifth row of numbers is in the ninth line.
    lines[2:2] = ["", ";" * lines[0].count(";"), ""]
    (tmp_path / "gaps.csv").write_text("\n".join(lines), encoding="utf-8")
    assert run(tmp_path, "gaps.csv", "--id-column", "ID", *GROUPS, *options)[0] == 65
    assert words in "".join(capsys.readouterr())
