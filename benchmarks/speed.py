"""What iterations, chains and convergence cost, and how the cost grows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np

from qsmref.reconstruction import invert, remove_background
from qsmref.reconstruction.crop import bounding_box
from qsmref.reconstruction.fft import Transform, threads

from . import heads, textbook
from .chains import CHAINS, Clock, Measured, measure, radians, reconstruct
from .report import table
from .score import pairs, region_means, score

#: Iterations of the two runs whose difference is the cost of one.
FEW, MANY = 3, 9
#: Part of the pairs that run between the grid and the box of the mask (empty lines skipped): one
#: of the two of PDF and MEDI, that of the data term of the ADMM.
BOXED = {
    "PDF, conjugate gradients": 1 / 2,
    "MEDI, conjugate gradients": 1 / 2,
    "single-step, ADMM": 1 / 2,
    "tv, ADMM": 1 / 2,
}
SIDES = (64, 96, 128, 192, 256, 384)


def seconds(function: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median CPU and wall seconds of a call."""
    times = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        function()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = np.median(times, axis=0)
    return float(cpu), float(wall)


def iteration(run: Callable[[int], dict], repeats: int) -> tuple[float, float, float, list[int]]:
    """CPU and wall seconds and FFT pairs of one iteration, and the grid."""
    infos = {count: run(count) for count in (FEW, MANY)}  # compiles, too
    costs = {count: seconds(lambda c=count: run(c), repeats) for count in (FEW, MANY)}
    cpu, wall = ((costs[MANY][i] - costs[FEW][i]) / (MANY - FEW) for i in (0, 1))
    transforms = infos[MANY]["fft_count"] - infos[FEW]["fft_count"]
    return cpu, wall, transforms / 2 / (MANY - FEW), infos[MANY]["grid"]


def against_pairs(
    run: Callable[[int], dict], box, share: float, repeats: int
) -> tuple[np.ndarray, float, list[int]]:
    """An iteration and its FFT pairs, `share` of them on the box, timed in turn.

    Returns wall and CPU seconds of an iteration, wall seconds of its pairs, and the ratios of CPU
    time to those pairs and to pairs of the whole grid (medians; the ratios are of times taken next
    to each other); FFT pairs of an iteration; the grid.
    """
    rows = []
    for _ in range(repeats):
        cpu, wall, number, grid = iteration(run, 1)
        whole, part = pair(grid, grid, 5), pair(box, grid, 5)
        used = [number * ((1 - share) * a + share * b) for a, b in zip(whole, part, strict=True)]
        rows.append((wall, cpu, used[1], cpu / used[0], cpu / (number * whole[0])))
    return np.median(rows, axis=0), number, grid


def pair(shape, grid, repeats: int) -> tuple[float, float]:
    """CPU and wall seconds of one pair between arrays of `shape` and the spectrum of `grid`."""
    transform = Transform(shape, grid)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return seconds(lambda: transform.inverse(transform.forward(x)), repeats)


def run(options) -> str:
    """Iterations against their FFT pairs, and the default chain against the textbook's."""
    case = heads.get("speed-256x256x74", options.sources)
    chain = CHAINS["default"]
    with threads(options.threads):
        measured = measure(chain, case, Clock())
    methods = _iterations(case, measured)
    rows = []
    for count, (name, once) in itertools.product(options.thread_counts, methods.items()):
        with threads(count):
            cost, number, grid = against_pairs(
                once, case.mask[bounding_box(case.mask)].shape, BOXED[name], options.repeats
            )
        wall, cpu, pairs_wall, of_used, of_whole = cost
        rows.append(
            (name, _grid(grid), count, 1e3 * wall, 1e3 * cpu, number, 1e3 * pairs_wall, of_used,
             of_whole)
        )  # fmt: skip
        options.say(table(_ITERATIONS, rows[-1:]))
    chains = _chains(case, options)
    return "\n\n".join(
        [
            f"Head {case.name}: {heads.HEADS[case.name][0]}. Medians of {options.repeats}. *Of its "
            "pairs* is the CPU time of an iteration over that of the FFTs it makes (lines of zeros "
            "skipped), *of whole pairs* over as many FFT pairs of the whole grid.",
            table(_ITERATIONS, rows),
            "The chain from echoes to map, against `benchmarks/textbook.py` (NumPy, complex128, "
            "the whole image, one thread) on the same data:",
            table(_CHAINS, chains),
        ]
    )


_ITERATIONS = (
    "iteration", "grid", "threads", "wall ms", "CPU ms", "FFT pairs", "ms of these",
    "of its pairs", "of whole pairs",
)  # fmt: skip
_CHAINS = (
    "chain", "threads", "CPU s: fit", "unwrap", "background", "inversion", "all", "wall s",
    "pair mean ppb",
)  # fmt: skip


def _grid(grid) -> str:
    return " x ".join(str(n) for n in grid)


def _iterations(case: heads.Case, measured: Measured) -> dict[str, Callable[[int], dict]]:
    def removal(count):
        return remove_background(
            measured.total, case.mask, case.voxel_size, "pdf", b0_dir=case.b0_dir,
            noise=measured.noise, tolerance=0, max_iterations=count,
        )[2]  # fmt: skip

    def inversion(method, **parameters):
        return invert(
            measured.total, case.mask, case.voxel_size, method, b0_dir=case.b0_dir,
            magnitude=measured.magnitude, noise=measured.noise, radians_per_ppm=radians(case),
            **parameters,
        )[2]  # fmt: skip

    return {
        "PDF, conjugate gradients": removal,
        "MEDI, conjugate gradients": lambda n: inversion(
            "medi", max_iterations=1, cg_tolerance=0, cg_max_iterations=n
        ),
        "single-step, ADMM": lambda n: inversion("single-step", iterations=n),
        "tv, ADMM": lambda n: inversion("tv", iterations=n),
    }


