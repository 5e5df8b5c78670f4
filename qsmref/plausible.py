"""Echoes, masks and fields that no head has: doubts about the input, as sentences.

Nothing here changes a map or refuses one. A scaling that was lost, an echo under another name or a
mistyped echo time leave a map that looks like any other; what can be seen of them is said.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from .analysis.regions import voxels_by_label
from .analysis.tables import listed

#: Part of the 98th percentile of the magnitude above which a voxel has signal.
_SIGNAL = 0.3
#: Part by which the magnitude may grow from one echo to the next; readouts in turn from both sides
#: differ by some per cent.
_GROWTH = 1.1
#: Part of the voxels of a brain mask that have signal.
_FILLED = 0.6
#: ml; that of a new-born has 300.
_SMALLEST_BRAIN = 50.0
#: 1/s; heads lie within this range from 0.05 T to 11.7 T.
R2STAR = (3.0, 200.0)
#: 1/s beyond three times the slowest decay, that one pair of echoes decays faster than the others.
_UNEVEN = 80.0
#: Part of a full turn that the phase of an image with noise spans.
_TURN = 0.9
#: Part of the voxels of one value, by which a phase that was masked is known.
_MASKED = 0.05
#: Median and upper quartile of the misfit of the echoes, as part of their energy, that noise and
#: iron do not make: .0003 and .0008 in vivo at 3 T.
MISFIT = (0.02, 0.04)
#: Different values of a magnitude; scanners store hundreds at the least.
_LEVELS = 128
#: ppm; standard deviation of the field in a brain, which is .1 in our phantom and less than 1 in
#: heads without a shim.
FIELD = (0.005, 1.0)
#: Part of a mask without signal.
_SILENT = 0.002
#: Part of a region that is exactly 0 in a map whose mask is not known.
_ZEROS = 0.01


def echo_doubts(
    magnitude: np.ndarray,
    phase: np.ndarray,
    echo_times: Sequence[float],
    misfit: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> list[str]:
    """Sentences about echoes that hardly belong together.

    Parameters
    ----------
    magnitude, phase : (x, y, z, echo) array
        Of a gradient-echo acquisition; phase in rad.
    echo_times : sequence of float
        s, increasing.
    misfit : (x, y, z) array, optional
        Part of the energy of the echoes that the fit of the field leaves over.
    mask : (x, y, z) bool array, optional
        Where the field was fitted.

    Returns
    -------
    list of str
        Without a full stop; empty when all is as expected.
    """
    combined = magnitude.sum(axis=-1)
    signal = combined > _SIGNAL * np.percentile(combined, 98)
    if not signal.any():
        return []
    levels = [float(np.median(magnitude[..., j][signal])) for j in range(magnitude.shape[-1])]
    doubts = _decay(levels, echo_times)
    doubts += _spans(phase)
    step = max(1, combined.size // 10_000)
    levels = min(
        np.unique(m).size
        for m in np.moveaxis(magnitude, -1, 0).reshape(-1, combined.size)[:, ::step]
    )
    if levels < _LEVELS:
        doubts.append(
            f"the magnitude has {levels} different values only: it may have been rounded when it "
            "was stored"
        )
    fitted = signal if mask is None else signal & mask
    if misfit is not None and fitted.any():
        typical, upper = np.percentile(misfit[fitted], [50, 75])
        if typical > MISFIT[0] or upper > MISFIT[1]:
            doubts.append(
                f"the echoes do not fit together ({100 * upper:.0f} % of their energy is left over "
                "in a quarter of the voxels): echo times, scaling or the order of the files may be "
                "wrong, or what alternating readouts add is left (see --bipolar)"
            )
    return doubts


def mask_doubts(mask: np.ndarray, magnitude: np.ndarray, voxel_size: Sequence[float]) -> list[str]:
    """Sentences about a mask that is hardly that of a brain in this image.

    Parameters
    ----------
    mask : (x, y, z) bool array
        Said to be the brain.
    magnitude : (x, y, z, echo) or (x, y, z) array
        Of the acquisition.
    voxel_size : (3,) float
        mm.

    Returns
    -------
    list of str
        Without a full stop; empty when all is as expected.
    """
    combined = magnitude.sum(axis=-1) if magnitude.ndim == 4 else magnitude
    signal = combined > _SIGNAL * np.percentile(combined, 98)
    inside = int(np.count_nonzero(mask))
    share = np.count_nonzero(mask & signal) / max(inside, 1)
    doubts = []
    if share < _FILLED:
        doubts.append(
            f"{100 * share:.0f} % of the mask's voxels have signal: it may be of another image, "
            "or its inverse"
        )
    volume = inside * float(np.prod(voxel_size)) / 1000
    if volume < _SMALLEST_BRAIN:
        doubts.append(f"the mask has {volume:.3g} ml, which is no brain")
    return doubts


def field_doubts(field: np.ndarray, mask: np.ndarray) -> list[str]:
    """Sentences about a field that no head has: the field strength or echo times may be wrong.

    Parameters
    ----------
    field : (x, y, z) array
        Total field, unwrapped, ppm.
    mask : (x, y, z) bool array
        Brain.
    """
    scatter = float(field[mask].std())
    if FIELD[0] <= scatter <= FIELD[1]:
        return []
    return [
        f"the field has a standard deviation of {scatter:.2g} ppm in the brain, which no head has: "
        "field strength or echo times may be wrong"
    ]


def _decay(levels: Sequence[float], echo_times: Sequence[float]) -> list[str]:
    doubts = []
    for j in range(1, len(levels)):
        if levels[j] > _GROWTH * levels[j - 1]:
            doubts.append(
                f"the magnitude grows from the echo at {1000 * echo_times[j - 1]:.4g} ms to that "
                f"at {1000 * echo_times[j]:.4g} ms ({levels[j - 1]:.4g} to {levels[j]:.4g}): the "
                "files may be mixed up, or scaled differently"
            )
    if not doubts and len(levels) > 2 and min(levels) > 0:
        rates = -np.diff(np.log(levels)) / np.diff(echo_times)
        if rates.max() > 3 * max(rates.min(), 0.0) + _UNEVEN:
            j = int(rates.argmax())
            doubts.append(
                f"the signal decays at {rates.max():.3g}/s between echoes {j + 1} and {j + 2}, and "
                f"at {rates.min():.3g}/s elsewhere: one of them may be scaled differently"
            )
    if not doubts and len(levels) > 1 and min(levels) > 0:
        rate = np.log(levels[0] / levels[-1]) / (echo_times[-1] - echo_times[0])
        if not R2STAR[0] <= rate <= R2STAR[1]:
            doubts.append(
                f"the signal decays with R2* = {rate:.3g}/s, which no head has: the echo times or "
                "the scaling of the magnitude may be wrong"
            )
    return doubts


def _spans(phase: np.ndarray) -> list[str]:
    spans = [float(np.ptp(phase[..., j])) / (2 * np.pi) for j in range(phase.shape[-1])]
    if max(spans) < _TURN:
        return [
            f"the phase spans {max(spans):.2f} of a full turn: its unit or range may not be what "
            "is said"
        ]
    # Noise outside the head spans all of it in every echo; masked, early echoes need not.
    masked = np.count_nonzero(phase[..., 0] == phase.flat[0]) > _MASKED * phase[..., 0].size
    for j, span in enumerate(spans):
        if span < _TURN and (not masked or max(spans[:j], default=0.0) > _TURN):
            return [
                f"the phase of echo {j + 1} spans {span:.2f} of a full turn, that of another one "
                "all of it: its scaling may be damaged"
            ]
    return []


def silence_doubts(silent: int, inside: int) -> list[str]:
    """A sentence on a mask of which a part has no signal.

    Parameters
    ----------
    silent, inside : int
        Voxels of the mask without signal, and all of its voxels.
    """
    if silent <= _SILENT * inside:
        return []
    return [
        f"{100 * silent / inside:.2g} % of the mask has no signal beside noise (air, bone, a "
        "bleeding, a calcification): there the map has no data of its own, and follows from the "
        "field around"
    ]


def zero_doubts(chi: np.ndarray, labels: np.ndarray, names: pd.DataFrame) -> list[str]:
    """A sentence on regions of which a part is exactly 0, as a map is outside of its mask.

    Parameters
    ----------
    chi : (x, y, z) array
        Susceptibility map of which no mask is known.
    labels : (x, y, z) int array
        Label of each voxel.
    names : DataFrame
        Columns ``index`` and ``name``.
    """
    by_label = dict(zip(names["index"].astype(int), names["name"], strict=True))
    flat = np.ravel(chi)
    parts = {
        by_label[label]: float(np.mean(flat[voxels] == 0))
        for label, voxels in voxels_by_label(labels).items()
        if label in by_label
    }
    shown = [f"{name} ({100 * part:.0f} %)" for name, part in parts.items() if part >= _ZEROS]
    if not shown:
        return []
    return [
        f"Without a brain mask, voxels that are exactly 0 count as tissue in {listed(shown, 5)}; "
        "give the mask of the map (desc-brain_mask)."
    ]
