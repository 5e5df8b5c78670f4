"""Multi-echo gradient-echo acquisition of a head: signal, phase, noise, and the truth behind them.

The complex signal of the fine points of :mod:`qsmref.phantom.fields` is averaged over each voxel:
with two or more points per axis a voxel has partial volume and dephases inside, as in a scanner.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..images import b0_direction
from ..reconstruction.dipole import GAMMA_HZ_PER_T
from .fields import (
    Fields,
    block_mean,
    check_field_parameters,
    make_fields,
    random_stream,
    texture_field,
)
from .grid import ParameterError, polynomial
from .head import Head, lookup
from .labels import LabelImage

#: Echo times (s) when none are given.
ECHO_TIMES = (0.004, 0.0096, 0.0152, 0.0208)

#: Mean magnitude of the brain at the first echo; the brightest voxels stay under 4095.
BRAIN_MAGNITUDE = 1000.0

#: Phase (rad) by which an echo of odd number and one of even number differ from their mean at the
#: two edges of the field of view along the readout, with ``bipolar``; opposite signs.
BIPOLAR_RADIANS = 1.5

#: T1-weighted spoiled gradient echo: repetition time (s) and flip angle (degrees).
T1W_REPETITION_TIME = 0.018
T1W_FLIP_ANGLE = 25.0


@dataclass(frozen=True)
class Protocol:
    """Parameters of the gradient-echo acquisition."""

    #: s, increasing.
    echo_times: tuple[float, ...] = ECHO_TIMES
    #: T.
    field_strength: float = 3.0
    #: s; None for the last echo time plus 15 ms, at least 35 ms.
    repetition_time: float | None = None
    #: Degrees.
    flip_angle: float = 15.0
    #: Mean magnitude of the brain at the first echo over the noise SD of the real part (and of the
    #: imaginary part); infinity for none.
    snr: float = 100.0
    #: Whether even echoes are read out backwards (axis x): adds a phase ramp of opposite sign.
    bipolar: bool = False
    #: Whether the receiver adds a smooth phase, the same for all echoes.
    phase_offset: bool = True
    #: Standard deviation of the smooth receive sensitivity, as a fraction.
    receive_bias: float = 0.1

    def __post_init__(self):
        times = tuple(float(t) for t in self.echo_times)
        object.__setattr__(self, "echo_times", times)
        increasing = all(a < b for a, b in itertools.pairwise(times))
        if not times or not increasing or times[0] <= 0 or not np.isfinite(times[-1]):
            raise ParameterError(f"Echo times must be positive and increasing (s), not {times}.")
        if times[-1] >= 0.5:
            raise ParameterError(
                f"An echo time of {times[-1]:g} s is no gradient echo's: give seconds, not ms."
            )
        if self.repetition_time is None:
            object.__setattr__(self, "repetition_time", round(max(0.035, times[-1] + 0.015), 6))
        if self.repetition_time <= times[-1]:
            raise ParameterError(
                f"The repetition time ({self.repetition_time:g} s) must be longer than the last "
                f"echo time ({times[-1]:g} s)."
            )
        if not self.field_strength > 0 or not np.isfinite(self.field_strength):
            raise ParameterError(f"B0 must be positive (T), not {self.field_strength}.")
        if not self.snr > 0:
            raise ParameterError(f"The SNR must be positive (inf for no noise), not {self.snr}.")
        if not 0 < self.flip_angle < 180:
            raise ParameterError(
                f"The flip angle must lie within 0 to 180 degrees, not {self.flip_angle}."
            )
        if not 0 <= self.receive_bias < 1:
            raise ParameterError(f"The receive bias must lie in 0 to 1, not {self.receive_bias}.")

    @property
    def imaging_frequency(self) -> float:
        """Proton frequency, MHz: also the number of Hz in a ppm of field."""
        return GAMMA_HZ_PER_T * self.field_strength * 1e-6


@dataclass(frozen=True)
class Acquisition:
    """A simulated acquisition and the truth behind it; arrays are (x, y, z) float32 or as said."""

    #: (x, y, z, echo), arbitrary scale.
    magnitude: np.ndarray
    #: (x, y, z, echo), rad in [-pi, pi]; a positive field makes it grow with the echo time.
    phase: np.ndarray
    #: T1-weighted magnitude on the same grid.
    t1w: np.ndarray
    #: Susceptibility relative to water, ppm; air is not masked.
    chi: np.ndarray
    #: Field of everything, shim included, ppm of B0.
    total_field_ppm: np.ndarray
    #: Field of the brain mask's own susceptibility, ppm of B0.
    local_field_ppm: np.ndarray
    #: bool.
    mask: np.ndarray
    #: int32, brain regions only.
    labels: np.ndarray
    #: (4, 4).
    affine: np.ndarray
    #: mm.
    voxel_size: tuple[float, float, float]
    #: B0 in voxel axes.
    b0_dir: tuple[float, float, float]
    protocol: Protocol


def simulate(
    head: Head | LabelImage,
    matrix: Sequence[int] | None = None,
    voxel_size: Sequence[float] | None = None,
    echo_times: Sequence[float] = ECHO_TIMES,
    *,
    supersample: int | Sequence[int] | None = None,
    oblique: float = 0.0,
    texture: float = 0.1,
    shim_order: int | None = 2,
    seed: int = 0,
    visit: int = 0,
    **protocol,
) -> Acquisition:
    """Simulate a multi-echo gradient-echo acquisition of a head.

    Parameters
    ----------
    head : Head or LabelImage
    matrix : (3,) int, optional
        Voxels; by default 128 cubed for a Head, and what covers a LabelImage.
    voxel_size : (3,) float, optional
        mm; by default 1.5 for a Head, and a LabelImage's own.
    echo_times : sequence of float
        s.
    supersample : int or (3,) int, optional
        Fine points per voxel and axis; by default one, or as many as a voxel has label voxels.
    oblique : float
        Degrees between the slice axis and B0 (see :meth:`Head.grid`).
    texture : float
        Smooth random variation of susceptibility inside each tissue, as a fraction (SD) of its
        susceptibility, and half of it for the proton density; none in fluid.
    shim_order : int or None
        Solid harmonics up to this order (0 to 2) are fitted to the total field over the brain and
        taken away; None leaves the field as it is.
    seed : int
        Of all random parts. The same arguments give the same arrays.
    visit : int
        Each visit has its own noise, receiver and phase offset; the head stays the same.
    **protocol
        Further fields of :class:`Protocol`: ``field_strength``, ``snr``, ``bipolar``, ...

    Returns
    -------
    Acquisition

    Raises
    ------
    ParameterError
        When a parameter is out of its range or the grid holds no brain.
    """
    parameters = Protocol(tuple(echo_times), **protocol)
    grid = head.grid(matrix, voxel_size, oblique)
    fields = make_fields(head, grid, supersample, texture, shim_order, seed)
    scan = int(np.random.SeedSequence([seed, visit]).generate_state(1)[0]) if visit else seed
    magnitude, phase = echo_signal(head, fields, parameters, texture, seed, scan)
    return Acquisition(
        magnitude,
        phase,
        t1_weighted(head, fields, parameters, texture, seed, scan),
        fields.chi,
        fields.total_ppm,
        fields.local_ppm,
        fields.mask,
        fields.labels,
        grid.affine,
        grid.voxel_size,
        b0_direction(grid.affine),
        parameters,
    )


def check_parameters(
    head: Head | LabelImage,
    matrix: Sequence[int] | None = None,
    voxel_size: Sequence[float] | None = None,
    echo_times: Sequence[float] = ECHO_TIMES,
    *,
    supersample: int | Sequence[int] | None = None,
    oblique: float = 0.0,
    texture: float = 0.1,
    shim_order: int | None = 2,
    **protocol,
) -> None:
    """Raise the ParameterError that :func:`simulate` would, without simulating anything.

    What only the computation shows (a field of view without brain) is not found here.
    """
    Protocol(tuple(echo_times), **protocol)
    grid = head.grid(matrix, voxel_size, oblique)
    check_field_parameters(head, grid, supersample, texture, shim_order)


def echo_signal(
    head: Head | LabelImage,
    fields: Fields,
    protocol: Protocol,
    texture: float = 0.0,
    seed: int = 0,
    scan_seed: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Magnitude and phase of every echo: spoiled gradient echo in the steady state.

    .. math:: S(TE) = M_0 \sin a \frac{1 - E_1}{1 - E_1 \cos a} e^{-TE / T_2^*}
              e^{i (\phi_0 + 2 \pi f_0 b TE)},  \qquad E_1 = e^{-TR / T_1}

    with the total field b (ppm) and the imaging frequency :math:`f_0` (MHz), averaged over the
    fine points of each voxel, plus complex Gaussian noise. T2* of the tissue table holds for 3 T
    and is scaled by 3 T over the field strength. A bipolar readout adds a phase ramp along x to
    echoes 1, 3, 5 and its opposite to echoes 2, 4, 6. Noise and receiver come from `scan_seed` (by
    default `seed`), the texture of the tissue from `seed`.

    Returns
    -------
    magnitude, phase : (x, y, z, echo) float32
        Arbitrary units; rad in [-pi, pi].
    """
    scan_seed = seed if scan_seed is None else scan_seed
    rng = random_stream(scan_seed, "noise")
    amplitude = _steady_state(
        head, fields, protocol.repetition_time, protocol.flip_angle, texture, seed
    )
    amplitude *= _sensitivity(fields, protocol.receive_bias, scan_seed)
    rate = lookup(head.regions, "t2star")
    rate = np.divide(
        protocol.field_strength / 3.0, rate, out=np.zeros_like(rate), where=rate > 0
    ).astype(np.float32)
    start = _offset(fields, scan_seed) if protocol.phase_offset else np.float32(0)
    ramp = np.linspace(-BIPOLAR_RADIANS, BIPOLAR_RADIANS, fields.fine_labels.shape[0])
    ramp = ramp.astype(np.float32)[:, None, None] * np.float32(protocol.bipolar)
    shape = (*fields.grid.shape, len(protocol.echo_times))
    magnitude, phase = np.empty(shape, np.float32), np.empty(shape, np.float32)
    noise = scale = None
    for echo, time in enumerate(protocol.echo_times):
        radians = np.float32(2 * np.pi * protocol.imaging_frequency * time)
        angle = fields.fine_total_ppm * radians + start + ramp * (-1) ** echo
        decay = np.exp(-np.float32(time) * rate)[fields.fine_labels]
        signal = block_mean(_polar(amplitude * decay, angle), fields.factor)
        if scale is None:
            brain = float(np.abs(signal[fields.mask]).mean())
            if brain <= 0:
                raise ParameterError("The brain gives no signal at the first echo.")
            scale, noise = BRAIN_MAGNITUDE / brain, BRAIN_MAGNITUDE / protocol.snr
        signal *= np.float32(scale)
        signal += _noise(rng, signal.shape, noise)
        magnitude[..., echo] = np.abs(signal)
        phase[..., echo] = np.angle(signal)
    return magnitude, phase


