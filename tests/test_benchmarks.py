"""The benchmarks measure what they say: scores, sections, and a textbook that computes the same."""

import sys
from pathlib import Path

import numpy as np
import pytest
from inversion_cases import ellipsoid, make_case

from qsmref.reconstruction import fit_echoes, invert, remove_background
from qsmref.reconstruction.dipole import dipole_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import accuracy, heads, report, textbook
from benchmarks.__main__ import SECTIONS, main
from benchmarks.chains import CHAINS, Clock, measure, radians, reconstruct
from benchmarks.score import pairs, region_means, score
from qsmref.reconstruction.inversion import RADIANS_PER_PPM

OBLIQUE = (0.3, -0.5, 0.8)
#: A box that the mask fills and the FFT likes: nothing is cropped or padded.
SHAPE, SIZE = (32, 30, 20), (1.0, 1.0, 2.0)


@pytest.fixture(scope="module")
def small():
    case = make_case(SHAPE, SIZE, OBLIQUE, dtype=np.float64)
    mask = ellipsoid(SHAPE, SIZE, (0, 0, 0), (16, 15, 20))
    noise = np.where(mask, 0.5 + np.random.default_rng(0).random(SHAPE), 0)
    magnitude = np.choose(case.labels, (1.0, 0.7, 0.8, 1.2)) * mask
    return case._replace(mask=mask, noise=noise, magnitude=magnitude)


@pytest.fixture(scope="module")
def head():
    """A tiny head with echoes."""
    shape, size, times = (24, 24, 24), (2.0, 2.0, 2.0), (0.004, 0.008, 0.012)
    case = make_case(shape, size)
    regions = np.zeros(shape, np.uint8)
    for index in range(len(heads.NUCLEI)):
        regions[6 + index : 7 + index, 10:14, 10:14] = 1 + index
    frequency = 127.7e6
    angle = 2 * np.pi * frequency * 1e-6 * case.total[..., None] * times
    signal = (case.magnitude + 0.01)[..., None] * np.exp(1j * (angle + 0.5))
    return heads.Case(
        "tiny", np.abs(signal).astype(np.float32), np.angle(signal).astype(np.float32), times,
        case.chi.astype(np.float32), case.total, case.local, case.mask, regions, size,
        (0.0, 0.0, 1.0), frequency,
    )  # fmt: skip


def test_textbook_kernel():
    ours = dipole_kernel((9, 7, 8), SIZE, (0, 0, 1), np.float64)
    assert np.abs(textbook.dipole((9, 7, 8), SIZE, (0, 0, 1))[:, :, :5] - ours).max() < 1e-14


def test_textbook_fit(head):
    field, noise = textbook.fit(head.magnitude, head.phase, head.echo_times)
    ours = fit_echoes(head.magnitude, head.phase, head.echo_times, head.mask, sigma=0.01)
    assert np.abs(np.angle(np.exp(1j * (field - ours.field))))[head.mask].max() < 1e-3
    # The textbook's noise is that of unit noise in the signal.
    assert np.allclose(0.01 * noise[head.mask], ours.noise[head.mask], rtol=1e-3)


def test_textbook_removal(small):
    kernel = textbook.dipole(SHAPE, SIZE, (0, 0, 1))
    local = textbook.pdf(small.total, small.mask, small.noise, kernel, iterations=8)
    ours, _, info = remove_background(
        small.total, small.mask, SIZE, noise=small.noise, tolerance=0, max_iterations=8,
        padding_mm=0,
    )  # fmt: skip
    assert info["grid"] == list(SHAPE)
    assert np.abs(local - ours).max() < 1e-8 * np.abs(ours).max()


def test_textbook_inversion(small):
    # B0 along z: of an oblique kernel the two have different views at the Nyquist frequency.
    kernel = textbook.dipole(SHAPE, SIZE, (0, 0, 1))
    field = small.local * small.mask
    chi, inner = textbook.medi(
        field * RADIANS_PER_PPM, small.mask, small.noise, small.magnitude, SIZE, kernel
    )
    ours, _, info = invert(
        field, small.mask, SIZE, "medi", magnitude=small.magnitude, noise=small.noise, padding_mm=0
    )
    assert info["grid"] == list(SHAPE)
    assert abs(info["cg_iterations"] - inner) <= 0.05 * inner
    assert np.abs(chi / RADIANS_PER_PPM - ours).max() < 1e-3 * np.abs(ours).max()


