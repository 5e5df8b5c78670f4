"""Parts of the page of a participant: sweep, crash texts, viewer, what the map was made of."""

from __future__ import annotations

import base64
import gzip
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from app_runner import Runner, regions
from test_report import AFFINE, Page, make_result, write

import qsmref
from bids_app import viewer
from bids_app.crashes import crash_text
from bids_app.originals import Datasets, find_originals
from bids_app.pictures import View
from bids_app.sweeptable import sweep_table
from qsmref import images
from qsmref.anatomy import THROUGH_T1W
from qsmref.problems import ExitCode, Problem
from qsmref.settings import Settings
from qsmref.tables import write_tsv


@pytest.fixture
def run(tmp_path, capfd):
    """Run the command line in this process."""
    return Runner(tmp_path, capfd)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    return make_result(tmp_path_factory.mktemp("run"))


def coverage() -> pd.DataFrame:
    """Two regions and the brain under three masks; an offset comes in with each of them."""
    values = {"CN_L": 40.0, "CN": 42.0, "GP": 120.0, "brain": 2.0}
    rows = []
    for slab, erosion, offset in ((0, 0, 0.0), (8, 0, 5.0), (0, 2, -3.0)):
        for name, value in values.items():
            rows.append((slab, erosion, name, None, value + offset))
        for a, b in (("CN_L", "GP"), ("CN", "GP"), ("CN", "brain"), ("GP", "brain")):
            moved = values[a] - values[b] + (0.5 if slab and b == "brain" else 0)
            rows.append((slab, erosion, a, b, moved))
    names = ["slab_cut_mm", "erosion_mm", "region", "reference", "difference"]
    return pd.DataFrame(rows, columns=names)


def test_a_sweep_is_told_as_shifts_from_the_whole_mask():
    table = sweep_table(coverage(), {"CN", "GP"})
    assert table.masks == ["slab \u22128 mm", "erosion 2 mm"]
    kinds = {kind.title: kind for kind in table.kinds}
    alone, pairs = kinds["Regions alone"], kinds["Differences between regions"]
    rows = {name: (whole, [s.text for s in shifts], sd) for name, whole, shifts, sd in alone.rows}
    assert rows["GP"] == ("120.0", ["+5.0", "\u22123.0"], "4.04")
    # One side of a structure is left to the file where both sides together are there.
    assert "CN_L" not in rows and [row[0] for row in pairs.rows] == ["CN \u2212 GP"]
    assert [s.text for s in pairs.rows[0][2]] == ["0.0", "0.0"] and pairs.typical == "0.00"
    against = {row[0]: row[2][0].text for row in kinds["Against the references"].rows}
    shown = ("CN \u2212 brain (reference)", "GP \u2212 brain (reference)")
    assert against == dict.fromkeys(shown, "+0.5")


def test_a_single_mask_and_lost_regions_are_no_sweep_and_no_number():
    table = coverage()
    assert sweep_table(table[(table["slab_cut_mm"] == 0) & (table["erosion_mm"] == 0)]) is None
    table.loc[table["slab_cut_mm"] == 8, "difference"] = np.nan
    made = sweep_table(table)
    assert {row[2][0].text for kind in made.kinds for row in kind.rows} == {"n/a"}


def test_the_page_has_the_sweep(result, tmp_path):
    write_tsv(tmp_path / "coverage.tsv", coverage())
    atlas = result["files"]["atlases"]["mine"] | {"coverage_tsv": tmp_path / "coverage.tsv"}
    changed = {**result, "files": {**result["files"], "atlases": {"mine": atlas}}}
    _, _, page = write(tmp_path, [changed])
    assert "Under other masks: mine" in page.words
    assert any("a shift of +5.0 ppb" in title for title in page.titles)
    assert "Regions alone: SD 4.04 ppb (median)" in page.words


