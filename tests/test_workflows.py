"""The graphs: complete, runnable from a Python prompt, and idle when nothing has changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tiny_bids as tiny
from nipype.interfaces.base import isdefined

from qsmref import images
from qsmref.inputs import Query, discover
from qsmref.phantom.study import Study
from qsmref.reconstruction import methods
from qsmref.reconstruction.parameters import (
    method_parameters,
)
from qsmref.settings import Settings
from qsmref.workflows import (
    init_cohort_wf,
    init_reconstruction_wf,
    init_regions_wf,
    init_subject_wf,
)
from qsmref.workflows.citations import reference, sentence
from qsmref.workflows.outputs import derivative_name
from qsmref.workflows.sidecars import imported
from qsmref.workflows.study import init_study_wf

FAST = {"background": "v-sharp", "inversion": "tkd"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Dataset, derivative with mask and labels, derivative with a map as well."""
    root = tmp_path_factory.mktemp("data")
    bids = tiny.make_dataset(root / "bids", ("01", "02"))
    regions = tiny.make_regions(root / "regions", ("01", "02"))
    maps = tiny.make_regions(root / "maps", ("01",), with_map=True)
    return {"bids": bids, "regions": regions, "maps": maps}


def graph(data, folder: Path, *, maps: bool = False, subject: str = "01", **changes):
    name = "maps" if maps else "regions"
    query = Query(derivatives={"mine": data[name]}, maps="mine" if maps else None)
    runs, _ = discover(data["bids"], query)
    settings = Settings.from_preset(**{**FAST, **changes})
    workflow = init_subject_wf(
        subject=subject, runs=runs, settings=settings, output_dir=folder / "out"
    )
    workflow.base_dir = str(folder / "work")
    for section in ("hash_method", "content"), ("poll_sleep_duration", "0.05"):
        workflow.config["execution"][section[0]] = section[1]
    return workflow


def unset_inputs(workflow) -> list[str]:
    """Mandatory inputs of nodes that are neither set nor connected to something that is."""
    flat = workflow._create_flat_graph()
    fed = {}
    for source, target, data in flat.edges(data=True):
        for output, field in data["connect"]:
            fed[target, field] = (source, output if isinstance(output, str) else output[0])

    def has_value(node, field) -> bool:
        if isdefined(getattr(node.inputs, field, None)):
            return True
        if (node, field) not in fed:
            return False
        source, output = fed[node, field]
        identity = type(source.interface).__name__ == "IdentityInterface"
        return has_value(source, output) if identity else True

    return [
        f"{node.fullname}.{field}"
        for node in flat.nodes()
        for field in node.inputs.copyable_trait_names()
        if node.inputs.trait(field).mandatory and not has_value(node, field)
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"background": "none", "inversion": "single-step"},
        {"phase_offset": "mcpc-3d-s", "bipolar": True, "echo_fit": "linear"},
        {"unwrap": "laplacian", "background": "pdf", "inversion": "medi", "random_seed": 3},
        {"mask_quality": "on", "mask_params": {"max_noise": 3.0}},
        {"maps": True},
        {"coverage_sweep": ("slab:8", "erosion:4"), "reference": ("CN",)},
        {"coverage_sweep": ("erosion:4",), "background": "pdf", "noise_repeats": 0},
    ],
)
def test_every_mandatory_input_is_connected_or_set(data, tmp_path, changes):
    assert unset_inputs(graph(data, tmp_path, **changes)) == []


def test_every_mandatory_input_of_the_other_graphs(data, tmp_path):
    study = Study(slabs=(92, 116), erosions=(0,))
    assert unset_inputs(init_study_wf(study=study)) == []
    stem = data["maps"] / "sub-01" / "anat" / "sub-01"
    cohort = init_cohort_wf(
        space="other",
        chimaps=[f"{stem}_Chimap.nii.gz"],
        masks=[f"{stem}_desc-brain_mask.nii.gz"],
        participants=["01"],
        output_dir=tmp_path,
        shape=tiny.SHAPE,
    )
    assert unset_inputs(cohort) == []


def test_the_check_of_inputs_can_fail():
    missing = unset_inputs(
        init_reconstruction_wf(shape=(4, 4, 4), echo_times=(0.01,), imaging_frequency=1e8)
    )
    assert "reconstruction_wf.field_wf.load_echoes.magnitude" in missing


@pytest.mark.parametrize("background", methods.BACKGROUND)
@pytest.mark.parametrize("inversion", methods.INVERSION)
def test_all_methods_can_be_built_and_cited(background, inversion):
    workflow = init_reconstruction_wf(
        shape=(128, 128, 64),
        echo_times=(0.004, 0.008),
        imaging_frequency=1.2e8,
        background=background,
        inversion=inversion,
        omp_nthreads=2,
    )
    assert sentence("inversion", inversion) in " ".join(workflow.methods_text())
    assert reference("inversion", inversion).split("doi:")[1].startswith("10.")
    invert = workflow.get_node("inversion_wf.inversion")
    assert invert.n_procs == invert.inputs.num_threads == 2
    assert invert.mem_gb > 0.4


