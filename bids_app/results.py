"""What is in the folder of results, for the reports: found on disk, not remembered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qsmref.metadata import parse_name
from qsmref.settings import Settings

from .dataset import read_status

#: ``desc`` of the maps that tables are made of.
MAPS = ("unreferenced", "imported")


def collect_results(output_dir: Path, subject: str) -> list[dict[str, Any]]:
    """Results of a participant, one dictionary a run.

    Returns
    -------
    list of dict
        Keys: ``prefix``; ``files`` (paths by name: magnitude, mask, total_field, local_field,
        chimap, as far as they exist, and ``atlases``: by name a dictionary of dseg, roi_tsv and
        differential_tsv); ``sidecar`` of the map; ``warnings``.
    """
    status = read_status(output_dir, subject)
    folder = output_dir / f"sub-{subject}"
    maps = sorted(path for desc in MAPS for path in folder.rglob(f"*_desc-{desc}_Chimap.nii.gz"))
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
        found["atlases"] = _atlases(anat, prefix)
        # A mask that an earlier command used is not that of the map.
        warnings = status.get("completed", {}).get(prefix, sidecar.get("Warnings", []))
        results.append({"prefix": prefix, "files": found, "sidecar": sidecar, "warnings": warnings})
    return results


def _atlases(anat: Path, prefix: str) -> dict[str, dict[str, Path]]:
    atlases = {}
    for dseg in sorted(anat.glob(f"{prefix}_atlas-*_dseg.nii.gz")):
        name = parse_name(dseg).entities["atlas"]
        stem = f"{prefix}_atlas-{name}"
        files = {
            "dseg": dseg,
            "roi_tsv": anat / f"{stem}_desc-roi_Chimap.tsv",
            "differential_tsv": anat / f"{stem}_desc-differential_Chimap.tsv",
        }
        atlases[name] = {key: path for key, path in files.items() if path.is_file()}
    return atlases


def recorded_settings(output_dir: Path, subject: str) -> Settings:
    """Settings a participant was processed with."""
    content = dict(read_status(output_dir, subject).get("settings", {}))
    return Settings.from_preset(content.pop("preset", "default"), **content)