def crash(folder: Path, node: str, text: str, age: float = 0.0) -> Path:
    path = folder / "logs" / f"crash-2026-x-{node.rpartition('.')[2]}-{len(text)}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"Node: {node}\nWorking directory: /w\n\n{text}")
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_the_crash_of_a_step_is_the_newest_of_that_step_and_participant(tmp_path):
    crash(tmp_path, "qsmref_wf.sub_01_wf.run_wf.field_wf.echo_fit", "old", age=10)
    crash(tmp_path, "qsmref_wf.sub_01_wf.run_wf.field_wf.echo_fit", "newer")
    crash(tmp_path, "qsmref_wf.sub_01_wf.run_wf.field_wf.unwrap", "another step", age=-10)
    crash(tmp_path, "qsmref_wf.sub_011_wf.run_wf.field_wf.echo_fit", "someone else", age=-10)
    problem = Problem("01", "it broke.", ExitCode.INTERNAL, "echo fit", "sub-01")
    assert crash_text(tmp_path, problem).endswith("newer")
    assert crash_text(tmp_path, Problem("01", "bad file.")) == ""
    assert crash_text(tmp_path / "none", problem) == ""
    own = tmp_path / "logs" / "crash-qsmref-7.txt"
    own.write_text("Traceback \x1b[31mred")
    told = Problem("", f"unexpected KeyError (details: {own})", ExitCode.INTERNAL, "start")
    assert crash_text(tmp_path, told) == "Traceback \ufffd[31mred"


def test_long_crash_texts_keep_their_beginning_and_their_end(tmp_path):
    crash(tmp_path, "qsmref_wf.sub_01_wf.run_wf.unwrap", "x" * 50_000 + "the end")
    text = crash_text(tmp_path, Problem("01", "it broke.", ExitCode.INTERNAL, "unwrap", "sub-01"))
    assert text.startswith("Node: ") and text.endswith("the end") and len(text) < 21_000


def test_a_step_that_fails_shows_its_traceback_in_the_page(tmp_path, run):
    tiny.make_dataset(tmp_path / "bids", ("01",))
    tiny.make_regions(tmp_path / "regions", ("01",))
    path = tmp_path / "bids/sub-01/anat/sub-01_echo-2_part-phase_MEGRE.nii.gz"
    array, image = images.load(path)
    array[2, 2, 2:5] = (np.nan, np.inf, -np.inf)
    images.save(array, path, image)
    done = run(tmp_path / "bids", *regions(tmp_path))
    assert done.code == ExitCode.BAD_DATA
    text = (done.output_dir / "sub-01.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "What the program said" in page.words and "Traceback (most recent call" in page.words
    assert "1 problem" in page.words and "#problem1" in page.links


def unpacked(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_the_viewer_has_the_map_in_its_place_to_one_ppb(result, tmp_path):
    small = np.zeros(nib.load(result["files"]["chimap"]).shape, dtype=bool)
    small[6:15, 4:12, 5:8] = True
    files = {**result["files"], "mask": images.save(small, tmp_path / "mask.nii.gz", AFFINE)}
    made = viewer.make_viewer(files)
    image = unpacked(made.chimap)
    values = np.asanyarray(image.dataobj)
    chi, mask = (nib.load(files[k]).get_fdata() for k in ("chimap", "mask"))
    inside = np.argwhere(mask > 0)
    zero = np.median(chi[mask > 0]) * 1000
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine) @ AFFINE, inside)).astype(
        int
    )
    found = values[tuple(there.T)]
    assert values.dtype == np.int16 and values.size < chi.size
    np.testing.assert_allclose(found, chi[mask > 0] * 1000 - zero, atol=0.51)
    outside = np.ones(values.shape, dtype=bool)
    outside[tuple(there.T)] = False
    assert (values[outside] == -2000).all()


def test_a_page_that_would_be_too_large_does_without_its_viewer(result, tmp_path, monkeypatch):
    _, text, page = write(tmp_path, [result])
    assert 'id="viewer-program"' in text and "NiiVue" in page.words
    assert "BSD 2-Clause License" in page.words
    small = len(text) - len(viewer.program())
    monkeypatch.setattr(viewer, "LARGEST_PAGE", small)
    _, text, page = write(tmp_path, [result])
    assert "viewer-program" not in text and "BSD" not in page.words
    assert "viewer is left out: with it this page would have" in page.words


