"""Find what is in the folder of results, for the reports: read from disk, not remembered."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qsmref.metadata import parse_name
from qsmref.settings import Settings

from .originals import find_originals

#: ``desc`` of the maps that tables are made of.
MAPS = ("unreferenced", "imported")


def collect_results(
    output_dir: Path, subject: str, settings: Settings | None = None
) -> list[dict[str, Any]]:
    """Results of a participant, one dictionary a run.

    Parameters
    ----------
    output_dir : Path
        Folder of results.
    subject : str
        Label without ``sub-``.
    settings : Settings, optional
        Those it was processed with: they name the template.

    Returns
    -------
    list of dict
        Keys: ``prefix``; ``files`` (paths by name: magnitude, mask, total_field, local_field,
        chimap, those of :func:`~bids_app.originals.find_originals`, as far as they exist, and
        ``atlases``: by name a dictionary of dseg, roi_tsv, differential_tsv and coverage_tsv);
        ``sidecar`` of the map; ``measured``, what the sidecar of each atlas' table says;
        ``warnings``.
    """
    folder = output_dir / f"sub-{subject}"
    maps = sorted(
        path
        for desc in MAPS
        for path in folder.rglob(f"*_desc-{desc}_Chimap.nii.gz")
        if "space" not in parse_name(path).entities
    )
    results = []
    for chimap in maps:
        prefix = parse_name(chimap).prefix
        sidecar_file = chimap.with_name(chimap.name.partition(".")[0] + ".json")
        sidecar = json.loads(sidecar_file.read_text(encoding="utf-8"))
        anat, fmap = chimap.parent, chimap.parent.parent / "fmap"
        candidates = {
            "magnitude": fmap / f"{prefix}_magnitude.nii.gz",
            "mask": anat / f"{prefix}_desc-brain_mask.nii.gz",
            "total_field": fmap / f"{prefix}_desc-total_fieldmap.nii.gz",
            "local_field": fmap / f"{prefix}_desc-local_fieldmap.nii.gz",
            "chimap": chimap,
        }
        found: dict[str, Any] = {name: path for name, path in candidates.items() if path.is_file()}
        found = find_originals(output_dir, anat, prefix, sidecar, settings) | found
        found["atlases"] = _atlases(anat, prefix)
        measured = {name: _measured(paths) for name, paths in found["atlases"].items()}
        warnings = [*sidecar.get("Warnings", []), *_found_while_running(sidecar)]
        warnings += _of_the_tables(anat, prefix)
        results.append(
            {
                "prefix": prefix,
                "files": found,
                "sidecar": sidecar,
                "measured": measured,
                "warnings": warnings,
            }
        )
    return results


def _measured(paths: Mapping[str, Path]) -> dict[str, Any]:
    """How the regions of an atlas were measured, as the sidecar of their table says."""
    table = paths.get("roi_tsv")
    sidecar = table and table.with_suffix(".json")
    if sidecar is None or not sidecar.is_file():
        return {}
    content = json.loads(sidecar.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key[:1].isupper()}


def _found_while_running(sidecar: Mapping[str, Any]) -> list[str]:
    steps = sidecar.get("Processing", {}).values()
    return [step["warning"] for step in steps if "warning" in step]


def _of_the_tables(anat: Path, prefix: str) -> list[str]:
    """What the sidecars of the tables warn of; those of several atlases may say the same."""
    told: dict[str, None] = {}
    for desc in ("roi", "coverage"):
        for path in sorted(anat.glob(f"{prefix}_atlas-*_desc-{desc}_Chimap.json")):
            told |= dict.fromkeys(json.loads(path.read_text(encoding="utf-8")).get("Warnings", []))
    return list(told)


def digest(results: Sequence[Mapping[str, Any]], *others: str) -> str:
    """Fingerprint of what a report is made of: names, sizes and times of the files, and texts."""
    parts: list[str] = list(others)

    def add(value: Any) -> None:
        if isinstance(value, Path):
            stat = value.stat()
            parts.append(f"{value.name} {stat.st_size} {stat.st_mtime_ns}")
        elif isinstance(value, Mapping):
            for key in sorted(value):
                parts.append(str(key))
                add(value[key])
        else:
            parts.append(json.dumps(value, sort_keys=True))

    for result in results:
        add(result)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _atlases(anat: Path, prefix: str) -> dict[str, dict[str, Path]]:
    atlases = {}
    for dseg in sorted(anat.glob(f"{prefix}_atlas-*_dseg.nii.gz")):
        name = parse_name(dseg).entities["atlas"]
        stem = f"{prefix}_atlas-{name}"
        files = {
            "dseg": dseg,
            "roi_tsv": anat / f"{stem}_desc-roi_Chimap.tsv",
            "differential_tsv": anat / f"{stem}_desc-differential_Chimap.tsv",
            "coverage_tsv": anat / f"{stem}_desc-coverage_Chimap.tsv",
        }
        atlases[name] = {key: path for key, path in files.items() if path.is_file()}
    return atlases


def recorded_settings(status: Mapping[str, Any]) -> Settings:
    """Settings a participant was processed with, of what :func:`dataset.read_status` returns."""
    content = dict(status.get("settings", {}))
    return Settings.from_preset(content.pop("preset", "default"), **content)
