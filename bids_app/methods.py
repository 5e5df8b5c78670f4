"""The methods section of what was really run, written from the sidecars of the maps.

A paper states its acquisition, reconstruction and analysis with numbers; here they come from the
files. Maps that were made alike share their sentences, and numbers that differ between them are
given as a range. What the data do not say is listed as such.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import qsmref
from qsmref.anatomy import THROUGH_T1W
from qsmref.metadata import acquisition_of
from qsmref.tables import read_tsv
from qsmref.workflows.citations import is_known, sentence

from .reporting import (
    STEPS,
    geometry,
    in_words,
    parameters,
    plain,
    readout,
    reference_values,
    reporting_items,
)
from .sweeptable import mask_in_words, masks_of
from .wording import number

#: Key of ``Processing``, and where ``methods.json`` has its methods.
_SECTIONS = {
    "BrainMask": "mask",
    "EchoFit": "echo_fit",
    "Unwrap": "unwrap",
    "BackgroundRemoval": "background",
    "Inversion": "inversion",
}
_SPACES = {
    "native": "drawn on the grid of the map",
    "template": "in the space of the template, brought to the grid of the map",
    "T1w": "in the space of the T1-weighted image, brought to the grid of the map",
}
#: Keys of a sidecar that a text says once for all maps that share it.
_SAID_ONCE = (
    "EchoTime",
    "PhaseSign",
    "EstimationAlgorithm",
    "SusceptibilityReference",
    "MapGeneratedBy",
)
#: Runs that a heading names.
_MOST_NAMES = 4

Result = Mapping[str, Any]


def methods_text(results: Sequence[Result], more: Sequence[str] = ()) -> str:
    """Methods of some maps, as Markdown.

    Parameters
    ----------
    results : sequence of mappings
        Of :func:`bids_app.results.collect_results`, of one participant or of many.
    more : sequence of str
        Sentences that go behind those of the analysis.

    Returns
    -------
    str
        Headings, paragraphs and one list, of the references.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_kind(result), []).append(result)
    parts = ["# Methods"]
    for members in groups.values():
        if len(groups) > 1:
            names = [str(member["prefix"]) for member in members]
            rest = len(names) - _MOST_NAMES
            listed = ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
            parts.append(f"## {listed}")
        paragraphs = {
            "Acquisition": _acquisition(members),
            "Reconstruction": _reconstruction(members),
            "Registration": _registration(members[0]),
            "Regions and differences": [*_analysis(members)],
        }
        parts += [f"## {title}\n\n{' '.join(p)}" for title, p in paragraphs.items() if p]
    if more:
        parts.append(f"## Comparison\n\n{' '.join(more)}")
    parts.append(f"## Software\n\n{' '.join(_software(results))}")
    text = "\n\n".join(parts)
    references = _references(text)
    if references:
        text += "\n\n## References\n\n" + "\n".join(f"- {line}" for line in references)
    return text + "\n"


def _kind(result: Result) -> str:
    """What two maps must have in common to share their sentences."""
    sidecar = result.get("sidecar", {})
    steps = sidecar.get("Processing", {})
    alike = {
        "acquisition": {k: v for k, v in acquisition_of([sidecar]).items() if "Element" not in k},
        "said": {key: sidecar.get(key) for key in _SAID_ONCE},
        "methods": {k: v.get("method") for k, v in steps.items()},
        "phase": _phase_correction(steps.get("PhaseCorrection", {})),
        "turned": bool(steps.get("Echoes", {}).get("alternating_axes")),
        "registration": _registration(result),
        "atlases": sorted(result.get("measured", {})),
        "swept": [name for name, _ in _swept(result)],
    }
    return json.dumps(alike, sort_keys=True, default=str)


