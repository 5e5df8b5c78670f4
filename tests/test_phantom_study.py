"""The phantom study: its parameters, its tables, the offset as a field, and the command."""

import filecmp
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from qsmref.phantom import cli, study_offset, study_tables
from qsmref.phantom.grid import ParameterError
from qsmref.phantom.study import Chain, Study, Variant, chains_of, every_chain
from qsmref.phantom.study_head import make_head, measure, read_rois, under, variant_mask
from qsmref.problems import DataError

NAMES = ["CN", "GP", "PU", "CSF_P"]
SWEEPS = {
    "slab": tuple(Variant(mm, 0.0) for mm in (92.0, 104.0, 116.0)),
    "mask": tuple(Variant(116.0, mm) for mm in (0.0, 2.0, 4.0)),
}
VARIANTS = tuple(dict.fromkeys([SWEEPS["slab"][-1], *SWEEPS["slab"], *SWEEPS["mask"]]))


def run(*arguments):
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


def toy(offset):
    """Maps that are the truth plus `offset(variant, position along z in mm)`, ppm."""
    shape, size = (20, 20, 30), (2.0, 2.0, 2.0)
    truth = np.random.default_rng(0).normal(0, 0.05, shape).astype(np.float32)
    rois = np.zeros(shape, np.uint8)
    for place, z in enumerate((10, 13, 16, 25)):
        rois[8:12, 8:12, z : z + 2] = 1 + place
    z = (np.arange(30) * 2.0)[None, None]
    maps = {}
    for variant in VARIANTS:
        valid = np.zeros(shape, bool)
        cut = int((116 - variant.slab_mm) / 12)
        valid[2:18, 2:18, cut : 30 - cut] = True
        maps[variant] = np.where(valid, truth + offset(variant, z), 0).astype(np.float32), valid
    return maps, truth, rois, size


def found(offset, chain="none+tkd", condition="2"):
    maps, truth, rois, _ = toy(offset)
    values = study_tables.region_values(maps, truth, rois, NAMES, SWEEPS)
    return values.assign(chain=chain, condition=condition)


