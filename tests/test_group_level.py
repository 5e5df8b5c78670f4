"""The level group: from tables of participants to tables of the cohort."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bids_app import collect
from bids_app.dataset import write_dataset_files, write_status
from bids_app.run import main
from bids_app.validation import validate, validator
from qsmref.analysis import compare_groups, differential_table, measurements
from qsmref.problems import ExitCode, Problem
from qsmref.settings import Settings
from qsmref.tables import read_tsv, write_tsv

NAMES = ["SN_L", "SN_R", "CN_L", "CN_R", "GP", "CSF", "SN", "CN", "brain", "csf"]
SIDES = ["L", "R", "L", "R", "n/a", "n/a", "both", "both", "n/a", "n/a"]


def region_rows(rng, effect: float) -> pd.DataFrame:
    """A table of regions as the level participant writes it."""
    mean = rng.normal(80, 8, len(NAMES))
    mean[:2] += effect
    mean[6], mean[7] = mean[:2].mean(), mean[2:4].mean()
    mean[9] = mean[5]
    mean += rng.normal(0, 40)
    index = [1, 2, 3, 4, 5, 6, None, None, None, None]
    table = pd.DataFrame({"index": pd.array(index, dtype="Int64"), "name": NAMES})
    table["hemisphere"] = SIDES
    table["n_voxels"], table["volume_mm3"], table["coverage"] = 90, 90.0, 1.0
    table["mean"], table["sd"], table["se"] = mean, 6.0, 1.5
    table["median"], table["mad"], table["p05"], table["p95"] = mean, 4.0, mean - 9, mean + 9
    for axis in "xyz":
        table[axis] = np.arange(len(NAMES)) * 7.0
    return table


def write_scan(out: Path, prefix: str, table: pd.DataFrame, folder: str = "") -> None:
    stem = out / prefix.split("_")[0] / folder / "anat" / f"{prefix}_atlas-A_desc-"
    write_tsv(f"{stem}roi_Chimap.tsv", table)
    write_tsv(f"{stem}differential_Chimap.tsv", differential_table(table))


@pytest.fixture
def study(tmp_path):
    """Twelve patients and ten controls with tables, and participants.tsv."""
    bids, out = tmp_path / "bids", tmp_path / "out"
    bids.mkdir()
    rng = np.random.default_rng(5)
    people = []
    for k in range(22):
        group = "patient" if k < 12 else "control"
        people.append((f"sub-{k + 1:02d}", group, int(rng.normal(60, 8)), "FM"[k % 2]))
        table = region_rows(rng, 25.0 if group == "patient" else 0.0)
        write_scan(out, f"sub-{k + 1:02d}", table)
    columns = ["participant_id", "group", "age", "sex"]
    write_tsv(bids / "participants.tsv", pd.DataFrame(people, columns=columns))
    return tmp_path


def run(study, *options, groups=True) -> int:
    given = [str(study / "bids"), str(study / "out"), "group", *options]
    return main([*given, "--group-column", "group"] if groups else given)


def result(study, desc: str) -> pd.DataFrame:
    return read_tsv(study / "out" / "group" / f"atlas-A_desc-{desc}_Chimap.tsv")


ORDER = ("--groups", "patient", "control")


def test_tables_are_joined_compared_and_described(study, capsys):
    assert run(study, *ORDER) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "qsmref: 22 of 22 participants finished. Exit status 0"
    )
    folder = study / "out" / "group"
    for path in folder.glob("*.tsv"):
        content = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert set(read_tsv(path).columns) <= set(content), path.name
    roi, differences = result(study, "roi"), result(study, "differential")
    assert list(roi.columns[:3]) == ["participant_id", "group", "index"]
    assert len(roi) == 22 * len(NAMES)
    assert roi["group"].value_counts()["patient"] == 12 * len(NAMES)
    own = read_tsv(study / "out/sub-03/anat/sub-03_atlas-A_desc-differential_Chimap.tsv")
    joined = differences[differences["participant_id"] == "sub-03"]
    pd.testing.assert_frame_equal(
        joined.drop(columns=["participant_id", "group"]).reset_index(drop=True), own
    )
    assert (study / "out" / "group.html").is_file()


def test_the_comparison_is_that_of_the_means(study):
    assert run(study, *ORDER) == 0
    found = result(study, "ttest")
    roi = result(study, "roi")
    people = read_tsv(study / "bids" / "participants.tsv")
    wide = roi.pivot(index="participant_id", columns="name", values="mean").reset_index()
    expected = compare_groups(
        measurements(wide, regions=NAMES), people, "group", groups=["patient", "control"]
    )
    both = found.merge(expected, on=["region", "reference"], suffixes=("", "_expected"))
    assert len(both) == len(found)
    for name in ("t", "p", "difference", "hedges_g"):
        assert both[name].to_numpy() == pytest.approx(both[f"{name}_expected"].to_numpy(), rel=1e-4)
    # Pairs are those of the participants: no region with a side of itself.
    pairs = set(zip(found["region"], found["reference"].fillna(""), strict=True))
    assert ("SN_L", "SN") not in pairs and ("CSF", "csf") not in pairs
    assert ("SN", "CN") in pairs and ("SN", "brain") in pairs and ("brain", "csf") not in pairs
    kinds = {"alone", "pairs", "against brain", "against csf"}
    assert set(found["family"]) == kinds | {f"{kind}, one side" for kind in kinds}
    assert (found["family"] == "pairs").sum() == 6  # of SN, CN, GP and CSF


def test_the_effect_is_found_and_the_others_are_not(study):
    assert run(study, *ORDER) == 0
    found = result(study, "ttest")
    pairs = found[found["family"] == "pairs"]
    with_effect = pairs["region"].str.startswith("SN") != pairs["reference"].str.startswith("SN")
    assert (pairs.loc[with_effect, "q_bh"] < 0.05).all()
    assert (pairs.loc[~with_effect, "q_by"] > 0.05).all()
    omnibus, drivers = result(study, "omnibus"), result(study, "drivers")
    assert omnibus["p"].iloc[0] < 1e-4 and omnibus["n_regions"].iloc[0] == 3
    assert set(drivers["region"]) == {"SN", "CN", "GP"}
    assert drivers.loc[drivers["f"].idxmax(), "region"] == "SN"


def test_offsets_of_the_maps_leave_differences_and_omnibus_alone(study):
    assert run(study, *ORDER) == 0
    before = result(study, "ttest"), result(study, "omnibus")
    rng = np.random.default_rng(1)
    for path in sorted((study / "out").glob("sub-*/anat/*roi*.tsv")):
        table = read_tsv(path)
        table["mean"] += rng.normal(0, 100)
        path.write_text(table.to_csv(sep="\t", index=False, na_rep="n/a", float_format="%.15g"))
    assert run(study, *ORDER) == 0
    after = result(study, "ttest"), result(study, "omnibus")
    pairs = before[0]["reference"].notna()
    for one, two in ((before[0][pairs], after[0][pairs]), (before[1], after[1])):
        assert two["p"].to_numpy() == pytest.approx(one["p"].to_numpy(), rel=1e-5)
    assert (after[0]["p"] - before[0]["p"])[~pairs].abs().max() > 0.01


def test_who_is_left_out_and_why(study):
    out = study / "out"
    problem = Problem("40", "sub-40_MEGRE has no phase.", ExitCode.MISSING_INPUT)
    write_status(out, "40", {}, [problem], Settings())
    people = read_tsv(study / "bids" / "participants.tsv").astype({"group": object, "age": object})
    people.loc[0, "group"] = "carrier"
    people.loc[1, "group"] = None
    people.loc[13, "age"] = None
    rows = pd.DataFrame([("sub-40", "patient", 60, "F"), ("sub-41", "patient", 60, "F")])
    rows.columns = people.columns
    people = pd.concat([people.iloc[:-1], rows])
    write_tsv(study / "bids" / "participants.tsv", people)
    assert run(study, *ORDER, "--covariates", "age", "sex") == 0
    found = result(study, "excluded").set_index("participant_id")["reason"].to_dict()
    assert found == {
        "sub-01": "is in group 'carrier', which is not compared",
        "sub-02": "has no group",
        "sub-14": "has no age",
        "sub-22": "is not in the table of participants",
        "sub-40": "input: sub-40_MEGRE has no phase.",
        "sub-41": "has no table of regions",
    }
    table = result(study, "ttest")
    assert (table["n_patient"].iloc[0], table["n_control"].iloc[0]) == (10, 8)
    content = json.loads((study / "out/group/atlas-A_desc-ttest_Chimap.json").read_text())
    assert content["Test"] == "ancova" and content["Covariates"] == ["age", "sex=M"]


def test_a_region_that_some_lack_is_counted_by_row(study):
    path = study / "out/sub-05/anat/sub-05_atlas-A_desc-roi_Chimap.tsv"
    table = read_tsv(path)
    table.loc[table["name"] == "GP", "mean"] = np.nan
    write_tsv(path, table)
    assert run(study, *ORDER) == 0
    found = result(study, "ttest").set_index(["region", "reference"])
    assert found.loc[("GP", "brain"), "n_patient"] == 11
    assert found.loc[("SN", "CN"), "n_patient"] == 12
    left = result(study, "excluded")
    assert list(left.iloc[0]) == ["sub-05", "omnibus", "has no GP"]


def test_damaged_tables_cost_their_participant_only(study, capsys):
    path = study / "out/sub-05/anat/sub-05_atlas-A_desc-roi_Chimap.tsv"
    path.write_text(path.read_text()[:-30])
    assert run(study, *ORDER) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "qsmref: 21 of 22 participants finished; 1 failed (sub-05: tables). Exit status 1"
    )
    left = result(study, "excluded").set_index("participant_id")["reason"]
    assert "it is damaged" in left["sub-05"]
    assert result(study, "ttest")["n_patient"].iloc[0] == 11


def test_columns_in_another_order_are_put_in_order(study):
    assert run(study, *ORDER) == 0
    first = result(study, "ttest")
    path = study / "out/sub-05/anat/sub-05_atlas-A_desc-roi_Chimap.tsv"
    table = read_tsv(path)
    write_tsv(path, table[[*table.columns[::-1]]].iloc[::-1])
    assert run(study, *ORDER) == 0
    pd.testing.assert_frame_equal(result(study, "ttest"), first)


def test_runs_are_averaged_and_acquisitions_are_not(study, capsys):
    rng = np.random.default_rng(9)
    out = study / "out"
    path = out / "sub-05/anat/sub-05_atlas-A_desc-roi_Chimap.tsv"
    first, second = read_tsv(path), region_rows(rng, 0.0)
    for file in path.parent.glob("*.tsv"):
        file.unlink()
    write_scan(out, "sub-05_run-1", first)
    write_scan(out, "sub-05_run-2", second)
    assert run(study, *ORDER) == 0
    assert "Runs of one session were averaged" in capsys.readouterr().out
    roi = result(study, "roi")
    assert list(roi["run"].dropna().unique()) == [1, 2]
    expected = (first["mean"] + second["mean"]) / 2
    found, _, values, _ = collect.reduce_runs(
        [collect.Scan("sub-05", {"run": r}, {}) for r in "12"],
        np.array([first["mean"], second["mean"]]),
    )
    assert list(found) == ["sub-05"] and values[0] == pytest.approx(expected.to_numpy())
    assert result(study, "ttest")["n_patient"].iloc[0] == 12
    write_scan(out, "sub-05_acq-high_run-1", first)
    assert run(study, *ORDER) == 65
    assert "several acquisitions (acq-high, none)" in capsys.readouterr().out
    filters = study / "filter.json"
    filters.write_text('{"chimap": {"acquisition": null}}')
    assert run(study, *ORDER, "--bids-filter-file", str(filters)) == 0


def with_sessions(study) -> None:
    out = study / "out"
    rng = np.random.default_rng(11)
    for path in sorted(out.glob("sub-*/anat/*roi*.tsv")):
        table = read_tsv(path)
        for file in path.parent.glob("*.tsv"):
            file.unlink()
        for session in ("1", "2"):
            again = table.assign(mean=table["mean"] + rng.normal(0, 30) + rng.normal(0, 2, 10))
            subject = path.name[:6]
            write_scan(out, f"{subject}_ses-{session}", again, f"ses-{session}")


def test_sessions_are_change_unless_one_is_chosen(study, capsys):
    with_sessions(study)
    assert run(study, *ORDER) == 0
    folder = study / "out" / "group"
    assert not (folder / "atlas-A_desc-ttest_Chimap.tsv").exists()
    change = result(study, "change")
    assert "change per unit of time, patient - control" in set(change["contrast"])
    reliability = result(study, "reliability")
    assert (reliability["n"] == 22).all()
    pairs = reliability["reference"].notna()
    assert reliability["sd_within"][pairs].median() < reliability["sd_within"][~pairs].median() / 4
    assert run(study, *ORDER, "--session-label", "2") == 0
    assert result(study, "ttest")["n_patient"].iloc[0] == 12
    assert not (folder / "atlas-A_desc-change_Chimap.tsv").exists()
    assert run(study, *ORDER, "--test", "student") == 2
    assert "has 2 sessions" in capsys.readouterr().out


def test_sessions_without_groups(study):
    with_sessions(study)
    assert run(study, groups=False) == 0
    assert set(result(study, "change")["contrast"]) == {"change per unit of time"}


def test_the_first_session_that_is_asked_for_is_subtracted(study, capsys):
    with_sessions(study)
    found = []
    for order in (("1", "2"), ("2", "1")):
        given = ("--test", "paired", "--session-label", *order)
        assert run(study, *given, groups=False) == 0
        assert f"differences are {order[1]} minus {order[0]}" in capsys.readouterr().out
        found.append(result(study, "change")["difference"].to_numpy())
    np.testing.assert_allclose(found[0], -found[1])
    assert np.abs(found[0]).max() > 0.1


def test_tables_without_a_session_beside_others_are_told(study, capsys):
    with_sessions(study)
    who = sorted((study / "out").glob("sub-*"))[0]
    moved = [p for p in who.rglob("*_ses-1_*") if p.is_file()]
    assert moved
    for path in moved:
        path.rename(path.with_name(path.name.replace("_ses-1", "")))
    assert run(study, groups=False) == 0
    said = capsys.readouterr().out
    assert "Tables without a session" in said and f"({who.name})" in said


def test_without_groups_the_tables_are_joined(study, capsys):
    assert run(study, groups=False) == 0
    assert "nothing is compared" in capsys.readouterr().out
    assert len(result(study, "power")) > 0
    assert (result(study, "roi")["group"].isna()).all()


def write_coverage(study, columns=None) -> None:
    """Tables of two more coverages, as the contract has them; the whole mask stands there too."""
    rng = np.random.default_rng(3)
    for path in sorted((study / "out").glob("sub-*/anat/*roi*.tsv")):
        table = read_tsv(path)
        rows = []
        for slab, erosion in ((0.0, 0.0), (8.0, 0.0), (0.0, 2.0)):
            shift = rng.normal(0, 20) if slab or erosion else 0.0
            mean = dict(zip(table["name"], table["mean"] + shift, strict=True))
            rows += [(slab, erosion, name, None, value) for name, value in mean.items()]
            rows += [
                (slab, erosion, a, b, mean[a] - mean[b]) for a, b in (("SN", "CN"), ("SN", "GP"))
            ]
        names = ["slab_cut_mm", "erosion_mm", "region", "reference", "difference"]
        made = pd.DataFrame(rows, columns=names)
        write_tsv(Path(str(path).replace("-roi_", "-coverage_")), made[columns or names])


@pytest.mark.parametrize(
    "columns", [None, ["region", "difference", "reference", "erosion_mm", "slab_cut_mm"]]
)
def test_coverages_join_where_there_are_tables_of_them(study, columns):
    assert run(study, *ORDER) == 0
    whole = result(study, "ttest")
    write_coverage(study, columns)
    assert run(study, *ORDER) == 0
    found = result(study, "ttest")
    covers = found[["slab_cut_mm", "erosion_mm"]].drop_duplicates()
    assert {tuple(c) for c in covers.to_numpy()} == {(0.0, 0.0), (8.0, 0.0), (0.0, 2.0)}
    assert len(found) == 3 * len(whole)
    first = found[(found["slab_cut_mm"] == 0) & (found["erosion_mm"] == 0)]
    pd.testing.assert_frame_equal(first.reset_index(drop=True), whole)
    # What all regions of a participant share moves regions alone and no difference.
    cut = found[found["slab_cut_mm"] == 8].reset_index(drop=True)
    pairs = cut["reference"].notna()
    assert cut["t"][pairs].to_numpy() == pytest.approx(whole["t"][pairs].to_numpy(), rel=1e-3)
    assert (cut["t"] - whole["t"])[~pairs].abs().max() > 0.1
    assert len(result(study, "omnibus")) == 3
    # The audit is of the whole mask: every row, and pairs from either side.
    pairs = whole["family"].str.startswith("pairs").sum()
    assert len(result(study, "specifications")) == len(whole) + pairs


def test_a_damaged_coverage_table_is_named(study, capsys):
    write_coverage(study)
    path = study / "out/sub-03/anat/sub-03_atlas-A_desc-coverage_Chimap.tsv"
    path.write_text(path.read_text().replace("\tSN\tn/a\t", "\tSN\tn/a\tx"))
    assert run(study, *ORDER) == 65
    assert "sub-03_atlas-A_desc-coverage_Chimap.tsv is damaged" in capsys.readouterr().out
    path.write_text("slab_cut_mm\tregion\n1\t2\n")
    assert run(study, *ORDER) == 65
    assert "has no column erosion_mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--group-column", "Group"), 2, "no column 'Group'; did you mean 'group'"),
        (("--group-column", "group", "--groups", "patients", "control"), 2, "'patient'?"),
        (("--group-column", "group", "--covariates", "ages"), 2, "did you mean 'age'"),
        (("--group-column", "group", "--references", "XX"), 2, "--references: 'XX' is no row"),
        (("--group-column", "group", "--omnibus-regions", "SN", "ZZ"), 2, "no region 'ZZ'"),
        (("--covariates", "age"), 2, "covariates need a column of groups"),
        (("--participant-label", "77"), 18, "The filters match none of the 22 tables"),
        (("--session-label", "1"), 18, "The filters match none"),
        (("--reports-only",), 2, "belong to the level participant"),
    ],
)
def test_requests_that_do_not_fit(study, capsys, options, code, words):
    assert run(study, *options, groups=False) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert words in last and last.endswith(f"Exit status {code}")


def test_what_is_needed_and_not_there(study, capsys, tmp_path):
    (study / "bids" / "participants.tsv").unlink()
    assert run(study) == 66
    assert "has no participants.tsv" in capsys.readouterr().out
    empty = tmp_path / "empty"
    assert main([str(study / "bids"), str(empty), "group"]) == 66
    assert "run the level participant first" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(study, capsys):
    before = sorted(p for p in (study / "out").rglob("*"))
    assert run(study, "--dry-run") == 0
    assert sorted(p for p in (study / "out").rglob("*")) == before
    assert "22 tables" in capsys.readouterr().out


@pytest.mark.skipif(validator() is None, reason="bids-validator is not installed")
def test_the_folder_of_results_stays_a_valid_derivative(study):
    out = study / "out"
    (study / "bids" / "dataset_description.json").write_text(
        '{"Name": "x", "BIDSVersion": "1.10.0"}'
    )
    prefixes = [f"sub-{k:02d}" for k in range(1, 23)]
    write_dataset_files(out, study / "bids", Settings(), methods=["Done."], prefixes=prefixes)
    assert run(study, *ORDER) == 0
    found = validate(out)
    assert not found.skipped and found.errors == ()
    listed = read_tsv(out / "descriptions.tsv")["desc_id"].tolist()
    written = {p.name.split("_")[1] for p in (out / "group").glob("*.tsv")}
    assert written <= set(listed)


def test_only_those_who_were_asked_for(study):
    labels = [f"{k:02d}" for k in (1, 2, 3, 13, 14, 15)]
    assert run(study, *ORDER, "--participant-label", *labels) == 0
    assert result(study, "ttest")["n_patient"].iloc[0] == 3
    assert len(result(study, "roi")) == 6 * len(NAMES)
    assert result(study, "excluded").empty


def test_regions_can_be_chosen(study, capsys):
    assert run(study, *ORDER, "--regions", "SN", "CN", "GP") == 0
    found = result(study, "ttest")
    assert set(found["family"]) == {"alone", "pairs", "against brain", "against csf"}
    assert (found["family"] == "pairs").sum() == 3
    assert "2 of 3 differences with q (BH) below 0.05" in capsys.readouterr().out
    assert result(study, "omnibus")["n_regions"].iloc[0] == 3
    assert run(study, *ORDER, "--regions", "SN", "sn_l") == 2
    assert "no region 'sn_l'; did you mean 'SN_L'" in capsys.readouterr().out


def test_references_can_be_chosen(study):
    assert run(study, *ORDER, "--references", "GP") == 0
    found = result(study, "ttest")
    assert "GP" not in set(found["region"])
    assert (found["reference"] == "GP").any()