def pooled(values: Iterable[Any]) -> str | None:
    """One value for those that are equal, a range for numbers, all of them for words.

    >>> pooled([0.5, 0.5]), pooled([2.0, 1.0, 3.0]), pooled(["a", "b", "a"]), pooled([None])
    ('0.5', '1 to 3', 'a or b', None)
    """
    known = [v for v in values if v not in (None, "", [], {})]
    if not known:
        return None
    words = list(dict.fromkeys(plain(v) for v in known))
    if len(words) == 1:
        return words[0]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)
    return f"{plain(min(known))} to {plain(max(known))}" if numeric else " or ".join(words)


def _acquisition(members: Sequence[Result]) -> list[str]:
    """The sequence in two or three sentences, and what is not known of it."""
    sidecar, said = members[0]["sidecar"], acquisition_of([members[0]["sidecar"]])
    items = {item.name: item.value for item in reporting_items(members[0])}
    each = [member["sidecar"] for member in members]
    shapes = [geometry(member) for member in members]
    frequency = [round(float(s["ImagingFrequency"]), 4) for s in each if "ImagingFrequency" in s]
    strength = [round(float(s["MagneticFieldStrength"]), 3) for s in each if _has_field(s)]
    sentences = []
    kind = items["Type"] or "gradient-echo"
    first = f"Images of a {kind} sequence"
    scanner = " ".join(filter(None, (items["Vendor"], items["Model"])))
    if strength:
        first += f" were acquired at {_joined(strength, 'T')}"
        first += f" (imaging frequency {_joined(frequency, 'MHz')})" if frequency else ""
    else:
        first += " were acquired"
    first += f" on a {scanner}" if scanner else ""
    release, coil = items["Software release"], items["Coil, channels"]
    first += f" (software {release})" if release else ""
    sentences.append(first + (f" with the coil {coil}." if coil else "."))
    times = sidecar.get("EchoTime")
    if times is not None:
        count = len(np.atleast_1d(times))
        timing = [f"{count} echo{'es' if count > 1 else ''} at {items['Echo times']}"]
        timing += [f"repetition time {items['Repetition time']}"] * bool(items["Repetition time"])
        timing += [f"flip angle {items['Flip angle']}"] * bool(items["Flip angle"])
        timing += [f"{readout(said)} readout"] * bool(readout(said))
        timing += [f"bandwidth {items['Bandwidth']}"] * bool(items["Bandwidth"])
        sentences.append(f"It had {', '.join(timing)}.")
    if shapes[0]:
        sentences.append(
            f"The images have a matrix of {pooled(s['matrix'] for s in shapes)}, voxels of "
            f"{pooled(s['voxel'] for s in shapes)}, a field of view of "
            f"{pooled(s['coverage'] for s in shapes)} and "
            f"{pooled(s['orientation'] for s in shapes)} slices."
        )
    for name, words in (
        ("Acceleration", "Acceleration: {}."),
        ("Partial Fourier", "Partial Fourier: {}."),
        ("Flow compensation", "Flow compensation: {}."),
        ("Combination of the coils", "Coils were combined by {}."),
    ):
        sentences += [words.format(items[name])] * bool(items[name])
    missing = [
        item.name[0].lower() + item.name[1:]
        for item in reporting_items(members[0])
        if item.value is None and item.part in ("Scanner", "Sequence")
    ]
    if missing:
        sentences.append(f"Not stated by the data: {', '.join(missing)}.")
    return sentences


def _has_field(sidecar: Mapping[str, Any]) -> bool:
    return "MagneticFieldStrength" in sidecar


def _joined(values: Sequence[float], unit: str) -> str:
    """Mean and SD of numbers that differ, as the consensus asks for several scanners."""
    if len(set(values)) == 1:
        return f"{values[0]:.7g} {unit}"
    return f"{np.mean(values):.7g} ± {np.std(values, ddof=1):.2g} {unit}"


