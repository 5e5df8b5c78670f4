"""Names and sidecars of the results, and the nodes that write them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from nipype.interfaces import utility as niu
from nipype.pipeline import engine as pe

from .. import __version__
from ..interfaces.outputs import SaveDerivative
from ..metadata import parse_name
from .engine import Workflow, make_node


@cache
def _patterns() -> dict[str, list[str]]:
    text = resources.files("qsmref.data").joinpath("path_patterns.json").read_text("utf-8")
    return json.loads(text)


def derivative_name(prefix: str, **entities: str) -> str:
    """Path of a result from the folder of results.

    Parameters
    ----------
    prefix : str
        Entities of the run, ``sub-01_acq-x``.
    **entities
        ``suffix`` and others that the patterns of ``data/path_patterns.json`` have.

    Raises
    ------
    ValueError
        When no pattern takes all of these entities: none is ever dropped.

    Examples
    --------
    >>> derivative_name("sub-01_ses-a_run-02", suffix="mask", desc="brain")
    'sub-01/ses-a/anat/sub-01_ses-a_run-02_desc-brain_mask.nii.gz'
    """
    from bids.layout.writing import build_path

    wanted = {**parse_name(prefix + "_x").entities, **entities}
    for patterns in _patterns().values():
        name = build_path(wanted, patterns, strict=True)
        if name is not None:
            return name
    raise ValueError(f"no file name has all of these entities: {wanted}")


def make_sink(
    name: str,
    out_name: str,
    output_dir: str | Path,
    *,
    shape: Sequence[int],
    metadata: Mapping[str, Any] | None = None,
    info_names: Sequence[str] = (),
) -> pe.Node:
    """Node that writes one result and its sidecar.

    Parameters
    ----------
    name : str
        Name of the node.
    out_name : str
        Of :func:`derivative_name`.
    output_dir : path
        Folder of results.
    shape : (3,) int
        Voxels of the image.
    metadata : mapping, optional
        What is known of the sidecar before the run.
    info_names : sequence of str
        Keys of the sidecar under which the files of the input ``info_files`` go, in their order;
        a dot goes into an object (``Processing.Unwrap``), a dot at the end merges.
    """
    interface = SaveDerivative(out_dir=str(output_dir), out_name=out_name)
    interface.inputs.metadata = dict(metadata or {})
    if info_names:
        interface.inputs.info_names = list(info_names)
    node = make_node(interface, name, shape=shape, volumes=3)
    # It runs each time; in the main process, so that a run with nothing to do starts no other.
    node.run_without_submitting = True
    return node


def gather(count: int, name: str) -> pe.Node:
    """Node that makes a list of `count` inputs ``in1``, ``in2``, ..."""
    return pe.Node(niu.Merge(count), name=name, run_without_submitting=True)


def own_uri(name: str) -> str:
    """BIDS URI of a result of ours."""
    return f"bids::{name}"


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    from importlib.metadata import version

    from ..reconstruction import fft

    packages = ("nibabel", "nipype", "numba", "numpy", "scipy")
    versions = {"qsmref": __version__, **{name: version(name) for name in packages}}
    return {**versions, "FFT": fft.library_name()}


def init_fields_outputs_wf(
    *,
    prefix: str,
    output_dir: str | Path,
    shape: Sequence[int],
    sources: Sequence[str],
    local_field: bool,
    name: str = "save_fields",
) -> Workflow:
    """Write the mask and the field maps.

    Inputs
    ------
    mask
        Where the map is valid.
    mask_info
        How the mask was made.
    confidence
        Voxels of it that have data of their own.
    combined
        Magnitude; BIDS wants one beside a field map, and the report shows it.
    total_field, local_field
        Hz.
    """
    workflow = Workflow(name=name)
    fields = ["mask", "mask_info", "confidence", "combined", "total_field"]
    fields += ["local_field"] * local_field
    inputs = pe.Node(niu.IdentityInterface(fields), name="inputnode")
    common = {"output_dir": output_dir, "shape": shape}
    mask = make_sink(
        "save_mask",
        derivative_name(prefix, desc="brain", suffix="mask"),
        metadata={
            "Type": "Brain",
            "Description": "Voxels in which the susceptibility map is valid",
            "Sources": list(sources),
        },
        info_names=["BrainMask"],
        **common,
    )
    workflow.connect(inputs, "mask", mask, "in_file")
    workflow.connect(inputs, "mask_info", mask, "info_files")
    confidence = make_sink(
        "save_confidence",
        derivative_name(prefix, desc="confidence", suffix="mask"),
        metadata={
            "Type": "ROI",
            "Description": "Voxels of the map that have data of their own; the others, in the rim "
            "of the mask, follow from the field around them and from their neighbours",
            "Sources": list(sources),
        },
        **common,
    )
    workflow.connect(inputs, "confidence", confidence, "in_file")
    magnitude = make_sink(
        "save_magnitude",
        derivative_name(prefix, suffix="magnitude"),
        metadata={
            "Description": "Root of the sum of squares of the magnitude over echoes",
            "Units": "arbitrary",
            "SkullStripped": False,
            "Sources": list(sources),
        },
        **common,
    )
    workflow.connect(inputs, "combined", magnitude, "in_file")
    described = {
        "total": "Field of all sources, unwrapped; its constant is arbitrary",
        "local": "Field of the sources inside the mask, after background removal",
    }
    for kind in ["total"] + ["local"] * local_field:
        metadata = {
            "Units": "Hz",
            "SkullStripped": True,
            "Description": described[kind],
            "Sources": list(sources),
        }
        out_name = derivative_name(prefix, desc=kind, suffix="fieldmap")
        sink = make_sink(f"save_{kind}_field", out_name, metadata=metadata, **common)
        workflow.connect(inputs, f"{kind}_field", sink, "in_file")
    return workflow


def init_map_outputs_wf(
    *,
    prefix: str,
    desc: str,
    output_dir: str | Path,
    shape: Sequence[int],
    metadata: Mapping[str, Any],
    info_names: Sequence[str],
    name: str = "save_map",
) -> Workflow:
    """Write a susceptibility map with all that is known about it.

    Inputs
    ------
    chimap
        ppm.
    info1, info2, ...
        JSON files for the sidecar, one for each of `info_names`.
    """
    workflow = Workflow(name=name)
    infos = [f"info{i + 1}" for i in range(len(info_names))]
    inputs = pe.Node(niu.IdentityInterface(["chimap", *infos]), name="inputnode")
    sink = make_sink(
        "save_chimap",
        derivative_name(prefix, desc=desc, suffix="Chimap"),
        output_dir,
        shape=shape,
        metadata={**metadata, "Units": "ppm", "Software": software()},
        info_names=info_names,
    )
    merge = gather(len(infos), "infos")
    workflow.connect(inputs, "chimap", sink, "in_file")
    for i, info in enumerate(infos):
        workflow.connect(inputs, info, merge, f"in{i + 1}")
    workflow.connect(merge, "out", sink, "info_files")
    return workflow


def make_coverage_sink(
    *, prefix: str, atlas: str, output_dir: str | Path, shape: Sequence[int], name: str
) -> pe.Node:
    """Node that writes the table of a sweep of masks (`in_file`), with its info (`info_files`)."""
    from ..analysis import coverage

    dseg = derivative_name(prefix, atlas=atlas, suffix="dseg", extension=".nii.gz")
    field = derivative_name(prefix, desc="total", suffix="fieldmap")
    metadata = {**coverage.COLUMNS, "Sources": [own_uri(field), own_uri(dseg)]}
    out_name = derivative_name(prefix, atlas=atlas, desc="coverage", suffix="Chimap")
    return make_sink(name, out_name, output_dir, shape=shape, metadata=metadata, info_names=["."])


def init_tables_outputs_wf(
    *,
    prefix: str,
    atlas: str,
    output_dir: str | Path,
    shape: Sequence[int],
    chimap: str,
    label_sources: Sequence[str],
    measured: Mapping[str, Any] | None = None,
    info_names: Sequence[str] = (),
    name: str = "save_tables",
) -> Workflow:
    """Write the regions of one atlas and their tables.

    Parameters
    ----------
    chimap : str
        Name of the map the tables are made of.
    label_sources : sequence of str
        BIDS URIs of the labels.
    measured : mapping, optional
        How the regions were measured, for the sidecars of the tables.
    info_names : sequence of str
        Keys of what else they say, in the order of the inputs `info1`, ...

    Inputs
    ------
    labels, names
        Label image and the table of its names.
    regions, differences
        Tables, ppb.
    info1, info2, ...
        JSON files for the sidecars of the tables.
    """
    from ..analysis import reference, regions

    workflow = Workflow(name=name)
    fields = ["labels", "names", "regions", "differences"]
    infos = [f"info{i + 1}" for i in range(len(info_names))]
    inputs = pe.Node(niu.IdentityInterface([*fields, *infos]), name="inputnode")
    dseg = derivative_name(prefix, atlas=atlas, suffix="dseg", extension=".nii.gz")
    sources = {"Sources": [own_uri(chimap), own_uri(dseg)], **(measured or {})}
    statistic = str(sources.get("Statistic", "mean"))
    plans = {
        "labels": (
            dseg,
            {
                "Description": f"Regions of the atlas {atlas}",
                "SpatialReference": own_uri(chimap),
                "Sources": list(label_sources),
                **{key: regions.COLUMNS[key] for key in ("index", "name", "hemisphere")},
            },
        ),
        "names": (derivative_name(prefix, atlas=atlas, suffix="dseg", extension=".tsv"), {}),
        "regions": (
            derivative_name(prefix, atlas=atlas, desc="roi", suffix="Chimap"),
            {**regions.COLUMNS, **sources},
        ),
        "differences": (
            derivative_name(prefix, atlas=atlas, desc="differential", suffix="Chimap"),
            {**reference.columns(statistic), **sources},
        ),
    }
    merge = gather(len(infos), "infos") if infos else None
    for i, info in enumerate(infos):
        workflow.connect(inputs, info, merge, f"in{i + 1}")
    for field, (out_name, metadata) in plans.items():
        told = info_names if field in ("regions", "differences") else ()
        sink = make_sink(
            f"save_{field}",
            out_name,
            output_dir,
            shape=shape,
            metadata=metadata,
            info_names=told,
        )
        workflow.connect(inputs, field, sink, "in_file")
        if told:
            workflow.connect(merge, "out", sink, "info_files")
    return workflow