def test_every_method_is_in_the_bibliography():
    tables = {
        "unwrap": methods.UNWRAP,
        "background": methods.BACKGROUND,
        "inversion": methods.INVERSION,
        "echo_fit": methods.ECHO_FIT,
        "mask": methods.MASK,
    }
    for step, names in tables.items():
        for name in names:
            assert sentence(step, name).endswith(".")


EXPECTED = [
    "anat/sub-01_atlas-mine_desc-differential_Chimap.json",
    "anat/sub-01_atlas-mine_desc-differential_Chimap.tsv",
    "anat/sub-01_atlas-mine_desc-roi_Chimap.json",
    "anat/sub-01_atlas-mine_desc-roi_Chimap.tsv",
    "anat/sub-01_atlas-mine_dseg.json",
    "anat/sub-01_atlas-mine_dseg.nii.gz",
    "anat/sub-01_atlas-mine_dseg.tsv",
    "anat/sub-01_desc-brain_mask.json",
    "anat/sub-01_desc-brain_mask.nii.gz",
    "anat/sub-01_desc-confidence_mask.json",
    "anat/sub-01_desc-confidence_mask.nii.gz",
    "anat/sub-01_desc-unreferenced_Chimap.json",
    "anat/sub-01_desc-unreferenced_Chimap.nii.gz",
    "fmap/sub-01_desc-local_fieldmap.json",
    "fmap/sub-01_desc-local_fieldmap.nii.gz",
    "fmap/sub-01_desc-total_fieldmap.json",
    "fmap/sub-01_desc-total_fieldmap.nii.gz",
    "fmap/sub-01_magnitude.json",
    "fmap/sub-01_magnitude.nii.gz",
]


