"""Simulated participants: group, age, sex, and the head that goes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .grid import ParameterError
from .head import Head, Region, Shape, vary_susceptibility
from .labels import LabelImage

#: Age (years) at which the regions have the susceptibilities of the table, and the mean age.
MEAN_AGE = 62.0


@dataclass(frozen=True)
class Participant:
    """One simulated participant."""

    #: Label without ``sub-``.
    label: str
    group: str
    #: Years.
    age: int
    #: ``F`` or ``M``.
    sex: str
    #: Seed of everything random about this participant's images.
    seed: int


def draw_participants(count: int, groups: Sequence[str], seed: int = 0) -> list[Participant]:
    """Participants with group, age and sex.

    Groups take turns, so their sizes differ by one at most. Age (SD 8 years, 40 to 85) and sex
    are drawn alike in all groups. A participant depends on the seed and on the place in the list,
    not on how many follow.

    Examples
    --------
    >>> [(p.label, p.group) for p in draw_participants(3, ["patient", "control"])]
    [('01', 'patient'), ('02', 'control'), ('03', 'patient')]
    """
    if count < 1:
        raise ParameterError(f"The number of participants must be at least 1, not {count}.")
    if not groups or len(set(groups)) != len(groups):
        raise ParameterError(f"Group names must differ, not {' '.join(groups)}.")
    width = max(2, len(str(count)))
    out = []
    for number in range(count):
        sequence = np.random.SeedSequence([int(seed), number])
        rng = np.random.default_rng(sequence)
        age = int(np.clip(round(rng.normal(MEAN_AGE, 8.0)), 40, 85))
        out.append(
            Participant(
                f"{number + 1:0{width}d}",
                groups[number % len(groups)],
                age,
                "F" if rng.random() < 0.5 else "M",
                int(sequence.generate_state(1)[0]),
            )
        )
    return out


def participant_head(
    head: Head | LabelImage,
    participant: Participant,
    variation: float = 1.0,
    effect_ppb: Mapping[str, float] | None = None,
) -> Head | LabelImage:
    """Head of one participant.

    Parameters
    ----------
    head : Head or LabelImage
        What the participants vary about. A label image keeps its shape.
    participant : Participant
    variation : float
        Factor on the spread of shape and susceptibility between subjects and on the effect of
        age; 0 gives every participant the same head.
    effect_ppb : mapping of region name to ppb, optional
        Added to the susceptibility of these regions, both sides.
    """
    rng = np.random.default_rng([participant.seed, 1])
    regions = vary_susceptibility(head.regions, rng, variation, participant.age - MEAN_AGE)
    if effect_ppb:
        check_effect(head.regions, effect_ppb)
        regions = tuple(_shifted(region, effect_ppb) for region in regions)
    head = head.with_regions(regions)
    if variation and isinstance(head, Head):
        shape = Shape.random(np.random.default_rng([participant.seed, 2]), variation)
        head = head.with_shape(shape)
    return head


def at_visit(
    effect_ppb: Mapping[str, float] | None, change_ppb: Mapping[str, float] | None, visit: int
) -> dict[str, float]:
    """What is added to each region at a visit (0 is the first), ppb.

    >>> at_visit({"SN": 25.0}, {"SN": 3.0, "RN": -1.0}, 2)
    {'SN': 31.0, 'RN': -2.0}
    """
    effect, change = dict(effect_ppb or {}), dict(change_ppb or {})
    return {name: effect.get(name, 0.0) + visit * change.get(name, 0.0) for name in effect | change}


def check_effect(regions: Sequence[Region], effect_ppb: Mapping[str, float]) -> None:
    """Raise a ParameterError when an effect names no brain region or is no number."""
    known = {name for r in regions if r.brain for name in (r.name, r.abbreviation)}
    for name, ppb in effect_ppb.items():
        if name not in known:
            raise ParameterError(
                f"The effect names the region {name!r}; there are {', '.join(sorted(known))}."
            )
        if not np.isfinite(ppb):
            raise ParameterError(f"The effect on {name} must be a number (ppb), not {ppb}.")


def _shifted(region: Region, effect_ppb: Mapping[str, float]) -> Region:
    names = {region.name, region.abbreviation}
    shift = sum(ppb for name, ppb in effect_ppb.items() if name in names) / 1000
    return replace(region, susceptibility_ppm=round(region.susceptibility_ppm + shift, 6))