def t1_weighted(
    head: Head | LabelImage,
    fields: Fields,
    protocol: Protocol,
    texture: float = 0.0,
    seed: int = 0,
    scan_seed: int | None = None,
) -> np.ndarray:
    """T1-weighted magnitude on the same grid: a short-TR spoiled gradient echo at TE = 0.

    It has the receive sensitivity of the echoes and their SNR; white matter is bright. Float32
    (x, y, z), arbitrary units.
    """
    scan_seed = seed if scan_seed is None else scan_seed
    signal = _steady_state(head, fields, T1W_REPETITION_TIME, T1W_FLIP_ANGLE, texture, seed)
    signal *= _sensitivity(fields, protocol.receive_bias, scan_seed)
    mean = block_mean(signal, fields.factor)
    mean *= np.float32(BRAIN_MAGNITUDE / float(mean[fields.mask].mean()))
    noise = _noise(random_stream(scan_seed, "t1w"), mean.shape, BRAIN_MAGNITUDE / protocol.snr)
    return np.abs(mean + noise)


def _steady_state(head, fields: Fields, tr: float, flip: float, texture: float, seed: int):
    """Spoiled gradient-echo amplitude of the fine points at TE = 0 (Ernst formula)."""
    m0, t1 = lookup(head.regions, "m0"), lookup(head.regions, "t1")
    angle = np.deg2rad(flip)
    e1 = np.exp(-tr / np.where(t1 > 0, t1, 1))
    amplitude = m0 * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))
    out = amplitude.astype(np.float32)[fields.fine_labels]
    if texture:
        axes = fields.grid.axes(fields.factor)
        textured = lookup(head.regions, "textured", bool)[fields.fine_labels]
        relief = 1 + np.float32(texture / 2) * texture_field(head, axes, seed, "m0 texture")
        out *= np.where(textured, np.clip(relief, 0, None), np.float32(1))
    return out


