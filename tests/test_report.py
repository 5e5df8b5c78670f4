"""The page of a participant: complete, self-contained, and true to the files it is made of."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bids_app import pictures
from bids_app.heatmap import heat_maps
from bids_app.report import write_participant_report
from bids_app.wording import number, region_name
from qsmref import images
from qsmref.analysis import add_references, differential_table, region_table
from qsmref.problems import Problem
from qsmref.settings import Settings
from qsmref.tables import write_tsv

#: LPS axes, anisotropic, a little oblique: nothing that RAS code would get right by luck.
AFFINE = np.array(
    [[-2.0, 0, 0, 20], [0, -1.99, -0.2, 25], [0, -0.13, 2.99, -18], [0, 0, 0, 1]], dtype=float
)
NAMES = {1: "CN_L", 2: "CN_R", 3: "<i>RN</i>", 4: "WM"}


def flat(text: str) -> str:
    """A text with single plain spaces, whatever kept its numbers and units together."""
    return " ".join(text.split())


class Page(HTMLParser):
    """What the tests look at: ids, links, sources, images, cells, and whether tags are closed."""

    VOID = {"meta", "img", "path", "br", "input"}

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.sources, self.alts, self.titles = [], [], [], [], []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.words = flat(" ".join(self.text))

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        self.sources += [values[k] for k in ("src", "data", "poster") if k in values]
        if tag == "link":
            self.sources.append(values["href"])
        if tag == "img":
            self.alts.append(values.get("alt", ""))
        if tag == "td" and "title" in values:
            self.titles.append(values["title"])

    def handle_startendtag(self, tag, attributes):
        if tag not in self.VOID:
            raise AssertionError(f"<{tag}/> does not close itself in HTML")

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)


def make_result(folder: Path, seed: int = 0) -> dict:
    """Files of a small run, as the app hands them over."""
    rng = np.random.default_rng(seed)
    shape = (20, 24, 12)
    labels = np.zeros(shape, dtype=np.int16)
    labels[5:8, 9:14, 4:8] = 2
    labels[12:15, 9:14, 4:8] = 1
    labels[9:11, 15:18, 3:6] = 3
    labels[3:17, 3:7, 3:9] = 4
    mask = np.zeros(shape, dtype=bool)
    mask[2:18, 2:22, 2:10] = True
    chi = rng.normal(0, 0.01, shape).astype(np.float32) + np.array([0, 0.04, 0.05, 0.11, -0.03])[
        labels
    ].astype(np.float32)
    size = images.voxel_size(AFFINE)
    regions = region_table(chi, labels, NAMES, size, mask, affine=AFFINE)
    regions = add_references(regions, chi, mask, size, labels, NAMES, affine=AFFINE)

    def save(array, name):
        return images.save(array, folder / name, AFFINE)

    roi, differential = folder / "roi.tsv", folder / "differential.tsv"
    write_tsv(roi, regions)
    write_tsv(differential, differential_table(regions))
    field = np.where(mask, rng.normal(0, 20, shape), 0).astype(np.float32)
    return {
        "prefix": "sub-01_run-1",
        "files": {
            "magnitude": save((mask * 500 + 20).astype(np.float32), "magnitude.nii.gz"),
            "mask": save(mask, "mask.nii.gz"),
            "total_field": save(field, "total.nii.gz"),
            "local_field": save(field / 10, "local.nii.gz"),
            "chimap": save(np.where(mask, chi, 0), "chimap.nii.gz"),
            "atlases": {
                "mine": {
                    "dseg": save(labels, "dseg.nii.gz"),
                    "roi_tsv": roi,
                    "differential_tsv": differential,
                }
            },
        },
        "sidecar": {
            "EchoTime": [0.0034, 0.0094],
            "ImagingFrequency": 123.25,
            "MagneticFieldStrength": 2.894,
            "B0Direction": list(images.b0_direction(AFFINE)),
            "EstimationAlgorithm": "single-step",
            "SusceptibilityReference": "none",
            "Software": {"qsmref": "9.9.9"},
            "Processing": {"EchoFit": {"method": "nonlinear", "residual": 0.00123456}},
        },
        "warnings": ["sub-01_run-1 has <odd> & strange voxels."],
    }


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    return make_result(tmp_path_factory.mktemp("run"))


def write(folder: Path, results, problems=(), subject="01") -> tuple[Path, str, Page]:
    path = write_participant_report(folder, subject, results, Settings(), problems)
    text = path.read_text(encoding="utf-8")
    return path, text, Page(text)


def test_the_page_is_one_file_that_loads_nothing(result, tmp_path):
    path, text, page = write(tmp_path, [result])
    assert path == tmp_path / "sub-01.html"
    assert [p.name for p in tmp_path.iterdir()] == ["sub-01.html"]
    assert not page.open
    assert page.sources and all(s.startswith("data:image/png;base64,") for s in page.sources)
    assert not re.search(r"@import|url\(|src=\"http|<link", text)
    inner = [link[1:] for link in page.links if link.startswith("#")]
    assert set(inner) <= set(page.ids) and len(set(page.ids)) == len(page.ids)
    assert all(page.alts)


def test_it_tells_the_acquisition_the_method_and_the_versions(result, tmp_path):
    _, _, page = write(tmp_path, [result])
    for words in (
        "3.4, 9.4 ms",
        "2.894 T",
        "123.25 MHz",
        "20 × 24 × 12",
        "2 × 1.99 × 3 mm",
        "single-step",
        "Echo fit nonlinear residual: 0.001235",
        "qsmref 9.9.9",
        "a step of 167 Hz",
        'inversion = "single-step"',
    ):
        assert words in page.words, words
    b0 = images.b0_direction(AFFINE)
    assert f"({', '.join(number(v, 3) for v in b0)})" in page.words
    assert f"{np.degrees(np.arccos(b0[2])):.1f}° from the third axis" in page.words


def test_words_from_data_are_never_markup(result, tmp_path):
    problem = Problem("01", "sub-01_run-2: <script>alert(1)</script> is no echo.")
    _, text, page = write(tmp_path, [result], [problem])
    assert "<script>alert" not in text and "<i>RN</i>" not in text and "<odd>" not in text
    assert "sub-01_run-1 has <odd> & strange voxels." in page.words
    assert "sub-01: sub-01_run-2: <script>alert(1)</script> is no echo." in page.words
    assert "<i>RN</i> \u2212 CN = " in " ".join(page.titles)


def test_every_figure_is_there_and_says_what_it_shows(result, tmp_path):
    _, _, page = write(tmp_path, [result])
    for what in ("Magnitude with", "Total field", "Local field", "Susceptibility map", "Regions"):
        planes = {p for p in pictures.PLANES for alt in page.alts if what in alt and p in alt}
        assert planes == set(pictures.PLANES), what


def test_tables_say_what_the_files_say(result, tmp_path):
    _, _, page = write(tmp_path, [result])
    files = result["files"]["atlases"]["mine"]
    regions = pd.read_csv(files["roi_tsv"], sep="\t", na_values="n/a")
    for row in regions.to_dict("records"):
        # What only serves as a reference says so; the atlas may have a region of like name.
        size = f"{number(row['n_voxels'], 0)} {number(row['volume_mm3'], 0)}"
        cells = f"{region_name(row['name'])} {size}"
        assert flat(cells) in page.words
        assert f"{number(row['mean'])} {number(row['sd'])} {number(row['se'], 2)}" in page.words
    differences = pd.read_csv(files["differential_tsv"], sep="\t", na_values="n/a")
    pair = differences[(differences["region"] == "CN_L") & (differences["reference"] == "brain")]
    expected = f"CN_L \u2212 brain (reference) = {number(pair['difference'].item())} ppb"
    assert any(title.startswith(expected) for title in page.titles)
    assert "wm (reference) has the voxels of WM." in page.words
    # A pair is read from both sides, with opposite signs.
    both = {
        t.split(" = ")[0]: t.split(" = ")[1].split(" ppb")[0] for t in page.titles if " = " in t
    }
    assert both["CN_L \u2212 CN_R"].strip("\u2212") == both["CN_R \u2212 CN_L"].strip("\u2212")
    assert both["CN_L \u2212 CN_R"] != both["CN_R \u2212 CN_L"]


def test_maps_made_by_others_need_neither_fields_nor_mask(result, tmp_path):
    files = {key: result["files"][key] for key in ("chimap", "atlases")}
    bare = {"prefix": "sub-01", "files": files, "sidecar": {}}
    _, _, page = write(tmp_path, [bare])
    assert not any("Magnitude" in alt or "field" in alt for alt in page.alts)
    assert any("Susceptibility map" in alt for alt in page.alts)
    # Only the list of what authors should state has them, and says that the data do not.
    assert page.words.count("Echo times") == 1
    assert "Echo times not stated by the data" in page.words
    # Without a mask nothing is left out of the mean.
    chi = nib.load(files["chimap"]).get_fdata() * 1000
    assert f"mean {number(chi.mean())}, SD {number(chi.std())} ppb" in page.words


def test_the_arbitrary_zero_does_not_change_the_pictures(result, tmp_path):
    chi = nib.load(result["files"]["chimap"])
    mask = nib.load(result["files"]["mask"]).get_fdata() > 0
    moved = images.save(
        np.where(mask, chi.get_fdata() + 0.7, 0).astype(np.float32), tmp_path / "m.nii.gz", chi
    )
    other = {**result, "files": {**result["files"], "chimap": moved}}
    shown = [write(tmp_path, [r])[2] for r in (result, other)]
    pages = [dict(zip(p.alts, p.sources, strict=True)) for p in shown]
    assert list(pages[0]) == list(pages[1])
    # 0.7 ppm are 700 ppb: far outside the window, if the map were shown about its own zero.
    for alt in (a for a in pages[0] if a.startswith("Susceptibility map")):
        pixels = [decoded(pictures.Picture(page[alt], 0, 0, alt)).astype(float) for page in pages]
        np.testing.assert_allclose(pixels[0], pixels[1], atol=1)
        assert len(np.unique(pixels[1])) > 50


def test_a_participant_without_a_map_has_a_page_with_the_reason(tmp_path):
    _, _, page = write(tmp_path, [], [Problem("01", "there is no phase.")], subject="sub-01")
    assert "1 problem" in page.words and "there is no phase." in page.words
    assert "There is no map of this participant." in page.words


def test_methods_come_from_the_citation_file(result, tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "CITATION.md").write_text(
        "# Methods\n\nMade by <us> [A et al. 2020, doi:10.1002/x(1)y.2].\n\n"
        "## References\n\n- First, https://example.org/a.\n- Second.\n"
    )
    path = write_participant_report(tmp_path, "01", [], Settings())
    page = Page(path.read_text(encoding="utf-8"))
    assert "Made by <us> [A et al. 2020, doi:10.1002/x(1)y.2 ]." in page.words
    assert page.links.count("https://doi.org/10.1002/x(1)y.2") == 1
    assert "https://example.org/a" in page.links
    assert page.words.count("Methods") == 2  # the contents and one heading


def test_lost_regions_and_sloppy_maps_are_shown_as_such(result, tmp_path):
    atlas = result["files"]["atlases"]["mine"]
    regions = pd.read_csv(atlas["roi_tsv"], sep="\t", na_values="n/a")
    lost = ["mean", "sd", "se", "median", "mad", "p05", "p95"]
    regions.loc[regions["name"] == "CN_L", lost] = np.nan
    regions.loc[regions["name"] == "CN_L", "coverage"] = 0.0
    roi, differential = tmp_path / "roi.tsv", tmp_path / "differential.tsv"
    write_tsv(roi, regions)
    write_tsv(differential, differential_table(regions))
    atlases = {"mine": {**atlas, "roi_tsv": roi, "differential_tsv": differential}}
    changed = {
        **result,
        "files": {**result["files"], "atlases": atlases},
        "sidecar": {**result["sidecar"], "Sloppy": True},
    }
    _, _, page = write(tmp_path, [changed])
    assert any(t.startswith("CN_L \u2212 CN_R: n/a") for t in page.titles)
    assert "--sloppy" in page.words


def test_heat_maps_join_the_sides_first():
    table = pd.DataFrame(
        {"name": ["CN_L", "CN_R", "RN", "CN"], "hemisphere": list("LR") + ["n/a"] * 2}
    )
    table.loc[3, "hemisphere"] = "both"
    table = table.assign(mean=[10.0, 14.0, 100.0, 12.0], se=[1.0, 1.0, np.nan, 1.0], coverage=1.0)
    table = table.assign(x=range(4), y=0.0, z=0.0, index=[1, 2, 3, np.nan])
    joined, apart = heat_maps(differential_table(table), table)
    assert (joined.columns, apart.columns) == (["RN", "CN"], ["CN_L", "CN_R", "RN"])
    cells = {name: dict(zip(apart.columns, row, strict=True)) for name, row in apart.rows}
    assert cells["CN_L"]["CN_R"].text == "\u22124" and cells["CN_R"]["CN_L"].text == "4"
    assert not cells["CN_L"]["CN_R"].weak
    assert "standard error 1.41 ppb" in cells["CN_L"]["CN_R"].detail
    assert "standard error" not in cells["CN_L"]["RN"].detail
    assert cells["RN"]["RN"].text == ""


def test_one_odd_region_does_not_bleach_the_others():
    names = [f"region{i}" for i in range(20)] + ["vein"]
    table = pd.DataFrame({"name": names, "hemisphere": "n/a", "index": range(1, 22)})
    table = table.assign(mean=[*np.linspace(0, 90, 20), 900.0], se=1.0, coverage=1.0)
    table = table.assign(x=range(21), y=0.0, z=0.0)
    (heat,) = heat_maps(differential_table(table), table)
    assert heat.title == "All regions"
    assert heat.ticks == ["\u2264 \u2212100", "0", "\u2265 100"]
    cells = dict(heat.rows)["vein"]
    assert cells[0].text == "900" and len({c.background for c in cells[:20]}) == 1


def decoded(picture: pictures.Picture) -> np.ndarray:
    png = base64.b64decode(picture.source.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_pictures_show_left_on_the_left_and_front_on_top():
    array = np.zeros((20, 24, 12), dtype=np.float32)
    # World: 14 mm to the left (-x), 16 mm to the front, middle of z.
    voxel = np.linalg.solve(AFFINE, [-14.0, 16.0, 0.0, 1.0])[:3].round().astype(int)
    array[tuple(voxel)] = 1.0
    view = pictures.View.around(AFFINE, np.ones(array.shape, dtype=bool), array.astype(int))
    shown = dict(zip(pictures.PLANES, pictures.three_planes(view, array, (0, 1), "x"), strict=True))
    height, width, _ = decoded(shown["axial"]).shape
    bright = np.argwhere(decoded(shown["axial"]).min(axis=2) == 255).mean(axis=0)
    assert bright[1] < 0.3 * width and bright[0] < 0.3 * height
    # Anterior is at the right of a sagittal slice.
    bright = np.argwhere(decoded(shown["sagittal"]).min(axis=2) == 255).mean(axis=0)
    assert bright[1] > 0.7 * decoded(shown["sagittal"]).shape[1]
    # Millimetres, not voxels: 20 x 2 mm by 24 x 1.99 mm.
    assert width / height == pytest.approx(20 * 2 / (24 * 2), abs=0.02)


def test_the_window_of_the_map_is_fixed():
    values = np.array([-500.0, -100.0, 0.0, 100.0, 500.0, np.nan], dtype=np.float32)
    array = np.broadcast_to(values[:, None, None], (6, 6, 6))
    view = pictures.View.around(np.diag([10.0, 10, 10, 1]), np.ones((6, 6, 6), dtype=bool))
    axial = decoded(pictures.three_planes(view, array, (-100, 100), "map")[2])
    row = axial[axial.shape[0] // 3]
    centres = ((np.arange(6) + 0.5) * row.shape[0] / 6).astype(int)
    np.testing.assert_allclose(row[centres, 0], [0, 0, 128, 255, 255, 0], atol=1)
