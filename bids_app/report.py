"""The page of one participant: pictures, tables and differences in one file without a network.

The page is written from files, never from what is in memory, so that it can be made again later.
Its layout is ``qsmref/data/report/participant.html``; this module fills it.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.resources
import json
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

import qsmref
from qsmref.analysis.names import split_side
from qsmref.analysis.reference import REFERENCES
from qsmref.anatomy import THROUGH_T1W
from qsmref.files import write_text
from qsmref.problems import Problem
from qsmref.tables import read_tsv

from .crashes import crash_text
from .figures import nuclei, run_figures
from .flicker import T1W, TEMPLATE
from .heatmap import heat_maps
from .methods import methods_text
from .pictures import REGION_COLOURS
from .reporting import acquisition_facts, plain, reporting_items
from .sweeptable import sweep_table
from .viewer import make_viewer, with_viewers
from .wording import nice, number, region_name

#: Share of a region in the mask from which it counts as covered.
FULL = 0.995


def write_participant_report(
    output_dir: Path,
    subject: str,
    results: Sequence[Mapping[str, Any]],
    settings: Any,
    problems: Iterable[Any] = (),
) -> Path:
    """Write ``sub-<subject>.html`` and return its path.

    Parameters
    ----------
    output_dir : Path
        Root of the derivative; ``logs/CITATION.md`` is shown when it is there.
    subject : str
        Label, with or without ``sub-``.
    results : sequence of mappings
        One a run: `prefix`; `files` (paths: `magnitude`, `mask`, `total_field`, `local_field`,
        `chimap`, and `atlases`: name to `dseg`, `roi_tsv`, `differential_tsv`); `sidecar` (of the
        map); `warnings` (sentences). What a run does not have is left out.
    settings : Settings
        With ``to_toml()``.
    problems : iterable
        Of :class:`qsmref.problems.Problem`, or anything whose text is a sentence.

    Returns
    -------
    Path
    """
    output_dir = Path(output_dir)
    label = subject.removeprefix("sub-")
    runs = [_run(result, f"run{n}") for n, result in enumerate(results, 1)]
    viewers = {
        run["id"]: make_viewer(result.get("files", {}), next(iter(run["atlases"]), None))
        for run, result in zip(runs, results, strict=True)
    }
    page = with_viewers(
        environment().get_template("participant.html"),
        viewers,
        subject=label,
        version=qsmref.__version__,
        written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        runs=runs,
        problems=[_problem(problem, n, output_dir) for n, problem in enumerate(problems, 1)],
        methods=_methods(output_dir, results),
        settings=settings.to_toml(),
        versions=_versions(results),
    )
    return write_text(output_dir / f"sub-{label}.html", page)


def _problem(problem: Any, n: int, output_dir: Path) -> dict[str, str]:
    crash = crash_text(output_dir, problem) if isinstance(problem, Problem) else ""
    return {"id": f"problem{n}", "sentence": str(problem), "crash": crash}


def _methods(output_dir: Path, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The methods text of these results; without any, what the command would have done."""
    if results:
        return text_blocks(methods_text(results))
    citation = output_dir / "logs" / "CITATION.md"
    return text_blocks(citation.read_text(encoding="utf-8")) if citation.is_file() else []


def environment() -> jinja2.Environment:
    """Templates of the pages, which are data of the package."""
    folder = importlib.resources.files("qsmref") / "data" / "report"
    loader = jinja2.FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "linked": _linked}
    return environment


def _linked(text: str) -> list[tuple[str, str]]:
    """Pieces of a text with the addresses they stand for; empty except for DOIs and web pages."""
    pieces = re.split(r"((?:https?://|doi:)[^\s\]<>]*[^\s\]<>().,;])", text)
    return [
        (piece, piece.replace("doi:", "https://doi.org/") if i % 2 else "")
        for i, piece in enumerate(pieces)
    ]


