"""Whether a difference of regions stays where it is when the mask's coverage changes."""

from __future__ import annotations

import numpy as np

from qsmref.reconstruction.fft import threads
from qsmref.reconstruction.mask import cut_slab, erode

from . import heads
from .chains import CHAINS, Clock, measure, reconstruct
from .report import table
from .score import region_means

TITLE = "Stability"

#: mm cut at either end of the slab (12 mm of slab less each), and mm eroded.
SLABS = (0.0, 6.0, 12.0)
EROSIONS = (0.0, 2.0, 4.0)
NEIGHBOURS = (("CN", "GP"), ("CN", "PU"), ("PU", "GP"), ("SN", "RN"))


def run(options) -> str:
    """The section's text."""
    names = [f"{a}-{b}" for a, b in NEIGHBOURS]
    header = ("head", "chain", "masks", "regions alone", *names, "all pairs", "worst pair")
    rows = []
    notes = []
    for name in options.heads_of(("analytic-1x1x2", "labels-1x1x2")):
        try:
            case = heads.get(name, options.sources)
        except heads.Unavailable as reason:
            notes.append(f"{name} not measured: {reason}.")
            continue
        sweeps = {
            "slabs": [cut_slab(case.mask, mm, case.voxel_size) for mm in SLABS],
            "erosions": [erode(case.mask, mm, case.voxel_size) for mm in EROSIONS],
        }
        for label in ("default", "thesis", "pdf, medi merit smv 5", "single-step, radius 5"):
            if options.wants(label):
                with threads(options.threads):
                    found = _sweep(CHAINS[label], case, sweeps)
                for sweep, values in found.items():
                    rows.append((name, label, sweep, *values))
                    options.say(table(header, rows[-1:]))
    text = (
        f"Standard deviation (ppb) over masks with {', '.join(f'{mm:g}' for mm in SLABS)} mm cut "
        f"off either end of the slab, and over masks eroded by "
        f"{', '.join(f'{mm:g}' for mm in EROSIONS)} mm; the field is measured once. Means are over "
        "the part of a region that every mask of the sweep covers, so that only the map changes. "
        "*All pairs*: root mean square over the pairs of seven nuclei. With three masks a standard "
        "deviation is itself uncertain by half."
    )
    return "\n\n".join([text, table(header, rows), *notes])


def _sweep(chain, case: heads.Case, sweeps) -> dict[str, list[float]]:
    measured = measure(chain, case, Clock())
    done = {}
    found = {}
    for sweep, masks in sweeps.items():
        maps = []
        for mask in masks:
            # The full mask is in both sweeps.
            key = mask.tobytes()
            if key not in done:
                done[key] = reconstruct(chain, case, measured, Clock(), mask)
            maps.append(done[key])
        common = np.logical_and.reduce([m.mask for m in maps])
        means = [region_means(m.chi, common, case.regions) for m in maps]
        regions = {name: np.array([m[name] for m in means]) for name in means[0]}
        regions = {name: values for name, values in regions.items() if np.isfinite(values).all()}
        single = _rms(values.std(ddof=1) for values in regions.values())
        pairs = {
            (a, b): float((regions[a] - regions[b]).std(ddof=1))
            for a in regions
            for b in regions
            if a < b
        }
        neighbours = [pairs.get((min(p), max(p))) for p in NEIGHBOURS]
        found[sweep] = [single, *neighbours, _rms(pairs.values()), max(pairs.values())]
    return found


def _rms(values) -> float:
    return float(np.sqrt(np.mean(np.square(list(values)))))