def _sensitivity(fields: Fields, bias: float, seed: int) -> np.ndarray:
    """Smooth receive sensitivity at the fine points, around one."""
    return np.exp(
        np.float32(bias) * _smooth_polynomial(fields, random_stream(seed, "receiver"), (1.0, 0.7))
    )


def _offset(fields: Fields, seed: int) -> np.ndarray:
    """Phase of the receiver at the fine points, rad: a constant, a ramp and a bowl."""
    rng = random_stream(seed, "offset")
    constant = np.float32(rng.uniform(-np.pi, np.pi))
    return constant + _smooth_polynomial(fields, rng, (1.5, 1.0))


def _smooth_polynomial(fields: Fields, rng: np.random.Generator, spread) -> np.ndarray:
    """Random polynomial of order two without constant; `spread` per 70 mm for order 1 and 2."""
    axes = fields.grid.axes(fields.factor)
    axes = [(a - c) / 70.0 for a, c in zip(axes, fields.grid.centre, strict=True)]
    coefficients = {
        powers: spread[sum(powers) - 1] * rng.standard_normal()
        for powers in itertools.product(range(3), repeat=3)
        if 1 <= sum(powers) <= 2
    }
    return polynomial(axes, coefficients)


def _polar(amplitude: np.ndarray, angle: np.ndarray) -> np.ndarray:
    out = np.empty(angle.shape, dtype=np.complex64)
    np.multiply(amplitude, np.cos(angle), out=out.real)
    np.multiply(amplitude, np.sin(angle), out=out.imag)
    return out


def _noise(rng: np.random.Generator, shape, sigma: float) -> np.ndarray:
    """Complex Gaussian noise; `sigma` is the SD of the real and of the imaginary part."""
    out = np.empty(shape, dtype=np.complex64)
    out.real = rng.standard_normal(shape, dtype=np.float32)
    out.imag = rng.standard_normal(shape, dtype=np.float32)
    out *= np.float32(sigma)
    return out