def test_the_program_of_the_viewer_is_the_one_its_licence_names():
    import hashlib
    import importlib.resources

    folder = importlib.resources.files("qsmref") / "data" / "report" / "niivue"
    code = (folder / "niivue.umd.js").read_bytes()
    assert hashlib.sha256(code).hexdigest() in viewer.licence()
    assert gzip.decompress(base64.b64decode(viewer.program())) == code


def test_sources_are_found_by_their_uris_and_nowhere_else(tmp_path):
    raw = tmp_path / "raw data"
    raw.mkdir()
    (raw / "a.nii.gz").write_text("x")
    (tmp_path / "secret").write_text("x")
    tiny.write_json(
        tmp_path / "dataset_description.json",
        {"DatasetLinks": {"raw": raw.as_uri(), "far": "https://example.org", "odd": 7}},
    )
    datasets = Datasets(tmp_path)
    assert datasets.file("bids:raw:a.nii.gz") == raw / "a.nii.gz"
    assert datasets.file("bids::secret") == tmp_path / "secret"
    for uri in (
        "bids:raw:../secret",
        f"bids:raw:{tmp_path / 'secret'}",
        "bids:raw:b.nii.gz",
        "bids:far:a",
        "bids:odd:a",
        "a",
        7,
        None,
    ):
        assert datasets.file(uri) is None


def originals(folder: Path, **told) -> dict[str, str]:
    """Names of the files of the registration that a sidecar tells of."""
    settings = Settings.from_preset("default", template=str(folder / "tpl-round_T1w.nii.gz"))
    sidecar = {"Registration": told}
    found = find_originals(folder, folder / "sub-01" / "anat", "sub-01", sidecar, settings)
    return {kind: path.name for kind, path in found.get("registration", {}).items()}


