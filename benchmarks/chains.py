"""Chains of steps from raw echoes to a map, as the workflows run them but without files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qsmref.reconstruction import fit_echoes, invert, remove_background, unwrap
from qsmref.reconstruction.checks import echo_spacing
from qsmref.settings import Settings
from qsmref.units import radians_per_ppm

from .heads import Case


@dataclass(frozen=True)
class Chain:
    """Methods of the steps, and parameters where they are not the methods' defaults."""

    echo_fit: str = "nonlinear"
    unwrap: str = "romeo"
    background: str = "none"
    background_params: dict[str, Any] = field(default_factory=dict)
    inversion: str = "single-step"
    inversion_params: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_preset(cls, preset: str) -> Chain:
        """What the command line does for ``--preset``."""
        settings = Settings.from_preset(preset)
        return cls(**{name: getattr(settings, name) for name in cls.__dataclass_fields__})


CHAINS = {
    "default": Chain.of_preset("default"),
    "thesis": Chain.of_preset("thesis"),
    "pdf, medi merit smv 5": Chain(
        background="pdf", inversion="medi", inversion_params={"merit": True, "smv_radius": 5.0}
    ),
    "single-step, spheres": Chain(
        echo_fit="anchored", inversion_params={"radii": [1.5, 4.0, 12.0]}
    ),
    "single-step, radius 5": Chain(inversion_params={"radii": [5.0]}),
    "pdf, tv": Chain(background="pdf", inversion="tv"),
    "resharp, tv": Chain(background="resharp", inversion="tv"),
    "lbv, tv": Chain(background="lbv", inversion="tv"),
    "v-sharp, tkd": Chain(background="v-sharp", inversion="tkd"),
    "total-field": Chain(inversion="total-field"),
}

#: With the true local field: what is left is the error of the inversion itself.
ORACLES = {
    "true local field, single-step": Chain(echo_fit="anchored"),
    "true local field, tv": Chain(echo_fit="anchored", inversion="tv"),
    "measured minus true background, single-step": Chain(echo_fit="anchored"),
    "measured minus true background, tv": Chain(echo_fit="anchored", inversion="tv"),
}


class Clock:
    """CPU and wall seconds of named parts."""

    def __init__(self):
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu
        self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall

    @property
    def total(self) -> float:
        return sum(self.cpu.values())


@dataclass(frozen=True)
class Measured:
    """Total field and its noise (ppm), and the combined magnitude."""

    total: np.ndarray
    noise: np.ndarray
    magnitude: np.ndarray


@dataclass(frozen=True)
class Map:
    """A map (ppm), where it is valid, and what it cost."""

    chi: np.ndarray
    mask: np.ndarray
    info: dict[str, Any]
    ffts: int


def radians(case: Case) -> float:
    return radians_per_ppm(echo_spacing(case.echo_times), case.imaging_frequency)


def measure(chain: Chain, case: Case, clock: Clock) -> Measured:
    """From the echoes to the total field."""
    with clock.part("combine"):
        magnitude = np.sqrt(np.einsum("xyze,xyze->xyz", case.magnitude, case.magnitude))
    with clock.part("fit"):
        fit = fit_echoes(
            case.magnitude,
            case.phase,
            case.echo_times,
            case.mask,
            method=chain.echo_fit,
            voxel_size=case.voxel_size,
        )
    with clock.part("unwrap"):
        phase = unwrap(
            fit.field, case.voxel_size, method=chain.unwrap, magnitude=magnitude, mask=case.mask
        )
    scale = np.float32(1 / radians(case))
    return Measured(phase * scale, fit.noise * scale, magnitude)


def reconstruct(
    chain: Chain,
    case: Case,
    measured: Measured,
    clock: Clock,
    mask: np.ndarray | None = None,
    **parameters: Any,
) -> Map:
    """From the total field to the map; `parameters` go to the inversion."""
    local, kept = measured.total, case.mask if mask is None else mask
    removal: dict[str, Any] = {}
    with clock.part("background"):
        if chain.background != "none":
            local, kept, removal = remove_background(
                local,
                kept,
                case.voxel_size,
                method=chain.background,
                b0_dir=case.b0_dir,
                noise=measured.noise,
                **chain.background_params,
            )
    with clock.part("inversion"):
        chi, kept, info = invert(
            local,
            kept,
            case.voxel_size,
            method=chain.inversion,
            b0_dir=case.b0_dir,
            magnitude=measured.magnitude,
            noise=measured.noise,
            radians_per_ppm=radians(case),
            **{**chain.inversion_params, **parameters},
        )
    return Map(chi, kept, info, info["fft_count"] + removal.get("fft_count", 0))


def oracle_field(name: str, case: Case, measured: Measured) -> Measured:
    """`measured` with the background taken away by what is known of it."""
    local = case.local
    if name.startswith("measured"):
        local = measured.total - (case.total - case.local)
        turn = 2 * np.pi / radians(case)
        # The common number of turns of the unwrapping is not known to the truth.
        local = local - turn * np.rint(np.median(local[case.mask]) / turn)
    return Measured(local.astype(np.float32), measured.noise, measured.magnitude)
