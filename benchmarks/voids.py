"""What a ball without signal (a bleeding, a calcification) does to the map around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from qsmref.reconstruction import forward_field
from qsmref.reconstruction.fft import threads
from qsmref.reconstruction.noise import noise_level

from . import heads
from .chains import CHAINS, Clock, measure, reconstruct
from .report import table
from .score import score

TITLE = "Voids"

#: mm; the ball, and how near it comes to a nucleus.
RADIUS_MM, GAP_MM = 7.0, 2.0
#: ppm, of the ball beside the tissue that it replaces; none for the head as it is.
SOURCES_PPM = (None, 1.0, 3.0, -2.0)
_CHAINS = ("default", "pdf, tv", "pdf, medi merit smv 5")


def run(options) -> str:
    """The section's text."""
    text = (
        f"A ball of {RADIUS_MM:g} mm radius without any signal, {GAP_MM:g} mm beside a nucleus, of "
        "another susceptibility: its field is added to the phase around it, and its own voxels are "
        "noise. It stays in the mask. NRMSE (less the mean) is over the rest of the mask, and "
        "*around* over the shell of 5 mm around the ball."
    )
    header = (
        "head", "chain", "ball ppm", "NRMSE %", "around %", "pair mean ppb", "pair max ppb",
    )  # fmt: skip
    rows: list[tuple] = []
    notes = []
    for name in options.heads_of(("analytic-1.5", "labels-1x1x2")):
        try:
            case = heads.get(name, options.sources)
        except heads.Unavailable as reason:
            notes.append(f"{name} not measured: {reason}.")
            continue
        place = ball_of(case)
        near = ndimage.distance_transform_edt(~place, sampling=case.voxel_size) <= 5
        for source in SOURCES_PPM:
            changed = case if source is None else with_void(case, place, source)
            for chain in _CHAINS:
                if not options.wants(chain):
                    continue
                with threads(options.threads):
                    measured = measure(CHAINS[chain], changed, Clock())
                    found = reconstruct(CHAINS[chain], changed, measured, Clock())
                kept = found.mask & ~place
                s, shell = score(found.chi, kept, case), kept & near
                error = (found.chi - case.chi)[shell] - np.mean((found.chi - case.chi)[kept])
                around = 100 * np.sqrt(np.mean(error**2)) / np.std(case.chi[kept])
                shown = "none" if source is None else f"{source:+g}"
                rows.append(
                    (name, chain, shown, s["nrmse"], float(around), s["pair_mean"], s["pair_max"])
                )
                options.say(table(header, rows[-1:]))
    return "\n\n".join([text, table(header, rows), *notes])


def ball_of(case: heads.Case) -> np.ndarray:
    """Voxels of the ball: in the mask, as near to a nucleus as it may be, far from the rim."""
    size = case.voxel_size
    nuclei = ndimage.distance_transform_edt(case.regions == 0, sampling=size)
    depth = ndimage.distance_transform_edt(case.mask, sampling=size)
    room = np.where(depth > RADIUS_MM + 8, nuclei, np.inf)
    room[nuclei < RADIUS_MM + GAP_MM] = np.inf
    middle = np.unravel_index(np.argmin(room), room.shape)
    empty = np.ones(case.mask.shape, dtype=bool)
    empty[middle] = False
    return ndimage.distance_transform_edt(empty, sampling=size) <= RADIUS_MM


def with_void(case: heads.Case, ball: np.ndarray, source: float, seed: int = 0) -> heads.Case:
    """The head with this ball (ppm beside its tissue), whose voxels have noise and no signal."""
    chi = np.where(ball, np.float32(source), np.float32(0))
    field = forward_field(chi, case.voxel_size, case.b0_dir)
    changed = case.with_sources(chi, field)
    sigma = noise_level(case.magnitude, case.phase, case.echo_times, case.mask).sigma
    rng = np.random.default_rng(seed)
    shape = (int(ball.sum()), case.magnitude.shape[-1])
    noise = sigma * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    magnitude, phase = changed.magnitude.copy(), changed.phase.copy()
    magnitude[ball], phase[ball] = np.abs(noise), np.angle(noise)
    return replace(changed, magnitude=magnitude, phase=phase, chi=case.chi)
