"""The phantom study: what is varied, and with which parameters.

A head of known susceptibility is reconstructed under three conditions and from masks of several
coverages; what is asked is which numbers stay still. Everything a study depends on is a field of
:class:`Study`, which goes into ``study.json``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..reconstruction.methods import BACKGROUND, INVERSION, TOTAL_FIELD
from ..reconstruction.parameters import check_parameters, method_parameters, with_few_iterations
from .acquisition import Protocol
from .grid import ParameterError, checked_matrix, checked_voxel_size

#: Echo times (s) of the patients' scans of the study that is repeated.
ECHO_TIMES = (0.0034, 0.0094, 0.0154, 0.0214)

#: What condition 1 and 2 ask of a removal: well below its default tolerance.
CONVERGED: dict[str, dict[str, Any]] = {
    "pdf": {"tolerance": 1e-3, "max_iterations": 300},
    "resharp": {"tolerance": 1e-4, "max_iterations": 500},
    "ismv": {"tolerance": 1e-4, "max_iterations": 1000},
    "lbv": {"tolerance": 1e-6},
    "harperella": {"tolerance": 1e-6, "max_iterations": 400},
}

#: Methods of each preset of the command line, as a chain.
PRESETS = {"default": "none+single-step", "thesis": "pdf+medi"}


@dataclass(frozen=True)
class Condition:
    """One of the three: how much background there is, and how well it is taken away."""

    name: str
    title: str
    #: Susceptibility of air, ppm; None for a head with nothing magnetic outside the brain.
    air_ppm: float | None
    #: Whether the background removal ends at a large tolerance.
    early: bool


@dataclass(frozen=True)
class Variant:
    """One mask: a slab of the brain, eroded."""

    slab_mm: float
    erosion_mm: float

    @property
    def name(self) -> str:
        return f"slab-{self.slab_mm:g}_erosion-{self.erosion_mm:g}".replace(".", "p")


@dataclass(frozen=True)
class Chain:
    """A background removal and an inversion, with parameters that are not their defaults."""

    background: str
    inversion: str
    background_params: tuple[tuple[str, Any], ...] = ()
    inversion_params: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Chain:
        """A chain written ``BACKGROUND[:KEY=VALUE,...]+INVERSION[:KEY=VALUE,...]``.

        Values are numbers, true, false, words, or numbers joined by ``/``.

        Raises
        ------
        ParameterError
            An unknown method or parameter, or another form.

        Examples
        --------
        >>> Chain.parse("none+single-step:radii=3/12,iterations=300").name
        'none+single-step:radii=3/12,iterations=300'
        """
        first, plus, second = text.partition("+")
        if not plus or "+" in second:
            raise ParameterError(f"{text!r} is not BACKGROUND+INVERSION, as in pdf+medi.")
        parts = []
        for step, part, choices in (
            ("background", first, BACKGROUND),
            ("inversion", second, INVERSION),
        ):
            method, _, listed = part.partition(":")
            if method not in choices:
                raise ParameterError(f"There is no {step} {method!r}; {', '.join(choices)}.")
            given = dict(_parameter(item) for item in listed.split(",") if item)
            try:
                check_parameters(step, method, given)
            except ValueError as error:
                raise ParameterError(f"{text}: {error}.") from error
            parts.append((method, tuple(given.items())))
        return cls(parts[0][0], parts[1][0], parts[0][1], parts[1][1])

    @property
    def name(self) -> str:
        return "+".join(
            method + (":" + ",".join(f"{k}={_written(v)}" for k, v in given) if given else "")
            for method, given in (
                (self.background, self.background_params),
                (self.inversion, self.inversion_params),
            )
        )

    @property
    def identifier(self) -> str:
        """Name that may stand in a file name."""
        return "".join(c if c.isalnum() or c in "-+" else "-" for c in self.name)


def every_chain() -> tuple[Chain, ...]:
    """Every removal with every inversion; those of a total field without one, or after PDF."""
    return tuple(
        Chain(background, inversion)
        for background in BACKGROUND
        for inversion in INVERSION
        if (background == "none") == (inversion in TOTAL_FIELD)
        or (background, inversion) == ("pdf", "single-step")
    )


@dataclass(frozen=True)
class Study:
    """All parameters; the defaults are those of the study that is repeated.

    Raises
    ------
    ParameterError
        A value out of its range.
    """

    #: Voxels, and their size in mm; None follows from a label image.
    matrix: tuple[int, int, int] | None = (256, 256, 74)
    voxel_size: tuple[float, float, float] | None = (1.0, 1.0, 2.0)
    #: Which of the three conditions.
    only: tuple[str, ...] = ("1", "2", "3")
    #: Susceptibility (ppm) of air in the conditions 2 and 3.
    air_ppm: float = 9.0
    #: Susceptibility (ppm) of white matter in the place of the table's.
    white_matter_ppm: float | None = None
    #: mm of slab, widest last, and where their middle lies along the slices (mm from the middle of
    #: the image).
    slabs: tuple[float, ...] = (92.0, 104.0, 116.0)
    slab_centre: float = 0.0
    #: mm, of the widest slab.
    erosions: tuple[float, ...] = (0.0, 2.0, 4.0)
    chains: tuple[str, ...] = (PRESETS["default"],)
    #: Of the background removal in condition 3: relative to the first residual.
    early_tolerance: float = 0.01
    #: ``field``: the field itself; ``echoes``: the complex signal, its fit and unwrapping.
    signal: str = "field"
    #: Of the first echo in the brain; infinity for none.
    snr: float = float("inf")
    #: ``truth``, or ``magnitude`` for the mask that is found in the first condition's echoes.
    mask: str = "truth"
    echo_fit: str = "anchored"
    unwrap: str = "romeo"
    echo_times: tuple[float, ...] = ECHO_TIMES
    field_strength: float = 3.0
    oblique: float = 0.0
    texture: float = 0.0
    supersample: int | None = None
    shim_order: int | None = None
    seed: int = 0
    #: Few iterations everywhere: a test that it runs, not a result.
    sloppy: bool = False

    def __post_init__(self):
        if self.matrix is not None:
            checked_matrix(self.matrix)
        if self.voxel_size is not None:
            checked_voxel_size(self.voxel_size)
        for name in ("slabs", "erosions"):
            values = tuple(float(v) for v in getattr(self, name))
            if not values or list(values) != sorted(set(values)) or values[0] < 0:
                raise ParameterError(f"The {name} must be increasing lengths in mm, not {values}.")
            object.__setattr__(self, name, values)
        if not self.only or not set(self.only) <= {"1", "2", "3"}:
            raise ParameterError(f"The conditions are 1, 2 and 3, not {self.only}.")
        if self.slabs[0] == 0:
            raise ParameterError("A slab of 0 mm holds nothing.")
        if not self.snr > 0:
            raise ParameterError(f"The SNR must be positive (inf for no noise), not {self.snr}.")
        if not self.early_tolerance > 0:
            raise ParameterError(
                f"The tolerance of condition 3 must be positive, not {self.early_tolerance}."
            )
        for name, choices in (("signal", ("field", "echoes")), ("mask", ("truth", "magnitude"))):
            if getattr(self, name) not in choices:
                raise ParameterError(f"{name} must be one of {', '.join(choices)}.")
        if self.signal == "echoes" and len(self.echo_times) < 2:
            raise ParameterError("The fit over echoes needs two of them.")
        object.__setattr__(
            self, "chains", tuple(dict.fromkeys(Chain.parse(c).name for c in self.chains))
        )
        if not self.chains:
            raise ParameterError("A study needs at least one chain of methods.")
        _ = self.protocol

    @property
    def protocol(self) -> Protocol:
        """The acquisition; without noise and receiver where only its magnitude is used."""
        field = {"field_strength": self.field_strength}
        if self.signal == "echoes":
            return Protocol(self.echo_times, snr=self.snr, **field)
        quiet = {"snr": float("inf"), "phase_offset": False, "receive_bias": 0.0}
        return Protocol(self.echo_times, **quiet, **field)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        air = f"air {self.air_ppm:g} ppm"
        every = (
            Condition("1", "no background", None, False),
            Condition("2", f"{air}, removal converged", self.air_ppm, False),
            Condition("3", f"{air}, removal stopped early", self.air_ppm, True),
        )
        return tuple(c for c in every if c.name in self.only)

    @property
    def sweeps(self) -> dict[str, tuple[Variant, ...]]:
        """Masks of the two sweeps; the widest slab without erosion is in both."""
        return {
            "slab": tuple(Variant(slab, self.erosions[0]) for slab in self.slabs),
            "mask": tuple(Variant(self.slabs[-1], erosion) for erosion in self.erosions),
        }

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every mask once, the reference (widest slab, least erosion) first."""
        masks = [v for sweep in self.sweeps.values() for v in sweep]
        return tuple(dict.fromkeys([Variant(self.slabs[-1], self.erosions[0]), *masks]))

    def removal(self, chain: Chain, condition: Condition) -> tuple[str, dict[str, Any]] | None:
        """Background removal of a chain under a condition, and its parameters.

        A chain that leaves the background to its inversion has no removal that could stop early;
        in condition 3 it gets what an early PDF leaves. What such a PDF takes away is a field of
        sources outside the mask too, so that it should make no difference. None for a removal
        without a tolerance to stop at.
        """
        method, given = chain.background, dict(chain.background_params)
        if condition.early:
            method = "pdf" if method == "none" else method
            if "tolerance" not in method_parameters("background", method):
                return None
            given["tolerance"] = self.early_tolerance
        else:
            given = {**CONVERGED.get(method, {}), **given}
        if self.sloppy:
            kept = {k: v for k, v in given.items() if "iter" not in k}
            given = with_few_iterations("background", method, kept)
        return method, given

    def inversion(self, chain: Chain) -> tuple[str, dict[str, Any]]:
        """Inversion of a chain and its parameters."""
        method, given = chain.inversion, dict(chain.inversion_params)
        if self.sloppy:
            given = with_few_iterations("inversion", method, given)
        return method, given

    def made_sloppy(self) -> Study:
        """The same on a coarse grid with few iterations."""
        if self.matrix is None:
            return replace(self, sloppy=True)
        return replace(self, matrix=(56, 68, 40), voxel_size=(3.0, 3.0, 4.0), sloppy=True)

    def as_dict(self) -> dict[str, Any]:
        """Plain dictionary; infinity becomes the word ``inf``."""
        values = asdict(self)
        return {k: "inf" if v == float("inf") else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Study:
        """Inverse of :meth:`as_dict`, also after a way through JSON."""
        made = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**{k: float("inf") if v == "inf" else v for k, v in made.items()})


def chains_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Names of chains; the word ``all`` stands for :func:`every_chain`."""
    found: list[str] = []
    for text in texts:
        found += [c.name for c in every_chain()] if text == "all" else [Chain.parse(text).name]
    return tuple(dict.fromkeys(found))


def _parameter(item: str) -> tuple[str, Any]:
    key, equals, value = item.partition("=")
    if not key or not equals or not value:
        raise ParameterError(f"{item!r} is not KEY=VALUE.")
    if "/" in value:
        return key, tuple(_value(part) for part in value.split("/"))
    return key, _value(value)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _written(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "/".join(_written(v) for v in value)
    return value if isinstance(value, str) else json.dumps(value)