def test_transforms_of_other_templates_and_ways_are_left_alone(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    (tmp_path / "raw").mkdir()
    given = "sub-01_from-round_to-T1w_mode-image_desc-given_xfm.h5"
    t1w = "sub-01_T1w.nii.gz"
    for path in (tmp_path / "tpl-round_T1w.nii.gz", tmp_path / "raw" / t1w, tmp_path / given):
        path.write_text("x")
    for way in (
        "from-round_to-T1w",
        "from-zebra_to-T1w",
        "from-round_to-MEGRE",
        "from-T1w_to-round",
    ):
        (anat / f"sub-01_{way}_mode-image_xfm.h5").write_text("x")
    (anat / "sub-01_from-MEGRE_to-T1w_mode-image_xfm.txt").write_text("x")
    tiny.write_json(
        anat / "sub-01_from-MEGRE_to-T1w_mode-image_xfm.json",
        {"Sources": [f"bids::raw/{t1w}", f"bids::{given}"]},
    )
    rigid = {"t1w": t1w, "map_to_t1w": "sub-01_from-MEGRE_to-T1w_mode-image_xfm.txt"}
    head = {"template": "tpl-round_T1w.nii.gz"}
    own = {"template_to_map": "sub-01_from-round_to-T1w_mode-image_xfm.h5"}
    assert originals(tmp_path, Through=THROUGH_T1W, ToTemplate={}) == rigid | head | own
    found = originals(tmp_path, Through=THROUGH_T1W, ToTemplate="precomputed")
    assert found == rigid | head | {"template_to_map": given}
    found = originals(tmp_path, Through="the magnitude alone", ToTemplate={})
    own = {"template_to_map": "sub-01_from-round_to-MEGRE_mode-image_xfm.h5"}
    assert found == {"t1w": t1w} | head | own
    found = find_originals(tmp_path, anat, "sub-01", {}, Settings.from_preset("default"))
    assert "registration" not in found


def test_the_mask_beside_a_map_made_elsewhere_is_found(tmp_path):
    anat = tmp_path / "sub-01" / "anat"
    anat.mkdir(parents=True)
    mask = anat / "sub-01_desc-brain_mask.nii.gz"
    mask.write_text("x")
    uris = [f"bids::sub-01/anat/{name}" for name in ("sub-01_Chimap.nii.gz", mask.name)]
    found = find_originals(tmp_path, anat, "sub-01", {"Sources": uris}, None)
    assert found == {"mask": mask}
    assert find_originals(tmp_path, anat, "sub-01", {"Sources": uris[:1]}, None) == {}


def test_what_has_moved_is_said(result, tmp_path):
    sidecar = {**result["sidecar"], "Registration": {"Engine": "ants"}}
    _, _, page = write(tmp_path, [{**result, "sidecar": sidecar}])
    assert (
        "Not shown: the phase as it was acquired and the images that the map was registered to"
        in page.words
    )


def registered(result: dict, folder: Path, lost: str = "", **told) -> Page:
    """Page of a map that was registered; its grid is without the shear that ITK refuses."""
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    files = {}
    for name in ("magnitude", "mask", "chimap", "total_field"):
        files[name] = folder / f"{name}.nii.gz"
        images.save(np.asarray(nib.load(result["files"][name]).dataobj), files[name], affine)
    files["phase_first"], t1w = files["total_field"], folder / "T1w.nii.gz"
    shutil.copy(files["magnitude"], t1w)
    if lost == "damaged":
        t1w.write_bytes(t1w.read_bytes()[:-200])
    identity = Path(qsmref.__file__).parent / "data" / "identity_xfm.txt"
    way = {"t1w": t1w, "map_to_t1w": identity}
    way |= {"template": files["magnitude"], "template_to_map": identity}
    way.pop(lost, None)
    told = {"Through": THROUGH_T1W, "MapToT1w": {}, "ToTemplate": {}} | told
    sidecar = {"Processing": {"EchoFit": {"method": "nonlinear"}}, "Registration": told}
    given = {"prefix": "sub-01", "files": {**files, "registration": way}, "sidecar": sidecar}
    return write(folder, [given])[-1]


@pytest.mark.parametrize("lost", ["", "t1w", "template", "damaged"])
def test_a_lost_image_of_the_registration_is_said(result, tmp_path, lost):
    page = registered(result, tmp_path, lost)
    names = {"t1w": "T1-weighted image", "damaged": "T1-weighted image", "template": "template"}
    if lost:
        assert f"Not shown: the {names[lost]}, which can no longer be read" in page.words
    else:
        assert "Not shown" not in page.words
    titles = ("magnitude and T1-weighted image", "T1-weighted image and template")
    both = [f"Registration: {title}" in page.words for title in titles]
    assert both == [lost in ("", "template"), not lost]


def test_a_map_on_the_grid_of_its_t1w_lacks_nothing(result, tmp_path):
    page = registered(result, tmp_path, "t1w", MapToT1w="none: both images have one grid")
    assert "Not shown" not in page.words
    assert "Registration: magnitude and template" in page.words


def test_phase_is_shown_of_the_first_and_the_last_echo(result, tmp_path):
    shape = nib.load(result["files"]["chimap"]).shape
    phase = images.save(
        np.random.default_rng(0).uniform(0, 4095, shape).astype(np.float32),
        tmp_path / "phase.nii.gz",
        AFFINE,
    )
    files = {**result["files"], "phase_first": phase, "phase_last": phase}
    sidecar = {**result["sidecar"], "PhaseRange": [0, 4095]}
    _, _, page = write(tmp_path, [{**result, "files": files, "sidecar": sidecar}])
    assert "Wrapped phase, first echo, 3.4 ms" in page.words
    assert "Wrapped phase, last echo, 9.4 ms" in page.words
    assert sum("Wrapped phase of the last echo" in alt for alt in page.alts) == 3


def test_views_know_the_grid_they_were_made_for():
    assert View.around(AFFINE, np.ones((4, 5, 6), dtype=bool)).shape == (4, 5, 6)
