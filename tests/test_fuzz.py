"""Hostile input: refused in one sentence, or a map as it should be; never a traceback."""

from __future__ import annotations

import gzip
import json
import random
import warnings
from pathlib import Path

import fuzz_commands
import fuzz_harness
import fuzz_images
import fuzz_mutations
import nibabel as nib
import numpy as np
import pytest
import tiny_bids as tiny
from fuzz_values import broken_json, broken_table, hostile_value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qsmref import files, tables, voxels
from qsmref.acquisition import echo_times, imaging_frequency, phase_scale, sensible
from qsmref.analysis.names import label_names
from qsmref.headers import Grid
from qsmref.inputs import Query, discover
from qsmref.plausible import echo_doubts, field_doubts, mask_doubts
from qsmref.problems import DataError
from qsmref.settings import Settings

#: Inputs that once ended otherwise than they should, by mutation and seed.
KEPT = (
    ("swapped_pairs", 699642630),
    ("swapped_pairs", 774747711),
    ("swapped_echoes", 959191865),
    ("wrong_echoes", 100780963),
    ("sidecar_text", 817077201),
    ("extra_files", 334840295),
    ("wrong_regions", 47188817),
    ("wrong_echoes", 204153557),
    ("label_table_same", 918184377),
)
#: The same for commands.
KEPT_COMMANDS = (("description", 611178002), ("loops", 897395948), ("folders", 747144854))
_ANY = settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
_SEEDS = st.integers(0, 10**9)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    return fuzz_harness.Sandbox(tmp_path_factory.mktemp("fuzz"))


def kept_cases() -> list[fuzz_harness.Case]:
    return [fuzz_harness.Case("kept", getattr(fuzz_mutations, name), seed) for name, seed in KEPT]