def test_textbook_unwrapping():
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 20, 16)), indexing="ij")
    phase = 6 * np.exp(-4 * (x**2 + y**2 + z**2))
    result = textbook.unwrap(np.angle(np.exp(1j * phase)), (1, 1, 1))
    error = (result - phase)[6:-6, 5:-5, 4:-4]
    assert error.std() < 0.03 * np.ptp(phase)


def test_score(head):
    perfect = score(head.chi + 0.5, head.mask, head)
    assert perfect["kept"] == 1
    assert perfect["nrmse"] == pytest.approx(0, abs=1e-4)
    assert perfect["slope"] == pytest.approx(1)
    assert perfect["offset"] == pytest.approx(500, rel=1e-5)
    assert perfect["pair_max"] < 1e-3
    half = head.mask.copy()
    half[:12] = False
    s = score(2 * head.chi, half, head)
    assert s["kept"] == pytest.approx(half.sum() / head.mask.sum())
    assert s["slope"] == pytest.approx(2)
    assert s["nrmse"] == pytest.approx(100)


def test_means_of_regions(head):
    means = region_means(head.regions.astype(float), head.mask, head.regions)
    assert list(means.values()) == pytest.approx([1e3 * k for k in range(1, 8)])
    assert len(pairs(means)) == 21
    without = region_means(head.chi, head.mask & (head.regions != 3), head.regions)
    assert np.isnan(without["GP"]) and np.isfinite(without["PU"])


def test_heads_are_kept_as_they_are(head, tmp_path):
    head.save(tmp_path / "tiny.npz")
    again = heads.Case.load(tmp_path / "tiny.npz")
    for name, value in vars(head).items():
        stored = getattr(again, name)
        assert type(stored) is type(value)
        assert np.array_equal(stored, value), name


def test_sources_are_added_to_the_phase(head):
    field = np.full(head.mask.shape, 0.05, np.float32)
    added = head.with_sources(np.zeros_like(field), field)
    turn = np.exp(1j * (added.phase - head.phase))
    angle = 2 * np.pi * 127.7 * 0.05 * np.array(head.echo_times)
    assert np.abs(turn - np.exp(1j * angle)).max() < 1e-5


def test_contrast_of_sources_at_the_rim(head):
    chi, places = accuracy.rim_sources(head)
    assert len(places) > 3
    assert (chi[tuple(places.T)] == np.float32(accuracy.SOURCE_PPM)).all()
    assert not chi[~head.mask].any()
    found, lost = accuracy.contrasts(0.5 * chi, chi, places, head.mask, head)
    assert found == pytest.approx(0.5)
    assert lost == 0
    _, lost = accuracy.contrasts(chi, chi, places, np.zeros_like(head.mask), head)
    assert lost == len(places)


@pytest.mark.parametrize("name", ["default", "thesis", "v-sharp, tkd"])
def test_chains(head, name):
    clock = Clock()
    few = {"default": {"iterations": 3}, "thesis": {"max_iterations": 1}}.get(name, {})
    result = reconstruct(CHAINS[name], head, measure(CHAINS[name], head, clock), clock, **few)
    assert result.chi.shape == head.mask.shape
    assert result.ffts >= result.info["fft_count"]
    assert set(clock.cpu) == {"combine", "fit", "unwrap", "background", "inversion"}
    assert radians(head) == pytest.approx(2 * np.pi * 0.004 * 127.7)


def test_a_head_that_cannot_be_had(tmp_path):
    with pytest.raises(heads.Unavailable, match="needs --shared"):
        heads.get("labels-1.5", heads.Sources(tmp_path))
    with pytest.raises(heads.Unavailable, match="QSMREF_BENCH_HEADS"):
        heads.get("head128", heads.Sources(tmp_path))


def test_sections_replace_themselves(tmp_path):
    path = tmp_path / "RESULTS.md"
    for title, text in (("A", "one"), ("B", "two"), ("A", "three")):
        report.write(path, title, text)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# Benchmarks")
    assert text.index("## A\n\nthree\n") < text.index("## B\n\ntwo\n")
    assert "one" not in text


def test_command_line(tmp_path, capsys):
    output = tmp_path / "RESULTS.md"
    assert main(["scaling", "--largest", "64", "--threads", "1", "--output", str(output)]) == 0
    text = output.read_text(encoding="utf-8")
    assert text.count("## ") == 1
    assert "| 64 |" in text
    assert "numba" in text
    with pytest.raises(SystemExit):
        main(["acuracy"])
    assert "there is no section acuracy" in capsys.readouterr().err
    assert set(SECTIONS) >= {"accuracy", "stability", "speed", "memory", "scaling"}
