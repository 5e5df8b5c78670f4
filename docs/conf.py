"""How the documentation is built: ``sphinx-build -W docs docs/_build``."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# Import-time switches of the libraries: no look-up of newer versions, no window.
os.environ.setdefault("NIPYPE_NO_ET", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]

import qsmref  # noqa: E402

project = "qsmref"
author = "the qsmref developers"
copyright = "the qsmref developers; Apache-2.0"
version = release = qsmref.__version__

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxarg.ext",
    "workflow_graph",
]
exclude_patterns = ["_build"]
# Notebooks are run when the pages are made: what they show is what this version says.
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3

# The docstrings are in numpydoc's format; napoleon reads it, with the sections of the graphs.
napoleon_google_docstring = False
napoleon_custom_sections = [("Inputs", "params_style"), ("Outputs", "params_style")]
napoleon_use_rtype = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_generate = True
autosummary_imported_members = False

html_math_renderer = "mathml"
html_theme = "alabaster"
html_title = f"qsmref {version}"
html_theme_options = {
    "description": "Susceptibility maps whose results are differences between regions",
    "fixed_sidebar": True,
    "page_width": "1080px",
    "sidebar_width": "230px",
}
html_static_path = ["_static"]
html_css_files = ["extra.css"]


def _unit_alone(app, what, name, obj, options, lines: list[str]) -> None:
    # A line that is only "mm." would be read as the roman number 2000 of a list, "s." as a letter.
    lines[:] = [re.sub(r"^(\s*)(mm|s)\.$", r"\1\2", line) for line in lines]


def _with_benchmarks(app, name: str, source: list[str]) -> None:
    """Put the tables of ``make bench``, where it has been run, in the place that waits for them."""
    if name != "choosing":
        return
    results = Path(__file__).parents[1] / "benchmarks" / "RESULTS.md"
    tables = results.read_text(encoding="utf-8") if results.is_file() else ""
    # Headings one level down: they are sections of a page here.
    tables = re.sub(r"^(#+) ", r"##\1 ", tables, flags=re.MULTILINE)
    source[0] = source[0].replace("<!-- benchmarks -->", tables)


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _with_benchmarks)
    app.connect("autodoc-process-docstring", _unit_alone, priority=400)
