"""What authors are asked to state of a susceptibility map, and what the data say of it.

The items are those of Tables 3 to 5 of the consensus of the ISMRM study group,
doi:10.1002/mrm.30006. A value comes from the sidecar of the map or from the image itself; what
neither says is None, and never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qsmref import images
from qsmref.metadata import acquisition_of

from . import pictures
from .wording import number

_WORLD = ("sagittal", "coronal", "axial")
#: Of BIDS, in words.
_SCANNING = {"GR": "gradient echo", "EP": "echo planar", "SE": "spin echo", "IR": "inversion"}


@dataclass(frozen=True)
class Item:
    """One thing to be stated."""

    #: Scanner, sequence, reconstruction or analysis.
    part: str
    name: str
    #: None where the data do not say.
    value: str | None
    #: Whether the consensus calls it essential or mandatory.
    essential: bool = False


def plain(value: Any) -> str:
    """A value of a sidecar in few characters.

    >>> plain(True), plain([0.004, 1e-05]), plain({"a": 1})
    ('yes', '0.004, 1e-05', 'a 1')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(v) for v in value)
    return str(value)


def reporting_items(result: Mapping[str, Any]) -> list[Item]:
    """Items of one map.

    Parameters
    ----------
    result : mapping
        Of :func:`bids_app.results.collect_results`.
    """
    sidecar = result.get("sidecar", {})
    said = acquisition_of([sidecar])
    return [
        *_scanner(sidecar, said),
        *_sequence(result, sidecar, said),
        *_reconstruction(sidecar),
        *_analysis(result, sidecar),
    ]


def acquisition_facts(sidecar: Mapping[str, Any]) -> dict[str, str]:
    """Facts of the acquisition and the method, in words, as far as a map's sidecar says them."""
    said = acquisition_of([sidecar])
    facts = {
        "Echo times": _echoes(sidecar),
        "Repetition time": _milliseconds(said),
        "Flip angle": _degrees(said),
        "Field strength": _measure(sidecar, "MagneticFieldStrength", "T", 4),
        "Imaging frequency": _measure(sidecar, "ImagingFrequency", "MHz", 6),
        "Sequence": _sequence_type(said),
        "Scanner": " ".join(
            str(said[k]) for k in ("Manufacturer", "ManufacturersModelName") if k in said
        ),
        "Method": _text(sidecar, "EstimationAlgorithm"),
        "Zero of the map": _text(sidecar, "SusceptibilityReference"),
    }
    return {name: value for name, value in facts.items() if value}


def geometry(result: Mapping[str, Any]) -> dict[str, str]:
    """Matrix, voxel size, field of view and orientation of the map, from the image."""
    path = result.get("files", {}).get("chimap")
    if not path:
        return {}
    shape, affine = pictures.grid(path)
    size = images.voxel_size(affine)
    b0 = np.asarray(images.b0_direction(affine), dtype=float)
    normal = int(np.argmax(np.abs(affine[:3, 2])))
    tilt = float(np.degrees(np.arccos(np.clip(abs(affine[normal, 2]) / size[2], 0, 1))))
    slices = _WORLD[normal] + (f", tilted by {tilt:.1f}°" if tilt > 0.05 else "")
    return {
        "matrix": " × ".join(str(n) for n in shape),
        "voxel": " × ".join(f"{h:.3g}" for h in size) + " mm",
        "coverage": " × ".join(f"{n * h:.4g}" for n, h in zip(shape, size, strict=True)) + " mm",
        "orientation": slices,
        "b0": f"({', '.join(number(v, 3) for v in b0)})",
    }


def _text(sidecar: Mapping[str, Any], key: str) -> str | None:
    value = sidecar.get(key)
    return None if value in (None, "", [], {}) else plain(value)


def _measure(sidecar: Mapping[str, Any], key: str, unit: str, digits: int) -> str | None:
    return f"{float(sidecar[key]):.{digits}g} {unit}" if key in sidecar else None


def _echoes(sidecar: Mapping[str, Any]) -> str | None:
    times = sidecar.get("EchoTime")
    if times is None:
        return None
    return ", ".join(f"{float(t) * 1000:.4g}" for t in np.atleast_1d(times)) + " ms"