def tree(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A graph that has run."""
    folder = tmp_path_factory.mktemp("finished")
    workflow = graph(data, folder)
    workflow.run(plugin="Linear")
    return folder


def test_files_written(finished):
    assert tree(finished / "out" / "sub-01") == EXPECTED


def test_multiproc_writes_the_same(data, finished, tmp_path):
    # The tests have used numba's threads, which a forked process does not survive.
    args = {"n_procs": 2, "mp_context": "forkserver"}
    graph(data, tmp_path).run(plugin="MultiProc", plugin_args=args)
    for name in EXPECTED:
        first = (finished / "out" / "sub-01" / name).read_bytes()
        assert (tmp_path / "out" / "sub-01" / name).read_bytes() == first, name


def test_second_run_does_no_work(data, finished):
    def times(folder, pattern):
        return {p: p.stat().st_mtime_ns for p in (finished / folder).rglob(pattern)}

    results, written = times("work", "result_*.pklz"), times("out", "*")
    graph(data, finished).run(plugin="Linear")
    again = times("work", "result_*.pklz")
    worked = {p.parent.name for p, when in again.items() if results[p] != when}
    # Sinks look whether their file is there, and leave it as it is.
    assert all(name.startswith("save_") for name in worked)
    assert times("out", "*") == written


def test_lost_results_come_back_from_the_work_folder(data, finished):
    lost = finished / "out/sub-01/anat/sub-01_desc-unreferenced_Chimap.nii.gz"
    before = lost.read_bytes()
    inversion = next((finished / "work").rglob("result_inversion.pklz")).stat().st_mtime_ns
    lost.write_bytes(before[:100])
    graph(data, finished).run(plugin="Linear")
    assert lost.read_bytes() == before
    assert next((finished / "work").rglob("result_inversion.pklz")).stat().st_mtime_ns == inversion


def test_sidecar_of_the_map(data, finished):
    sidecar = json.loads(
        (finished / "out/sub-01/anat/sub-01_desc-unreferenced_Chimap.json").read_text()
    )
    assert sidecar["SkullStripped"] is True
    assert sidecar["Units"] == "ppm"
    assert sidecar["EchoTime"] == pytest.approx(tiny.ECHO_TIMES)
    assert sidecar["B0Direction"] == [0, 0, 1]
    assert sidecar["MagneticFieldStrength"] == pytest.approx(3)
    assert sidecar["Sources"][0].startswith("bids:raw:sub-01/anat/")
    assert "10.1002/mrm.23000" in sidecar["EstimationReference"]
    steps = sidecar["Processing"]
    assert steps["BackgroundRemoval"]["method"] == "v-sharp"
    assert steps["Inversion"]["threshold"] == method_parameters("inversion", "tkd")["threshold"]
    assert steps["BrainMask"]["method"] == "derivative"
    statistics = sidecar["ReferenceStatistics"]
    mask = np.asarray(
        nib.load(finished / "out/sub-01/anat/sub-01_desc-brain_mask.nii.gz").dataobj, bool
    )
    chi = images.load(finished / "out/sub-01/anat/sub-01_desc-unreferenced_Chimap.nii.gz")[0]
    assert not chi[~mask].any()
    assert statistics["brain"]["mean_in_map"] == pytest.approx(1000 * chi[mask].mean(), abs=1e-3)
    labels = tiny.head()[1]
    inside = (labels == 2) & mask
    expected = 1000 * (chi[inside].mean() - chi[mask].mean())
    assert statistics["atlas-mine"]["CN"]["mean"] == pytest.approx(expected, abs=1e-2)


def test_map_and_table_are_near_the_truth(finished):
    table = pd.read_csv(
        finished / "out/sub-01/anat/sub-01_atlas-mine_desc-differential_Chimap.tsv", sep="\t"
    )
    pair = table[(table.region == "SN_L") & (table.reference == "CN")].iloc[0]
    # TKD underestimates; sign and size must be right.
    assert 25 < pair.difference < 60
    assert pair.distance_mm == pytest.approx(28)


def test_units_of_the_fields(finished):
    total, _ = images.load(finished / "out/sub-01/fmap/sub-01_desc-total_fieldmap.nii.gz")
    sidecar = json.loads((finished / "out/sub-01/fmap/sub-01_desc-total_fieldmap.json").read_text())
    assert sidecar["Units"] == "Hz"
    from qsmref.reconstruction.dipole import GAMMA_HZ_PER_T, forward_field

    mask, _ = tiny.head()
    truth = forward_field(tiny.susceptibility(), (4, 4, 4)) * GAMMA_HZ_PER_T * 3 * 1e-6
    assert np.corrcoef(total[mask], truth[mask])[0, 1] > 0.95
    assert np.std(total[mask]) == pytest.approx(np.std(truth[mask]), rel=0.1)


def test_sign_of_the_phase_turns_the_map(data, finished, tmp_path):
    graph(data, tmp_path, phase_sign=-1).run(plugin="Linear")
    name = "out/sub-01/anat/sub-01_desc-unreferenced_Chimap.nii.gz"
    np.testing.assert_allclose(
        images.load(tmp_path / name)[0], -images.load(finished / name)[0], atol=2e-3
    )


def test_tables_of_maps_that_others_made(data, tmp_path):
    graph(data, tmp_path, maps=True).run(plugin="Linear")
    out = tmp_path / "out" / "sub-01"
    assert not (out / "fmap").exists()
    table = pd.read_csv(out / "anat/sub-01_atlas-mine_desc-roi_Chimap.tsv", sep="\t")
    chi, _ = images.load(data["maps"] / "sub-01/anat/sub-01_Chimap.nii.gz")
    mask, labels = tiny.head()
    for label, name in tiny.NAMES.items():
        by_hand = 1000 * chi[(labels == label) & mask].mean(dtype=float)
        row = table.set_index("name").loc[name]
        assert row["mean"] == pytest.approx(by_hand, rel=1e-5)
    sidecar = json.loads((out / "anat/sub-01_desc-imported_Chimap.json").read_text())
    assert sidecar["SkullStripped"] is True
    assert sidecar["SusceptibilityReference"] == "unknown"
    assert sidecar["Sources"][0] == "bids:mine:sub-01/anat/sub-01_Chimap.nii.gz"


def test_the_sidecar_of_a_map_given_again_tells_of_the_map_and_not_of_the_run_that_made_it(data):
    (run,), _ = discover(data["bids"], Query(derivatives={"mine": data["maps"]}, maps="mine"))
    before = {
        "Processing": {"Inversion": {"method": "medi"}},
        "EchoTime": [0.004, 0.008],
        "Software": {"qsmref": "0.0.1"},
        "Registration": {"Through": "an image of that run"},
        "ReferenceStatistics": {"brain": {"mean": 1.0}},
        "Warnings": ["of that run"],
        "Sources": ["bids:raw:sub-01/anat/sub-01_MEGRE.nii.gz"],
    }
    object.__setattr__(run, "metadata", before)
    sidecar = imported(run)
    assert sidecar["Processing"] == before["Processing"] and sidecar["EchoTime"] == [0.004, 0.008]
    assert sidecar["MapSoftware"] == {"qsmref": "0.0.1"} and "Software" not in sidecar
    assert not {"Registration", "ReferenceStatistics"} & set(sidecar)
    assert sidecar["Warnings"] == list(run.warnings)
    assert sidecar["Sources"][0] == "bids:mine:sub-01/anat/sub-01_Chimap.nii.gz"


@pytest.mark.parametrize(
    ("description", "told"),
    [
        (
            {"DatasetType": "derivative", "GeneratedBy": [{"Name": "QSMxT", "Version": "6.4"}]},
            ["QSMxT 6.4"],
        ),
        ({"DatasetType": "derivative", "GeneratedBy": [{"Name": "a"}, {"Version": 1}]}, ["a"]),
        ({"DatasetType": "derivative", "GeneratedBy": []}, None),
        # A raw dataset says who converted the images.
        ({"DatasetType": "raw", "GeneratedBy": [{"Name": "dcm2niix"}]}, None),
    ],
)
def test_the_sidecar_names_who_made_the_map(data, tmp_path, description, told):
    maps = shutil.copytree(data["maps"], tmp_path / "maps")
    tiny.edit_json(maps / "dataset_description.json", **description)
    (run,), _ = discover(data["bids"], Query(derivatives={"mine": maps}, maps="mine"))
    assert imported(run).get("MapGeneratedBy") == told


def test_references_that_are_asked_for(data, tmp_path):
    graph(data, tmp_path, maps=True, references=["CSF"]).run(plugin="Linear")
    path = tmp_path / "out/sub-01/anat/sub-01_atlas-mine_desc-differential_Chimap.tsv"
    table = pd.read_csv(path, sep="\t")
    assert "CSF" not in set(table.region)
    assert {"SN_L", "CN"} <= set(table[table.reference == "CSF"].region)


def test_without_atlas_there_is_a_map_all_the_same(data, tmp_path):
    runs, _ = discover(data["bids"], Query())
    settings = Settings.from_preset(**FAST)
    workflow = init_subject_wf(subject="01", runs=runs, settings=settings, output_dir=tmp_path)
    assert unset_inputs(workflow) == []
    names = [name for name in workflow.list_node_names() if "save_" in name]
    assert any(name.endswith("save_chimap") for name in names)
    assert not any("tables" in name for name in names)


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "entities", "expected"),
    [
        (
            "sub-01_ses-a_acq-x_run-02",
            {"desc": "total", "suffix": "fieldmap"},
            "sub-01/ses-a/fmap/sub-01_ses-a_acq-x_run-02_desc-total_fieldmap.nii.gz",
        ),
        (
            "sub-01_rec-y",
            {"atlas": "A1", "desc": "roi", "suffix": "Chimap"},
            "sub-01/anat/sub-01_rec-y_atlas-A1_desc-roi_Chimap.tsv",
        ),
        (
            "sub-01",
            {"atlas": "A1", "suffix": "dseg", "extension": ".tsv"},
            "sub-01/anat/sub-01_atlas-A1_dseg.tsv",
        ),
    ],
)
def test_names_of_results(prefix, entities, expected):
    assert derivative_name(prefix, **entities) == expected


def test_no_entity_is_dropped_from_a_name():
    with pytest.raises(ValueError, match="no file name has all of these"):
        derivative_name("sub-01", desc="unreferenced", suffix="Chimap", atlas="A")


def test_mask_of_trusted_phase(data, tmp_path):
    """Voxels of pure noise at the surface are cut; the sidecar tells how many are left."""
    bids = tiny.make_dataset(tmp_path / "bids")
    mask, _ = tiny.head()
    rng = np.random.default_rng(3)
    for echo in range(1, len(tiny.ECHO_TIMES) + 1):
        stem = bids / "sub-01" / "anat" / f"sub-01_echo-{echo}_part-"
        for part, noise in (("mag", rng.rayleigh(size=(4, 26, 22))), ("phase", None)):
            array, image = images.load(f"{stem}{part}_MEGRE.nii.gz")
            array[:4] = rng.uniform(-np.pi, np.pi, (4, 26, 22)) if noise is None else noise
            images.save(array, f"{stem}{part}_MEGRE.nii.gz", image)
    workflow = graph({**data, "bids": bids}, tmp_path, mask_quality="on")
    workflow.run(plugin="Linear")
    folder = tmp_path / "out" / "sub-01" / "anat"
    node = next((tmp_path / "work").rglob("mask_quality"))
    kept = images.load(node / "mask.nii")[0] > 0
    sidecar = json.loads((folder / "sub-01_desc-unreferenced_Chimap.json").read_text())
    quality = sidecar["Processing"]["MaskQuality"]
    assert 0.5 < quality["kept_fraction"] < 1
    assert mask[:4].any()
    assert np.count_nonzero(kept[:4] & mask[:4]) < 0.2 * np.count_nonzero(mask[:4])
    assert np.count_nonzero(kept[5:]) > 0.85 * np.count_nonzero(mask[5:])


def test_regions_wf_has_a_docstring_with_its_ports():
    for builder in (init_reconstruction_wf, init_regions_wf, init_subject_wf):
        assert ".. workflow::" in builder.__doc__
        assert "Inputs\n" in builder.__doc__
        assert "Outputs\n" in builder.__doc__
