"""Regions and references from the command line: tables by hand, groups, referenced maps, CSF."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import Runner, errors_of
from nipype.interfaces.base import isdefined

from bids_app.group import _statistic
from bids_app.parser import parse_args
from qsmref.analysis.region_methods import split_csf, statistic_of
from qsmref.analysis.tissues import tissue_masks
from qsmref.files import write_json
from qsmref.interfaces.references import DrawNoise, TissueMasks
from qsmref.problems import DataError, ExitCode
from qsmref.settings import Settings

NAMES = "index\tname\n1\tGPe_L\n2\tGPi_L\n3\tGPe_R\n4\tGPi_R\n5\tCN_L\n6\tventricle\n"
GROUPS = "group\tmember\nGP\tGPe\nGP\tGPi\nCN\tCN\n"


@pytest.fixture
def run(tmp_path, capfd):
    """Run the command line in this process."""
    return Runner(tmp_path, capfd)


def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Map (ppm), labels and mask of which one region lies half outside."""
    rng = np.random.default_rng(3)
    mask, _ = tiny.head()
    labels = np.zeros(tiny.SHAPE, np.int16)
    labels[6:8, 10:15, 9:13], labels[8:10, 10:15, 9:13] = 1, 2
    labels[16:18, 10:15, 9:13], labels[14:16, 10:15, 9:13] = 3, 4
    labels[8:10, 0:4, 9:13] = 5
    labels[11:13, 11:15, 9:13] = 6
    chi = rng.normal(0.03, 0.02, tiny.SHAPE).astype(np.float32)
    return chi, labels, mask


def write_maps(root: Path) -> Path:
    """A dataset of a map, its mask and its labels, and nothing else."""
    chi, labels, mask = head()
    tiny.write_description(
        root / "maps", Name="maps", DatasetType="derivative", GeneratedBy=[{"Name": "theirs"}]
    )
    stem = str(root / "maps" / "sub-01" / "anat" / "sub-01")
    tiny.write_image(Path(f"{stem}_Chimap.nii.gz"), chi)
    tiny.write_json(Path(f"{stem}_Chimap.json"), {"Units": "ppm", "SkullStripped": False})
    tiny.write_image(Path(f"{stem}_desc-brain_mask.nii.gz"), mask.astype(np.uint8))
    tiny.write_image(root / "atlas" / "drawn_dseg.nii.gz", labels)
    (root / "atlas" / "drawn_dseg.tsv").write_text(NAMES)
    (root / "groups.tsv").write_text(GROUPS)
    return root / "maps"


def read(folder: Path, name: str) -> pd.DataFrame:
    (path,) = (folder / "sub-01" / "anat").glob(f"*_atlas-drawn_desc-{name}_Chimap.tsv")
    return pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["n/a"])


def sidecar(folder: Path, pattern: str) -> dict:
    (path,) = (folder / "sub-01" / "anat").glob(f"{pattern}.json")
    return json.loads(path.read_text())


def test_maps_and_labels_give_the_tables_of_arithmetic_by_hand(tmp_path, run):
    maps = write_maps(tmp_path)
    done = run(maps, "--atlas", f"drawn={tmp_path / 'atlas'}", fast=False)
    assert done.code == ExitCode.OK, done.err
    anat = maps / "sub-01" / "anat"
    chi = nib.load(anat / "sub-01_Chimap.nii.gz").get_fdata() * 1000
    mask = nib.load(anat / "sub-01_desc-brain_mask.nii.gz").get_fdata() > 0
    labels = nib.load(tmp_path / "atlas" / "drawn_dseg.nii.gz").get_fdata()
    parts = {"GPe_L": [1], "GPi_L": [2], "GPe_R": [3], "GPi_R": [4], "ventricle": [6]}
    parts |= {"GPe": [1, 3], "GPi": [2, 4], "csf": [6]}
    inside = {name: np.isin(labels, numbers) & mask for name, numbers in parts.items()}
    inside["brain"] = mask
    rows = read(done.output_dir, "roi").set_index("name")
    assert set(rows.index) == {*inside, "CN_L"}
    for name, voxels in inside.items():
        values = chi[voxels]
        assert rows.loc[name, "n_voxels"] == values.size
        expected = {
            "mean": values.mean(),
            "median": np.median(values),
            "sd": values.std(ddof=1),
            "p05": np.percentile(values, 5),
            "p95": np.percentile(values, 95),
        }
        for column, value in expected.items():
            assert rows.loc[name, column] == pytest.approx(value, rel=1e-8), (name, column)
    pairs = read(done.output_dir, "differential").set_index(["region", "reference"])
    for one, other in [("GPe_L", "GPi_R"), ("GPe_L", "brain"), ("GPe", "GPi"), ("GPi", "csf")]:
        expected = chi[inside[one]].mean() - chi[inside[other]].mean()
        assert pairs.loc[(one, other), "difference"] == pytest.approx(expected, rel=1e-8)
    # A region that the mask cuts keeps its row; a part of it does not pass for the whole.
    kept = np.count_nonzero((labels == 5) & mask) / np.count_nonzero(labels == 5)
    assert 0 < kept < 0.5
    assert rows.loc["CN_L", "coverage"] == pytest.approx(kept, rel=1e-8)
    assert pd.isna(rows.loc["CN_L", "mean"])
    assert pairs.loc[("GPe_L", "CN_L"), ["difference", "se"]].isna().all()
    assert rows["se_noise"].isna().all()


