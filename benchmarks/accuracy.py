"""How right the maps are: every chain on every head, and what small sources at the rim keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from qsmref.reconstruction import forward_field
from qsmref.reconstruction.fft import threads

from . import heads
from .chains import CHAINS, ORACLES, Chain, Clock, Measured, measure, oracle_field, reconstruct
from .report import table
from .score import score

TITLE = "Accuracy"

#: Chains that need minutes; they run on the heads at 1.5 mm only.
SLOW = ("total-field",)

_HEADER = (
    "chain", "kept %", "NRMSE %", "slope", "offset ppb", "pair mean ppb", "pair max ppb",
    "CPU s: fit", "unwrap", "background", "inversion", "FFT pairs",
)  # fmt: skip

#: ppm, mm, mm: a small source, and the depth that is the rim.
SOURCE_PPM, SOURCE_MM, RIM_MM = 0.1, 2.5, 2.0
#: Part of the magnitude that a source takes away where it is to be seen.
DARKER = 0.3


class Measurements:
    """Total fields of one head, each way of fit and unwrapping done once."""

    def __init__(self, case: heads.Case):
        self.case = case
        self._done: dict[tuple[str, str], tuple[Measured, Clock]] = {}

    def of(self, chain: Chain) -> tuple[Measured, Clock]:
        key = chain.echo_fit, chain.unwrap
        if key not in self._done:
            clock = Clock()
            self._done[key] = measure(chain, self.case, clock), clock
        return self._done[key]


def run(options) -> str:
    """The section's text."""
    parts = [
        "Raw phase to map, the true brain mask given. *Kept* is the part of the mask that the map "
        "covers; NRMSE (less the mean) and slope are over it; the errors are of the differences "
        "between all pairs of seven nuclei. The last rows have the true local field, so that only "
        "the inversion errs; *measured minus true background* keeps the errors of the echo fit.",
    ]
    for name in options.heads_of(heads.ACCURACY):
        text = heads.HEADS[name][0]
        try:
            case = heads.get(name, options.sources)
        except heads.Unavailable as reason:
            parts.append(f"### {name}: {text}\n\nNot measured: {reason}.")
            continue
        with threads(options.threads):
            rows = list(_rows(case, options))
        parts.append(f"### {name}: {text}\n\n{table(_HEADER, rows)}")
        options.say(parts[-1])
    return "\n\n".join(parts)


def _rows(case: heads.Case, options) -> Iterator[Sequence[object]]:
    measurements = Measurements(case)
    for name, chain in {**CHAINS, **ORACLES}.items():
        if not options.wants(name) or (name in SLOW and max(case.voxel_size) > 1.5):
            continue
        measured, before = measurements.of(chain)
        if name in ORACLES:
            measured = oracle_field(name, case, measured)
        clock = Clock()
        result = reconstruct(chain, case, measured, clock)
        s = score(result.chi, result.mask, case)
        cost = {**before.cpu, **clock.cpu}
        yield (
            name, 100 * s["kept"], s["nrmse"], f"{s['slope']:.3f}", s["offset"], s["pair_mean"],
            s["pair_max"], cost["fit"], cost["unwrap"], cost["background"], cost["inversion"],
            result.ffts // 2,
        )  # fmt: skip


def run_rim(options) -> str:
    """Contrast that small sources within the outermost millimetres keep."""
    chains = [n for n in ("default", "thesis", "pdf, medi merit smv 5") if options.wants(n)]
    text = (
        f"Balls of {SOURCE_MM:g} mm radius and {SOURCE_PPM:g} ppm with their centres within "
        f"{RIM_MM:g} mm of the mask's edge, at least 12 mm apart; their field is added to the "
        f"phase. *Seen* balls are darker by {100 * DARKER:.0f} % in the magnitude, like iron; the "
        "others are not to be seen there. The contrast is the change of the map in the part of the "
        f"ball that lies within {RIM_MM:g} mm of the edge, less that in the shell around it, over "
        "the change of the truth. *Cut away* counts balls with no such voxel left in the map."
    )
    header = (
        "head", "chain", "in the magnitude", "sources", "cut away", "median %", "5th percentile %",
        "95th %",
    )  # fmt: skip
    rows = []
    notes = []
    for name in options.heads_of(("analytic-1.5", "analytic-1x1x2")):
        try:
            case = heads.get(name, options.sources)
        except heads.Unavailable as reason:
            notes.append(f"{name} not measured: {reason}.")
            continue
        chi, places = rim_sources(case)
        field = forward_field(chi, case.voxel_size, case.b0_dir)
        for chain, dark in itertools.product(chains, (DARKER, 0.0)):
            dimmed = case.magnitude * (1 - np.float32(dark) * (chi > 0)[..., None])
            plain = replace(case, magnitude=dimmed)
            with threads(options.threads):
                maps = [
                    reconstruct(CHAINS[chain], c, measure(CHAINS[chain], c, Clock()), Clock())
                    for c in (plain, plain.with_sources(chi, field))
                ]
            change = maps[1].chi - maps[0].chi
            found, lost = contrasts(change, chi, places, maps[1].mask, case)
            spread = [None] * 3
            if found.size:
                spread = [float(v) for v in np.percentile(100 * found, (50, 5, 95))]
            seen = "seen" if dark else "not seen"
            rows.append((name, chain, seen, len(places), lost, *spread))
            options.say(table(header, rows[-1:]))
    return "\n\n".join([text, table(header, rows), *notes])


def rim_sources(case: heads.Case, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Susceptibility (ppm) of balls at the rim, and their centres (voxels)."""
    depth = ndimage.distance_transform_edt(case.mask, sampling=case.voxel_size)
    candidates = np.argwhere((depth > 0) & (depth <= RIM_MM))
    size = np.asarray(case.voxel_size)
    chosen: list[np.ndarray] = []
    for place in np.random.default_rng(seed).permutation(candidates):
        if all(np.sum(((place - other) * size) ** 2) > 144 for other in chosen):
            chosen.append(place)
        if len(chosen) == 120:
            break
    empty = np.ones(case.mask.shape, bool)
    empty[tuple(np.transpose(chosen))] = False
    distance = ndimage.distance_transform_edt(empty, sampling=case.voxel_size)
    chi = np.where((distance <= SOURCE_MM) & case.mask, SOURCE_PPM, 0).astype(np.float32)
    return chi, np.array(chosen)


def contrasts(change, chi, places, kept, case: heads.Case) -> tuple[np.ndarray, int]:
    """Part of each ball's contrast that a map shows, and how many balls it has not."""
    depth = ndimage.distance_transform_edt(case.mask, sampling=case.voxel_size)
    reach = np.ceil((SOURCE_MM + 5) / np.asarray(case.voxel_size)).astype(int)
    found, lost = [], 0
    for place in places:
        window = tuple(slice(max(0, p - r), p + r + 1) for p, r in zip(place, reach, strict=True))
        inside = (chi[window] > 0) & kept[window]
        ball = inside & (depth[window] <= RIM_MM)
        distance = ndimage.distance_transform_edt(chi[window] == 0, sampling=case.voxel_size)
        shell = (distance > 1) & (distance <= 4) & kept[window]
        if not ball.any() or not shell.any():
            lost += 1
            continue
        found.append((change[window][ball].mean() - change[window][shell].mean()) / SOURCE_PPM)
    return np.array(found), lost
