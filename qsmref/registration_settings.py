"""Options on templates and registration; a part of :class:`qsmref.settings.Settings`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .options import option as _option


@dataclass(frozen=True)
class RegistrationSettings:
    """Options of registration."""

    template: str | None = _option(
        None,
        "registration",
        "template that maps are registered to and written in: a NIfTI file (a brain, or a head "
        "with a mask), or a name that TemplateFlow knows (MNI152NLin2009cAsym; :res-2 after it "
        "chooses the resolution)",
        metavar="NAME|PATH",
    )
    template_mask: Path | None = _option(
        None,
        "registration",
        "brain mask of a template that is a file; not needed for a brain without skull, nor where "
        "desc-brain_mask is beside it",
        "path",
        metavar="FILE",
    )
    engine: str = _option(
        "auto",
        "registration",
        "programs of the registration, the same for all participants; fsl: BET, FAST and FLIRT for "
        "the T1-weighted image; ants: what is built in; auto: fsl where it is installed. To the "
        "template it is SyN with both",
        choices=("auto", "ants", "fsl"),
    )
    t1w: str = _option(
        "auto",
        "registration",
        "T1-weighted image between map and template; auto: where a participant has one, the "
        "magnitude goes to the template directly otherwise",
        choices=("auto", "required", "ignore"),
    )