def test_options_of_regions_reach_tables_and_sidecars(tmp_path, run):
    maps = write_maps(tmp_path)
    flags = ["--atlas", f"drawn={tmp_path / 'atlas' / 'drawn_dseg.nii.gz'}"]
    flags += ["--label-groups", tmp_path / "groups.tsv", "--statistic", "median"]
    flags += ["--min-coverage", "0.1", "--region-erosion", "2", "--reference", "brain", "GP"]
    done = run(maps, *flags, fast=False, validation=True)
    assert done.code == ExitCode.OK, done.err
    assert errors_of(done.output_dir) == []
    rows = read(done.output_dir, "roi").set_index("name")
    assert list(rows.index) == ["GP_L", "GP_R", "CN_L", "GP", "brain", "csf"]
    assert rows.loc["GP", "labels"] == "1+2+3+4"
    chi, labels, mask = head()
    values = chi[np.isin(labels, [1, 2]) & mask].astype(float) * 1000
    # 2 mm of 4 mm voxels: nothing is taken off.
    assert rows.loc["GP_L", "median"] == pytest.approx(np.median(values), rel=1e-8)
    assert rows.loc["CN_L", "mean"] == pytest.approx(
        chi[(labels == 5) & mask].mean(dtype=float) * 1000, rel=1e-8
    )
    pairs = read(done.output_dir, "differential").set_index(["region", "reference"])
    medians = rows["median"]
    assert pairs.loc[("GP_L", "CN_L"), "difference"] == pytest.approx(
        medians["GP_L"] - medians["CN_L"], abs=1e-6
    )
    told = sidecar(done.output_dir, "*desc-differential_Chimap")
    assert told["Statistic"] == "median"
    assert told["difference"]["Description"].startswith("Median of the region")
    assert (told["MinimumCoverage"], told["RegionErosion"]) == (0.1, 2.0)
    assert told["ReferenceTissues"]["csf"]["source"] == "labels"
    # Maps with another zero, and sidecars that say which.
    names = {"brain": chi[mask], "GP": chi[np.isin(labels, [1, 2, 3, 4]) & mask]}
    for name, voxels in names.items():
        path = done.output_dir / f"sub-01/anat/sub-01_desc-{name}referenced_Chimap.nii.gz"
        zero = voxels.astype(float).mean()
        expected = chi.astype(float) - zero
        np.testing.assert_allclose(nib.load(path).get_fdata(), expected, atol=1e-7)
        told = sidecar(done.output_dir, f"*desc-{name}referenced_Chimap")
        assert told["Reference"]["subtracted_ppm"] == pytest.approx(zero, abs=1e-9)
        assert told["SusceptibilityReference"] == f"mean of {name}, set to zero"
    listed = pd.read_csv(done.output_dir / "descriptions.tsv", sep="\t")["desc_id"]
    assert {"desc-brainreferenced", "desc-GPreferenced"} <= set(listed)


def test_a_reference_that_is_not_there_is_told(tmp_path, run):
    maps = write_maps(tmp_path)
    done = run(
        maps, "--atlas", f"drawn={tmp_path / 'atlas'}", "--reference", "thalamus", fast=False
    )
    assert done.code == ExitCode.BAD_DATA
    assert "'thalamus' is no row of the table of regions (drawn)" in done.err


