"""What a map was made of, found again for its report: phase, T1-weighted image, template.

Sidecars name their sources by BIDS URIs, and ``dataset_description.json`` says where the datasets
are. What has moved since is left out of the page, which says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from qsmref.anatomy import MAP_SPACE, THROUGH_T1W
from qsmref.files import read_json
from qsmref.index import read_description
from qsmref.metadata import parse_name
from qsmref.settings import Settings
from qsmref.templates import image_at_hand, label_of_template

from . import pictures


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
        if scheme != "bids" or root is None or not name:
            return None
        if Path(name).is_absolute() or ".." in Path(name).parts:
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
        `phase_first`, `phase_last`: phase of these echoes, one file where it has all of them; or
        their imaginary parts, with the real ones in `phase_first_real` and `phase_last_real`.
        `mask`: the brain mask that was found beside a map made elsewhere.
        `registration`: `t1w`, `template` (images), `map_to_t1w`, `template_to_map` (ITK
        transforms; the second leads to the T1-weighted image where there is one).
    """
    datasets = Datasets(output_dir)
    found: dict[str, Any] = {}
    sources = [path for path in map(datasets.file, _listed(sidecar)) if path is not None]
    masks = [path for path in sources if parse_name(path).suffix == "mask"]
    if masks:
        found["mask"] = masks[0]
    parts: dict[str, list[Path]] = {}
    for path in sources:
        parts.setdefault(parse_name(path).entities.get("part", ""), []).append(path)
    phases, real = parts.get("phase", []), []
    if not phases:
        phases, real = parts.get("imag", []), parts.get("real", [])
    if phases:
        found["phase_first"] = phases[0]
        found |= {"phase_first_real": real[0]} if real else {}
    if len(phases) > 1 or (phases and pictures.volumes(phases[0]) > 1):
        found["phase_last"] = phases[-1]
        found |= {"phase_last_real": real[-1]} if real else {}
    told = sidecar.get("Registration")
    registration = (
        _registration(datasets, anat, prefix, told, settings) if isinstance(told, Mapping) else {}
    )
    if registration:
        found["registration"] = registration
    return found


def _listed(sidecar: Mapping[str, Any]) -> Iterable[Any]:
    sources = sidecar.get("Sources")
    return sources if isinstance(sources, list) else []


def _registration(
    datasets: Datasets,
    anat: Path,
    prefix: str,
    told: Mapping[str, Any],
    settings: Settings | None,
) -> dict[str, Path]:
    """Images and transforms of the registration that a sidecar tells of.

    Those of another template, or of an earlier run that went another way, may lie beside them.
    """
    template = settings.template if settings is not None else None
    through_t1w = told.get("Through") == THROUGH_T1W
    middle = "T1w" if through_t1w else MAP_SPACE
    ways = {(MAP_SPACE, "T1w"): "map_to_t1w"} if through_t1w else {}
    if template is not None:
        ways[(label_of_template(template), middle)] = "template_to_map"
    own: dict[str, Path] = {}
    given: dict[str, Path] = {}
    for path in sorted(anat.glob(f"{prefix}_from-*_mode-image_xfm.*")):
        if path.suffix != ".json":
            own |= _kind_of_transform(path, ways)
            continue
        for source in map(datasets.file, _listed(read_json(path))):
            suffix = None if source is None else parse_name(source).suffix
            if suffix == "T1w":
                given.setdefault("t1w", source)
            elif suffix == "xfm":
                # Those of a derivative, which are not written again.
                given |= _kind_of_transform(source, ways)
    for step, kind in (("MapToT1w", "map_to_t1w"), ("ToTemplate", "template_to_map")):
        if told.get(step) == "precomputed":
            own.pop(kind, None)
    made = given | own
    image = image_at_hand(template) if template is not None and "template_to_map" in made else None
    return made if image is None else made | {"template": image}


def _kind_of_transform(path: Path, ways: Mapping[tuple[str, str], str]) -> dict[str, Path]:
    entities = parse_name(path).entities
    kind = ways.get((entities.get("from", ""), entities.get("to", "")))
    return {} if kind is None else {kind: path}