def text_blocks(markdown: str) -> list[dict[str, Any]]:
    """Headings, paragraphs and lists of the methods text, which uses no more of Markdown."""
    blocks: list[dict[str, Any]] = []
    for chunk in re.split(r"\n\s*\n", markdown.strip()):
        lines = [line.strip() for line in chunk.splitlines() if line.strip()]
        while lines and lines[0].startswith("#"):
            heading = lines.pop(0).lstrip("# ")
            # The section of the page has this title already.
            if heading != "Methods":
                blocks.append({"kind": "heading", "text": heading})
        items = re.split(r"(?:^|\n)(?:[-*]|\d+\.) ", "\n".join(lines))
        if len(items) > 1 and not items[0]:
            blocks.append({"kind": "list", "items_": items[1:]})
        elif lines:
            blocks.append({"kind": "paragraph", "text": " ".join(lines)})
    return blocks


def _versions(results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Versions that made the maps, from the first sidecar that has them; or those at hand."""
    for result in results:
        recorded = result.get("sidecar", {}).get("Software")
        if recorded:
            return {str(name): str(version) for name, version in recorded.items()}
    names = ("numpy", "scipy", "numba", "nibabel", "nipype", "pandas")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"qsmref": qsmref.__version__, "Python": platform.python_version(), **versions}


def _run(result: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """What the template shows of one run."""
    files = result.get("files", {})
    sidecar = result.get("sidecar", {})
    atlases = [
        read_atlas(name, paths, f"{identity}-atlas{n}")
        for n, (name, paths) in enumerate(files.get("atlases", {}).items(), 1)
    ]
    figures, facts = run_figures(files, sidecar, atlases)
    return {
        "id": identity,
        "prefix": result["prefix"],
        "facts": facts | acquisition_facts(sidecar),
        "counts": _counts(atlases),
        "figures": figures,
        "unseen": _unseen(figures, sidecar),
        "reporting": reporting_items(result),
        "atlases": atlases,
        "steps": _steps(sidecar),
        "warnings": _warnings(result, sidecar),
        "sidecar": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def _warnings(result: Mapping[str, Any], sidecar: Mapping[str, Any]) -> list[str]:
    warnings = [str(w) for w in result.get("warnings", [])]
    if sidecar.get("Sloppy"):
        warnings.insert(0, "This map was made with --sloppy: it is a test of the plumbing, wrong.")
    return warnings


def _unseen(figures: Sequence[Any], sidecar: Mapping[str, Any]) -> str:
    """Why there is nothing to look at of the registration, or of the phase."""
    made = isinstance(sidecar.get("Processing"), Mapping) and "EchoFit" in sidecar["Processing"]
    lacking = []
    if made and not any(f.title.startswith("Wrapped phase") for f in figures):
        lacking.append("the phase as it was acquired")
    if made and isinstance(sidecar.get("Registration"), Mapping):
        lacking += _unseen_of_registration(figures, sidecar["Registration"])
    if not lacking:
        return ""
    return (
        f"Not shown: {' and '.join(lacking)}, which can no longer be read where the map found what "
        "it was made of."
    )


def _unseen_of_registration(figures: Sequence[Any], told: Mapping[str, Any]) -> list[str]:
    """Which of the images that were registered are not among those that take turns."""
    shown = {name for figure in figures if figure.others for name in figure.names}
    if not shown:
        return ["the images that the map was registered to"]
    # A map on the grid of the T1-weighted image was not registered to it.
    apart = not str(told.get("MapToT1w")).startswith("none")
    used = {T1W: told.get("Through") == THROUGH_T1W and apart, TEMPLATE: "ToTemplate" in told}
    return [f"the {name}" for name, was in used.items() if was and name not in shown]


def _counts(atlases: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What the summary says of the regions of a map."""
    tables = [atlas["table"] for atlas in atlases]
    listed = [table[table["index"].notna()] for table in tables]
    sweeps = [atlas["sweep"] for atlas in atlases if atlas["sweep"]]
    return {
        "regions": sum(len(table) for table in listed),
        "partial": sum(int((table["coverage"] < FULL).sum()) for table in listed),
        "differences": sum(atlas["n_differences"] for atlas in atlases),
        "masks": max((len(sweep.masks) + 1 for sweep in sweeps), default=0),
    }


def _steps(sidecar: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Step, method and what else is recorded of it, from the ``Processing`` of a sidecar."""
    steps = []
    for step, info in sidecar.get("Processing", {}).items():
        rest = [
            f"{key.replace('_', ' ').strip()}: {plain(value)}"
            for key, value in info.items()
            if key != "method" and value is not None
        ]
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", step).capitalize()
        steps.append((words, str(info.get("method", "")), "; ".join(rest)))
    return steps


def read_atlas(name: str, paths: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Tables of one atlas, the colours of its regions, and the heat maps of its differences.

    Parameters
    ----------
    name : str
        Of the atlas.
    paths : mapping
        `roi_tsv`; perhaps `dseg`, `differential_tsv`, `coverage_tsv`.
    identity : str
        Its place in a page.
    """
    table = read_tsv(paths["roi_tsv"])
    table["hemisphere"] = table["hemisphere"].fillna("n/a")
    listed = table[table["index"].notna()]
    coloured = nuclei(listed) if not nuclei(listed).empty else listed
    structures = dict.fromkeys(split_side(name)[0] for name in coloured["name"])
    colours = {s: i % len(REGION_COLOURS) + 1 for i, s in enumerate(structures)}
    differences = read_tsv(paths["differential_tsv"]) if "differential_tsv" in paths else None
    coverage = read_tsv(paths["coverage_tsv"]) if "coverage_tsv" in paths else None
    return {
        "name": name,
        "id": identity,
        "dseg": paths.get("dseg"),
        "table": table,
        "references": _references(table),
        "rows": _rows(table, colours),
        "scale": _scale(table),
        "heat_maps": [] if differences is None else heat_maps(differences, table),
        "n_differences": 0 if differences is None else int(differences["difference"].count()),
        "sweep": None
        if coverage is None
        else sweep_table(coverage, set(coloured["name"]) | set(structures)),
        "colour_of": {
            int(i): colours.get(split_side(n)[0], 0)
            for i, n in zip(listed["index"], listed["name"], strict=True)
        },
        "legend": [(s, REGION_COLOURS[c - 1]) for s, c in colours.items()],
    }


def _references(table: pd.DataFrame) -> list[str]:
    """Of which regions the references of a table are made, in words."""
    listed = table[table["index"].notna()]
    name_of = {str(int(i)): n for i, n in zip(listed["index"], listed["name"], strict=True)}
    told = []
    for row in table[table["name"].isin(REFERENCES)].to_dict("records"):
        parts = [name_of.get(p) for p in str(row.get("labels")).split("+")]
        if all(parts) and row["name"] not in parts:
            told.append(
                f"{region_name(row['name'])} has the voxels of {', '.join(map(str, parts))}"
            )
    return told


def _scale(table: pd.DataFrame) -> tuple[float, float] | None:
    """Ends of the common axis of the region table's strips, ppb."""
    regions = table[~table["name"].isin(REFERENCES)]
    low, high = regions["p05"].min(), regions["p95"].max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return None
    step = nice((high - low) / 8)
    return float(np.floor(low / step) * step), float(np.ceil(high / step) * step)


def _rows(table: pd.DataFrame, colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows of the region table, with positions (0 to 100) on the common axis."""
    scale = _scale(table)
    rows = []
    for row in table.to_dict("records"):
        colour = colours.get(split_side(row["name"])[0])
        row["colour"] = REGION_COLOURS[colour - 1] if colour else None
        row["shown"] = region_name(row["name"])
        row["kind"] = "reference" if row["name"] in REFERENCES else row["hemisphere"]
        if scale and np.isfinite(row["mean"]):
            span = (scale[1] - scale[0]) or 1.0
            row["strip"] = {
                key: float(np.clip(100 * (row[key] - scale[0]) / span, 0, 100))
                for key in ("p05", "mean", "median", "p95")
            }
        else:
            row["strip"] = None
        rows.append(row)
    return rows