def _number(said: Mapping[str, Any], *keys: str) -> float | None:
    for key in keys:
        value = said.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def _milliseconds(said: Mapping[str, Any]) -> str | None:
    value = _number(said, "RepetitionTimeExcitation", "RepetitionTime")
    return None if value is None else f"{value * 1000:.4g} ms"


def _degrees(said: Mapping[str, Any]) -> str | None:
    value = said.get("FlipAngle")
    return None if value is None else f"{plain(value)}°"


def _sequence_type(said: Mapping[str, Any]) -> str | None:
    words = [str(said["MRAcquisitionType"])] if "MRAcquisitionType" in said else []
    if "PulseSequenceType" in said:
        words.append(str(said["PulseSequenceType"]))
    elif "ScanningSequence" in said:
        codes = said["ScanningSequence"]
        codes = codes if isinstance(codes, list) else str(codes).split("\\")
        words.append(", ".join(_SCANNING.get(str(c), str(c)) for c in codes))
    return " ".join(words) or None


def _scanner(sidecar: Mapping[str, Any], said: Mapping[str, Any]) -> list[Item]:
    coil = [said[k] for k in ("ReceiveCoilName", "ReceiveCoilActiveElements") if k in said]
    channels = said.get("NumberReceiveCoilActiveElements")
    coil += [f"{plain(channels)} channels"] if channels is not None else []
    part = "Scanner"
    strength = _measure(sidecar, "MagneticFieldStrength", "T", 4)
    return [
        Item(part, "Field strength", strength, True),
        Item(part, "Vendor", _text(said, "Manufacturer"), True),
        Item(part, "Model", _text(said, "ManufacturersModelName")),
        Item(part, "Software release", _text(said, "SoftwareVersions")),
        Item(part, "Coil, channels", ", ".join(map(plain, coil)) or None),
        Item(part, "Gradient system", _text(said, "GradientSetType")),
    ]


def _sequence(
    result: Mapping[str, Any], sidecar: Mapping[str, Any], said: Mapping[str, Any]
) -> list[Item]:
    part, shape = "Sequence", geometry(result)
    bandwidth = _number(said, "PixelBandwidth")
    factors = [
        f"{axis} {plain(said[key])}"
        for axis, key in (
            ("in plane", "ParallelReductionFactorInPlane"),
            ("through planes", "ParallelReductionFactorOutOfPlane"),
        )
        if key in said
    ]
    technique = said.get("ParallelAcquisitionTechnique")
    acceleration = ", ".join(([plain(technique)] if technique is not None else []) + factors)
    partial = [said[k] for k in ("PartialFourier", "PartialFourierDirection") if k in said]
    return [
        Item(part, "Type", _sequence_type(said), True),
        Item(part, "Name at the scanner", _text(said, "SequenceName")),
        Item(part, "Orientation", shape.get("orientation")),
        Item(part, "Direction of B0 in voxel axes", shape.get("b0")),
        Item(part, "Echo times", _echoes(sidecar), True),
        Item(part, "Repetition time", _milliseconds(said), True),
        Item(part, "Flip angle", _degrees(said)),
        Item(part, "Bandwidth", None if bandwidth is None else f"{bandwidth:.4g} Hz per pixel"),
        Item(part, "Matrix of the images", shape.get("matrix"), True),
        Item(part, "Field of view", shape.get("coverage"), True),
        Item(part, "Voxel size", shape.get("voxel"), True),
        Item(part, "Readout", readout(said)),
        Item(part, "Imaging frequency", _measure(sidecar, "ImagingFrequency", "MHz", 6), True),
        Item(part, "Flow compensation", _text(said, "FlowCompensation")),
        Item(part, "Acceleration", acceleration or None, True),
        Item(part, "Partial Fourier", ", ".join(map(plain, partial)) or None),
        Item(part, "Combination of the coils", _text(said, "CoilCombinationMethod")),
    ]


def readout(said: Mapping[str, Any]) -> str | None:
    """Whether all echoes are read out in one direction."""
    bipolar = said.get("BipolarReadout")
    if not isinstance(bipolar, bool):
        return None
    return "bipolar" if bipolar else "monopolar"


