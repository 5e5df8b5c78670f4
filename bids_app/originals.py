"""What a map was made of, found again for its report: phase, T1-weighted image, template.

Sidecars name their sources by BIDS URIs, and ``dataset_description.json`` says where the datasets
are. What has moved since is left out of the page, which says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from qsmref.files import read_json
from qsmref.index import read_description
from qsmref.metadata import parse_name
from qsmref.settings import Settings
from qsmref.templates import image_at_hand


class Datasets:
    """Folders of the datasets that BIDS URIs name."""

    def __init__(self, output_dir: Path):
        links = read_description(output_dir).get("DatasetLinks")
        self._roots = {"": Path(output_dir)}
        for name, address in (links if isinstance(links, dict) else {}).items():
            if isinstance(address, str) and urlsplit(address).scheme == "file":
                self._roots[name] = Path(unquote(urlsplit(address).path))

    def file(self, uri: Any) -> Path | None:
        """File that a BIDS URI stands for; None when it is not there or lies elsewhere.

        Parameters
        ----------
        uri : str
            ``bids:<dataset>:<path from its root>``.
        """
        scheme, _, rest = str(uri).partition(":")
        dataset, _, name = rest.partition(":")
        root = self._roots.get(dataset)
        if scheme != "bids" or root is None or not name or ".." in Path(name).parts:
            return None
        path = root / name
        return path if path.is_file() else None


def find_originals(
    output_dir: Path, anat: Path, prefix: str, sidecar: Mapping[str, Any], settings: Settings | None
) -> dict[str, Any]:
    """Files a report shows beside the results, as far as they are still there.

    Parameters
    ----------
    output_dir : Path
        Folder of results.
    anat : Path
        Folder of the map in it.
    prefix : str
        Entities of the run.
    sidecar : mapping
        Of the map.
    settings : Settings or None
        With them the template is known.

    Returns
    -------
    dict
        `phase_first`, `phase_last`: phase of these echoes. `registration`: `t1w`,
        `template` (images), `map_to_t1w`, `template_to_map` (ITK transforms; the second leads to
        the T1-weighted image where there is one).
    """
    datasets = Datasets(output_dir)
    found: dict[str, Any] = {}
    phases = [
        path
        for path in map(datasets.file, _listed(sidecar))
        if path is not None and parse_name(path).entities.get("part") == "phase"
    ]
    if phases:
        found["phase_first"] = phases[0]
    if len(phases) > 1:
        found["phase_last"] = phases[-1]
    registration = _registration(datasets, anat, prefix, settings)
    if registration:
        found["registration"] = registration
    return found


def _listed(sidecar: Mapping[str, Any]) -> Iterable[Any]:
    sources = sidecar.get("Sources")
    return sources if isinstance(sources, list) else []


def _registration(
    datasets: Datasets, anat: Path, prefix: str, settings: Settings | None
) -> dict[str, Path]:
    made: dict[str, Path] = {}
    sources: list[Path] = []
    for path in sorted(anat.glob(f"{prefix}_from-*_mode-image_xfm.*")):
        if path.suffix == ".json":
            listed = map(datasets.file, _listed(read_json(path)))
            sources += [source for source in listed if source is not None]
            continue
        made |= _kind_of_transform(path)
    for source in sources:
        name = parse_name(source)
        if name.suffix == "T1w":
            made.setdefault("t1w", source)
        elif name.suffix == "xfm":
            # Those of a derivative, which are not written again.
            made = _kind_of_transform(source) | made
    if settings is not None and settings.template is not None and "template_to_map" in made:
        template = image_at_hand(settings.template)
        if template is not None:
            made["template"] = template
    return made


def _kind_of_transform(path: Path) -> dict[str, Path]:
    origin = parse_name(path).entities.get("from")
    target = parse_name(path).entities.get("to")
    if (origin, target) == ("MEGRE", "T1w"):
        return {"map_to_t1w": path}
    if target in ("T1w", "MEGRE"):
        return {"template_to_map": path}
    return {}
