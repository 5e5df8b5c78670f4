"""Peak memory of a chain, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from qsmref.reconstruction import inversion
from qsmref.reconstruction.fft import threads
from qsmref.reconstruction.grid import Grid

from . import heads
from .chains import CHAINS, Clock, measure, reconstruct
from .report import ROOT, table

TITLE = "Memory"

#: Room around the mask that PDF, MEDI and total variation take.
ROOM_MM = inversion.method_parameters("medi")["padding_mm"]


def run(options) -> str:
    """The section's text."""
    header = (
        "head", "chain", "grid of the inversion", "volume MiB", "echoes MiB", "before MiB",
        "fit and unwrap, volumes", "removal and inversion, volumes", "of the grid with 20 mm",
        "of the image", "peak GiB",
    )  # fmt: skip
    rows = []
    for name in options.heads_of(("speed-256x256x74", "memory-352x352x80")):
        heads.get(name, options.sources)  # into the cache
        for chain in ("default", "thesis"):
            if not options.wants(chain):
                continue
            command = [sys.executable, "-m", "benchmarks.memory"]
            command += [str(heads.cached(name, options.sources)), chain, str(options.threads)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            m = json.loads(done.stdout.splitlines()[-1])
            mebi, volume, before = 2**20, m["volume"], m["before"]
            rows.append(
                (name, chain, " x ".join(map(str, m["grid"])), volume / mebi, m["echoes"] / mebi,
                 before / mebi, (m["measured"] - before) / volume,
                 (m["inverted"] - before) / volume, (m["inverted"] - before) / m["roomy"],
                 (m["inverted"] - before) / m["image"],
                 max(m["measured"], m["inverted"]) / 2**30)
            )  # fmt: skip
            options.say(table(header, rows[-1:]))
    return "\n\n".join(
        [
            "Resident memory of a process that runs one chain: before it (interpreter, libraries, "
            "echoes) and at its peaks, the latter less the former in float32 volumes of the padded "
            "grid of the inversion. That grid is the box of the mask with a little room around it, "
            "and smaller than the image; *of the grid with 20 mm* counts the last peak in volumes "
            f"of the box with {ROOM_MM:g} mm at either side, the grid of the other inversions, and "
            "*of the image* in those of the image as it is, without padding.",
            table(header, rows),
        ]
    )


def _status(key: str) -> int:
    """A line of /proc/self/status, bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise OSError(f"/proc/self/status has no {key}: memory is measured on Linux only")


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _warm_up(case: heads.Case, chain) -> None:
    """Load and compile all that the chain needs, on a small part of the head."""
    centre = [int(np.median(i)) for i in np.nonzero(case.mask)]
    box = tuple(slice(c - 16, c + 16) for c in centre)
    part = replace(
        case,
        **{
            name: np.ascontiguousarray(getattr(case, name)[box])
            for name in ("magnitude", "phase", "mask", "regions")
        },
    )
    x, y, z = np.ogrid[-16:16, -16:16, -16:16]
    part = replace(part, mask=part.mask & (x**2 + y**2 + z**2 < 200))
    few = {"medi": {"max_iterations": 1}}.get(chain.inversion, {"iterations": 2})
    reconstruct(chain, part, measure(chain, part, Clock()), Clock(), **few)


def main(path: str, chain_name: str, count: str) -> None:
    case, chain = heads.Case.load(Path(path)), CHAINS[chain_name]
    # The truth is of no use here.
    nothing = np.zeros(0, np.float32)
    case = replace(case, chi=nothing, total=nothing, local=nothing)
    with threads(int(count)):
        _warm_up(case, chain)
        before = _status("VmRSS")
        _forget_peak()
        measured = measure(chain, case, Clock())
        after_fit = _status("VmHWM")
        _forget_peak()
        result = reconstruct(chain, case, measured, Clock())
        after_inversion = _status("VmHWM")
    print(
        json.dumps(
            {
                "grid": result.info["grid"],
                "volume": 4 * int(np.prod(result.info["grid"])),
                "roomy": 4 * int(np.prod(Grid(case.mask, case.voxel_size, ROOM_MM).grid)),
                "image": 4 * case.mask.size,
                "echoes": case.magnitude.nbytes + case.phase.nbytes,
                "before": before,
                "measured": after_fit,
                "inverted": after_inversion,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