def test_fluid_in_the_inversion_and_noise_in_the_tables(tmp_path, run):
    tiny.make_dataset(tmp_path / "bids")
    tiny.make_regions(tmp_path / "regions")
    flags = ["-d", f"mine={tmp_path / 'regions'}", "--background", "v-sharp", "--inversion", "medi"]
    flags += ["--inversion-param", "csf=ventricles", "max_iterations=2", "--noise-repeats", "3"]
    flags += ["--nprocs", "1", "--reference-erosion", "0"]
    done = run(tmp_path / "bids", *flags, fast=False)
    assert done.code == ExitCode.OK, done.err
    told = sidecar(done.output_dir, "*desc-unreferenced_Chimap")
    fluid = told["Processing"]["CSF"]["csf"]
    assert (fluid["source"], fluid["labels"]) == ("labels", [3])
    # MEDI+0: the mean of the fluid is zero in the map itself.
    assert told["ReferenceStatistics"]["atlas-mine"]["csf"]["mean"] == pytest.approx(
        -told["ReferenceStatistics"]["brain"]["mean_in_map"], abs=1e-3
    )
    table = next((done.output_dir / "sub-01" / "anat").glob("*roi_Chimap.tsv"))
    rows = pd.read_csv(table, sep="\t").set_index("name")
    assert (rows["se_noise"] > 0).all()
    told = sidecar(done.output_dir, "*desc-roi_Chimap")
    assert told["NoisePropagation"] == {"repeats": 3, "voxel_size_mm": [4.0, 4.0, 4.0]}
    assert "MEDI+0" in (done.output_dir / "logs" / "CITATION.md").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--inversion", "tkd", "--inversion-param", "csf=ventricles"], "has no parameter 'csf'"),
        (["--inversion", "medi", "--inversion-param", "csf=here"], "ventricles, labels, r2star"),
    ],
)
def test_wrong_sources_of_fluid(tmp_path, run, flags, words):
    tiny.make_dataset(tmp_path / "bids")
    done = run(tmp_path / "bids", "--background", "v-sharp", *flags, fast=False)
    assert done.code == ExitCode.USAGE
    assert words in done.out + done.err


def test_the_weight_of_the_fluid_asks_for_it():
    assert split_csf("medi", {"lambda_csf": 10.0}) == ({"lambda_csf": 10.0}, "auto")
    assert split_csf("medi", {"lambda_csf": 0}) == ({"lambda_csf": 0}, None)
    assert split_csf("medi", {}) == ({}, None)
    assert split_csf("tkd", {"threshold": 0.2}) == ({"threshold": 0.2}, None)


def decaying(seed: int = 0) -> tuple[np.ndarray, np.ndarray, tuple[float, ...]]:
    """Magnitude of a brain with a ventricle of slow decay, the brain, and echo times."""
    shape, times = (36, 40, 32), (0.004, 0.012, 0.020, 0.028)
    place = np.moveaxis(np.indices(shape), 0, -1) - (np.array(shape) - 1) / 2
    mask = np.linalg.norm(place / (0.48 * np.array(shape)), axis=-1) < 1
    fluid = np.linalg.norm(place / (2.5, 5, 3), axis=-1) < 1
    rate = np.where(fluid, 2.0, 25.0)
    noise = np.random.default_rng(seed).normal(0, 0.2, (*shape, len(times)))
    decay = 100 * mask[..., None] * np.exp(-rate[..., None] * np.array(times))
    return np.abs(decay + noise), mask, times


def test_ventricles_by_slow_decay_where_there_are_no_labels():
    magnitude, mask, times = decaying()
    given = {"mask": mask, "magnitude": magnitude, "echo_times": times}
    masks, info = tissue_masks([], (3, 3, 3), **given)
    assert set(masks) == {"csf"} and info["csf"]["source"] == "r2star"
    assert 100 < info["csf"]["n_voxels"] < 250
    labels = np.zeros(mask.shape, int)
    labels[10:15, 10:20, 10:20] = 3
    table = pd.DataFrame({"index": [3], "name": ["CSF"]})
    drawn = [("mine", labels, table)]
    masks, info = tissue_masks(drawn, (3, 3, 3), erosion=3.0, **given)
    assert info["csf"]["atlas"] == "mine" and masks["csf"].sum() == 3 * 8 * 8
    masks, info = tissue_masks(drawn, (3, 3, 3), csf="r2star", **given)
    assert info["csf"]["source"] == "r2star"
    masks, info = tissue_masks(drawn, (3, 3, 3), csf="none", **given)
    assert not masks
    # What cannot be had is told, and is an error only where it was asked for.
    masks, info = tissue_masks([], (3, 3, 3), mask=mask)
    assert "needs magnitudes of 3 echoes" in info["csf"]["why"] and not masks
    with pytest.raises(ValueError, match="needs magnitudes of 3 echoes"):
        tissue_masks([], (3, 3, 3), mask=mask, csf="r2star")
    masks, info = tissue_masks(drawn, (3, 3, 3), mask=mask, csf="labels", erosion=20)
    assert not masks and "leaves nothing" in info["csf"]["why"]


