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
from qsmref.files import write_text
from qsmref.tables import read_tsv

from .figures import nuclei, run_figures
from .heatmap import heat_maps
from .pictures import REGION_COLOURS
from .wording import nice, number


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
    citation = output_dir / "logs" / "CITATION.md"
    page = (
        environment()
        .get_template("participant.html")
        .render(
            subject=label,
            version=qsmref.__version__,
            written=datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
            runs=[_run(result, f"run{n}") for n, result in enumerate(results, 1)],
            problems=[str(p) for p in problems],
            methods=_blocks(citation.read_text(encoding="utf-8")) if citation.is_file() else [],
            settings=settings.to_toml(),
            versions=_versions(results),
        )
    )
    return write_text(output_dir / f"sub-{label}.html", page)


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


def _blocks(markdown: str) -> list[dict[str, Any]]:
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
        _atlas(name, paths, f"{identity}-atlas{n}")
        for n, (name, paths) in enumerate(files.get("atlases", {}).items(), 1)
    ]
    figures, facts = run_figures(files, sidecar, atlases)
    return {
        "id": identity,
        "prefix": result["prefix"],
        "facts": facts | _acquisition(sidecar),
        "figures": figures,
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


def _acquisition(sidecar: Mapping[str, Any]) -> dict[str, str]:
    """Facts of the acquisition and the method, in words, from a map's sidecar."""
    facts = {}
    times = sidecar.get("EchoTime")
    if times is not None:
        values = [float(t) * 1000 for t in np.atleast_1d(times)]
        facts["Echo times"] = ", ".join(f"{t:.4g}" for t in values) + " ms"
    if "MagneticFieldStrength" in sidecar:
        facts["Field strength"] = f"{float(sidecar['MagneticFieldStrength']):.4g} T"
    if "ImagingFrequency" in sidecar:
        facts["Imaging frequency"] = f"{float(sidecar['ImagingFrequency']):.6g} MHz"
    for key, name in (
        ("EstimationAlgorithm", "Method"),
        ("SusceptibilityReference", "Zero of the map"),
    ):
        if sidecar.get(key):
            facts[name] = str(sidecar[key])
    return facts


def _steps(sidecar: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Step, method and what else is recorded of it, from the ``Processing`` of a sidecar."""
    steps = []
    for step, info in sidecar.get("Processing", {}).items():
        rest = [
            f"{key.replace('_', ' ').strip()}: {_plain(value)}"
            for key, value in info.items()
            if key != "method" and value is not None
        ]
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", step).capitalize()
        steps.append((words, str(info.get("method", "")), "; ".join(rest)))
    return steps


def _plain(value: Any) -> str:
    """A value of a sidecar in few characters."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(v) for v in value)
    return str(value)


def _atlas(name: str, paths: Mapping[str, Any], identity: str) -> dict[str, Any]:
    """Tables of one atlas, the colours of its regions, and the heat maps of its differences."""
    table = read_tsv(paths["roi_tsv"])
    table["hemisphere"] = table["hemisphere"].fillna("n/a")
    listed = table[table["index"].notna()]
    coloured = nuclei(listed) if not nuclei(listed).empty else listed
    structures = dict.fromkeys(split_side(name)[0] for name in coloured["name"])
    colours = {s: i % len(REGION_COLOURS) + 1 for i, s in enumerate(structures)}
    differences = paths.get("differential_tsv")
    return {
        "name": name,
        "id": identity,
        "dseg": paths.get("dseg"),
        "table": table,
        "rows": _rows(table, colours),
        "scale": _scale(table),
        "heat_maps": heat_maps(read_tsv(differences), table) if differences else [],
        "colour_of": {
            int(i): colours.get(split_side(n)[0], 0)
            for i, n in zip(listed["index"], listed["name"], strict=True)
        },
        "legend": [(s, REGION_COLOURS[c - 1]) for s, c in colours.items()],
    }


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