def test_spoiled_participants(sandbox):
    cases = [*kept_cases(), *fuzz_harness.draw(36, seed=2026)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdicts = sandbox.judge(cases, quick=True)
    wrong = [f"{v.case}: {v.complaints} ({v.sentence})" for v in verdicts if v.complaints]
    assert not wrong, "\n".join(wrong)
    assert len(verdicts) == len(cases)
    # The harness is worth nothing when everything is refused, or nothing.
    outcomes = [v.outcome for v in verdicts]
    assert outcomes.count("refused") > 12
    assert outcomes.count("accepted") > 4
    assert outcomes.count("accepted with a warning") > 1


@pytest.mark.parametrize(("name", "seed"), [*KEPT_COMMANDS, ("maps", 1), ("settings", 5)])
def test_spoiled_commands(sandbox, name, seed):
    verdict = sandbox.command(getattr(fuzz_commands, name), seed)
    assert not verdict.complaints, verdict.sentence


def test_the_harness_sees_what_is_wrong(sandbox):
    """A changed map without a warning, a traceback, and a wrong last line are complained about."""
    told = fuzz_harness.common_complaints(1, "Traceback (most recent call last)\nqsmref: done", "")
    assert len(told) == 2
    reference = sandbox.reference() / "sub-clean" / "anat"
    path = reference / "sub-clean_desc-unreferenced_Chimap.nii.gz"
    content = path.read_bytes()
    copy = sandbox.folder / "copy"
    results = fuzz_harness.Results(copy)
    target = copy / "sub-clean" / "anat" / path.name
    target.parent.mkdir(parents=True)
    for other in reference.iterdir():
        (target.parent / other.name).write_bytes(other.read_bytes())
    assert results.difference("clean", reference) == ""
    fuzz_images.rewrite(target, lambda a: a * 1.1)
    assert "differs by" in results.difference("clean", reference)
    assert path.read_bytes() == content


# --- one reader at a time, with Hypothesis --------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return tiny.make_dataset(tmp_path_factory.mktemp("raw") / "bids")


@pytest.fixture(scope="module")
def source(dataset):
    return discover(dataset, Query())[0][0].phase[0]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@_ANY
@given(value=_JSON | _SEEDS.map(lambda s: hostile_value(random.Random(s), 0.01)))
def test_values_of_sidecars(source, value):
    for make in (
        lambda: echo_times([(source, {"EchoTime": value})], [(source, {})]),
        lambda: imaging_frequency([(source, {"MagneticFieldStrength": value})]),
        lambda: imaging_frequency([(source, {"ImagingFrequency": value})]),
        lambda: phase_scale([(source, {"Units": value})], None, None),
    ):
        try:
            made = make()
        except DataError as error:
            assert 20 < len(str(error)) < 700
            assert str(error).isprintable()
        else:
            assert isinstance(value, int | float | str)
            assert made is not None
    kept, odd = sensible({"EchoTime": value, "Processing": value, "other": value})
    assert kept["other"] is value
    assert {*kept, *odd} == {"EchoTime", "Processing", "other"}


@_ANY
@given(seed=_SEEDS)
def test_texts_of_sidecars(tmp_path, seed):
    path = tmp_path / "x.json"
    path.write_bytes(broken_json(random.Random(seed), {"EchoTime": 0.005, "Units": "rad"}))
    try:
        content = files.read_json(path)
    except ValueError as error:
        assert str(error)
    else:
        json.dumps(content)


@_ANY
@given(seed=_SEEDS)
def test_tables_of_labels(tmp_path, seed):
    path = tmp_path / "x_dseg.tsv"
    text = "index\tname\themisphere\n1\tSN\tL\n2\tSN\tR\n3\tCSF\tn/a\n"
    path.write_bytes(broken_table(random.Random(seed), text))
    try:
        names = label_names(tables.read_label_table(path))
    except (DataError, ValueError) as error:
        assert 10 < len(str(error)) < 700
        return
    assert names["index"].dtype.kind == "i"
    assert names["name"].is_unique
    # What was read is what stands there, letter by letter.
    written = tables.write_tsv(tmp_path / "y_dseg.tsv", names[["index", "name"]])
    again = tables.read_label_table(written)
    assert list(again["name"]) == list(names["name"])


@_ANY
@given(seed=_SEEDS)
def test_tables_of_participants(tmp_path, seed):
    path = tmp_path / "participants.tsv"
    text = "participant_id\tgroup\tage\nsub-01\ta\t30\nsub-02\tb\t40\n"
    path.write_bytes(broken_table(random.Random(seed), text))
    try:
        table = tables.read_cells(path)
    except DataError as error:
        assert 10 < len(str(error)) < 700
    else:
        assert not table.isna().any().any()
        assert all(isinstance(cell, str) for row in table.to_numpy() for cell in row)


@_ANY
@given(content=st.dictionaries(st.sampled_from(fuzz_commands.OPTIONS), _JSON, max_size=2))
def test_values_of_settings(content):
    if "mask_params" in content:
        content["mask_params"] = {"x": content["mask_params"]}
    try:
        made = Settings.from_preset(**content)
    except (ValueError, TypeError) as error:
        # A name that is no option is the caller's mistake, and told as such.
        assert isinstance(error, ValueError), content
    else:
        assert Settings.from_toml(made.to_toml()) == made


@_ANY
@given(seed=_SEEDS)
def test_headers(tmp_path, seed):
    rng = random.Random(seed)
    path = tiny.write_image(tmp_path / "x.nii.gz", np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    spoil = [fuzz_images.header_field, fuzz_images.header_bytes, fuzz_images.header_noise]
    rng.choice(spoil)([path], rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            grid = Grid.of(path)
        except DataError as error:
            assert 20 < len(str(error)) < 700
            return
    assert len(grid.shape) == 3
    assert np.isfinite(grid.affine).all()
    assert np.prod(grid.shape) * 4 <= 1100 * path.stat().st_size


def test_bits_that_turned_over_in_a_packed_file(tmp_path):
    rng = np.random.default_rng(2)
    array = rng.integers(0, 2, (12, 12, 12)).astype(np.uint8)
    path = tiny.write_image(tmp_path / "x.nii.gz", array)
    assert np.array_equal(voxels.read(path), array)
    content = path.read_bytes()
    wrong = 0
    for at in range(150, len(content) - 1, 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(DataError, match="damaged or cut short"):
            voxels.read(path)
        wrong += 1
    assert wrong > 20


# --- what of the echoes is doubted ----------------------------------------------------------------


def echoes(times, r2star=20.0, ppm=0.3):
    """Magnitude and phase of a ball with a field that rises along one axis."""
    rng = np.random.default_rng(5)
    x = np.linspace(-1, 1, 24)
    ball = (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 < 0.7)[..., None]
    rate = 2 * np.pi * 127.7 * ppm * 6 * x[:, None, None, None]
    t = np.asarray(times)
    signal = np.where(ball, 100 * np.exp(-r2star * t), 0) * np.exp(1j * rate * t)
    signal = signal + rng.normal(size=signal.shape) + 1j * rng.normal(size=signal.shape)
    return np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32)


TIMES = (0.005, 0.010, 0.015)


def test_good_echoes_are_not_doubted():
    assert echo_doubts(*echoes(TIMES), TIMES, np.full((24, 24, 24), 0.001)) == []


def test_doubts():
    magnitude, phase = echoes(TIMES)
    assert "magnitude grows" in echo_doubts(magnitude[..., [1, 0, 2]], phase, TIMES)[0]
    assert "R2* = 2" in echo_doubts(magnitude, phase, [10 * t for t in TIMES])[0]
    assert "spans 0.50 of a full turn" in echo_doubts(magnitude, phase / 2, TIMES)[0]
    bright = magnitude * np.array([2, 1, 1], np.float32)
    assert "decays at 159/s between echoes 1 and 2" in echo_doubts(bright, phase, TIMES)[0]
    damaged = phase * np.array([1, 0.5, 1], np.float32)
    assert "the phase of echo 2 spans 0.50" in echo_doubts(magnitude, damaged, TIMES)[0]
    damaged = phase * np.array([0.5, 1, 1], np.float32)
    assert "the phase of echo 1 spans 0.50" in echo_doubts(magnitude, damaged, TIMES)[0]
    damaged[:8] = 0  # as if masked, with an early echo that has not come round yet
    assert "the phase of echo 1" not in " ".join(echo_doubts(magnitude, damaged, TIMES))
    misfit = np.full((24, 24, 24), 0.2)
    assert "4 different values" in echo_doubts(np.round(magnitude / 4), phase, TIMES)[0]
    assert "do not fit together (20 % of" in echo_doubts(magnitude, phase, TIMES, misfit)[0]


def test_fields_that_no_head_has():
    x = np.linspace(-1, 1, 1000)
    inside = np.abs(x) < 0.9
    assert field_doubts(x / 2, inside) == []
    assert "of 5.2 ppm in the brain" in field_doubts(10 * x, inside)[0]
    assert "of 0.0005" in field_doubts(0.001 * x, inside)[0]


def test_a_field_that_no_scanner_has(tmp_path):
    bids = tiny.make_dataset(tmp_path / "bids")
    for path in bids.rglob("*_MEGRE.json"):
        tiny.edit_json(path, MagneticFieldStrength=30.0)
    runs, problems = discover(bids, Query())
    assert not problems
    assert "a field of 30 T" in " ".join(runs[0].warnings)


def test_masks_of_other_images_are_doubted():
    magnitude, _ = echoes(TIMES)
    ball = magnitude[..., 0] > 50
    assert mask_doubts(ball, magnitude, (4, 4, 4)) == []
    assert "0 % of the mask's voxels have signal" in mask_doubts(~ball, magnitude, (4, 4, 4))[0]
    assert "26 % of" in mask_doubts(np.ones_like(ball), magnitude, (4, 4, 4))[0]
    small = np.zeros_like(ball)
    small[11:13, 11:13, 11:13] = True
    assert "0.512 ml, which is no brain" in mask_doubts(small, magnitude, (4, 4, 4))[0]


# --- orientation --------------------------------------------------------------------------------


@pytest.fixture
def turned(tmp_path):
    """Make an image with one affine as sform and another as qform."""

    def make(sform, scode, qform, qcode) -> Path:
        image = nib.Nifti1Image(np.ones((4, 4, 4), np.float32), sform)
        image.set_qform(qform, qcode)
        image.set_sform(sform, scode)
        nib.save(image, tmp_path / "x.nii.gz")
        return tmp_path / "x.nii.gz"

    return make


def test_forms_that_agree(turned):
    grid = Grid.of(turned(tiny.affine(20), 1, tiny.affine(20), 1))
    assert (grid.conflict, grid.doubt) == ("", "")
    # Another position is no other direction.
    moved = tiny.affine(20)
    moved[:3, 3] += 5
    assert Grid.of(turned(tiny.affine(20), 1, moved, 1)).conflict == ""


def test_forms_that_contradict_each_other(turned):
    grid = Grid.of(turned(tiny.affine(20), 1, tiny.affine(0), 1))
    assert "sform and qform disagree about the orientation (by 20.0 degrees)" in grid.conflict


def test_a_quaternion_that_is_none_is_told_with_its_cause(turned):
    path = turned(tiny.affine(20), 1, tiny.affine(20), 1)
    image = nib.load(path)
    data, header = np.asarray(image.dataobj), image.header.copy()
    header["quatern_b"], header["quatern_c"] = 2.0, 2.0
    # As it is stored: setting an affine would mend the quaternion.
    with gzip.open(path, "wb") as handle:
        handle.write(header.binaryblock + b"\0\0\0\0" + data.tobytes(order="F"))
    conflict = Grid.of(path).conflict
    assert "sform and qform disagree about the orientation (" in conflict and "()" not in conflict
    assert "degrees" not in conflict


def test_forms_that_are_not_there_or_of_a_template(turned):
    assert "no orientation in its header" in Grid.of(turned(tiny.affine(), 0, None, 0)).doubt
    assert "MNI space" in Grid.of(turned(tiny.affine(), 4, None, 0)).doubt
    assert Grid.of(turned(tiny.affine(), 4, tiny.affine(), 1)).doubt == ""


def test_conflicts_refuse_echoes_and_not_labels(tmp_path, turned):
    bids = tiny.make_dataset(tmp_path / "bids")
    regions = tiny.make_regions(tmp_path / "regions")
    fuzz_images.set_field(regions / "sub-01/anat/sub-01_dseg.nii.gz", "pixdim1", 2.0)
    query = Query(derivatives={"mine": regions})
    runs, problems = discover(bids, query)
    assert len(runs) == 1 and not problems
    path = bids / "sub-01/anat/sub-01_echo-2_part-mag_MEGRE.nii.gz"
    fuzz_images.set_field(path, "pixdim1", 2.0)
    runs, problems = discover(bids, query)
    assert not runs
    assert "its pixdim says voxels of 2 x 4 x 4 mm, its affine 4 x 4 x 4 mm" in problems[0].sentence
