"""Both pages in a real browser: from disk, without a network, with and without WebGL."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium, find_chromium
from cohorts import REGIONS, cohort
from test_report import make_result

from bids_app.groupfigures import cohort_figures
from bids_app.grouppage import write_page
from bids_app.model import Figure
from bids_app.pictures import View, three_planes
from bids_app.report import write_participant_report
from bids_app.wording import number
from qsmref.analysis import measurements
from qsmref.analysis.cohort import Plan, analyse
from qsmref.problems import ExitCode, Problem
from qsmref.settings import Settings

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(
    PROGRAM is None,
    reason="no Chromium: apt-get install chromium, or set QSMREF_CHROMIUM to the path of one",
)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A participant with an error, and a cohort whose first participant has a page."""
    folder = tmp_path_factory.mktemp("pages")
    files = tmp_path_factory.mktemp("files")
    result = make_result(files)
    result["files"]["phase_first"] = result["files"]["total_field"]
    problem = Problem("01", "sub-01_run-2: no phase.", ExitCode.MISSING_INPUT)
    participant = write_participant_report(folder, "01", [result], Settings(), [problem])
    table, people = cohort(16, effect=30.0, seed=1)
    table.loc[0, "CN"] += 200
    plan = Plan(group_column="group", permutations=99)
    results = analyse(measurements(table, regions=REGIONS), people, plan)
    group = write_page(folder / "group.html", "A cohort", results, cohort_figures(results))
    return {"participant": participant, "group": group}


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(PROGRAM, tmp_path_factory.mktemp("browser")) as chromium:
        yield chromium


def check(browser: Chromium, page: Path) -> None:
    """No complaint, no request but for the file itself and what it holds, and no dead link."""
    assert browser.complaints() == []
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert asked == [page.as_uri()]
    hrefs = browser.run("Array.from(document.links, (a) => a.getAttribute('href'))")
    assert len(hrefs) > 4
    for href in hrefs:
        if href.startswith("#"):
            assert browser.run(f"document.getElementById({href[1:]!r}) !== null"), href
        elif not href.startswith("https://"):
            assert (page.parent / href).is_file(), href
    broken = "Array.from(document.images).filter((i) => !(i.complete && i.naturalWidth)).length"
    assert browser.run(broken) == 0


@pytest.mark.parametrize("kind", ["participant", "group"])
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (375, True)])
def test_pages_are_sound_at_two_sizes(browser, pages, kind, width, dark):
    browser.open(pages[kind], width, dark=dark)
    check(browser, pages[kind])
    # What is wider than the window scrolls in its box, and the page does not.
    assert browser.run("document.documentElement.scrollWidth") <= width
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    level = np.mean([int(n) for n in re.findall(r"\d+", paper)[:3]])
    assert (level < 60) if dark else (level > 200)