def _reconstruction(members: Sequence[Result]) -> list[str]:
    """One sentence a step, with what it was told to do."""
    processings = [member["sidecar"].get("Processing", {}) for member in members]
    sidecar = members[0]["sidecar"]
    if not processings[0]:
        told = sidecar.get("EstimationAlgorithm")
        made = f" Its sidecar names the algorithm {plain(told)}." if told else ""
        programs = sidecar.get("MapGeneratedBy") or []
        made += f" Its dataset names {', '.join(map(str, programs))}." if programs else ""
        return [sentence("regions", "imported") + made]
    sentences = []
    scale = pooled(member["sidecar"].get("PhaseScale") for member in members)
    if scale:
        turned = ", with the sign turned" if sidecar.get("PhaseSign", 1) == -1 else ""
        sentences.append(f"Phase values are {scale}{turned}.")
    if any(processing.get("Echoes", {}).get("alternating_axes") for processing in processings):
        sentences.append("Turns of the phase by π from plane to plane were taken out.")
    for step, name in STEPS.items():
        infos = [processing[step] for processing in processings if step in processing]
        if not infos:
            continue
        told = [parameters(info) for info in infos]
        keys = dict.fromkeys(key for each in told for key in each)
        given = {key: pooled(each.get(key) for each in told) for key in keys}
        method, rest = str(infos[0].get("method", "")), in_words(given)
        if step in _SECTIONS and is_known(_SECTIONS[step], method):
            sentences.append(sentence(_SECTIONS[step], method, rest))
        elif step == "PhaseCorrection":
            sentences += _phase_correction(infos[0])
        else:
            words = "; ".join(filter(None, (method, rest)))
            sentences.append(f"{name}{f': {words}' if words else ''}.")
    return sentences


def _phase_correction(info: Mapping[str, Any]) -> list[str]:
    offset = str(info.get("offset", "none"))
    sentences = []
    if is_known("phase_offset", offset):
        sentences.append(sentence("phase_offset", offset))
    if info.get("bipolar"):
        sentences.append("The phase ramp of alternating readouts (bipolar) was removed.")
    return sentences


def _registration(result: Result) -> list[str]:
    """Sentences on what was registered how, of the sidecar."""
    told = result.get("sidecar", {}).get("Registration")
    if not isinstance(told, Mapping) or "Engine" not in told:
        return []
    fsl = told["Engine"] == "fsl"
    methods = []
    if str(told.get("Through", "")).startswith("the magnitude alone"):
        methods += ["magnitude", "n4"]
    to_t1w = told.get("MapToT1w")
    if isinstance(to_t1w, Mapping):
        methods.append("flirt" if fsl else "rigid")
    elif to_t1w == "precomputed":
        methods.append("precomputed-rigid")
    elif to_t1w is not None:
        methods.append("one-grid")
    if told.get("BrainOfT1w") == "BET":
        methods.append("bet")
    methods += {"N4": ["n4"], "FAST": ["fast"]}.get(str(told.get("BiasField")), [])
    if isinstance(told.get("ToTemplate"), Mapping):
        methods += ["syn", "template"]
    elif told.get("ToTemplate") == "precomputed":
        through_t1w = told.get("Through") == THROUGH_T1W
        methods += ["precomputed" if through_t1w else "precomputed-map", "template"]
    return [sentence("registration", method) for method in dict.fromkeys(methods)]


