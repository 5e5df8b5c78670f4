"""What the sidecar of a map says of its acquisition and of where it came from, before the run."""

from __future__ import annotations

from typing import Any

from ..runs import EchoRun, MapRun
from ..settings import Settings
from .citations import reference


def processing(settings: Settings, *, quality: bool, csf: bool) -> dict[str, str]:
    """Keys of the map's sidecar, and outputs of the reconstruction that go there."""
    keys = {
        "Processing.Echoes": "load_info",
        "Processing.BrainMask": "mask_info",
        "Processing.EchoFit": "echo_info",
        "Processing.Unwrap": "unwrap_info",
        "Processing.PhaseSign": "sign_info",
        "Processing.BackgroundRemoval": "background_info",
        "Processing.Inversion": "inversion_info",
    }
    if quality:
        keys["Processing.MaskQuality"] = "quality_info"
    if settings.bipolar or settings.phase_offset != "none":
        keys["Processing.PhaseCorrection"] = "phase_info"
    if csf:
        keys["Processing.CSF"] = "csf_info"
    return keys


def acquisition(run: EchoRun, settings: Settings) -> dict[str, Any]:
    """Sidecar of a reconstructed map, as far as it is known before the run."""
    methods = {"EchoFit": ("echo_fit", settings.echo_fit), "Unwrap": ("unwrap", settings.unwrap)}
    methods["BackgroundRemoval"] = ("background", settings.background)
    methods["Inversion"] = ("inversion", settings.inversion)
    published = [reference(*method) for method in methods.values()]
    scale = run.phase_scale
    phase_range = {} if scale.low is None else {"PhaseRange": [scale.low, scale.high]}
    return {
        **run.acquisition,
        **phase_range,
        "Description": "Susceptibility map as reconstructed; its zero is arbitrary",
        "SusceptibilityReference": "none: the transform of the map is zero at k = 0",
        "SkullStripped": True,
        "Sources": run.sources,
        "EchoTime": list(run.echo_times),
        "ImagingFrequency": round(run.imaging_frequency * 1e-6, 9),
        "MagneticFieldStrength": run.field_strength,
        "B0Direction": list(run.b0_direction),
        "PhaseSign": settings.phase_sign,
        "PhaseScale": _scale_in_words(run),
        "EstimationAlgorithm": " + ".join(
            dict.fromkeys([settings.background, settings.inversion])
        ).removeprefix("none + "),
        "EstimationReference": "; ".join(dict.fromkeys(p for p in published if p)),
        "Sloppy": settings.sloppy,
        "Warnings": list(run.warnings),
    }


def _scale_in_words(run: EchoRun) -> str:
    if run.cartesian:
        return "the angle of real and imaginary parts"
    scale = run.phase_scale
    said = "declared by the user" if scale.declared else "as the sidecars say"
    unit = "radians" if scale.low is None else f"{scale.low:g} to {scale.high:g} mean -pi to pi"
    return f"{unit}, {said}"


#: What the sidecar of an earlier run says of that run, and not of how the voxels were made.
_OF_THAT_RUN = ("ReferenceStatistics", "Registration", "Software", "Warnings")


def imported(run: MapRun) -> dict[str, Any]:
    """Sidecar of a map that was made before: what it said of the map, and where it came from.

    A map of ours has the entries of its reconstruction (`Processing`, `EstimationAlgorithm`, echo
    times, ...), which stay: they say how these voxels were made. What its run said of regions,
    registration and warnings is not of this run, which says its own. Its programs become
    `MapSoftware`, and those that its dataset names `MapGeneratedBy`.
    """
    kept = {key: value for key, value in run.metadata.items() if key not in _OF_THAT_RUN}
    if "Software" in run.metadata:
        kept["MapSoftware"] = run.metadata["Software"]
    if run.made_by:
        kept["MapGeneratedBy"] = list(run.made_by)
    return {
        **kept,
        "Description": "Susceptibility map made by another program",
        "SusceptibilityReference": run.metadata.get("SusceptibilityReference", "unknown"),
        "Sources": run.sources,
        "Warnings": list(run.warnings),
    }