def test_white_matter_comes_from_another_atlas():
    _, mask, _ = decaying()
    labels = np.zeros(mask.shape, int)
    labels[10:26, 12:28, 10:22] = 2
    names = pd.DataFrame({"index": [2], "name": ["Left-Cerebral-White-Matter"]})
    masks, info = tissue_masks([("aseg", labels, names)], (2, 2, 2), mask=mask)
    assert info["wm"]["source"] == "labels"
    assert masks["wm"].sum() == 14 * 14 * 10


def test_an_inversion_that_needs_fluid_stops_without(tmp_path):
    mask = tiny.write_image(tmp_path / "mask.nii.gz", tiny.head()[0].astype(np.uint8))
    with pytest.raises(DataError, match="was asked for csf, and none was found"):
        TissueMasks(mask=mask, csf="auto", required=True).run(cwd=tmp_path)


def parse(tmp_path, *flags):
    return parse_args([str(tmp_path), str(tmp_path / "out"), "participant", *flags]).settings


def test_flags_of_atlases(tmp_path):
    found = parse(tmp_path, "--atlas", "CIT168", "mine=a/b.nii.gz", "--atlas", "x=CIT168").atlas
    assert found == {
        "CIT168": "CIT168",
        "mine": str(Path("a/b.nii.gz").absolute()),
        "x": "CIT168",
    }
    settings = Settings(atlas={"mine": "p"}, reference=("csf", "mine:GP"))
    assert Settings.from_toml(settings.to_toml()) == settings


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--atlas", "boxes"], "expected NAME=PATH"),
        (["--atlas", "my_atlas=p"], "letters and digits"),
        (["--min-coverage", "1.5"], "min-coverage must be at most 1"),
        (["--noise-repeats", "1"], "one map has no scatter"),
        (["--reference", "a:--"], "no letter or digit"),
        (["--label-groups", "nowhere.tsv"], "there is no file nowhere.tsv"),
        (["--statistic", "mode"], "invalid choice"),
    ],
)
def test_wrong_flags_end_with_usage(tmp_path, capsys, flags, words):
    with pytest.raises(SystemExit) as stop:
        parse(tmp_path, *flags)
    assert stop.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_an_atlas_is_no_derivative():
    with pytest.raises(ValueError, match="the name of an atlas and of a derivative"):
        Settings(atlas={"x": "a"}, derivatives={"x": "b"})


def test_noise_that_cannot_be_carried_through_is_told(tmp_path):
    field = tiny.write_image(tmp_path / "field.nii.gz", np.ones(tiny.SHAPE, np.float32))
    noise = tiny.write_image(tmp_path / "noise.nii.gz", np.full(tiny.SHAPE, 0.01, np.float32))
    thin = np.zeros(tiny.SHAPE, np.uint8)
    thin[5:15, 10, 10] = 1
    mask = tiny.write_image(tmp_path / "mask.nii.gz", thin)
    done = DrawNoise(
        field=field, noise=noise, mask=mask, radians_per_ppm=3.2, inversion="single-step", repeats=2
    ).run(cwd=tmp_path)
    told = json.loads(Path(done.outputs.info).read_text())
    assert told["repeats"] == 0 and "no voxel of the mask has all its neighbours" in told["why"]
    assert not isdefined(done.outputs.maps)


def test_labels_of_a_template_are_compared_by_biweights():
    assert statistic_of("auto", "native") == "mean"
    assert statistic_of("auto", "T1w") == statistic_of("auto", "template") == "biweight"
    assert statistic_of("mean", "template") == "mean"
    assert statistic_of("median", "native") == "median"


def test_the_group_level_takes_the_statistic_of_the_tables(tmp_path):
    scans = []
    for subject, said in (("01", {"Statistic": "median"}), ("02", {"Statistic": "median"})):
        path = tmp_path / f"sub-{subject}_atlas-A_desc-differential_Chimap.tsv"
        write_json(path.with_suffix(".json"), said)
        scans.append(SimpleNamespace(paths={"differential": path, "roi": path}))
    assert _statistic(scans, "auto") == "median"
    assert _statistic(scans, "mean") == "mean"
    write_json(scans[1].paths["roi"].with_suffix(".json"), {})
    with pytest.raises(DataError, match="do not agree on the statistic"):
        _statistic(scans, "auto")
    assert _statistic(scans, "median") == "median"