#: Step of a sidecar's ``Processing``, and what the consensus calls it.
STEPS = {
    "PhaseCorrection": "Correction of the phase",
    "BrainMask": "Brain mask",
    "MaskQuality": "Phase quality mask",
    "EchoFit": "Combination of the echoes",
    "Unwrap": "Unwrapping",
    "BackgroundRemoval": "Background removal",
    "Inversion": "Dipole inversion",
    "CSF": "Fluid kept uniform",
}
#: What a step found, as against what it was told to do.
FOUND = (
    "n_voxels", "kept_fraction", "fft_count", "grid", "laplacian", "roughness", "edges", "residual",
    "typical_noise", "shell_voxels", "voxels_without_data", "radians_per_ppm", "warning",
    "echo_times", "echo_spacing", "evenly_spaced", "edges_from_magnitude", "offset_peak",
    "bipolar_slope", "bipolar_constant", "anchored_fraction", "voxels_without_signal",
)  # fmt: skip


def parameters(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a step was told to do, apart from its method; what has no value is left out."""
    return {
        key: value
        for key, value in info.items()
        if key != "method" and key not in FOUND and value not in (None, [], {})
    }


def in_words(given: Mapping[str, Any]) -> str:
    """Parameters as ``name value``, joined by semicolons; lengths with their unit.

    >>> in_words({"erosion_mm": 2.0, "lambda_": 500})
    'erosion 2 mm; lambda 500'
    """
    words = []
    for key, value in given.items():
        name, unit = key.removesuffix("_mm"), " mm" if key.endswith("_mm") else ""
        words.append(f"{name.replace('_', ' ').strip()} {plain(value)}{unit}")
    return "; ".join(words)


def _reconstruction(sidecar: Mapping[str, Any]) -> list[Item]:
    part, processing = "Reconstruction", sidecar.get("Processing", {})
    software = sidecar.get("Software")
    versions = None
    if isinstance(software, Mapping) and software:
        versions = ", ".join(f"{name} {plain(version)}" for name, version in software.items())
    items = [
        Item(part, "Software", versions, True),
        Item(part, "Scale of the phase", _text(sidecar, "PhaseScale")),
    ]
    for step, name in STEPS.items():
        if step in processing:
            info = processing[step]
            value = str(info.get("method", ""))
            rest = in_words(parameters(info))
            items.append(Item(part, name, "; ".join(filter(None, (value, rest))) or "yes", True))
            smooth = info.get("anchored_fraction")
            if isinstance(smooth, float):
                known = f"from the neighbours in {100 * smooth:.0f} % of the brain"
                items.append(Item(part, "Phase at echo time zero", known))
    if not processing:
        items.append(Item(part, "Algorithms", _text(sidecar, "EstimationAlgorithm"), True))
    return items


def _analysis(result: Mapping[str, Any], sidecar: Mapping[str, Any]) -> list[Item]:
    part = "Analysis"
    items = [
        Item(part, "Unit", "ppb (1 ppb = 0.001 ppm)", True),
        Item(part, "Reference of the map", _text(sidecar, "SusceptibilityReference"), True),
    ]
    for name, mean, sd in reference_values(sidecar):
        value = f"{number(mean)} ± {number(sd)} ppb"
        items.append(Item(part, f"{name}, relative to the whole brain", value, True))
    for atlas, measured in result.get("measured", {}).items():
        words = [f"{plain(measured[k])} of the voxels" for k in ("Statistic",) if k in measured]
        if measured.get("RegionErosion"):
            words.append(f"eroded by {plain(measured['RegionErosion'])} mm")
        if "MinimumCoverage" in measured:
            words.append(f"least coverage {plain(measured['MinimumCoverage'])}")
        items.append(Item(part, f"Regions of {atlas}", ", ".join(words) or None, True))
    return items


def reference_values(sidecar: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Fluid and white matter relative to the mean of the whole brain: name, mean, SD (ppb)."""
    statistics = sidecar.get("ReferenceStatistics")
    found: dict[str, tuple[str, float, float]] = {}
    for key, table in statistics.items() if isinstance(statistics, Mapping) else ():
        for name in ("csf", "wm") if str(key).startswith("atlas-") else ():
            row = table.get(name) if isinstance(table, Mapping) else None
            values = [row.get(k) for k in ("mean", "sd")] if isinstance(row, Mapping) else [None]
            # Of a tissue without a voxel the sidecar has no value.
            if all(isinstance(value, int | float) for value in values):
                found.setdefault(name, (name, *map(float, values)))
    return list(found.values())
