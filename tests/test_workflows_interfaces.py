"""The interfaces: load, call, save; errors that end as a sentence; parameters of the methods."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_bids as tiny
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    TraitedSpec,
    traits,
)
from nipype.utils.filemanip import hash_infile

from qsmref import images
from qsmref.interfaces import base
from qsmref.interfaces.base import PROBLEM_FILE, InputSpec, Interface, plain
from qsmref.interfaces.echoes import BrainMask, LoadEchoes
from qsmref.interfaces.fields import CheckSign
from qsmref.interfaces.outputs import SaveDerivative
from qsmref.problems import DataError
from qsmref.reconstruction import fft
from qsmref.reconstruction.parameters import (
    check_parameters,
    method_parameters,
    with_few_iterations,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Dataset, derivative with mask and labels, derivative with a map as well."""
    root = tmp_path_factory.mktemp("data")
    bids = tiny.make_dataset(root / "bids", ("01", "02"))
    regions = tiny.make_regions(root / "regions", ("01", "02"))
    maps = tiny.make_regions(root / "maps", ("01",), with_map=True)
    return {"bids": bids, "regions": regions, "maps": maps}


class _CountInput(InputSpec):
    fail = traits.Str(desc="what goes wrong")


class _CountOutput(TraitedSpec):
    threads = traits.Int()
    number = traits.Float()


class Count(Interface):
    """Tells the threads and a random number."""

    input_spec = _CountInput
    output_spec = _CountOutput

    def _compute(self, folder):
        if self.inputs.fail == "data":
            raise DataError("x.nii.gz is bad.")
        if self.inputs.fail == "value":
            raise ValueError("the mask is empty")
        if self.inputs.fail == "bug":
            raise ZeroDivisionError("oops")
        self._results["threads"] = fft.thread_count()
        self._results["number"] = float(np.random.random())  # noqa: NPY002


def test_threads_and_seed_reach_the_numerics(tmp_path):
    first = Count(num_threads=3, random_seed=5).run(cwd=tmp_path).outputs
    second = Count(num_threads=2, random_seed=5).run(cwd=tmp_path).outputs
    assert (first.threads, second.threads) == (3, 2)
    assert first.number == second.number
    assert fft.thread_count() == 1
    # Threads do not change a result, so they do not make it stale; the seed does.
    hashes = [
        Count(num_threads=n, random_seed=seed).inputs.get_hashval()[1]
        for n, seed in ((1, 5), (2, 5), (1, 6))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    ("fail", "error", "sentence", "code"),
    [
        ("data", DataError, "x.nii.gz is bad.", 65),
        ("value", ValueError, "the mask is empty.", 65),
        ("bug", ZeroDivisionError, "unexpected ZeroDivisionError: oops", 70),
    ],
)
def test_errors_leave_a_sentence(tmp_path, fail, error, sentence, code):
    with pytest.raises(error):
        Count(fail=fail).run(cwd=tmp_path)
    note = json.loads((tmp_path / PROBLEM_FILE).read_text())
    assert note == {"sentence": sentence, "code": code}
    Count().run(cwd=tmp_path)
    assert not (tmp_path / PROBLEM_FILE).exists()


def test_files_are_hashed_as_nipype_does_it_but_once(tmp_path, monkeypatch):
    class Spec(InputSpec):
        image = File()
        images = InputMultiObject(File())
        label = traits.Str()

    class Plain(BaseInterfaceInputSpec):
        image = File()
        images = InputMultiObject(File())
        label = traits.Str()

    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(path.name.encode() * 10_000)
    values = {"image": str(paths[0]), "images": [str(p) for p in paths], "label": "x"}
    read = []

    def counted(path, **options):
        read.append(path)
        return hash_infile(path, **options)

    monkeypatch.setattr(base, "hash_infile", counted)
    own = {"version", "num_threads"}

    def hashed(spec):
        listed, _ = spec(**values).get_hashval(hash_method="content")
        return [item for item in listed if item[0] not in own]

    assert hashed(Spec) == hashed(Plain)
    assert hashed(Spec) == hashed(Plain)
    assert sorted(read) == sorted(map(str, paths))
    before = Spec(**values).get_hashval(hash_method="content")[1]
    paths[1].write_bytes(b"c" * 10_000)
    assert hashed(Spec) == hashed(Plain)
    assert Spec(**values).get_hashval(hash_method="content")[1] != before


def test_echoes_with_bad_voxels_are_refused(data, tmp_path):
    source = data["bids"] / "sub-01" / "anat"
    magnitude = [source / f"sub-01_echo-{e}_part-mag_MEGRE.nii.gz" for e in (1, 2)]
    phase = [source / f"sub-01_echo-{e}_part-phase_MEGRE.nii.gz" for e in (1, 2)]
    array, image = images.load(phase[1])
    array[3, 3, 3] = np.nan
    phase[1] = images.save(array, tmp_path / phase[1].name, image)
    with pytest.raises(DataError, match="echo-2_part-phase_MEGRE.nii.gz has 1 voxels that are NaN"):
        LoadEchoes(magnitude=magnitude, phase=phase).run(cwd=tmp_path)