def _analysis(members: Sequence[Result]) -> list[str]:
    sentences = []
    zero = members[0]["sidecar"].get("SusceptibilityReference")
    if zero:
        free, _, why = plain(zero).partition(": ")
        because = f" ({why})" if why else ""
        sentences.append(
            f"The maps have no reference{because}."
            if free == "none"
            else f"Reference of the map: {plain(zero)}."
        )
    for atlas in members[0].get("measured", {}):
        each = [m["measured"][atlas] for m in members if atlas in m.get("measured", {})]
        told = f"Regions of the atlas {atlas}{_labels(each)} are represented by the "
        told += f"{pooled(e.get('Statistic', 'mean') for e in each)} of their voxels in the mask"
        erosion = [e.get("RegionErosion") for e in each]
        told += f", eroded by {pooled(erosion)} mm" if any(erosion) else ""
        least = [e.get("MinimumCoverage") for e in each]
        told += f"; regions of which less than {pooled(least)} is covered are left out" * any(least)
        repeats = [(e.get("NoisePropagation") or {}).get("repeats") for e in each]
        told += f"; noise of the echoes was propagated by {pooled(repeats)} repeats" * any(repeats)
        sentences.append(told + ".")
    resampled = {"template", "T1w"}
    if any(e.get("LabelSpace") in resampled for e in members[0].get("measured", {}).values()):
        sentences.append(sentence("regions", "resampled"))
    if members[0].get("measured"):
        sentences.append(sentence("regions", "differential"))
    values: dict[str, list[tuple[float, float]]] = {}
    for member in members:
        for name, mean, sd in reference_values(member["sidecar"]):
            values.setdefault(name, []).append((mean, sd))
    if values:
        words = [f"{name} {_mean_and_sd(each)}" for name, each in values.items()]
        sentences.append(f"Relative to the mean of the whole brain: {', '.join(words)}.")
    swept = _swept(members[0])
    if swept:
        masks = masks_of(read_tsv(swept[0][1]))
        words = ", ".join(mask_in_words(*mask) for mask in masks if any(mask))
        sentences.append(sentence("regions", "coverage", words))
    return sentences


def _swept(result: Result) -> list[tuple[str, Path]]:
    """Atlases of a map that a sweep of masks was made with, and their tables of it."""
    atlases = result.get("files", {}).get("atlases", {})
    return [(n, paths["coverage_tsv"]) for n, paths in atlases.items() if "coverage_tsv" in paths]


def _labels(each: Sequence[Mapping[str, Any]]) -> str:
    """Where the labels of an atlas come from, in brackets."""
    datasets = {str(uri).split(":")[1] for e in each for uri in e.get("LabelSources", ())}
    spaces = {str(e["LabelSpace"]) for e in each if "LabelSpace" in e}
    words = [f"labels of the dataset {' or '.join(sorted(datasets))}"] if datasets else []
    words += [_SPACES.get(space, f"in the space {space}") for space in sorted(spaces)]
    return f" ({', '.join(words)})" if words else ""


def _mean_and_sd(each: Sequence[tuple[float, float]]) -> str:
    if len(each) == 1:
        return f"{number(each[0][0])} ± {number(each[0][1])} ppb (mean ± SD of the voxels)"
    means = [mean for mean, _ in each]
    spread = f"{number(np.mean(means))} ± {number(np.std(means, ddof=1))} ppb"
    return f"{spread} (mean ± SD over {len(each)} maps)"


def _software(results: Sequence[Result]) -> list[str]:
    versions: dict[str, list[str]] = {"qsmref": []}
    for result in results:
        sidecar = result.get("sidecar", {})
        registration = sidecar.get("Registration")
        parts = [sidecar.get("Software")]
        parts += [registration.get("Software")] if isinstance(registration, Mapping) else []
        for part in parts:
            for name, version in part.items() if isinstance(part, Mapping) else ():
                versions.setdefault(str(name), []).append(plain(version))
    versions["qsmref"] = versions["qsmref"] or [qsmref.__version__]
    listed = ", ".join(f"{name} {pooled(found)}" for name, found in versions.items())
    # A map that was made elsewhere says nothing of steps, or says by which programs it was made.
    own = any(
        "Processing" in sidecar and "MapSoftware" not in sidecar
        for sidecar in (result.get("sidecar", {}) for result in results)
    )
    return [
        f"{'Maps and tables' if own else 'Tables'} were made with {listed}.",
        sentence("software", "qsmref"),
        sentence("software", "bids"),
    ]


def _references(text: str) -> list[str]:
    """Publications that a text cites, each once, in the order of the text."""
    found = re.findall(r"\[([^\[\]]+, doi:[^\]]+)\]", text)
    return list(dict.fromkeys(one for cited in found for one in cited.split("; ")))
