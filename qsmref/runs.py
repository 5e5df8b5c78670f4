"""The objects of one map (echoes, masks, regions), which check themselves when they are made.

A run that exists is consistent: its echoes lie on one grid, its echo times increase, its phase has
a declared scale. Whatever is wrong raises a :class:`~qsmref.problems.DataError` whose message is
the sentence for the user. Voxels are not read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from . import images
from .acquisition import PhaseScale, echo_times, imaging_frequency, phase_scale, sensible
from .headers import Grid, regular_size
from .metadata import acquisition_of, applicable, read_sidecar, relative
from .problems import DataError, ExitCode, shown
from .reconstruction.checks import evenly_spaced
from .reconstruction.dipole import GAMMA_HZ_PER_T

#: T; a stronger field is that of a scanner of animals, or mistyped.
STRONGEST = 12.0


@dataclass(frozen=True)
class Source:
    """A file in a dataset that has a name: what a BIDS URI says."""

    path: Path
    root: Path
    dataset: str
    #: Which volume of the file is meant, from 0; None where the file is one volume.
    volume: int | None = None

    @property
    def uri(self) -> str:
        """BIDS URI, for ``Sources`` in a sidecar."""
        return f"bids:{self.dataset}:{self.name}"

    @property
    def name(self) -> str:
        """Path from the root of the dataset."""
        return relative(self.path, self.root)

    @cached_property
    def grid(self) -> Grid:
        """Shape and affine."""
        return Grid.of(self.path, several=self.volume is not None)

    def sidecar(self) -> dict[str, Any]:
        """Metadata, inherited ones included; of one volume, its own echo time.

        Raises
        ------
        DataError
            When a sidecar is no JSON object, or has not one echo time for each volume.
        """
        metadata, count = read_sidecar(self.path, self.root), self.grid.volumes
        if self.volume is None or metadata.get("EchoTime") is None:
            return metadata
        times = metadata["EchoTime"]
        if not isinstance(times, list) or len(times) != count or None in times:
            raise DataError(
                f"{self.name} has {count} volumes, and EchoTime is {shown(times)}; for echoes in "
                f"one file it must be a list of {count} numbers in seconds."
            )
        return {**metadata, "EchoTime": times[self.volume]}


@dataclass(frozen=True)
class Regions:
    """A label image with the table of its names."""

    atlas: str
    image: Source
    table: Path
    #: ``native`` on the grid of the map, or where a registration must lead from: ``template``,
    #: ``T1w``.
    space: str = "native"

    @classmethod
    def of(cls, atlas: str, image: Source) -> Regions:
        """Label image with the table beside or above it; DataError where there is none."""
        tables = list(applicable(image.path, image.root, ".tsv"))
        if not tables:
            raise DataError(
                f"{image.name} has no dseg.tsv that names its labels; put one beside it, with the "
                "columns index and name.",
                ExitCode.MISSING_INPUT,
            )
        regular_size(tables[-1])
        return cls(atlas, image, tables[-1])


@dataclass(frozen=True)
class Anatomy:
    """The T1-weighted image of a run, and what a derivative has computed of it already.

    Transforms are ITK files, named for the image that they bring over and where to.
    """

    #: None when there is none, or none is to be used.
    t1w: Source | None = None
    #: Whether a derivative made it: its bias field is gone.
    preprocessed: bool = False
    #: Brain in it.
    mask: Source | None = None
    #: From the map to it.
    map_to_t1w: Source | None = None
    #: Whether the map lies on its grid, so that nothing needs to lead from one to the other.
    on_grid: bool = False
    #: From it to the template, and back; both or none. Without an image, from the map.
    to_template: Source | None = None
    from_template: Source | None = None

    @property
    def used(self) -> list[Source]:
        """Everything that is there."""
        parts = (self.t1w, self.mask, self.map_to_t1w, self.to_template, self.from_template)
        return [source for source in parts if source is not None]


@dataclass(frozen=True)
class Run:
    """What every run has; see :class:`EchoRun` and :class:`MapRun`."""

    #: Participant without ``sub-``.
    subject: str
    #: Entities of the run as they stand in file names, such as ``sub-01_acq-x``.
    prefix: str
    #: Brain mask of a derivative, or None.
    mask: Source | None
    #: Label images on the run's grid.
    regions: tuple[Regions, ...]
    #: Sentences for the user about things that are odd but no error.
    warnings: tuple[str, ...]
    #: T1-weighted image that goes with it.
    anatomy: Anatomy = field(default_factory=Anatomy, kw_only=True)

    @property
    def grid(self) -> Grid:
        """Grid of the map."""
        raise NotImplementedError

    def _check_grids(self) -> None:
        others = [(self.mask, "mask")] if self.mask else []
        others += [(r.image, "label image") for r in self.regions if r.space == "native"]
        for source, what in others:
            if not source.grid.same_as(self.grid):
                raise DataError(
                    f"{source.name}: the {what} lies on another grid than {self.prefix} "
                    f"({source.grid.difference(self.grid)}); resample it with nearest-neighbour "
                    "interpolation, or leave it out."
                )

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """mm."""
        return self.grid.voxel_size

    @property
    def b0_direction(self) -> tuple[float, float, float]:
        """Unit vector of B0 in voxel axes."""
        return images.b0_direction(self.grid.affine)


@dataclass(frozen=True)
class EchoRun(Run):
    """Magnitude and phase of the echoes of one acquisition.

    Raises
    ------
    DataError
        Echoes on different grids; a mask or labels on another one; echo times missing, not
        increasing, or not in seconds; a phase of unknown scale; no field strength.
    """

    magnitude: tuple[Source, ...]
    phase: tuple[Source, ...]
    #: Whether these are the real and the imaginary part.
    cartesian: bool = False
    #: Unit and range that the user declared for phases whose sidecars do not say.
    phase_units: str | None = None
    phase_range: tuple[float, float] | None = None
    #: Whether the phase of alternating readouts is going to be corrected.
    bipolar: bool = False
    echo_times: tuple[float, ...] = field(init=False, default=())  #: s
    phase_scale: PhaseScale = field(init=False, default=PhaseScale())
    imaging_frequency: float = field(init=False, default=0.0)  #: Hz
    #: What all sidecars say alike of the acquisition, by the names of BIDS.
    acquisition: Mapping[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self):
        for source in (*self.magnitude, *self.phase):
            if not source.grid.same_as(self.grid):
                raise DataError(
                    f"{source.name} lies on another grid than {self.magnitude[0].name} "
                    f"({source.grid.difference(self.grid)}); echoes must share shape and affine: "
                    "export them again."
                )
            if source.grid.conflict:
                raise DataError(f"{source.name} cannot be trusted: {source.grid.conflict}")
        self._check_grids()
        series = self.magnitude, self.phase
        sidecars = [[(source, source.sidecar()) for source in sources] for sources in series]
        made = {
            "echo_times": echo_times(sidecars[0], sidecars[1]),
            "phase_scale": PhaseScale()
            if self.cartesian
            else phase_scale(sidecars[1], self.phase_units, self.phase_range),
            "imaging_frequency": imaging_frequency(sidecars[1] + sidecars[0]),
            "acquisition": acquisition_of([s for _, s in sidecars[0] + sidecars[1]]),
        }
        for name, value in made.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "warnings", (*self.warnings, *self._doubts()))

    def _doubts(self) -> list[str]:
        """Sentences about what is odd, but may be meant."""
        times, frequency = self.echo_times, self.imaging_frequency
        found = dict.fromkeys(s.grid.doubt for s in (*self.magnitude, *self.phase) if s.grid.doubt)
        doubts = [f"{self.prefix} {doubt}" for doubt in found]
        if frequency > STRONGEST * GAMMA_HZ_PER_T:
            doubts.append(
                f"{self.prefix} has a field of {frequency / GAMMA_HZ_PER_T:.3g} T, which no "
                "scanner of heads has; see whether MagneticFieldStrength or ImagingFrequency is "
                "mistyped."
            )
        alternates = self.acquisition.get("BipolarReadout") is True
        if alternates and not self.bipolar and len(times) > 1:
            remedy = "give --bipolar" if len(times) > 2 else "two echoes cannot tell it"
            doubts.append(
                f"{self.prefix} was read out in alternating directions (BipolarReadout), and what "
                f"that adds to the phase of every other echo stays in the field: {remedy}."
            )
        if len(times) == 1:
            doubts.append(
                f"{self.prefix} has a single echo: the receiver's phase offset stays in the field."
            )
        elif not evenly_spaced(times):
            listed = ", ".join(f"{1000 * t:.4g}" for t in times)
            doubts.append(
                f"{self.prefix} has the echo times {listed} ms, which are not evenly spaced; see "
                "whether one is mistyped."
            )
        return doubts

    @property
    def grid(self) -> Grid:
        """Grid of the first magnitude."""
        return self.magnitude[0].grid

    @property
    def field_strength(self) -> float:
        """Main field, T, by the Larmor frequency."""
        return round(self.imaging_frequency / GAMMA_HZ_PER_T, 6)

    @property
    def magnitude_files(self) -> list[str]:
        """Paths of the magnitude: one an echo, or one of several echoes."""
        return _once(str(source.path) for source in self.magnitude)

    @property
    def phase_files(self) -> list[str]:
        """Paths of the phase, likewise."""
        return _once(str(source.path) for source in self.phase)

    @property
    def sources(self) -> list[str]:
        """BIDS URIs of the images the map is made of."""
        used = [*self.magnitude, *self.phase, *([self.mask] if self.mask else [])]
        return _once(source.uri for source in used)


@dataclass(frozen=True)
class MapRun(Run):
    """A susceptibility map that somebody else made, in ppm.

    Raises
    ------
    DataError
        Mask, labels or magnitudes on another grid; a unit other than ppm.
    """

    chimap: Source
    #: Magnitudes on its grid, for the registration; none where they are not needed.
    magnitude: tuple[Source, ...] = ()
    made_by: tuple[str, ...] = ()  #: Programs, with their versions, as its dataset says.
    metadata: Mapping[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self):
        self._check_grids()
        metadata = self.chimap.sidecar()
        units = metadata.get("Units", "ppm")
        if str(units).lower() != "ppm":
            raise DataError(
                f"{self.chimap.name} has Units {shown(units)}, and a Chimap is in ppm: convert the "
                "map and its sidecar."
            )
        metadata, odd = sensible(metadata)
        object.__setattr__(self, "metadata", metadata)
        warnings = [
            f"{self.chimap.name}: {key} in the sidecar is {shown(value)}, and left out."
            for key, value in odd.items()
        ]
        if self.mask is None:
            warnings.append(
                f"{self.prefix} has no brain mask (desc-brain_mask): there is no whole-brain "
                "reference, and regions count as covered wherever they are labelled."
            )
        object.__setattr__(self, "warnings", (*self.warnings, *warnings))

    @property
    def grid(self) -> Grid:
        """Grid of the map."""
        return self.chimap.grid

    @property
    def sources(self) -> list[str]:
        """BIDS URIs of the map, and the mask where there is one."""
        return [self.chimap.uri, *([self.mask.uri] if self.mask else [])]

    @property
    def magnitude_files(self) -> list[str]:
        """Paths of the magnitude: one an echo, or one of several echoes."""
        return _once(str(source.path) for source in self.magnitude)

    @property
    def brain_is_made(self) -> bool:
        """Whether the registration needs a brain mask that only the magnitude can give."""
        return bool(self.magnitude) and self.mask is None


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