def test_mask_is_eroded_in_millimetres(data, tmp_path):
    result = BrainMask(
        magnitude=data["bids"] / "sub-01/anat/sub-01_echo-1_part-mag_MEGRE.nii.gz",
        mask_file=data["regions"] / "sub-01/anat/sub-01_desc-brain_mask.nii.gz",
        erosion=4.0,
    ).run(cwd=tmp_path)
    eroded, _ = images.load(result.outputs.mask)
    mask, _ = tiny.head()
    assert 0 < np.count_nonzero(eroded) < np.count_nonzero(mask)
    assert not eroded[~mask].any()
    info = json.loads(Path(result.outputs.info).read_text())
    assert info == {
        "method": "derivative",
        "erosion_mm": 4.0,
        "n_voxels": np.count_nonzero(eroded),
    }


def test_a_field_of_the_wrong_sign_is_doubted(tmp_path):
    from qsmref.reconstruction.dipole import forward_field

    grid = np.moveaxis(np.indices((32, 32, 32)), 0, -1) - 15.5
    head, brain = np.linalg.norm(grid, axis=-1) < 13, np.linalg.norm(grid, axis=-1) < 9
    sinus = np.linalg.norm(grid - (0, 11, 0), axis=-1) < 4
    air, brain = ~head | sinus, brain & ~sinus
    # Air all around: the same as tissue that is diamagnetic in nothing.
    field = forward_field(-9.4 * (~air).astype(np.float32), (4, 4, 4))
    place = np.diag([4.0, 4, 4, 1])
    files = {
        "magnitude": images.save((~air).astype(np.float32), tmp_path / "mag.nii", place),
        "mask": images.save(brain, tmp_path / "mask.nii", place),
    }
    for sign, doubted in ((1, False), (-1, True)):
        path = images.save(sign * field, tmp_path / f"field{sign}.nii", place)
        result = CheckSign(field=path, **files).run(cwd=tmp_path)
        info = json.loads(Path(result.outputs.info).read_text())
        assert ("warning" in info) == doubted
        assert np.sign(info["air_correlation"]) == sign


def test_results_are_only_written_when_they_differ(tmp_path):
    source = images.save(np.ones((4, 4, 4), np.float32), tmp_path / "a.nii", np.eye(4))
    (tmp_path / "info.json").write_text('{"a": 1}')

    def save():
        SaveDerivative(
            in_file=source,
            out_dir=tmp_path,
            out_name="sub-01/anat/sub-01_x.nii.gz",
            metadata={"Units": "ppm", "Bad": float("nan")},
            info_files=[tmp_path / "info.json"] * 2,
            info_names=["Processing.Step", "."],
        ).run(cwd=tmp_path)
        target = tmp_path / "sub-01/anat/sub-01_x.nii.gz"
        return target, target.stat().st_mtime_ns

    target, first = save()
    assert json.loads(target.with_name("sub-01_x.json").read_text()) == {
        "Units": "ppm",
        "Bad": None,
        "Processing": {"Step": {"a": 1}},
        "a": 1,
    }
    assert save()[1] == first
    images.save(np.zeros((4, 4, 4), np.float32), source, np.eye(4))
    assert save()[1] != first


def test_plain_refuses_what_json_cannot_hold():
    with pytest.raises(TypeError):
        plain({"a": object()})


# --- parameters ----------------------------------------------------------------------------------


def test_parameters_are_checked_against_the_method():
    check_parameters("background", "pdf", {"tolerance": 0.1, "max_iterations": 5})
    with pytest.raises(ValueError, match=r"no parameter 'tol'; it takes .*tolerance="):
        check_parameters("background", "pdf", {"tol": 0.1})
    check_parameters("inversion", "single-step", {"radii": (3.0,)})
    check_parameters("inversion", "single-step", {"radii": None})
    with pytest.raises(ValueError, match="radii is 3.0, where a list of numbers is expected"):
        check_parameters("inversion", "single-step", {"radii": 3.0})
    with pytest.raises(ValueError, match="max_iterations is 'many'"):
        check_parameters("background", "pdf", {"max_iterations": "many"})
    # A parameter that is found from the data by default is a number where it is given.
    check_parameters("inversion", "single-step", {"lambda_": None, "edge_fraction": 0.9})
    for value in ("x", True, (1.0,)):
        with pytest.raises(ValueError, match="lambda_ is .*, where a number is expected"):
            check_parameters("inversion", "single-step", {"lambda_": value})
    with pytest.raises(ValueError, match="iterations is None, where something like 60"):
        check_parameters("inversion", "single-step", {"iterations": None})


def test_sloppy_cuts_iterations_but_not_what_is_given():
    few = with_few_iterations("background", "pdf", {"tolerance": 0.5})
    assert few["max_iterations"] < method_parameters("background", "pdf")["max_iterations"]
    assert few["tolerance"] == 0.5
    assert with_few_iterations("background", "pdf", {"max_iterations": 9})["max_iterations"] == 9