def test_chains_are_written_and_read():
    for text in ("none+single-step", "pdf:tolerance=0.5,stopping=medi+medi:merit=true",
                 "none+single-step:radii=3/12,iterations=300"):  # fmt: skip
        assert Chain.parse(text).name == text
    chain = Chain.parse("none+single-step:radii=3/12")
    assert dict(chain.inversion_params) == {"radii": (3, 12)}
    assert all(c.isalnum() or c in "-+" for c in chain.identifier)
    names = [c.name for c in every_chain()]
    assert len(names) == len(set(names)) == 7 * 4 + 3
    assert "pdf+single-step" in names and "none+medi" not in names
    assert chains_of(["pdf+medi", "all"])[0] == "pdf+medi"
    for text, words in (
        ("pdf", "BACKGROUND.INVERSION"), ("pdf+x", "inversion 'x'"), ("y+medi", "background 'y'"),
        ("pdf:size=3+medi", "no parameter 'size'"), ("pdf:tolerance+medi", "KEY=VALUE"),
        ("a+b+c", "BACKGROUND.INVERSION"), ("pdf:max_iterations=x+medi", "max_iterations"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=words):
            Chain.parse(text)


def test_conditions_say_what_is_done():
    study = Study(chains=("pdf+medi", "none+single-step", "sharp+tkd"), early_tolerance=0.2)
    one, two, three = study.conditions
    assert (one.air_ppm, two.air_ppm, three.air_ppm) == (None, 9.0, 9.0)
    pdf, none, sharp = (Chain.parse(c) for c in study.chains)
    method, given = study.removal(pdf, two)
    assert method == "pdf" and given["tolerance"] == 1e-3
    assert study.removal(pdf, three) == ("pdf", {"tolerance": 0.2})
    assert study.removal(none, two) == ("none", {})
    # A chain without a removal gets what an early PDF leaves; SHARP has nothing to stop.
    assert study.removal(none, three) == ("pdf", {"tolerance": 0.2})
    assert study.removal(sharp, three) is None and study.removal(sharp, two) == ("sharp", {})
    own = Chain.parse("pdf:tolerance=0.5+medi")
    assert study.removal(own, one)[1]["tolerance"] == 0.5
    assert study.made_sloppy().removal(pdf, two)[1]["max_iterations"] == 3


def test_a_study_survives_json_and_refuses_nonsense():
    study = Study(white_matter_ppm=-0.06, slabs=(80, 116), chains=("pdf+tv",), snr=50.0)
    assert Study.from_dict(json.loads(json.dumps(study.as_dict()))) == study
    assert Study.from_dict(Study().as_dict()).snr == np.inf
    assert [v.name for v in study.variants][:2] == ["slab-116_erosion-0", "slab-80_erosion-0"]
    for values in (
        {"slabs": ()}, {"slabs": (0,)}, {"slabs": (90, 80)}, {"erosions": (-1, 0)}, {"chains": ()},
        {"early_tolerance": 0}, {"signal": "kspace"}, {"mask": "hand"}, {"matrix": (1, 2)},
        {"signal": "echoes", "echo_times": (0.01,)}, {"field_strength": 0}, {"snr": -1},
    ):  # fmt: skip
        with pytest.raises(DataError):
            Study(**values)


def test_slabs_are_whole_slices_and_their_ends_are_not_eroded():
    mask = np.zeros((20, 20, 74), bool)
    mask[3:17, 3:17, 2:72] = True
    heights = (np.arange(74) - 36.5) * 2
    for mm in (92.0, 104.0, 116.0):
        kept = variant_mask(mask, heights, (1, 1, 2), Variant(mm, 0.0))
        assert np.flatnonzero(kept.any(axis=(0, 1))).size * 2 == mm
    eroded = variant_mask(mask, heights, (1, 1, 2), Variant(92.0, 2.0))
    assert eroded.any(axis=(0, 1)).sum() == 46
    assert eroded.any(axis=(1, 2)).sum() == 14 - 4
    whole = variant_mask(mask, heights, (1, 1, 2), Variant(200.0, 2.0))
    assert whole.any(axis=(0, 1)).sum() == 70 - 2
    with pytest.raises(DataError, match="holds no brain"):
        variant_mask(mask, heights, (1, 1, 2), Variant(2.0, 0.0), centre=100)


def test_the_head_has_the_values_of_the_study():
    study = Study(matrix=(56, 68, 40), voxel_size=(3, 3, 4), white_matter_ppm=-0.06)
    head, rois = make_head(study), read_rois()
    ppm = {r.name: r.susceptibility_ppm for r in head.regions}
    assert (ppm["CN"], ppm["PU"], ppm["GP"]) == (0.04, 0.07, 0.12)
    assert (ppm["GM"], ppm["WM"], ppm["CSF_P"], ppm["air"]) == (0.04, -0.06, 0.0, 9.0)
    none = under(head, study.conditions[0])
    assert {r.susceptibility_ppm for r in none.regions if not r.brain} == {0.0}
    one, two = (measure(study, head, rois, c) for c in study.conditions[:2])
    for place, name in enumerate(rois["name"]):
        inside = one.rois == place + 1
        np.testing.assert_allclose(one.chi[inside], ppm[name], atol=1e-6)
    np.testing.assert_array_equal(one.mask, two.mask)
    # Nothing magnetic but the brain: its field is all there is.
    np.testing.assert_allclose(one.total, one.local, atol=1e-6)
    assert np.abs(two.total - two.local)[two.mask].max() > 1
    assert one.noise is None


def test_noise_of_a_field_is_that_of_a_fit_of_echoes():
    size = {"matrix": (40, 50, 26), "voxel_size": (4.5, 4.5, 6.0), "snr": 50.0}
    rois = read_rois().drop(columns=["z_low", "z_high"])
    condition = Study().conditions[0]
    field = Study(**size)
    head = make_head(field)
    noisy = measure(field, head, rois, condition)
    exact = measure(Study(**{**size, "snr": np.inf}), head, rois, condition)
    scatter = ((noisy.total - exact.total) / noisy.noise)[noisy.mask]
    assert scatter.std() == pytest.approx(1, abs=0.02) and abs(scatter.mean()) < 0.03
    fitted = measure(
        Study(**size, signal="echoes", echo_fit="nonlinear", mask="magnitude"),
        head, rois, condition,
    )  # fmt: skip
    found = fitted.mask & (fitted.rois >= 0)
    assert np.median(fitted.noise[found]) == pytest.approx(
        np.median(noisy.noise[noisy.mask]), rel=0.15
    )
    assert 0.8 * noisy.mask.sum() < found.sum() < 1.3 * noisy.mask.sum()
    # The box is that of both masks; the true field is known in either.
    same = found & np.isfinite(fitted.local)
    assert np.corrcoef(fitted.total[same], fitted.local[same])[0, 1] > 0.9


def test_a_common_offset_leaves_differences_alone():
    shift = {v: 0.001 * i for i, v in enumerate(VARIANTS)}
    table = study_tables.differences(found(lambda v, z: shift[v]))
    alone = table[(table["reference"] == "none") & (table["region"] == "CN")]
    expected = [1e3 * np.std([shift[v] for v in SWEEPS[s]], ddof=1) for s in ("slab", "mask")]
    np.testing.assert_allclose(alone["sd"], expected, rtol=1e-4)
    # The whole brain is another set of voxels in each mask.
    pairs = table[~table["reference"].isin(["none", study_tables.WHOLE])]
    assert pairs["sd"].max() < 1e-3 and pairs["bias"].abs().max() < 1e-3
    one = study_tables.table_one(table, NAMES)
    assert list(one["row"].unique()) == [
        "CN", "GP", "PU", "CSF_P", "W_brain", "CN-GP", "CN-PU", "CN-CSF_P", "CN-W_brain",
    ]  # fmt: skip
    cells = one.set_index(["row", "sweep"])
    assert cells.loc[("CN-GP", "slab"), "met"] == "met"
    assert pd.isna(cells.loc[("CN", "slab"), "met"])
    assert cells.loc[("CN-GP", "mask"), "published_sd"] == 0.31  # condition 2
    text = study_tables.markdown(one, Study(chains=("none+tkd",)))
    assert "| CN-GP |" in text and "-79.80 ± 0.28" in text and "| met |" in text


def test_an_offset_that_varies_is_told():
    # Grows along z and with the slab: distant regions are hit by more than neighbours.
    table = study_tables.differences(found(lambda v, z: 1e-5 * z * (v.slab_mm - 92)))
    near, far = (
        table[(table["region"] == "CN") & (table["reference"] == r) & (table["sweep"] == "slab")]
        for r in ("GP", "CSF_P")
    )
    # 6 and 30 mm apart.
    np.testing.assert_allclose(far["sd"], 5 * near["sd"].to_numpy(), rtol=1e-3)
    assert near["sd"].item() == pytest.approx(1e3 * 1e-5 * 6 * 12, rel=1e-3)
    met = study_tables.table_one(table, NAMES).set_index(["row", "sweep"])["met"]
    assert met["CN-GP", "slab"] == "missed" and met["CN-GP", "mask"] == "missed"


def test_the_published_table_has_most_of_its_structure():
    one = study_tables.table_one(study_tables.differences(found(lambda v, z: 0 * z)), NAMES)
    order = study_tables.structure(one, NAMES)
    theirs = order[order["chain"] == "published"]
    assert len(theirs) == 6 + 2 + 3
    holds = theirs.groupby("claim")["holds"].apply(lambda v: (v == "yes").sum())
    assert holds["condition 3 > 2 > 1"] == 2
    assert holds["absolute > distant > whole brain > neighbour"] >= 4


def test_smooth_part_and_correlation_length():
    rng = np.random.default_rng(1)
    size, mask = (2.0, 2.0, 3.0), np.zeros((48, 48, 32), bool)
    mask[4:44, 4:44, 3:29] = True
    np.testing.assert_allclose(
        study_offset.smooth_part(mask * 0.5, mask, size)[mask], 0.5, rtol=1e-4
    )
    # White noise under a Gaussian of SD s: exp(-r^2 / 4 s^2), 1/e at 2 s.
    lags = [np.fft.fftfreq(n, 1 / (n * h)) for n, h in zip(mask.shape, size, strict=True)]
    square = lags[0][:, None, None] ** 2 + lags[1][:, None] ** 2 + lags[2] ** 2
    lengths = []
    for _ in range(4):
        noise = np.fft.fftn(rng.standard_normal(mask.shape))
        smooth = np.fft.ifftn(noise * np.fft.fftn(np.exp(-square / 2 / 4.0**2))).real
        curve = study_offset.autocorrelation(smooth, mask, size)
        lengths.append(study_offset.correlation_length(curve))
    assert curve["correlation"].iloc[0] == pytest.approx(1, abs=1e-6)
    assert np.mean(lengths) == pytest.approx(8.0, rel=0.1)
    assert np.isnan(study_offset.correlation_length(curve.iloc[:2]))


def test_stability_falls_with_distance():
    maps, truth, _, size = toy(lambda v, z: 1e-5 * z * (v.slab_mm - 92) + 0.01 * (v.slab_mm == 92))
    table = study_offset.stability_by_distance(maps, truth, size, SWEEPS)
    slab = table[table["sweep"] == "slab"].set_index("distance_mm")["sd"]
    assert slab.loc[0.0] > 3
    pairs = slab.drop(0.0)
    # A linear offset: the SD of a difference is in proportion to the distance along z.
    assert np.corrcoef(pairs.index, pairs)[0, 1] > 0.9 and pairs.iloc[-1] > 2 * pairs.iloc[0]
    assert table[table["sweep"] == "mask"]["sd"].max() < 1e-3
    rows = study_offset.offset_table(maps, truth, size, SWEEPS)
    assert list(rows["what"]) == ["error", "change over slab", "change over mask"]
    assert rows["sd"][2] < 1e-3 < rows["sd"][1]
    tiny = {v: (chi, np.zeros_like(valid)) for v, (chi, valid) in maps.items()}
    assert study_offset.stability_by_distance(tiny, truth, size, SWEEPS).empty


def test_bad_tables_of_regions(tmp_path):
    table = tmp_path / "rois.tsv"
    for text, words in (
        ("name\nCN\n", "no column 'index'"), ("name\tindex\nCN\t1\nCN\t2\n", "once"),
        ("name\tindex\nW_brain\t1\n", "whole mask"), ("name\tindex\nCN\tx\n", "no number"),
        ("name\tindex\tz_low\nCN\t1\tlow\n", "no number"),
    ):  # fmt: skip
        table.write_text(text)
        with pytest.raises(DataError, match=words):
            read_rois(table)
    with pytest.raises(DataError, match="does not exist"):
        read_rois(tmp_path / "none.tsv")
    table.write_text("name\tindex\tz_low\nA\t21,22\t\nB\t21\t0\n")
    study = Study(matrix=(32, 40, 24), voxel_size=(5, 5, 6))
    with pytest.raises(DataError, match="shares voxels"):
        measure(study, make_head(study), read_rois(table), study.conditions[0])
    table.write_text("name\tindex\tz_low\nA\t21\t900\n")
    with pytest.raises(DataError, match="no voxel"):
        measure(study, make_head(study), read_rois(table), study.conditions[0])


def test_every_option_is_read():
    options = vars(cli._build_parser().parse_args(["study", "OUT"]))
    source = Path(cli.__file__).with_name("cli_study.py").read_text(encoding="utf-8")
    for name in set(options) - {"command", "run"}:
        assert f"options.{name}" in source, name


FEW = ["--sloppy", "--slabs", 92, 116, "--erosions", 0, 4]


def files_of(folder):
    return {
        p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and "work" not in p.parts
    }


def test_the_command_repeats_itself_and_does_nothing_the_second_time(tmp_path, capsys):
    chains = ["--methods", "none+single-step", "v-sharp+tkd"]
    assert run("study", tmp_path / "a", *FEW, *chains, "--nprocs", 1) == 0
    assert "files written" in capsys.readouterr().out
    stamps = {p: (tmp_path / "a" / p).stat().st_mtime_ns for p in files_of(tmp_path / "a")}
    assert run("study", tmp_path / "a", *FEW, *chains, "--nprocs", 1) == 0
    assert "nothing changed" in (said := capsys.readouterr().out) and "no step was left" in said
    assert stamps == {p: (tmp_path / "a" / p).stat().st_mtime_ns for p in stamps}
    # Another folder, two steps at a time: the same bytes.
    assert run("study", tmp_path / "b", *FEW, *chains, "--nprocs", 2) == 0
    names = files_of(tmp_path / "a")
    assert names == files_of(tmp_path / "b")
    same, different, errors = filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", names, shallow=False)
    assert not different and not errors and len(same) == len(names)
    for name in ("1-model", "2-maps", "3-regions", "4-references", "5-offset", "6-distance",
                 "7-methods"):  # fmt: skip
        for suffix in (".png", ".svg"):
            assert Path("figures", name + suffix) in names
    record = json.loads((tmp_path / "a/study.json").read_text())
    assert record["study"]["slabs"] == [92.0, 116.0] and record["conditions"]["2"]["air_ppm"] == 9
    done = record["chains"]["none+single-step"]["condition 3"]["slab-116_erosion-0"]
    assert done["background"]["method"] == "pdf" and 0 < done["background"]["residual"] < 1
    assert done["inversion"]["grid"] and done["voxels_valid"] > 1000
    assert list(record["chains"]["v-sharp+tkd"]) == ["condition 1", "condition 2"]
    table = pd.read_csv(tmp_path / "a/table1.tsv", sep="\t")
    assert set(table["met"].dropna()) <= {"met", "missed"} and len(table) == 9 * 2 * (3 + 2)
    # One chain less: what was made for two goes, what is shared is not done again.
    assert run("study", tmp_path / "a", *FEW, *chains[:2], "--nprocs", 1) == 0
    assert not (tmp_path / "a/figures/7-methods.png").exists()


def test_another_head_with_echoes(tmp_path, capsys):
    x, y, z = np.meshgrid(*[np.arange(28) - 13.5] * 3, indexing="ij")
    distance = np.sqrt(x**2 + y**2 + z**2)
    labels = np.where(distance < 12, 2, np.where(distance < 13, 1, 0)).astype(np.uint8)
    for place, (a, b) in enumerate(((6, 9), (10, 13), (14, 17))):
        labels[a:b, 12:16, 12:16] = 3 + place
    nib.save(nib.Nifti1Image(labels, np.diag([5.0, 5, 5, 1])), tmp_path / "labels.nii")
    (tmp_path / "table.tsv").write_text(
        "index\tname\tsusceptibility_ppm\n0\tair\t9\n1\tbone\t-2\n2\tWM\t-0.03\n3\tcaudate\t0.04\n"
        "4\tputamen\t0.07\n5\tpallidum\t0.12\n"
    )
    (tmp_path / "rois.tsv").write_text("name\tindex\nA\t3\nB\t4\nC\t5\nD\t2\n")
    head = ["--labels", tmp_path / "labels.nii", "--susceptibility", tmp_path / "table.tsv"]
    head += ["--rois", tmp_path / "rois.tsv"]
    code = run(
        "study", tmp_path / "out", *head, "--sloppy", "--slabs", 60, 100, "--erosions", 0,
        "--voxel-size", 5, 5, 5, "--signal", "echoes", "--snr", 80, "--field-strength", 7,
        "--echo-times", 0.003, 0.006, 0.009, "--white-matter", -0.02, "--oblique", 10,
        "--methods", "pdf+tkd", "--nprocs", 1, "--air", 5, "--seed", 3,
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    table = pd.read_csv(tmp_path / "out/table1.tsv", sep="\t")
    assert list(table["row"].unique())[:5] == ["A", "B", "C", "D", "W_brain"]
    assert table[table["row"] == "D"]["truth"].round(3).unique() == [-20.0]
    assert table["published_sd"].isna().sum() == (table["row"] != "W_brain").sum()
    record = json.loads((tmp_path / "out/study.json").read_text())
    assert record["head"] == "label image" and record["field"]["b0_dir"][2] < 0.99
    # A mask that leaves nothing is one sentence and the code of the step.
    (tmp_path / "rois.tsv").write_text("name\tindex\nA\t9\n")
    assert run("study", tmp_path / "other", *head, "--sloppy", "--nprocs", 1) == 65
    assert "region of interest A has no voxel" in capsys.readouterr().err


def test_options_that_do_not_go_together(tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_text("x")
    for arguments, code, words in (
        ([full], 73, "holds no study"),
        ([tmp_path / "o", "--labels", "x.nii"], 2, "needs --susceptibility"),
        ([tmp_path / "o", "--mask", "x.nii"], 2, "go with --labels"),
        ([tmp_path / "o", "--methods", "pdf"], 2, "BACKGROUND.INVERSION"),
        ([tmp_path / "o", "--slabs", "5", "4"], 2, "increasing"),
        ([tmp_path / "o", "--rois", tmp_path / "no.tsv"], 66, "does not exist"),
        ([tmp_path / "o", "--labels", "a", "--susceptibility", "b", "--rois", "c", "--matrix",
          8, 8, 8], 2, "does not go with"),
    ):  # fmt: skip
        assert run("study", *arguments) == code
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert words.replace(".", "+") in error or words in error
    assert not (tmp_path / "o").exists()