def _chains(case: heads.Case, options) -> list[tuple]:
    rows = []
    for count in options.thread_counts:
        for name in ("default", "thesis"):
            clocks, result = [], None
            for _ in range(options.repeats):
                clock = Clock()
                with threads(count):
                    result = reconstruct(
                        CHAINS[name], case, measure(CHAINS[name], case, clock), clock
                    )
                clocks.append(clock)
            clock = sorted(clocks, key=lambda c: c.total)[len(clocks) // 2]
            s = score(result.chi, result.mask, case)
            rows.append(_chain_row(name, count, clock, s))
            options.say(table(_CHAINS, rows[-1:]))
    if options.textbook:
        clock = Clock()
        s = _textbook(case, clock)
        rows.append(_chain_row("textbook", 1, clock, s))
        cost = clock.total
        for row in rows[:-1]:
            options.say(f"{row[0]}, {row[1]} thread(s): textbook takes {cost / row[6]:.0f} times")
    return rows


def _chain_row(name, count, clock: Clock, s) -> tuple:
    parts = [clock.cpu[part] for part in ("fit", "unwrap", "background", "inversion")]
    return (name, count, *parts, clock.total, sum(clock.wall.values()), s["pair_mean"])


def _textbook(case: heads.Case, clock: Clock) -> dict[str, float]:
    with clock.part("combine"):
        magnitude = np.sqrt(np.sum(case.magnitude.astype(float) ** 2, axis=-1))
    with clock.part("fit"):
        field, noise = textbook.fit(
            case.magnitude.astype(float), case.phase.astype(float), case.echo_times
        )
    with clock.part("unwrap"):
        field = textbook.unwrap(field, case.voxel_size)
    with clock.part("background"):
        kernel = textbook.dipole(case.mask.shape, case.voxel_size, case.b0_dir)
        local = textbook.pdf(field * case.mask, case.mask, noise, kernel)
    with clock.part("inversion"):
        chi, _ = textbook.medi(local, case.mask, noise, magnitude, case.voxel_size, kernel)
    return score(chi / radians(case), case.mask, case)


def run_convergence(options) -> str:
    """How many FFT pairs settle the differences of regions."""
    counts = (20, 30, 40, 50, 60, 80, 120, 160, 240, 1000)
    chain = CHAINS["default"]
    rows = []
    notes = []
    for name in options.heads_of(("speed-256x256x74", "head128", "analytic-1.5", "labels-1.5")):
        try:
            case = heads.get(name, options.sources)
        except heads.Unavailable as reason:
            notes.append(f"{name} not measured: {reason}.")
            continue
        found = {}
        with threads(options.threads):
            measured = measure(chain, case, Clock())
            for count in counts:
                result = reconstruct(chain, case, measured, Clock(), iterations=count)
                means = region_means(result.chi, result.mask, case.regions)
                found[count] = result.ffts // 2, pairs(means)
        last = found[counts[-1]][1]
        for count in counts[:-1]:
            number, values = found[count]
            rows.append(
                (name, count, number, float(np.abs(values - last).mean()),
                 float(np.abs(values - last).max()))
            )  # fmt: skip
        options.say(table(_CONVERGENCE, rows[-len(counts) + 1 :]))
    return "\n\n".join(
        [
            f"The default inversion stopped after some iterations, against {counts[-1]}: change of "
            "the differences between all pairs of seven nuclei, ppb. FFT pairs are of the whole "
            "inversion.",
            table(_CONVERGENCE, rows),
            *notes,
        ]
    )


_CONVERGENCE = ("head", "iterations", "FFT pairs", "mean change ppb", "largest change ppb")


def run_scaling(options) -> str:
    """Cost of an iteration on cubes of growing side."""
    rows = []
    for side in SIDES:
        if side > options.largest:
            continue
        place = np.indices((side,) * 3, dtype=np.float32, sparse=True)
        mask = sum((c - (side - 1) / 2) ** 2 for c in place) <= (side / 2) ** 2
        rng = np.random.default_rng(0)
        field = np.where(mask, rng.standard_normal(mask.shape, dtype=np.float32), np.float32(0))

        def single(count, field=field, mask=mask):
            return invert(field, mask, (1, 1, 1), iterations=count, padding_mm=0)[2]

        def removal(count, field=field, mask=mask):
            return remove_background(
                field, mask, (1, 1, 1), tolerance=0, max_iterations=count, padding_mm=0
            )[2]

        with threads(options.threads):
            costs = [iteration(once, 1)[0] for once in (single, removal)]
        work = side**3 * np.log2(side**3)
        rows.append((side, *(v for c in costs for v in (1e3 * c, 1e9 * c / work))))
        options.say(table(_SCALING, rows[-1:]))
    return "\n\n".join(
        [
            "CPU time of one iteration on a cube of that side (a ball fills it, no padding). The "
            "columns in ns are over N log2 N, N the number of voxels: they stay level where the "
            "cost grows as N log N.",
            table(_SCALING, rows),
        ]
    )


_SCALING = ("side", "single-step ms", "ns / (N log2 N)", "PDF ms", "ns / (N log2 N)")