@pytest.mark.parametrize("kind", ["participant", "group"])
def test_tables_and_pictures_say_what_they_are(browser, pages, kind):
    browser.open(pages[kind])
    nameless = """Array.from(document.querySelectorAll("table")).filter(
      (t) => !t.caption || !t.caption.textContent.trim() || !t.querySelector("th[scope=col]"))
      .length"""
    assert browser.run(nameless) == 0
    assert browser.run("document.querySelectorAll('img:not([alt]), img[alt=\"\"]').length") == 0
    # Everything that scrolls can be reached by keyboard, and is called something.
    boxes = """Array.from(document.querySelectorAll(".scroll")).filter(
      (b) => !b.getAttribute("aria-label") || !(b.tabIndex >= 0 || b.querySelector("td"))).length"""
    assert browser.run(boxes) == 0
    levels = browser.run(
        "Array.from(document.querySelectorAll('h1,h2,h3,h4'), (h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))


def test_the_heat_map_is_read_by_keyboard_and_by_pressing(browser, pages):
    browser.open(pages["participant"])
    browser.run("document.querySelector('.heatmap tbody td[tabindex]').focus()")
    detail = "document.querySelector('.heat .detail').textContent"
    browser.press("ArrowRight")
    assert "standard error" in browser.run(detail)
    first = browser.run(detail)
    browser.press("ArrowDown")
    browser.press("ArrowDown")
    assert browser.run(detail) != first
    browser.run("document.querySelectorAll('.heatmap tbody tr')[1].cells[1].click()")
    assert browser.run(detail).startswith(
        browser.run("document.querySelectorAll('.heatmap tbody th')[1].textContent")
    )


def test_the_first_stop_of_the_keyboard_skips_the_head_of_the_page(browser, pages):
    for page in pages.values():
        browser.open(page)
        browser.press("Tab")
        assert browser.run("document.activeElement.className") == "skip"


def test_an_outlier_leads_to_the_page_of_the_participant(browser, pages):
    browser.open(pages["group"])
    links = browser.run("Array.from(document.querySelectorAll('td a, th a'), (a) => a.href)")
    assert links == [pages["participant"].as_uri()]


def opened(browser: Chromium) -> str:
    """State of the viewer after its button was pressed."""
    browser.run("document.querySelector('.viewer-start').click()")
    state = "document.querySelector('.viewer-state').textContent"
    browser.until(f"document.querySelector('.viewer').dataset.ready || /could not/.test({state})")
    return browser.run(state)


def test_the_viewer_draws_the_map_without_a_network(browser, pages, tmp_path):
    from PIL import Image

    page = pages["participant"]
    browser.open(page)
    assert "move the cross" in opened(browser)
    box = browser.run(
        "(() => { const c = document.querySelector('.viewer canvas'); c.scrollIntoView();"
        " const r = c.getBoundingClientRect();"
        " return [r.x + scrollX, r.y + scrollY, r.width, r.height] })()"
    )
    shot = tmp_path / "viewer.png"
    shades = 0
    for _ in range(40):
        browser.picture(shot, **dict(zip(("x", "y", "width", "height"), box, strict=True)))
        shades = np.unique(np.asarray(Image.open(shot).convert("L"))).size
        if shades > 20:
            break
    assert shades > 20
    check(browser, page)


def test_without_webgl_the_page_says_so(pages, tmp_path):
    with Chromium(PROGRAM, tmp_path, webgl=False) as bare:
        bare.open(pages["participant"])
        assert "no WebGL 2" in bare.run("document.querySelector('.viewer-state').textContent")
        assert bare.run("document.querySelector('.viewer-start').disabled")
        check(bare, pages["participant"])


def test_registered_images_take_turns_only_where_motion_is_welcome(browser, tmp_path):
    view = View.around(np.diag([2.0, 2, 2, 1]), np.ones((8, 8, 8), dtype=bool))
    one, two = (three_planes(view, np.full((8, 8, 8), v), (0, 1), str(v)) for v in (0.2, 0.8))
    figure = Figure("Registration", "Two images.", one, others=two, names=("first", "second"))
    page = tmp_path / "flicker.html"
    page.write_text(flicker_page(figure), encoding="utf-8")
    hidden = "document.querySelector('.turns .hidden').dataset.name"
    browser.open(page, prefers_reduced_motion="reduce")
    assert browser.run(hidden) == "second"
    assert browser.run("document.querySelector('.shown').textContent") == "Shown: first"
    browser.run("document.querySelector('[data-flicker=swap]').click()")
    assert browser.run(hidden) == "first"
    browser.open(page, prefers_reduced_motion="no-preference")
    play = "document.querySelector('[data-flicker=play]')"
    assert browser.run(f"{play}.getAttribute('aria-pressed')") == "true"
    browser.until(f"{hidden} === 'first'", 5)
    browser.run(f"{play}.click()")
    assert browser.run(f"{play}.getAttribute('aria-pressed')") == "false"
    assert browser.complaints() == []


def flicker_page(figure: Figure) -> str:
    """The page of a participant with nothing in it but one figure."""
    from bids_app.report import environment

    run = {
        "id": "run1",
        "prefix": "sub-01",
        "facts": {},
        "counts": {"regions": 0, "partial": 0, "differences": 0, "masks": 0},
        "figures": [figure],
        "unseen": "",
        "reporting": [],
        "atlases": [],
        "steps": [],
        "warnings": [],
        "sidecar": "{}",
    }
    return (
        environment()
        .get_template("participant.html")
        .render(
            subject="01",
            version="0",
            written=number(0),
            runs=[run],
            problems=[],
            methods=[],
            settings="",
            versions={},
            viewers={},
            niivue="",
            niivue_licence="",
        )
    )
